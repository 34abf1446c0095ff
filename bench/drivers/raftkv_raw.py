"""raftkv's native protocol on a bare asyncio.Protocol: the counterpart of etcd_h2.py, to compare servers and not libraries.

No session, no redirection, no retries: the first endpoint must be the leader.
"""

import asyncio
from typing import Any, Sequence, cast

from raftkv.limits import DEFAULT_LIMITS
from raftkv.wire import commands, protocol


class RaftkvRawError(Exception):
    """raftkv refused the request, or the connection is gone."""


class _Connection(asyncio.Protocol):
    """Frames in, futures out. Requests of one loop turn leave in one write."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._unpacker = protocol.new_unpacker(DEFAULT_LIMITS)
        self._pack = protocol.new_packer().pack
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._next_id = 1
        self._out: list[bytes] = []

    def request(self, command: list[Any]) -> "asyncio.Future[Any]":
        """Send one command; the future ends with its answer."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.closed is not None:
            future.set_exception(self.closed)
            return future
        if not self._out:
            self._loop.call_soon(self._flush)
        request_id = self._next_id
        self._next_id += 1
        self._waiting[request_id] = future
        self._out.append(self._pack([request_id, 0, command]))
        return future

    def _flush(self) -> None:
        if self.transport is not None and self._out:
            self.transport.write(b"".join(self._out))
        self._out.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's class is none of asyncio's
        self.transport.write(protocol.PREFACE)

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        waiting = self._waiting
        for request_id, answer in self._unpacker:
            future = waiting.pop(request_id, None)
            if future is None or future.done():
                continue
            if answer[0] == commands.OK:
                future.set_result(answer)
            else:
                future.set_exception(RaftkvRawError(f"{answer[1]}: {answer[3]}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = RaftkvRawError(f"connection to raftkv lost: {exc}")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self.closed)
        self._waiting.clear()


class RaftkvRawTarget:
    """One connection to the first endpoint."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, endpoints: Sequence[str]) -> "RaftkvRawTarget":
        host, _, port = endpoints[0].rpartition(":")
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, host, int(port))
        options = protocol.hello_options(cluster_name=None, session=None, client="bench")
        await connection.request([protocol.HELLO, options])
        return cls(connection)

    async def put(self, key: bytes, value: bytes) -> None:
        await self._connection.request([commands.PUT, 0, key, value, 0, 0])

    async def get(self, key: bytes) -> None:
        await self._connection.request([commands.GET, 0, key])

    async def txn(self, key: bytes, value: bytes) -> None:
        compare = [commands.NOT_EQUAL, commands.COMPARE_CREATE, key, 1, b""]
        await self._connection.request([commands.TXN, 0, [compare], [[commands.PUT, 0, key, value, 0, 0]], []])

    async def ask(self, command: list[Any]) -> list[Any]:
        """Any command; its answer."""
        return cast("list[Any]", await self._connection.request(command))

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._connection.transport is not None:
            self._connection.transport.abort()
