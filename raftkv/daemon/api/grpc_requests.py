"""The requests of one gRPC connection: streams of HTTP/2 become calls, calls become commands on the desk or opened procedures.

Nothing is begun before it is known who asks, and what waits for the rest of a message is counted and bounded.
"""

from functools import partial
from typing import Final

from google.protobuf.message import DecodeError

from raftkv.daemon.api.grpc_calls import (
    CANCELED,
    CommandCall,
    Hoard,
    Line,
    Opening,
    ProcedureCall,
    Shared,
    Stranger,
    cut_short,
    unreadable,
)
from raftkv.daemon.etcd.calls import Procedure
from raftkv.daemon.etcd.desk import Desk
from raftkv.daemon.etcd.identity import Caller
from raftkv.daemon.etcd.procedures import PROCEDURES
from raftkv.errors import RaftKVError
from raftkv.etcd.statuses import INTERNAL, RESOURCE_EXHAUSTED, Status, status_of
from raftkv.http2.connection import Connection
from raftkv.http2.grpc import (
    UNSUPPORTED_MEDIA_TYPE,
    Failure,
    MessageError,
    MessageReader,
    read_head,
    trailers_only,
    unknown_method,
)
from raftkv.http2.headers import Field
from raftkv.http2.streams import Stream
from raftkv.units import Milliseconds

MESSAGE_OVERHEAD_BYTES: Final = 512 * 1024  # etcd takes messages that are so much larger than a request may be
_SERVICES: Final = frozenset(path[1:].partition("/")[0] for path in PROCEDURES)
_NO_MESSAGE: Final = Status(INTERNAL, "a request message is expected")
_TOO_MANY: Final = Status(RESOURCE_EXHAUSTED, "etcdserver: too many requests")


class Requests:
    """A Listener of raftkv/http2."""

    def __init__(self, line: Line, desk: Desk, shared: Shared, ping_interval_ms_min: Milliseconds) -> None:
        house = self._house = line.house
        limits = self._limits = house.limits
        self._line = line
        self._desk = desk
        self._counts = house.calls
        self._message_bytes_max = limits.request_bytes_max + MESSAGE_OVERHEAD_BYTES
        self._hoard = Hoard(limits.http2_partial_bytes_max, shared.hoard)
        self._inflation = shared.inflation
        self.certificate_name = ""  # of the client's certificate
        self.connection: Connection[Opening] = Connection(
            self, self._interpret, streams_max=limits.http2_streams_max, ping_interval_ms_min=ping_interval_ms_min
        )

    def _interpret(self, fields: list[Field]) -> Opening:
        head = read_head(fields)
        procedure = PROCEDURES.get(head.path)
        failure = head.refusal
        if procedure is None:
            failure = unknown_method(head.path, _SERVICES)
        return Opening(head, procedure, self._counts.of(head.path) if procedure else None, failure)

    def on_request(self, stream: Stream, opening: Opening) -> None:
        procedure, counts = opening.procedure, opening.counts
        if not opening.head.is_grpc:
            self.connection.end(stream, UNSUPPORTED_MEDIA_TYPE)
            return
        if procedure is None or counts is None:
            assert opening.failure is not None, "what is not there is refused"
            self.connection.end(stream, trailers_only(opening.failure))
            return
        counts.started += 1
        self._counts.note_request(opening.client_version, is_stream=opening.is_stream)
        status = self._refusal(opening)
        if status is not None:
            self.refuse(stream, counts.handled, status)
            return
        call = (
            Stranger(opening, counts)
            if isinstance(procedure, Procedure)
            else CommandCall(procedure, counts, opening.head)
        )
        stream.context = call
        if stream.is_heard and type(call) is CommandCall:
            self.refuse(stream, counts.handled, _NO_MESSAGE)
            return
        self._house.authenticate(opening.head.metadata, self.certificate_name, partial(self._admit, stream, call))

    def _refusal(self, opening: Opening) -> Status | None:
        """Why the call is not even begun."""
        if opening.failure is not None:
            return Status(*opening.failure)
        if self._desk.in_flight > 2 * self._limits.connection_in_flight_requests_max:
            return _TOO_MANY
        return self._house.refusal(opening.head.metadata) if opening.wants_leader else None

    def _admit(self, stream: Stream, call: CommandCall | Stranger, found: Caller | RaftKVError) -> None:
        """It is known who calls: mostly at once; later, with a token that this member has not heard of yet."""
        if stream.context is not call:
            return
        if isinstance(found, RaftKVError):
            self._forget_partial(call)
            self.refuse(stream, call.counts.handled, status_of(found))
        elif type(call) is CommandCall:
            call.caller = found
            if call.request is not None:
                request, call.request = call.request, None
                self._forget_partial(call)
                self._desk.submit(stream.id, call.method, request, found, call.timeout_ms)
        elif type(call) is Stranger:
            self._open(stream, call, found)
        if not self._line.is_receiving:
            self._desk.flush()
            self._line.schedule_flush()
            self._house.member.schedule_pump()

    def _open(self, stream: Stream, stranger: Stranger, caller: Caller) -> None:
        data = bytes(stranger.data)
        self._forget_partial(stranger)
        call = stream.context = ProcedureCall(
            self._line, stream, stranger.opening, caller, self._reader(stranger.opening.head.is_gzip)
        )
        call.open()
        if data:
            self.on_data(stream, data)
        elif stream.is_heard:
            call.on_half_close()

    def on_data(self, stream: Stream, data: bytes) -> None:
        call = stream.context
        if type(call) is CommandCall:
            self._receive_command(stream, call, data)
        elif type(call) is ProcedureCall:
            messages = self._read(stream, call, call.reader, data)
            if messages is not None:
                call.on_messages(messages)
                if stream.is_heard:
                    call.on_half_close()
                    self._forget_partial(call)
        elif type(call) is Stranger:
            call.data += data
            if not self._hoard.add(len(data)) or len(call.data) > self._message_bytes_max:
                self._end_call(stream, call, _TOO_MANY)

    def _receive_command(self, stream: Stream, call: CommandCall, data: bytes) -> None:
        reader = call.reader
        if reader is None:
            # Nearly always: the message and nothing else, in one frame.
            if (
                stream.is_heard
                and data[:1] == b"\0"
                and int.from_bytes(data[1:5], "big") == len(data) - 5 <= self._message_bytes_max
            ):
                self._take_message(stream, call, data[5:])
                return
            reader = call.reader = self._reader(call.is_gzip)
        messages = self._read(stream, call, reader, data)
        if messages is None or call.is_submitted:
            return
        if messages:
            self._take_message(stream, call, messages[0])
        elif stream.is_heard:
            self._end_call(stream, call, cut_short(call.method) if reader.waiting_bytes else _NO_MESSAGE)

    def _take_message(self, stream: Stream, call: CommandCall, message: bytes) -> None:
        call.counts.received += 1
        try:
            request = call.method.request.FromString(message)
        except DecodeError as error:
            self._end_call(stream, call, unreadable(error))
            return
        call.is_submitted = True
        if call.caller is not None:
            self._desk.submit(stream.id, call.method, request, call.caller, call.timeout_ms)
            return
        call.request, call.held_bytes = request, len(message)
        if not self._hoard.add(call.held_bytes):
            self._end_call(stream, call, _TOO_MANY)

    def _reader(self, is_gzip: bool) -> MessageReader:
        return MessageReader(self._message_bytes_max, may_inflate=self._may_inflate if is_gzip else None)

    def _may_inflate(self, size_bytes: int) -> bool:
        return self._inflation.take(self.connection.now_ms, size_bytes)

    def _read(
        self, stream: Stream, call: CommandCall | ProcedureCall, reader: MessageReader, data: bytes
    ) -> list[bytes] | None:
        """The messages that are whole now; None when the call has ended with a refusal."""
        before_bytes = reader.waiting_bytes
        try:
            messages = reader.feed(data)
        except MessageError as error:
            self._hoard.add(reader.waiting_bytes - before_bytes)
            self._end_call(stream, call, Status(*error.failure))
            return None
        more_bytes = reader.waiting_bytes - before_bytes
        if more_bytes and not self._hoard.add(more_bytes):
            self._end_call(stream, call, _TOO_MANY)
            return None
        return messages

    def _end_call(self, stream: Stream, call: CommandCall | ProcedureCall | Stranger, status: Status) -> None:
        self._forget_partial(call)
        if isinstance(call, ProcedureCall):
            call.break_off(status)
        else:
            self.refuse(stream, call.counts.handled, status)

    def refuse(self, stream: Stream, handled: list[int], status: Status) -> None:
        """The call ends, and had no answer but this."""
        stream.context = None
        handled[status.number] += 1
        self.connection.end(stream, trailers_only(Failure(*status)))

    def on_reset(self, stream: Stream) -> None:
        call = stream.context
        stream.context = None
        if call is None:
            return
        self._forget_partial(call)
        if isinstance(call, ProcedureCall):
            call.on_gone()
            return
        call.counts.handled[CANCELED] += 1
        self._desk.forget(stream.id)

    def on_room(self, stream: Stream) -> None:
        call = stream.context
        if isinstance(call, ProcedureCall):
            call.on_room()

    def _forget_partial(self, call: CommandCall | ProcedureCall | Stranger) -> None:
        """Nothing of it has to wait any more."""
        self._hoard.add(-call.waiting_bytes)
        if type(call) is Stranger:
            call.data.clear()
            return
        assert isinstance(call, CommandCall | ProcedureCall), "there are three kinds of calls"
        if call.reader is not None:
            call.reader.clear()
        if type(call) is CommandCall:
            call.held_bytes = 0
