"""Alarms that are raised by hand, and the announcement of a downgrade."""

from typing import Any

import pytest

from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.quota import changes
from raftkv.store.store import Store
from raftkv.wire.alarms import CORRUPT, NOSPACE
from raftkv.wire.commands import (
    ALARM,
    COMPACT,
    CREATE_CLUSTER,
    DELETE_RANGE,
    DOWNGRADE,
    GUARDED,
    LEASE_GRANT,
    LEASE_REVOKE,
    RANGE,
    SET_ALARM,
    TXN,
)
from tests.unit.store.stores import LIMITS, Driver, get, put

DELETE = [DELETE_RANGE, 0, b"k", b"", 0]
READ = [RANGE, 0, b"k", b"", 0, 0, 0, 0, 0, 0, 0, 0]


def founded() -> Driver:
    driver = Driver(MemoryKeyspace())
    driver.apply([CREATE_CLUSTER, 0, 77, "ml", [[1, "n1", "h1:2380"], [2, "n2", "h2:2380"]]])
    driver.apply(put(b"k", b"v"))
    return driver


def test_one_is_there_until_it_is_taken_back() -> None:
    driver = founded()
    assert driver.apply([ALARM, 0, 2**64 - 1, NOSPACE, True]) == [[0, 2, [[2**64 - 1, NOSPACE]]]]
    assert driver.apply([ALARM, 0, 2**64 - 1, NOSPACE, True])[0][2], "raised again, it is still there"
    assert driver.apply([ALARM, 0, 7, NOSPACE, False]) == [[0, 2, []]]
    assert driver.apply(put(b"k"))[0][1] == "no_space"
    assert driver.apply(DELETE)[0][0] == 0
    assert driver.apply([ALARM, 0, 2**64 - 1, NOSPACE, False])[0][2] == [[2**64 - 1, NOSPACE]]
    assert driver.apply(put(b"k"))[0][0] == 0
    assert driver.store.cluster.all_alarms() == []


def test_what_a_member_raised_itself_is_taken_back_too() -> None:
    driver = founded()
    driver.apply([SET_ALARM, 0, 2, True])
    assert driver.store.cluster.all_alarms() == [(2, NOSPACE)]
    assert driver.apply([ALARM, 0, 2, NOSPACE, False])[0][2] == [[2, NOSPACE]]
    assert driver.apply(put(b"k"))[0][0] == 0


@pytest.mark.parametrize(
    "command",
    [
        put(b"k"),
        DELETE,
        [TXN, 0, [], [DELETE], []],
        [TXN, 0, [], [], [[TXN, 0, [], [put(b"k")], []]]],
        [COMPACT, 0, 2],
        [LEASE_GRANT, 0, 9, 60_000],
        [LEASE_REVOKE, 0, 9],
        [GUARDED, 0, [[b"k", 2]], DELETE],
    ],
)
def test_nothing_changes_while_data_is_said_to_be_corrupt_and_reads_go_on(command: Any) -> None:
    driver = founded()
    driver.apply([ALARM, 0, 1, CORRUPT, True])
    assert changes(command)
    (refusal,) = driver.apply(command)
    assert refusal[1] == "corrupt_alarm"
    assert refusal[4] == {"members": ["n1"]}
    assert driver.store.read(get(b"k"))[2] is not None
    assert driver.apply([TXN, 0, [], [READ], []])[0][0] == 0
    driver.apply([ALARM, 0, 1, CORRUPT, False])
    assert driver.apply(command)[0][1] != "corrupt_alarm"


@pytest.mark.parametrize(
    "command",
    [
        [ALARM, 0, 1, NOSPACE],
        [ALARM, 0, -1, NOSPACE, True],
        [ALARM, 0, "n1", NOSPACE, True],
        [ALARM, 0, 1, 3, True],
        [ALARM, 0, 1, True, True],
        [ALARM, 0, 1, NOSPACE, 1],
        [DOWNGRADE, 0],
        [DOWNGRADE, 0, b"3.4"],
        [DOWNGRADE, 0, "x" * 100],
    ],
)
def test_malformed_ones_are_refused(command: Any) -> None:
    assert founded().apply(command)[0][1] == "invalid_request"


def test_one_downgrade_is_announced_at_a_time() -> None:
    driver = founded()
    assert driver.apply([DOWNGRADE, 0, ""]) == [[0, 2, False]]
    assert driver.apply([DOWNGRADE, 0, "3.4.0"]) == [[0, 2, True]]
    assert driver.apply([DOWNGRADE, 0, "3.4.0"]) == [[0, 2, False]]
    assert driver.store.cluster.downgrade == "3.4.0"
    assert driver.apply([DOWNGRADE, 0, ""]) == [[0, 2, True]]


def test_they_are_saved_and_part_of_the_digest() -> None:
    keyspace = MemoryKeyspace()
    driver, without = Driver(keyspace), Driver(MemoryKeyspace())
    for command in ([ALARM, 0, 5, CORRUPT, True], [DOWNGRADE, 0, "3.4.0"]):
        driver.apply(command)
        without.apply(put(b"k"))
        assert driver.store.digest != without.store.digest
    driver.commit()
    again = Store.open(keyspace, LIMITS).cluster
    assert again.all_alarms() == [(5, CORRUPT)]
    assert again.downgrade == "3.4.0"
    assert again.alarm_names(CORRUPT) == ["5"], "who has no name has a number"
