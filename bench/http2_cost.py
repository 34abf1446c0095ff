"""What HTTP/2 alone costs a server per gRPC request, in CPU: the `h2` library beside raftkv/http2. No sockets, no store, one process.

A client's bytes are made beforehand (100 puts per read of the socket, headers as grpc-go sends them: always the same, or with a deadline that
differs each time); each server takes them, answers all, and gives its bytes. A B A B, medians.

    python bench/http2_cost.py
"""

import statistics
import time
from typing import Any, Callable

import h2.config
import h2.connection
import h2.events
import hpack

from raftkv.http2 import frames
from raftkv.http2.connection import Connection
from raftkv.http2.grpc import OK_TRAILERS, RESPONSE_HEADERS, MessageReader, prefixed, read_head

BATCH = 100  # as many streams as h2 allows at first
BATCHES = 60
ROUNDS = 4
FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/etcdserverpb.KV/Put"),
    (":authority", "127.0.0.1:2379"),
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.38.0"),
    ("te", "trailers"),
]
ANSWER = b"a" * 24


def reads(*, deadlines: bool) -> list[bytes]:
    """What a client sends, cut where a socket would."""
    encoder = hpack.Encoder()
    made, stream_id = [], 1
    for batch in range(BATCHES):
        parts = [] if batch else [frames.PREFACE, frames.settings({})]
        parts.append(frames.window_update(0, 65_535))
        for _ in range(BATCH):
            fields = [*FIELDS, ("grpc-timeout", f"{4_999_000 + stream_id}u")] if deadlines else FIELDS
            parts.append(frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, encoder.encode(fields)))
            parts.append(frames.frame(frames.DATA, frames.END_STREAM, stream_id, prefixed(b"p" * 100)))
            stream_id += 2
        made.append(b"".join(parts))
    return made


def with_h2(sent: list[bytes]) -> int:
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    answered = 0
    for data in sent:
        for event in server.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                server.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
                server.send_data(event.stream_id, prefixed(ANSWER))
                server.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
                answered += 1
        server.data_to_send()
    return answered


class Answering:
    """A listener that answers at once."""

    def __init__(self) -> None:
        self.server: Connection[Any] = Connection(self, read_head, streams_max=10_000)
        self.answered = 0

    def on_request(self, stream: Any, head: Any) -> None:
        stream.context = MessageReader(2**20)

    def on_data(self, stream: Any, data: bytes) -> None:
        if stream.context.feed(data):
            self.server.respond(stream, RESPONSE_HEADERS, prefixed(ANSWER), OK_TRAILERS)
            self.answered += 1

    def on_reset(self, stream: Any) -> None: ...

    def on_room(self, stream: Any) -> None: ...


def with_ours(sent: list[bytes]) -> int:
    listener = Answering()
    for data in sent:
        listener.server.receive(data, 0)
        listener.server.take()
    return listener.answered


def cost_us(serve: Callable[[list[bytes]], int], sent: list[bytes]) -> float:
    began = time.process_time()
    answered = serve(sent)
    assert answered == BATCH * BATCHES, answered
    return (time.process_time() - began) / answered * 1e6


def main() -> None:
    for name, deadlines in (("the same headers", False), ("a new deadline each time", True)):
        sent = reads(deadlines=deadlines)
        costs: dict[str, list[float]] = {"h2": [], "raftkv/http2": []}
        for _ in range(ROUNDS):
            costs["h2"].append(cost_us(with_h2, sent))
            costs["raftkv/http2"].append(cost_us(with_ours, sent))
        theirs, ours = (statistics.median(costs[server]) for server in ("h2", "raftkv/http2"))
        print(f"{name}: h2 {theirs:.1f} us, raftkv/http2 {ours:.1f} us per request, ratio {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
