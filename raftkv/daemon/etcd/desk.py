"""Calls that are one command (raftkv/etcd/methods.py), gathered: what one read of the socket brings is one group of each kind.

A connection of a door has one Desk. Writes, and questions to the leader about leases, are forwarded by a member that does not lead, for a
client of etcd cannot be redirected; reads are answered here, on every member. A long range is read in pages, and
encoded a piece per turn of the loop.
"""

import asyncio
from functools import partial
from typing import Any, Protocol, Sequence

from raftkv.daemon.etcd.calls import Reply
from raftkv.daemon.etcd.house import House, check
from raftkv.daemon.etcd.identity import ANYBODY, Caller
from raftkv.errors import RaftKVError
from raftkv.etcd.encoding import Headers
from raftkv.etcd.long_ranges import KEYS_PER_TURN, EncodePart, LongRange, protobuf_part
from raftkv.etcd.methods import Method
from raftkv.etcd.paging import next_page
from raftkv.etcd.statuses import Status, status_of
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.lease_desk import QUESTIONS
from raftkv.units import Milliseconds
from raftkv.wire.commands import FAILED, GET, RANGE, READS, SERIALIZABLE, Answer, Command, command_bytes, error_of
from raftkv.wire.validate import is_plain_put, plain_value_bytes_max

GROUP_COMMANDS_MAX = 2048  # as in the native door: per entry at most so many are applied in one go


class Responses(Protocol):
    """A connection that takes what its desk answers. `tag` is its own name of a call."""

    @property
    def takes_answers(self) -> bool:
        """False while answers would only pile up."""
        ...

    def on_response(self, tag: int, response: Reply) -> None:
        """A message; or its bytes, if the desk may answer in them and has a quick way to."""
        ...

    def on_long_range(self, tag: int, long_range: LongRange) -> None:
        """The response to a range whose key-values are encoded already, by the desk's `encode_part`."""
        ...

    def on_failure(self, tag: int, status: Status) -> None: ...

    def on_batch_end(self) -> None:
        """All that was known at once has been told: what gathered may leave in one write."""
        ...


class _Pending:
    """A call that waits for its answer."""

    __slots__ = ("caller", "deadline_ms", "long_range", "method", "request")

    def __init__(self, method: Method, request: Any, deadline_ms: Milliseconds, caller: Caller) -> None:
        self.method = method
        self.request = request
        self.deadline_ms = deadline_ms
        self.caller = caller
        self.long_range: LongRange | None = None  # what it has brought so far


class _Gathering:
    """Commands of one kind that wait for `flush`."""

    __slots__ = ("commands", "size_bytes", "tags", "timeout_ms")

    def __init__(self) -> None:
        self.tags: list[int] = []
        self.commands: list[Command] = []
        self.size_bytes = 0
        self.timeout_ms: Milliseconds = 0

    def add(self, tag: int, command: Command, timeout_ms: Milliseconds) -> None:
        self.tags.append(tag)
        self.commands.append(command)
        if timeout_ms > self.timeout_ms:
            self.timeout_ms = timeout_ms


class Desk:
    """The commands of one connection, on their way in and back. An Origin of replica/groups.py."""

    def __init__(
        self,
        house: House,
        responses: Responses,
        *,
        in_bytes: bool = False,
        encode_part: EncodePart = protobuf_part,
    ) -> None:
        """`in_bytes`: whether responses may come as the bytes of their message."""
        self._house = house
        self._in_bytes = in_bytes
        self._encode_part = encode_part
        self._headers: Headers | None = None
        self._key_bytes_max = house.limits.key_bytes_max
        self._plain_value_bytes_max = plain_value_bytes_max(house.limits)
        self._service = house.service
        self._limits = house.limits
        self._responses: Responses | None = responses
        self._pending: dict[int, _Pending] = {}
        self._caller = ANYBODY
        self._writes = _Gathering()
        self._questions = _Gathering()
        self._reads = _Gathering()
        self._stale = _Gathering()
        self.in_flight_bytes = 0  # of writes

    @property
    def in_flight(self) -> int:
        """Calls that were handed in and not answered yet."""
        return len(self._pending)

    @property
    def takes_answers(self) -> bool:
        return self._responses is None or self._responses.takes_answers

    def submit(
        self, tag: int, method: Method, request: Any, caller: Caller = ANYBODY, timeout_ms: Milliseconds = 0
    ) -> None:
        """One call, to be carried out at the next `flush`; refused at once if it can never be done. `timeout_ms` 0: no bound of its own."""
        command = method.command(request)
        operation = command[0]
        if not (operation == GET and 0 < len(command[2]) <= self._key_bytes_max) and not is_plain_put(
            command, self._key_bytes_max, self._plain_value_bytes_max
        ):
            try:
                check(command, self._limits)
            except RaftKVError as error:
                self._fail(tag, status_of(error))
                return
        if caller != self._caller:
            self.flush()
            self._caller = caller
        timeout_ms = self._house.timeout_ms(timeout_ms)
        self._pending[tag] = _Pending(method, request, self._service.deadline(timeout_ms), caller)
        if operation in READS:
            (self._stale if command[1] & SERIALIZABLE else self._reads).add(tag, command, timeout_ms)
        elif operation in QUESTIONS:
            self._questions.add(tag, command, timeout_ms)
        else:
            self._add_write(tag, command, timeout_ms)

    def _add_write(self, tag: int, command: Command, timeout_ms: Milliseconds) -> None:
        size_bytes = command_bytes(command)
        gathered = self._writes
        if gathered.tags and (
            gathered.size_bytes + size_bytes > self._limits.entry_bytes_max or len(gathered.tags) >= GROUP_COMMANDS_MAX
        ):
            self._writes = _Gathering()
            self._forward(gathered)
            gathered = self._writes
        gathered.add(tag, command, timeout_ms)
        gathered.size_bytes += size_bytes

    def flush(self) -> None:
        """Hand over what has gathered. The door schedules the pump."""
        if self._writes.tags:
            writes, self._writes = self._writes, _Gathering()
            self._forward(writes)
        if self._questions.tags:
            questions, self._questions = self._questions, _Gathering()
            self._forward(questions)
        if self._reads.tags:
            reads, self._reads = self._reads, _Gathering()
            self._service.submit_reads(self._read_group(reads))
        if self._stale.tags:
            stale, self._stale = self._stale, _Gathering()
            self._service.read_now(self._read_group(stale))

    def close(self) -> None:
        """The connection is gone: what was handed over goes on, its answers go nowhere."""
        self._responses = None
        self._pending.clear()

    def forget(self, tag: int) -> None:
        """The client does not want this answer any more. What is under way goes on: it may have happened."""
        self._pending.pop(tag, None)

    def _forward(self, gathered: _Gathering) -> None:
        self.in_flight_bytes += gathered.size_bytes
        self._service.forward(
            WriteGroup(
                self,
                gathered.tags,
                gathered.commands,
                size_bytes=gathered.size_bytes,
                deadline_ms=self._service.deadline(gathered.timeout_ms),
                user=self._caller.user,
                auth_revision=self._caller.auth_revision,
            )
        )

    def _read_group(self, gathered: _Gathering) -> ReadGroup:
        deadline_ms = self._service.deadline(gathered.timeout_ms)
        user, auth_revision = self._caller
        return ReadGroup(
            self, gathered.tags, gathered.commands, deadline_ms=deadline_ms, user=user, auth_revision=auth_revision
        )

    # Origin of replica/groups.py.

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        """Responses for the whole group, and the end of the batch."""
        self._settle(group)
        responses, pending = self._responses, self._pending
        if responses is None:
            return
        origin = self._house.origin()
        headers = self._headers
        if headers is None or headers.origin != origin:
            headers = self._headers = Headers(origin)
        for tag, command, answer in zip(group.tags, group.commands, answers, strict=True):
            call = pending.get(tag)
            if call is None:
                continue
            if answer[0] == FAILED:
                del pending[tag]
                responses.on_failure(tag, status_of(error_of(answer)))
                continue
            if (
                command[0] == RANGE
                and (answer[3] or call.long_range is not None or len(answer[2]) > KEYS_PER_TURN)
                and self._take_page(tag, call, command, answer)
            ):
                continue
            del pending[tag]
            method = call.method
            encoded = method.encoded(answer, headers) if self._in_bytes and method.encoded is not None else None
            responses.on_response(tag, encoded or method.response(call.request, answer, origin))
        responses.on_batch_end()

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        """The same status for the whole group, unless it can wait for a leader."""
        parking = self._house.parking
        harmless = isinstance(group, ReadGroup) or group.commands[0][0] in QUESTIONS
        if self._responses is not None and parking.takes(error, harmless_twice=harmless):
            size_bytes = 0 if isinstance(group, ReadGroup) else group.size_bytes
            if parking.park(group.deadline_ms, partial(self._again, group), partial(self._refuse, group), size_bytes):
                return
        self._refuse(group, error)

    def _again(self, group: WriteGroup | ReadGroup) -> None:
        """There may be a leader now. What the client has given up meanwhile is left out."""
        wanted = [pair for pair in zip(group.tags, group.commands, strict=True) if pair[0] in self._pending]
        if not wanted:
            self._settle(group)
            return
        tags, commands = [tag for tag, _ in wanted], [command for _, command in wanted]
        if isinstance(group, ReadGroup):
            user, auth_revision, deadline_ms = group.user, group.auth_revision, group.deadline_ms
            self._service.submit_reads(
                ReadGroup(self, tags, commands, deadline_ms=deadline_ms, user=user, auth_revision=auth_revision)
            )
            return
        if len(tags) < len(group.tags):
            before_bytes, group.tags, group.commands = group.size_bytes, tags, commands
            group.size_bytes = 0 if commands[0][0] in QUESTIONS else sum(map(command_bytes, commands))
            self.in_flight_bytes += group.size_bytes - before_bytes
        self._service.forward(group)

    def _refuse(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        self._settle(group)
        status = status_of(error)
        for tag in group.tags:
            if self._pending.pop(tag, None) is not None:
                self._fail(tag, status)
        if self._responses is not None:
            self._responses.on_batch_end()

    def _take_page(self, tag: int, call: _Pending, command: Command, answer: Answer) -> bool:
        """Answer a range bit by bit, and ask for its next page; False when it is short and this is all of it."""
        try:
            further = next_page(command, answer)
        except RaftKVError as error:
            del self._pending[tag]
            self._fail(tag, status_of(error))
            return True
        if call.long_range is None:
            if further is None and len(answer[2]) <= KEYS_PER_TURN:
                return False
            call.long_range = LongRange(answer, self._house.origin(), self._encode_part)
        call.long_range.take(answer)
        asyncio.get_running_loop().call_soon(self._encode_page, tag, call, call.long_range, further)
        return True

    def _encode_page(self, tag: int, call: _Pending, long_range: LongRange, further: Command | None) -> None:
        if self._pending.get(tag) is not call or self._responses is None:
            return
        if long_range.step():
            asyncio.get_running_loop().call_soon(self._encode_page, tag, call, long_range, further)
        elif further is not None:
            # At the revision of the first page, which was confirmed: no further confirmation.
            user, auth_revision = call.caller
            self._read_page(
                ReadGroup(self, [tag], [further], deadline_ms=call.deadline_ms, user=user, auth_revision=auth_revision)
            )
        else:
            del self._pending[tag]
            self._responses.on_long_range(tag, long_range)
            self._responses.on_batch_end()

    def _read_page(self, group: ReadGroup) -> None:
        self._service.read_now(group)
        self._house.member.schedule_pump()

    def _settle(self, group: WriteGroup | ReadGroup) -> None:
        if isinstance(group, WriteGroup):
            self.in_flight_bytes -= group.size_bytes
            assert self.in_flight_bytes >= 0, "every group ends once"

    def _fail(self, tag: int, status: Status) -> None:
        if self._responses is not None:
            self._responses.on_failure(tag, status)
