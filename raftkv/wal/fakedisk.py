"""A disk in memory that forgets, tears, refuses and lies, for the tests and the simulator.

It is as unkind as POSIX allows: until fdatasync returns, each sector written since the last one may be on the disk or not,
in any combination; until the directory is synced, so may each creation, rename and removal. A failed fdatasync loses the
data and still calls the cache clean, as Linux does. Chance is an argument of `crash`, so one seed gives one story.
"""

import errno
import os
from dataclasses import dataclass, field
from os.path import basename, dirname
from random import Random
from typing import Callable, Sequence, TypeAlias

from raftkv.wal.disk import File

Fault: TypeAlias = Callable[[str, str], None]
"""Called with the name of the operation and the path before each one; what it raises, the operation raises."""


@dataclass(slots=True, eq=False)
class _Inode:
    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    dirty_sectors: set[int] = field(default_factory=set)


class FakeFile:
    """An open file. It is dead after a crash: every call raises EBADF."""

    __slots__ = ("_disk", "_generation", "_inode", "_path")

    def __init__(self, disk: "FakeDisk", path: str, inode: _Inode) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode
        self._generation = disk.generation

    def size(self) -> int:
        self._check("size")
        return len(self._inode.cached)

    def preallocate(self, size_bytes: int) -> None:
        self._check("preallocate")
        self._grow(size_bytes)

    def pread(self, size_bytes: int, offset: int) -> bytes:
        self._check("pread")
        return bytes(self._inode.cached[offset : offset + size_bytes])

    def pwritev(self, buffers: Sequence[bytes], offset: int) -> int:
        data = b"".join(buffers)
        try:
            self._check("pwritev")
            self._grow(offset + len(data))
        except OSError:
            # What a refused write leaves behind is not defined: here it is the first half, as far as there is room.
            room = max(0, len(self._inode.cached) - offset)
            self._put(data[: min(len(data) // 2, room)], offset)
            raise
        self._put(data, offset)
        return len(data)

    def fdatasync(self) -> None:
        inode = self._inode
        try:
            self._check("fdatasync")
        except OSError:
            inode.dirty_sectors.clear()
            raise
        self._disk.persist(inode, inode.dirty_sectors, whole_size=True)
        inode.dirty_sectors.clear()

    def close(self) -> None:
        self._generation = -1

    def _check(self, operation: str) -> None:
        if self._generation != self._disk.generation:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._path)
        self._disk.check(operation, self._path)

    def _grow(self, size_bytes: int) -> None:
        missing = size_bytes - len(self._inode.cached)
        if missing <= 0:
            return
        if missing > self._disk.free_bytes(dirname(self._path)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        self._inode.cached += bytes(missing)

    def _put(self, data: bytes, offset: int) -> None:
        if not data:
            return
        self._inode.cached[offset : offset + len(data)] = data
        sector_bytes = self._disk.sector_bytes
        self._inode.dirty_sectors.update(range(offset // sector_bytes, (offset + len(data) - 1) // sector_bytes + 1))


class FakeDisk:
    """Files by their full path; a directory is there as soon as it is named."""

    def __init__(self, *, capacity_bytes: int = 2**40, sector_bytes: int = 512, fault: Fault | None = None) -> None:
        assert sector_bytes > 0, "a sector holds something"
        self.capacity_bytes = capacity_bytes
        self.sector_bytes = sector_bytes
        self.fault = fault
        self.generation = 0
        self.fdatasyncs = 0
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._changes: list[dict[str, _Inode | None]] = []  # of names, since the directory was synced

    # The port.

    def list(self, directory: str) -> list[str]:
        self.check("list", directory)
        return [basename(path) for path in self._names if dirname(path) == directory]

    def open(self, path: str, *, create: bool = False) -> File:
        self.check("open", path)
        if create:
            self._change({path: _Inode()})
        return FakeFile(self, path, self._inode(path))

    def rename(self, old: str, new: str) -> None:
        self.check("rename", old)
        self._change({old: None, new: self._inode(old)})

    def unlink(self, path: str) -> None:
        self.check("unlink", path)
        self._inode(path)
        self._change({path: None})

    def sync_directory(self, directory: str) -> None:
        self.check("sync_directory", directory)
        elsewhere = []
        for change in self._changes:
            if any(dirname(path) == directory for path in change):
                self._apply(self._durable_names, change)
            else:
                elsewhere.append(change)
        self._changes = elsewhere

    def free_bytes(self, directory: str) -> int:
        used = sum(len(inode.cached) for inode in set(self._names.values()))
        return max(0, self.capacity_bytes - used)

    # What the world does to it.

    def crash(self, random: Random) -> None:
        """Power loss: what was not synced is there or not, sector by sector and name by name. Open files are dead."""
        for change in self._changes:
            if random.random() < 0.5:
                self._apply(self._durable_names, change)
        inodes = {id(inode): inode for inode in (*self._names.values(), *self._durable_names.values())}
        for inode in inodes.values():
            kept_share = random.choice((0.0, 0.5, 1.0))
            kept = {sector for sector in sorted(inode.dirty_sectors) if random.random() < kept_share}
            self.persist(inode, kept, whole_size=random.random() < 0.5)
            inode.cached = bytearray(inode.durable)
            inode.dirty_sectors.clear()
        self._names = dict(self._durable_names)
        self._changes.clear()
        self.generation += 1

    def kill(self) -> None:
        """The process dies, the machine goes on: everything stays as it was cached. Open files are dead."""
        self.generation += 1

    def contents(self, path: str) -> bytes:
        """What a reader would see."""
        return bytes(self._inode(path).cached)

    def damage(self, path: str, offset: int, data: bytes) -> None:
        """Replace bytes behind everybody's back, durably."""
        inode = self._inode(path)
        assert offset + len(data) <= len(inode.durable), "only what is on the disk can rot"
        inode.cached[offset : offset + len(data)] = data
        inode.durable[offset : offset + len(data)] = data

    def flip_bit(self, path: str, bit: int) -> None:
        """Flip one bit, counted from the start of the file."""
        self.damage(path, bit // 8, bytes((self._inode(path).durable[bit // 8] ^ (1 << bit % 8),)))

    def truncate(self, path: str, size_bytes: int) -> None:
        """Cut a file behind everybody's back, durably."""
        inode = self._inode(path)
        del inode.cached[size_bytes:]
        del inode.durable[size_bytes:]

    # For FakeFile.

    def check(self, operation: str, path: str) -> None:
        if operation == "fdatasync":
            self.fdatasyncs += 1
        if self.fault is not None:
            self.fault(operation, path)

    def persist(self, inode: _Inode, sectors: set[int], *, whole_size: bool) -> None:
        size_bytes = self.sector_bytes
        for sector in sectors:
            start = sector * size_bytes
            data = inode.cached[start : start + size_bytes]
            if len(inode.durable) < start + len(data):
                inode.durable += bytes(start + len(data) - len(inode.durable))
            inode.durable[start : start + len(data)] = data
        if whole_size and len(inode.durable) < len(inode.cached):
            inode.durable += bytes(len(inode.cached) - len(inode.durable))

    def _inode(self, path: str) -> _Inode:
        inode = self._names.get(path)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return inode

    def _change(self, change: dict[str, _Inode | None]) -> None:
        self._changes.append(change)
        self._apply(self._names, change)

    @staticmethod
    def _apply(names: dict[str, _Inode], change: dict[str, _Inode | None]) -> None:
        for path, inode in change.items():
            if inode is None:
                names.pop(path, None)
            else:
                names[path] = inode


__all__ = ["FakeDisk", "FakeFile", "Fault"]
