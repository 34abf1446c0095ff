"""The gRPC door: etcd's clients on the client port, over HTTP/2. What one read of the socket brings is one group, answers of one entry are one write.

The framing is raftkv/http2, the procedures are daemon/etcd; what lies between is here: the socket and the answers. Requests are in
grpc_requests.py, calls in grpc_calls.py. A connection is read no further while too much of it is in flight.
"""

import asyncio
from typing import Final, Protocol, cast

from google.protobuf.message import Message

from raftkv.daemon.api.grpc_calls import (
    DEADLINE_EXCEEDED,
    DEADLINE_TEXT,
    Opening,
    ProcedureCall,
    Shared,
)
from raftkv.daemon.api.grpc_pulse import Pulse, PulseWatch
from raftkv.daemon.api.grpc_requests import Requests
from raftkv.daemon.etcd.calls import Reply
from raftkv.daemon.etcd.desk import Desk
from raftkv.daemon.etcd.house import House
from raftkv.errors import DeadlineExceeded, NotLeader
from raftkv.etcd.long_ranges import LongRange, protobuf_whole
from raftkv.etcd.statuses import Status, status_of
from raftkv.http2 import frames
from raftkv.http2.connection import Connection
from raftkv.http2.grpc import (
    OK_TRAILERS,
    RESPONSE_HEADERS,
    prefixed,
)
from raftkv.transport.direct import socket_of, write_at_once

_PING: Final = frames.frame(frames.PING, 0, 0, b"raftkv\0\0")
_TIMED_OUT: Final = status_of(DeadlineExceeded())


class Door(Protocol):
    """What connections need of the door (grpc_door.py)."""

    house: House
    pulse: Pulse
    shared: Shared

    def add(self, connection: "GrpcConnection") -> None: ...

    def remove(self, connection: "GrpcConnection") -> None: ...

    def certificate_name(self, transport: asyncio.Transport) -> str: ...


class GrpcConnection(asyncio.Protocol):
    """One connection, from its preface on. The Responses of its desk, the Line of its calls."""

    def __init__(self, door: Door) -> None:
        self.house: Final = door.house
        self.loop: Final = asyncio.get_running_loop()
        limits = door.house.limits
        self._door = door
        self._limits = limits
        self._desk = Desk(door.house, self, in_bytes=True)
        self._requests = Requests(self, self._desk, door.shared, door.pulse.interval_ms_min)
        self.connection: Connection[Opening] = self._requests.connection
        self._sender = self.connection.sender
        self._counts = door.house.calls
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        self.is_receiving = False
        self._flush_handle: asyncio.Handle | None = None
        self._transport_takes = True
        self._reading_paused = False
        self._pulse: PulseWatch | None = None

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._transport = stream
        self._descriptor = socket_of(stream)
        self._requests.certificate_name = self._door.certificate_name(stream)
        stream.set_write_buffer_limits(high=self._limits.connection_write_buffer_bytes_max)
        self._door.add(self)
        self._pulse = PulseWatch(
            self.loop,
            self._door.pulse,
            is_greeted=lambda: self.connection.is_greeted,
            ping=self._ping,
            abort=stream.abort,
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._door.remove(self)
        if self._pulse is not None:
            self._pulse.stop()
        self.is_receiving = True  # nothing is written any more
        self.connection.abandon()
        self._desk.close()

    def data_received(self, data: bytes) -> None:
        now = self.loop.time()
        if self._pulse is not None:
            self._pulse.heard_at = now
        self._counts.received_bytes += len(data)
        self.is_receiving = True
        self.connection.receive(data, int(now * 1000))
        self._desk.flush()
        self.is_receiving = False
        self._write()
        if self.connection.has_failed and self._transport is not None:
            self._transport.close()
        self.house.member.schedule_pump()
        self._update_reading()

    def pause_writing(self) -> None:
        self._transport_takes = False
        self._update_reading()

    def resume_writing(self) -> None:
        self._transport_takes = True
        self._update_reading()
        for stream in list(self.connection.streams.values()):
            self._requests.on_room(stream)
        self.house.member.schedule_pump()

    # Writing.

    def schedule_flush(self) -> None:
        if not self.is_receiving and self._flush_handle is None:
            self._flush_handle = self.loop.call_soon(self._on_flush)

    def _on_flush(self) -> None:
        self._flush_handle = None
        self._write()

    def _write(self) -> None:
        transport = self._transport
        if transport is None:
            return
        data = self.connection.take()
        if data:
            self._counts.sent_bytes += len(data)
            write_at_once(transport, self._descriptor, data)

    @property
    def takes_answers(self) -> bool:
        """False while answers would only pile up, here or for lack of the peer's window."""
        return (
            self._transport_takes and self._sender.queued_bytes <= self._limits.connection_write_buffer_bytes_max
        ) or self._transport is None

    def _update_reading(self) -> None:
        transport, desk, limits = self._transport, self._desk, self._limits
        if transport is None or transport.is_closing():
            return
        # While answers wait for the peer's window it has to be read on: what it makes room with comes that way.
        waits_for_window = self._sender.queued_bytes > limits.connection_write_buffer_bytes_max
        full = not self._transport_takes or (
            not waits_for_window
            and (
                desk.in_flight > limits.connection_in_flight_requests_max
                or desk.in_flight_bytes > limits.connection_in_flight_bytes_max
            )
        )
        if full != self._reading_paused:
            self._reading_paused = full
            if full:
                transport.pause_reading()
            else:
                transport.resume_reading()

    # Answers: Responses of the desk.

    def on_response(self, tag: int, response: Reply) -> None:
        stream = self.connection.streams.get(tag)
        if stream is None:
            return
        counts = stream.context.counts
        counts.handled[0] += 1
        counts.sent += 1
        data = response if type(response) is bytes else cast(Message, response).SerializeToString()
        self.connection.respond(stream, RESPONSE_HEADERS, prefixed(data), OK_TRAILERS)

    def on_long_range(self, tag: int, long_range: LongRange) -> None:
        self.on_response(tag, protobuf_whole(long_range))

    def on_failure(self, tag: int, status: Status) -> None:
        stream = self.connection.streams.get(tag)
        if stream is None:
            return
        call = stream.context
        if status is _TIMED_OUT and 0 < call.timeout_ms <= self.house.request_timeout_ms:
            status = Status(DEADLINE_EXCEEDED, DEADLINE_TEXT)  # the client's own deadline, not the member's
        self._requests.refuse(stream, call.counts.handled, status)

    def on_batch_end(self) -> None:
        if not self.is_receiving:
            self._write()
            self._update_reading()

    # What the door asks for.

    def end_streams_without_leader(self) -> None:
        """Those that wanted a member that knows a leader (`hasleader`): it has known none for too long."""
        status = status_of(NotLeader())
        for stream in list(self.connection.streams.values()):
            call = stream.context
            if isinstance(call, ProcedureCall) and call.metadata.get("hasleader") == "true":
                call.break_off(status)

    def announce_shutdown(self) -> None:
        """New calls should go elsewhere; those on their way are served."""
        self.connection.announce_shutdown()
        self.schedule_flush()

    def refuse_new(self) -> None:
        """The client has heard of it by now."""
        self.connection.refuse_new()
        self.schedule_flush()

    def _ping(self) -> None:
        self._sender.control(_PING)
        self._write()


__all__ = ["GrpcConnection"]
