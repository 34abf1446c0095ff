"""The calls of one gRPC connection, each the context of its HTTP/2 stream: commands on their way to the desk, and opened procedures."""

import asyncio
import logging
from typing import Any, Callable, Final, NamedTuple, Protocol

from google.protobuf.message import DecodeError

from raftkv.daemon.etcd.calls import Procedure, Receiver, Refused, Reply
from raftkv.daemon.etcd.counting import MethodCounts
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.identity import Caller
from raftkv.errors import RaftKVError
from raftkv.etcd.methods import Method
from raftkv.etcd.statuses import INTERNAL, UNKNOWN, Status, status_of
from raftkv.http2.connection import Connection
from raftkv.http2.grpc import (
    OK_TRAILERS,
    RESPONSE_HEADERS,
    Failure,
    MessageReader,
    RequestHead,
    failure_trailers,
    prefixed,
    trailers_only,
)
from raftkv.http2.patience import Allowance
from raftkv.http2.streams import Stream
from raftkv.units import Milliseconds

logger = logging.getLogger(__name__)

CANCELED: Final = 1
DEADLINE_EXCEEDED: Final = 4
DEADLINE_TEXT: Final = "context deadline exceeded"


class Opening:
    """What a header block asks for; remembered with it, so it is the same object for all requests of a kind."""

    __slots__ = ("client_version", "counts", "failure", "head", "is_stream", "procedure", "wants_leader")

    def __init__(
        self,
        head: RequestHead,
        procedure: Method | Procedure | None,
        counts: MethodCounts | None,
        failure: Failure | None,
    ) -> None:
        self.head = head
        self.procedure = procedure
        self.counts = counts
        self.failure = failure
        self.is_stream = procedure is not None and is_stream(procedure)
        self.client_version = head.metadata.get("client-api-version")
        self.wants_leader = head.metadata.get("hasleader") == "true"


class Hoard:
    """Bytes that wait here for the rest of their message, or for their caller: of one connection, and behind it of all."""

    __slots__ = ("_all", "_bytes_max", "bytes")

    def __init__(self, bytes_max: int, all_connections: "Hoard | None" = None) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._all = all_connections

    def add(self, size_bytes: int) -> bool:
        """More, or less; False when it has become too much."""
        self.bytes += size_bytes
        assert self.bytes >= 0, "what is taken out was put in"
        fits = self.bytes <= self._bytes_max or size_bytes <= 0
        return (self._all is None or self._all.add(size_bytes)) and fits


class Shared(NamedTuple):
    """What all connections of a member draw on together."""

    hoard: Hoard
    inflation: Allowance  # bytes that come out of compressed messages: 2 KB can cost 5 ms


class Line(Protocol):
    """The connection, as its calls see it."""

    connection: Connection[Opening]
    is_receiving: bool  # what is written now leaves at the end of this read of the socket

    @property
    def house(self) -> House: ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def takes_answers(self) -> bool: ...

    def schedule_flush(self) -> None:
        """Something was written outside of a read of the socket."""
        ...


class Stranger:
    """A procedure that is not opened yet: it is not known who asks for it."""

    __slots__ = ("counts", "data", "opening")

    def __init__(self, opening: Opening, counts: MethodCounts) -> None:
        self.opening = opening
        self.counts = counts
        self.data = bytearray()  # what has come meanwhile

    @property
    def waiting_bytes(self) -> int:
        return len(self.data)


class CommandCall:
    """A call that is one command, until its message is whole and its caller known."""

    __slots__ = (
        "caller",
        "counts",
        "held_bytes",
        "is_gzip",
        "is_submitted",
        "method",
        "reader",
        "request",
        "timeout_ms",
    )

    def __init__(self, method: Method, counts: MethodCounts, head: RequestHead) -> None:
        self.method = method
        self.counts = counts
        self.timeout_ms: Milliseconds = head.timeout_ms
        self.is_gzip = head.is_gzip
        self.caller: Caller | None = None  # not known yet
        self.reader: MessageReader | None = None  # of a message that does not come in one piece
        self.request: Any = None  # waits for its caller
        self.held_bytes = 0
        self.is_submitted = False

    @property
    def waiting_bytes(self) -> int:
        return self.held_bytes + (self.reader.waiting_bytes if self.reader is not None else 0)


class ProcedureCall:
    """An opened procedure: a Call of daemon/etcd/calls.py."""

    def __init__(self, line: Line, stream: Stream, opening: Opening, caller: Caller, reader: MessageReader) -> None:
        procedure, counts = opening.procedure, opening.counts
        assert isinstance(procedure, Procedure), "commands are not opened"
        assert counts is not None, "what is served is counted"
        self.metadata: Final = opening.head.metadata
        self.caller: Final = caller
        self.timeout_ms: Final = opening.head.timeout_ms
        self.counts = counts
        self.reader: Final = reader
        self._procedure = procedure
        self._line = line
        self._stream = stream
        self._receiver: Receiver | None = None
        self._has_headers = False
        self._is_over = False
        self._deadline: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin; from here on the receiver hears of everything."""
        if self.timeout_ms:
            self._deadline = self._line.loop.call_later(self.timeout_ms / 1000, self._on_deadline)
        self._guard(lambda: self._begin())

    def _begin(self) -> None:
        self._receiver = self._procedure.open(self._line.house, self)

    @property
    def waiting_bytes(self) -> int:
        return self.reader.waiting_bytes

    # What comes from the client.

    def on_messages(self, messages: list[bytes]) -> None:
        for data in messages:
            receiver = self._receiver
            if self._is_over or receiver is None:
                return
            self.counts.received += 1
            try:
                message = self._procedure.request.FromString(data)
            except DecodeError as error:
                self.break_off(unreadable(error, is_stream=is_stream(self._procedure)))
                return
            self._guard(lambda receiver=receiver, message=message: receiver.on_message(message))  # type: ignore[misc]

    def on_half_close(self) -> None:
        if self.reader.waiting_bytes:
            self.break_off(cut_short(self._procedure))
        elif self._receiver is not None and not self._is_over:
            self._guard(self._receiver.on_half_close)

    def on_room(self) -> None:
        if self._receiver is not None and not self._is_over and self.takes_messages:
            self._guard(self._receiver.on_room)

    def on_gone(self, number: int = CANCELED) -> None:
        """The client is not there any more, or not for this call."""
        if not self._is_over:
            self._is_over = True
            self.counts.handled[number] += 1
            self._let_go()

    def _on_deadline(self) -> None:
        if not self._is_over:
            self.break_off(Status(DEADLINE_EXCEEDED, DEADLINE_TEXT))

    def _guard(self, step: Callable[[], None]) -> None:
        """What the receiver raises ends the call."""
        try:
            step()
        except Refused as refused:
            self.break_off(refused.status)
        except RaftKVError as error:
            self.break_off(status_of(error))
        except Exception:
            logger.exception("a procedure of the etcd API broke")
            self.break_off(Status(INTERNAL, "this is a bug in raftkv; the log has the details"))

    def break_off(self, status: Status) -> None:
        """End it without the receiver, which is told that nobody listens any more."""
        self.end(status)
        self._let_go()

    def _let_go(self) -> None:
        self._stop_clock()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_gone()

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # Call.

    @property
    def takes_messages(self) -> bool:
        line = self._line
        return self._stream.queued_bytes <= line.house.limits.watch_buffer_bytes_max and line.takes_answers

    def reply(self, message: Reply) -> None:
        if self._is_over:
            return
        data = message if isinstance(message, bytes) else message.SerializeToString()
        connection = self._line.connection
        if not self._has_headers:
            self._has_headers = True
            connection.send_headers(self._stream, RESPONSE_HEADERS)
        connection.send_data(self._stream, prefixed(data))
        self.counts.sent += 1
        self._line.schedule_flush()

    def end(self, status: Status | None = None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._stop_clock()
        self.counts.handled[0 if status is None else status.number] += 1
        if status is None:
            block = OK_TRAILERS if self._has_headers else RESPONSE_HEADERS + OK_TRAILERS
        else:
            failure = Failure(*status)
            block = failure_trailers(failure) if self._has_headers else trailers_only(failure)
        self._line.connection.end(self._stream, block)
        self._line.schedule_flush()


def unreadable(error: Any, *, is_stream: bool = False) -> Status:
    """A message that is none of its kind, in the words of etcd's gRPC."""
    what = "failed to unmarshal the received message" if is_stream else "error unmarshalling request:"
    return Status(INTERNAL, f"grpc: {what} {error}")


def cut_short(procedure: Method | Procedure) -> Status:
    """A body that ends within a message; Go's gRPC has no number for it where it expects one message."""
    return Status(INTERNAL if is_stream(procedure) else UNKNOWN, "unexpected EOF")


def is_stream(procedure: Method | Procedure) -> bool:
    """Whether either side may send any number of messages."""
    return isinstance(procedure, Procedure) and (procedure.client_streaming or procedure.server_streaming)
