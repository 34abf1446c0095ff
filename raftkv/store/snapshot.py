"""Snapshots of the store: made, sent, received and put in place (Raft dissertation, chapter 5).

A snapshot is a compacted copy of the committed store in one file. What it says about itself, applied index and term, is read
back from the copy, never from the store that it was taken of, which has moved on. A received one replaces the store's
file by a rename: at every moment the name leads to the whole old store or to the whole new one.
The memory keyspace has the same as bytes: a reader and a receiver without files.
"""

import os
import zlib
from dataclasses import dataclass
from typing import Callable, Final, Protocol

from raftkv.errors import Corruption
from raftkv.raft.messages import SnapshotMeta
from raftkv.store.keyspace import Keyspace
from raftkv.store.lmdb_keyspace import LOCK_SUFFIX, LmdbKeyspace, disk_error, open_keyspace, sync_directory
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.meta import StoredState, load_cluster, load_state
from raftkv.units import Index, Revision, Term
from raftkv.wire.settings import Settings

_PIECE_BYTES: Final = 1024 * 1024
_COPY_MAP_BYTES: Final = 16 * 1024 * 1024  # LMDB raises it to the size of the file


@dataclass(slots=True)
class SnapshotFile:
    """A snapshot that has been made. `configuration` is the data of the last ENTRY_CONFIGURATION up to `index`."""

    path: str
    index: Index
    term: Term
    size_bytes: int
    checksum: int  # CRC-32 (zlib) of the whole file
    configuration: bytes
    revision: Revision = 0


def write(source: str | Keyspace, target_path: str) -> SnapshotFile:
    """Copy the committed state of an open keyspace, or of the store file at a path, to a new file. Takes long: for a thread.

    Raises NoSpace, DiskFailure, Corruption, or OSError when the keyspace was closed meanwhile.
    """
    if isinstance(source, str):
        keyspace = open_keyspace(source)
        if keyspace is None:
            closed = LmdbKeyspace(source, _COPY_MAP_BYTES)
            try:
                return write(closed, target_path)
            finally:
                closed.close()
        source = keyspace
    try:
        os.unlink(target_path)  # left behind by a crash
    except FileNotFoundError:
        pass
    try:
        source.copy(target_path)
        state, configuration = _look_inside(source, target_path)
        size_bytes, checksum = _measure(target_path)
    except BaseException:
        _unlink(target_path)
        raise
    return SnapshotFile(
        target_path, state.applied_index, state.applied_term, size_bytes, checksum, configuration, state.revision
    )


class SnapshotFileReader:
    """A finished snapshot, held open while it is sent: the file may be unlinked meanwhile."""

    def __init__(self, path: str, meta: SnapshotMeta) -> None:
        self.meta = meta
        self._path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, size_max: int) -> bytes:
        """Up to `size_max` bytes at `offset`; empty behind the end. Raises DiskFailure."""
        assert offset >= 0, "an offset counts from the start"
        assert size_max > 0, "a chunk has room for a byte"
        try:
            return os.pread(self._file, size_max, offset)
        except OSError as error:
            raise disk_error(error, self._path) from error

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def part_name(meta: SnapshotMeta) -> str:
    """The file of a snapshot that is being received."""
    return f"incoming-{meta.index}-{meta.snapshot_id:x}"


class SnapshotReceiver:
    """Takes in the chunks of one snapshot, in a file in `directory`. A chunk that does not fit is ignored: it will be sent again.

    What an earlier process has received of the same snapshot is gone on with: nobody synced it, but the checksum at the end,
    which then is of what the file holds, finds out whether it is whole.
    """

    def __init__(self, directory: str, meta: SnapshotMeta) -> None:
        self.meta = meta
        self.path = os.path.join(directory, part_name(meta))
        self._checksum: int | None = 0  # of what came in here; None: the file knows more
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._next_offset = os.fstat(self._file).st_size
            if self._next_offset > meta.size_bytes:
                os.ftruncate(self._file, 0)
                self._next_offset = 0
        except OSError as error:
            raise disk_error(error, self.path) from error
        if self._next_offset:
            self._checksum = None

    @property
    def next_offset(self) -> int:
        """What is here without gaps."""
        return self._next_offset

    def write(self, offset: int, data: bytes) -> int:
        """Store a chunk; returns the next offset that is wanted. Raises NoSpace or DiskFailure."""
        assert self._file >= 0, "the snapshot is being received"
        if offset != self._next_offset or offset + len(data) > self.meta.size_bytes:
            return self._next_offset
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], offset + written)
        except OSError as error:
            raise disk_error(error, self.path) from error
        if self._checksum is not None:
            self._checksum = zlib.crc32(data, self._checksum)
        self._next_offset += len(data)
        return self._next_offset

    def finish(self) -> str:
        """Verify size, checksum and index, make the file durable, and return its path. Takes long: for a thread.

        Raises Corruption when it is not what was announced (the file is gone then), NoSpace or DiskFailure.
        """
        assert self._file >= 0, "the snapshot is being received"
        try:
            checksum = self._checksum if self._checksum is not None else _measure(self.path)[1]
            _verify(self.meta, self._next_offset, checksum)
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1
            copied = LmdbKeyspace(self.path, _COPY_MAP_BYTES, read_only=True)
            try:
                _verify_index(self.meta, load_state(copied))
            finally:
                copied.close()
        except OSError as error:
            raise disk_error(error, self.path) from error
        except Corruption:
            self.discard()
            raise
        return self.path

    def discard(self) -> None:
        """Close and remove what was received."""
        self.close()
        _unlink(self.path)

    def close(self) -> None:
        """Keep what was received for the next process."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class InstallDisk(Protocol):
    """The steps of an installation that reach the disk; a test stops between any two of them."""

    def sync_file(self, path: str) -> None: ...

    def rename(self, source: str, target: str) -> None: ...

    def sync_directory(self, path: str) -> None: ...


class _OsDisk:
    def sync_file(self, path: str) -> None:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def sync_directory(self, path: str) -> None:
        sync_directory(path)


def install(received_path: str, store_path: str, disk: InstallDisk | None = None) -> None:
    """Put a received snapshot in the store's place. The store there must be closed; open it anew afterwards.

    One rename decides. Before it the old store is in place, after it the new one, whose bytes were made durable first. The
    lock file stays: LMDB starts it afresh when nobody else has the store open. Raises NoSpace or DiskFailure.
    """
    assert open_keyspace(store_path) is None, "the store is closed before another one takes its place"
    disk = disk if disk is not None else _OsDisk()
    try:
        disk.sync_file(received_path)
        disk.rename(received_path, store_path)
        disk.sync_directory(os.path.dirname(store_path))
    except OSError as error:
        raise disk_error(error, store_path) from error


def replace(copy: LmdbKeyspace, store_path: str, disk: InstallDisk | None = None) -> None:
    """Give an open, durable copy of the store the store's name, while the store itself is open: it goes on without a name.

    One rename decides, as in `install`; `copy.path` tells whether it has happened. The lock file comes along, so that who looks
    at the store from outside shares it with us. Raises NoSpace or DiskFailure.
    """
    disk = disk if disk is not None else _OsDisk()
    copy_path = copy.path
    try:
        disk.rename(copy_path, store_path)
        copy.moved(store_path)
        disk.rename(copy_path + LOCK_SUFFIX, store_path + LOCK_SUFFIX)
        disk.sync_directory(os.path.dirname(store_path))
    except OSError as error:
        raise disk_error(error, store_path) from error


class SnapshotBytesReader:
    """The dump of a memory keyspace, as a replica.ports.SnapshotReader."""

    def __init__(self, data: bytes, meta: SnapshotMeta) -> None:
        self.meta = meta
        self._data = data

    def read(self, offset: int, size_max: int) -> bytes:
        return self._data[offset : offset + size_max]

    def fetch(self, offset: int, size_max: int, deliver: Callable[[bytes], None]) -> None:
        deliver(self.read(offset, size_max))

    def close(self) -> None:
        self._data = b""


class SnapshotBytesReceiver:
    """As SnapshotReceiver, in memory."""

    def __init__(self, meta: SnapshotMeta) -> None:
        self.meta = meta
        self._data = bytearray()

    def write(self, offset: int, data: bytes) -> int:
        if offset == len(self._data) and offset + len(data) <= self.meta.size_bytes:
            self._data += data
        return len(self._data)

    def finish(self) -> MemoryKeyspace:
        """The keyspace received: open a store on it. Raises Corruption."""
        data = bytes(self._data)
        _verify(self.meta, len(data), zlib.crc32(data))
        keyspace = MemoryKeyspace(data)
        _verify_index(self.meta, load_state(keyspace))
        return keyspace

    def discard(self) -> None:
        self._data.clear()


def dump_memory(keyspace: MemoryKeyspace) -> tuple[bytes, SnapshotFile]:
    """The snapshot of a memory keyspace as bytes, and what it says about itself (without a path)."""
    data = keyspace.dump()
    copied = MemoryKeyspace(data)
    state = load_state(copied)
    configuration = load_cluster(copied, Settings()).configuration
    made = SnapshotFile("", state.applied_index, state.applied_term, len(data), zlib.crc32(data), configuration)
    return data, made


def _look_inside(source: Keyspace, path: str) -> tuple[StoredState, bytes]:
    copied: Keyspace
    if isinstance(source, MemoryKeyspace):
        with open(path, "rb") as file:
            copied = MemoryKeyspace(file.read())
    else:
        copied = LmdbKeyspace(path, _COPY_MAP_BYTES, read_only=True)
    try:
        return load_state(copied), load_cluster(copied, Settings()).configuration
    finally:
        copied.close()


def _measure(path: str) -> tuple[int, int]:
    size_bytes = checksum = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            size_bytes += len(piece)
            checksum = zlib.crc32(piece, checksum)
    return size_bytes, checksum


def _verify(meta: SnapshotMeta, size_bytes: int, checksum: int) -> None:
    if size_bytes != meta.size_bytes:
        raise Corruption(f"the snapshot of index {meta.index} has {size_bytes} bytes, {meta.size_bytes} were announced")
    if checksum != meta.checksum:
        raise Corruption(f"the snapshot of index {meta.index} has checksum {checksum:08x}, not {meta.checksum:08x}")


def _verify_index(meta: SnapshotMeta, state: StoredState) -> None:
    if (state.applied_index, state.applied_term) != (meta.index, meta.term):
        raise Corruption(
            f"the snapshot holds index {state.applied_index} of term {state.applied_term},"
            f" index {meta.index} of term {meta.term} was announced"
        )


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
