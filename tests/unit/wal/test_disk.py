"""The real disk does what the port says, with real files."""

import os
from pathlib import Path

import pytest

from raftkv.wal.disk import RealDisk, RealFile


def test_written_buffers_are_read_back_in_order(tmp_path: Path) -> None:
    file = RealDisk().open(str(tmp_path / "a"), create=True)
    assert file.pwritev((b"head", b"body"), 3) == 8
    file.fdatasync()
    assert file.pread(100, 0) == b"\0\0\0headbody"
    assert file.size() == 11
    file.close()


def test_preallocated_bytes_are_zeros_and_take_room(tmp_path: Path) -> None:
    path = tmp_path / "a"
    file = RealDisk().open(str(path), create=True)
    file.pwritev((b"kept",), 0)
    file.preallocate(1 << 20)
    assert file.size() == 1 << 20
    assert file.pread(1 << 20, 0) == b"kept".ljust(1 << 20, b"\0")
    assert path.stat().st_blocks * 512 >= 1 << 20, "blocks are reserved, not a hole"
    file.close()


def test_create_empties_an_old_file_and_open_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    opened = RealDisk().open(str(path))
    assert opened.pread(10, 0) == b"old"
    opened.close()
    created = RealDisk().open(str(path), create=True)
    assert created.size() == 0
    created.close()


def test_open_without_create_wants_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RealDisk().open(str(tmp_path / "absent"))


def test_a_closed_file_is_closed_once(tmp_path: Path) -> None:
    file = RealDisk().open(str(tmp_path / "a"), create=True)
    file.close()
    file.close()
    with pytest.raises(ValueError, match="negative"):
        file.fdatasync()


def test_names_change_and_the_directory_can_be_synced(tmp_path: Path) -> None:
    disk = RealDisk()
    disk.open(str(tmp_path / "a"), create=True).close()
    disk.rename(str(tmp_path / "a"), str(tmp_path / "b"))
    disk.sync_directory(str(tmp_path))
    assert disk.list(str(tmp_path)) == ["b"]
    disk.unlink(str(tmp_path / "b"))
    assert disk.list(str(tmp_path)) == []


def test_free_bytes_are_those_of_the_file_system(tmp_path: Path) -> None:
    assert 0 < RealDisk().free_bytes(str(tmp_path)) <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RealDisk().open(str(tmp_path / "a"), create=True)
    whole_pwrite = os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, offset: whole_pwrite(fd, b"".join(buffers)[:3], offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole_pwrite(fd, data[:2], offset))
    assert file.pwritev((b"0123", b"456789"), 5) == 10
    assert file.pread(10, 5) == b"0123456789"
    file.close()


def test_a_short_read_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RealDisk().open(str(tmp_path / "a"), create=True)
    file.pwritev((b"0123456789",), 0)
    whole_pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: whole_pread(fd, min(size, 4), offset))
    assert file.pread(9, 1) == b"123456789"
    assert file.pread(99, 1) == b"123456789"
    file.close()


def test_a_real_file_is_a_plain_descriptor(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    file = RealFile(descriptor)
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
