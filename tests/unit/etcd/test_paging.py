"""Ranges that do not fit into one answer, read in pages from a store that cuts after a few bytes."""

from dataclasses import replace
from typing import Any

import pytest

from raftkv.errors import RequestTooLarge
from raftkv.etcd.paging import next_page
from raftkv.limits import Limits
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.wire.commands import KEYS_ONLY, SORT_ASCEND, SORT_DESCEND, SORT_KEY, SORT_MOD, SORT_NONE
from tests.unit.store.stores import LIMITS, Driver, put, ranged

SMALL: Limits = replace(LIMITS, range_reply_bytes_max=520)


@pytest.fixture
def stores() -> tuple[Driver, Driver]:
    """The same 30 keys, in a store that answers 520 bytes at a time and in one that answers everything."""
    pair = Driver(MemoryKeyspace(), SMALL), Driver(MemoryKeyspace())
    for driver in pair:
        driver.apply(*(put(b"k%02d" % number, b"v" * 60) for number in range(30)))
    return pair


def paged(driver: Driver, command: Any, between: Any = None) -> tuple[Any, int]:
    pages = [driver.store.read(command)]
    while (following := next_page(command, pages[-1])) is not None:
        if between is not None:
            driver.apply(between)
        command = following
        pages.append(driver.store.read(command))
    first, last = pages[0], pages[-1]
    return [first[0], first[1], [items for page in pages for items in page[2]], last[3], first[4]], len(pages)


@pytest.mark.parametrize("limit", [0, -1, 1, 2, 3, 4, 5, 29, 30, 31])
@pytest.mark.parametrize("order", [SORT_NONE, SORT_ASCEND, SORT_DESCEND])
def test_pages_are_together_what_was_asked_for(stores: tuple[Driver, Driver], limit: int, order: int) -> None:
    small, whole = stores
    for bounds in ((0, 0, 0, 0), (5, 20, 0, 0)):
        command = ranged(b"k", b"\0", limit=limit, order=order, bounds=bounds)
        answer, pages = paged(small, command)
        assert answer == whole.store.read(command)
        assert pages > 1 or 0 < limit <= 3


def test_all_pages_are_of_one_revision(stores: tuple[Driver, Driver]) -> None:
    small, whole = stores
    expected = whole.store.read(ranged())
    answer, pages = paged(small, ranged(), between=put(b"k29", b"new"))
    assert pages > 5
    assert answer == expected
    past = ranged(revision=12)
    assert paged(small, past)[0][2] == whole.store.read(past)[2]


def test_keys_only_fit_into_fewer_pages(stores: tuple[Driver, Driver]) -> None:
    small, whole = stores
    answer, pages = paged(small, ranged(flags=KEYS_ONLY))
    assert answer == whole.store.read(ranged(flags=KEYS_ONLY))
    assert pages < paged(small, ranged())[1]


def test_an_answer_that_was_not_cut_has_no_next_page(stores: tuple[Driver, Driver]) -> None:
    small, _ = stores
    for command in (ranged(b"k00", b""), ranged(b"k", b"\0", limit=3), ranged(b"x", b"z")):
        assert next_page(command, small.store.read(command)) is None


def test_another_order_cannot_be_paged(stores: tuple[Driver, Driver]) -> None:
    small, _ = stores
    command = ranged(order=SORT_ASCEND, target=SORT_MOD)
    with pytest.raises(RequestTooLarge, match="set a limit"):
        next_page(command, small.store.read(command))
    fits = ranged(order=SORT_ASCEND, target=SORT_MOD, limit=2)
    assert next_page(fits, small.store.read(fits)) is None
    assert next_page(ranged(target=SORT_KEY), small.store.read(ranged(target=SORT_KEY))) is not None
