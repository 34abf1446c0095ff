"""A scripted cluster that speaks the client protocol on real sockets, in a thread of its own so that both clients can be tested.

Each member answers correctly by default. A test sets `mode` for good, or appends to `script` what becomes of the next requests
(everything after the greeting), one item each:

    "serve"        answer as a member in order does
    "hang"         take the request and never answer it
    "slow"         answer when the test calls `release`
    "drop"         hang up without doing it
    "lose"         do it, then hang up without an answer
    "half"         do it, then hang up in the middle of the answer
    "garbage"      answer with bytes that are not of this protocol
    RaftKVError    refuse with this error (a class or an instance); the write is not done
"""

import asyncio
import socket
import threading
from collections import deque
from typing import Any, Callable, Coroutine, TypeAlias, TypeVar

import msgpack

from raftkv.errors import (
    AuthFailed,
    AuthNotEnabled,
    AuthOldRevision,
    ClusterMismatch,
    NoQuorum,
    NotLeader,
    RaftKVError,
    UserEmpty,
)
from raftkv.wire.commands import CLIENT_WRITES, GET, LEASE_TTL, OK, READS, SERIALIZABLE, Answer, Command, failure
from raftkv.wire.protocol import (
    ACK,
    AUTHENTICATE,
    DEFRAGMENT,
    FORWARD,
    HELLO,
    KEEP_ALIVE,
    MEMBERS,
    MOVE_LEADER,
    PING,
    PREFACE,
    PROTOCOL_VERSION,
    STATUS,
    WAIT,
    WATCH_CANCEL,
    WATCH_CREATE,
    check_request,
)

from .fakestore import FakeStore

Behaviour: TypeAlias = "str | type[RaftKVError] | RaftKVError"
T = TypeVar("T")
QUESTIONS = (KEEP_ALIVE, LEASE_TTL)
ACCEPT_TURNS = 5  # of the loop, until a connection that was just accepted is one of a member


class FakeConnection(asyncio.Protocol):
    def __init__(self, member: "FakeMember") -> None:
        self.member = member
        self.session: bytes | None = None
        self.ack_below = 0
        self.register = False
        self.greeted = False
        self.login: tuple[str, int] | None = None
        self.preface = b""
        self.unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, use_list=True)
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.member.connections.append(self)
        self.member.connections_seen += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.member.connections.remove(self)
        self.member.watches = [watch for watch in self.member.watches if watch[0] is not self]

    def data_received(self, data: bytes) -> None:
        if len(self.preface) < len(PREFACE):
            missing = len(PREFACE) - len(self.preface)
            self.preface += data[:missing]
            data = data[missing:]
            assert PREFACE.startswith(self.preface), f"the client opened with {self.preface!r}"
        self.unpacker.feed(data)
        messages = list(self.unpacker)
        self.member.reads.append(messages)
        for message in messages:
            if self.transport.is_closing():
                return
            request_id, _, command = check_request(message)
            self.member.log.append(command)
            self._receive(request_id, command)

    def _receive(self, request_id: int, command: Command) -> None:
        member = self.member
        if command[0] == HELLO:
            self._greet(request_id, command[1])
            return
        assert self.greeted, "a request before the greeting"
        if command[0] == ACK:
            assert request_id == 0, "a notice has no id"
            _, self.ack_below, self.register = command
            return
        if command[0] == AUTHENTICATE:
            self._log_in(request_id, command[1], command[2])
            return
        if command[0] == PING:
            member.pings += 1
            if member.answers_pings and member.mode != "hang":
                self.answer(request_id, [OK])
            return
        if command[0] == WATCH_CANCEL:
            member.watches = [watch for watch in member.watches if watch[1] != command[1] or watch[0] is not self]
            self.answer(request_id, [OK, True])
            return
        refusal = self._refusal()
        if refusal is not None:
            self.answer(request_id, failure(refusal))
            return
        behaviour = member.script.popleft() if member.script else member.mode
        if behaviour == "serve" and command[0] == WATCH_CREATE:
            member.watches.append((self, request_id, command))
            self.answer(request_id, [OK, WATCH_CREATE, member.cluster.store.revision])
        elif behaviour == "serve":
            self.answer(request_id, member.serve(self, command))
        elif behaviour == "slow":
            member.held.append((self, request_id, command))
        elif behaviour == "drop":
            self.transport.abort()
        elif behaviour == "lose":
            member.serve(self, command)
            self.transport.abort()
        elif behaviour == "half":
            frame = msgpack.packb([request_id, member.serve(self, command)])
            self.transport.write(frame[: len(frame) // 2])
            self.transport.close()
        elif behaviour == "garbage":
            self.transport.write(b"\xc1 HTTP/1.1 400 Bad Request\r\n")
        elif behaviour != "hang":
            error = behaviour() if isinstance(behaviour, type) else behaviour
            assert isinstance(error, RaftKVError), behaviour
            self.answer(request_id, failure(error))

    def _log_in(self, request_id: int, name: str, password: str) -> None:
        cluster = self.member.cluster
        if self.member.holds_logins:
            return
        if cluster.passwords is None:
            self.answer(request_id, failure(AuthNotEnabled()))
        elif cluster.passwords.get(name) != password:
            self.answer(request_id, failure(AuthFailed()))
        else:
            self.login = (name, cluster.auth_revision)
            self.answer(request_id, [OK, cluster.auth_revision])

    def _refusal(self) -> RaftKVError | None:
        cluster = self.member.cluster
        if cluster.passwords is None:
            return None
        if self.login is None:
            return UserEmpty()
        return None if self.login[1] == cluster.auth_revision else AuthOldRevision()

    def _greet(self, request_id: int, options: dict[str, Any]) -> None:
        member = self.member
        if member.mode == "hang" or member.refuses_greetings:
            return
        wanted = options["cluster_name"]
        if wanted not in (None, member.cluster_name):
            error = ClusterMismatch(f"the client wants cluster {wanted!r}, this is {member.cluster_name!r}")
            self.answer(request_id, failure(error))
            self.transport.close()
            return
        assert options["protocol"] == PROTOCOL_VERSION
        self.session = options["session"]
        self.greeted = True
        self.answer(request_id, [OK, member.hello()])

    def answer(self, request_id: int, answer: Answer) -> None:
        frame = msgpack.packb([request_id, answer])
        if self.member.splits:
            for position in range(len(frame)):
                self.transport.write(frame[position : position + 1])
        else:
            self.transport.write(frame)


class FakeMember:
    """One member: an address, a place in the cluster, and what it does with requests."""

    def __init__(self, cluster: "FakeCluster", number: int) -> None:
        self.cluster = cluster
        self.id = number
        self.name = f"n{number}"
        self.cluster_name = "prod"
        self.cluster_id = 77
        self.mode: Behaviour = "serve"
        self.script: deque[Behaviour] = deque()
        self.log: list[Command] = []
        self.reads: list[list[Any]] = []
        """The messages of each read of a socket: what a client sent in one go."""
        self.held: list[tuple[FakeConnection, int, Command]] = []
        self.connections: list[FakeConnection] = []
        self.connections_seen = 0
        self.watches: list[tuple[FakeConnection, int, Command]] = []
        self.pings = 0
        self.answers_pings = True
        self.refuses_greetings = False
        self.holds_logins = False
        self.splits = False
        self.greeting_changes: dict[str, Any] = {}
        self.advertised: str | None = None
        self.port = 0
        self._server: asyncio.Server | None = None
        self._port_holder: socket.socket | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def hint(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "address": self.advertised or self.address}

    @property
    def requests(self) -> list[Command]:
        """What it was asked, without greetings, notices and signs of life."""
        return [command for command in self.log if command[0] not in (HELLO, ACK, PING, AUTHENTICATE)]

    @property
    def notices(self) -> list[Command]:
        return [command for command in self.log if command[0] == ACK]

    def hello(self) -> dict[str, Any]:
        cluster = self.cluster
        return {
            "protocol": PROTOCOL_VERSION,
            "version": "0.1.0",
            "cluster_id": self.cluster_id,
            "cluster_name": self.cluster_name,
            "member_id": self.id,
            "member_name": self.name,
            "incarnation": b"x" * 16,
            "leader": cluster.leader.hint if cluster.leader else None,
            "members": [member.hint for member in cluster.members],
            "limits": {
                "key_bytes_max": 16 * 1024,
                "value_bytes_max": 64 * 1024,
                "request_bytes_max": 96 * 1024,
                "session_ttl_ms": 600_000,
            },
            **self.greeting_changes,
        }

    def serve(self, connection: FakeConnection, command: Command) -> Answer:
        operation, store = command[0], self.cluster.store
        if operation == WAIT:
            return [OK, store.revision, [store.read([GET, 0, key])[2] for key in command[3]]]
        if operation == STATUS:
            return [OK, {"id": self.id, "name": self.name, "role": "leader", "term": 3, "revision": store.revision}]
        if operation == MEMBERS:
            return [OK, [{**m.hint, "peer_address": "p", "voter": True} for m in self.cluster.members]]
        if operation == DEFRAGMENT:
            return [OK, {"before_bytes": 8192, "after_bytes": 4096, "seconds": 0.5}]
        if operation in READS:
            if self.cluster.leader is None and not command[1] & SERIALIZABLE:
                return failure(self.elsewhere())
            return store.read(command)
        if operation == FORWARD:
            _, session, register, ack_below, inner = command
            if inner[0] in QUESTIONS:
                return store.ask(inner) if self.cluster.leader else failure(self.elsewhere())
            assert inner[0] in CLIENT_WRITES, "only writes and questions are forwarded"
            return (
                store.write(inner, session, register, ack_below) if self.cluster.leader else failure(self.elsewhere())
            )
        if self.cluster.leader is not self:
            return failure(self.elsewhere())
        if operation == MOVE_LEADER:
            self.cluster.leader = next((m for m in self.cluster.members if m.name == command[1]), self)
            return [OK, {"leader": self.cluster.leader.hint}]
        if operation in QUESTIONS:
            return store.ask(command)
        assert operation in CLIENT_WRITES, f"operation {operation}"
        return store.write(command, connection.session, connection.register, connection.ack_below)

    def elsewhere(self) -> RaftKVError:
        members = [member.hint for member in self.cluster.members]
        leader = self.cluster.leader
        return NotLeader(details={"leader": leader.hint if leader else None, "members": members})

    def no_quorum(self, *, may_have_happened: bool = False) -> RaftKVError:
        members = [member.hint for member in self.cluster.members]
        return NoQuorum(details={"members": members}, may_have_happened=may_have_happened)

    # From the test's thread.

    def stop(self) -> None:
        """As if the process ended: nothing listens, connections are reset."""
        self.cluster.run(self._stop())

    def start(self) -> None:
        self.cluster.run(self._start())

    def release(self) -> None:
        """Answer what is held."""

        async def answer_all() -> None:
            held, self.held = self.held, []
            for connection, request_id, command in held:
                if not connection.transport.is_closing():
                    connection.answer(request_id, self.serve(connection, command))

        self.cluster.run(answer_all())

    def push(self, answer: Answer) -> None:
        """Tell all its watches the same."""

        async def push() -> None:
            for connection, request_id, _ in self.watches:
                if not connection.transport.is_closing():
                    connection.answer(request_id, answer)

        self.cluster.run(push())

    def hang_up(self) -> None:
        """Close every connection, and go on listening."""

        async def close() -> None:
            for connection in list(self.connections):
                connection.transport.abort()

        self.cluster.run(close())

    async def _start(self) -> None:
        self.let_go_of_port()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: FakeConnection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            # asyncio drops a connection without closing it when its server is closed between the accept and the next turns.
            for listening in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            for _ in range(ACCEPT_TURNS):
                await asyncio.sleep(0)
            self._server.close()
            self._server = None
            # Clients still dial it: they must not meet a member of another test. Bound, it refuses connections and is given to nobody else.
            self._port_holder = socket.socket()
            self._port_holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._port_holder.bind(("127.0.0.1", self.port))
        for connection in list(self.connections):
            connection.transport.abort()
        while self.connections:
            await asyncio.sleep(0)

    def let_go_of_port(self) -> None:
        if self._port_holder is not None:
            self._port_holder.close()
            self._port_holder = None


class FakeCluster:
    """Members n1, n2, ... on one store; n1 leads until the test says otherwise."""

    def __init__(self, size: int = 3) -> None:
        self.store = FakeStore()
        self.members = [FakeMember(self, number) for number in range(1, size + 1)]
        self.leader: FakeMember | None = self.members[0]
        self.passwords: dict[str, str] | None = None  # of users, while everybody has to log in
        self.auth_revision = 7
        self._loop = asyncio.new_event_loop()
        self._errors: list[dict[str, Any]] = []
        self._loop.set_exception_handler(lambda loop, context: self._errors.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def endpoints(self) -> str:
        return ",".join(member.address for member in self.members)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)

    def call(self, function: Callable[[], T]) -> T:
        """Run in the cluster's thread: for what has to happen between two of its steps."""

        async def run() -> T:
            return function()

        return self.run(run())

    def __enter__(self) -> "FakeCluster":
        self._thread.start()
        for member in self.members:
            member.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for member in self.members:
            member.stop()
            member.let_go_of_port()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
        assert not self._errors, self._errors
