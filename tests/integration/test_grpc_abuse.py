"""Clients of the gRPC and HTTP doors that mean no good, on a real member: it stays leader, does not grow, and goes on serving everybody else.

What each frame may cost is in tests/unit/http2/test_patience.py; floods of the usual kinds are in test_grpc.py. Here the attacks hold on while others work.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator

import grpc
import pytest

from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.http2 import frames
from raftkv.http2.grpc import prefixed
from raftkv.http2.headers import literal
from raftkv.limits import MIB

from .conftest import StartCluster
from .harness.node import Node
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

FIELDS = {
    b":method": b"POST",
    b":scheme": b"http",
    b":path": b"/etcdserverpb.KV/Put",
    b":authority": b"x",
    b"content-type": b"application/grpc",
    b"te": b"trailers",
}
GREETING = frames.PREFACE + frames.settings({})


def head(stream_id: int, path: bytes = b"/etcdserverpb.KV/Put", **more: bytes) -> bytes:
    fields = FIELDS | {b":path": path} | {name.encode(): value for name, value in more.items()}
    block = b"".join(literal(name, value) for name, value in fields.items())
    return frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, block)


def body(stream_id: int, data: bytes, flags: int = frames.END_STREAM) -> bytes:
    parts = [data[at : at + 16_384] for at in range(0, len(data), 16_384)] or [b""]
    whole = [frames.frame(frames.DATA, 0, stream_id, part) for part in parts[:-1]]
    return b"".join([*whole, frames.frame(frames.DATA, flags, stream_id, parts[-1])])


def put(stream_id: int, value: bytes = b"v") -> bytes:
    return head(stream_id) + body(stream_id, prefixed(rpc.PutRequest(key=b"abuse", value=value).SerializeToString()))


class Attacker:
    """A socket that sends what it likes, as far as it is taken."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=2)

    def send(self, data: bytes) -> bool:
        """False when the other side has closed, or takes no more for now."""
        try:
            self.socket.sendall(data)
        except (TimeoutError, OSError):
            return False
        return True

    def read(self, seconds: float = 2.0) -> bytes:
        """What comes until the other side closes, or says no more."""
        self.socket.settimeout(seconds)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while part := self.socket.recv(65_536):
                answer += part
        return answer

    def is_closed(self) -> bool:
        self.socket.settimeout(0.05)
        try:
            while self.socket.recv(65_536):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True


@contextlib.contextmanager
def attackers(node: Node, count: int) -> Iterator[list[Attacker]]:
    made = [Attacker(node.client_endpoint) for _ in range(count)]
    try:
        yield made
    finally:
        for attacker in made:
            attacker.socket.close()


@contextlib.contextmanager
def neighbour(node: Node) -> Iterator[Callable[[], None]]:
    """A client that works beside it: writes, and reads what it wrote."""
    with grpc.insecure_channel(node.client_endpoint) as channel:
        put_call = channel.unary_unary(
            "/etcdserverpb.KV/Put",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=rpc.PutResponse.FromString,
        )
        get_call = channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=rpc.RangeResponse.FromString,
        )
        written = 0

        def work() -> None:
            nonlocal written
            for _ in range(20):
                written += 1
                value = b"%d" % written
                put_call(rpc.PutRequest(key=b"neighbour", value=value), timeout=30)
                assert get_call(rpc.RangeRequest(key=b"neighbour"), timeout=30).kvs[0].value == value

        work()
        yield work


def ends_with(data: bytes, code: int) -> bool:
    """Whether a GOAWAY with this code is in it."""
    while len(data) >= 9:
        size, kind = int.from_bytes(data[:3], "big"), data[3]
        if kind == frames.GOAWAY and int.from_bytes(data[13:17], "big") == code:
            return True
        data = data[9 + size :]
    return False


def test_rapid_resets(victim: Node) -> None:
    flood = b"".join(put(2 * i + 1) + frames.rst_stream(2 * i + 1, frames.CANCEL) for i in range(10_000))
    with neighbour(victim) as work, attackers(victim, 5) as all_of_them:
        for attacker in all_of_them:
            attacker.send(GREETING + flood)
            work()
        assert all(
            ends_with(attacker.read(), frames.ENHANCE_YOUR_CALM) or attacker.is_closed() for attacker in all_of_them
        )


def test_windows_of_nothing_that_open_by_a_byte(victim: Node) -> None:
    waiting = b"".join(put(2 * i + 1) for i in range(3_000))
    games = (
        frames.window_update(0, 1) * 20_000,
        b"".join(frames.settings({frames.INITIAL_WINDOW_SIZE: size}) for size in range(1, 2_000)),
        frames.frame(frames.SETTINGS, 0, 0, b"".join(b"\0\4" + size.to_bytes(4, "big") for size in range(2_500))) * 50,
        b"".join(frames.window_update(2 * i + 1, 1) for i in range(3_000)) * 10,
    )
    with neighbour(victim) as work, attackers(victim, len(games)) as all_of_them:
        for attacker, game in zip(all_of_them, games, strict=True):
            attacker.send(GREETING + frames.settings({frames.INITIAL_WINDOW_SIZE: 0}) + waiting)
            attacker.send(game)
            work()


def test_answers_that_nobody_makes_room_for(victim: Node) -> None:
    """Large answers for a window of nothing: made as far as may wait for one connection, and no further."""
    with neighbour(victim) as work, attackers(victim, 2) as all_of_them:
        all_of_them[0].send(GREETING + put(1, b"x" * 1_000_000))
        all_of_them[0].read(0.5)
        get = prefixed(rpc.RangeRequest(key=b"abuse").SerializeToString())
        many = b"".join(head(2 * i + 1, b"/etcdserverpb.KV/Range") + body(2 * i + 1, get) for i in range(500))
        all_of_them[1].send(GREETING + frames.settings({frames.INITIAL_WINDOW_SIZE: 0}) + many)
        work()


def test_calls_that_are_begun_and_no_more(make_cluster: StartCluster) -> None:
    environment = {"RAFTKV_LIMITS_HTTP2_STREAMS_TOTAL_MAX": "20000"}
    node = make_cluster(size=1, environment=environment).start().nodes[0]
    begun = b"".join(head(2 * i + 1) for i in range(10_000))
    with neighbour(node) as work, attackers(node, 20) as all_of_them:
        before_bytes = node.daemon.resident_bytes()
        for attacker in all_of_them:
            attacker.send(GREETING + begun)
            work()
        assert node.daemon.resident_bytes() < before_bytes + 96 * MIB


def test_messages_that_never_become_whole(make_cluster: StartCluster) -> None:
    environment = {"RAFTKV_LIMITS_HTTP2_PARTIAL_BYTES_TOTAL_MAX": "16MiB"}
    node = make_cluster(size=1, environment=environment).start().nodes[0]
    large = b"\0" + (2_000_000).to_bytes(4, "big") + b"x" * 900_000
    begun = b"".join(head(2 * i + 1) + body(2 * i + 1, large, 0) for i in range(16))
    with neighbour(node) as work, attackers(node, 15) as all_of_them:
        before_bytes = node.daemon.resident_bytes()
        for attacker in all_of_them:
            attacker.send(GREETING + begun)
            work()
        assert node.daemon.resident_bytes() < before_bytes + 96 * MIB, "216 MB were sent"


def test_a_bomb_in_each_request(victim: Node) -> None:
    """Two kilobytes that unpack to two megabytes, many times over."""
    import gzip

    packed = gzip.compress(rpc.PutRequest(key=b"abuse", value=bytes(2_000_000)).SerializeToString())
    message = b"\1" + prefixed(packed)[1:]
    bombs = b"".join(head(2 * i + 1, **{"grpc-encoding": b"gzip"}) + body(2 * i + 1, message) for i in range(300))
    with neighbour(victim) as work, attackers(victim, 2) as all_of_them:
        for attacker in all_of_them:
            attacker.send(GREETING + bombs)
            work()


@pytest.mark.parametrize(
    "first",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM",
        b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Le",
        pytest.param(b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n{", marks=pytest.mark.long),
    ],
    ids=["preface", "head", "body"],
)
def test_slow_loris(victim: Node, first: bytes) -> None:
    """Half a request, and then hardly anything: let go of in time, and nobody else waits."""
    with neighbour(victim) as work, attackers(victim, 60) as all_of_them:
        for attacker in all_of_them:
            attacker.send(first)
        work()

        def closed() -> int:
            still_open = [attacker for attacker in all_of_them if not attacker.is_closed()]
            for attacker in still_open[:5]:
                attacker.send(b"x")  # a byte now and then is no reason to wait longer
            return len(all_of_them) - len(still_open)

        wait_until(lambda: closed() == len(all_of_them), "all to be closed", deadline_s=60, seen=closed)
