"""A client made of the `h2` library at the other end of a server connection of ours, and a listener that keeps what it is told."""

from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events

from raftkv.http2.connection import Connection
from raftkv.http2.grpc import OK_TRAILERS, RESPONSE_HEADERS, RequestHead, prefixed, read_head
from raftkv.http2.streams import Stream

FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/etcdserverpb.KV/Put"),
    (":authority", "127.0.0.1:2379"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


class Recorder:
    """A listener."""

    def __init__(self) -> None:
        self.heads: dict[int, RequestHead] = {}
        self.streams: dict[int, Stream] = {}
        self.bodies: dict[int, bytearray] = {}
        self.heard: list[int] = []
        self.resets: list[int] = []
        self.room: list[int] = []
        self.on_heard: Callable[[Stream], None] = lambda stream: None

    def on_request(self, stream: Stream, head: Any) -> None:
        self.heads[stream.id] = head
        self.streams[stream.id] = stream
        self.bodies[stream.id] = bytearray()
        if stream.is_heard:
            self._hear(stream)

    def on_data(self, stream: Stream, data: bytes) -> None:
        self.bodies[stream.id] += data
        if stream.is_heard:
            self._hear(stream)

    def _hear(self, stream: Stream) -> None:
        assert stream.id not in self.heard, "a stream is heard once"
        self.heard.append(stream.id)
        self.on_heard(stream)

    def on_reset(self, stream: Stream) -> None:
        assert stream.id not in self.resets, "a stream is reset once"
        self.resets.append(stream.id)

    def on_room(self, stream: Stream) -> None:
        self.room.append(stream.id)


class Pair:
    """Both ends, and what the client has heard."""

    def __init__(self, *, streams_max: int = 100) -> None:
        self.now_ms = 0
        self.recorder = Recorder()
        self.server: Connection[RequestHead] = Connection(self.recorder, read_head, streams_max=streams_max)
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.client.initiate_connection()
        self.events: list[Any] = []
        self.credit = True  # the client makes room for what it has read

    def exchange(self) -> None:
        """Until both are silent."""
        while True:
            sent = self.client.data_to_send()
            if sent:
                self.server.receive(sent, self.now_ms)
            answer = self.server.take()
            if answer:
                for event in self.client.receive_data(answer):
                    self.events.append(event)
                    if isinstance(event, h2.events.DataReceived) and self.credit and event.flow_controlled_length:
                        self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if not sent and not answer:
                return

    def request(self, body: bytes = b"", *, end: bool = True, fields: list[tuple[str, str]] | None = None) -> int:
        """Open a stream; the id. A body that does not fit into the window has to be sent in parts by the test."""
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_headers(stream_id, fields or FIELDS, end_stream=end and not body)
        if body:
            for position in range(0, len(body), 16_384):
                part = body[position : position + 16_384]
                self.client.send_data(stream_id, part, end_stream=end and position + 16_384 >= len(body))
        return stream_id

    def answer(self, stream_id: int, message: bytes) -> None:
        """The server's usual answer."""
        self.server.respond(self.recorder.streams[stream_id], RESPONSE_HEADERS, prefixed(message), OK_TRAILERS)

    def body_of(self, stream_id: int) -> bytes:
        """What the client has got of an answer."""
        parts = [e.data for e in self.events if isinstance(e, h2.events.DataReceived) and e.stream_id == stream_id]
        return b"".join(parts)

    def of(self, kind: type[Any], stream_id: int | None = None) -> list[Any]:
        """Events of one kind."""
        return [e for e in self.events if isinstance(e, kind) and stream_id in (None, getattr(e, "stream_id", None))]
