"""One multiplexed, pipelined connection on asyncio, and the calls that wait on it. The hot path of the async client.

All requests of one loop turn leave in one write, with one acknowledgement in front; answers are matched by id in a dict; a call is a slotted
object and a future, without a task or a timer of its own. A call whose caller gave up stays in the table until its answer comes or
its attempt ends, so that its sequence is settled at the right time and nobody else is disturbed. Where calls go next
is not decided here: that is the owner's (links.py, dispatch.py).
"""

import asyncio
from typing import Callable, Protocol, cast

from raftkv.client import verdict
from raftkv.client.retry import Retry
from raftkv.client.session import Session
from raftkv.client.wireconn import TIMEOUT_MS_MAX, WireConnection, oversize
from raftkv.errors import RaftKVError
from raftkv.wire.commands import OK, Answer, Command


class Call:
    """One request of a caller, over all its attempts."""

    __slots__ = (
        "attempt_deadline",
        "command",
        "deadline",
        "future",
        "kind",
        "retry",
        "sent_at",
        "sequence",
        "session",
        "started_at",
    )

    def __init__(
        self,
        command: Command,
        kind: int,
        future: asyncio.Future[Answer],
        now: float,
        deadline: float,
        attempt_deadline: float,
    ) -> None:
        self.command = command
        self.kind = kind
        self.future = future
        self.started_at = now
        self.sent_at = now
        self.deadline = deadline
        self.attempt_deadline = attempt_deadline
        self.retry: Retry | None = None  # made when the first attempt goes wrong, which is rare
        self.session: Session | None = None
        self.sequence = 0

    def settle(self) -> None:
        """It will never be sent again."""
        if self.sequence and self.session is not None:
            self.session.settle(self.sequence)
            self.sequence = 0

    def fail(self, error: BaseException) -> None:
        """Its end, unless its caller is gone."""
        self.settle()
        if not self.future.done():
            self.future.set_exception(error)


class ConnectionOwner(Protocol):
    """Whoever opened the connection."""

    def on_answers(self, connection: "Connection", failed: list[tuple[Call, Answer]] | None) -> None:
        """Answers came; those that are failures are not finished yet."""
        ...

    def on_room(self, connection: "Connection") -> None:
        """`usable` may have changed."""
        ...

    def on_closed(self, connection: "Connection", calls: list[Call], error: RaftKVError) -> None:
        """It is gone, with these calls on it."""
        ...


class Connection(asyncio.Protocol):
    """A connection to one member, from the socket on."""

    def __init__(self, owner: ConnectionOwner, wire: WireConnection, greeting_timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.wire = wire
        self.waiters: dict[int, Call] = {}
        """By request id, in the order in which they were sent."""
        self.heard_at = loop.time()
        self.usable = False
        """It takes calls: greeted, not draining, not choked, not under suspicion."""
        self.draining = False
        self.timers: list[asyncio.TimerHandle] = []
        """The owner's; they end with the connection."""
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.on_login: Callable[[], None] = lambda: None
        """Called when the login has been sent, which is answered slowly."""
        self._owner = owner
        self._greeting_timeout_s = greeting_timeout_s
        self._time = loop.time
        self._call_soon = loop.call_soon
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._flushing = False
        self._paused = False
        self._suspect = False

    # Calls out.

    def send(self, call: Call, now: float) -> None:
        """Put the call on the wire with the others of this loop turn. A request that cannot be encoded fails its call."""
        wire = self.wire
        command = call.command
        retry = call.retry
        if retry is not None and retry.current is not None and retry.current.forward:
            command = wire.forward(command, call.session)
        request_id = wire.last_id + 1
        remaining_s = call.deadline - now
        try:  # WireConnection.request without its calls: a fifth of what a put costs here
            frame = wire.pack(
                (request_id, int(remaining_s * 1000) + 1 if remaining_s < 1e6 else TIMEOUT_MS_MAX, command)
            )
        except Exception as error:  # nothing that msgpack knows: the caller's fault, not the connection's
            call.fail(error)
            return
        if len(frame) > wire.request_bytes_max:
            assert wire.handshake is not None, "only greeted connections take calls"
            call.fail(oversize(command, len(frame), wire.handshake))
            return
        wire.last_id = request_id
        call.sent_at = now
        self.waiters[request_id] = call
        self._out.append(frame)
        if not self._flushing:
            self._flushing = True
            self._call_soon(self._flush)

    def probe(self) -> None:
        """Ask for a sign of life."""
        self._write(self.wire.ping(self._greeting_timeout_s))

    def probe_if_silent(self, since: float) -> None:
        """Ask for a sign of life, when the last one and the oldest request are from before; something is waited for."""
        if max(self.heard_at, next(iter(self.waiters.values())).sent_at) <= since:
            self.probe()

    def suspect(self) -> None:
        """Long idle: it takes no calls until it has answered something."""
        self._suspect = True
        self._update_usable()
        self.probe()

    def drain(self) -> None:
        """Take no more calls, and close after the last answer."""
        self.draining = True
        self._update_usable()
        if not self.waiters:
            self.close()

    def close(self) -> None:
        """Hang up at once: calls that are still on it are lost, and a member that does not read cannot hold us."""
        if self._transport is not None:
            self._transport.abort()
        elif not self.closed.done():
            self.closed.set_result(None)  # it never was open

    def _flush(self) -> None:
        self._flushing = False
        out = self._out
        self._out = []
        notice = self.wire.notice()
        self._write(notice + b"".join(out) if notice else b"".join(out) if len(out) > 1 else out[0])

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._transport = stream
        stream.write(self.wire.greeting(self._greeting_timeout_s))

    def data_received(self, data: bytes) -> None:
        wire = self.wire
        self.heard_at = self._time()
        if self.usable:
            messages = wire.decode(data)
        else:
            messages = wire.receive(data)
            reply = wire.take_reply()
            if reply:
                self._write(reply)
                self.on_login()
            self._on_signs(wire)
        failed: list[tuple[Call, Answer]] | None = None
        waiters = self.waiters
        for message in messages:
            try:
                request_id, answer = message
                call = waiters.pop(request_id, None)
                status = answer[0]
            except (TypeError, ValueError, LookupError):
                wire.refuse(message)
                break
            if call is None:
                if request_id == 0:
                    wire.refuse(message)
                    break
                continue  # a sign of life, or the late answer of a call that went elsewhere
            if status == OK:
                session = call.session
                if session is not None:
                    session.registered = True
                    session.settle(call.sequence)
                future = call.future
                if not future.done():
                    future.set_result(answer)
            elif failed is None:
                failed = [(call, answer)]
            else:
                failed.append((call, answer))
        self._owner.on_answers(self, failed)
        if wire.broken is not None or (self.draining and not waiters):
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        error = self.wire.broken
        if error is None and self.wire.handshake is not None:
            error = verdict.lost(exc)
        elif error is None:
            stream = self._transport
            is_encrypted = stream is not None and stream.get_extra_info("sslcontext") is not None
            error = verdict.not_greeted(exc, is_encrypted)
        self._transport = None
        self.usable = False
        self.draining = True
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()
        calls = list(self.waiters.values())
        self.waiters.clear()
        if not self.greeted.done():
            self.greeted.set_exception(error)
            self.greeted.exception()  # taken: whoever waited may have given up
        if not self.closed.done():
            self.closed.set_result(None)
        self._owner.on_closed(self, calls, error)

    def pause_writing(self) -> None:
        self._paused = True
        self._update_usable()

    def resume_writing(self) -> None:
        self._paused = False
        self._update_usable()
        self._owner.on_room(self)

    def _on_signs(self, wire: WireConnection) -> None:
        if not self.greeted.done():
            if wire.broken is not None:
                self.greeted.set_exception(wire.broken)
                self.greeted.exception()
            elif wire.handshake is not None:
                self.greeted.set_result(None)
        was_suspect, self._suspect = self._suspect, False
        self._update_usable()
        if was_suspect:
            self._owner.on_room(self)

    def _update_usable(self) -> None:
        self.usable = (
            self.wire.handshake is not None
            and self.wire.broken is None
            and not (self.draining or self._paused or self._suspect)
        )
