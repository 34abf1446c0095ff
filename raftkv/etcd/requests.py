"""A request of etcd as a command of raftkv. Nothing is checked here: an impossible request becomes a command that validate refuses.

Only time has another unit: etcd counts leases in seconds, raftkv in milliseconds.
"""

from typing import Any, Final

from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import (
    COMPACT,
    COMPARE_CREATE,
    COMPARE_LEASE,
    COMPARE_MOD,
    COMPARE_VALUE,
    COMPARE_VERSION,
    COUNT_ONLY,
    DELETE_RANGE,
    GET,
    IGNORE_LEASE,
    IGNORE_VALUE,
    KEYS_ONLY,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASE_TTL,
    LEASES,
    PREV_KV,
    PUT,
    RANGE,
    SERIALIZABLE,
    TXN,
    WITH_KEYS,
    Command,
    as_read,
)
from raftkv.wire.protocol import KEEP_ALIVE
from raftkv.wire.validate import LEASE_TTL_MS_MAX

_OPERAND_FIELDS: Final = {
    COMPARE_VERSION: "version",
    COMPARE_CREATE: "create_revision",
    COMPARE_MOD: "mod_revision",
    COMPARE_VALUE: "value",
    COMPARE_LEASE: "lease",
}
_NO_SEQUENCE: Final = 0  # clients of etcd have no sessions
_TTL_SECONDS_MAX: Final = LEASE_TTL_MS_MAX // 1000


def range_command(request: rpc.RangeRequest) -> Command:
    flags = 0
    if request.serializable:
        flags |= SERIALIZABLE
    if request.keys_only:
        flags |= KEYS_ONLY
    if request.count_only:
        flags |= COUNT_ONLY
    return [
        RANGE,
        flags,
        request.key,
        request.range_end,
        request.limit,
        request.revision,
        int(request.sort_order),
        int(request.sort_target),
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ]


def read_command(request: rpc.RangeRequest) -> Command:
    """A GET if it is one key as it is now, which most are and which costs a third; else a RANGE."""
    if (
        request.range_end
        or request.revision
        or request.sort_order
        or request.sort_target
        or request.keys_only
        or request.count_only
        or request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    ):
        return range_command(request)
    return [GET, SERIALIZABLE if request.serializable else 0, request.key]


def put_command(request: rpc.PutRequest) -> Command:
    flags = 0
    if request.prev_kv:
        flags |= PREV_KV
    if request.ignore_value:
        flags |= IGNORE_VALUE
    if request.ignore_lease:
        flags |= IGNORE_LEASE
    return [PUT, _NO_SEQUENCE, request.key, request.value, request.lease, flags]


def delete_range_command(request: rpc.DeleteRangeRequest) -> Command:
    return [DELETE_RANGE, _NO_SEQUENCE, request.key, request.range_end, PREV_KV if request.prev_kv else 0]


def transaction_command(request: rpc.TxnRequest) -> Command:
    """One that only reads needs no entry of the log, as in etcd."""
    return as_read(txn_command(request))


def txn_command(request: rpc.TxnRequest) -> Command:
    """Nested ones included; protobuf itself refuses what is nested deeper than its parser goes."""
    return [
        TXN,
        _NO_SEQUENCE,
        [_compare(compare) for compare in request.compare],
        [_operation(operation) for operation in request.success],
        [_operation(operation) for operation in request.failure],
    ]


def _compare(compare: rpc.Compare) -> list[Any]:
    """An operand of another kind than the target is not looked at, as in etcd: it counts as zero or empty."""
    target = int(compare.target)
    field = _OPERAND_FIELDS.get(target)
    operand = getattr(compare, field) if field is not None and compare.HasField(field) else None
    return [int(compare.result), target, compare.key, operand, compare.range_end]


def _operation(operation: rpc.RequestOp) -> Command:
    """An operation with nothing in it is an empty command, which is refused as etcd refuses it."""
    kind = operation.WhichOneof("request")
    if kind == "request_put":
        return put_command(operation.request_put)
    if kind == "request_range":
        return range_command(operation.request_range)
    if kind == "request_delete_range":
        return delete_range_command(operation.request_delete_range)
    return txn_command(operation.request_txn) if kind == "request_txn" else []


def compact_command(request: rpc.CompactionRequest) -> Command:
    """`physical` asks to wait until the room is made: raftkv makes it in small steps, and nobody needs to wait."""
    return [COMPACT, _NO_SEQUENCE, request.revision]


def lease_grant_command(request: rpc.LeaseGrantRequest) -> Command:
    ttl_seconds = min(max(request.TTL, 0), _TTL_SECONDS_MAX + 1)  # beyond both it is refused or raised, whatever it is
    return [LEASE_GRANT, _NO_SEQUENCE, request.ID, ttl_seconds * 1000]


def lease_revoke_command(request: rpc.LeaseRevokeRequest) -> Command:
    return [LEASE_REVOKE, _NO_SEQUENCE, request.ID]


def lease_time_to_live_command(request: rpc.LeaseTimeToLiveRequest) -> Command:
    """A question to the leader, as lease_keep_alive_command: see replica/lease_desk.py."""
    return [LEASE_TTL, WITH_KEYS if request.keys else 0, request.ID]


def lease_keep_alive_command(request: rpc.LeaseKeepAliveRequest) -> Command:
    return [KEEP_ALIVE, [request.ID]]


def lease_leases_command(request: rpc.LeaseLeasesRequest) -> Command:
    return [LEASES, 0]
