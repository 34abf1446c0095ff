"""Connections of clients, and the front door behind them: the twin of daemon/api/native.py without bytes.

What one packet brings is one write group and one read group. A connection delivers in order, or from some moment on nothing (a
cut), until one side gives up. It belongs to one life of a process: a packet to a dead one comes back as a reset.
"""

from typing import TYPE_CHECKING, Any, Protocol, Sequence

import msgpack

from raftkv.daemon.api.questions import check_question
from raftkv.daemon.api.watching import WATCHING, WatchDoor
from raftkv.errors import InvalidRequest, RaftKVError
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.lease_desk import QUESTIONS
from raftkv.wire.commands import (
    CLIENT_WRITES,
    LEASE_TTL,
    OK,
    READS,
    SERIALIZABLE,
    Answer,
    Command,
    command_bytes,
    failure,
)
from raftkv.wire.protocol import FORWARD, PING, PROTOCOL_VERSION
from raftkv.wire.validate import validate

if TYPE_CHECKING:
    from .machine import Machine
    from .process import Process

NO_FLOOR = -1

Request = tuple[int, int, Command]
"""Request id, timeout in ms, command; as on the wire."""


class Caller(Protocol):
    """Whose connection it is."""

    place: int

    def on_greeted(self, connection: "Connection", hello: dict[str, Any]) -> None: ...

    def on_answers(self, connection: "Connection", answers: list[tuple[int, Answer]]) -> None: ...

    def on_reset(self, connection: "Connection") -> None: ...


class Connection:
    """One connection of a client to a machine; `process` once it was accepted."""

    def __init__(self, client: Caller, machine: "Machine", session: bytes | None) -> None:
        self.client = client
        self.machine = machine
        self.session = session
        self.process: Process | None = None
        self.is_open = True
        self.ack_below = 0
        self.register = False
        self.watch_door: WatchDoor | None = None  # opened by its first request
        self.caller = machine.world.caller_of(client.place)
        self.unread_bytes = 0  # of events, sent and not taken by the client
        self._is_deaf = False
        self._unread: list[Any] = []
        self._silent = False  # a packet was lost: nothing after it arrives
        self._last_to_machine_us = 0
        self._last_to_client_us = 0

    # From the client.

    def connect(self) -> None:
        self._to_machine(self._accept)

    def send(self, ack_below: int, register: bool, requests: list[Request]) -> None:
        self._to_machine(self._receive, ack_below, register, requests)

    def close(self) -> None:
        if self.watch_door is not None:
            self._to_machine(self._on_closed)
        self.is_open = False

    def read_on(self, *, is_deaf: bool) -> None:
        """The client stops to read, or goes on."""
        self._is_deaf = is_deaf
        if not is_deaf:
            unread, self._unread = self._unread, []
            for callback in unread:
                self._hand_over(callback)

    def _on_closed(self, process: "Process") -> None:
        assert self.watch_door is not None, "it was opened"
        self.watch_door.close()

    def _to_machine(self, callback: Any, *arguments: Any) -> None:
        world = self.machine.world
        source, target = self.client.place, self.machine.node_id
        if not self.is_open or self._silent or world.network.is_cut(source, target):
            self._silent = True
            return
        arrival_us = max(world.now_us + world.network.stream_latency(source, target), self._last_to_machine_us)
        self._last_to_machine_us = arrival_us
        world.push(arrival_us, self._arrive, (callback, *arguments))

    def _arrive(self, callback: Any, *arguments: Any) -> None:
        process = self.machine.process
        if process is None or (self.process is not None and self.process is not process):
            self.reset()
        else:
            self.machine.input(process, callback, process, *arguments)

    def _accept(self, process: "Process") -> None:
        self.process = process
        process.door.connections.append(self)
        self.answer(lambda: self.client.on_greeted(self, process.door.hello()))

    def _receive(self, process: "Process", ack_below: int, register: bool, requests: list[Request]) -> None:
        self.ack_below, self.register = ack_below, register
        process.door.receive(self, requests)

    # To the client.

    def send_answers(self, answers: list[tuple[int, Answer]]) -> None:
        self.answer(lambda: self.client.on_answers(self, answers))

    def answer(self, callback: Any) -> None:
        world = self.machine.world
        source, target = self.machine.node_id, self.client.place
        if not self.is_open or self._silent or world.network.is_cut(source, target):
            self._silent = True
            return
        arrival_us = max(world.now_us + world.network.stream_latency(source, target), self._last_to_client_us)
        self._last_to_client_us = arrival_us
        world.push(arrival_us, self._hand_over, (callback,))

    def _hand_over(self, callback: Any) -> None:
        if self._is_deaf:
            self._unread.append(callback)
        elif self.is_open:
            callback()

    def send_events(self, data: bytes) -> None:
        """What the door of watches writes, in bytes: they count as unread until the client has them."""
        self.unread_bytes += len(data)
        request_id, answer = msgpack.unpackb(data, raw=False)

        def take() -> None:
            self.unread_bytes -= len(data)
            self.client.on_answers(self, [(request_id, answer)])
            process = self.process
            if process is not None and process is self.machine.process:
                self.machine.input(process, process.turn)  # the socket has room again

        self.answer(take)

    def reset(self) -> None:
        """The machine's kernel says that nobody is there (any more)."""
        self.answer(lambda: self.client.on_reset(self))


class Door:
    """All connections of one process."""

    def __init__(self, process: "Process") -> None:
        self.connections: list[Connection] = []
        self._process = process
        self._limits = process.knobs.limits

    def close(self, *, says_so: bool) -> None:
        for connection in self.connections:
            if says_so:
                connection.reset()
        self.connections.clear()

    def hello(self) -> dict[str, Any]:
        """As daemon/view.py says it."""
        process, limits = self._process, self._limits
        return {
            "protocol": PROTOCOL_VERSION,
            "version": "sim",
            "cluster_id": process.storage.cluster_id,
            "cluster_name": process.world.CLUSTER_NAME,
            "member_id": process.raft.node_id,
            "member_name": process.machine.name,
            "incarnation": process.machine.incarnation,
            "leader": process.service.leader_hint(),
            "members": process.service.member_hints(),
            "limits": {
                "key_bytes_max": limits.key_bytes_max,
                "value_bytes_max": limits.value_bytes_max,
                "request_bytes_max": limits.request_bytes_max,
                "txn_operations_max": limits.txn_operations_max,
                "session_window": limits.session_window,
                "session_ttl_ms": limits.session_ttl_ms,
            },
        }

    def receive(self, connection: Connection, requests: list[Request]) -> None:
        """One read of the socket."""
        writes: list[Request] = []
        reads: list[Request] = []
        stale: list[Request] = []
        now: list[tuple[int, Answer]] = []
        for request in requests:
            request_id, timeout_ms, command = request
            operation = command[0]
            try:
                if operation == PING:
                    now.append((request_id, [OK]))
                elif operation == FORWARD:
                    self._forward(connection, request_id, timeout_ms, command)
                elif operation in QUESTIONS:
                    self._ask(connection, request_id, timeout_ms, command)
                elif operation in WATCHING:
                    self._watch(connection, request_id, timeout_ms, command)
                else:
                    validate(command, self._limits)
                    if operation in CLIENT_WRITES:
                        writes.append(request)
                    elif operation in READS:
                        (stale if command[1] & SERIALIZABLE else reads).append(request)
                    else:
                        raise InvalidRequest(f"operation {operation} is not for clients")
            except RaftKVError as error:
                now.append((request_id, failure(error)))
        if now:
            connection.send_answers(now)
        self._submit(connection, writes, reads, stale)
        self._process.turn()

    def _ask(self, connection: Connection, request_id: int, timeout_ms: int, command: Command) -> None:
        """A keep-alive waits for no index, so its answer may be older than what others know; a time to live may not."""
        check_question(command, self._limits)
        service, checks = self._process.service, self._process.world.checks
        floor = checks.acknowledged_index if command[0] == LEASE_TTL else NO_FLOOR
        origin = _Origin(self._process, connection, floor)
        user, auth_revision = connection.caller
        service.ask_leader(
            ReadGroup(
                origin,
                [request_id],
                [command],
                deadline_ms=service.deadline(timeout_ms),
                user=user,
                auth_revision=auth_revision,
            )
        )

    def _watch(self, connection: Connection, request_id: int, timeout_ms: int, command: Command) -> None:
        """The daemon's own door, on a transport that is this connection."""
        if connection.watch_door is None:
            connection.watch_door = WatchDoor(
                self._process.service,
                _Transport(connection),  # type: ignore[arg-type]  # as much of one as it asks for
                lambda request_id, answer: connection.send_answers([(request_id, answer)]),
                self._limits,
            )
        connection.watch_door.caller = connection.caller
        connection.watch_door.receive(request_id, timeout_ms, command)

    def _submit(
        self, connection: Connection, writes: list[Request], reads: list[Request], stale: list[Request]
    ) -> None:
        service = self._process.service
        user, auth_revision = connection.caller
        origin = _Origin(self._process, connection, self._process.world.checks.acknowledged_index)
        if writes:
            tags, commands = [request[0] for request in writes], [request[2] for request in writes]
            group = WriteGroup(
                origin,
                tags,
                commands,
                size_bytes=sum(map(command_bytes, commands)),
                deadline_ms=service.deadline(max(request[1] for request in writes)),
                session=connection.session,
                register=connection.register,
                ack_below=connection.ack_below,
                user=user,
                auth_revision=auth_revision,
            )
            service.submit_writes(group)
        if reads:
            tags, commands = [request[0] for request in reads], [request[2] for request in reads]
            deadline_ms = service.deadline(max(request[1] for request in reads))
            service.submit_reads(
                ReadGroup(origin, tags, commands, deadline_ms=deadline_ms, user=user, auth_revision=auth_revision)
            )
        if stale:
            tags, commands = [request[0] for request in stale], [request[2] for request in stale]
            origin = _Origin(self._process, connection, NO_FLOOR)
            service.read_now(ReadGroup(origin, tags, commands, deadline_ms=0, user=user, auth_revision=auth_revision))

    def _forward(self, connection: Connection, request_id: int, timeout_ms: int, command: Command) -> None:
        _, session, register, ack_below, inner = command
        if inner[0] in QUESTIONS:
            check_question(inner, self._limits)
        else:
            validate(inner, self._limits)
            if inner[0] not in CLIENT_WRITES:
                raise InvalidRequest("only writes are forwarded: any member answers reads")
        service = self._process.service
        group = WriteGroup(
            _Origin(self._process, connection, NO_FLOOR),
            [request_id],
            [inner],
            size_bytes=0 if inner[0] in QUESTIONS else command_bytes(inner),
            deadline_ms=service.deadline(timeout_ms),
            session=session,
            register=register,
            ack_below=ack_below,
            user=connection.caller.user,
            auth_revision=connection.caller.auth_revision,
        )
        service.forward(group)


class _Transport:
    """What WatchDoor needs of an asyncio.Transport."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get_write_buffer_size(self) -> int:
        return self._connection.unread_bytes

    def write(self, data: bytes) -> None:
        self._connection.send_events(data)


class _Origin:
    """Where a group came from, and what was acknowledged to anybody before it came: its answers must not be older.

    Stale reads may be, and the answer to a forwarded write may overtake the apply of the member that forwarded: NO_FLOOR.
    """

    __slots__ = ("_connection", "_floor", "_process", "takes_answers")

    def __init__(self, process: "Process", connection: Connection, floor: int) -> None:
        self._process = process
        self._connection = connection
        self._floor = floor
        self.takes_answers = True

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        process = self._process
        if self._floor != NO_FLOOR:
            process.world.checks.on_answered(process, self._floor)
        self._connection.send_answers(list(zip(group.tags, answers, strict=True)))

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        answer = failure(error)
        self._connection.send_answers([(tag, answer) for tag in group.tags])
