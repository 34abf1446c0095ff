"""The keyspace in memory: the twin of lmdb_keyspace.py for the simulator and the tests, equal to the last window.

`commit` counts as durable: an object of this class plays the disk, and a store that is opened on it again after a crash
sees what was committed and nothing else. Commits become visible at `renew`, as with LMDB's read transactions.
"""

from bisect import bisect_left, bisect_right
from typing import Iterable

import msgpack

from raftkv.errors import Corruption
from raftkv.store.buckets import change_bucket, find_in_bucket, split_long, unpack_bucket
from raftkv.store.keyspace import SHARED_KEY_BYTES, TABLE_NAMES, Item, TableChange, Window


class _Table:
    """A dict of records and its sorted keys. Records are what LMDB would hold: long keys share one."""

    __slots__ = ("names", "records")

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.names: list[bytes] = []

    def write(self, change: TableChange) -> None:
        for prefix, (puts, deletes) in split_long(change.puts, change.deletes).items():
            bucket = change_bucket(prefix, self.records.get(prefix, b""), puts, deletes)
            if bucket:
                self._put(prefix, bucket)
            else:
                self._delete(prefix)
        for key in change.deletes:
            if len(key) < SHARED_KEY_BYTES:
                self._delete(key)
        for key, value in change.puts:
            if len(key) < SHARED_KEY_BYTES:
                assert not change.append or not self.names or key > self.names[-1], "an appended key is the last one"
                self._put(key, value)

    def _put(self, key: bytes, value: bytes) -> None:
        if key not in self.records:
            self.names.insert(bisect_left(self.names, key), key)
        self.records[key] = value

    def _delete(self, key: bytes) -> None:
        if self.records.pop(key, None) is not None:
            del self.names[bisect_left(self.names, key)]


class MemoryKeyspace:
    """An empty keyspace, or the one that `dump` made bytes of."""

    def __init__(self, dumped: bytes | None = None) -> None:
        self._tables = [_Table() for _ in TABLE_NAMES]
        self._pending: list[list[TableChange]] = []
        if dumped is not None:
            self._load(dumped)

    def get(self, table: int, key: bytes) -> bytes | None:
        records = self._tables[table].records
        if len(key) < SHARED_KEY_BYTES:
            return records.get(key)
        prefix = key[:SHARED_KEY_BYTES]
        bucket = records.get(prefix)
        return None if bucket is None else find_in_bucket(prefix, bucket, key)

    def window(self, table: int, start: bytes, end: bytes | None, items_max: int, bytes_max: int) -> Window:
        assert items_max > 0, "a window has room for an item"
        window = Window()
        size = 0
        for item in self._items(table, start):
            if end is not None and item[0] >= end:
                break
            if len(window.items) >= items_max or size >= bytes_max:
                window.resume = item[0]
                break
            window.items.append(item)
            size += len(item[1])
        return window

    def keys(self, table: int, start: bytes, end: bytes | None, items_max: int) -> tuple[list[bytes], bytes | None]:
        window = self.window(table, start, end, items_max, 2**63)
        return [key for key, _ in window.items], window.resume

    def floor(self, table: int, key: bytes) -> Item | None:
        assert len(key) < SHARED_KEY_BYTES, "floor knows no shared records"
        held = self._tables[table]
        position = bisect_right(held.names, key)
        if not position:
            return None
        name = held.names[position - 1]
        assert len(name) < SHARED_KEY_BYTES, "floor knows no shared records"
        return name, held.records[name]

    def commit(self, changes: Iterable[TableChange]) -> None:
        self._pending.append(list(changes))

    def renew(self) -> None:
        pending, self._pending = self._pending, []
        for changes in pending:
            for change in changes:
                self._tables[change.table].write(change)

    def dump(self) -> bytes:
        """The committed state as bytes; equal states have equal bytes."""
        tables = self._tables
        if self._pending:
            committed = MemoryKeyspace()
            for mine, copied in zip(tables, committed._tables, strict=True):
                copied.records, copied.names = dict(mine.records), list(mine.names)
            committed._pending = list(self._pending)
            committed.renew()
            tables = committed._tables
        dumped: bytes = msgpack.packb([[[name, table.records[name]] for name in table.names] for table in tables])
        return dumped

    def copy(self, path: str) -> None:
        with open(path, "xb") as file:
            file.write(self.dump())

    def allocated_bytes(self) -> int:
        return self.used_bytes()

    def used_bytes(self) -> int:
        return sum(len(name) + len(value) for table in self._tables for name, value in table.records.items())

    def close(self) -> None:
        """Nothing to let go of: what was committed stays, as on a disk."""

    def _items(self, table: int, start: bytes) -> Iterable[Item]:
        held = self._tables[table]
        for position in range(bisect_left(held.names, start[:SHARED_KEY_BYTES]), len(held.names)):
            name = held.names[position]
            value = held.records[name]
            if len(name) == SHARED_KEY_BYTES:
                yield from (item for item in unpack_bucket(name, value) if item[0] >= start)
            else:
                yield name, value

    def _load(self, dumped: bytes) -> None:
        try:
            tables = msgpack.unpackb(dumped)
            for table, items in zip(self._tables, tables, strict=True):
                table.records = dict(items)
                table.names = sorted(table.records)
        except (ValueError, TypeError) as error:
            raise Corruption(f"these bytes are no dumped keyspace: {error}") from error
