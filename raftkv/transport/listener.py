"""The peer port: accepts connections of other members, judges their Hello, and hands on what they say.

Whatever else connects costs a few bytes until its deadline: until the Hello was accepted a frame may hold 4 KiB, and only a
bounded number of connections may be in that state. A connection that is established and ends without a goodbye is reported
at once: fast failover depends on it. A silent one is not closed here: followers have nothing to tell each other for hours;
keep-alive finds those whose other side is gone.
"""

import asyncio
import logging
from typing import Protocol, cast

from raftkv.errors import ProtocolError
from raftkv.limits import Limits
from raftkv.transport.addresses import join_address, split_address
from raftkv.transport.frames import (
    HELLO_FRAME_BYTES_MAX,
    FrameReader,
    Goodbye,
    Hello,
    PeerMessage,
    Refusal,
    RoutedMessage,
    encode_frame,
)
from raftkv.transport.handshake import CheckMember, Identity, find_refusal
from raftkv.transport.peer_tls import PeerTls
from raftkv.transport.settings import LinkSettings, tune_socket
from raftkv.transport.tls import TlsServer
from raftkv.units import NOBODY, NodeId

logger = logging.getLogger(__name__)

BACKLOG = 128
TLS_RECORD = b"\x16\x03"  # how a handshake begins; as the length of a frame it would be over every bound
_COMPLAINTS_KEPT_MAX = 1024
_GOODBYE_DEADLINE_S = 0.5


class ListenerOwner(Protocol):
    """What the listener needs from the transport that holds it."""

    identity: Identity
    limits: Limits
    settings: LinkSettings
    check_member: CheckMember
    tls: PeerTls | None

    def on_incoming_messages(self, node_id: NodeId, messages: list[RoutedMessage], received_bytes: int) -> None: ...

    def on_incoming_up(self, node_id: NodeId) -> None: ...

    def on_incoming_down(self, node_id: NodeId, reset: bool) -> None: ...


class Listener:
    """The listening socket and every connection that came in through it."""

    def __init__(self, owner: ListenerOwner) -> None:
        self.owner = owner
        self.refused = 0
        self.strangers: set[IncomingConnection] = set()  # not greeted yet
        self.established: dict[NodeId, IncomingConnection] = {}
        self._server: asyncio.Server | TlsServer | None = None
        self._complaints: dict[object, str] = {}

    async def start(self, address: str) -> str:
        """Listen on HOST:PORT; port 0 takes a free one. Returns the address bound. Raises OSError or ConfigError."""
        assert self._server is None, "started once"
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        if self.owner.tls is not None:
            self._server = await self._listen_with(self.owner.tls, host, port)
        else:
            self._server = await loop.create_server(lambda: IncomingConnection(self), host, port, backlog=BACKLOG)
        bound_host, bound_port = self._server.sockets[0].getsockname()[:2]
        return join_address(bound_host, bound_port)

    async def _listen_with(self, tls: PeerTls, host: str, port: int) -> TlsServer:
        server = TlsServer(
            tls.contexts,
            lambda: IncomingConnection(self),
            handshakes_max=lambda: self.owner.settings.unauthenticated_connections_max - len(self.strangers),
            on_refused=lambda reason, host: self.complain((host, reason), f"{reason}, from {host}"),
        )
        await server.start(host, port, BACKLOG)
        return server

    async def close(self) -> None:
        """Stop listening and end every connection; none of them counts as reset."""
        if self._server is not None:
            self._server.close()
        for stranger in tuple(self.strangers):
            stranger.abort()
        connections = tuple(self.established.values())
        self.established.clear()
        for connection in connections:
            connection.say_goodbye(self.owner.identity.node_id)
        if connections:
            await asyncio.wait([connection.lost for connection in connections], timeout=_GOODBYE_DEADLINE_S)
        for connection in connections:
            connection.abort()
        if isinstance(self._server, TlsServer):
            await self._server.wait_closed()

    def close_refused(self) -> None:
        """The own cluster id became known, or somebody is no member any more: end connections that would be refused now."""
        for connection in tuple(self.established.values()):
            hello = connection.hello
            assert hello is not None, "established connections were greeted"
            if find_refusal(self.owner.identity, hello, self.owner.check_member) is not None:
                connection.abort()

    def establish(self, connection: "IncomingConnection", hello: Hello) -> None:
        """A member has greeted well. An older connection of it is half-open or abandoned, and not a reset."""
        self.strangers.discard(connection)
        older = self.established.pop(hello.node_id, None)
        if older is not None:
            older.abort()
        self.established[hello.node_id] = connection
        self._complaints.pop(hello.node_id, None)
        self.owner.on_incoming_up(hello.node_id)

    def forget(self, connection: "IncomingConnection", reset: bool) -> None:
        """A connection has ended."""
        self.strangers.discard(connection)
        node_id = connection.node_id
        if self.established.get(node_id) is connection:
            del self.established[node_id]
            self.owner.on_incoming_down(node_id, reset)

    def complain(self, key: object, text: str) -> None:
        """Log a refusal once per change, not per attempt."""
        self.refused += 1
        if self._complaints.get(key) == text:
            return
        if len(self._complaints) >= _COMPLAINTS_KEPT_MAX:
            self._complaints.clear()
        self._complaints[key] = text
        logger.warning("refused a connection on the peer port: %s", text)


class IncomingConnection(asyncio.Protocol):
    """One connection that somebody made to the peer port."""

    def __init__(self, listener: Listener) -> None:
        self.node_id: NodeId = NOBODY
        self.hello: Hello | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listener = listener
        self._owner = listener.owner
        self._reader = FrameReader(HELLO_FRAME_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._ended_on_purpose = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        settings = self._owner.settings
        # Not checked by type: the transports of uvloop do not derive from asyncio.Transport.
        self._transport = stream = cast(asyncio.Transport, transport)
        if len(self._listener.strangers) >= settings.unauthenticated_connections_max:
            self._listener.complain(None, "too many connections that have not said who they are")
            stream.abort()
            return
        tune_socket(stream.get_extra_info("socket"), settings.dead_after_ms)
        self._listener.strangers.add(self)
        deadline_s = settings.handshake_deadline_ms / 1000
        self._deadline = asyncio.get_running_loop().call_later(deadline_s, self._on_deadline)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self.hello is None and self._owner.tls is None and data.startswith(TLS_RECORD):
            host = self._remote_host()
            self._listener.complain(host, f"it speaks TLS, which this member does not on its peer port, from {host}")
            self.abort()
            return
        try:
            messages = self._reader.feed(data)
            if self.hello is not None:
                self._receive(messages, len(data))
            elif messages:
                self._greet(messages)
        except ProtocolError as error:
            self._listener.complain(self._remote_host(), f"{error.message}, from {self._remote_host()}")
            self.abort()

    def _greet(self, messages: list[PeerMessage]) -> None:
        hello = messages[0]
        if not isinstance(hello, Hello) or len(messages) > 1:
            raise ProtocolError("a connection starts with one Hello")
        assert self._transport is not None, "data comes from open connections"
        self._disarm()
        reason = find_refusal(self._owner.identity, hello, self._owner.check_member)
        if reason is None and self._owner.tls is not None:
            reason = self._owner.tls.judge(self._transport, hello.node_id, hello.name, hello.address)
        if reason is not None:
            self._listener.complain(hello.node_id, f"{reason} (from {self._remote_host()})")
            self._transport.write(encode_frame([Refusal(reason)]))
            self._transport.close()
            return
        self.hello = hello
        self.node_id = hello.node_id
        self._reader.frame_bytes_max = self._owner.limits.peer_frame_bytes_max
        self._transport.write(encode_frame([self._owner.identity.hello()]))
        self._listener.establish(self, hello)

    def _receive(self, messages: list[PeerMessage], received_bytes: int) -> None:
        routed: list[RoutedMessage] = []
        own_id = self._owner.identity.node_id
        for message in messages:
            if isinstance(message, Goodbye):
                self._ended_on_purpose = True
            elif isinstance(message, Hello | Refusal):
                raise ProtocolError(f"a {type(message).__name__} in the middle of a connection")
            elif message.source != self.node_id or message.target != own_id:
                raise ProtocolError(f"a message from {message.source:x} to {message.target:x} came to the wrong place")
            else:
                routed.append(message)
        self._owner.on_incoming_messages(self.node_id, routed, received_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._transport = None
        self.lost.set_result(None)
        # A connection that timed out says nothing new: whoever waited for it has noticed long before.
        reset = not self._ended_on_purpose and (exc is None or isinstance(exc, ConnectionError))
        self._listener.forget(self, reset)

    def abort(self) -> None:
        self._ended_on_purpose = True
        if self._transport is not None:
            self._transport.abort()

    def say_goodbye(self, node_id: NodeId) -> None:
        self._ended_on_purpose = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame([Goodbye(node_id)]))
            self._transport.close()

    def _on_deadline(self) -> None:
        self._deadline = None
        self._listener.complain(self._remote_host(), f"{self._remote_host()} did not say who it is")
        self.abort()

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _remote_host(self) -> str:
        return remote_host(self._transport)


def remote_host(transport: asyncio.BaseTransport | None) -> str:
    """Where a connection comes from, for people."""
    peername = transport.get_extra_info("peername") if transport is not None else None
    return str(peername[0]) if peername else "an unknown address"


__all__ = ["IncomingConnection", "Listener", "ListenerOwner"]
