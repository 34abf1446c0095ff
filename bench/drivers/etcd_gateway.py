"""etcd's JSON gateway, or raftkv's, over HTTP/1.1 connections that are kept alive: one request at a time on each, as HTTP/1.1 has it.

As many connections as there are operations in flight, made when they are first needed. Written by hand for the same reason as etcd_h2.py.
"""

import asyncio
import base64
from typing import Sequence, cast


class EtcdGatewayError(Exception):
    """Not 200, or the connection is gone."""


class _Line(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[None] | None = None
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's class is none of asyncio's

    def ask(self, request: bytes) -> "asyncio.Future[None]":
        assert self.transport is not None and self._answered is None, "one at a time"
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, separator, body = self._seen.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        answered, self._answered, self._seen = self._answered, None, b""
        if answered is None or answered.done():
            return
        if b" 200 " in head[:16]:
            answered.set_result(None)
        else:
            answered.set_exception(EtcdGatewayError(f"{head[:60]!r} {body[:200]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(EtcdGatewayError(f"connection lost: {exc}"))


class EtcdGatewayTarget:
    """Connections to the first endpoint."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._free: list[_Line] = []
        self._all: list[_Line] = []

    @classmethod
    async def connect(cls, endpoints: Sequence[str]) -> "EtcdGatewayTarget":
        return cls(endpoints[0])

    async def _post(self, path: str, body: bytes) -> None:
        if self._free:
            line = self._free.pop()
        else:
            host, _, port = self._endpoint.rpartition(":")
            _, line = await asyncio.get_running_loop().create_connection(_Line, host, int(port))
            self._all.append(line)
        head = f"POST {path} HTTP/1.1\r\nHost: {self._endpoint}\r\nContent-Type: application/json\r\n"
        await line.ask(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self._free.append(line)  # one that failed does not come back

    async def put(self, key: bytes, value: bytes) -> None:
        pair = base64.b64encode(key), base64.b64encode(value)
        await self._post("/v3/kv/put", b'{"key":"%b","value":"%b"}' % pair)

    async def get(self, key: bytes) -> None:
        await self._post("/v3/kv/range", b'{"key":"%b"}' % base64.b64encode(key))

    async def txn(self, key: bytes, value: bytes) -> None:
        pair = base64.b64encode(key), base64.b64encode(value)
        compare = b'{"result":"NOT_EQUAL","target":"CREATE","key":"%b","create_revision":"1"}' % pair[0]
        put = b'{"request_put":{"key":"%b","value":"%b"}}' % pair
        await self._post("/v3/kv/txn", b'{"compare":[%b],"success":[%b]}' % (compare, put))

    async def close(self) -> None:
        for line in self._all:
            if line.transport is not None:
                line.transport.abort()
