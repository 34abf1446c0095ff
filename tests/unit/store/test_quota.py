"""What a store that is over its quota refuses, and what not."""

from typing import Any

import pytest

from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.quota import grows
from raftkv.wire.commands import (
    APPEND,
    CREATE_CLUSTER,
    DELETE_RANGE,
    GUARDED,
    INCREMENT,
    LEASE_GRANT,
    LEASE_REVOKE,
    SET_ALARM,
    TXN,
)
from tests.unit.store.stores import Driver, put

DELETE = [DELETE_RANGE, 0, b"k", b"", 0]


def with_alarm() -> Driver:
    driver = Driver(MemoryKeyspace())
    driver.apply([CREATE_CLUSTER, 0, 77, "ml", [[1, "n1", "h1:2380"], [2, "n2", "h2:2380"]]])
    driver.apply(put(b"k", b"v"))
    driver.apply([SET_ALARM, 0, 2, True])
    return driver


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (put(b"k", b"v"), True),
        ([INCREMENT, 0, b"n", 1], True),
        ([APPEND, 0, b"k", b"v"], True),
        ([LEASE_GRANT, 0, 0, 10_000], True),
        ([TXN, 0, [], [DELETE], [put(b"k", b"v")]], True),
        ([TXN, 0, [], [[TXN, 0, [], [put(b"k", b"v")], []]], []], True),
        ([GUARDED, 0, [[b"l", 2]], put(b"k", b"v")], True),
        (DELETE, False),
        ([LEASE_REVOKE, 0, 7], False),
        ([TXN, 0, [], [DELETE], []], False),
        ([GUARDED, 0, [[b"l", 2]], DELETE], False),
        ([TXN, 0, [], None, 5], False),
        ([], False),
        (None, False),
    ],
)
def test_what_grows(command: Any, expected: bool) -> None:
    assert grows(command) is expected


def test_while_a_member_is_over_its_quota_nothing_grows_and_the_way_out_is_open() -> None:
    driver = with_alarm()
    (refusal,) = driver.apply(put(b"k2", b"v"))
    assert refusal[1] == "no_space"
    assert not refusal[2], "surely not done"
    assert "over its quota on n2" in refusal[3]
    assert driver.apply([DELETE_RANGE, 0, b"k", b"", 0])[0][2] == 1
    driver.apply([SET_ALARM, 0, 2, False])
    assert driver.apply(put(b"k2", b"v"))[0][0] == 0


def test_the_alarm_survives_a_restart_and_is_folded_into_the_digest() -> None:
    driver = with_alarm()
    driver.commit()
    again = Driver(driver.store.keyspace)
    assert again.store.full_members == {2}
    assert again.apply(put(b"k2", b"v"))[0][1] == "no_space"
    before = driver.store.digest
    driver.apply([SET_ALARM, 0, 2, False])
    assert driver.store.digest != before


def test_an_alarm_of_nobody_changes_nothing() -> None:
    driver = with_alarm()
    driver.apply([SET_ALARM, 0, 2, False])
    assert driver.apply([SET_ALARM, 0, 9, True])[0][0] == 0
    assert driver.store.full_members == frozenset()
    for command in ([SET_ALARM, 0, 2], [SET_ALARM, 0, 0, True], [SET_ALARM, 0, 2, 1]):
        assert driver.apply(command)[0][1] == "invalid_request"
