"""The log as its owner uses it: save, replace, restart, rotate, compact; a full disk and a broken one."""

import errno
from pathlib import Path
from random import Random
from typing import Callable

import pytest

from raftkv.errors import DiskFailure, NoSpace
from raftkv.limits import Limits
from raftkv.raft.messages import HardState
from raftkv.wal.disk import RealDisk
from raftkv.wal.fakedisk import FakeDisk
from raftkv.wal.wal import Wal
from tests.unit.wal.logs import (
    DIRECTORY,
    IDENTITY,
    LIMITS,
    SEGMENT_BYTES,
    create,
    entries,
    entry,
    recovered,
    recovered_copy,
    reopen,
    save,
    segment_paths,
    snapshot,
)


def failing(operation: str, number: int, *, times: int = 1, after: int = 0) -> Callable[[str, str], None]:
    """A fault: let `after` calls of the operation pass, then fail `times` of them."""
    calls = 0

    def fault(called: str, path: str) -> None:
        nonlocal calls
        if called == operation:
            calls += 1
            if after < calls <= after + times:
                raise OSError(number, f"injected into {operation}")

    return fault


def save_until(error: type[Exception], wal: Wal, size_bytes: int) -> int:
    """Save entries 1, 2, 3... one by one; returns the index of the one that was refused."""
    for index in range(1, 1000):
        try:
            save(wal, [entry(index, size_bytes=size_bytes)])
        except error:
            return index
    raise AssertionError(f"nothing was refused with {error.__name__}")


# Saving and reading back.


def test_a_new_log_is_empty_and_knows_whose_it_is() -> None:
    wal, disk = create()
    assert wal.identity == IDENTITY
    assert wal.has_space
    found = recovered(disk)
    assert found.identity == IDENTITY
    assert found.hard_state == HardState()
    assert (found.entries, found.log_start_index, found.log_start_term) == ([], 0, 0)


def test_exists_tells_create_from_open() -> None:
    disk = FakeDisk()
    assert not Wal.exists(disk, DIRECTORY)
    create(disk)
    assert Wal.exists(disk, DIRECTORY)
    with pytest.raises(AssertionError, match="never created anew"):
        create(disk)


def test_a_log_whose_creation_crashed_does_not_exist_or_is_empty() -> None:
    outcomes = set()
    for operation in ("open", "preallocate", "pwritev", "fdatasync", "rename", "sync_directory"):
        for seed in range(10):
            disk = FakeDisk(fault=failing(operation, errno.EIO))
            with pytest.raises(DiskFailure, match="cannot be made"):
                create(disk)
            disk.fault = None
            disk.crash(Random(seed))
            exists = Wal.exists(disk, DIRECTORY)
            outcomes.add(exists)
            if exists:
                assert recovered(disk).entries == []
            else:
                create(disk)
    assert outcomes == {True, False}


def test_saves_of_one_sync_come_back_in_order() -> None:
    wal, disk = create()
    wal.write(HardState(1, 7, 0), entries(1, 3), None)
    wal.write(None, entries(4, 5), None)
    wal.write(HardState(1, 7, 4), [], None)
    assert wal.last_index == 5
    before = disk.fdatasyncs
    assert wal.sync() > 0
    assert disk.fdatasyncs == before + 1, "one fdatasync for everything"
    found = recovered(disk)
    assert found.entries == entries(1, 5)
    assert found.hard_state == HardState(1, 7, 4)


def test_nothing_to_sync_costs_nothing() -> None:
    wal, disk = create()
    before = disk.fdatasyncs
    assert wal.sync() == 0
    wal.write(None, [], None)
    assert wal.sync() == 0
    assert disk.fdatasyncs == before


def test_what_was_not_synced_is_not_there() -> None:
    wal, disk = create()
    save(wal, entries(1, 2))
    wal.write(HardState(5, 7, 0), entries(3, 4), None)
    found = recovered(disk)
    assert found.entries == entries(1, 2)
    assert found.hard_state == HardState()


def test_a_replaced_suffix_is_gone() -> None:
    wal, disk = create()
    save(wal, entries(1, 9))
    save(wal, entries(5, 6, term=2))
    assert wal.last_index == 6
    assert recovered(disk).entries == entries(1, 4) + entries(5, 6, term=2)
    wal, _ = reopen(disk)
    save(wal, entries(1, 1, term=3))
    assert recovered(disk).entries == entries(1, 1, term=3)


def test_a_suffix_is_replaced_within_one_sync() -> None:
    wal, disk = create()
    wal.write(None, entries(1, 9), None)
    wal.write(None, entries(2, 3, term=2), None)
    wal.sync()
    assert recovered(disk).entries == entries(1, 1) + entries(2, 3, term=2)


def test_a_snapshot_replaces_the_log_and_entries_follow_it() -> None:
    wal, disk = create()
    save(wal, entries(1, 9))
    wal.write(HardState(3, 0, 50), entries(51, 52, term=3), snapshot(50, term=2))
    wal.sync()
    found = recovered(disk)
    assert (found.log_start_index, found.log_start_term) == (50, 2)
    assert found.entries == entries(51, 52, term=3)
    assert found.hard_state == HardState(3, 0, 50)


def test_a_snapshot_below_the_end_drops_what_is_above_it() -> None:
    wal, disk = create()
    save(wal, entries(1, 9))
    wal.write(None, [], snapshot(5))
    wal.sync()
    found = recovered(disk)
    assert (found.log_start_index, found.entries) == (5, [])


@pytest.mark.parametrize(
    ("hard_state", "first", "last", "what"),
    [
        (None, 11, 12, "leaves a gap behind 9"),
        (None, 3, 4, "never replaced"),
        (HardState(1, 0, 0), 10, 10, "term never goes back"),
        (HardState(2, 8, 0), 10, 10, "one vote per term"),
    ],
)
def test_what_consensus_forbids_is_a_bug(hard_state: HardState | None, first: int, last: int, what: str) -> None:
    wal, _ = create()
    save(wal, entries(1, 9), HardState(2, 7, 0))
    wal.compact(3, 1)
    with pytest.raises(AssertionError, match=what):
        wal.write(hard_state, entries(first, last), None)


def test_a_closed_log_refuses_everything_and_closes_once() -> None:
    wal, disk = create()
    save(wal, entries(1, 2))
    wal.close()
    wal.close()
    assert not wal.has_space
    for call in (lambda: wal.write(None, [], None), wal.sync, lambda: wal.compact(1, 1)):
        with pytest.raises(DiskFailure, match="is closed"):
            call()
    for _ in range(3):
        wal, found = Wal.open(disk, DIRECTORY, LIMITS)
        assert found.entries == entries(1, 2)
        wal.close()


# Segments.


def test_a_log_spans_segments_and_repeats_its_state() -> None:
    wal, disk = create()
    for index in range(1, 60):
        save(wal, [entry(index, size_bytes=200)], HardState(1, 7, index - 1))
    assert wal.segments == len(segment_paths(disk)) >= 4
    assert all(len(disk.contents(path)) == SEGMENT_BYTES for path in segment_paths(disk))
    found = recovered(disk)
    assert found.entries == entries(1, 59, size_bytes=200)
    assert found.hard_state == HardState(1, 7, 58)
    assert found.segments == wal.segments


def test_a_rotation_costs_one_fdatasync() -> None:
    wal, disk = create()
    before = disk.fdatasyncs
    for index in range(1, 60):
        save(wal, [entry(index, size_bytes=200)])
    assert wal.segments > 1
    assert disk.fdatasyncs == before + 59


def test_a_batch_larger_than_a_segment_gets_a_larger_one() -> None:
    wal, disk = create()
    save(wal, entries(1, 2))
    save(wal, entries(3, 9, size_bytes=SEGMENT_BYTES))
    save(wal, entries(10, 11))
    assert recovered(disk).entries == entries(1, 2) + entries(3, 9, size_bytes=SEGMENT_BYTES) + entries(10, 11)
    wal, _ = reopen(disk)
    for index in range(12, 60):
        save(wal, [entry(index)])
    assert recovered(disk).entries[-1] == entry(59)


def test_segments_smaller_than_their_header_still_work() -> None:
    limits = Limits(wal_segment_bytes=64)
    wal, disk = create(limits=limits)
    for index in range(1, 20):
        save(wal, [entry(index)])
    assert recovered(disk, limits).entries == entries(1, 19)


def test_the_segment_size_may_change_between_starts() -> None:
    wal, disk = create()
    expected = []
    for number, size_bytes in enumerate((3000, 9000, 1500)):
        wal, _ = reopen(disk, Limits(wal_segment_bytes=size_bytes))
        for index in range(1 + 30 * number, 31 + 30 * number):
            save(wal, [entry(index, size_bytes=200)])
            expected.append(entry(index, size_bytes=200))
    assert recovered(disk).entries == expected


def test_real_files(tmp_path: Path) -> None:
    wal = Wal.create(RealDisk(), str(tmp_path), IDENTITY, LIMITS)
    for index in range(1, 60):
        save(wal, [entry(index, size_bytes=200)], HardState(1, 7, index - 1))
    wal.compact(40, 1)
    wal.close()
    for _ in range(2):
        wal, found = Wal.open(RealDisk(), str(tmp_path), LIMITS)
        assert found.entries == entries(41, 59, size_bytes=200)
        assert (found.log_start_index, found.cut_bytes) == (40, 0)
        wal.close()
    assert len(list(tmp_path.glob("*.wal"))) < 4


# Compaction.


def test_compaction_deletes_segments_that_hold_nothing_else() -> None:
    wal, disk = create()
    for index in range(1, 60):
        save(wal, [entry(index, size_bytes=200)], HardState(1, 7, index - 1))
    paths = segment_paths(disk)
    for index in range(1, 60):
        wal.compact(index, 1)
        found = recovered_copy(disk)
        assert (found.log_start_index, found.log_start_term) == (index, 1)
        assert found.entries == entries(index + 1, 59, size_bytes=200)
        assert found.hard_state == HardState(1, 7, 58)
    assert set(segment_paths(disk)) & set(paths) <= {paths[-1]}
    assert wal.segments == len(segment_paths(disk)) <= 2


def test_compaction_is_recorded_before_anything_is_deleted() -> None:
    order: list[str] = []
    wal, disk = create()
    for index in range(1, 60):
        save(wal, [entry(index, size_bytes=200)])
    disk.fault = lambda operation, path: order.append(operation)
    wal.compact(30, 1)
    assert order.index("fdatasync") < order.index("unlink")
    assert order[order.index("unlink") + 1] == "sync_directory", "one at a time: no holes after a crash"


def test_compaction_does_not_take_what_waits_for_a_sync_with_it() -> None:
    wal, disk = create()
    save(wal, entries(1, 9))
    wal.write(None, entries(10, 12), None)
    wal.compact(5, 1)
    assert recovered_copy(disk).entries == entries(6, 9)
    wal.sync()
    found = recovered(disk)
    assert (found.log_start_index, found.entries) == (5, entries(6, 12))


def test_compaction_never_goes_back_or_ahead() -> None:
    wal, disk = create()
    save(wal, entries(1, 9))
    wal.compact(5, 1)
    wal.compact(3, 1)
    assert recovered_copy(disk).log_start_index == 5
    wal.write(None, entries(10, 12), None)
    with pytest.raises(AssertionError, match="only what is durable"):
        wal.compact(11, 1)


def test_segments_of_a_replaced_suffix_can_go() -> None:
    wal, disk = create()
    for index in range(1, 60):
        save(wal, [entry(index, size_bytes=200)])
    save(wal, entries(10, 12, term=2))
    wal.compact(11, 2)
    assert wal.segments == 1
    assert recovered(disk).entries == entries(12, 12, term=2)


def test_an_unsynced_replacement_frees_nothing_yet() -> None:
    wal, disk = create()
    for index in range(1, 60):
        save(wal, [entry(index, size_bytes=200)])
    wal.write(None, entries(10, 12, term=2), None)
    wal.compact(9, 1)
    assert recovered_copy(disk).entries == entries(10, 59, size_bytes=200)
    wal.sync()
    assert recovered(disk).entries == entries(10, 12, term=2)


def test_a_snapshot_frees_the_old_segments() -> None:
    wal, disk = create()
    for index in range(1, 60):
        save(wal, [entry(index, size_bytes=200)])
    wal.write(None, [], snapshot(1000))
    wal.sync()
    assert wal.segments == len(segment_paths(disk)) == 1
    save(wal, [entry(1001)])
    assert recovered(disk).entries == [entry(1001)]


def test_a_snapshot_frees_the_old_segments_after_a_restart_too() -> None:
    wal, disk = create()
    for index in range(1, 60):
        save(wal, [entry(index, size_bytes=200)])
    disk.fault = failing("unlink", errno.EIO)
    wal.write(None, entries(21, 23), snapshot(20))
    with pytest.raises(DiskFailure):
        wal.sync()
    wal, found = reopen(disk)
    assert found.segments == wal.segments > 2
    wal.compact(21, 1)
    assert wal.segments == 1
    assert recovered(disk).entries == entries(22, 23)


def test_compaction_after_a_restart() -> None:
    wal, disk = create()
    for index in range(1, 60):
        save(wal, [entry(index, size_bytes=200)])
    save(wal, entries(40, 41, term=2))
    wal, _ = reopen(disk)
    wal.compact(40, 2)
    assert wal.segments == 1
    found = recovered(disk)
    assert (found.log_start_index, found.entries) == (40, entries(41, 41, term=2))


# A full disk.


def test_a_full_disk_shows_before_it_hurts() -> None:
    disk = FakeDisk(capacity_bytes=2 * SEGMENT_BYTES + 100)
    wal, _ = create(disk)
    assert wal.has_space
    index = 0
    while wal.segments == 1:
        index += 1
        save(wal, [entry(index, size_bytes=200)])
    assert not wal.has_space, "there is no third segment"
    save(wal, [], HardState(2, 7, index))
    assert recovered(disk).hard_state == HardState(2, 7, index), "elections go on"


def test_room_that_appears_is_seen() -> None:
    disk = FakeDisk(capacity_bytes=SEGMENT_BYTES + 100)
    wal, _ = create(disk)
    assert not wal.has_space
    disk.capacity_bytes += 100
    assert not wal.has_space, "more than there was, less than a segment"
    disk.capacity_bytes = 10 * SEGMENT_BYTES
    assert wal.has_space, "without a write, or a leader that refuses writes would do so for ever"
    save(wal, [entry(1)])
    assert f"{DIRECTORY}/next.tmp" in [f"{DIRECTORY}/{name}" for name in disk.list(DIRECTORY)]


def test_a_quota_that_refuses_although_there_is_room_is_not_asked_again_and_again() -> None:
    disk = FakeDisk()
    disk.fault = failing("preallocate", errno.EDQUOT, times=10**9, after=1)
    wal, _ = create(disk)
    assert not wal.has_space
    save(wal, [entry(1)])
    assert not wal.has_space


def test_no_space_loses_nothing_and_may_be_tried_again() -> None:
    disk = FakeDisk(capacity_bytes=SEGMENT_BYTES + 100)
    wal, _ = create(disk)
    index = save_until(NoSpace, wal, 200)
    with pytest.raises(NoSpace, match="no room for the next log file"):
        wal.sync()
    wal.write(HardState(1, 7, index), [entry(index + 1, size_bytes=200)], None)
    assert recovered_copy(disk).entries == entries(1, index - 1, size_bytes=200)
    disk.capacity_bytes *= 4
    assert wal.sync() > 0
    assert wal.has_space
    found = recovered(disk)
    assert found.entries == entries(1, index + 1, size_bytes=200)
    assert found.hard_state == HardState(1, 7, index)


def test_compaction_frees_room_on_a_full_disk() -> None:
    disk = FakeDisk(capacity_bytes=3 * SEGMENT_BYTES + 100)
    wal, _ = create(disk)
    index = save_until(NoSpace, wal, 100)
    assert not wal.has_space
    wal.compact(index - 1, 1)
    assert wal.segments == 1
    assert wal.has_space
    assert wal.sync() > 0, "what was kept has room now"
    found = recovered(disk)
    assert (found.log_start_index, found.entries) == (index - 1, [entry(index, size_bytes=100)])


def test_compaction_that_frees_nothing_leaves_the_reserve_alone() -> None:
    disk = FakeDisk(capacity_bytes=SEGMENT_BYTES + 100)
    wal, _ = create(disk)
    index = save_until(NoSpace, wal, 20)
    before = disk.fdatasyncs
    for compacted in range(1, index):
        wal.compact(compacted, 1)
    assert disk.fdatasyncs - before <= 1, "one may fit before the reserve"
    assert wal.log_start_index < index - 1
    assert recovered_copy(disk).segments == 1


def test_compaction_finds_room_for_its_mark_where_nothing_else_does() -> None:
    wal, disk = create()
    for index in range(1, 100):
        save(wal, [entry(index, size_bytes=200)])
    disk.capacity_bytes = 0
    for commit in range(1, 1000):
        wal.write(HardState(1, 7, commit), [], None)
        try:
            wal.sync()
        except NoSpace:
            break
    assert not wal.has_space
    for index in range(20, 90, 20):
        before = wal.segments
        wal.compact(index, 1)
        assert wal.segments < before
        assert recovered_copy(disk).log_start_index == wal.log_start_index == index


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("size_bytes", [20, 1500, SEGMENT_BYTES, 5000])
def test_a_write_that_finds_no_space_is_completed_unchanged_later(number: int, size_bytes: int) -> None:
    """Copy-on-write file systems may refuse to overwrite what was preallocated, with half of it written."""
    wal, disk = create()
    save(wal, entries(1, 30))
    disk.fault = failing("pwritev", number, times=2)
    wal.write(HardState(1, 7, 0), [entry(31, size_bytes=size_bytes)], None)
    for _ in range(2):
        with pytest.raises(NoSpace, match="the disk is full"):
            wal.sync()
        assert not wal.has_space
    wal.write(None, entries(32, 60, size_bytes=100), None)
    assert wal.sync() > 0
    assert wal.has_space
    for index in range(61, 100):
        save(wal, [entry(index)])
    assert recovered(disk).entries == [
        *entries(1, 30),
        entry(31, size_bytes=size_bytes),
        *entries(32, 60, size_bytes=100),
        *entries(61, 99),
    ]


def test_a_compaction_between_the_attempts_leaves_no_rest_behind() -> None:
    wal, disk = create()
    for index in range(1, 20):
        save(wal, [entry(index, size_bytes=100)])
    disk.fault = failing("pwritev", errno.ENOSPC)
    wal.write(None, [entry(20, size_bytes=SEGMENT_BYTES - 500)], None)
    with pytest.raises(NoSpace):
        wal.sync()
    wal.compact(15, 1)
    wal.sync()
    for index in range(21, 80):
        save(wal, [entry(index, size_bytes=100)])
    found = recovered(disk)
    assert found.log_start_index == 15
    assert [item.index for item in found.entries] == list(range(16, 80))


@pytest.mark.parametrize("operation", ["open", "preallocate", "rename"])
def test_no_space_at_any_step_of_a_rotation(operation: str) -> None:
    for after in range(4):
        wal, disk = create()
        disk.fault = failing(operation, errno.ENOSPC, after=after)
        refused = 0
        for index in range(1, 80):
            wal.write(None, [entry(index, size_bytes=200)], None)
            try:
                wal.sync()
            except NoSpace:
                refused += 1
                wal.sync()
        assert refused == (operation == "rename"), "a file that could not be prepared is tried again in time"
        assert recovered(disk).entries == entries(1, 79, size_bytes=200)


def test_a_log_on_a_full_disk_is_opened() -> None:
    disk = FakeDisk(capacity_bytes=SEGMENT_BYTES)
    wal, _ = create(disk)
    save(wal, [entry(1)])
    wal, found = reopen(disk)
    assert found.entries == [entry(1)]
    assert not wal.has_space


def test_a_log_that_does_not_fit_is_refused() -> None:
    with pytest.raises(NoSpace, match="cannot be made"):
        create(FakeDisk(capacity_bytes=100))


# A broken disk.


@pytest.mark.parametrize("operation", ["pwritev", "fdatasync", "rename", "sync_directory", "open", "preallocate"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_a_broken_disk_ends_the_log(operation: str, number: int) -> None:
    wal, disk = create()
    disk.fault = failing(operation, number)
    saved = save_until(DiskFailure, wal, 200) - 1
    with pytest.raises(DiskFailure, match=f"this process has to end.*injected into {operation}"):
        wal.sync()
    assert not wal.has_space
    for call in (lambda: wal.write(None, [], None), wal.sync, lambda: wal.compact(1, 1)):
        with pytest.raises(DiskFailure):
            call()
    wal.close()
    found = recovered(disk)
    assert found.entries[:saved] == entries(1, saved, size_bytes=200)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_failed_fsync_is_never_retried(number: int) -> None:
    """ENOSPC too: with delayed allocation the pages are gone all the same."""
    wal, disk = create()
    save(wal, [entry(1)])
    disk.fault = failing("fdatasync", number)
    wal.write(None, [entry(2)], None)
    with pytest.raises(DiskFailure):
        wal.sync()
    synced = disk.fdatasyncs
    with pytest.raises(DiskFailure):
        wal.sync()
    wal.close()
    assert disk.fdatasyncs == synced
    disk.fault = None
    disk.crash(Random(1))
    assert recovered(disk).entries == [entry(1)]


def test_a_segment_that_cannot_be_deleted_ends_the_log() -> None:
    wal, disk = create()
    for index in range(1, 60):
        save(wal, [entry(index, size_bytes=200)])
    disk.fault = failing("unlink", errno.EIO)
    with pytest.raises(DiskFailure):
        wal.compact(50, 1)
    disk.fault = None
    assert recovered(disk).entries == entries(51, 59, size_bytes=200)


def test_a_directory_that_cannot_be_read_is_reported() -> None:
    with pytest.raises(DiskFailure, match="cannot be read"):
        Wal.exists(RealDisk(), "/nonexistent/wal")
