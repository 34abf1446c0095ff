"""The remote procedures that are a question and an answer: their paths in gRPC and in the JSON gateway, and their translations.

A door looks a path up, decodes the request class, has the command validated and answered like any other, and encodes the response.
LeaseKeepAlive is a stream of such pairs. Watch is not here: its answers are no answers to a command (watching.py).
"""

from typing import Any, Callable, Final, NamedTuple

from google.protobuf.message import Message

from raftkv.etcd import encoding, requests, responses
from raftkv.etcd.responses import Origin
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import Answer, Command


class Method(NamedTuple):
    """One procedure. `command` and `response` are its translations; `gateway` lists its paths behind /v3. `encoded`: a quick way to the response's bytes."""

    path: str
    gateway: tuple[str, ...]
    request: type[Message]
    answered_by: type[Message]
    command: Callable[[Any], Command]
    response: Callable[[Any, Answer, Origin], Message]
    encoded: Callable[[Answer, encoding.Headers], bytes | None] | None = None


METHODS: Final[tuple[Method, ...]] = (
    Method(
        "/etcdserverpb.KV/Range",
        ("/kv/range",),
        rpc.RangeRequest,
        rpc.RangeResponse,
        requests.read_command,
        responses.read_response,
        encoding.encoded_read,
    ),
    Method(
        "/etcdserverpb.KV/Put",
        ("/kv/put",),
        rpc.PutRequest,
        rpc.PutResponse,
        requests.put_command,
        responses.put_response,
        encoding.encoded_put,
    ),
    Method(
        "/etcdserverpb.KV/DeleteRange",
        ("/kv/deleterange",),
        rpc.DeleteRangeRequest,
        rpc.DeleteRangeResponse,
        requests.delete_range_command,
        responses.delete_range_response,
    ),
    Method(
        "/etcdserverpb.KV/Txn",
        ("/kv/txn",),
        rpc.TxnRequest,
        rpc.TxnResponse,
        requests.transaction_command,
        responses.txn_response,
    ),
    Method(
        "/etcdserverpb.KV/Compact",
        ("/kv/compaction",),
        rpc.CompactionRequest,
        rpc.CompactionResponse,
        requests.compact_command,
        responses.compact_response,
    ),
    Method(
        "/etcdserverpb.Lease/LeaseGrant",
        ("/lease/grant",),
        rpc.LeaseGrantRequest,
        rpc.LeaseGrantResponse,
        requests.lease_grant_command,
        responses.lease_grant_response,
    ),
    Method(
        "/etcdserverpb.Lease/LeaseRevoke",
        ("/lease/revoke", "/kv/lease/revoke"),
        rpc.LeaseRevokeRequest,
        rpc.LeaseRevokeResponse,
        requests.lease_revoke_command,
        responses.lease_revoke_response,
    ),
    Method(
        "/etcdserverpb.Lease/LeaseKeepAlive",
        ("/lease/keepalive",),
        rpc.LeaseKeepAliveRequest,
        rpc.LeaseKeepAliveResponse,
        requests.lease_keep_alive_command,
        responses.lease_keep_alive_response,
    ),
    Method(
        "/etcdserverpb.Lease/LeaseTimeToLive",
        ("/lease/timetolive", "/kv/lease/timetolive"),
        rpc.LeaseTimeToLiveRequest,
        rpc.LeaseTimeToLiveResponse,
        requests.lease_time_to_live_command,
        responses.lease_time_to_live_response,
    ),
    Method(
        "/etcdserverpb.Lease/LeaseLeases",
        ("/lease/leases", "/kv/lease/leases"),
        rpc.LeaseLeasesRequest,
        rpc.LeaseLeasesResponse,
        requests.lease_leases_command,
        responses.lease_leases_response,
    ),
)

BY_PATH: Final = {method.path: method for method in METHODS}
BY_GATEWAY_PATH: Final = {path: method for method in METHODS for path in method.gateway}
