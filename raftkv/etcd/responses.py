"""An answer of raftkv as a response of etcd. Failures do not come here: see statuses.py.

Headers are etcd's, oddities included: that of an operation inside a transaction has nothing but its revision, and that of a nested
transaction is there but empty.
"""

from typing import Any, NamedTuple, Sequence

from raftkv.etcdpb import kv_pb2 as kv
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import DELETE_RANGE, PUT, RANGE, TXN, Answer


class Origin(NamedTuple):
    """Who answers: what etcd puts into the header of every response."""

    cluster_id: int
    member_id: int
    raft_term: int


def header(origin: Origin, revision: int) -> rpc.ResponseHeader:
    """The header of a whole response."""
    return rpc.ResponseHeader(
        cluster_id=origin.cluster_id, member_id=origin.member_id, revision=revision, raft_term=origin.raft_term
    )


def key_value(items: Sequence[Any]) -> kv.KeyValue:
    key, create_revision, mod_revision, version, lease, value = items
    return kv.KeyValue(
        key=key,
        create_revision=create_revision,
        mod_revision=mod_revision,
        version=version,
        lease=lease,
        value=value,
    )


def range_response(request: rpc.RangeRequest, answer: Answer, origin: Origin) -> rpc.RangeResponse:
    return _range(header(origin, answer[1]), answer[2:])


def put_response(request: rpc.PutRequest, answer: Answer, origin: Origin) -> rpc.PutResponse:
    return _put(header(origin, answer[1]), answer[2:])


def delete_range_response(request: rpc.DeleteRangeRequest, answer: Answer, origin: Origin) -> rpc.DeleteRangeResponse:
    return _delete_range(header(origin, answer[1]), answer[2:])


def txn_response(request: rpc.TxnRequest, answer: Answer, origin: Origin) -> rpc.TxnResponse:
    return _txn(header(origin, answer[1]), answer[2:])


def _range(its_header: rpc.ResponseHeader, items: Sequence[Any]) -> rpc.RangeResponse:
    key_values, more, count = items
    return rpc.RangeResponse(header=its_header, kvs=list(map(key_value, key_values)), more=more, count=count)


def _put(its_header: rpc.ResponseHeader, items: Sequence[Any]) -> rpc.PutResponse:
    (previous,) = items
    return rpc.PutResponse(header=its_header, prev_kv=None if previous is None else key_value(previous))


def _delete_range(its_header: rpc.ResponseHeader, items: Sequence[Any]) -> rpc.DeleteRangeResponse:
    deleted, previous = items
    return rpc.DeleteRangeResponse(header=its_header, deleted=deleted, prev_kvs=list(map(key_value, previous)))


def _txn(its_header: rpc.ResponseHeader, items: Sequence[Any]) -> rpc.TxnResponse:
    succeeded, responses = items
    return rpc.TxnResponse(header=its_header, succeeded=succeeded, responses=list(map(_operation, responses)))


def _operation(response: Sequence[Any]) -> rpc.ResponseOp:
    kind, revision, *items = response
    if kind == TXN:
        return rpc.ResponseOp(response_txn=_txn(rpc.ResponseHeader(), items))
    its_header = rpc.ResponseHeader(revision=revision)
    if kind == PUT:
        return rpc.ResponseOp(response_put=_put(its_header, items))
    if kind == DELETE_RANGE:
        return rpc.ResponseOp(response_delete_range=_delete_range(its_header, items))
    assert kind == RANGE, "a transaction has four kinds of operations"
    return rpc.ResponseOp(response_range=_range(its_header, items))


def compact_response(request: rpc.CompactionRequest, answer: Answer, origin: Origin) -> rpc.CompactionResponse:
    return rpc.CompactionResponse(header=header(origin, answer[1]))


def lease_grant_response(request: rpc.LeaseGrantRequest, answer: Answer, origin: Origin) -> rpc.LeaseGrantResponse:
    _, revision, lease_id, ttl_ms = answer
    return rpc.LeaseGrantResponse(header=header(origin, revision), ID=lease_id, TTL=_seconds(ttl_ms))


def lease_revoke_response(request: rpc.LeaseRevokeRequest, answer: Answer, origin: Origin) -> rpc.LeaseRevokeResponse:
    return rpc.LeaseRevokeResponse(header=header(origin, answer[1]))


def lease_time_to_live_response(
    request: rpc.LeaseTimeToLiveRequest, answer: Answer, origin: Origin
) -> rpc.LeaseTimeToLiveResponse:
    """A lease that does not exist is no error: -1 seconds are left of it."""
    _, revision, remaining_ms, ttl_ms, keys = answer
    return rpc.LeaseTimeToLiveResponse(
        header=header(origin, revision),
        ID=request.ID,
        TTL=_seconds(remaining_ms),
        grantedTTL=_seconds(ttl_ms),
        keys=keys,
    )


def lease_keep_alive_response(
    request: rpc.LeaseKeepAliveRequest, answer: Answer, origin: Origin
) -> rpc.LeaseKeepAliveResponse:
    _, revision, (ttl_ms,) = answer
    return rpc.LeaseKeepAliveResponse(header=header(origin, revision), ID=request.ID, TTL=_seconds(ttl_ms))


def lease_leases_response(request: rpc.LeaseLeasesRequest, answer: Answer, origin: Origin) -> rpc.LeaseLeasesResponse:
    leases = [rpc.LeaseStatus(ID=lease_id) for lease_id in answer[2]]
    return rpc.LeaseLeasesResponse(header=header(origin, answer[1]), leases=leases)


def _seconds(ttl_ms: int) -> int:
    """Rounded down: a lease is never said to live longer than it does. -1 (none) stays -1."""
    return ttl_ms // 1000
