"""The server side of HTTP/2 with the `h2` library as its client, and with clients that mean no good."""

import h2.events
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.http2 import frames, rules
from raftkv.http2.connection import Connection
from raftkv.http2.grpc import OK_TRAILERS, RESPONSE_HEADERS, prefixed, read_head
from raftkv.http2.headers import literal
from tests.unit.http2.peers import FIELDS, Pair, Recorder

BLOCK = b"".join(literal(name.encode(), value.encode()) for name, value in FIELDS)


def opened(*sent: bytes, streams_max: int = 100) -> tuple[Connection[object], Recorder]:
    recorder = Recorder()
    connection: Connection[object] = Connection(recorder, read_head, streams_max=streams_max)
    connection.receive(frames.PREFACE + frames.settings({}) + b"".join(sent), 0)
    return connection, recorder


def request(stream_id: int, body: bytes = b"", flags: int = frames.END_STREAM) -> bytes:
    return frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, BLOCK) + frames.frame(
        frames.DATA, flags, stream_id, body
    )


def goaway_of(connection: Connection[object]) -> tuple[int, bytes]:
    """Code and reason of the last frame."""
    assert connection.has_failed
    data, found = connection.take(), None
    while data:
        size, kind = int.from_bytes(data[:3], "big"), data[3]
        if kind == frames.GOAWAY:
            found = int.from_bytes(data[13:17], "big"), data[17 : 9 + size]
        data = data[9 + size :]
    assert found is not None
    return found


def test_a_request_and_its_answer() -> None:
    pair = Pair()
    stream_id = pair.request(b"question")
    pair.exchange()
    head = pair.recorder.heads[stream_id]
    assert (head.path, head.is_grpc, head.metadata["te"]) == ("/etcdserverpb.KV/Put", True, "trailers")
    assert bytes(pair.recorder.bodies[stream_id]) == b"question"
    pair.answer(stream_id, b"answer")
    pair.exchange()
    assert pair.body_of(stream_id) == prefixed(b"answer")
    (trailers,) = pair.of(h2.events.TrailersReceived)
    assert (b"grpc-status", b"0") in [(bytes(name), bytes(value)) for name, value in trailers.headers]
    assert len(pair.of(h2.events.StreamEnded)) == 1
    assert not pair.server.streams


def test_many_requests_with_headers_that_change_the_table() -> None:
    pair = Pair(streams_max=1000)
    ids = [pair.request(b"%d" % i, fields=[*FIELDS, ("grpc-timeout", f"{4999000 + i}u")]) for i in range(300)]
    pair.exchange()
    for i, stream_id in enumerate(ids):
        assert pair.recorder.heads[stream_id].timeout_ms == round((4999000 + i) / 1000)
        assert bytes(pair.recorder.bodies[stream_id]) == b"%d" % i
        pair.answer(stream_id, b"%d" % i)
    pair.exchange()
    assert [pair.body_of(stream_id) for stream_id in ids] == [prefixed(b"%d" % i) for i in range(300)]


def test_long_bodies_in_both_directions_with_the_default_window() -> None:
    pair = Pair()
    body = bytes(range(256)) * 8192  # 2 MiB, more than any window
    stream_id = pair.request(end=False)
    pair.exchange()
    position = 0
    while position < len(body):
        part = body[position : position + min(16_384, pair.client.local_flow_control_window(stream_id))]
        assert part, "the window is opened again"
        position += len(part)
        pair.client.send_data(stream_id, part, end_stream=position == len(body))
        pair.exchange()
    assert bytes(pair.recorder.bodies[stream_id]) == body
    pair.answer(stream_id, body)
    pair.exchange()
    assert pair.body_of(stream_id) == prefixed(body)
    assert pair.server.sender.queued_bytes == 0
    assert len(pair.of(h2.events.StreamEnded)) == 1


def test_what_has_no_window_waits_and_room_is_told() -> None:
    pair = Pair()
    pair.credit = False
    stream_id = pair.request(b"q", end=False)
    pair.exchange()
    stream = pair.recorder.streams[stream_id]
    pair.server.send_headers(stream, RESPONSE_HEADERS)
    pair.server.send_data(stream, b"x" * 100_000)
    pair.exchange()
    assert len(pair.body_of(stream_id)) == frames.WINDOW_BYTES_DEFAULT
    assert pair.server.sender.queued_bytes == stream.queued_bytes == 100_000 - frames.WINDOW_BYTES_DEFAULT
    assert pair.recorder.room == []
    pair.client.acknowledge_received_data(60_000, stream_id)
    pair.exchange()
    assert len(pair.body_of(stream_id)) == 100_000
    assert pair.recorder.room == [stream_id]
    pair.server.end(stream, OK_TRAILERS)
    pair.exchange()
    assert len(pair.of(h2.events.TrailersReceived)) == 1
    (reset,) = pair.of(h2.events.StreamReset)  # the client has not ended its side: nothing more is wanted of it
    assert reset.error_code == frames.NO_ERROR


def test_a_reset_reaches_the_listener_and_frees_what_was_queued() -> None:
    pair = Pair()
    pair.credit = False
    first, second = pair.request(b"q"), pair.request(b"q")
    pair.exchange()
    pair.answer(first, b"x" * 200_000)
    pair.client.reset_stream(first)
    pair.client.reset_stream(second)
    pair.exchange()
    assert pair.recorder.resets == [second]  # the first was answered: only the queue is dropped
    assert pair.server.sender.queued_bytes == 0
    pair.answer(second, b"late")
    pair.exchange()
    assert pair.body_of(second) == b""


def test_settings_of_the_client_count_for_open_streams() -> None:
    pair = Pair()
    pair.credit = False
    pair.client.update_settings({4: 10})
    stream_id = pair.request(b"q")
    pair.exchange()
    pair.answer(stream_id, b"x" * 95)
    pair.exchange()
    assert len(pair.body_of(stream_id)) == 10
    pair.client.update_settings({4: 1000})
    pair.exchange()
    assert len(pair.body_of(stream_id)) == 100
    assert pair.of(h2.events.StreamEnded)


def goaways(data: bytes) -> list[int]:
    """The last stream ids of the GOAWAYs in it."""
    found = []
    while data:
        size, kind = int.from_bytes(data[:3], "big"), data[3]
        if kind == frames.GOAWAY:
            found.append(int.from_bytes(data[9:13], "big"))
        data = data[9 + size :]
    return found


def test_shutdown_in_two_steps_loses_nothing() -> None:
    connection, recorder = opened()
    connection.announce_shutdown()
    connection.receive(request(1, b"was on its way"), 0)
    assert recorder.heard == [1]
    connection.refuse_new()
    connection.respond(recorder.streams[1], RESPONSE_HEADERS, prefixed(b"served"), OK_TRAILERS)
    connection.receive(request(3), 0)
    assert recorder.heard == [1]
    sent = connection.take()
    assert prefixed(b"served") in sent
    assert frames.rst_stream(3, frames.REFUSED_STREAM) in sent
    assert goaways(sent) == [2**31 - 1, 1]


def test_more_streams_than_allowed_are_refused_alone() -> None:
    connection, recorder = opened(*(request(2 * i + 1, flags=0) for i in range(7)), streams_max=5)
    assert len(recorder.heads) == 5
    assert not connection.has_failed
    assert connection.take().count(frames.rst_stream(11, frames.REFUSED_STREAM)) == 1


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frames.frame(frames.HEADERS, frames.END_HEADERS, 2, BLOCK), frames.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, 0, 1, b"x"), frames.PROTOCOL_ERROR),
        (frames.frame(frames.RST_STREAM, 0, 1, b"\0" * 4), frames.PROTOCOL_ERROR),
        (frames.frame(frames.RST_STREAM, 0, 1, b"\0" * 3), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, 0, 0, b"\0" * 5), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, 0, 1), frames.PROTOCOL_ERROR),
        (frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31}), frames.FLOW_CONTROL_ERROR),
        (frames.settings({frames.MAX_FRAME_SIZE: 100}), frames.PROTOCOL_ERROR),
        (frames.frame(frames.PING, 0, 0, b"x"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.PUSH_PROMISE, 0, 1, b"\0" * 9), frames.PROTOCOL_ERROR),
        (frames.frame(frames.CONTINUATION, 0, 1, b""), frames.PROTOCOL_ERROR),
        (frames.window_update(0, 2**31 - 1), frames.FLOW_CONTROL_ERROR),
        (frames.window_update(0, 0), frames.FLOW_CONTROL_ERROR),
        (frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"), frames.COMPRESSION_ERROR),
        (frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xbe"), frames.COMPRESSION_ERROR),
        (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.HEADERS, 0, 1, BLOCK) + frames.frame(frames.PING, 0, 0, b"\0" * 8), frames.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, frames.PADDED, 1, b"\x09x"), frames.PROTOCOL_ERROR),
    ],
)
def test_a_broken_protocol_ends_the_connection_with_its_code(sent: bytes, code: int) -> None:
    if sent[3:5] == bytes((frames.DATA, frames.PADDED)):
        sent = request(1, flags=0) + sent
    connection, recorder = opened(sent)
    assert goaway_of(connection)[0] == code
    connection.receive(request(101), 0)
    assert 101 not in recorder.heads, "a connection that failed is deaf"


def test_not_http2_at_all() -> None:
    connection: Connection[object] = Connection(Recorder(), read_head, streams_max=1)
    connection.receive(b"PRI * HTTP/2.0\r\n\r\nXX", 0)
    assert goaway_of(connection)[0] == frames.PROTOCOL_ERROR


def header_bomb() -> bytes:
    """One large field in the table, named again and again: 4 KB on the wire, megabytes of fields."""
    insert = b"\x40" + literal(b"a", b"x" * 3000)[1:]
    return frames.frame(frames.HEADERS, frames.END_HEADERS, 1, insert + b"\xbe" * 4000)


@pytest.mark.parametrize(
    "flood",
    [
        b"".join(request(2 * i + 1) + frames.rst_stream(2 * i + 1, frames.CANCEL) for i in range(6000)),
        frames.settings({}) * 3000,
        frames.frame(frames.PING, 0, 0, b"\0" * 8) * 10,
        frames.frame(frames.PRIORITY, 0, 1, b"\0" * 5) * 3000,
        request(1, flags=0) + frames.frame(frames.DATA, 0, 1, b"") * 3000,
        frames.frame(frames.HEADERS, 0, 1, BLOCK) + frames.frame(frames.CONTINUATION, 0, 1, b"") * 3000,
        frames.frame(frames.HEADERS, 0, 1, BLOCK) + frames.frame(frames.CONTINUATION, 0, 1, b"\x00" * 16_000) * 10,
        frames.frame(99, 0, 0, b"") * 3000,
        header_bomb(),
    ],
    ids=["rapid reset", "settings", "pings", "priorities", "empty data", "continuations", "long", "unknown", "bomb"],
)
def test_floods_end_the_connection(flood: bytes) -> None:
    connection, _ = opened(flood)
    code, _ = goaway_of(connection)
    assert code == frames.ENHANCE_YOUR_CALM
    assert not connection.streams


def test_a_client_that_gives_up_now_and_then_is_no_flood() -> None:
    pair = Pair(streams_max=10_000)
    for _ in range(20):
        ids = [pair.request(b"q") for _ in range(400)]
        pair.exchange()
        for stream_id in ids:
            pair.client.reset_stream(stream_id)
        pair.exchange()
        pair.now_ms += 1000
    assert not pair.server.has_failed
    assert len(pair.recorder.resets) == 8000


def test_pings_are_answered_and_only_too_many_in_silence_are_too_many() -> None:
    pair = Pair()
    for _ in range(10):
        pair.client.ping(b"12345678")
        stream_id = pair.request(b"q")
        pair.exchange()
        pair.answer(stream_id, b"a")
        pair.exchange()
    assert len(pair.of(h2.events.PingAckReceived)) == 10
    for _ in range(10):
        pair.client.ping(b"12345678")
        pair.exchange()
        pair.now_ms += rules.PING_INTERVAL_MS_MIN
    assert not pair.server.has_failed
    for _ in range(4):
        pair.client.ping(b"12345678")
        pair.exchange()
    assert pair.server.has_failed
    assert pair.of(h2.events.ConnectionTerminated)[-1].additional_data == b"too_many_pings"


def test_pings_beside_a_long_answer_are_none_too_many() -> None:
    """Go's client measures the way with each part of an answer that it makes room for: all of it was queued long before."""
    pair = Pair()
    pair.credit = False
    stream_id = pair.request(b"q")
    pair.exchange()
    pair.answer(stream_id, b"a" * 300_000)
    pair.exchange()
    for _ in range(10):
        pair.client.ping(b"12345678")
        pair.client.acknowledge_received_data(20_000, stream_id)
        pair.exchange()
    assert not pair.server.has_failed


def test_more_data_than_the_window_is_refused() -> None:
    connection, recorder = opened(request(1, flags=0))
    stream = recorder.streams[1]
    stream.receive_left = 10
    connection.receive(frames.frame(frames.DATA, 0, 1, b"x" * 11), 0)
    assert recorder.resets == [1]
    assert not connection.has_failed
    connection._receive_left = 10
    connection.receive(frames.frame(frames.DATA, 0, 1, b"x" * 11), 0)
    assert goaway_of(connection)[0] == frames.FLOW_CONTROL_ERROR


@settings(max_examples=150)
@given(data=st.data())
def test_any_bytes_in_any_pieces_end_in_answers_or_a_goaway(data: st.DataObject) -> None:
    good = (
        frames.PREFACE
        + frames.settings({4: 100})
        + request(1, b"abc")
        + request(3, b"", 0)
        + frames.window_update(0, 5)
    )
    sent = bytearray(good + frames.frame(frames.DATA, frames.PADDED, 3, b"\x01ab\0") + frames.rst_stream(3, 8))
    for _ in range(data.draw(st.integers(0, 6))):
        sent[data.draw(st.integers(24, len(sent) - 1))] = data.draw(st.integers(0, 255))
    sent += data.draw(st.binary(max_size=60))
    recorder = Recorder()
    connection: Connection[object] = Connection(recorder, read_head, streams_max=3)
    recorder.on_heard = lambda stream: connection.respond(stream, RESPONSE_HEADERS, prefixed(b"y" * 200), OK_TRAILERS)
    position = 0
    while position < len(sent):
        size = data.draw(st.integers(1, 50))
        connection.receive(bytes(sent[position : position + size]), position)
        position += size
        connection.take()
    assert connection.sender.queued_bytes <= 2_000
    connection.abandon()
    assert connection.sender.queued_bytes >= 0
