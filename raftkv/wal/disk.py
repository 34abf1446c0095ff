"""The file port of the write-ahead log: what it asks of a disk, and the real one.

Everything that raftkv.wal does to files goes through `Disk` and `File`, so that the simulator can plug in a disk that loses,
tears and refuses (fakedisk.py). Both raise plain OSError; what an error means for the log is decided in wal.py. Nothing here
knows about frames, records or segments.
"""

import os
from typing import Protocol, Sequence


class File(Protocol):
    """One open file, readable and writable at any offset. All methods raise OSError."""

    def size(self) -> int:
        """Length in bytes."""
        ...

    def preallocate(self, size_bytes: int) -> None:
        """Make the file at least `size_bytes` long, with its blocks reserved; new bytes read as zeros."""
        ...

    def pread(self, size_bytes: int, offset: int) -> bytes:
        """Up to `size_bytes` from `offset`; fewer only at the end of the file."""
        ...

    def pwritev(self, buffers: Sequence[bytes], offset: int) -> int:
        """Write all of `buffers`, one after the other, at `offset`; returns their bytes. After an error any part may be there."""
        ...

    def fdatasync(self) -> None:
        """Return once everything written is durable. After an error nothing is known about it, and never will be."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """A file system, as far as the log needs one. All methods raise OSError."""

    def list(self, directory: str) -> list[str]:
        """Names in `directory`, in no order."""
        ...

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and writing; with `create` an empty new file, whatever was there before."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Atomic; durable after `sync_directory`."""
        ...

    def unlink(self, path: str) -> None:
        """Durable after `sync_directory`."""
        ...

    def sync_directory(self, directory: str) -> None:
        """Make creations, renames and removals in `directory` durable."""
        ...

    def free_bytes(self, directory: str) -> int:
        """What an unprivileged process may still allocate."""
        ...


class RealFile:
    """A file descriptor. Used by one thread at a time."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def preallocate(self, size_bytes: int) -> None:
        os.posix_fallocate(self._descriptor, 0, size_bytes)

    def pread(self, size_bytes: int, offset: int) -> bytes:
        data = os.pread(self._descriptor, size_bytes, offset)
        if len(data) == size_bytes or not data:
            return data
        # One call moves at most 2 GiB, and network file systems return less when they like.
        pieces = [data]
        read = len(data)
        while read < size_bytes:
            piece = os.pread(self._descriptor, size_bytes - read, offset + read)
            if not piece:
                break
            pieces.append(piece)
            read += len(piece)
        return b"".join(pieces)

    def pwritev(self, buffers: Sequence[bytes], offset: int) -> int:
        total = sum(map(len, buffers))
        written = os.pwritev(self._descriptor, buffers, offset)
        if written < total:
            rest = memoryview(b"".join(buffers))
            while written < total:
                written += os.pwrite(self._descriptor, rest[written:], offset + written)
        return total

    def fdatasync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RealDisk:
    """The machine's own file system."""

    __slots__ = ()

    def list(self, directory: str) -> list[str]:
        return os.listdir(directory)

    def open(self, path: str, *, create: bool = False) -> File:
        flags = os.O_RDWR | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT | os.O_TRUNC
        return RealFile(os.open(path, flags, 0o600))

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def sync_directory(self, directory: str) -> None:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, directory: str) -> int:
        figures = os.statvfs(directory)
        return figures.f_bavail * figures.f_frsize


__all__ = ["Disk", "File", "RealDisk", "RealFile"]
