"""What the client's methods return: named tuples, built straight from the items of an answer.

Named tuples because they cost a third of a dataclass to build, cannot be changed by accident, and need no import that the
command line would have to wait for. The order of KeyValue's fields is the wire's (wire/commands.py), so `KeyValue(*items)` is
the whole decoder. Nothing here knows of connections or retries.
"""

from typing import Any, Callable, Final, NamedTuple, TypeAlias

from raftkv.errors import LeaseNotFound, ProtocolError
from raftkv.units import NodeId, Revision
from raftkv.wire.commands import DELETE_RANGE, PUT, RANGE, TXN, Answer, KeyValueItems


class KeyValue(NamedTuple):
    """One key at one revision, as in etcd."""

    key: bytes
    create_revision: Revision
    mod_revision: Revision
    version: int
    """How often the key was written since it was created; 1 after the first put."""
    lease: int
    value: bytes


class PutResult(NamedTuple):
    """A put that was committed and applied."""

    revision: Revision
    prev_kv: KeyValue | None
    """What the key held before, when `prev_kv=True` was asked for."""


class DeleteResult(NamedTuple):
    """A deletion that was committed and applied."""

    revision: Revision
    deleted: int
    prev_kvs: list[KeyValue]
    """What was deleted, when `prev_kv=True` was asked for."""


class RangeResult(NamedTuple):
    """Keys of one range at one revision."""

    kvs: list[KeyValue]
    more: bool
    """The range holds more keys than `kvs`."""
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs on a range
    """How many keys the range holds, whatever `limit` was."""
    revision: Revision
    """The revision that was read."""


class TxnResult(NamedTuple):
    """A transaction that was committed and applied."""

    succeeded: bool
    """All comparisons held, so the `then` branch was done; otherwise the `else_` branch."""
    responses: list["OperationResult"]
    """One result per operation of the branch that was done, in its order."""
    revision: Revision


OperationResult: TypeAlias = PutResult | DeleteResult | RangeResult | TxnResult


class Member(NamedTuple):
    """A member of the cluster, as the cluster's log knows it."""

    id: NodeId
    name: str
    address: str
    """Where its clients connect, host:port."""
    peer_address: str
    voter: bool
    learner: bool = False
    """Receives everything and does not vote. Neither voter nor learner: known to the log, not taken in yet."""


class GrantedLease(NamedTuple):
    """A lease that was granted."""

    id: int
    ttl: float
    """Seconds that it was granted; more than asked for when that was below the cluster's minimum."""


class LeaseInfo(NamedTuple):
    """What the leader knows of a lease."""

    id: int
    remaining: float
    """Seconds until it expires, unless it is kept alive; it may be 0 for a moment before it is gone."""
    ttl: float
    """Seconds that it was granted."""
    keys: list[bytes]
    """The keys that hang on it, in order, when `keys=True` was asked for."""


def key_value_or_none(items: KeyValueItems | None) -> KeyValue | None:
    return KeyValue(*items) if items else None


def put_result(answer: Answer) -> PutResult:
    return PutResult(answer[1], key_value_or_none(answer[2]))


def delete_result(answer: Answer) -> DeleteResult:
    return DeleteResult(answer[1], answer[2], [KeyValue(*items) for items in answer[3]])


def range_result(answer: Answer) -> RangeResult:
    return RangeResult([KeyValue(*items) for items in answer[2]], answer[3], answer[4], answer[1])


def granted_lease(answer: Answer) -> GrantedLease:
    return GrantedLease(answer[2], answer[3] / 1000)


def renewed_ttl(answer: Answer, lease_id: int) -> float:
    """Raises LeaseNotFound."""
    if not answer[2][0]:
        raise LeaseNotFound(f"lease {lease_id} does not exist")
    return float(answer[2][0]) / 1000


def lease_info(answer: Answer, lease_id: int) -> LeaseInfo:
    """Raises LeaseNotFound."""
    _, _, remaining_ms, ttl_ms, keys = answer
    if remaining_ms < 0:
        raise LeaseNotFound(f"lease {lease_id} does not exist")
    return LeaseInfo(lease_id, remaining_ms / 1000, ttl_ms / 1000, keys)


def txn_result(answer: Answer) -> TxnResult:
    """Raises ProtocolError for an operation that this client does not know."""
    responses: list[OperationResult] = []
    for items in answer[3]:
        parse = _OPERATION_RESULTS.get(items[0])
        if parse is None:
            raise ProtocolError(f"a transaction answered with operation {items[0]}, which this client does not know")
        responses.append(parse(items))
    return TxnResult(answer[2], responses, answer[1])


# In a branch the operation stands where a whole answer has its status, so the same functions read both.
_OPERATION_RESULTS: Final[dict[int, Callable[[Answer], OperationResult]]] = {
    PUT: put_result,
    DELETE_RANGE: delete_result,
    RANGE: range_result,
    TXN: txn_result,
}


def member(mapping: dict[str, Any]) -> Member:
    return Member(
        mapping["id"],
        mapping["name"],
        mapping["address"],
        mapping.get("peer_address", ""),
        bool(mapping.get("voter", True)),
        bool(mapping.get("learner", False)),
    )
