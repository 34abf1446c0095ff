"""The one client port: looks at the first bytes of a connection and hands it to the front door that they ask for.

    RKV1                  the native protocol (wire/protocol.py); its door gets every byte, the preface too
    GET, POST, ...        HTTP/1.1, once the first request's head is complete
    PRI * HTTP/2.0        HTTP/2, for gRPC; refused in its own words when the extra for it is not installed
    anything else         closed

With a certificate the port speaks TLS and nothing else, and the first bytes inside decide in the same way; ALPN offers the same three.

The hand-over is transport.set_protocol in the same process: no pipe, no copy, and the door sees the peer's real address.
A connection that does not say what it wants within the deadline is closed; so is one beyond the bound on connections.
"""

import asyncio
import logging
from typing import Callable, Final, Protocol, cast

from raftkv.daemon.logs import LogLimiter
from raftkv.limits import Limits
from raftkv.transport.addresses import join_address, split_address
from raftkv.transport.tls import TlsContexts, TlsServer
from raftkv.units import Milliseconds
from raftkv.wire.protocol import PREFACE

logger = logging.getLogger(__name__)

HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n"
TLS_HANDSHAKE: Final = b"\x16\x03"
HTTP_METHODS: Final = (
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"PATCH ",
    b"OPTIONS ",
    b"TRACE ",
    b"CONNECT ",
)
HTTP_HEAD_BYTES_MAX: Final = 64 * 1024  # more is handed over as it is: the HTTP door refuses it in its own words
BACKLOG: Final = 1024
HANDSHAKES_MAX: Final = 512  # of TLS, at the same time
FIRST_BYTES_DEADLINE_MS: Final = 5_000
CLOSE_DEADLINE_S: Final = 0.5
FAREWELL_TURNS: Final = 5

NATIVE, HTTP1, HTTP2 = "native", "http/1.1", "http/2"
_TOKENS: Final = ((PREFACE, NATIVE), (HTTP2_PREFACE, HTTP2), *((method, HTTP1) for method in HTTP_METHODS))


class HttpServer(Protocol):
    """A factory of HTTP/1.1 connections that can end them all (aiohttp.web.Server is one)."""

    def __call__(self) -> asyncio.Protocol: ...

    def pre_shutdown(self) -> None: ...

    async def shutdown(self, timeout: float | None = None) -> None: ...


class Http2Door(Protocol):
    """A factory of HTTP/2 connections that can send them elsewhere."""

    def __call__(self) -> asyncio.Protocol: ...

    async def begin_shutdown(self) -> None: ...


def recognize(first_bytes: bytes) -> str | None:
    """The protocol that these bytes begin, "" when more are needed to tell, None when there is none."""
    for token, protocol in _TOKENS:
        if first_bytes.startswith(token):
            return protocol
    return "" if any(token.startswith(first_bytes) for token, _ in _TOKENS) else None


class ClientPort:
    """The listening socket for clients and every connection that came in through it."""

    def __init__(
        self,
        native_factory: Callable[[], asyncio.Protocol],
        http_server: HttpServer,
        limits: Limits,
        *,
        http2_door: Http2Door | None = None,
        first_bytes_deadline_ms: Milliseconds = FIRST_BYTES_DEADLINE_MS,
        limiter: LogLimiter | None = None,
        tls: TlsContexts | None = None,
    ) -> None:
        self.connections_accepted = 0
        self.connections_refused = 0  # over the bound
        self.connections_unrecognized = 0  # not a protocol of ours, or too slow to say so
        self.first_bytes_deadline_ms = first_bytes_deadline_ms
        self.factories: Final[dict[str, Callable[[], asyncio.Protocol]]] = {
            NATIVE: native_factory,
            HTTP1: http_server,
            HTTP2: Http2Refusal if http2_door is None else http2_door,
        }
        self._http_server = http_server
        self._http2_door = http2_door
        self._limits = limits
        self.tls = tls
        self._limiter = limiter or LogLimiter()
        self._server: asyncio.Server | TlsServer | None = None
        self._transports: set[asyncio.Transport] = set()
        self._sweep_at = _SWEEP_MIN

    async def start(self, address: str) -> str:
        """Listen on HOST:PORT; port 0 takes a free one. Returns the bound address. Raises OSError or ConfigError."""
        assert self._server is None, "started once"
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        if self.tls is not None:
            self._server = await self._listen_with(self.tls, host, port)
        else:
            self._server = await loop.create_server(lambda: FirstBytes(self), host, port, backlog=BACKLOG)
        bound_host, bound_port = self._server.sockets[0].getsockname()[:2]
        return join_address(bound_host, bound_port)

    async def _listen_with(self, tls: TlsContexts, host: str, port: int) -> TlsServer:
        server = TlsServer(
            tls,
            lambda: FirstBytes(self),
            handshakes_max=lambda: min(HANDSHAKES_MAX, self._limits.client_connections_max - len(self._transports)),
            on_refused=self.note_unrecognized,
        )
        await server.start(host, port, BACKLOG)
        return server

    async def begin_shutdown(self) -> None:
        """Tell clients that can be told to begin nothing new here."""
        if self._http2_door is not None:
            await self._http2_door.begin_shutdown()

    async def close(self) -> None:
        """Stop accepting, let HTTP finish what it is doing, then close every connection; what clients do not take is lost."""
        if self._server is not None:
            self._server.close()
        for _ in range(FAREWELL_TURNS):
            await asyncio.sleep(0)  # who has heard of the end has something to say, and it has to be written
        self._http_server.pre_shutdown()
        await self._http_server.shutdown(CLOSE_DEADLINE_S)
        for transport in self._transports:
            transport.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CLOSE_DEADLINE_S
        while loop.time() < deadline and any(transport.get_write_buffer_size() for transport in self._transports):
            await asyncio.sleep(0.005)
        for transport in self._transports:
            transport.abort()
        self._transports.clear()
        if isinstance(self._server, TlsServer):
            await self._server.wait_closed()
        await asyncio.sleep(0)  # their connection_lost

    @property
    def connections_open(self) -> int:
        """Connections of all protocols."""
        self._sweep()
        return len(self._transports)

    def admit(self, transport: asyncio.Transport) -> bool:
        """Whether one more connection may stay."""
        self.connections_accepted += 1
        # A connection that was handed over ends without a word to this port: closed ones are swept out when they are many.
        if len(self._transports) >= min(self._sweep_at, self._limits.client_connections_max):
            self._sweep()
        if len(self._transports) >= self._limits.client_connections_max:
            self.connections_refused += 1
            if self._limiter.log_once_per(10, "connections"):
                logger.warning(
                    "closed a client connection at once: %d are open (limit client_connections_max)",
                    len(self._transports),
                )
            return False
        self._transports.add(transport)
        return True

    def note_unrecognized(self, why: str, remote: str) -> None:
        """A connection that is closed because of its first bytes."""
        self.connections_unrecognized += 1
        if self._limiter.log_once_per(60, ("unrecognized", why)):
            logger.info("closed a client connection from %s: %s", remote, why)

    def _sweep(self) -> None:
        self._transports = {transport for transport in self._transports if not transport.is_closing()}
        self._sweep_at = max(_SWEEP_MIN, 2 * len(self._transports))


_SWEEP_MIN: Final = 64


class FirstBytes(asyncio.Protocol):
    """A connection that has not said yet what it speaks."""

    def __init__(self, port: ClientPort) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked by type: the transports of uvloop do not derive from asyncio.Transport. Both loops set TCP_NODELAY.
        stream = cast(asyncio.Transport, transport)
        if not self._port.admit(stream):
            stream.abort()
            return
        self._transport = stream
        seconds = self._port.first_bytes_deadline_ms / 1000
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._on_deadline)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._seen += data
        protocol = recognize(self._seen)
        if protocol is None:
            is_tls = self._seen.startswith(TLS_HANDSHAKE)
            what = (
                "it begins with TLS, which is not spoken here"
                if is_tls
                else "its first bytes are of no protocol that is spoken here"
            )
            self._refuse(what)
        elif protocol and not (protocol == HTTP1 and self._head_is_incomplete()):
            self._hand_over(self._port.factories[protocol]())

    def _head_is_incomplete(self) -> bool:
        # Handed over whole, so that a request that trickles in is bounded by this deadline and not by the HTTP door.
        seen = self._seen
        return b"\r\n\r\n" not in seen and b"\n\n" not in seen and len(seen) < HTTP_HEAD_BYTES_MAX

    def _hand_over(self, door: asyncio.Protocol) -> None:
        transport, seen = self._transport, self._seen
        assert transport is not None, "only an open connection is handed over"
        self._forget()
        transport.set_protocol(door)
        door.connection_made(transport)
        door.data_received(seen)

    def _on_deadline(self) -> None:
        self._deadline = None
        self._refuse("it did not say in time what it speaks")

    def _refuse(self, why: str) -> None:
        transport = self._transport
        assert transport is not None, "only an open connection is refused"
        self._port.note_unrecognized(why, _remote_host(transport))
        self._forget()
        transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._transport = None
        self._seen = b""


def _remote_host(transport: asyncio.BaseTransport) -> str:
    peername = transport.get_extra_info("peername")
    return str(peername[0]) if peername else "an unknown address"


class Http2Refusal(asyncio.Protocol):
    """Says in HTTP/2 that it is not spoken here: SETTINGS, then GOAWAY with HTTP_1_1_REQUIRED (RFC 9113, 6.8 and 7)."""

    REASON: Final = b"HTTP/2 (gRPC, the etcd v3 API) is not served by this member"
    LINGER_S: Final = 1.0

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        self._transport = stream
        goaway = (0).to_bytes(4, "big") + (13).to_bytes(4, "big") + self.REASON
        stream.write(_http2_frame(4, b"") + _http2_frame(7, goaway))
        # Closing with unread bytes resets the connection, and the reset may overtake the refusal: the client closes first.
        if stream.can_write_eof():
            stream.write_eof()
        self._deadline = asyncio.get_running_loop().call_later(self.LINGER_S, stream.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()


def _http2_frame(kind: int, payload: bytes) -> bytes:
    """A frame of stream 0 without flags."""
    return len(payload).to_bytes(3, "big") + bytes((kind, 0)) + (0).to_bytes(4, "big") + payload


__all__ = ["ClientPort", "HttpServer", "recognize"]
