"""Server-side waits: answered once, with what was true, at the revision at which it was."""

from typing import Any

import pytest

from raftkv.errors import ShuttingDown
from raftkv.limits import Limits
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.store import Store
from raftkv.store.watches import WatchHub
from raftkv.wire.protocol import WAIT
from raftkv.wire.watching import UNTIL_CHANGED, UNTIL_DELETED, UNTIL_DIFFERS, UNTIL_EXISTS
from tests.unit.store.stores import LIMITS, Driver, delete, put, txn


class Bench:
    def __init__(self) -> None:
        self.driver = Driver(MemoryKeyspace())
        self.hub = WatchHub(Limits())
        self.driver.store.tell(self.hub)
        self.answers: list[Any] = []

    def wait(self, condition: int, *keys: bytes, every: bool = True, revision: int = 0, deadline_ms: int = 1000) -> Any:
        return self.hub.waits.add([WAIT, condition, every, list(keys), revision], self.answers.append, deadline_ms)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_is_true_already_is_answered_at_once(bench: Bench) -> None:
    bench.driver.apply(put(b"a", b"1"))
    assert bench.wait(UNTIL_EXISTS, b"a") is None
    assert bench.wait(UNTIL_DELETED, b"b") is None
    assert bench.answers == [[0, 2, [[b"a", 2, 2, 1, 0, b"1"]]], [0, 2, [None]]]
    assert len(bench.hub.waits) == 0


def test_all_and_any(bench: Bench) -> None:
    bench.wait(UNTIL_EXISTS, b"a", b"b")
    bench.driver.apply(put(b"a"))
    assert bench.answers == []
    bench.driver.apply(delete(b"a"))
    bench.driver.apply(put(b"b"))
    assert bench.answers == [], "both at the same time"
    bench.driver.apply(put(b"a"))
    assert [items[0] for items in bench.answers[0][2]] == [b"a", b"b"]
    bench.wait(UNTIL_EXISTS, b"x", b"y", every=False)
    bench.driver.apply(put(b"y"))
    assert [items and items[0] for items in bench.answers[1][2]] == [None, b"y"]


def test_differs_means_written_or_gone_after_a_revision(bench: Bench) -> None:
    bench.driver.apply(put(b"a"))
    bench.driver.apply(put(b"b"))
    bench.wait(UNTIL_DIFFERS, b"a", b"b", every=False, revision=3)
    assert bench.answers == []
    bench.driver.apply(delete(b"a"))
    assert bench.answers[0][2][0] is None
    bench.wait(UNTIL_DIFFERS, b"a", b"b", every=False, revision=4)
    assert bench.answers[1][1] == 4, "gone already"
    bench.wait(UNTIL_DIFFERS, b"b", revision=4)
    bench.driver.apply(put(b"b", b"2"))
    assert bench.answers[2][1] == 5


def test_changed_means_written_after_a_revision(bench: Bench) -> None:
    bench.driver.apply(put(b"a"))
    bench.wait(UNTIL_CHANGED, b"a", revision=2)
    bench.driver.apply(delete(b"a"))
    assert bench.answers == []
    bench.driver.apply(put(b"a", b"2"))
    assert bench.answers == [[0, 4, [[b"a", 4, 4, 1, 0, b"2"]]]]


def test_deleted(bench: Bench) -> None:
    bench.driver.apply(put(b"a"), put(b"b"))
    bench.wait(UNTIL_DELETED, b"a", b"b")
    bench.driver.apply(delete(b"a"))
    assert bench.answers == []
    bench.driver.apply(delete(b"b"))
    assert bench.answers == [[0, 5, [None, None]]]


def test_what_the_next_revision_undoes_counts_and_what_its_own_revision_undoes_does_not(bench: Bench) -> None:
    bench.wait(UNTIL_EXISTS, b"a")
    bench.driver.apply(txn([], [put(b"a"), txn([], [delete(b"b")], [])], []), delete(b"a"))
    assert bench.answers == [[0, 2, [[b"a", 2, 2, 1, 0, b"v"]]]]
    bench.driver.apply(put(b"b"))
    bench.wait(UNTIL_DELETED, b"b")
    bench.driver.apply(txn([], [delete(b"b", b"\0"), put(b"b")], []))
    assert len(bench.answers) == 1


def test_time_and_shutdown_end_it_once(bench: Bench) -> None:
    bench.wait(UNTIL_EXISTS, b"a", deadline_ms=10)
    bench.wait(UNTIL_EXISTS, b"a", deadline_ms=20)
    bench.hub.waits.expire(9)
    assert bench.answers == []
    bench.hub.waits.expire(10)
    assert [answer[1] for answer in bench.answers] == ["deadline_exceeded"]
    bench.hub.waits.fail_all(ShuttingDown())
    assert [answer[1] for answer in bench.answers] == ["deadline_exceeded", "shutting_down"]
    bench.driver.apply(put(b"a"))
    assert len(bench.answers) == 2
    assert not bench.hub.is_active


def test_who_is_gone_is_not_answered(bench: Bench) -> None:
    wait = bench.wait(UNTIL_EXISTS, b"a", b"a")
    bench.hub.waits.remove(wait)
    bench.hub.waits.remove(wait)
    bench.driver.apply(put(b"a"))
    assert bench.answers == []


def test_a_thousand_waiters_are_answered_by_one_write(bench: Bench) -> None:
    for _ in range(1000):
        bench.wait(UNTIL_EXISTS, b"go")
    bench.driver.apply(put(b"go"))
    assert len(bench.answers) == 1000


def test_another_store_is_looked_at(bench: Bench) -> None:
    bench.wait(UNTIL_EXISTS, b"a")
    other = Driver(MemoryKeyspace())
    other.apply(put(b"a"))
    other.commit()
    bench.driver.store.close()
    Store.open(other.store.keyspace, LIMITS).tell(bench.hub)
    assert [answer[0] for answer in bench.answers] == [0]
