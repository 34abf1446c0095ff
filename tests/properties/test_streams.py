"""Bytes between members and between clients and members, cut everywhere and with garbage in between.

Peer frames carry a checksum: whatever happens to the bytes, what comes out is a beginning of what went in, or a refusal. The
client protocol leaves that to TCP: a message that is whole is served, and what is none ends the connection with a reason.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.client.wireconn import WireConnection
from raftkv.errors import ProtocolError
from raftkv.raft import messages as raft
from raftkv.transport.frames import FrameReader, PeerMessage, encode_frame
from raftkv.wire.commands import OK
from raftkv.wire.protocol import ACK, HELLO, PREFACE, STATUS, hello_options
from tests.unit.client.test_wireconn import GREETING
from tests.unit.daemon.test_native import SESSION, Line, put

FRAMES: list[list[PeerMessage]] = [
    [raft.Heartbeat(3, 1, 2, 5, 9)],
    [raft.AppendEntries(3, 1, 2, 4, 2, 4, [raft.Entry(5, 3, 1, b"abc")]), raft.TimeoutNow(3, 1, 2)],
    [raft.RequestVote(4, 1, 2, 5, 3, pre_vote=True)],
]
STREAM = b"".join(map(encode_frame, FRAMES))
SENT: list[PeerMessage] = [message for frame in FRAMES for message in frame]
BEGINNINGS = [[message for frame in FRAMES[:count] for message in frame] for count in range(len(FRAMES) + 1)]


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


# Peers.


def received(data: bytes, frame_bytes_max: int = 1 << 16) -> tuple[list[PeerMessage], bool]:
    """What a reader makes of these bytes, and whether it refused them."""
    reader = FrameReader(frame_bytes_max)
    messages: list[PeerMessage] = []
    try:
        for position in range(0, len(data), 7):
            messages += reader.feed(data[position : position + 7])
    except ProtocolError:
        return messages, True
    return messages, False


def test_peer_frames_cut_at_every_two_places() -> None:
    for cuts in itertools.combinations_with_replacement(range(len(STREAM) + 1), 2):
        reader = FrameReader(1 << 16)
        assert [message for piece in pieces(STREAM, cuts) for message in reader.feed(piece)] == SENT
        assert reader.buffered_bytes == 0


@given(st.lists(st.integers(0, len(STREAM) * 4), max_size=30))
def test_peer_frames_cut_at_many_places(cuts: list[int]) -> None:
    reader = FrameReader(1 << 16)
    assert [message for piece in pieces(STREAM * 4, cuts) for message in reader.feed(piece)] == SENT * 4


@pytest.mark.parametrize("frame_bytes_max", [1 << 16, 64])
def test_every_bit_of_peer_frames_flipped(frame_bytes_max: int) -> None:
    """In the header, too: a length that grew makes the reader wait, within its bound, and take nothing for whole."""
    for bit in range(len(STREAM) * 8):
        broken = bytearray(STREAM)
        broken[bit // 8] ^= 1 << bit % 8
        messages, _ = received(bytes(broken), frame_bytes_max)
        assert messages in BEGINNINGS[:-1], f"bit {bit}"


@pytest.mark.parametrize("garbage", [b"\x00", b"\xff", b"\x00" * 9, b"GET / HTTP/1.1\r\n\r\n", STREAM[:11]])
def test_garbage_at_every_place_between_peers(garbage: bytes) -> None:
    for position in range(len(STREAM)):
        messages, is_refused = received(STREAM[:position] + garbage + STREAM[position:] + b"\xff" * 64)
        assert messages in BEGINNINGS[:-1], f"byte {position}"
        assert is_refused or len(messages) < len(SENT)


def test_a_byte_missing_anywhere_between_peers() -> None:
    for position in range(len(STREAM)):
        messages, _ = received(STREAM[:position] + STREAM[position + 1 :])
        assert messages in BEGINNINGS[:-1], f"byte {position}"


def test_nothing_after_a_refused_frame_is_read() -> None:
    reader = FrameReader(1 << 16)
    broken = bytearray(encode_frame(FRAMES[1]))
    broken[-1] ^= 1
    with pytest.raises(ProtocolError):
        reader.feed(encode_frame(FRAMES[0]) + bytes(broken) + encode_frame(FRAMES[2]))


# From a client to a member.

HELLO_REQUEST = [1, 0, [HELLO, hello_options(cluster_name=None, session=SESSION, client="test")]]
REQUESTS: list[list[Any]] = [HELLO_REQUEST, [0, 0, [ACK, 1, True]], put(2, 1, b"a"), put(3, 2, b"b"), [4, 0, [STATUS]]]
PACKED = [msgpack.packb(request) for request in REQUESTS]
CLIENT_STREAM = PREFACE + b"".join(PACKED)
BOUNDARIES = [len(PREFACE) + sum(map(len, PACKED[:count])) for count in range(len(PACKED) + 1)]


def at_the_door(*data: bytes) -> tuple[list[Any], bool]:
    """The answers to these bytes, and whether the connection was closed."""
    line = Line()
    for piece in data:
        if not line.transport.is_closed:
            line.door.data_received(piece)
    answers = line.answers()
    line.door.connection_lost(None)
    assert line.member.service.is_idle
    return answers, line.transport.is_closed


def in_loop(check: Callable[[], None]) -> None:
    async def main() -> None:
        check()

    asyncio.run(main())


def test_requests_cut_at_every_place() -> None:
    def check() -> None:
        expected, is_closed = at_the_door(CLIENT_STREAM)
        assert {answer[0] for answer in expected} == {1, 2, 3, 4}
        assert not is_closed
        for cut in range(1, len(CLIENT_STREAM)):
            answers, is_closed = at_the_door(*pieces(CLIENT_STREAM, [cut]))
            assert sorted(map(repr, answers)) == sorted(map(repr, expected)), f"cut at {cut}"
            assert not is_closed

    in_loop(check)


@settings(max_examples=60)
@given(st.lists(st.integers(0, len(CLIENT_STREAM)), max_size=12))
def test_requests_cut_at_many_places(cuts: list[int]) -> None:
    def check() -> None:
        answers, is_closed = at_the_door(*filter(None, pieces(CLIENT_STREAM, cuts)))
        assert {answer[0] for answer in answers} == {1, 2, 3, 4}
        assert all(answer[1][0] == OK for answer in answers)
        assert not is_closed

    in_loop(check)


@pytest.mark.parametrize(
    "garbage", [b"\xc1", b"\x00", b"GET / HTTP/1.1\r\n", msgpack.packb({"a": 1}), b"\xc7\x01\x05x"]
)
def test_garbage_between_two_requests_ends_the_connection_with_a_reason(garbage: bytes) -> None:
    """What was whole before it is answered, and what follows is never read."""

    def check() -> None:
        for count, boundary in enumerate(BOUNDARIES):
            answers, is_closed = at_the_door(CLIENT_STREAM[:boundary] + garbage + CLIENT_STREAM[boundary:])
            assert is_closed, f"after {count} requests"
            (refusal,) = [answer for answer in answers if answer[0] == 0]
            assert refusal[1][1] == "protocol_error"
            assert {answer[0] for answer in answers} == {0, *(request[0] for request in REQUESTS[:count])}

    in_loop(check)


def test_garbage_inside_of_a_request_breaks_nothing_else() -> None:
    """Without a checksum a changed byte may well be another request; the door answers or refuses, and goes on living."""

    def check() -> None:
        for position in range(len(PREFACE), len(CLIENT_STREAM)):
            for garbage in (b"\xc1", b"\x00", b"\xff", b"\x93"):
                answers, is_closed = at_the_door(CLIENT_STREAM[:position] + garbage + CLIENT_STREAM[position:])
                whole = sum(boundary <= position for boundary in BOUNDARIES) - 1
                before = {request[0] for request in REQUESTS[:whole]} - {0}
                assert before <= {answer[0] for answer in answers}
                assert is_closed == any(answer[0] == 0 for answer in answers)

    in_loop(check)


# From a member to a client.

ANSWERS: list[list[Any]] = [[1, [OK, GREETING]], [2, [OK, 5, None]], [3, [OK]], [4, [OK, {"role": "leader"}]]]
PACKED_ANSWERS = [msgpack.packb(answer) for answer in ANSWERS]
ANSWER_STREAM = b"".join(PACKED_ANSWERS)


def at_the_client(*data: bytes) -> tuple[list[Any], WireConnection]:
    wire = WireConnection(cluster_name=None, session=None, client_name="test")
    wire.greeting(1.0)
    answers: list[Any] = []
    for piece in data:
        if wire.broken is None:
            answers += wire.receive(piece)
    return answers, wire


@given(st.lists(st.integers(0, len(ANSWER_STREAM)), max_size=12))
def test_answers_cut_at_many_places(cuts: list[int]) -> None:
    answers, wire = at_the_client(*pieces(ANSWER_STREAM, cuts))
    assert answers == ANSWERS[1:]
    assert wire.broken is None


@pytest.mark.parametrize("garbage", [b"\xc1", b"\x00", b"HTTP/1.1 200 OK\r\n", msgpack.packb([0, [OK]])])
def test_garbage_between_two_answers_breaks_the_connection(garbage: bytes) -> None:
    """What came before it counts, if the member was greeted: before that nothing was asked."""
    for count in range(len(ANSWERS) + 1):
        before, after = b"".join(PACKED_ANSWERS[:count]), b"".join(PACKED_ANSWERS[count:])
        greeting = min(count, 1) * len(PACKED_ANSWERS[0])
        for cuts in ([greeting], [greeting, len(before)], range(len(before) + len(garbage))):
            answers, wire = at_the_client(*pieces(before + garbage + after, cuts))
            assert wire.broken is not None
            assert answers == ANSWERS[1:count]
        answers, wire = at_the_client(before + garbage + after)
        assert (wire.handshake, answers) == (None, []), "greeting and garbage came together"


def test_garbage_inside_of_an_answer_raises_nothing() -> None:
    for position in range(len(ANSWER_STREAM)):
        whole = sum(len(b"".join(PACKED_ANSWERS[:count])) <= position for count in range(1, len(ANSWERS) + 1))
        for garbage in (b"\xc1", b"\x00", b"\xff", b"\x92", b"\xc7"):
            data = ANSWER_STREAM[:position] + garbage + ANSWER_STREAM[position:]
            answers, wire = at_the_client(*pieces(data, [len(PACKED_ANSWERS[0])] if whole else []))
            assert answers[: max(0, whole - 1)] == ANSWERS[1:whole]
            assert wire.handshake is not None or not answers
