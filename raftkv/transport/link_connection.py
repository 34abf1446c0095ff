"""One outgoing connection to a peer: the dialler's half of the handshake, then bytes out.

What a link does about it (dial again, report, keep queues) is not decided here. A peer that takes nothing, because of a
black hole or because its process is stopped, is given up: its next connection tells the truth.
"""

import asyncio
import os
import ssl
from typing import Any, Protocol, cast

from raftkv.errors import ClusterMismatch, ProtocolError, RaftKVError, Unreachable
from raftkv.transport.direct import socket_of, write_at_once
from raftkv.transport.frames import (
    HELLO_FRAME_BYTES_MAX,
    FrameReader,
    Goodbye,
    Hello,
    PeerMessage,
    Refusal,
    encode_frame,
)
from raftkv.transport.handshake import Identity
from raftkv.transport.settings import LinkSettings, round_trip_seconds
from raftkv.transport.tls import describe
from raftkv.units import NodeId


class LinkHost(Protocol):
    """What a connection needs from the link that made it."""

    identity: Identity
    settings: LinkSettings

    def judge(self, hello: Hello, transport: asyncio.BaseTransport) -> str | None:
        """Why the member that answered is not the one that was dialled; None when it is."""
        ...

    def on_writable(self) -> None: ...

    def on_connection_lost(self, connection: "LinkConnection") -> None: ...


class LinkConnection(asyncio.Protocol):
    """One connection of a link. `greeted` ends with the handshake, `lost` (a reason) with the connection."""

    def __init__(self, host: LinkHost) -> None:
        loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.greeted.add_done_callback(retrieve_error)
        self.lost: asyncio.Future[str] = loop.create_future()
        self.writing_paused = False
        self._host = host
        self._reader = FrameReader(HELLO_FRAME_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        self._is_encrypted = False
        self._stall_check: asyncio.TimerHandle | None = None
        self._reason = "the peer closed the connection"

    def write(self, data: bytes) -> None:
        assert self._transport is not None, "only an open connection is written to"
        assert self.greeted.done(), "only a greeted connection is written to"
        if not self._transport.is_closing():
            write_at_once(self._transport, self._descriptor, data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def say_goodbye(self, node_id: NodeId) -> None:
        """End on purpose: the peer must not take it for a crash."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame([Goodbye(node_id)]))
            self._transport.close()

    def round_trip_seconds(self) -> float | None:
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return None if sock is None else round_trip_seconds(sock)

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked by type: the transports of uvloop do not derive from asyncio.Transport.
        self._transport = stream = cast(asyncio.Transport, transport)
        self._descriptor = socket_of(stream)
        self._is_encrypted = stream.get_extra_info("sslcontext") is not None
        stream.set_write_buffer_limits(high=self._host.settings.write_buffer_bytes_high)
        stream.write(encode_frame([self._host.identity.hello()]))

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                self._receive(message)
        except RaftKVError as error:
            self._fail(error)

    def _receive(self, message: PeerMessage) -> None:
        if isinstance(message, Hello) and not self.greeted.done():
            assert self._transport is not None, "data comes from open connections"
            refusal = self._host.judge(message, self._transport)
            if refusal is not None:
                raise ClusterMismatch(refusal)
            self.greeted.set_result(None)
        elif isinstance(message, Refusal) and not self.greeted.done():
            raise ClusterMismatch(f"refused: {message.reason}")
        elif isinstance(message, Goodbye):
            self._reason = "the peer said goodbye"
        else:
            raise ProtocolError(f"a {type(message).__name__} came the wrong way")

    def _fail(self, error: RaftKVError) -> None:
        self._reason = error.message
        if not self.greeted.done():
            self.greeted.set_exception(error)
        self.abort()

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._arm_stall_check()

    def resume_writing(self) -> None:
        self.writing_paused = False
        self._disarm_stall_check()
        self._host.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm_stall_check()
        self._transport = None
        if exc is not None:
            self._reason = describe_error(exc)
        if not self.greeted.done():
            hint = "" if self._is_encrypted else " (does it speak TLS?)"
            self.greeted.set_exception(Unreachable(f"{self._reason} during the handshake{hint}"))
        self.lost.set_result(self._reason)
        self._host.on_connection_lost(self)

    def _arm_stall_check(self) -> None:
        assert self._transport is not None, "only an open connection pauses"
        delay = self._host.settings.dead_after_ms / 1000
        size = self._transport.get_write_buffer_size()
        self._stall_check = asyncio.get_running_loop().call_later(delay, self._check_stalled, size)

    def _disarm_stall_check(self) -> None:
        if self._stall_check is not None:
            self._stall_check.cancel()
            self._stall_check = None

    def _check_stalled(self, size_before: int) -> None:
        assert self._transport is not None, "disarmed with the connection"
        assert self.writing_paused, "disarmed when writing resumes"
        if self._transport.get_write_buffer_size() < size_before:
            self._arm_stall_check()
            return
        self._reason = f"took nothing for {self._host.settings.dead_after_ms} ms"
        self._transport.abort()


def retrieve_error(future: "asyncio.Future[Any]") -> None:
    """Whoever waited may have gone: an error nobody fetches is none."""
    if not future.cancelled():
        future.exception()


def describe_error(error: BaseException) -> str:
    if isinstance(error, RaftKVError):
        return error.message
    if isinstance(error, TimeoutError) and not error.args:
        return "no answer to the connection attempt"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {describe(error)}"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio puts texts of its own in place of "Connection refused"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


__all__ = ["LinkConnection", "LinkHost", "describe_error", "retrieve_error"]
