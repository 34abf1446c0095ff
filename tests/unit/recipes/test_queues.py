"""The decisions of locks and semaphores, from what a range found: who holds, who waits, and for whom."""

import json

import pytest

from raftkv.client.results import KeyValue, RangeResult
from raftkv.errors import LockLost
from raftkv.recipes.lock import line_up, places, standing
from raftkv.recipes.semaphore import Standing, blockers, standing_of


def entry(key: bytes, created: int, value: bytes = b"") -> KeyValue:
    return KeyValue(key, created, created, 1, 7, value)


WRITERS = [entry(b"l/c", 9), entry(b"l/a", 3), entry(b"l/b", 5)]  # in key order they would be another queue
READERS = [entry(b"l/a-r", 3), entry(b"l/b-r", 5), entry(b"l/c", 7), entry(b"l/d-r", 9)]


def test_a_writer_waits_for_the_one_before_it() -> None:
    assert standing(WRITERS, b"l/a", False) == (3, None)
    assert standing(WRITERS, b"l/b", False) == (5, b"l/a")
    assert standing(WRITERS, b"l/c", False) == (9, b"l/b")
    assert standing(WRITERS, b"l/gone", False) == (0, None)


def test_readers_wait_for_the_last_writer_before_them_only() -> None:
    assert standing(READERS, b"l/b-r", True) == (5, None)
    assert standing(READERS, b"l/c", False) == (7, b"l/b-r")
    assert standing(READERS, b"l/d-r", True) == (9, b"l/c")


def test_data_under_the_name_is_no_place() -> None:
    ours = entry(b"l/7", 3)
    others = [entry(b"l/7-00ff-r", 4), entry(b"l/8", 4), entry(b"l/model", 1), ours._replace(lease=0)]
    assert places([ours, *others], b"l/") == [ours, others[0]]


def test_the_line_says_who_holds() -> None:
    assert [holder.holds for holder in line_up(WRITERS)] == [True, False, False]
    assert [holder.token for holder in line_up(WRITERS)] == [3, 5, 9]
    assert [holder.holds for holder in line_up(READERS)] == [True, True, False, False]
    assert line_up([]) == []


def semaphore(*entries: tuple[str, int, int, int], limit: int = 5) -> Standing:
    """(key behind NAME/, created, weight, priority)"""
    kvs = [entry(b"s/limit", 1, b"%d" % limit), entry(b"s/bell", 2)]
    for key, created, weight, priority in entries:
        value = json.dumps({"weight": weight, "priority": priority, "owner": ""}).encode()
        kvs.append(entry(b"s/" + key.encode(), created, value))
    kvs.append(entry(b"s/data", 3))
    return standing_of(b"s/", RangeResult(kvs, len(kvs), False, 20))


def test_the_head_goes_in_when_it_fits_and_nobody_else() -> None:
    now = semaphore(("h/7-1", 3, 3, 0), ("q/7-2", 4, 3, 0), ("q/7-3", 5, 1, 0))
    assert (now.capacity, now.used) == (5, 3)
    assert blockers(now, b"s/q/7-2") == (False, [b"s/h/7-1"])
    assert blockers(now, b"s/q/7-3") == (False, [b"s/q/7-2"]), "the small one would fit, and waits"
    assert blockers(semaphore(("q/7-2", 4, 3, 0), ("q/7-3", 5, 1, 0)), b"s/q/7-2") == (True, [])


def test_priority_comes_before_age() -> None:
    now = semaphore(("q/7-1", 3, 1, 0), ("q/7-2", 4, 1, 9), ("q/7-3", 5, 1, 9))
    assert [waiting.key for waiting in now.waiting] == [b"s/q/7-2", b"s/q/7-3", b"s/q/7-1"]
    assert blockers(now, b"s/q/7-2") == (True, [])
    assert blockers(now, b"s/q/7-1") == (False, [b"s/q/7-3"])


def test_a_capacity_that_became_too_small_lets_nobody_in() -> None:
    assert blockers(semaphore(("q/7-1", 3, 3, 0), limit=2), b"s/q/7-1") == (False, [])


def test_a_place_that_is_gone_is_a_loss() -> None:
    with pytest.raises(LockLost):
        blockers(semaphore(), b"s/q/7-1")
