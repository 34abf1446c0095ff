"""Frames that ask for nothing: as many as real work brings, and no more; and what each may cost at most."""

from typing import Any

import pytest

from raftkv.http2 import frames
from raftkv.http2.connection import Connection
from raftkv.http2.grpc import OK_TRAILERS, RESPONSE_HEADERS, prefixed, read_head
from raftkv.http2.headers import REMEMBERED_BYTES_MAX, HeaderDecoder, literal
from raftkv.http2.patience import Allowance
from raftkv.http2.sending import Sender
from raftkv.http2.streams import Stream
from tests.unit.http2.peers import FIELDS, Recorder

BLOCK = b"".join(literal(name.encode(), value.encode()) for name, value in FIELDS)
PING = frames.frame(frames.PING, 0, 0, b"\2\4\x10\x10\x09\x0e\7\7")


def answering(*settings: bytes) -> Connection[Any]:
    """A server that answers each request at once."""
    recorder = Recorder()
    connection: Connection[Any] = Connection(recorder, read_head, streams_max=20_000)
    recorder.on_heard = lambda stream: connection.respond(stream, RESPONSE_HEADERS, prefixed(b"a"), OK_TRAILERS)
    connection.receive(frames.PREFACE + frames.settings({}) + b"".join(settings), 0)
    return connection


def request(number: int) -> bytes:
    stream_id = 2 * number + 1
    return frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, BLOCK) + frames.frame(
        frames.DATA, frames.END_STREAM, stream_id, prefixed(b"q")
    )


@pytest.fixture
def drained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The streams that were looked at to see whether they can go on."""
    looks: list[int] = []
    drain = Sender._drain

    def counting(sender: Sender, stream: Stream) -> None:
        looks.append(stream.id)
        drain(sender, stream)

    monkeypatch.setattr(Sender, "_drain", counting)
    return looks


def test_a_ping_with_each_answer_is_no_flood() -> None:
    # As grpc-go measures the line: a ping per round trip that brings data, thousands a second on loopback.
    connection = answering()
    for number in range(5_000):
        connection.receive(request(number) + PING, 0)
    assert not connection.has_failed


def test_a_window_for_each_message_is_no_flood() -> None:
    connection = answering()
    for number in range(5_000):
        connection.receive(request(number) + frames.window_update(0, 6) + frames.window_update(2 * number + 1, 6), 0)
    assert not connection.has_failed


def test_what_was_earned_runs_out() -> None:
    connection = answering()
    connection.receive(b"".join(map(request, range(100))), 0)
    connection.receive(frames.window_update(0, 1) * 3_000, 0)
    assert connection.has_failed


def test_an_allowance_comes_back_with_time() -> None:
    allowance = Allowance(burst=10, per_second=100)
    assert allowance.take(0, 10)
    assert not allowance.take(0)
    assert not allowance.take(50, 6)
    assert allowance.take(60, 6)
    assert not allowance.take(60)


def test_windows_of_a_byte_cost_no_look_at_streams_that_cannot_go_on(drained: list[int]) -> None:
    connection = answering(frames.settings({frames.INITIAL_WINDOW_SIZE: 0}))
    connection.receive(b"".join(map(request, range(1_000))), 0)
    assert connection.sender.queued_streams == 1_000
    drained.clear()
    connection.receive(frames.window_update(0, 1) * 1_000, 0)
    assert not connection.has_failed
    assert drained == []


def test_windows_of_a_byte_cost_one_look_each(drained: list[int]) -> None:
    connection = answering()
    connection.sender._left = 0
    connection.receive(b"".join(map(request, range(1_000))), 0)
    drained.clear()
    connection.receive(frames.window_update(0, 1) * 600, 0)
    assert len(drained) <= 2 * 600
    assert len(set(drained)) == 600, "each byte goes to the next in the queue"


def test_many_windows_in_one_frame_of_settings_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[int] = []
    monkeypatch.setattr(Sender, "change_initial_window", lambda sender, size: changes.append(size))
    connection = answering()
    pairs = b"".join(b"\0\4" + size.to_bytes(4, "big") for size in range(2_000))
    connection.receive(frames.frame(frames.SETTINGS, 0, 0, pairs), 0)
    assert not connection.has_failed
    assert changes == [1_999]


def test_a_window_for_many_streams_that_wait_is_dear() -> None:
    connection = answering(frames.settings({frames.INITIAL_WINDOW_SIZE: 0}))
    connection.receive(b"".join(map(request, range(10_000))), 0)
    for size in range(1, 20):
        connection.receive(frames.settings({frames.INITIAL_WINDOW_SIZE: size}), 0)
    assert connection.has_failed


def test_blocks_are_remembered_within_a_bound_and_anew_when_it_is_reached() -> None:
    interpreted = 0

    def interpret(fields: list[tuple[bytes, bytes]]) -> int:
        nonlocal interpreted
        interpreted += 1
        return len(fields)

    decoder: HeaderDecoder[int] = HeaderDecoder(interpret, 64 * 1024)
    usual = literal(b"a", b"b")
    for number in range(2_000):
        decoder.decode(usual)
        decoder.decode(literal(b"number", b"%d" % number + b"x" * 500))
        assert decoder._remembered_bytes <= REMEMBERED_BYTES_MAX
    assert 2_000 < interpreted < 2_100, "nearly always, the usual block is known"
    late, before = literal(b"late", b"b" * 2_000), interpreted
    for _ in range(10):
        decoder.decode(late)
    assert interpreted == before + 1, "who comes late is remembered too"
    decoder.decode(literal(b"large", b"x" * 60_000))
    assert decoder._remembered_bytes <= REMEMBERED_BYTES_MAX


def test_the_first_frame_is_settings() -> None:
    connection: Connection[Any] = Connection(Recorder(), read_head, streams_max=1)
    connection.receive(frames.PREFACE, 0)
    assert not connection.is_greeted
    connection.receive(request(0), 0)
    assert connection.has_failed
    for cut in range(12):
        connection = Connection(Recorder(), read_head, streams_max=1)
        data = frames.PREFACE + frames.settings({}) + request(0)
        connection.receive(data[: 24 + cut], 0)
        connection.receive(data[24 + cut :], 0)
        assert connection.is_greeted
        assert not connection.has_failed
