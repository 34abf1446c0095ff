"""The way to one address on asyncio: connect when needed, greet, check after idleness, replace after a lifetime, drain.

At most one connection takes calls; older ones drain. Calls that come while there is none wait in `queue` and are handed to the owner
with what became of it. Names are resolved anew at every connect. Every task made here is the owner's to supervise.
"""

import asyncio
from typing import Any, Coroutine, Protocol

from raftkv.client import verdict
from raftkv.client.connection import Call, Connection
from raftkv.client.endpoints import split_address
from raftkv.client.options import Options, draw
from raftkv.client.patience import Patience
from raftkv.client.wireconn import LOGIN_TIMEOUT_S, WireConnection
from raftkv.errors import RaftKVError
from raftkv.units import NOBODY, NodeId
from raftkv.wire.commands import Answer


class LinkOwner(Protocol):
    """The dispatcher: what becomes of connections is told here."""

    def new_wire(self) -> WireConnection: ...

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...

    def on_link_ready(self, link: "Link", calls: list[Call]) -> None:
        """The link has a new connection; these calls waited for it."""
        ...

    def on_link_room(self, link: "Link", calls: list[Call]) -> None:
        """Its connection takes calls again; these waited for it."""
        ...

    def on_link_failed(self, link: "Link", calls: list[Call], error: RaftKVError) -> None:
        """No connection could be opened; nothing of these calls was sent."""
        ...

    def on_link_lost(self, link: "Link", calls: list[Call], error: RaftKVError) -> None:
        """A connection is gone; these calls had been sent on it."""
        ...

    def on_link_answers(self, link: "Link", connection: Connection, failed: list[tuple[Call, Answer]] | None) -> None:
        """Answers came."""
        ...


class Link:
    """One address and its connections."""

    def __init__(self, address: str, owner: LinkOwner, options: Options) -> None:
        self.address = address
        self.connection: Connection | None = None
        """The one that takes calls, or will again soon."""
        self.draining: set[Connection] = set()
        self.queue: list[Call] = []
        self._owner = owner
        self._options = options
        self._opening: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._timers: dict[Connection, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def member_id(self) -> NodeId:
        """Who is there, NOBODY while there is no connection."""
        connection = self.connection
        if connection is None or connection.wire.handshake is None:
            return NOBODY
        return connection.wire.handshake.member_id

    def connections(self) -> list[Connection]:
        """All that may have calls on them."""
        return [*self.draining, *(c for c in (self.connection, self._opening) if c is not None)]

    def ask_for_signs(self) -> None:
        """Of life, from whoever is waited for."""
        for connection in self.connections():
            if connection.waiters:
                connection.probe()

    def submit(self, call: Call, now: float) -> None:
        """Send the call, or keep it until there is a connection."""
        connection = self.connection
        if connection is not None and connection.usable:
            if connection.waiters or now <= connection.heard_at + self._options.idle_s:
                connection.send(call, now)
                return
            # Half-open connections look like idle ones: a middlebox may have dropped it without telling.
            connection.suspect()
            connection.timers.append(self._loop.call_later(self._options.connect_timeout_s, self._give_up, connection))
        self.queue.append(call)
        if self.connection is None and self._task is None:
            self._task = self._owner.spawn(self._connect())

    def retire(self, connection: Connection | None = None) -> None:
        """Let the connection end after its last answer; the next call opens a new one."""
        if connection is None or connection is self.connection:
            connection, self.connection = self.connection, None
        if connection is not None and not connection.closed.done():
            self.draining.add(connection)
            connection.drain()
        if self.queue and self.connection is None and self._task is None:
            self._task = self._owner.spawn(self._connect())

    # ConnectionOwner.

    def on_answers(self, connection: Connection, failed: list[tuple[Call, Answer]] | None) -> None:
        self._owner.on_link_answers(self, connection, failed)

    def on_room(self, connection: Connection) -> None:
        if connection is not self.connection or not connection.usable:
            return
        self._owner.on_link_room(self, self._take_queue())

    def on_closed(self, connection: Connection, calls: list[Call], error: RaftKVError) -> None:
        self.draining.discard(connection)
        was_current = connection is self.connection
        if was_current:
            self.connection = None
        if connection.wire.handshake is not None:
            self._owner.on_link_lost(self, calls, error)
        if was_current and self.queue and self._task is None:
            self._task = self._owner.spawn(self._connect())

    # Connecting.

    async def _connect(self) -> None:
        try:
            connection = await self._open()
        except RaftKVError as error:
            self._task = None
            self._owner.on_link_failed(self, self._take_queue(), error)
            return
        self._task = None
        self.connection = connection
        lifetime_s = self._options.draw_lifetime_s(draw())
        connection.timers.append(self._loop.call_later(lifetime_s, self.retire, connection))
        self._owner.on_link_ready(self, self._take_queue())

    async def _open(self) -> Connection:
        """A greeted connection. Raises Unreachable, ClusterMismatch or ProtocolError."""
        timeout_s = self._options.connect_timeout_s
        connection = Connection(self, self._owner.new_wire(), timeout_s)
        self._opening = connection
        try:
            async with Patience(timeout_s) as patience:
                connection.on_login = lambda: patience.restart(LOGIN_TIMEOUT_S)
                host, port = split_address(self.address)
                await self._loop.create_connection(lambda: connection, host, port, **self._options.arguments(host))
                await connection.greeted
            if not connection.usable:
                raise connection.wire.broken or verdict.lost(None)
            return connection
        except BaseException as error:
            connection.close()
            if isinstance(error, (OSError, UnicodeError)):
                raise verdict.not_connected(error) from None
            raise
        finally:
            self._opening = None

    def _take_queue(self) -> list[Call]:
        calls, self.queue = self.queue, []
        return calls

    def _give_up(self, connection: Connection) -> None:
        if not connection.usable:
            connection.close()
