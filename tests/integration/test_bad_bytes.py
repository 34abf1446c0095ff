"""Bytes that are no protocol, or half of one, on both ports: a closed connection, and a daemon that goes on.

The `victim` fixture is the leader of a cluster that serves the whole file; after each test it proves that all members still
serve, as the same processes, in the same term, without having grown.
"""

import random
import socket
import struct
from typing import Any, Callable

import msgpack
import pytest

from raftkv.errors import ClusterMismatch, RaftKVError
from raftkv.limits import MIB
from raftkv.wire import commands, protocol

from .harness.cluster import CLUSTER_NAME
from .harness.native import ConnectionEnded
from .harness.node import Node
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

GARBAGE_SEEDS = 150
HOSTILE_CONNECTIONS = 200
GREEDY_READS = 600  # of 1 MiB each: nine kilobytes of questions, half a gigabyte of answers


def open_socket(endpoint: str) -> socket.socket:
    host, _, port = endpoint.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def send_all_quietly(endpoint: str, data: bytes) -> None:
    """Sends and leaves; being cut off on the way is a fine answer."""
    with open_socket(endpoint) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
        except (ConnectionError, TimeoutError):
            pass


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


FRAMES: dict[str, Callable[[], bytes]] = {
    "a map": lambda: msgpack.packb({"put": 1}),
    "an integer": lambda: msgpack.packb(7),
    "nil": lambda: msgpack.packb(None),
    "an empty array": lambda: msgpack.packb([]),
    "a request without a command": lambda: msgpack.packb([1, 0, []]),
    "a text id": lambda: msgpack.packb(["1", 0, [protocol.PING]]),
    "a negative id": lambda: msgpack.packb([-1, 0, [protocol.PING]]),
    "a boolean id": lambda: msgpack.packb([True, 0, [protocol.PING]]),
    "a negative timeout": lambda: msgpack.packb([1, -1, [protocol.PING]]),
    "a huge timeout": lambda: msgpack.packb([7, 2**64 - 1, [commands.GET, 0, b"k"]]),
    "a notice that is none": lambda: msgpack.packb([0, 0, [protocol.PING]]),
    "an acknowledgement of nothing": lambda: msgpack.packb([0, 0, [protocol.ACK]]),
    "an extension type": lambda: msgpack.packb(msgpack.ExtType(5, b"x" * 100)),
    "a reserved byte": lambda: b"\xc1",
    "invalid UTF-8": lambda: b"\x93\x01\x00\xa2\xff\xfe",
    "a declared array of 4 billion": lambda: b"\xdd\xff\xff\xff\xff",
    "a declared map of 4 billion": lambda: b"\xdf\xff\xff\xff\xff",
    "a declared value of 4 GiB": lambda: b"\x93\x01\x00\x96\x01\x00\xc4\x01k\xc6\xff\xff\xff\xff",
    "a declared text of 4 GiB": lambda: b"\xdb\xff\xff\xff\xff",
    "a depth of 100,000": lambda: nested(100_000),
    "a depth of 500 in a command": lambda: b"\x93\x01\x00\x92\x01" + nested(500),
    "an unhashable map key": lambda: b"\x93\x01\x00\x92\x01\x81\x90\xc0",
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_broken_frame_after_the_handshake(victim: Node, frame: Callable[[], bytes]) -> None:
    """An answer, a closed connection, or silence: never a broken daemon, and no effect on a neighbour."""
    with victim.connect() as neighbour, victim.connect() as connection:
        connection.send_bytes(frame())
        neighbour.call([protocol.PING])
        connection.finish()


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_broken_frame_instead_of_the_handshake(victim: Node, frame: Callable[[], bytes]) -> None:
    """Nothing is answered before a HELLO."""
    with victim.connect(hello=False) as connection:
        connection.send_bytes(protocol.PREFACE + frame())
        connection.finish()


def test_request_before_the_handshake_is_not_served(victim: Node) -> None:
    """A put without a HELLO changes nothing."""
    with victim.connect(hello=False) as connection:
        connection.send_bytes(protocol.PREFACE)
        try:
            outcome = connection.outcome([commands.PUT, 0, b"early", b"x", 0, 0])
        except ConnectionEnded:
            outcome = None
        assert outcome is None or isinstance(outcome, RaftKVError), outcome
    with victim.connect() as connection:
        assert connection.get(b"early") is None


def test_other_cluster_name_is_refused_with_both_names(victim: Node) -> None:
    """And the connection is closed."""
    with victim.connect(hello=False) as connection:
        with pytest.raises(ClusterMismatch) as refused:
            connection.hello(cluster_name="production")
        assert "production" in refused.value.message
        assert CLUSTER_NAME in refused.value.message
        connection.wait_closed()
    with victim.connect(cluster_name=CLUSTER_NAME) as connection:
        assert connection.hello_answer["cluster_name"] == CLUSTER_NAME


@pytest.mark.parametrize(
    "options",
    [None, [], 7, {"protocol": "one"}, {"protocol": 99, "client": "x"}, {"protocol": 1, "session": b"short"},
     {"protocol": 1, "session": "text"}, {"protocol": 1, "cluster_name": 7}, {"protocol": 1, "client": b"\xff" * 100_000}],
    ids=lambda options: repr(options)[:40],
)  # fmt: skip
def test_broken_hello(victim: Node, options: Any) -> None:
    """A refusal or a closed connection, or a lenient answer; the daemon goes on."""
    with victim.connect(hello=False) as connection:
        connection.send_bytes(protocol.PREFACE)
        try:
            outcome = connection.outcome([protocol.HELLO, options])
        except ConnectionEnded:
            return
        assert not isinstance(outcome, RaftKVError) or outcome.code != "internal", outcome


def test_random_bytes_on_the_client_port(victim: Node) -> None:
    """Many seeds, with and without a preface in front."""
    for seed in range(GARBAGE_SEEDS):
        draw = random.Random(seed)
        prefix = (b"", protocol.PREFACE, b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[seed % 4]
        send_all_quietly(victim.client_endpoint, prefix + draw.randbytes(draw.randint(1, 4_096)))


def test_damaged_requests_after_a_good_handshake(victim: Node) -> None:
    """Valid requests with one byte changed at every place, and cut at every place."""
    hello = msgpack.packb([1, 0, [protocol.HELLO, protocol.hello_options(cluster_name=None, session=None, client="x")]])
    request = msgpack.packb([2, 0, [commands.RANGE, 0, b"a", b"b", 1, 0, 0, 0, 0, 0, 0, 0]])
    draw = random.Random(0)
    for place in range(len(request)):
        damaged = request[:place] + bytes([request[place] ^ draw.randint(1, 255)]) + request[place + 1 :]
        send_all_quietly(victim.client_endpoint, protocol.PREFACE + hello + damaged)
        send_all_quietly(victim.client_endpoint, protocol.PREFACE + hello + request[:place])


def test_random_bytes_on_the_peer_port(victim: Node) -> None:
    """Peers are not trusted to be peers: noise, huge lengths, and the client's preface."""
    for seed in range(GARBAGE_SEEDS):
        draw = random.Random(seed)
        send_all_quietly(victim.peer_endpoint, draw.randbytes(draw.randint(1, 4_096)))
    for start in (
        struct.pack(">I", 2**32 - 1),
        struct.pack("<I", 2**32 - 1),
        struct.pack(">Q", 2**63),
        protocol.PREFACE,
    ):
        send_all_quietly(victim.peer_endpoint, start + b"x" * 100_000)
        send_all_quietly(victim.peer_endpoint, b"RKVP" + start + b"x" * 100_000)


@pytest.mark.parametrize("port", ["client", "peer"])
def test_half_open_connections(victim: Node, port: str) -> None:
    """Connections that say nothing, or half a word, do not keep others out."""
    endpoint = victim.client_endpoint if port == "client" else victim.peer_endpoint
    held = [open_socket(endpoint) for _ in range(HOSTILE_CONNECTIONS)]
    try:
        for number, connection in enumerate(held):
            connection.sendall(protocol.PREFACE[: number % 4])
        with victim.connect() as connection_of_a_client:
            connection_of_a_client.put(b"key", b"value")
    finally:
        for connection in held:
            connection.close()
    wait_until(lambda: victim.daemon.open_files_count() < HOSTILE_CONNECTIONS, "the sockets to be closed")


def test_connections_that_are_reset(victim: Node) -> None:
    """Requests in flight on a connection that dies by RST leave no open file behind."""
    files_before = victim.daemon.open_files_count()
    for _ in range(50):
        connection = victim.connect()
        connection.send(*[[commands.PUT, 0, b"key", b"value", 0, 0]] * 20)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    wait_until(lambda: victim.daemon.open_files_count() <= files_before + 5, "the sockets to be closed")


def test_client_that_never_reads_its_answers(victim: Node) -> None:
    """Its socket is not read any more; the daemon neither buffers without bound nor stops serving others."""
    with victim.connect() as connection:
        connection.put(b"large", b"x" * MIB)
    with victim.connect() as greedy:
        requests = [msgpack.packb([number, 0, [commands.GET, 0, b"large"]]) for number in range(10, 10 + GREEDY_READS)]
        greedy.send_bytes(b"".join(requests))
        with victim.connect() as neighbour:
            for _ in range(20):
                neighbour.put(b"key", b"value")
    with victim.connect() as connection:
        connection.call([commands.DELETE_RANGE, 0, b"large", b"", 0])


def test_one_byte_at_a_time(victim: Node) -> None:
    """Frames may be split anywhere."""
    hello = msgpack.packb([1, 0, [protocol.HELLO, protocol.hello_options(cluster_name=None, session=None, client="x")]])
    put = msgpack.packb([2, 0, [commands.PUT, 0, b"slow", b"value", 0, 0]])
    with victim.connect(hello=False) as connection:
        for position in range(len(protocol.PREFACE + hello + put)):
            connection.send_bytes((protocol.PREFACE + hello + put)[position : position + 1])
        assert connection.answer(1)[0] == commands.OK
        assert connection.answer(2)[0] == commands.OK


def test_id_in_use(victim: Node) -> None:
    """Two requests with one id: refused or both answered, nothing else breaks."""
    with victim.connect() as connection:
        request = msgpack.packb([77, 0, [commands.PUT, 0, b"key", b"value", 0, 0]])
        connection.send_bytes(request * 2)
        connection.finish()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"DELETE /status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nffffffff\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
    ],
    ids=["unknown path", "long header", "huge body", "path traversal", "broken chunk", "odd version"],
)
def test_bad_http(victim: Node, request_bytes: bytes) -> None:
    """HTTP has its own ways to be broken; no 500 and no end."""
    with open_socket(victim.client_endpoint) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while data := connection.recv(65_536):
                received += data
        except ConnectionError:
            pass
    assert b" 500 " not in received.split(b"\r\n")[0], received[:200]
    assert b"root:" not in received
