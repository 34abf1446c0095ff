"""Commands as messages of etcd, and its messages as the items of answers. The other way round is raftkv.etcd's, for the doors."""

from typing import Any, Final, Sequence

from raftkv.etcdclient import rpcs
from raftkv.etcdclient.rpcs import Rpc
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import (
    COMPARE_CREATE,
    COMPARE_LEASE,
    COMPARE_MOD,
    COMPARE_VALUE,
    COMPARE_VERSION,
    COUNT_ONLY,
    DELETE_RANGE,
    EQUAL,
    IGNORE_LEASE,
    IGNORE_VALUE,
    KEYS_ONLY,
    PREV_KV,
    PUT,
    RANGE,
    SERIALIZABLE,
    TXN,
    Command,
    KeyValueItems,
)

_OPERANDS: Final = {
    COMPARE_VERSION: "version",
    COMPARE_CREATE: "create_revision",
    COMPARE_MOD: "mod_revision",
    COMPARE_VALUE: "value",
    COMPARE_LEASE: "lease",
}


def kv_items(kv: Any) -> KeyValueItems:
    return [kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.lease, kv.value]


def range_request(command: Command) -> Any:
    _, flags, key, range_end, limit, revision, order, target, min_mod, max_mod, min_create, max_create = command
    return rpc.RangeRequest(
        key=key,
        range_end=range_end,
        limit=limit,
        revision=revision,
        sort_order=order,
        sort_target=target,
        serializable=bool(flags & SERIALIZABLE),
        keys_only=bool(flags & KEYS_ONLY),
        count_only=bool(flags & COUNT_ONLY),
        min_mod_revision=min_mod,
        max_mod_revision=max_mod,
        min_create_revision=min_create,
        max_create_revision=max_create,
    )


def read(request: Any) -> Rpc:
    """A range by itself."""
    return Rpc(rpcs.RANGE, request, safe=True, leaderless=request.serializable)


def range_items(response: Any, revision: int) -> list[Any]:
    return [revision, [kv_items(kv) for kv in response.kvs], response.more, response.count]


def operation(command: Command) -> Any:
    """An operation of a branch."""
    kind = command[0]
    if kind == PUT:
        _, _, key, value, lease, flags = command
        return rpc.RequestOp(
            request_put=rpc.PutRequest(
                key=key,
                value=value,
                lease=lease,
                prev_kv=bool(flags & PREV_KV),
                ignore_value=bool(flags & IGNORE_VALUE),
                ignore_lease=bool(flags & IGNORE_LEASE),
            )
        )
    if kind == DELETE_RANGE:
        _, _, key, range_end, flags = command
        request = rpc.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=bool(flags & PREV_KV))
        return rpc.RequestOp(request_delete_range=request)
    if kind == RANGE:
        return rpc.RequestOp(request_range=range_request(command))
    assert kind == TXN, "nothing else stands in a branch"
    return rpc.RequestOp(request_txn=txn_request(command))


def txn_request(command: Command) -> Any:
    _, _, compares, success, failure = command
    return rpc.TxnRequest(
        compare=[compare(*items) for items in compares],
        success=[operation(one) for one in success],
        failure=[operation(one) for one in failure],
    )


def compare(result: Any, target: Any, key: bytes, operand: Any, range_end: bytes = b"") -> Any:
    return rpc.Compare(result=result, target=target, key=key, range_end=range_end, **{_OPERANDS[target]: operand})


def equals(target: int, key: bytes, operand: int) -> Any:
    return compare(EQUAL, target, key, operand)


def operation_items(command: Command, response: Any, revision: int) -> list[Any]:
    """The answer to an operation of a branch: its number, then its items."""
    kind = command[0]
    if kind == PUT:
        put = response.response_put
        return [PUT, revision, kv_items(put.prev_kv) if put.HasField("prev_kv") else None]
    if kind == DELETE_RANGE:
        deleted = response.response_delete_range
        return [DELETE_RANGE, revision, deleted.deleted, [kv_items(kv) for kv in deleted.prev_kvs]]
    if kind == RANGE:
        return [RANGE, *range_items(response.response_range, revision)]
    return [TXN, *txn_items(command, response.response_txn, revision)]


def txn_items(command: Command, response: Any, revision: int) -> list[Any]:
    branch = command[3] if response.succeeded else command[4]
    return [revision, response.succeeded, branch_items(branch, response.responses, revision)]


def branch_items(branch: Sequence[Command], responses: Any, revision: int) -> list[list[Any]]:
    return [operation_items(command, response, revision) for command, response in zip(branch, responses, strict=True)]


def writes(branch: Sequence[Command]) -> bool:
    """Whether anything in a branch could change something."""
    return any(
        command[0] != RANGE and (command[0] != TXN or writes(command[3]) or writes(command[4])) for command in branch
    )
