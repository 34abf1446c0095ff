"""Random stories: requests that meet each other's keys, leases and revisions, and bad ones of every kind.

A story is drawn as a whole from its seed, as if the store were new; `moved` carries its revisions to where a store really is. That keeps
it a plain list, from which anything can be dropped when a failing one is shrunk. What crashes etcd 3.5.1 is left out: sort options that
it does not know, and a put that keeps the value of a key which its own transaction has deleted (see docs/etcd-compat.md).
"""

from random import Random
from typing import Any, Callable

from raftkv.etcd.methods import BY_PATH, Method
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import prefix_range_end

Step = tuple[Method | None, Any]
"""A request to a method. Without a method: a watch begins, the alarm for space goes on or off, or raftkv commits what it has and perhaps restarts, which nobody may notice."""

PUT, RANGE, DELETE, TXN, COMPACT = (
    BY_PATH[f"/etcdserverpb.KV/{name}"] for name in ("Put", "Range", "DeleteRange", "Txn", "Compact")
)
GRANT, REVOKE, KEEP_ALIVE, TIME_TO_LIVE, LEASES = (
    BY_PATH[f"/etcdserverpb.Lease/Lease{name}"] for name in ("Grant", "Revoke", "KeepAlive", "TimeToLive", "Leases")
)

KEYS = [b"\0", b"a", b"a\0", b"aa", b"ab", b"b", b"b\xff", b"c", b"\xff", b"\xff\xff", b"k" * 480, b"k" * 480 + b"x"]
VALUES = [b"", b"\0", b"1", b"2", b"12", b"\xff", b"v" * 300]
LEASE_IDS = [7, 8, -9, 2**63 - 1]
STABLE_KEYS_MAX = 6
"""etcd sorts at most so many keys as its sort package does everywhere: equal ones stay in key order."""

OPERATIONS_MAX = 128


def alarm(*, on: bool) -> rpc.AlarmRequest:
    """The store is full, or no more; as if by its size."""
    action = rpc.AlarmRequest.ACTIVATE if on else rpc.AlarmRequest.DEACTIVATE
    return rpc.AlarmRequest(action=action, alarm=rpc.NOSPACE)


class Teller:
    """Draws one story."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.is_wide = self.random.random() < 0.2
        self.keys = self.random.sample(KEYS, 10 if self.is_wide else self.random.randint(2, STABLE_KEYS_MAX))
        self.told = 0

    def story(self, length: int) -> list[Step]:
        kinds: list[tuple[int, Callable[[], Step]]] = [
            (22, lambda: (PUT, self.put())),
            (18, lambda: (RANGE, self.range())),
            (4, lambda: (DELETE, self.delete())),
            (24, lambda: (TXN, self.txn(3, OPERATIONS_MAX))),
            (3, lambda: (TXN, self.large_txn())),
            (4, lambda: (COMPACT, self.compaction())),
            (7, lambda: (GRANT, self.grant())),
            (3, lambda: (REVOKE, rpc.LeaseRevokeRequest(ID=self.lease(0.1)))),
            (2, lambda: (KEEP_ALIVE, rpc.LeaseKeepAliveRequest(ID=self.lease(0.1)))),
            (4, lambda: (TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=self.lease(0.1), keys=self.flip()))),
            (2, lambda: (LEASES, rpc.LeaseLeasesRequest())),
            (5, lambda: (None, None)),
            (4, lambda: (None, self.watch())),
        ]
        weights = [weight for weight, _ in kinds]
        # Something to begin with: most of what is asked of a store with two keys is answered with nothing.
        steps: list[Step] = [(PUT, self.put(key)) for key in self.keys if self.flip(0.8)]
        self.told = len(steps)
        for _ in range(length - len(steps)):
            self.told += 1
            (draw,) = self.random.choices([draw for _, draw in kinds], weights=weights)
            steps.append(draw())
        if self.flip(0.3):
            start = self.random.randrange(len(steps))
            steps.insert(start, (None, alarm(on=True)))
            steps.insert(start + self.random.randint(2, 15), (None, alarm(on=False)))
        return steps

    # Parts.

    def flip(self, chance: float = 0.5) -> bool:
        return self.random.random() < chance

    def key(self) -> bytes:
        return b"" if self.flip(0.02) else self.random.choice(self.keys)

    def end(self) -> bytes:
        kind = self.random.randrange(8)
        if kind < 3:
            return b""
        if kind == 3:
            return b"\0"
        key = self.random.choice(self.keys)
        return prefix_range_end(key) if kind < 6 else key + b"\0" if kind == 6 else key

    def lease(self, unknown: float) -> int:
        return self.random.choice([0, 1, -1]) if self.flip(unknown) else self.random.choice(LEASE_IDS)

    def revision(self) -> int:
        """Mostly one that exists or existed."""
        if self.flip(0.1):
            return self.random.choice([-(2**63), -2, -1, 0, 2**63 - 1, self.told + 50])
        return self.random.randint(1, 3 + self.told // 2)  # about every second step makes one

    # Requests.

    def put(self, key: bytes | None = None) -> rpc.PutRequest:
        request = rpc.PutRequest(key=self.key() if key is None else key, prev_kv=self.flip(0.4))
        request.ignore_value, request.ignore_lease = self.flip(0.12), self.flip(0.12)
        if not request.ignore_value or self.flip(0.1):
            request.value = self.random.choice(VALUES)
        if self.flip(0.4) and (not request.ignore_lease or self.flip(0.1)):
            request.lease = self.lease(0.08)
        return request

    def range(self) -> rpc.RangeRequest:
        wide = self.flip(0.6)
        request = rpc.RangeRequest(key=b"\0" if wide else self.key(), range_end=b"\0" if wide else self.end())
        if self.flip(0.3):
            request.revision = self.revision()
        if self.flip(0.6):
            request.limit = self.random.choice([1, 1, 2, 3, 4, -1, 2**63 - 1, -(2**63)])
        if self.flip(0.7):
            request.sort_order = self.random.choice([0, 1, 2])  # type: ignore[assignment]
            request.sort_target = 0 if self.is_wide else self.random.choice([0, 1, 2, 3, 4])  # type: ignore[assignment]
        request.serializable, request.keys_only = self.flip(0.2), self.flip(0.2)
        request.count_only = self.flip(0.1)
        if self.flip(0.2):
            for name in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
                if self.flip():
                    setattr(request, name, self.revision())
        return request

    def delete(self) -> rpc.DeleteRangeRequest:
        return rpc.DeleteRangeRequest(key=self.key(), range_end=self.end(), prev_kv=self.flip())

    def compaction(self) -> rpc.CompactionRequest:
        return rpc.CompactionRequest(revision=self.revision(), physical=self.flip(0.3))

    def grant(self) -> rpc.LeaseGrantRequest:
        """Long ones, which no test outlives; what is drawn or short is revoked at once by whoever compares."""
        if self.flip(0.15):
            ttl = self.random.choice([0, 1, -1, 2, 3, -(2**63), 9_000_000_000, 9_000_000_001, 2**63 - 1])
            return rpc.LeaseGrantRequest(ID=self.lease(0.3), TTL=ttl)
        return rpc.LeaseGrantRequest(ID=self.lease(0.15), TTL=self.random.choice([1000, 7777]))

    def watch(self) -> rpc.WatchCreateRequest:
        """From now on, from the past, or from a revision to come; the last is rare, for it may never come."""
        request = rpc.WatchCreateRequest(key=self.key(), range_end=self.end(), prev_kv=self.flip())
        if self.flip():
            request.start_revision = max(1, self.revision())
        if self.flip(0.3):
            request.filters.append(self.random.choice([0, 1]))  # type: ignore[arg-type]
        return request

    # Transactions.

    def txn(self, depth: int, operations_max: int) -> rpc.TxnRequest:
        return without_panic(self._txn(depth, self.random.sample(self.keys, len(self.keys))))

    def _txn(self, depth: int, unused: list[bytes]) -> rpc.TxnRequest:
        request = rpc.TxnRequest()
        request.compare.extend(self.compare() for _ in range(self.random.choice([0, 0, 1, 1, 2, 3])))
        for branch in (request.success, request.failure):
            branch.extend(self.operation(depth - 1, unused) for _ in range(self.random.choice([0, 1, 1, 2, 2, 3, 4])))
        return request

    def operation(self, depth: int, unused: list[bytes]) -> rpc.RequestOp:
        """Puts mostly take keys that no other put of the transaction has: else nearly all would be refused."""
        kind = self.random.randrange(20)
        if kind == 0 and self.flip(0.2):
            return rpc.RequestOp()
        if kind < 5 and depth:
            return rpc.RequestOp(request_txn=self._txn(depth, unused))
        if kind < 10:
            return rpc.RequestOp(request_range=self.range())
        if kind < 12:
            return rpc.RequestOp(request_delete_range=self.delete())
        key = unused.pop() if unused and self.flip(0.85) else None
        return rpc.RequestOp(request_put=self.put(key))

    def compare(self) -> rpc.Compare:
        request = rpc.Compare(key=self.key(), range_end=self.end())
        request.result = self.random.randrange(4)  # type: ignore[assignment]
        target = self.random.randrange(5)
        request.target = target  # type: ignore[assignment]
        given = target if self.flip(0.9) else self.random.randrange(6)  # of another kind, or none at all
        if given == 0:
            request.version = self.random.choice([-1, 0, 1, 1, 2, 2, 3])
        elif given == 1:
            request.create_revision = self.revision()
        elif given == 2:
            request.mod_revision = self.revision()
        elif given == 3:
            request.value = self.random.choice(VALUES)
        elif given == 4:
            request.lease = self.random.choice([0, 0, *LEASE_IDS])
        return request

    def large_txn(self) -> rpc.TxnRequest:
        """Around the limit of operations, which a nested transaction shares with its parent."""
        outer = self.random.choice([1, 64, 127, 128, 129])
        inner = OPERATIONS_MAX - outer + self.random.choice([-1, 0, 0, 1])
        where = self.random.choice(["compare", "success", "failure"])
        request = rpc.TxnRequest()
        if outer > 1:
            if where == "compare":
                request.compare.extend(self.compare() for _ in range(outer))
            else:
                self._reads(getattr(request, where), outer - 1)
        if inner > 0 and self.flip(0.7):
            nested = rpc.TxnRequest()
            self._reads(self.random.choice([nested.success, nested.failure]), inner)
            request.success.add().request_txn.CopyFrom(nested)
        return request

    def _reads(self, branch: Any, count: int) -> None:
        branch.extend(rpc.RequestOp(request_range=rpc.RangeRequest(key=self.keys[0])) for _ in range(count))


def without_panic(request: rpc.TxnRequest) -> rpc.TxnRequest:
    """Keeps no value and no lease where an open-ended delete of the same transaction may have taken the key."""
    operations = list(operations_of(request))
    if any(operation.request_delete_range.range_end == b"\0" for operation in operations):
        for operation in operations:
            if operation.HasField("request_put"):
                operation.request_put.ignore_value = operation.request_put.ignore_lease = False
    return request


def operations_of(request: rpc.TxnRequest) -> Any:
    """All operations, those of nested transactions included."""
    for operation in (*request.success, *request.failure):
        yield operation
        if operation.HasField("request_txn"):
            yield from operations_of(operation.request_txn)


_REVISIONS = {
    "RangeRequest": ["revision", "min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"],
    "CompactionRequest": ["revision"],
    "WatchCreateRequest": ["start_revision"],
}


def moved(request: Any, by: int) -> Any:
    """A copy whose revisions are later by so much; 0 and less mean something else and stay, and so does what is at the end of time."""
    if request is None or by == 0:
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    _move(copy, by)
    return copy


def _move(request: Any, by: int) -> None:
    for name in _REVISIONS.get(type(request).__name__, ()):
        _move_field(request, name, by)
    if type(request).__name__ == "TxnRequest":
        for compare in request.compare:
            kind = compare.WhichOneof("target_union")
            if kind in ("create_revision", "mod_revision"):
                _move_field(compare, kind, by)
        for operation in (*request.success, *request.failure):
            if (kind := operation.WhichOneof("request")) is not None:
                _move(getattr(operation, kind), by)


def _move_field(request: Any, name: str, by: int) -> None:
    value = getattr(request, name)
    if 0 < value < 2**62:
        setattr(request, name, value + by)
