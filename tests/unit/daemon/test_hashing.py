"""The hash of a member's data between everything else: in slices, one at a time, and over a store that is replaced meanwhile."""

import asyncio
from typing import Any

import pytest

from raftkv.daemon.hashing import Hashing
from raftkv.errors import Diverged, FutureRevision, Overloaded, RaftKVError
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.store import Store
from tests.unit.conftest import Run
from tests.unit.store.stores import Driver, put


def filled() -> Store:
    driver = Driver(MemoryKeyspace())
    for number in range(2_000):
        driver.apply(put(b"k%04d" % number))
    return driver.store


class Place:
    """Where the store is."""

    def __init__(self) -> None:
        self.store = filled()
        self.refusal: RaftKVError | None = None


def hashing_of(place: Any) -> Hashing:
    return Hashing(place)


def test_others_have_their_turn_in_between(run: Run) -> None:
    async def scenario() -> None:
        hashing = hashing_of(Place())
        tasks = [asyncio.create_task(hashing.hash_content(0)) for _ in range(2)]
        turns = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            turns += 1
        first, second = (task.result() for task in tasks)
        assert (first.checksum, first.revision) == (second.checksum, 2_001)
        assert turns > 4, "2,000 events are several steps, and one asks after the other"

    run(scenario())


def test_a_store_that_takes_the_place_of_another_is_hashed_as_of_the_same_revision(run: Run) -> None:
    async def scenario() -> None:
        place = Place()
        hashing = hashing_of(place)
        expected = await hashing.hash_content(0)
        task = asyncio.create_task(hashing.hash_content(0))
        await asyncio.sleep(0)
        assert not task.done()
        replacement = Driver(MemoryKeyspace())
        for number in range(2_000):
            replacement.apply(put(b"k%04d" % number))
        replacement.apply(put(b"later"))
        place.store = replacement.store
        again = await task
        assert (again.checksum, again.revision) == (expected.checksum, 2_001)

    run(scenario())


def test_a_store_that_may_not_be_read_is_not_hashed(run: Run) -> None:
    async def scenario() -> None:
        place = Place()
        hashing = hashing_of(place)
        task = asyncio.create_task(hashing.hash_content(0))
        await asyncio.sleep(0)
        place.refusal = Overloaded("this member is taking in a snapshot")
        with pytest.raises(Overloaded):
            await task
        place.refusal = Diverged("another store")
        with pytest.raises(Diverged):
            await hashing.hash_content(0)
        place.refusal = None
        with pytest.raises(FutureRevision):
            await hashing.hash_content(9_999)

    run(scenario())
