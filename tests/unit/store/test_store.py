"""The store's own life: commands, commit cycle, bounds, restart, entries that it must not guess."""

from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import Corruption, InvalidRequest, NoSpace, Unsupported
from raftkv.limits import MIB, Limits
from raftkv.raft.membership import encode_configuration
from raftkv.raft.messages import ENTRY_COMMANDS, ENTRY_CONFIGURATION, ENTRY_NOOP, Configuration, Entry
from raftkv.store.keyspace import META, TableChange
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.meta import STATE_KEY
from raftkv.store.store import Store
from raftkv.wire.commands import GET, PREV_KV, encode_batch
from tests.unit.store.stores import (
    LIMITS,
    SESSION,
    TWINS,
    Driver,
    append,
    delete,
    get,
    increment,
    keyspace_of,
    put,
    ranged,
)


@pytest.fixture
def driver() -> Driver:
    return Driver(MemoryKeyspace())


def test_put_get_and_versions(driver: Driver) -> None:
    assert driver.apply(put(b"a", b"1"), put(b"a", b"1", flags=PREV_KV)) == [
        [0, 2, None],
        [0, 3, [b"a", 2, 2, 1, 0, b"1"]],
    ]
    assert driver.store.read(get(b"a")) == [0, 3, [b"a", 2, 3, 2, 0, b"1"]]
    assert driver.store.read(get(b"b")) == [0, 3, None]


def test_a_new_generation_begins_after_a_delete(driver: Driver) -> None:
    driver.apply(put(b"a"), put(b"a"), delete(b"a"), put(b"a", b"2"))
    assert driver.store.read(get(b"a"))[2] == [b"a", 5, 5, 1, 0, b"2"]


def test_delete_range(driver: Driver) -> None:
    driver.apply(put(b"a", b"1"), put(b"b", b"2"), put(b"c", b"3"))
    assert driver.apply(delete(b"a", b"c", flags=PREV_KV)) == [
        [0, 5, 2, [[b"a", 2, 2, 1, 0, b"1"], [b"b", 3, 3, 1, 0, b"2"]]]
    ]
    assert driver.apply(delete(b"a"), delete(b"x", b"a"), delete(b"c")) == [[0, 5, 0, []], [0, 5, 0, []], [0, 6, 1, []]]


def test_increment_and_append(driver: Driver) -> None:
    assert driver.apply(increment(b"n", 5), increment(b"n", -7)) == [[0, 2, 5], [0, 3, -2]]
    assert driver.apply(append(b"t", b"ab"), append(b"t", b""), append(b"t", b"c")) == [[0, 4, 2], [0, 5, 2], [0, 6, 3]]
    assert driver.store.read(get(b"n"))[2][5] == b"-2"
    assert driver.store.read(get(b"t"))[2][5] == b"abc"


@pytest.mark.parametrize("text", [b"", b" 1", b"1_0", b"+1", b"1.0", b"0x1", b"1\n", b"9" * 30, b"9223372036854775808"])
def test_what_is_no_number_is_not_incremented(driver: Driver, text: bytes) -> None:
    driver.apply(put(b"n", text))
    assert driver.apply(increment(b"n"))[0][1] == "not_a_number"
    assert driver.store.read(get(b"n"))[2][5] == text


def test_an_increment_stays_within_64_bits(driver: Driver) -> None:
    driver.apply(put(b"n", b"%d" % (2**63 - 1)))
    assert driver.apply(increment(b"n"))[0][1] == "not_a_number"
    assert driver.apply(increment(b"n", -(2**63)))[0] == [0, 3, -1]
    assert driver.apply(increment(b"n", -(2**63)))[0][1] == "not_a_number"


def test_an_append_is_bounded_as_a_value(driver: Driver) -> None:
    driver.apply(put(b"t", b"x" * LIMITS.value_bytes_max))
    assert driver.apply(append(b"t", b"y"))[0][1] == "value_too_large"


def test_reads_of_other_commands_are_refused(driver: Driver) -> None:
    for command in (put(b"a"), [GET, 0, b""], [GET, 0, "text"], [99, 0]):
        with pytest.raises(InvalidRequest):
            driver.store.read(command)


MALFORMED: list[Any] = [
    *(None, 7, [], {}, "text", b"\1\0\0\0\0\0", [None], [[], 0], [1], [64, 0, b"a"], [80, 0]),
    *([1.0, 0, b"a", b"", 0, 0], [True, 0, b"a", b"", 0, 0], [1, None, b"a", b"", 0, 0], [1, -1, b"a", b"", 0, 0]),
    *([1, 0, b"a", b"", 0], [1, 0, "a", b"", 0, 0], [1, 0, b"a", None, 0, 0], [1, 0, b"a", b"", 0, 64]),
    *(
        [1, 0, b"a", b"", 0, []],
        [1, 0, b"a", b"", False, 0],
        [2, 0, b"a", None, 0],
        [4, 0, b"a", 2**63],
        [5, 0, b"a", ""],
    ),
    *(
        [3, 0, [], [[1, 1, b"a", b"", 0, 0]], []],
        [3, 0, [], [[64, 0, b"a"]], []],
        [3, 0, [[]], [], []],
        [3, 0, {}, [], []],
    ),
]


@pytest.mark.parametrize("command", MALFORMED)
def test_a_malformed_command_is_refused_and_changes_nothing(driver: Driver, command: Any) -> None:
    for session in (None, SESSION):
        answers = driver.apply(command, put(b"fine"), session=session)
        assert answers[0][:2] == [1, "invalid_request"]
        assert answers[1][0] == 0
    assert driver.keys() == [b"fine"]


@pytest.mark.parametrize("operation", [99, 28, 0, -1, 1 << 40])
def test_an_entry_of_a_version_to_come_stops_this_one(driver: Driver, operation: int) -> None:
    """To answer it with an error would be to have another store than those who know it."""
    for session in (None, SESSION):
        with pytest.raises(
            Corruption, match=f"operation {operation}, which this version of raftkv does not know: upgrade this member"
        ):
            Driver(MemoryKeyspace()).apply(put(b"a"), [operation, 0, b"key"], session=session)


def test_a_sequence_has_63_bits(driver: Driver) -> None:
    assert driver.apply(put(b"a", seq=2**63))[0][1] == "invalid_request"
    assert driver.apply(put(b"a", seq=2**63 - 1), session=SESSION, ack_below=2**63 - 1)[0][0] == 0


@pytest.mark.parametrize("group", [None, 5, [], [None] * 6, [None, True, 0, None, 0, {}], [None, True, 0, None, 0]])
def test_a_malformed_group_has_no_answers(driver: Driver, group: Any) -> None:
    assert driver.apply_groups([group, [None, False, 0, None, 0, [put(b"a")]]]) == [[], [[0, 2, None]]]


def test_entries_that_cannot_be_understood_stop_the_member(driver: Driver) -> None:
    for kind, data in (
        (ENTRY_COMMANDS, b""),
        (ENTRY_COMMANDS, b"\xc1"),
        (ENTRY_COMMANDS, b"\x93\x02\x00\x90"),
        (ENTRY_COMMANDS, b"\x92\x01\x00"),
        (ENTRY_COMMANDS, b"\x93\x01\xa1x\x90"),
        (9, b""),
    ):
        with pytest.raises(Corruption):
            driver.store.apply(Entry(1, 1, kind, data))
    assert driver.store.applied_index == 0


def test_other_entries_have_no_answers_and_move_the_index(driver: Driver) -> None:
    assert driver.apply_entry(ENTRY_NOOP, b"") == []
    assert driver.apply_entry(ENTRY_CONFIGURATION, encode_configuration(Configuration(frozenset({1})))) == []
    assert (driver.store.applied_index, driver.store.applied_term, driver.store.revision) == (2, 1, 1)


def test_entries_come_in_order_without_gaps(driver: Driver) -> None:
    for index in (0, 2):
        with pytest.raises(AssertionError, match="in order"):
            driver.store.apply(Entry(index, 1, ENTRY_NOOP, b""))


def test_the_digest_tells_effects_and_their_order_apart() -> None:
    digests = set()
    stories: list[list[list[Any]]] = [
        [[put(b"a", b"1")], [put(b"b", b"2")]],
        [[put(b"b", b"2")], [put(b"a", b"1")]],
        [[put(b"a", b"1")], [put(b"b", b"3")]],
        [[put(b"a", b"1")], [put(b"b", b"2"), delete(b"zz")]],
        [[put(b"a", b"1")], [delete(b"a")]],
        [[put(b"a", b"1")], []],
    ]
    for story in stories:
        driver = Driver(MemoryKeyspace())
        for commands in story:
            driver.apply(*commands)
        digests.add(driver.store.digest)
    assert len(digests) == len(stories) - 1, "a delete of nothing has no effect"


@pytest.mark.parametrize("twin", TWINS)
def test_the_commit_cycle(twin: str, tmp_path: Path) -> None:
    driver = Driver(keyspace_of(twin, tmp_path))
    assert driver.store.freeze() is None, "nothing to commit"
    driver.apply(put(b"a", b"1"), put(b"k" * 500, b"long"))
    job = driver.store.freeze()
    assert job is not None
    assert job.applied_index == 1
    assert driver.store.freeze() is None, "one at a time"
    driver.apply(put(b"b", b"2"), delete(b"k" * 500), increment(b"n", 1))
    assert driver.keys() == [b"a", b"b", b"n"]
    job.run()
    assert driver.keys() == [b"a", b"b", b"n"]
    assert driver.store.durable_applied_index == 0
    driver.store.thaw(job)
    assert driver.store.durable_applied_index == 1
    assert driver.keys() == [b"a", b"b", b"n"]
    assert driver.keys(ranged(revision=3)) == [b"a", b"k" * 500]
    driver.commit()
    assert driver.store.durable_applied_index == 2
    assert driver.store.freeze() is None
    assert driver.keys(ranged(revision=3)) == [b"a", b"k" * 500]
    assert driver.store.db_size_in_use_bytes <= driver.store.db_size_bytes
    driver.store.close()


def test_an_entry_without_effect_is_committed_too(driver: Driver) -> None:
    driver.apply_entry(ENTRY_NOOP, b"")
    driver.commit()
    assert Store.open(driver.store.keyspace, LIMITS).applied_index == 1


def test_a_full_disk_keeps_everything_and_the_commit_is_tried_again(tmp_path: Path) -> None:
    limits = Limits(map_bytes=1 * MIB)
    driver = Driver(LmdbKeyspace.open(str(tmp_path / "store.mdb"), limits), limits)
    driver.apply(put(b"small", b"1"))
    driver.commit()
    driver.apply(*(put(b"%d" % number, b"x" * 100_000) for number in range(20)))
    job = driver.store.freeze()
    assert job is not None
    with pytest.raises(NoSpace):
        job.run()
    driver.store.thaw(job)
    driver.apply(delete(b"0", b"9"))
    assert driver.keys() == [b"9", b"small"]
    assert driver.store.durable_applied_index == 1
    again = driver.store.freeze()
    assert again is job, "the same layer is in front of the queue"
    with pytest.raises(NoSpace):
        again.run()
    driver.store.thaw(again)
    driver.store.close()
    reopened = Store.open(LmdbKeyspace.open(str(tmp_path / "store.mdb"), limits), limits)
    assert reopened.applied_index == 1
    assert [reopened.apply(entry) for entry in driver.log[1:]][-1] == [[[0, 23, 19, []]]]
    assert reopened.digest == driver.store.digest
    reopened.close()


def test_room_is_bounded_by_bytes_and_by_records_and_comes_back() -> None:
    for limits in (Limits(overlay_bytes_max=5000), Limits(overlay_records_max=4)):
        driver = Driver(MemoryKeyspace(), limits)
        driver.apply(*(put(b"a", b"x" * 200) for _ in range(3)))
        assert driver.store.has_room
        job = driver.store.freeze()
        assert job is not None
        driver.apply(*(put(b"a", b"x" * 2000) for _ in range(2)))
        assert not driver.store.has_room, "both layers count"
        job.run()
        driver.store.thaw(job)
        driver.commit()
        assert driver.store.has_room
        assert driver.store.overlay_bytes == 0


def test_a_store_of_a_later_format_is_not_guessed_at() -> None:
    keyspace = MemoryKeyspace()
    keyspace.commit([TableChange(META, [(STATE_KEY, b"\x91\x63")])])
    with pytest.raises(Unsupported, match="upgrade"):
        Store.open(keyspace, LIMITS)
    keyspace.commit([TableChange(META, [(STATE_KEY, b"")])])
    with pytest.raises(Corruption):
        Store.open(keyspace, LIMITS)


def test_the_batch_clock_is_the_greatest_time_seen(driver: Driver) -> None:
    driver.store.apply(Entry(1, 1, ENTRY_COMMANDS, encode_batch(50, [])))
    driver.store.apply(Entry(2, 1, ENTRY_COMMANDS, encode_batch(40, [])))
    assert driver.store.clock_ms == 50
