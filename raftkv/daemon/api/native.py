"""The native front door: msgpack frames on the client port (wire/protocol.py). The hot path of the daemon.

Everything that one read of the socket brings becomes one write group and one read group; everything that one entry or one
round answers goes out in one write. A connection is read no further while too much of it is in flight.
"""

import asyncio
from functools import partial
from typing import Any, Callable, Sequence, cast

import msgpack

from raftkv.daemon.api.controls import HANDLERS, MemberControl, receive_control
from raftkv.daemon.api.questions import Questions, check_question
from raftkv.daemon.api.watching import WATCHING, WatchDoor
from raftkv.errors import ClusterMismatch, InvalidRequest, ProtocolError, RaftKVError, Unsupported
from raftkv.limits import Limits
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.lease_desk import QUESTIONS
from raftkv.replica.service import Service
from raftkv.transport.direct import socket_of, write_at_once
from raftkv.transport.tls import names_of
from raftkv.wire.commands import (
    CLIENT_WRITES,
    OK,
    READS,
    SERIALIZABLE,
    Answer,
    Command,
    command_bytes,
    failure,
)
from raftkv.wire.identity import ANYBODY, Caller
from raftkv.wire.protocol import (
    ACK,
    AUTHENTICATE,
    FORWARD,
    HELLO,
    PREFACE,
    PROTOCOL_VERSION,
    check_request,
    check_session,
    new_packer,
    new_unpacker,
)
from raftkv.wire.users import AUTH_ENABLE
from raftkv.wire.validate import is_plain_put, plain_value_bytes_max, validate

GREETING_SECONDS_MAX = 5.0  # a connection that says nothing costs a file descriptor
GROUP_COMMANDS_MAX = 2048  # per entry at most so many are applied in one go: about 10 ms of the loop


class NativeConnection(asyncio.Protocol):
    """One client connection, from after its preface was recognised."""

    def __init__(self, service: Service, member: MemberControl, limits: Limits) -> None:
        self._service = service
        self._member = member
        self._limits = limits
        self._key_bytes_max = limits.key_bytes_max
        self._plain_value_bytes_max = plain_value_bytes_max(limits)
        self._unpacker = new_unpacker(limits)
        self._pack = new_packer().pack
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        self._preface_left = len(PREFACE)
        self._greeted = False
        self._greeting_deadline: asyncio.TimerHandle | None = None
        self._session: bytes | None = None
        self._ack_below = 0
        self._caller = ANYBODY
        self._register = self._is_logging_in = False
        self._in_flight = self._in_flight_bytes = 0
        self._reading_paused = False
        self.takes_answers = True  # False while the client does not take what it was sent
        # What the current read of the socket has brought so far.
        self._write_tags: list[int] = []
        self._writes: list[Command] = []
        self._write_bytes = self._write_timeout_ms = 0
        self._read_tags: list[int] = []
        self._reads: list[Command] = []
        self._stale_tags: list[int] = []
        self._stale: list[Command] = []
        self._read_timeout_ms = 0
        self._questions = Questions()
        self._watches: WatchDoor | None = None  # opened by its first request

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._transport = stream
        self._descriptor = socket_of(stream)
        if certificate_name := names_of(stream)[0]:
            self._caller = self._member.authenticator.caller_of_certificate(certificate_name)
        stream.set_write_buffer_limits(high=self._limits.connection_write_buffer_bytes_max)
        self._greeting_deadline = asyncio.get_running_loop().call_later(GREETING_SECONDS_MAX, self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._watches is not None:
            self._watches.close()
        self.takes_answers = True  # nobody: what is still made for it goes nowhere
        self._stop_waiting_for_greeting()

    def data_received(self, data: bytes) -> None:
        if self._preface_left:
            skipped = min(self._preface_left, len(data))
            self._preface_left -= skipped
            data = data[skipped:]
        try:
            self._unpacker.feed(data)
            for message in self._unpacker:
                self._receive(message)
        except ProtocolError as error:
            self._refuse_connection(error)
            return
        except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError, OverflowError) as error:
            # Broken frames (TypeError: a list as the key of a map), and BufferFull for one larger than any request may be.
            self._refuse_connection(ProtocolError(f"not a frame of this protocol: {error or type(error).__name__}"))
            return
        self._submit()

    def pause_writing(self) -> None:
        # The client does not take its answers: it gets no further questions in.
        self.takes_answers = False
        self._update_reading()

    def resume_writing(self) -> None:
        self.takes_answers = True
        self._update_reading()
        self._member.schedule_pump()

    # One message.

    def _receive(self, message: Any) -> None:
        request_id, timeout_ms, command = check_request(message)
        operation = command[0]
        if not self._greeted:
            if operation != HELLO:
                raise ProtocolError("the first request of a connection is HELLO")
            self._greet(request_id, command)
        elif operation in CLIENT_WRITES:
            self._receive_write(request_id, timeout_ms, command)
        elif operation in READS:
            self._receive_read(request_id, timeout_ms, command)
        else:
            self._receive_control(request_id, timeout_ms, command)

    def _receive_write(self, request_id: int, timeout_ms: int, command: Command) -> None:
        if not is_plain_put(command, self._key_bytes_max, self._plain_value_bytes_max):
            try:
                validate(command, self._limits)
                if command[0] == AUTH_ENABLE:
                    self._member.authenticator.check_peers()
            except RaftKVError as error:
                self._answer_now(request_id, failure(error))
                return
        size_bytes = command_bytes(command)
        if (
            self._write_bytes + size_bytes > self._limits.entry_bytes_max or len(self._writes) >= GROUP_COMMANDS_MAX
        ) and self._writes:
            self._submit_writes()
        self._write_tags.append(request_id)
        self._writes.append(command)
        self._write_bytes += size_bytes
        if timeout_ms > self._write_timeout_ms:
            self._write_timeout_ms = timeout_ms

    def _receive_read(self, request_id: int, timeout_ms: int, command: Command) -> None:
        try:
            validate(command, self._limits)
        except RaftKVError as error:
            self._answer_now(request_id, failure(error))
            return
        if command[1] & SERIALIZABLE:
            self._stale_tags.append(request_id)
            self._stale.append(command)
        else:
            self._read_tags.append(request_id)
            self._reads.append(command)
        if timeout_ms > self._read_timeout_ms:
            self._read_timeout_ms = timeout_ms

    def _receive_control(self, request_id: int, timeout_ms: int, command: Command) -> None:
        operation = command[0]
        if operation == ACK:
            self._receive_ack(command)
        elif operation in HANDLERS:
            done: Callable[[Answer], None] = partial(self._answer_now, request_id)
            receive_control(self._member, self._service, command, timeout_ms, done, self._caller)
        elif operation == AUTHENTICATE:
            self._receive_login(request_id, command)
        elif operation == FORWARD:
            self._receive_forward(request_id, timeout_ms, command)
        elif operation in QUESTIONS:
            self._receive_question(request_id, timeout_ms, command)
        elif operation in WATCHING and self._transport is not None:
            self._watches = self._watches or WatchDoor(self._service, self._transport, self._answer_now, self._limits)
            self._watches.caller = self._caller
            self._watches.receive(request_id, timeout_ms, command)
        else:
            self._answer_now(request_id, failure(Unsupported(f"operation {operation} is not known here")))

    def _receive_question(self, request_id: int, timeout_ms: int, command: Command) -> None:
        try:
            check_question(command, self._limits)
        except RaftKVError as error:
            self._answer_now(request_id, failure(error))
        else:
            self._questions.add(request_id, timeout_ms, command)

    def _receive_login(self, request_id: int, command: Command) -> None:
        if len(command) != 3 or type(command[1]) is not str or type(command[2]) is not str:
            raise ProtocolError("AUTHENTICATE takes a name and a password")
        if self._is_logging_in:
            raise ProtocolError("one login at a time")
        self._is_logging_in = True

        def done(found: Caller | RaftKVError) -> None:
            self._register = self._is_logging_in = False
            if isinstance(found, RaftKVError):
                self._answer_now(request_id, failure(found))
                return
            self._submit()  # what came before goes under the old name
            self._caller = found
            self._answer_now(request_id, [OK, found.auth_revision])

        self._member.authenticator.begin_login(command[1], command[2], done)

    def _receive_ack(self, command: Command) -> None:
        if len(command) != 3 or type(command[1]) is not int or type(command[2]) is not bool:
            raise ProtocolError("ACK takes a sequence and the register flag")
        if self._writes:
            self._submit_writes()  # what came before the notice goes under the old one
        self._ack_below = command[1]
        self._register = command[2]

    def _receive_forward(self, request_id: int, timeout_ms: int, command: Command) -> None:
        if len(command) != 5 or type(command[3]) is not int or type(command[4]) is not list or not command[4]:
            raise ProtocolError("FORWARD takes session, register, ack_below and a command")
        _, session, register, ack_below, inner = command
        check_session(session)
        try:
            if inner[0] in QUESTIONS:
                check_question(inner, self._limits)
            else:
                validate(inner, self._limits)
                if inner[0] not in CLIENT_WRITES:
                    raise InvalidRequest("only writes are forwarded: any member answers reads")
                if inner[0] == AUTH_ENABLE:
                    self._member.authenticator.check_peers()
        except RaftKVError as error:
            self._answer_now(request_id, failure(error))
            return
        size_bytes = 0 if inner[0] in QUESTIONS else command_bytes(inner)
        self._in_flight += 1
        self._in_flight_bytes += size_bytes
        group = WriteGroup(
            self,
            [request_id],
            [inner],
            size_bytes=size_bytes,
            deadline_ms=self._service.deadline(timeout_ms),
            session=session,
            register=bool(register),
            ack_below=ack_below,
            user=self._caller.user,
            auth_revision=self._caller.auth_revision,
        )
        self._service.forward(group)
        self._member.schedule_pump()

    def _greet(self, request_id: int, command: Command) -> None:
        if len(command) != 2 or type(command[1]) is not dict:
            raise ProtocolError("HELLO takes a mapping of options")
        options = command[1]
        if options.get("protocol") != PROTOCOL_VERSION:
            raise ProtocolError(f"this member speaks protocol {PROTOCOL_VERSION}, not {options.get('protocol')!r}")
        wanted = options.get("cluster_name")
        if wanted is not None and wanted != self._member.cluster_name:
            error = ClusterMismatch(
                f"the client wants cluster {wanted!r}, this is {self._member.cluster_name!r}",
                details={"wanted": str(wanted), "actual": self._member.cluster_name},
            )
            self._answer_now(request_id, failure(error))
            self._close()
            return
        check_session(options.get("session"))
        self._session = options.get("session")
        self._greeted = True
        self._stop_waiting_for_greeting()
        self._answer_now(request_id, [OK, self._member.hello()])

    def _stop_waiting_for_greeting(self) -> None:
        if self._greeting_deadline is not None:
            self._greeting_deadline.cancel()
            self._greeting_deadline = None

    # Groups out, answers in.

    def _submit(self) -> None:
        if self._writes:
            self._submit_writes()
        if self._reads:
            tags, self._read_tags = self._read_tags, []
            commands, self._reads = self._reads, []
            self._in_flight += len(tags)
            deadline_ms = self._service.deadline(self._read_timeout_ms)
            self._service.submit_reads(self._read_group(tags, commands, deadline_ms))
        if self._stale:
            tags, self._stale_tags = self._stale_tags, []
            commands, self._stale = self._stale, []
            self._in_flight += len(tags)
            self._service.read_now(self._read_group(tags, commands, 0))
        self._read_timeout_ms = 0
        if self._questions:
            self._in_flight += len(self._questions)
            deadline_ms = self._service.deadline(self._questions.timeout_ms)
            self._service.ask_leader(self._questions.take(self, deadline_ms, self._caller))
        self._member.schedule_pump()
        self._update_reading()

    def _read_group(self, tags: list[int], commands: list[Command], deadline_ms: int) -> ReadGroup:
        user, auth_revision = self._caller
        return ReadGroup(self, tags, commands, deadline_ms=deadline_ms, user=user, auth_revision=auth_revision)

    def _submit_writes(self) -> None:
        tags, self._write_tags = self._write_tags, []
        commands, self._writes = self._writes, []
        size_bytes, self._write_bytes = self._write_bytes, 0
        timeout_ms, self._write_timeout_ms = self._write_timeout_ms, 0
        self._in_flight += len(tags)
        self._in_flight_bytes += size_bytes
        group = WriteGroup(
            self,
            tags,
            commands,
            size_bytes=size_bytes,
            deadline_ms=self._service.deadline(timeout_ms),
            session=self._session,
            register=self._register,
            ack_below=self._ack_below,
            user=self._caller.user,
            auth_revision=self._caller.auth_revision,
        )
        self._service.submit_writes(group)

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        """One write to the socket for the whole group."""
        self._settle(group)
        if self._transport is not None:
            pack = self._pack
            data = b"".join([pack(pair) for pair in zip(group.tags, answers, strict=True)])
            write_at_once(self._transport, self._descriptor, data)

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        """The same answer for the whole group."""
        self._settle(group)
        if self._transport is not None:
            answer = failure(error)
            self._transport.write(b"".join([self._pack((tag, answer)) for tag in group.tags]))

    def _settle(self, group: WriteGroup | ReadGroup) -> None:
        self._in_flight -= len(group.tags)
        if isinstance(group, WriteGroup):
            self._in_flight_bytes -= group.size_bytes
        assert self._in_flight >= 0 and self._in_flight_bytes >= 0, "every group ends once"
        if self._reading_paused:
            self._update_reading()

    def _answer_now(self, request_id: int, answer: Answer) -> None:
        if self._transport is not None:
            self._transport.write(self._pack((request_id, answer)))

    def _update_reading(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        limits = self._limits
        full = (
            not self.takes_answers
            or self._in_flight > limits.connection_in_flight_requests_max
            or self._in_flight_bytes > limits.connection_in_flight_bytes_max
        )
        if full and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        elif self._reading_paused and not full:
            self._reading_paused = False
            self._transport.resume_reading()

    def _refuse_connection(self, error: RaftKVError) -> None:
        # What came in good order before the broken frame is still served; its answers may find the line closed.
        self._submit()
        self._answer_now(0, failure(error))
        self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
