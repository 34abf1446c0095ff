"""An answer of raftkv as a response of etcd. Failures do not come here: see statuses.py.

Headers are etcd's, oddities included: that of an operation inside a transaction has nothing but its revision, and that of a nested
transaction is there but empty. Messages are filled in place: building the parts first takes two to four times as long.
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


def stamp(its_header: rpc.ResponseHeader, origin: Origin, revision: int) -> None:
    """Fill the header of a whole response."""
    its_header.cluster_id, its_header.member_id, its_header.raft_term = origin
    its_header.revision = revision


def header(origin: Origin, revision: int) -> rpc.ResponseHeader:
    """The header of a whole response, where speed does not matter."""
    made = rpc.ResponseHeader()
    stamp(made, origin, revision)
    return made


def fill_key_value(target: kv.KeyValue, items: Sequence[Any]) -> None:
    """From the items of a key-value in answers."""
    target.key, target.create_revision, target.mod_revision, target.version, target.lease, target.value = items


def range_response(request: rpc.RangeRequest, answer: Answer, origin: Origin) -> rpc.RangeResponse:
    response = rpc.RangeResponse()
    stamp(response.header, origin, answer[1])
    _fill_range(response, answer[2:])
    return response


def read_response(request: rpc.RangeRequest, answer: Answer, origin: Origin) -> rpc.RangeResponse:
    """To the answer of a GET or of a RANGE."""
    if len(answer) == 3:
        found = answer[2]
        answer = [answer[0], answer[1], [] if found is None else [found], False, int(found is not None)]
    return range_response(request, answer, origin)


def put_response(request: rpc.PutRequest, answer: Answer, origin: Origin) -> rpc.PutResponse:
    response = rpc.PutResponse()
    stamp(response.header, origin, answer[1])
    _fill_put(response, answer[2:])
    return response


def delete_range_response(request: rpc.DeleteRangeRequest, answer: Answer, origin: Origin) -> rpc.DeleteRangeResponse:
    response = rpc.DeleteRangeResponse()
    stamp(response.header, origin, answer[1])
    _fill_delete_range(response, answer[2:])
    return response


def txn_response(request: rpc.TxnRequest, answer: Answer, origin: Origin) -> rpc.TxnResponse:
    response = rpc.TxnResponse()
    stamp(response.header, origin, answer[1])
    _fill_txn(response, answer[2:])
    return response


def _fill_range(response: rpc.RangeResponse, items: Sequence[Any]) -> None:
    key_values, response.more, response.count = items
    add = response.kvs.add
    for found in key_values:
        fill_key_value(add(), found)


def _fill_put(response: rpc.PutResponse, items: Sequence[Any]) -> None:
    (previous,) = items
    if previous is not None:
        fill_key_value(response.prev_kv, previous)


def _fill_delete_range(response: rpc.DeleteRangeResponse, items: Sequence[Any]) -> None:
    response.deleted, previous = items
    add = response.prev_kvs.add
    for gone in previous:
        fill_key_value(add(), gone)


def _fill_txn(response: rpc.TxnResponse, items: Sequence[Any]) -> None:
    response.succeeded, operations = items
    add = response.responses.add
    for operation in operations:
        _fill_operation(add(), *operation)


def _fill_operation(response: rpc.ResponseOp, kind: int, revision: int, *items: Any) -> None:
    if kind == TXN:
        response.response_txn.header.SetInParent()
        _fill_txn(response.response_txn, items)
    elif kind == PUT:
        response.response_put.header.revision = revision
        _fill_put(response.response_put, items)
    elif kind == DELETE_RANGE:
        response.response_delete_range.header.revision = revision
        _fill_delete_range(response.response_delete_range, items)
    else:
        assert kind == RANGE, "a transaction has four kinds of operations"
        response.response_range.header.revision = revision
        _fill_range(response.response_range, items)


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
