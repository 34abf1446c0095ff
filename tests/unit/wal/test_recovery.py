"""Opening a log after every kind of end: what is a torn tail, what is corruption, and what the message says."""

import errno
from random import Random

import pytest

from raftkv.errors import Corruption, DiskFailure, NoSpace
from raftkv.raft.messages import HardState
from raftkv.wal import frame, record
from raftkv.wal.fakedisk import FakeDisk
from raftkv.wal.record import SegmentHeader
from raftkv.wal.recovery import list_segments
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
    reopen,
    save,
    segment_paths,
)


def frame_offsets(data: bytes) -> list[int]:
    """Where the frames of an undamaged segment start, and last where they end."""
    offsets = [0]
    while (found := frame.decode(memoryview(data), offsets[-1])) is not None:
        offsets.append(found.end)
    return offsets


def log_of_three() -> tuple[FakeDisk, str, list[int]]:
    """Entries 1, 2, 3, each a sync of its own, behind the header."""
    wal, disk = create()
    for index in (1, 2, 3):
        save(wal, [entry(index)])
    disk.kill()
    (path,) = segment_paths(disk)
    offsets = frame_offsets(disk.contents(path))
    assert len(offsets) == 5
    return disk, path, offsets


def refusal(disk: FakeDisk) -> Corruption:
    with pytest.raises(Corruption) as raised:
        recovered(disk)
    assert "\n" not in raised.value.message
    assert "remove this member from the cluster, delete its data directory, and add it anew" in raised.value.message
    return raised.value


def test_a_clean_log_is_read_whole() -> None:
    disk, _, _ = log_of_three()
    found = recovered(disk)
    assert found.identity == IDENTITY
    assert found.entries == entries(1, 3)
    assert (found.cut_bytes, found.segments, found.log_start_index) == (0, 1, 0)


def test_a_torn_last_frame_is_cut_and_reported() -> None:
    disk, path, offsets = log_of_three()
    disk.damage(path, offsets[3] + 40, bytes(8))
    disk_before = disk.contents(path)
    found = recovered(disk)
    assert found.entries == entries(1, 2)
    assert found.cut_bytes == len(disk_before.rstrip(b"\0")) - offsets[3], "up to the last byte that is not zero"
    assert not any(disk.contents(path)[offsets[3] :])
    assert recovered(disk).cut_bytes == 0, "cut once"


def test_a_tail_torn_in_the_wrong_order_is_cut() -> None:
    """The disk kept the later sectors of an unfinished sync, and not the first."""
    disk, path, offsets = log_of_three()
    disk.damage(path, offsets[3], bytes(frame.HEADER_BYTES))
    found = recovered(disk)
    assert found.entries == entries(1, 2)
    assert found.cut_bytes > frame.HEADER_BYTES
    assert not any(disk.contents(path)[offsets[3] :])


def test_the_cut_is_durable_before_anything_is_written_over_it() -> None:
    for seed in range(20):
        disk, path, offsets = log_of_three()
        disk.damage(path, offsets[3] + 40, bytes(8))
        wal, _ = reopen(disk)
        disk.crash(Random(seed))
        assert not any(disk.contents(path)[offsets[3] :])
        wal, found = reopen(disk)
        assert found.entries == entries(1, 2)
        save(wal, [entry(3, term=2)])
        assert recovered(disk).entries == [*entries(1, 2), entry(3, term=2)]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("where", ["header", "body", "end"])
def test_a_bad_frame_with_good_ones_behind_is_corruption(number: int, where: str) -> None:
    disk, path, offsets = log_of_three()
    at = {"header": offsets[number], "body": offsets[number] + 33, "end": offsets[number + 1] - 8}[where]
    disk.damage(path, at, bytes((disk.contents(path)[at] ^ 0xFF,)))
    error = refusal(disk)
    assert error.details["file"] == path
    assert error.details["offset"] == offsets[number]
    assert str(offsets[number]) in error.message
    assert path in error.message


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_a_zeroed_sector_in_the_middle_is_no_end_of_the_log(sector_bytes: int) -> None:
    wal, disk = create()
    for index in range(1, 40):
        save(wal, [entry(index, size_bytes=200)])
    path = segment_paths(disk)[0]
    disk.kill()
    whole = disk.contents(path)
    assert len(segment_paths(disk)) > 2
    for sector in range(len(whole) // sector_bytes):
        disk.damage(path, sector * sector_bytes, bytes(sector_bytes))
        if disk.contents(path) != whole:
            refusal(disk)
        disk.damage(path, 0, whole)
    assert len(recovered(disk).entries) == 39


def test_zeroed_frames_between_good_ones_are_noticed() -> None:
    disk, path, offsets = log_of_three()
    disk.damage(path, offsets[1], bytes(offsets[3] - offsets[1]))
    assert refusal(disk).details["offset"] == offsets[1]


def test_an_acknowledged_bad_frame_before_a_torn_one_is_corruption() -> None:
    disk, path, offsets = log_of_three()
    disk.damage(path, offsets[2] + 40, b"rotten")
    disk.damage(path, offsets[4] - 8, b"torntorn")
    assert refusal(disk).details["offset"] == offsets[2]


def test_damage_to_the_last_frame_of_a_closed_log_is_corruption() -> None:
    wal, disk = create()
    save(wal, entries(1, 3))
    wal.close()
    (path,) = segment_paths(disk)
    offsets = frame_offsets(disk.contents(path))
    disk.damage(path, offsets[1] + 40, b"rotten")
    assert refusal(disk).details["offset"] == offsets[1]


def test_a_value_that_looks_like_a_log_does_not_make_a_torn_tail_corruption() -> None:
    other, path, _ = log_of_three()
    wal, disk = create()
    new = entry(1)
    new.data = other.contents(path)[:2000]
    save(wal, [new])
    (path,) = segment_paths(disk)
    offsets = frame_offsets(disk.contents(path))
    disk.damage(path, offsets[1] + 32, b"torn")
    found = recovered(disk)
    assert found.entries == []
    assert found.cut_bytes > 0


def test_garbage_behind_the_end_is_cut() -> None:
    disk, path, offsets = log_of_three()
    disk.damage(path, SEGMENT_BYTES - 100, b"garbage")
    found = recovered(disk)
    assert found.entries == entries(1, 3)
    assert found.cut_bytes == SEGMENT_BYTES - 93 - offsets[4]


def test_a_valid_frame_out_of_its_chain_is_corruption() -> None:
    disk, path, offsets = log_of_three()
    header, body, _ = frame.encode([b"\2" + bytes(24)], batch=5, offset=offsets[4], seed=123)
    disk.damage(path, offsets[4], header + body)
    assert "batch 5 does not follow batch 4" in refusal(disk).message


def test_a_log_start_that_contradicts_its_entry_is_corruption() -> None:
    disk, path, offsets = log_of_three()
    last = frame.decode(memoryview(disk.contents(path)), offsets[3])
    assert last is not None
    mark = record.encode_log_start(record.LogStart(2, 9))
    header, body, _ = frame.encode([mark], batch=5, offset=offsets[4], seed=last.checksum)
    disk.damage(path, offsets[4], header + body)
    assert "log start 2 has term 9, its entry 1" in refusal(disk).message


def many_segments() -> tuple[FakeDisk, list[str]]:
    wal, disk = create()
    for index in range(1, 60):
        save(wal, [entry(index, size_bytes=200)])
    disk.kill()
    paths = segment_paths(disk)
    assert len(paths) >= 4
    return disk, paths


@pytest.mark.parametrize("number", [1, 2])
def test_a_segment_missing_in_the_middle_is_corruption(number: int) -> None:
    disk, paths = many_segments()
    disk.unlink(paths[number])
    assert f"segment {number + 1} before it is missing" in refusal(disk).message


def test_the_first_segments_missing_is_corruption() -> None:
    disk, paths = many_segments()
    disk.unlink(paths[0])
    assert "older segments are missing" in refusal(disk).message


def test_two_segments_of_one_number_are_corruption() -> None:
    disk, paths = many_segments()
    disk.open(paths[1].replace(".wal", "")[:-1] + "0.wal", create=True)
    assert "two files have this number" in refusal(disk).message


def test_a_bad_frame_in_an_older_segment_is_corruption() -> None:
    disk, paths = many_segments()
    offsets = frame_offsets(disk.contents(paths[1]))
    disk.damage(paths[1], offsets[-2] + 40, b"rotten")
    error = refusal(disk)
    assert (error.details["file"], error.details["offset"]) == (paths[1], offsets[-2])


def test_zeros_in_place_of_the_last_frame_of_an_older_segment_are_corruption() -> None:
    disk, paths = many_segments()
    offsets = frame_offsets(disk.contents(paths[1]))
    disk.damage(paths[1], offsets[-2], bytes(SEGMENT_BYTES - offsets[-2]))
    error = refusal(disk)
    assert (error.details["file"], error.details["offset"]) == (paths[1], offsets[-2])


def test_a_bad_first_frame_is_corruption_even_in_the_last_segment() -> None:
    disk, paths = many_segments()
    disk.damage(paths[-1], 40, b"rotten")
    error = refusal(disk)
    assert (error.details["file"], error.details["offset"]) == (paths[-1], 0)


@pytest.mark.parametrize("size_bytes", [0, 10, 200, SEGMENT_BYTES - 1])
def test_a_cut_file_is_corruption(size_bytes: int) -> None:
    disk, path, _ = log_of_three()
    disk.truncate(path, size_bytes)
    assert refusal(disk).details["file"] == path


def test_a_segment_of_another_log_is_corruption() -> None:
    disk, paths = many_segments()
    foreign, foreign_paths = many_segments()
    disk.damage(paths[2], 0, foreign.contents(foreign_paths[1]))
    assert "does not belong to segment 3" in refusal(disk).message


def test_a_segment_of_another_member_is_corruption() -> None:
    disk, paths = many_segments()
    header = SegmentHeader(record.Identity("prod", 8, "n2", 1), 3, SEGMENT_BYTES)
    prefix, body, _ = frame.encode([record.encode_segment(header)], batch=99, offset=0, seed=0)
    disk.damage(paths[2], 0, prefix + body)
    assert "it belongs to Identity(cluster_name='prod', node_id=8" in refusal(disk).message


def test_an_empty_directory_is_no_log() -> None:
    with pytest.raises(Corruption, match="holds no log file"):
        Wal.open(FakeDisk(), DIRECTORY, LIMITS)


def test_other_files_are_left_alone_and_an_unfinished_next_one_removed() -> None:
    disk, _, _ = log_of_three()
    disk.open(f"{DIRECTORY}/notes.txt", create=True)
    leftover = disk.open(f"{DIRECTORY}/next.tmp", create=True)
    leftover.pwritev((b"half a frame",), 0)
    assert recovered(disk).entries == entries(1, 3)
    assert disk.contents(f"{DIRECTORY}/notes.txt") == b""
    assert b"half a frame" not in disk.contents(f"{DIRECTORY}/next.tmp")


def test_what_was_recovered_survives_a_power_loss_right_after() -> None:
    """Killed between write and sync: the page cache has the frame, the disk does not."""

    def fail(operation: str, path: str) -> None:
        if operation == "fdatasync":
            raise OSError(errno.EIO, "injected")

    for seed in range(20):
        wal, disk = create()
        save(wal, [entry(1)], HardState(1, 7, 0))
        disk.fault = fail
        wal.write(HardState(2, 3, 1), [entry(2, term=2)], None)
        with pytest.raises(DiskFailure):
            wal.sync()
        disk.fault = None
        _, found = reopen(disk)
        assert found.entries == [entry(1), entry(2, term=2)]
        disk.crash(Random(seed))
        assert recovered(disk) == found


def test_a_recovered_name_survives_a_power_loss_right_after() -> None:
    """The process ended because the directory could not be synced: the new segment's name was only in the cache."""

    def fail(operation: str, path: str) -> None:
        if operation == "sync_directory":
            raise OSError(errno.EIO, "injected")

    for seed in range(20):
        wal, disk = create()
        disk.fault = fail
        wal.write(None, [entry(1, size_bytes=SEGMENT_BYTES)], None)
        with pytest.raises(DiskFailure):
            wal.sync()
        disk.fault = None
        assert recovered(disk).entries == [entry(1, size_bytes=SEGMENT_BYTES)]
        disk.crash(Random(seed))
        assert recovered(disk).entries == [entry(1, size_bytes=SEGMENT_BYTES)]


@pytest.mark.parametrize(("number", "error"), [(errno.EIO, DiskFailure), (errno.ENOSPC, NoSpace)])
def test_a_disk_that_refuses_the_repair_is_reported(number: int, error: type[Exception]) -> None:
    def fail(operation: str, path: str) -> None:
        if operation == "pwritev":
            raise OSError(number, "injected")

    disk, _, _ = log_of_three()
    disk.fault = fail
    with pytest.raises(error, match="cannot be read or repaired"):
        Wal.open(disk, DIRECTORY, LIMITS)


def test_segments_are_listed_oldest_first() -> None:
    disk, paths = many_segments()
    assert [sequence for sequence, _ in list_segments(disk, DIRECTORY)] == list(range(1, len(paths) + 1))
