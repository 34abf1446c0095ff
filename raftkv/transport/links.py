"""One outgoing link per peer: dial, greet, send, and dial again.

A connection is one-directional after the handshake, like etcd's streams: replies travel through the replier's own link. So
nothing is read here but the acceptor's Hello, a refusal or a goodbye. `send` never blocks and never calls back: what cannot
be sent is dropped and reported, because Raft tolerates loss and the core decides what to send again. Messages that were
queued for a lost connection are not kept: their time has passed.
"""

import asyncio
import logging
import socket
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Protocol, Sequence, TypeAlias

from raftkv.errors import RaftKVError, Unreachable
from raftkv.limits import Limits
from raftkv.raft.messages import AppendEntries, InstallSnapshot
from raftkv.transport.addresses import split_address
from raftkv.transport.frames import Forward, ForwardAnswer, Hello, PackedEntries, RoutedMessage, encode_frames
from raftkv.transport.handshake import CheckMember, Identity, find_refusal
from raftkv.transport.link_connection import LinkConnection, describe_error, retrieve_error
from raftkv.transport.peer_tls import PeerTls
from raftkv.transport.settings import LinkSettings, tune_socket
from raftkv.transport.tls import hang_up
from raftkv.units import NodeId

logger = logging.getLogger(__name__)

_MESSAGE_OVERHEAD_BYTES = 64
_ENTRY_OVERHEAD_BYTES = 16
_GOODBYE_DEADLINE_S = 0.5

_AddressInfos: TypeAlias = Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]]


@dataclass(slots=True)
class PeerStatistics:
    """Plain figures about one peer: counted where things happen, read at a scrape."""

    address: str
    connected: bool = False  # the link to the peer
    accepted: bool = False  # a connection from the peer
    connects: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    messages_dropped: int = 0
    queued_bytes: int = 0
    round_trip_seconds: float | None = None
    last_error: str = ""


class LinkOwner(Protocol):
    """What a link needs from the transport that holds it."""

    identity: Identity
    limits: Limits
    settings: LinkSettings
    check_member: CheckMember
    draw: Callable[[], float]
    tls: PeerTls | None

    def on_link_up(self, node_id: NodeId) -> None: ...

    def on_link_down(self, node_id: NodeId) -> None: ...

    def on_link_dropped(self, node_id: NodeId) -> None: ...


def cost_bytes(message: RoutedMessage) -> int:
    """About what a queued message weighs."""
    if isinstance(message, AppendEntries):
        return _MESSAGE_OVERHEAD_BYTES + sum([len(entry.data) + _ENTRY_OVERHEAD_BYTES for entry in message.entries])
    if isinstance(message, InstallSnapshot):
        return _MESSAGE_OVERHEAD_BYTES + len(message.data)
    if isinstance(message, Forward | ForwardAnswer):
        return _MESSAGE_OVERHEAD_BYTES + len(message.payload)
    return _MESSAGE_OVERHEAD_BYTES


class Link:
    """The way to one peer at one address, through as many connections as it takes."""

    def __init__(self, node_id: NodeId, address: str, owner: LinkOwner) -> None:
        self.node_id = node_id
        self.statistics = PeerStatistics(address)
        self._owner = owner
        self.identity = owner.identity
        self.settings = owner.settings
        self._connection: LinkConnection | None = None
        self._queue: list[RoutedMessage] = []
        self._queued_bytes = 0
        self._lookup: asyncio.Future[_AddressInfos] | None = None
        self._wake = asyncio.Event()

    # Sending.

    def queue(self, message: RoutedMessage) -> bool:
        """Whether the message waits for the next flush; False: it was dropped."""
        cost = cost_bytes(message)
        if self._connection is None or self._queued_bytes + cost > self._owner.limits.peer_send_queue_bytes_max:
            self.statistics.messages_dropped += 1
            return False
        self._queue.append(message)
        self._queued_bytes += cost
        return True

    def flush(self, entries: PackedEntries) -> None:
        """Everything that waits, as one write, unless the peer does not keep up."""
        connection = self._connection
        if not self._queue or connection is None or connection.writing_paused:
            return
        frames, oversize = encode_frames(self._queue, self._owner.limits.peer_frame_bytes_max, entries)
        statistics = self.statistics
        statistics.messages_sent += len(self._queue) - len(oversize)
        if oversize:
            statistics.messages_dropped += len(oversize)
            logger.error("%d messages to %s are over the bound of a frame", len(oversize), statistics.address)
            self._owner.on_link_dropped(self.node_id)
        self._clear_queue()
        for frame in frames:
            statistics.bytes_sent += len(frame)
            connection.write(frame)

    def _clear_queue(self) -> None:
        self._queue = []
        self._queued_bytes = 0

    # Connecting.

    def wake(self) -> None:
        """The peer showed signs of life: do not wait for the end of the backoff."""
        self._wake.set()

    def begin_anew(self) -> None:
        """We greet differently from now on: what was answered before counts no more."""
        if self._connection is None:
            self.statistics.last_error = ""
            self.wake()

    async def run(self) -> None:
        """Dial until cancelled. What goes wrong is remembered, logged once per change, and tried again."""
        loop = asyncio.get_running_loop()
        settings = self.settings
        backoff_ms = settings.backoff_ms_min
        try:
            while True:
                connected_at = None
                try:
                    connection = await self._connect()
                    connected_at = loop.time()
                    self._on_up(connection)
                    reason = await asyncio.shield(connection.lost)
                except (OSError, UnicodeError, RaftKVError) as error:
                    reason = describe_error(error)
                assert self._connection is None, "the connection is gone"
                self._note_error(reason)
                # A connection that lived for a while starts the backoff anew; one that is refused at once does not.
                if connected_at is not None and loop.time() - connected_at > settings.backoff_ms_max / 1000:
                    backoff_ms = settings.backoff_ms_min
                await self._rest(backoff_ms * (1.0 - 0.5 * self._owner.draw()) / 1000)
                backoff_ms = min(2 * backoff_ms, settings.backoff_ms_max)
        finally:
            await self._end()

    async def _rest(self, seconds: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _connect(self) -> LinkConnection:
        """A greeted connection. Raises OSError, TimeoutError, UnicodeError or a RaftKVError that says why there is none."""
        sock = await self._dial()
        connection = LinkConnection(self)
        starting = asyncio.ensure_future(self._start(connection, sock))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            hang_up(sock)  # rather than cancel what is under way: see there
            await asyncio.wait([starting])
            if starting.cancelled() or starting.exception() is not None:
                sock.close()
            connection.abort()
            raise
        except ConnectionError as error:
            sock.close()
            raise Unreachable(
                f"the peer ended the TLS handshake: {describe_error(error)} (does it speak TLS?)"
            ) from None
        except BaseException:
            sock.close()
            raise
        try:
            async with asyncio.timeout(self.settings.handshake_deadline_ms / 1000):
                await asyncio.shield(connection.greeted)
        except TimeoutError:
            connection.abort()
            raise Unreachable("the peer accepted the connection but did not answer the handshake") from None
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _start(self, connection: LinkConnection, sock: socket.socket) -> None:
        loop, tls = asyncio.get_running_loop(), self._owner.tls
        if tls is None:
            await loop.create_connection(lambda: connection, sock=sock)
            return
        context = tls.contexts.client()
        context.check_hostname = tls.allowed_common_name is None
        await loop.create_connection(
            lambda: connection,
            sock=sock,
            ssl=context,
            server_hostname=tls.server_name(self.statistics.address),
            ssl_handshake_timeout=self.settings.handshake_deadline_ms / 1000,
        )

    async def _dial(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        timeout_s = self.settings.connect_timeout_ms / 1000
        last_error: OSError | None = None
        async with asyncio.timeout(timeout_s):
            addresses = await self._resolve()
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                tune_socket(sock, self.settings.dead_after_ms)
                async with asyncio.timeout(timeout_s):
                    await loop.sock_connect(sock, address)
            except OSError as error:
                sock.close()
                last_error = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise last_error or OSError("the name has no address")

    async def _resolve(self) -> _AddressInfos:
        """The peer's addresses of now. A resolver that hangs is asked once at a time: each question holds a thread.

        An answer that came after its attempt had given up serves the next one, so that a slow resolver is no dead one.
        """
        if self._lookup is None:
            host, port = split_address(self.statistics.address)
            lookup: Awaitable[_AddressInfos] = asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
            self._lookup = asyncio.ensure_future(lookup)
            self._lookup.add_done_callback(retrieve_error)
        try:
            return await asyncio.shield(self._lookup)
        finally:
            if self._lookup.done():
                self._lookup = None

    def _on_up(self, connection: LinkConnection) -> None:
        assert self._connection is None, "one connection at a time"
        if connection.lost.done():
            return
        self._connection = connection
        self.statistics.connected = True
        self.statistics.connects += 1
        self.statistics.last_error = ""
        logger.info("connected to peer %s", self.statistics.address)
        self._owner.on_link_up(self.node_id)

    def judge(self, hello: Hello, transport: asyncio.BaseTransport) -> str | None:
        """Why the member that answered is not the one that was dialled; None when it is."""
        if hello.node_id != self.node_id:
            return f"member {hello.name!r} ({hello.node_id:x}) answers there, not member {self.node_id:x}"
        tls = self._owner.tls
        if (
            tls is not None
            and (reason := tls.judge(transport, hello.node_id, hello.name, self.statistics.address)) is not None
        ):
            return reason
        return find_refusal(self.identity, hello, self._owner.check_member)

    def on_writable(self) -> None:
        """The connection takes data again: what waited goes out."""
        self.flush(PackedEntries())

    def on_connection_lost(self, connection: LinkConnection) -> None:
        """At once, before anybody writes to what is no more."""
        if connection is self._connection:
            self._connection = None
            self.statistics.connected = False
            self.statistics.messages_dropped += len(self._queue)
            self._clear_queue()
            self._owner.on_link_down(self.node_id)

    def _note_error(self, reason: str) -> None:
        if reason != self.statistics.last_error:
            logger.warning("peer %s: %s", self.statistics.address, reason)
        self.statistics.last_error = reason

    async def _end(self) -> None:
        if self._lookup is not None:
            self._lookup.cancel()
        self.statistics.connected = False
        self._clear_queue()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.say_goodbye(self.identity.node_id)
            await asyncio.wait([connection.lost], timeout=_GOODBYE_DEADLINE_S)
            connection.abort()

    def snapshot_statistics(self) -> PeerStatistics:
        """The figures, with those that are read rather than counted."""
        self.statistics.queued_bytes = self._queued_bytes
        self.statistics.round_trip_seconds = None if self._connection is None else self._connection.round_trip_seconds()
        return self.statistics


__all__ = ["Link", "LinkOwner", "PeerStatistics", "cost_bytes"]
