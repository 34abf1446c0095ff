"""A client without a cluster: the store is a dict, and an error can be planted.

It has the methods that the verbs use, with the signatures of raftkv.Client; test_cli_fake.py compares the two, so that it cannot
drift from the real one.
"""

from typing import Any, ClassVar, Iterator, Mapping

from raftkv.client.auth_requests import Permission
from raftkv.client.requests import Bytes, SortBy, as_bytes
from raftkv.client.results import (
    DeleteResult,
    GrantedLease,
    KeyValue,
    LeaseInfo,
    OperationResult,
    PutResult,
    RangeResult,
    TxnResult,
)
from raftkv.client.tls import Tls
from raftkv.client.txn import Txn
from raftkv.client.watchstate import WatchBatch
from raftkv.errors import LeaseNotFound, NoSpace, RaftKVError
from raftkv.wire.commands import (
    COMPARE_VALUE,
    COMPARE_VERSION,
    DELETE_RANGE,
    EQUAL,
    GREATER,
    PUT,
    RANGE,
    Command,
    prefix_range_end,
)

from .fake_users import FakeUsers

REVISION_BEFORE = 1


class Cluster:
    """What all fake clients of one test share."""

    def __init__(self) -> None:
        self.store: dict[bytes, KeyValue] = {}
        self.revision = REVISION_BEFORE
        self.error: RaftKVError | None = None
        self.watched: list[WatchBatch] = []
        self.members: list[dict[str, Any]] = []
        self.leases: dict[int, float] = {}
        self.kept_revoked_within: list[float] = []
        self.full: set[str] = set()  # endpoints without room for a second copy
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.opened_with: list[tuple[str, str | None, float]] = []
        self.logins: list[tuple[str | None, str]] = []
        self.tls: list[Tls | None] = []
        self.users: dict[str, list[str]] = {}
        self.roles: dict[str, list[Permission]] = {}

    def ask(self, verb: str, **arguments: Any) -> None:
        self.asked.append((verb, arguments))
        if self.error is not None:
            raise self.error

    def put(self, key: bytes, value: bytes) -> PutResult:
        self.revision += 1
        old = self.store.get(key)
        created, version = (old.create_revision, old.version + 1) if old else (self.revision, 1)
        self.store[key] = KeyValue(key, created, self.revision, version, 0, value)
        return PutResult(self.revision, None)

    def select(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        if not range_end:
            return [self.store[key]] if key in self.store else []
        return [
            kv for name, kv in sorted(self.store.items()) if key <= name and (range_end == b"\0" or name < range_end)
        ]

    def delete(self, key: bytes, range_end: bytes) -> DeleteResult:
        gone = self.select(key, range_end)
        for kv in gone:
            del self.store[kv.key]
        self.revision += bool(gone)
        return DeleteResult(self.revision, len(gone), [])

    def holds(self, compare: list[Any]) -> bool:
        result, target, key, operand, _ = compare
        kv = self.store.get(key)
        assert target in (COMPARE_VERSION, COMPARE_VALUE), "the tests compare versions and values"
        if target == COMPARE_VALUE:
            return result == EQUAL and kv is not None and kv.value == operand
        version = kv.version if kv else 0
        return bool(
            version == operand if result == EQUAL else version > operand if result == GREATER else version != operand
        )

    def perform(self, command: Command) -> OperationResult:
        if command[0] == PUT:
            return self.put(command[2], command[3])
        if command[0] == DELETE_RANGE:
            return self.delete(command[2], command[3])
        assert command[0] == RANGE
        kvs = self.select(command[2], command[3])
        return RangeResult(kvs, False, len(kvs), self.revision)

    def transact(self, command: Command) -> TxnResult:
        _, _, compares, success, failure = command
        succeeded = all(self.holds(compare) for compare in compares)
        return TxnResult(succeeded, [self.perform(each) for each in (success if succeeded else failure)], self.revision)


class FakeClient(FakeUsers):
    """Stands in for raftkv.Client."""

    cluster: ClassVar[Cluster]

    def __init__(
        self,
        endpoints: str,
        *,
        cluster_name: str | None = None,
        timeout: float = 5.0,
        user: str | None = None,
        password: str = "",
        tls: Tls | None = None,
    ) -> None:
        self.cluster.tls.append(tls)
        self.cluster.opened_with.append((endpoints, cluster_name, timeout))
        self.cluster.logins.append((user, password))

    def __enter__(self) -> "FakeClient":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _revoke_kept(self, timeout: float) -> None:
        self.cluster.kept_revoked_within.append(timeout)

    def put(self, key: Bytes, value: Bytes, *, lease: int = 0) -> PutResult:
        self.cluster.ask("put", key=key, value=value, lease=lease)
        return self.cluster.put(as_bytes(key), as_bytes(value))

    def get_kv(self, key: Bytes, *, stale: bool = False) -> KeyValue | None:
        self.cluster.ask("get_kv", key=key, stale=stale)
        return self.cluster.store.get(as_bytes(key))

    def range(
        self,
        key: Bytes | None = None,
        range_end: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        limit: int = 0,
        revision: int = 0,
        sort_by: SortBy | None = None,
        descending: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        stale: bool = False,
    ) -> RangeResult:
        self.cluster.ask("range", limit=limit, revision=revision, sort_by=sort_by, descending=descending, stale=stale)
        if prefix is not None:
            key, range_end = as_bytes(prefix) or b"\0", prefix_range_end(as_bytes(prefix))
        assert key is not None
        kvs = self.cluster.select(as_bytes(key), as_bytes(range_end or b""))
        count = len(kvs)
        kvs = [kv._replace(value=b"") for kv in kvs] if keys_only else kvs
        return RangeResult([] if count_only else kvs[: limit or None], False, count, self.cluster.revision)

    def delete_range(self, key: Bytes, range_end: Bytes) -> DeleteResult:
        self.cluster.ask("delete_range", key=key, range_end=range_end)
        return self.cluster.delete(as_bytes(key), as_bytes(range_end))

    def watch(
        self,
        key: Bytes | None = None,
        range_end: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        start_revision: int = 0,
        prev_kv: bool = False,
        only: str | None = None,
        progress: bool = False,
    ) -> "FakeWatch":
        self.cluster.ask("watch", key=key, range_end=range_end, prefix=prefix, start_revision=start_revision, only=only)
        return FakeWatch(self.cluster)

    def compact(self, revision: int) -> int:
        self.cluster.ask("compact", revision=revision)
        return self.cluster.revision

    def txn(self) -> Txn[TxnResult]:
        def submit(command: Command, timeout: float | None) -> TxnResult:
            self.cluster.ask("txn", command=command)
            return self.cluster.transact(command)

        return Txn(submit)

    def lease_grant(self, ttl: float) -> GrantedLease:
        self.cluster.ask("lease_grant", ttl=ttl)
        self.cluster.leases[0x7B] = ttl
        return GrantedLease(0x7B, ttl)

    def lease_revoke(self, lease_id: int) -> int:
        self.cluster.ask("lease_revoke", lease_id=lease_id)
        if self.cluster.leases.pop(lease_id, None) is None:
            raise LeaseNotFound
        return 2

    def lease_keep_alive_once(self, lease_id: int) -> float:
        self.cluster.ask("lease_keep_alive_once", lease_id=lease_id)
        if lease_id not in self.cluster.leases:
            raise LeaseNotFound
        return self.cluster.leases[lease_id]

    def lease_ttl(self, lease_id: int, *, keys: bool = False) -> LeaseInfo:
        self.cluster.ask("lease_ttl", lease_id=lease_id, keys=keys)
        if lease_id not in self.cluster.leases:
            raise LeaseNotFound
        ttl = self.cluster.leases[lease_id]
        return LeaseInfo(lease_id, ttl - 1.5, ttl, [b"a", b"\xff"] if keys else [])

    def leases(self) -> list[int]:
        self.cluster.ask("leases")
        return sorted(self.cluster.leases)

    def status(self) -> list[dict[str, Any]]:
        self.cluster.ask("status")
        return self.cluster.members

    def defragment(self, address: str) -> dict[str, Any]:
        self.cluster.ask("defragment", address=address)
        if address in self.cluster.full:
            raise NoSpace(f"{address} is full")
        return {"before_bytes": 8192, "after_bytes": 4096, "seconds": 0.25}

    def move_leader(self, name: str = "") -> Mapping[str, Any]:
        self.cluster.ask("move_leader", name=name)
        return {"id": 2, "name": name or "n2", "address": "127.0.0.1:2381"}


class FakeWatch:
    """Hears what the cluster was given, and then the user presses Ctrl-C."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.closed = False

    def __enter__(self) -> "FakeWatch":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closed = True

    def batches(self) -> Iterator[WatchBatch]:
        yield from self.cluster.watched
        raise KeyboardInterrupt
