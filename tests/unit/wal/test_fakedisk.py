"""The fake disk is as unkind as it claims to be, and never worse: what was synced survives."""

import errno
from random import Random

import pytest

from raftkv.wal.fakedisk import FakeDisk
from raftkv.wal.frame import padded


def synced_file(disk: FakeDisk, path: str, data: bytes) -> None:
    file = disk.open(path, create=True)
    file.pwritev((data,), 0)
    file.fdatasync()
    disk.sync_directory("/d")


def test_what_was_synced_survives_every_crash() -> None:
    for seed in range(50):
        disk = FakeDisk()
        synced_file(disk, "/d/a", b"x" * 2000)
        disk.crash(Random(seed))
        assert disk.contents("/d/a") == b"x" * 2000


def test_what_was_not_synced_is_lost_sector_by_sector() -> None:
    outcomes = set()
    for seed in range(200):
        disk = FakeDisk(sector_bytes=4)
        synced_file(disk, "/d/a", b"oldoldoldold")
        disk.open("/d/a").pwritev((b"NEWnewNEWnew",), 0)
        disk.crash(Random(seed))
        outcomes.add(disk.contents("/d/a"))
    assert outcomes == {
        first + second + third
        for first in (b"oldo", b"NEWn")
        for second in (b"ldol", b"ewNE")
        for third in (b"dold", b"Wnew")
    }


def test_a_file_without_a_synced_name_may_be_gone() -> None:
    present = set()
    for seed in range(50):
        disk = FakeDisk()
        disk.open("/d/a", create=True).fdatasync()
        disk.crash(Random(seed))
        present.add(disk.list("/d") == ["a"])
    assert present == {True, False}


def test_a_rename_happens_whole_or_not_at_all() -> None:
    names = set()
    for seed in range(50):
        disk = FakeDisk()
        synced_file(disk, "/d/a", b"1")
        disk.rename("/d/a", "/d/b")
        disk.crash(Random(seed))
        names.add(tuple(disk.list("/d")))
    assert names == {("a",), ("b",)}


def test_only_the_synced_directory_is_durable() -> None:
    survived = set()
    for seed in range(50):
        disk = FakeDisk()
        disk.open("/d/a", create=True)
        disk.open("/e/b", create=True)
        disk.sync_directory("/d")
        disk.crash(Random(seed))
        assert disk.list("/d") == ["a"]
        survived.add(tuple(disk.list("/e")))
    assert survived == {(), ("b",)}


def test_a_failed_sync_loses_the_data_and_calls_the_cache_clean() -> None:
    def fail(operation: str, path: str) -> None:
        if operation == "fdatasync":
            raise OSError(errno.EIO, "injected")

    disk = FakeDisk()
    synced_file(disk, "/d/a", b"old")
    file = disk.open("/d/a")
    disk.fault = fail
    file.pwritev((b"new",), 0)
    with pytest.raises(OSError, match="injected"):
        file.fdatasync()
    disk.fault = None
    file.fdatasync()
    assert disk.contents("/d/a") == b"new", "readers see the cache"
    disk.crash(Random(0))
    assert disk.contents("/d/a") == b"old", "the second sync had nothing to do"


def test_a_full_disk_refuses_and_may_write_a_part() -> None:
    disk = FakeDisk(capacity_bytes=100)
    file = disk.open("/d/a", create=True)
    with pytest.raises(OSError, match="No space") as raised:
        file.preallocate(101)
    assert raised.value.errno == errno.ENOSPC
    file.preallocate(100)
    assert disk.free_bytes("/d") == 0
    with pytest.raises(OSError, match="No space"):
        file.pwritev((b"12345678",), 96)
    assert disk.contents("/d/a")[96:] == b"1234"


def test_open_files_die_with_the_process() -> None:
    disk = FakeDisk()
    file = disk.open("/d/a", create=True)
    disk.kill()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.pwritev((b"late",), 0)
    assert disk.contents("/d/a") == b""


def test_damage_is_durable() -> None:
    disk = FakeDisk()
    synced_file(disk, "/d/a", bytes(4))
    disk.flip_bit("/d/a", 9)
    disk.crash(Random(0))
    assert disk.contents("/d/a") == b"\0\x02\0\0"
    disk.truncate("/d/a", 1)
    disk.crash(Random(0))
    assert disk.contents("/d/a") == b"\0"


def test_one_seed_gives_one_story() -> None:
    def story(seed: int) -> tuple[list[str], bytes]:
        disk = FakeDisk(sector_bytes=8)
        synced_file(disk, "/d/a", bytes(padded(64)))
        for number in range(20):
            disk.open(f"/d/{number}", create=True)
        disk.open("/d/a").pwritev((b"y" * 90,), 3)
        disk.crash(Random(seed))
        return disk.list("/d"), disk.contents("/d/a")

    assert story(1) == story(1)
    assert story(1) != story(2)
