"""The protocol of one connection without a socket: greeting, notices, answers split anywhere, and bytes that are none."""

from typing import Any

import msgpack
import pytest

from raftkv.client.session import Session
from raftkv.client.wireconn import WireConnection, failure_of, timeout_ms
from raftkv.errors import ClusterMismatch, KeyTooLarge, NoQuorum, ProtocolError, RequestTooLarge, ValueTooLarge
from raftkv.wire.commands import FAILED, OK, failure
from raftkv.wire.protocol import ACK, FORWARD, HELLO, PREFACE

GREETING = {
    "protocol": 1,
    "version": "0.1.0",
    "cluster_id": 7,
    "cluster_name": "prod",
    "member_id": 1,
    "member_name": "n1",
    "leader": {"id": 1, "name": "n1", "address": "a:1"},
    "members": [{"id": 1, "name": "n1", "address": "a:1"}, "odd"],
    "limits": {"key_bytes_max": 10, "value_bytes_max": 100, "request_bytes_max": 150, "session_ttl_ms": 5000},
}


def new(cluster_name: str | None = None, session: Session | None = None) -> WireConnection:
    return WireConnection(cluster_name=cluster_name, session=session, client_name="test")


def greeted(session: Session | None = None) -> WireConnection:
    wire = new(session=session)
    wire.greeting(1.0)
    assert wire.receive(msgpack.packb([1, [OK, GREETING]])) == []
    assert wire.broken is None
    return wire


def test_the_greeting() -> None:
    data = new("prod", Session(b"s" * 16)).greeting(0.5)
    assert data.startswith(PREFACE)
    request_id, timeout, (operation, options) = msgpack.unpackb(data[len(PREFACE) :])
    assert (request_id, timeout, operation) == (1, 500, HELLO)
    assert options == {"protocol": 1, "cluster_name": "prod", "session": b"s" * 16, "client": "test"}


def test_what_the_greeting_teaches() -> None:
    handshake = greeted().handshake
    assert handshake is not None
    assert (handshake.member_id, handshake.cluster_name, handshake.session_ttl_s) == (1, "prod", 5.0)
    assert handshake.leader is not None
    assert [peer.address for peer in handshake.members] == ["a:1"], "what is no member is left out"


def test_answers_split_at_every_byte() -> None:
    frames = [[1, [OK, GREETING]], [2, [OK, 5, None]], [3, [FAILED, "no_quorum", False, "m", {}]]]
    data = b"".join(msgpack.packb(frame) for frame in frames)
    for position in range(len(data) + 1):
        wire = new()
        answers = wire.receive(data[:position]) + wire.receive(data[position:])
        assert answers == frames[1:]
        assert wire.handshake is not None
    wire, answers = new(), []
    for position in range(len(data)):
        answers += wire.receive(data[position : position + 1])
    assert answers == frames[1:]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xc1",
        b"HTTP/1.1 400 Bad Request\r\n",
        msgpack.packb(5),
        msgpack.packb([1, 2, 3]),
        msgpack.packb([5, "text"]),
        msgpack.packb([5, []]),
        msgpack.packb(["5", [0]]),
        msgpack.packb({"a": 1}),
        b"\x92\x05\xa2\xff\xfe",  # text that is not UTF-8
        b"\x92\x05\x81\x80\x01",  # a map whose key is a map
        msgpack.packb([5, [0, msgpack.ExtType(4, b"x")]]),
    ],
)
def test_garbage_breaks_the_connection_but_not_what_came_before(garbage: bytes) -> None:
    wire = greeted()
    answers = wire.receive(msgpack.packb([2, [OK, 5, None]]) + garbage + b"\xc1")
    assert answers == [[2, [OK, 5, None]]]
    assert type(wire.broken) is ProtocolError


def test_a_refusal_under_id_0_is_why_the_member_hangs_up() -> None:
    wire = greeted()
    assert wire.receive(msgpack.packb([0, failure(NoQuorum("because"))])) == []
    assert type(wire.broken) is NoQuorum
    assert wire.broken.message == "because"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": 2}, "protocol 2, this client 1: upgrade"),
        ({"member_id": None}, "greeting is malformed"),
        ({"limits": 5}, "greeting is malformed"),
        ({"members": 5}, "greeting is malformed"),
    ],
)
def test_greetings_that_cannot_be_used(change: dict[str, Any], words: str) -> None:
    wire = new()
    wire.receive(msgpack.packb([1, [OK, {**GREETING, **change}]]))
    assert wire.handshake is None
    assert type(wire.broken) is ProtocolError
    assert words in wire.broken.message


@pytest.mark.parametrize("answer", [[OK], [OK, 5], [OK, None], [7, {}], [FAILED]])
def test_greetings_of_odd_shape(answer: list[Any]) -> None:
    wire = new()
    wire.receive(msgpack.packb([1, answer]))
    assert wire.handshake is None
    assert type(wire.broken) is ProtocolError


def test_an_answer_before_the_greeting() -> None:
    wire = new()
    assert wire.receive(msgpack.packb([2, [OK]])) == []
    assert type(wire.broken) is ProtocolError


def test_a_mismatch_names_both_clusters_whatever_the_member_says() -> None:
    wire = new(cluster_name="dev")
    wire.receive(msgpack.packb([1, failure(ClusterMismatch("this is 'prod'"))]))
    assert type(wire.broken) is ClusterMismatch
    assert "'dev'" in wire.broken.message
    assert "'prod'" in wire.broken.message
    wire = new(cluster_name="dev")
    wire.receive(msgpack.packb([1, [OK, GREETING]]))
    assert type(wire.broken) is ClusterMismatch, "and a member that does not check is checked"


def test_notices_stand_in_front_of_a_burst_when_something_changed() -> None:
    session = Session(b"s" * 16)
    wire = greeted(session)
    first = session.open(0.0)
    assert msgpack.unpackb(wire.notice()) == [0, 0, [ACK, 1, True]]
    assert wire.notice() == b""
    session.settle(first)
    session.registered = True
    assert msgpack.unpackb(wire.notice()) == [0, 0, [ACK, 2, False]]
    assert greeted().notice() == b"", "no session, no notice"


def test_forwarding_carries_the_session() -> None:
    session = Session(b"s" * 16)
    session.open(0.0)
    assert greeted(session).forward([1, 1], session) == [FORWARD, b"s" * 16, True, 1, [1, 1]]
    assert greeted().forward([1, 0], None) == [FORWARD, None, False, 0, [1, 0]]


def test_what_does_not_fit_is_refused_before_it_is_sent() -> None:
    wire = greeted()
    with pytest.raises(ValueTooLarge, match="200 bytes, the limit is 100"):
        wire.request([1, 0, b"k", b"v" * 200, 0, 0], 1.0)
    with pytest.raises(KeyTooLarge, match="200 bytes, the limit is 10"):
        wire.request([1, 0, b"k" * 200, b"", 0, 0], 1.0)
    with pytest.raises(RequestTooLarge, match="the limit is 150"):
        wire.request([5, 0, b"k", b"v" * 200], 1.0)
    with pytest.raises(ValueTooLarge):
        wire.request(wire.forward([1, 0, b"k", b"v" * 200, 0, 0], None), 1.0)
    request_id, frame = wire.request([64, 0, b"k"], 1.0)
    assert (request_id, msgpack.unpackb(frame)) == (2, [2, 1000, [64, 0, b"k"]])


def test_timeouts_on_the_wire() -> None:
    assert [timeout_ms(seconds) for seconds in (5.0, 0.0004, 0.0, -3.0)] == [5000, 1, 1, 1], "0 would mean none"
    assert timeout_ms(float("inf")) == timeout_ms(1e12) == 2**31 - 1


@pytest.mark.parametrize("answer", [[7, "x"], [FAILED], [FAILED, 1, 2], [FAILED, [], False, "m", {}]])
def test_failures_of_unknown_shape(answer: list[Any]) -> None:
    assert failure_of(answer).code == "protocol_error"
