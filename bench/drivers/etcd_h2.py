"""etcd, or whoever speaks its gRPC, through the thinnest client that Python can be: HTTP/2 frames written by hand on one asyncio.Protocol.

It exists to be fair to etcd on a small machine, where the client's own CPU takes throughput away from the servers. It speaks just
enough of RFC 9113 for unary gRPC to one server: constant header blocks without compression state, flow control in both
directions, and answers that are judged by their trailers. Not a general client: anything unexpected closes the connection.
"""

import asyncio
from collections import deque
from typing import Sequence, cast

from drivers.etcd_messages import PUT_PATH, RANGE_PATH, TXN_PATH, put_request, range_request, txn_request

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_WINDOW_BYTES = 1 << 30  # what the server may send: answers are small, never hold it back
_STREAM_ID_MAX = (1 << 31) - 1
# With a header table of size 0 the server's encoder keeps no state, so the trailers of every success are the same bytes: they are
# judged once and compared from then on.
_SETTINGS_PAYLOAD = (
    b"\x00\x01" + (0).to_bytes(4, "big")  # HEADER_TABLE_SIZE
    + b"\x00\x04" + _WINDOW_BYTES.to_bytes(4, "big")  # INITIAL_WINDOW_SIZE
)  # fmt: skip


class EtcdH2Error(Exception):
    """etcd refused the request, or the connection is gone."""


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field that is never put into the dynamic table (RFC 7541 6.2.2, new name, no huffman coding)."""
    assert max(len(name), len(value)) < 127, "one-byte lengths are enough here"
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def _header_block(path: str, authority: str) -> bytes:
    return b"".join(
        _literal(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", authority.encode()),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )


class _Connection(asyncio.Protocol):
    """Frames in, futures out. Requests of one loop turn leave in one write."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._next_stream_id = 1
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._out: list[bytes] = []
        self._held: deque[tuple[asyncio.Future[None], bytes, bytes]] = deque()
        self._send_window_bytes = 65_535
        self._streams_max = 1 << 30
        self._received_bytes = 0
        self._good_trailers: bytes | None = None

    # Sending.

    def request(self, header_block: bytes, message: bytes) -> "asyncio.Future[None]":
        """Send one unary call; the future ends with its trailers."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self.closed is not None:
            future.set_exception(self.closed)
            return future
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        assert len(body) <= 16_384, "one DATA frame per request"
        if self._held or len(self._waiting) >= self._streams_max or self._send_window_bytes < len(body):
            self._held.append((future, header_block, body))
        else:
            self._send(future, header_block, body)
        return future

    def _send(self, future: "asyncio.Future[None]", header_block: bytes, body: bytes) -> None:
        stream_id = self._next_stream_id
        assert stream_id < _STREAM_ID_MAX, "a run is too short to use up the streams of a connection"
        self._next_stream_id += 2
        self._waiting[stream_id] = future
        self._send_window_bytes -= len(body)
        if not self._out:
            self._loop.call_soon(self._flush)
        encoded_id = stream_id.to_bytes(4, "big")
        self._out.append(
            b"".join(
                (
                    len(header_block).to_bytes(3, "big"), b"\x01\x04", encoded_id, header_block,
                    len(body).to_bytes(3, "big"), b"\x00\x01", encoded_id, body,
                )
            )
        )  # fmt: skip

    def _flush(self) -> None:
        if self.transport is not None and self._out:
            self.transport.write(b"".join(self._out))
        self._out.clear()

    def _release_held(self) -> None:
        held = self._held
        while held and len(self._waiting) < self._streams_max and self._send_window_bytes >= len(held[0][2]):
            self._send(*held.popleft())

    # Receiving.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's class is none of asyncio's
        window_update = _frame(_WINDOW_UPDATE, 0, 0, (_WINDOW_BYTES - 65_535).to_bytes(4, "big"))
        self.transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, _SETTINGS_PAYLOAD) + window_update)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        position, end = 0, len(buffer)
        while end - position >= 9:
            length = int.from_bytes(buffer[position : position + 3], "big")
            after = position + 9 + length
            if after > end:
                break
            kind, flags = buffer[position + 3], buffer[position + 4]
            if kind == _HEADERS:
                if flags & _END_STREAM:
                    stream_id = int.from_bytes(buffer[position + 5 : position + 9], "big")
                    self._on_trailers(stream_id, buffer[position + 9 : after])
            elif kind == _DATA:
                self._received_bytes += length
            else:
                stream_id = int.from_bytes(buffer[position + 5 : position + 9], "big")
                self._on_rare(kind, flags, stream_id, buffer[position + 9 : after])
            position = after
        self._buffer = buffer[position:]
        if self._received_bytes > _WINDOW_BYTES // 2 and self.transport is not None:
            self.transport.write(_frame(_WINDOW_UPDATE, 0, 0, self._received_bytes.to_bytes(4, "big")))
            self._received_bytes = 0
        if self._held:
            self._release_held()

    def _on_trailers(self, stream_id: int, block: bytes) -> None:
        future = self._waiting.pop(stream_id, None)
        if future is None or future.done():
            return
        if block == self._good_trailers:
            future.set_result(None)
            return
        if self._good_trailers is None and _is_success(block):
            self._good_trailers = block
            future.set_result(None)
            return
        future.set_exception(EtcdH2Error(f"etcd refused the request: {block!r}"))

    def _on_rare(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        assert self.transport is not None
        if kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(payload), 6):
                if payload[at : at + 2] == b"\x00\x03":
                    self._streams_max = int.from_bytes(payload[at + 2 : at + 6], "big")
            self.transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self.transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE and stream_id == 0:
            self._send_window_bytes += int.from_bytes(payload, "big")
        elif kind == _RST_STREAM:
            future = self._waiting.pop(stream_id, None)
            if future is not None and not future.done():
                future.set_exception(EtcdH2Error("etcd reset the stream"))
        elif kind in (_GOAWAY, _CONTINUATION):
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = EtcdH2Error(f"connection to etcd lost: {exc}")
        for future in [*self._waiting.values(), *(held[0] for held in self._held)]:
            if not future.done():
                future.set_exception(self.closed)
        self._waiting.clear()
        self._held.clear()


def _is_success(block: bytes) -> bool:
    """Does a trailers block say grpc-status 0? The name huffman-coded as Go writes it (RFC 7541 appendix B), or plain; then length 1, "0"."""
    return b"\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x01\x30" in block or b"\x0bgrpc-status\x010" in block


class EtcdH2Target:
    """One connection to the first endpoint."""

    def __init__(self, connection: _Connection, authority: str) -> None:
        self._connection = connection
        self._put_headers = _header_block(PUT_PATH, authority)
        self._range_headers = _header_block(RANGE_PATH, authority)
        self._txn_headers = _header_block(TXN_PATH, authority)

    @classmethod
    async def connect(cls, endpoints: Sequence[str]) -> "EtcdH2Target":
        host, _, port = endpoints[0].rpartition(":")
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, host, int(port))
        return cls(connection, endpoints[0])

    async def put(self, key: bytes, value: bytes) -> None:
        await self._connection.request(self._put_headers, put_request(key, value))

    async def get(self, key: bytes) -> None:
        await self._connection.request(self._range_headers, range_request(key))

    async def txn(self, key: bytes, value: bytes) -> None:
        await self._connection.request(self._txn_headers, txn_request(key, value))

    async def close(self) -> None:
        if self._connection.transport is not None:
            self._connection.transport.abort()
