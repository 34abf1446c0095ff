"""Damaged conversations through all three doors of a real member: it goes on, as the same leader, without a traceback and without having grown.

Whole conversations of each protocol are recorded once and then damaged with a seed: bytes changed, cut, doubled and moved. The `victim` fixture
proves afterwards that nothing happened to the member or its cluster. The decoders alone are fed in tests/properties/test_door_decoders.py.
"""

import json
import random
import secrets
import socket
from typing import Callable

import pytest

from raftkv.etcdpb import auth_pb2 as auth
from raftkv.etcdpb import election_pb2 as election
from raftkv.etcdpb import lock_pb2 as lock
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire import commands, protocol

from .harness.node import Node
from .harness.waiting import wait_until

h2_connection = pytest.importorskip("h2.connection", reason="h2 is not installed: pip install 'raftkv[dev]'")

pytestmark = pytest.mark.integration

CONVERSATIONS = 400
ANSWER_SECONDS = 0.02  # to have been taken at all; what is answered is not looked at
LEASE = 77


def native() -> bytes:
    """Greeting, writes, reads, a watch, a transaction."""
    pack = protocol.new_packer().pack
    requests = [
        [
            1,
            0,
            [protocol.HELLO, protocol.hello_options(cluster_name=None, session=secrets.token_bytes(16), client="fuzz")],
        ],
        [0, 0, [protocol.ACK, 0, True]],
        [2, 5000, [commands.PUT, 1, b"fuzz/native", b"value", 0, 0]],
        [3, 0, [commands.GET, 0, b"fuzz/native"]],
        [4, 0, [protocol.WATCH_CREATE, b"fuzz/", b"fuzz0", 0, 0]],
        [5, 0, [commands.RANGE, 0, b"fuzz/", b"fuzz0", 0, 10, 0, 0, 0, 0, 0, 0]],
        [6, 0, [commands.DELETE_RANGE, 0, b"fuzz/native", b""]],
        [7, 0, [protocol.PING]],
    ]
    return protocol.PREFACE + b"".join(pack(request) for request in requests)


GRPC = (
    ("etcdserverpb.KV/Put", rpc.PutRequest(key=b"fuzz/grpc", value=b"v" * 50, prev_kv=True)),
    ("etcdserverpb.KV/Range", rpc.RangeRequest(key=b"fuzz/", range_end=b"fuzz0", limit=3, sort_order=rpc.RangeRequest.DESCEND)),
    (
        "etcdserverpb.KV/Txn",
        rpc.TxnRequest(
            compare=[rpc.Compare(key=b"fuzz/grpc", target=rpc.Compare.VALUE, value=b"v")],
            success=[rpc.RequestOp(request_put=rpc.PutRequest(key=b"fuzz/txn"))],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=b"fuzz/txn"))],
        ),
    ),
    ("etcdserverpb.Watch/Watch", rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=b"fuzz/", range_end=b"fuzz0"))),
    ("etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantRequest(ID=LEASE, TTL=60)),
    ("etcdserverpb.Lease/LeaseKeepAlive", rpc.LeaseKeepAliveRequest(ID=LEASE)),
    ("etcdserverpb.Lease/LeaseTimeToLive", rpc.LeaseTimeToLiveRequest(ID=LEASE, keys=True)),
    ("etcdserverpb.Maintenance/Status", rpc.StatusRequest()),
    ("etcdserverpb.Maintenance/HashKV", rpc.HashKVRequest()),
    ("etcdserverpb.Cluster/MemberList", rpc.MemberListRequest(linearizable=True)),
    ("etcdserverpb.Auth/RoleGrantPermission", rpc.AuthRoleGrantPermissionRequest(name="r", perm=auth.Permission(key=b"a"))),
    ("etcdserverpb.Auth/Authenticate", rpc.AuthenticateRequest(name="nobody", password="x")),
    ("v3lockpb.Lock/Lock", lock.LockRequest(name=b"fuzz/lock", lease=LEASE)),
    ("v3electionpb.Election/Leader", election.LeaderRequest(name=b"fuzz/boss")),
)  # fmt: skip


def grpc() -> bytes:
    """One stream for each call, on one connection."""
    http2 = h2_connection.H2Connection()
    http2.initiate_connection()
    for number, (path, request) in enumerate(GRPC):
        stream, message = 2 * number + 1, request.SerializeToString()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", f"/{path}"), (":authority", "fuzz")]
        http2.send_headers(
            stream, [*fields, ("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "2S")]
        )
        http2.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    return bytes(http2.data_to_send())


GATEWAY = (
    ("kv/put", {"key": "ZnV6ei9n", "value": "dg==", "prev_kv": True}),
    ("kv/range", {"key": "ZnV6eg==", "range_end": "ZnV6MA==", "sort_order": "DESCEND", "limit": "5"}),
    ("kv/txn", {"compare": [{"key": "YQ==", "target": "VALUE", "value": "YQ=="}], "success": [{"request_range": {"key": "YQ=="}}]}),
    ("lease/timetolive", {"ID": "77", "keys": True}),
    ("lease/keepalive", {"ID": 77}),
    ("cluster/member/list", {}),
    ("maintenance/status", {}),
    ("auth/authenticate", {"name": "nobody", "password": "x"}),
    ("watch", {"create_request": {"key": "ZnV6eg==", "range_end": "ZnV6MA=="}}),
)  # fmt: skip


def gateway() -> bytes:
    """All on one connection, the watch last: it does not end."""
    requests = []
    for path, body in GATEWAY:
        text = json.dumps(body).encode()
        head = f"POST /v3/{path} HTTP/1.1\r\nHost: fuzz\r\nContent-Length: {len(text)}\r\n\r\n"
        requests.append(head.encode() + text)
    return b"".join(requests)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Mostly a few bytes, sometimes whole parts."""
    made = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 3, 8])):
        at, count = draw.randrange(len(made) + 1), draw.choice([1, 1, 2, 4, 9, 60])
        kind = draw.randrange(7)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and at < len(made):
            made[at] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del made[at : at + count]
        elif kind == 3:
            made[at:at] = draw.randbytes(count)
        elif kind == 4:
            made[at:at] = made[at : at + count]
        elif kind == 5:
            other = draw.randrange(len(made) + 1)
            made[at : at + count] = made[other : other + count]
        else:
            del made[max(at, len(made) // 4) :]
    return bytes(made)


def tell(endpoint: str, data: bytes) -> bytes:
    """Send, take what is answered at once, and leave without a word."""
    host, _, port = endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        try:
            connection.sendall(data)
            connection.settimeout(ANSWER_SECONDS)
            return connection.recv(65_536)
        except (ConnectionError, TimeoutError):
            return b""


@pytest.mark.parametrize("conversation", [native, grpc, gateway])
def test_damaged_conversations(victim: Node, conversation: Callable[[], bytes]) -> None:
    whole = conversation()
    first = random.SystemRandom().randrange(1_000_000_000)
    tell(victim.client_endpoint, whole)
    for seed in range(first, first + CONVERSATIONS):
        tell(victim.client_endpoint, damaged(whole, random.Random(seed)))
        assert victim.running, f"{conversation.__name__}, seed {seed}"


@pytest.mark.parametrize("conversation", [native, grpc, gateway])
def test_whole_conversations_are_understood(victim: Node, conversation: Callable[[], bytes]) -> None:
    """The test of the test: undamaged, they do what they say."""
    with victim.connect() as connection:
        connection.put(b"fuzz/told", b"0")
        before = connection.status()["revision"]
        answered = tell(victim.client_endpoint, conversation())
        wait_until(
            lambda: connection.status()["revision"] > before, "its writes", deadline_s=5, seen=lambda: answered[:400]
        )
