"""The gRPC door: etcd's clients on the client port, over HTTP/2. What one read of the socket brings is one group, answers of one entry are one write.

The framing is raftkv/http2, the procedures are daemon/etcd; this is what lies between: streams become calls, calls become commands on the
desk of the connection or opened procedures. A connection is read no further while too much of it is in flight.
"""

import asyncio
from functools import partial
from typing import Any, Final, Protocol, cast

from google.protobuf.message import DecodeError, Message

from raftkv.daemon.api.grpc_calls import (
    CANCELED,
    DEADLINE_EXCEEDED,
    DEADLINE_TEXT,
    CommandCall,
    Opening,
    ProcedureCall,
    Stranger,
    cut_short,
    is_stream,
    unreadable,
)
from raftkv.daemon.etcd.calls import Procedure
from raftkv.daemon.etcd.desk import Desk
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.identity import Caller
from raftkv.daemon.etcd.procedures import PROCEDURES
from raftkv.errors import DeadlineExceeded, NotLeader, RaftKVError
from raftkv.etcd.statuses import INTERNAL, RESOURCE_EXHAUSTED, Status, status_of
from raftkv.http2 import frames
from raftkv.http2.connection import Connection
from raftkv.http2.grpc import (
    OK_TRAILERS,
    RESPONSE_HEADERS,
    UNSUPPORTED_MEDIA_TYPE,
    Failure,
    MessageError,
    MessageReader,
    prefixed,
    read_head,
    trailers_only,
    unknown_method,
)
from raftkv.http2.headers import Field
from raftkv.http2.streams import Stream
from raftkv.transport.direct import socket_of, write_at_once

MESSAGE_OVERHEAD_BYTES: Final = 512 * 1024  # etcd takes messages that are so much larger than a request may be
KEEP_ALIVE_IDLE_S: Final = 7_200.0  # etcd's: a ping after two hours of silence,
KEEP_ALIVE_TIMEOUT_S: Final = 20.0  # and the end if it is not answered
_PING: Final = frames.frame(frames.PING, 0, 0, b"raftkv\0\0")
_SERVICES: Final = frozenset(path[1:].partition("/")[0] for path in PROCEDURES)
_TIMED_OUT: Final = status_of(DeadlineExceeded())
_NO_MESSAGE: Final = Status(INTERNAL, "a request message is expected")
_TOO_MANY: Final = Status(RESOURCE_EXHAUSTED, "etcdserver: too many requests")


class Door(Protocol):
    """What connections need of the door (grpc_door.py)."""

    house: House

    def add(self, connection: "GrpcConnection") -> None: ...

    def remove(self, connection: "GrpcConnection") -> None: ...

    def certificate_name(self, transport: asyncio.Transport) -> str: ...


class GrpcConnection(asyncio.Protocol):
    """One connection, from its preface on. A Listener of http2, Responses of a desk, a Line of its calls."""

    def __init__(self, door: Door) -> None:
        self.house: Final = door.house
        self.loop: Final = asyncio.get_running_loop()
        limits = door.house.limits
        self._door = door
        self._limits = limits
        self._message_bytes_max = limits.request_bytes_max + MESSAGE_OVERHEAD_BYTES
        self.connection: Connection[Opening] = Connection(self, self._interpret, streams_max=limits.http2_streams_max)
        self._sender = self.connection.sender
        self._desk = Desk(door.house, self)
        self._counts = door.house.calls
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        self._certificate_name = ""
        self._is_receiving = False
        self._flush_handle: asyncio.Handle | None = None
        self._transport_takes = True
        self._reading_paused = False
        self._partial_bytes = 0  # of messages that are not whole yet
        self._keep_alive: asyncio.TimerHandle | None = None
        self._heard_at = 0.0

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._transport = stream
        self._descriptor = socket_of(stream)
        self._certificate_name = self._door.certificate_name(stream)
        stream.set_write_buffer_limits(high=self._limits.connection_write_buffer_bytes_max)
        self._door.add(self)
        self._heard_at = self.loop.time()
        self._keep_alive = self.loop.call_later(KEEP_ALIVE_IDLE_S, self._ping)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._door.remove(self)
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        self._is_receiving = True  # nothing is written any more
        self.connection.abandon()
        self._desk.close()

    def data_received(self, data: bytes) -> None:
        now = self._heard_at = self.loop.time()
        self._counts.received_bytes += len(data)
        self._is_receiving = True
        self.connection.receive(data, int(now * 1000))
        self._desk.flush()
        self._is_receiving = False
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
            self.on_room(stream)
        self.house.member.schedule_pump()

    # Writing.

    def schedule_flush(self) -> None:
        if not self._is_receiving and self._flush_handle is None:
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

    # Requests: a Listener of raftkv/http2.

    def _interpret(self, fields: list[Field]) -> Opening:
        head = read_head(fields)
        procedure = PROCEDURES.get(head.path)
        failure = head.refusal
        if procedure is None:
            failure = unknown_method(head.path, _SERVICES)
        return Opening(head, procedure, self._counts.of(head.path) if procedure else None, failure)

    def on_request(self, stream: Stream, opening: Opening) -> None:
        head, procedure, counts, failure = opening
        connection = self.connection
        if not head.is_grpc:
            connection.end(stream, UNSUPPORTED_MEDIA_TYPE)
            return
        if procedure is None or counts is None:
            assert failure is not None, "what is not there is refused"
            connection.end(stream, trailers_only(failure))
            return
        metadata = head.metadata
        counts.started += 1
        self._counts.note_request(metadata.get("client-api-version"), is_stream=is_stream(procedure))
        status = Status(*failure) if failure is not None else self.house.refusal(metadata)
        if status is None and self._desk.in_flight > 2 * self._limits.connection_in_flight_requests_max:
            status = _TOO_MANY
        if status is not None:
            self._refuse(stream, counts.handled, status)
            return
        stream.context = stranger = Stranger(opening, counts)
        self.house.authenticate(metadata, self._certificate_name, partial(self._admit, stream, stranger))

    def _admit(self, stream: Stream, stranger: Stranger, found: Caller | RaftKVError) -> None:
        """It is known who calls: mostly at once; later, with a token that this member has not heard of yet."""
        procedure, counts = stranger.opening.procedure, stranger.counts
        if stream.context is not stranger:
            return
        if isinstance(found, RaftKVError):
            self._refuse(stream, counts.handled, status_of(found))
        elif isinstance(procedure, Procedure):
            call = stream.context = ProcedureCall(self, stream, stranger.opening, found, self._message_bytes_max)
            call.open()
            if stream.is_heard and not stranger.data:
                call.on_half_close()
        elif procedure is not None:
            stream.context = CommandCall(procedure, counts, found, stranger.opening.head.timeout_ms)
            if stream.is_heard and not stranger.data:
                self._refuse(stream, counts.handled, _NO_MESSAGE)
        if stranger.data:
            self.on_data(stream, bytes(stranger.data))
        if not self._is_receiving:
            self._desk.flush()
            self.schedule_flush()
            self.house.member.schedule_pump()

    def on_data(self, stream: Stream, data: bytes) -> None:
        call = stream.context
        if type(call) is CommandCall:
            self._receive_command(stream, call, data)
            return
        if not isinstance(call, ProcedureCall):
            if type(call) is Stranger and not call.take(data, self._message_bytes_max):
                self._refuse(stream, call.counts.handled, _TOO_MANY)
            return
        messages = self._read(stream, call.reader, data, call.counts.handled)
        if messages is not None:
            call.on_messages(messages)
            if stream.is_heard:
                call.on_half_close()
                self._forget_partial(call)

    def _receive_command(self, stream: Stream, call: CommandCall, data: bytes) -> None:
        reader = call.reader
        if reader is None:
            reader = call.reader = MessageReader(self._message_bytes_max)
        messages = self._read(stream, reader, data, call.counts.handled)
        if messages is None or call.is_submitted:
            return
        if not messages:
            if stream.is_heard:
                status = cut_short(call.method) if reader.waiting_bytes else _NO_MESSAGE
                self._end_call(stream, call.counts.handled, status)
            return
        call.counts.received += 1
        method = call.method
        try:
            request = method.request.FromString(messages[0])
        except DecodeError as error:
            self._refuse(stream, call.counts.handled, unreadable(error))
            return
        call.is_submitted = True
        self._desk.submit(stream.id, method, request, call.caller, call.timeout_ms)

    def _read(self, stream: Stream, reader: MessageReader, data: bytes, handled: list[int]) -> list[bytes] | None:
        """The messages that are whole now; None when the call has ended with a refusal."""
        before_bytes = reader.waiting_bytes
        try:
            messages = reader.feed(data)
        except MessageError as error:
            self._partial_bytes -= before_bytes
            self._end_call(stream, handled, Status(*error.failure))
            return None
        partial_bytes = reader.waiting_bytes
        if partial_bytes != before_bytes:
            self._partial_bytes += partial_bytes - before_bytes
            if self._partial_bytes > self._limits.http2_partial_bytes_max and partial_bytes > before_bytes:
                self._end_call(stream, handled, _TOO_MANY)
                return None
        return messages

    def _end_call(self, stream: Stream, handled: list[int], status: Status) -> None:
        call = stream.context
        if isinstance(call, ProcedureCall):
            call.end(status)
            call.on_gone()
        else:
            self._refuse(stream, handled, status)
        self._forget_partial(call)

    def _refuse(self, stream: Stream, handled: list[int], status: Status) -> None:
        stream.context = None
        handled[status.number] += 1
        self.connection.end(stream, trailers_only(Failure(*status)))

    def on_reset(self, stream: Stream) -> None:
        call = stream.context
        stream.context = None
        self._forget_partial(call)
        if isinstance(call, ProcedureCall):
            call.on_gone()
        elif isinstance(call, CommandCall | Stranger):
            call.counts.handled[CANCELED] += 1
            self._desk.forget(stream.id)

    def on_room(self, stream: Stream) -> None:
        call = stream.context
        if isinstance(call, ProcedureCall):
            call.on_room()

    def _forget_partial(self, call: Any) -> None:
        reader = getattr(call, "reader", None)
        if reader is not None:
            self._partial_bytes -= reader.waiting_bytes
            reader.clear()

    # Answers: Responses of the desk.

    def on_response(self, tag: int, response: Message) -> None:
        stream = self.connection.streams.get(tag)
        if stream is None:
            return
        counts = stream.context.counts
        counts.handled[0] += 1
        counts.sent += 1
        self.connection.respond(stream, RESPONSE_HEADERS, prefixed(response.SerializeToString()), OK_TRAILERS)

    def on_failure(self, tag: int, status: Status) -> None:
        stream = self.connection.streams.get(tag)
        if stream is None:
            return
        call = stream.context
        if status is _TIMED_OUT and 0 < call.timeout_ms <= self.house.request_timeout_ms:
            status = Status(DEADLINE_EXCEEDED, DEADLINE_TEXT)  # the client's own deadline, not the member's
        self._refuse(stream, call.counts.handled, status)

    def on_batch_end(self) -> None:
        if not self._is_receiving:
            self._write()
            self._update_reading()

    # What the door asks for.

    def end_streams_without_leader(self) -> None:
        """Those that wanted a member that knows a leader (`hasleader`): it has known none for too long."""
        status = status_of(NotLeader())
        for stream in list(self.connection.streams.values()):
            call = stream.context
            if isinstance(call, ProcedureCall) and call.metadata.get("hasleader") == "true":
                call.end(status)
                call.on_gone()

    def announce_shutdown(self) -> None:
        """New calls should go elsewhere; those on their way are served."""
        self.connection.announce_shutdown()
        self.schedule_flush()

    def refuse_new(self) -> None:
        """The client has heard of it by now."""
        self.connection.refuse_new()
        self.schedule_flush()

    def _ping(self) -> None:
        """A peer that is gone without a word must not keep its watches here for ever."""
        transport = self._transport
        if transport is None:
            return
        silent_s = self.loop.time() - self._heard_at
        if silent_s < KEEP_ALIVE_IDLE_S:
            self._keep_alive = self.loop.call_later(KEEP_ALIVE_IDLE_S - silent_s, self._ping)
            return
        asked_at = self._heard_at
        self._sender.control(_PING)
        self._write()

        def judge() -> None:
            if self._heard_at == asked_at and self._transport is not None:
                self._transport.abort()
            else:
                self._ping()

        self._keep_alive = self.loop.call_later(KEEP_ALIVE_TIMEOUT_S, judge)
