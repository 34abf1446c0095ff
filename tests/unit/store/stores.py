"""Helpers of the store's tests: entries, small commands, and both keyspaces behind one fixture-like function."""

from pathlib import Path
from typing import Any

from raftkv.limits import MIB, Limits
from raftkv.raft.messages import ENTRY_COMMANDS, Configuration, Entry, SnapshotMeta
from raftkv.store.keyspace import Keyspace
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.snapshot import SnapshotFile
from raftkv.store.store import Store
from raftkv.wire.commands import APPEND, DELETE_RANGE, GET, INCREMENT, PUT, RANGE, TXN, Answer, encode_batch

LIMITS = Limits(map_bytes=64 * MIB)
TWINS = ("lmdb", "memory")
SESSION = b"session-number-1"


def keyspace_of(twin: str, directory: Path, limits: Limits = LIMITS) -> Keyspace:
    if twin == "lmdb":
        return LmdbKeyspace.open(str(directory / "store.mdb"), limits)
    return MemoryKeyspace()


def put(key: bytes, value: bytes = b"v", *, seq: int = 0, lease: int = 0, flags: int = 0) -> list[Any]:
    return [PUT, seq, key, value, lease, flags]


def delete(key: bytes, range_end: bytes = b"", *, seq: int = 0, flags: int = 0) -> list[Any]:
    return [DELETE_RANGE, seq, key, range_end, flags]


def txn(compares: list[Any], success: list[Any], failure: list[Any], *, seq: int = 0) -> list[Any]:
    return [TXN, seq, compares, success, failure]


def increment(key: bytes, delta: int = 1, *, seq: int = 0) -> list[Any]:
    return [INCREMENT, seq, key, delta]


def append(key: bytes, value: bytes, *, seq: int = 0) -> list[Any]:
    return [APPEND, seq, key, value]


def get(key: bytes) -> list[Any]:
    return [GET, 0, key]


def ranged(
    key: bytes = b"\0",
    range_end: bytes = b"\0",
    *,
    flags: int = 0,
    limit: int = 0,
    revision: int = 0,
    order: int = 0,
    target: int = 0,
    bounds: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> list[Any]:
    return [RANGE, flags, key, range_end, limit, revision, order, target, *bounds]


class Driver:
    """Feeds a store with entries, one group each, and keeps them as the log would."""

    def __init__(self, keyspace: Keyspace, limits: Limits = LIMITS) -> None:
        self.store = Store.open(keyspace, limits)
        self.limits = limits
        self.log: list[Entry] = []

    def apply(
        self,
        *commands: Any,
        session: Any = None,
        register: bool = True,
        ack_below: Any = 0,
        user: Any = None,
        at_ms: int = 0,
    ) -> list[Answer]:
        return self.apply_groups([[session, register, ack_below, user, 0, list(commands)]], at_ms)[0]

    def apply_groups(self, groups: list[Any], at_ms: int = 0) -> list[list[Answer]]:
        return self.apply_entry(ENTRY_COMMANDS, encode_batch(at_ms, groups))

    def apply_entry(self, kind: int, data: bytes) -> list[list[Answer]]:
        entry = Entry(self.store.applied_index + 1, 1, kind, data)
        self.log.append(entry)
        return self.store.apply(entry)

    def commit(self) -> None:
        job = self.store.freeze()
        assert job is not None
        job.run()
        self.store.thaw(job)

    def keys(self, command: list[Any] | None = None) -> list[bytes]:
        return [items[0] for items in self.store.read(command or ranged())[2]]


def meta_of(made: SnapshotFile, snapshot_id: int = 7) -> SnapshotMeta:
    configuration = Configuration(frozenset({1}))
    return SnapshotMeta(made.index, made.term, configuration, made.size_bytes, made.checksum, snapshot_id)
