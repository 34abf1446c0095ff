"""The keyspace on LMDB: one file, crash-safe by copy-on-write pages and a synced commit.

Never MDB_NOSYNC. A write transaction is bound to its thread, so `commit` begins, uses and ends it in one call. Readers hold
one read transaction, renewed after each commit: held for longer it would keep freed pages from being reused. py-lmdb gives
up the interpreter lock for every put, so the number of puts, not their bytes, decides how long a commit takes beside a
busy loop.
"""

import errno
import os
from threading import Lock
from typing import Any, Callable, Iterable, Sequence
from weakref import WeakValueDictionary

import lmdb

from raftkv.errors import ConfigError, Corruption, DiskFailure, NoSpace
from raftkv.limits import Limits
from raftkv.store.buckets import change_bucket, find_in_bucket, split_long, unpack_bucket
from raftkv.store.keyspace import SHARED_KEY_BYTES, TABLE_NAMES, Item, TableChange, Window

_DAMAGED = (
    lmdb.InvalidError,
    lmdb.CorruptedError,
    lmdb.VersionMismatchError,
    lmdb.PageNotFoundError,
    lmdb.NotFoundError,
)
LOCK_SUFFIX = "-lock"  # LMDB's lock file has the name of the store's file and this
_FULL_BYTES = 64 * 1024  # less is left on a disk after a write that did not fit
_READERS_MAX = 16  # the loop's transaction, copies, and whoever inspects the file from outside


_OPEN: WeakValueDictionary[str, "LmdbKeyspace"] = WeakValueDictionary()
"""The writable keyspaces of this process, by path. LMDB must not open a file twice in one process, so who knows only the path
has to find the one that is open."""


class LmdbKeyspace:
    """An open store file. Raises Corruption, NoSpace, DiskFailure or ConfigError when it cannot be opened.

    `read_only`: without locks or readers' table, for a file that nobody changes: a snapshot.
    """

    def __init__(self, path: str, map_bytes: int, *, read_only: bool = False) -> None:
        self.path = path
        self._copying, self._committing = Lock(), Lock()  # close waits for both: the map must not vanish under them
        self._copy_file: int | None = None  # while a copy is written
        self._copy_lock = Lock()
        self._closed = False
        self._last_sizes: tuple[int, int] | None = None  # allocated and used, once it is closed
        existed = os.path.exists(path)
        try:
            self._env: Any = _open_environment(path, map_bytes, read_only)
        except lmdb.MemoryError as error:
            raise ConfigError(
                f"cannot reserve {map_bytes} bytes of address space for {path}: raise the limit (ulimit -v) or lower map_bytes"
            ) from error
        except lmdb.Error as error:
            raise _open_error(error, path) from error
        try:
            self._tables: list[Any] = [self._env.open_db(name, create=not read_only) for name in TABLE_NAMES]
        except lmdb.Error as error:
            self._env.close()
            raise _open_error(error, path) from error
        if not existed:
            sync_directory(os.path.dirname(path))
        if not read_only:
            _OPEN[os.path.abspath(path)] = self
        self._begin()

    @classmethod
    def open(cls, path: str, limits: Limits) -> "LmdbKeyspace":
        """The store of a member; made when there is none."""
        return cls(path, limits.map_bytes)

    def get(self, table: int, key: bytes) -> bytes | None:
        value: bytes | None
        if len(key) < SHARED_KEY_BYTES:
            value = self._get(key, None, self._tables[table])
            return value
        prefix = key[:SHARED_KEY_BYTES]
        value = self._get(prefix, None, self._tables[table])
        return None if value is None else find_in_bucket(prefix, value, key)

    def window(self, table: int, start: bytes, end: bytes | None, items_max: int, bytes_max: int) -> Window:
        assert items_max > 0, "a window has room for an item"
        window = Window()
        items = window.items
        cursor = self._cursor(table)
        if not cursor.set_range(start[:SHARED_KEY_BYTES]):
            return window
        size = 0
        for key, value in cursor.iternext():
            # Only keys that share a record can lie before `start`: the cursor was set to the first 480 bytes of it.
            for item in unpack_bucket(key, value) if len(key) == SHARED_KEY_BYTES else ((key, value),):
                if item[0] < start:
                    continue
                if end is not None and item[0] >= end:
                    return window
                if len(items) >= items_max or size >= bytes_max:
                    window.resume = item[0]
                    return window
                items.append(item)
                size += len(item[1])
        return window

    def keys(self, table: int, start: bytes, end: bytes | None, items_max: int) -> tuple[list[bytes], bytes | None]:
        assert items_max > 0, "a window has room for a key"
        found: list[bytes] = []
        cursor = self._cursor(table)
        if not cursor.set_range(start[:SHARED_KEY_BYTES]):
            return found, None
        for key in cursor.iternext(keys=True, values=False):
            if len(key) == SHARED_KEY_BYTES:
                names = [name for name, _ in unpack_bucket(key, cursor.value()) if name >= start]
            else:
                names = [key]
            for name in names:
                if end is not None and name >= end:
                    return found, None
                if len(found) >= items_max:
                    return found, name
                found.append(name)
        return found, None

    def floor(self, table: int, key: bytes) -> Item | None:
        assert len(key) < SHARED_KEY_BYTES, "floor knows no shared records"
        cursor = self._cursor(table)
        found = cursor.set_range(key)
        if (found and cursor.key() == key) or (cursor.prev() if found else cursor.last()):
            item: Item = cursor.item()
            assert len(item[0]) < SHARED_KEY_BYTES, "floor knows no shared records"
            return item
        return None

    def commit(self, changes: Iterable[TableChange]) -> None:
        with self._committing:
            assert not self._closed, "commits end before the keyspace is closed"
            try:
                with self._env.begin(write=True) as transaction:
                    for change in changes:
                        _write(transaction, self._tables[change.table], change)
            except lmdb.Error as error:
                raise disk_error(error, self.path) from error

    def renew(self) -> None:
        self._transaction.abort()
        self._begin()

    def copy(self, path: str) -> None:
        with self._copying:
            if self._closed:
                raise OSError(errno.EBADF, "the store was closed before it could be copied", self.path)
            stopped = False
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                self._copy_file = file
                try:
                    self._env.copyfd(file, compact=True)
                    os.fsync(file)
                finally:
                    with self._copy_lock:
                        stopped = self._copy_file is None
                        self._copy_file = None
                    os.close(file)
            except (lmdb.Error, OSError) as error:
                if stopped:
                    raise OSError(errno.ECANCELED, "the copy was given up", path) from error
                raise disk_error(error, path) from error

    def stop_copying(self) -> None:
        """Let a copy that another thread is making fail with OSError (ECANCELED), instead of waiting for gigabytes; from any thread.

        LMDB knows no such wish, but it gives up where there is no space: from here on its writes go to such a place.
        """
        with self._copy_lock:
            if self._copy_file is not None:
                nowhere = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)
                os.dup2(nowhere, self._copy_file, inheritable=False)
                os.close(nowhere)
                self._copy_file = None

    def moved(self, path: str) -> None:
        """The file was given another name, which LMDB does not mind: it holds the file."""
        if _OPEN.get(os.path.abspath(self.path)) is self:
            del _OPEN[os.path.abspath(self.path)]
        self.path = path
        _OPEN[os.path.abspath(path)] = self

    def allocated_bytes(self) -> int:
        if self._last_sizes is not None:
            return self._last_sizes[0]
        return int((self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"])

    def used_bytes(self) -> int:
        if self._last_sizes is not None:
            return self._last_sizes[1]
        stats = [self._env.stat(), *(self._transaction.stat(table) for table in self._tables)]
        pages = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
        return int(pages * stats[0]["psize"])

    def records(self, table: int) -> int:
        """How many a table has."""
        return int(self._transaction.stat(self._tables[table])["entries"])

    def close(self) -> None:
        with self._committing, self._copying:
            if self._closed:
                return
            # Who watches the size asks on, also while another store is being put in this one's place.
            self._last_sizes = (self.allocated_bytes(), self.used_bytes())
            self._closed = True
            if _OPEN.get(os.path.abspath(self.path)) is self:  # else another one has taken its place
                del _OPEN[os.path.abspath(self.path)]
            self._cursors.clear()
            self._transaction.abort()
            self._env.close()

    def _begin(self) -> None:
        self._transaction: Any = self._env.begin()
        self._get: Callable[[bytes, None, Any], Any] = self._transaction.get
        self._cursors: dict[int, Any] = {}

    def _cursor(self, table: int) -> Any:
        cursor = self._cursors.get(table)
        if cursor is None:
            cursor = self._cursors[table] = self._transaction.cursor(self._tables[table])
        return cursor


def _open_environment(path: str, map_bytes: int, read_only: bool) -> Any:
    return lmdb.open(
        path,
        subdir=False,
        map_size=map_bytes,
        max_dbs=len(TABLE_NAMES),
        max_readers=_READERS_MAX,
        readahead=False,  # point reads at random places: read-ahead would only evict what is hot
        readonly=read_only,
        lock=not read_only,
        mode=0o600,
    )


def _write(transaction: Any, table: Any, change: TableChange) -> None:
    longest = max(max(map(len, change.deletes), default=0), max((len(key) for key, _ in change.puts), default=0))
    puts: Sequence[Item] = change.puts
    deletes: Sequence[bytes] = change.deletes
    if longest >= SHARED_KEY_BYTES:
        for prefix, (long_puts, long_deletes) in split_long(puts, deletes).items():
            bucket = change_bucket(prefix, transaction.get(prefix, b"", table), long_puts, long_deletes)
            if bucket:
                transaction.put(prefix, bucket, db=table)
            else:
                transaction.delete(prefix, db=table)
        puts = [item for item in puts if len(item[0]) < SHARED_KEY_BYTES]
        deletes = [key for key in deletes if len(key) < SHARED_KEY_BYTES]
    for key in deletes:
        transaction.delete(key, db=table)
    if puts:
        with transaction.cursor(table) as cursor:
            cursor.putmulti(puts, append=change.append)


def open_keyspace(path: str) -> LmdbKeyspace | None:
    """The writable keyspace that this process has open at a path, or None."""
    return _OPEN.get(os.path.abspath(path))


def sync_directory(path: str) -> None:
    """Make the names in a directory durable. Raises NoSpace or DiskFailure."""
    try:
        directory = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise disk_error(error, path) from error


def _open_error(error: Exception, path: str) -> Corruption | NoSpace | DiskFailure:
    if isinstance(error, _DAMAGED):
        advice = "remove this member, delete its data, and add it anew"
        return Corruption(f"{path} is damaged ({error}): {advice}", details={"file": path})
    return disk_error(error, path)


def disk_error(error: Exception, path: str) -> NoSpace | DiskFailure:
    """What a refusal of the disk means: no space, which may pass, or a failure, which ends the process."""
    # DiskError is ENOSPC in py-lmdb; MapFullError is our own bound on the file.
    full = isinstance(error, lmdb.MapFullError | lmdb.DiskError) or (
        # A write of which only a part fitted is EIO to LMDB ("short write, filesystem full?"); its transaction is undone alike.
        isinstance(error, lmdb.Error) and os.strerror(errno.EIO) in str(error) and _free_bytes(path) < _FULL_BYTES
    )
    if full or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return NoSpace(f"no space left for {path}: {error}", details={"file": path})
    return DiskFailure(f"{path}: {error}", details={"file": path})


def _free_bytes(path: str) -> int:
    try:
        figures = os.statvfs(os.path.dirname(path) or ".")
    except OSError:
        return _FULL_BYTES
    return figures.f_bavail * figures.f_frsize
