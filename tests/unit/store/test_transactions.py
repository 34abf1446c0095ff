"""TXN: one test per rule of etcd."""

from typing import Any

import pytest

from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.wire.commands import (
    COMPARE_CREATE,
    COMPARE_LEASE,
    COMPARE_MOD,
    COMPARE_VALUE,
    COMPARE_VERSION,
    DELETE_RANGE,
    EQUAL,
    GREATER,
    IGNORE_LEASE,
    IGNORE_VALUE,
    LESS,
    NOT_EQUAL,
    PREV_KV,
    PUT,
    RANGE,
    READ_TXN,
    SERIALIZABLE,
    TXN,
    as_read,
    only_reads,
)
from tests.unit.store.stores import Driver, delete, put, ranged, txn


@pytest.fixture
def driver() -> Driver:
    """a=1 at revision 2 and 4 (version 2), b=2 at revision 3."""
    made = Driver(MemoryKeyspace())
    made.apply(put(b"a", b"0"), put(b"b", b"2"), put(b"a", b"1"))
    return made


def holds(driver: Driver, *compare: Any, range_end: bytes = b"") -> bool:
    answer = driver.apply(txn([[*compare, range_end]], [], []))[0]
    assert answer[:2] == [0, driver.store.revision]
    return bool(answer[2])


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        ((EQUAL, COMPARE_VERSION, b"a", 2), True),
        ((EQUAL, COMPARE_CREATE, b"a", 2), True),
        ((EQUAL, COMPARE_MOD, b"a", 4), True),
        ((GREATER, COMPARE_MOD, b"a", 3), True),
        ((LESS, COMPARE_MOD, b"a", 4), False),
        ((NOT_EQUAL, COMPARE_MOD, b"a", 4), False),
        ((EQUAL, COMPARE_VALUE, b"a", b"1"), True),
        ((LESS, COMPARE_VALUE, b"a", b"10"), True),
        ((EQUAL, COMPARE_LEASE, b"a", 0), True),
        ((EQUAL, COMPARE_LEASE, b"a", None), True),
        # A missing key counts as zeros, but a value compare on it is always false.
        ((EQUAL, COMPARE_CREATE, b"none", 0), True),
        ((EQUAL, COMPARE_VERSION, b"none", 0), True),
        ((LESS, COMPARE_MOD, b"none", 1), True),
        ((EQUAL, COMPARE_VALUE, b"none", b""), False),
        ((NOT_EQUAL, COMPARE_VALUE, b"none", b""), False),
    ],
)
def test_compares(driver: Driver, compare: tuple[Any, ...], expected: bool) -> None:
    assert holds(driver, *compare) is expected


def test_a_compare_of_a_range_is_about_all_of_its_keys(driver: Driver) -> None:
    assert holds(driver, GREATER, COMPARE_MOD, b"a", 2, range_end=b"\0")
    assert not holds(driver, GREATER, COMPARE_MOD, b"a", 3, range_end=b"\0")
    assert holds(driver, EQUAL, COMPARE_CREATE, b"x", 0, range_end=b"z")
    assert not holds(driver, EQUAL, COMPARE_VALUE, b"x", b"", range_end=b"z")


def test_an_empty_transaction_succeeds_and_changes_nothing(driver: Driver) -> None:
    assert driver.apply(txn([], [], [])) == [[0, 4, True, []]]


def test_operations_share_one_revision_and_see_each_other(driver: Driver) -> None:
    operations = [ranged(), put(b"c", b"3"), ranged(b"c", b""), delete(b"a", flags=PREV_KV), ranged(b"\0", b"\0")]
    answer = driver.apply(txn([], operations, []))[0]
    assert answer == [
        0,
        5,
        True,
        [
            [RANGE, 4, [[b"a", 2, 4, 2, 0, b"1"], [b"b", 3, 3, 1, 0, b"2"]], False, 2],
            [PUT, 5, None],
            [RANGE, 5, [[b"c", 5, 5, 1, 0, b"3"]], False, 1],
            [DELETE_RANGE, 5, 1, [[b"a", 2, 4, 2, 0, b"1"]]],
            [RANGE, 5, [[b"b", 3, 3, 1, 0, b"2"], [b"c", 5, 5, 1, 0, b"3"]], False, 2],
        ],
    ]


def test_a_range_at_an_old_revision_sees_only_what_was_before(driver: Driver) -> None:
    answer = driver.apply(txn([], [delete(b"a"), ranged(revision=4), ranged(revision=2)], []))[0]
    assert [[items[5] for items in response[2]] for response in answer[3][1:]] == [[b"1", b"2"], [b"0"]]


def test_an_error_changes_nothing(driver: Driver) -> None:
    for operation, code in (
        (ranged(revision=5), "future_revision"),
        (ranged(revision=-2), "compacted"),
        (put(b"x", lease=9), "lease_not_found"),
        (put(b"x", b"", flags=IGNORE_VALUE), "key_not_found"),
    ):
        digest = driver.store.digest
        answer = driver.apply(txn([], [put(b"c"), delete(b"a"), operation], []))[0]
        assert answer[:2] == [1, code]
        assert (driver.store.revision, driver.keys()) == (4, [b"a", b"b"])
        assert driver.store.digest != digest, "the entry itself is folded"
    assert driver.apply(txn([], [ranged(revision=-1)], []))[0][0] == 0, "nothing was compacted: -1 is not below -1"


def test_only_the_branch_taken_is_checked_for_missing_keys(driver: Driver) -> None:
    missing = put(b"x", b"", flags=IGNORE_VALUE)
    assert driver.apply(txn([], [put(b"c")], [missing]))[0][0] == 0


def test_nested_compares_see_the_state_before_the_whole(driver: Driver) -> None:
    inner = txn([[EQUAL, COMPARE_VALUE, b"a", b"1", b""]], [put(b"d", b"then")], [put(b"d", b"else")])
    answer = driver.apply(txn([], [put(b"a", b"9"), inner], []))[0]
    assert answer[3][1] == [TXN, 5, True, [[PUT, 5, None]]]
    assert driver.store.read(ranged(b"d", b""))[2][0][5] == b"then"


def test_a_key_can_be_deleted_and_put_at_one_revision(driver: Driver) -> None:
    driver.apply(txn([], [delete(b"a", b"\0"), put(b"b", b"new")], []))
    assert driver.store.read(ranged())[2] == [[b"b", 5, 5, 1, 0, b"new"]]
    driver.apply(txn([], [txn([], [put(b"q", b"1")], []), txn([], [delete(b"q")], [])], []))
    for _ in range(2):
        assert driver.keys() == [b"b"]
        assert driver.keys(ranged(revision=5)) == [b"b"]
        assert driver.keys(ranged(revision=4)) == [b"a", b"b"]
        assert driver.keys(ranged(revision=6)) == [b"b"]
        driver.commit() if driver.store.durable_applied_index == 0 else None


def test_ignore_value_on_a_key_that_the_transaction_has_just_deleted(driver: Driver) -> None:
    for flags in (IGNORE_VALUE, IGNORE_LEASE):
        answer = driver.apply(txn([], [delete(b"a", b"\0"), put(b"b", b"", flags=flags)], []))[0]
        assert answer[:2] == [1, "key_not_found"]
    assert driver.keys() == [b"a", b"b"]


def test_ignore_value_keeps_it(driver: Driver) -> None:
    answer = driver.apply(put(b"a", b"", flags=IGNORE_VALUE | IGNORE_LEASE | PREV_KV))[0]
    assert answer == [0, 5, [b"a", 2, 4, 2, 0, b"1"]]
    assert driver.store.read(ranged(b"a", b""))[2] == [[b"a", 2, 5, 3, 0, b"1"]]
    assert driver.apply(put(b"x", b"", flags=IGNORE_VALUE, lease=9))[0][1] == "lease_not_found", "the lease comes first"


def test_one_that_only_reads_needs_no_entry_and_says_the_same(driver: Driver) -> None:
    inner = txn([[EQUAL, COMPARE_VALUE, b"a", b"1", b""]], [ranged(b"b", b"")], [])
    command = txn([[EQUAL, COMPARE_VERSION, b"a", 2, b""]], [ranged(), inner, ranged(revision=2)], [ranged(b"x", b"")])
    reading = as_read(command)
    assert reading[:2] == [READ_TXN, 0]
    applied = driver.store.applied_index
    answer = driver.store.read(reading)
    assert driver.store.applied_index == applied
    assert answer == driver.apply(command)[0]
    assert answer[3][1] == [TXN, 4, True, [[RANGE, 4, [[b"b", 3, 3, 1, 0, b"2"]], False, 1]]]


def test_what_may_change_something_is_no_read(driver: Driver) -> None:
    reads = [txn([], [], []), txn([], [ranged()], [ranged()]), txn([], [], [txn([], [ranged()], [])])]
    assert all(only_reads(command) for command in reads)
    writes = [
        txn([], [], [put(b"a", b"")]),
        txn([], [ranged(), delete(b"a")], []),
        txn([], [txn([], [], [put(b"a", b"")])], []),
    ]
    for command in (*writes, txn([], [[]], []), put(b"a", b"")):
        assert as_read(command) is command, "also when it is not valid: it is refused where writes are"


def test_a_transaction_may_be_stale_when_all_its_ranges_may(driver: Driver) -> None:
    stale, strict = ranged(), ranged()
    stale[1] |= SERIALIZABLE
    assert as_read(txn([], [stale], [txn([], [stale], [])]))[1] == SERIALIZABLE
    assert as_read(txn([], [stale], [strict]))[1] == 0
    assert as_read(txn([], [], []))[1] == 0, "its compares are to be current"
