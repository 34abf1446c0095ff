"""Ranks of a training job as clients: bare ones of TCPStore's wire protocol and of raftkv's, one connection each, and raftkv's library.

The bare ones are as thin as Python allows, to compare the servers: no session, no redirection, no retries, and both send what torch's client and
raftkv's recipe send for the same call. An answer of many values is compared, not taken apart, where its length is known beforehand.
"""

import asyncio
import struct
from typing import Any, Protocol, Sequence, cast

import raftkv
from drivers.raftkv_raw import RaftkvRawTarget
from raftkv.recipes.rendezvous import AsyncStore
from raftkv.wire import commands, protocol
from raftkv.wire.watching import UNTIL_EXISTS

VALIDATE, SET, GET, ADD, WAIT, MULTI_GET, PING, BARRIER = 0, 1, 3, 4, 6, 10, 13, 18
MAGIC = 0x3C85F7CE
KEYS_PER_WAIT = 1_000
CONNECTING_MAX = 100  # at once: a listener has a backlog
LEASE_TTL_MS = 600_000
_U64 = struct.Struct("<Q")
_I64 = struct.Struct("<q")


class Rank(Protocol):
    """What a rank of a job does with its store."""

    async def add(self, key: bytes, amount: int) -> int: ...
    async def set(self, key: bytes, value: bytes) -> None: ...
    async def get(self, key: bytes, expected: bytes) -> None: ...
    async def multi_get(self, keys: Sequence[bytes], expected: Sequence[bytes]) -> None: ...
    async def barrier(self, key: bytes, world_size: int) -> None: ...
    def close(self) -> None: ...


class _Stream(asyncio.Protocol):
    """Bytes out, and so many bytes in; one who waits at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._wanted = 0
        self._future: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._future is not None and len(self._buffer) >= self._wanted:
            future, self._future = self._future, None
            if not future.done():
                future.set_result(self._take())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_exception(ConnectionError(f"the store closed the connection: {exc}"))

    def write(self, data: bytes) -> None:
        assert self.transport is not None, "it is connected"
        self.transport.write(data)

    def read(self, size: int) -> "asyncio.Future[bytes]":
        self._wanted = size
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if len(self._buffer) >= size:
            future.set_result(self._take())
        else:
            self._future = future
        return future

    def _take(self) -> bytes:
        taken = bytes(self._buffer[: self._wanted])
        del self._buffer[: self._wanted]
        return taken


def _text(value: bytes) -> bytes:
    return _U64.pack(len(value)) + value


def _count(keys: Sequence[bytes]) -> bytes:
    return _U64.pack(len(keys)) + b"".join(map(_text, keys))


class TcpStoreRank:
    """As torch's client: what reads waits first."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    @classmethod
    async def connect(cls, endpoint: str) -> "TcpStoreRank":
        host, _, port = endpoint.rpartition(":")
        _, stream = await asyncio.get_running_loop().create_connection(_Stream, host, int(port))
        stream.write(bytes((VALIDATE,)) + struct.pack("<I", MAGIC) + bytes((PING,)) + b"here")
        assert await stream.read(4) == b"here", "it was let in"
        return cls(stream)

    async def add(self, key: bytes, amount: int) -> int:
        self._stream.write(bytes((ADD,)) + _text(b"/" + key) + _I64.pack(amount))
        return int(_I64.unpack(await self._stream.read(8))[0])

    async def set(self, key: bytes, value: bytes) -> None:
        self._stream.write(bytes((SET,)) + _text(b"/" + key) + _text(value))

    async def get(self, key: bytes, expected: bytes) -> None:
        name = _text(b"/" + key)
        await self._wait(_U64.pack(1) + name)
        self._stream.write(bytes((GET,)) + name)
        assert await self._stream.read(8 + len(expected)) == _text(expected), "the value is what was written"

    async def multi_get(self, keys: Sequence[bytes], expected: Sequence[bytes]) -> None:
        names = _count([b"/" + key for key in keys])
        await self._wait(names)
        self._stream.write(bytes((MULTI_GET,)) + names)
        values = b"".join(map(_text, expected))
        assert await self._stream.read(len(values)) == values, "the values are what was written"

    async def barrier(self, key: bytes, world_size: int) -> None:
        self._stream.write(bytes((BARRIER,)) + _text(b"/" + key) + _I64.pack(world_size))
        await self._stream.read(1)

    async def _wait(self, names: bytes) -> None:
        self._stream.write(bytes((WAIT,)) + names)
        assert await self._stream.read(1) == b"\0", "all are there"

    def close(self) -> None:
        if self._stream.transport is not None:
            self._stream.transport.abort()


class RaftkvRank:
    """As raftkv's recipe: on a lease of the round, writes fenced by its life, reads that wait in the cluster. The endpoint must be the leader."""

    def __init__(self, target: RaftkvRawTarget, prefix: bytes, lease: int) -> None:
        self._target = target
        self._prefix = prefix
        self._lease = lease
        self._token = 0

    @classmethod
    async def connect(cls, endpoint: str, run: str) -> "RaftkvRank":
        target = await RaftkvRawTarget.connect([endpoint])
        return cls(target, f"rdzv/{run}/0/".encode(), int.from_bytes(run.encode()[-7:]))

    async def begin(self) -> None:
        """Once for all ranks: the lease of the round, and its life."""
        await self._target.ask([commands.LEASE_GRANT, 0, self._lease, LEASE_TTL_MS])
        await self._target.ask([commands.PUT, 0, self._prefix + b"life", b"", self._lease, 0])

    async def add(self, key: bytes, amount: int) -> int:
        return await self._increment(b"k/" + key, amount)

    async def set(self, key: bytes, value: bytes) -> None:
        await self._write([commands.PUT, 0, self._prefix + b"k/" + key, value, self._lease, 0])

    async def get(self, key: bytes, expected: bytes) -> None:
        await self.multi_get([key], [expected])

    async def multi_get(self, keys: Sequence[bytes], expected: Sequence[bytes]) -> None:
        values: list[bytes] = []
        for start in range(0, len(keys), KEYS_PER_WAIT):
            part = [self._prefix + b"k/" + key for key in keys[start : start + KEYS_PER_WAIT]]
            values += [kv[5] for kv in await self._wait(part)]
        assert values == expected, "the values are what was written"

    async def barrier(self, key: bytes, world_size: int) -> None:
        name = b"b/" + key
        if await self._increment(name + b"/n", 1) >= world_size:
            await self._write([commands.PUT, 0, self._prefix + name + b"/open", b"", self._lease, 0])
        else:
            await self._wait([self._prefix + name + b"/open"])

    async def _increment(self, key: bytes, amount: int) -> int:
        return int((await self._write([commands.INCREMENT, 0, self._prefix + key, amount, self._lease]))[2])

    async def _write(self, command: commands.Command) -> commands.Answer:
        """With the first one goes what the recipe does when it enters: it keeps the lease alive, and asks which life this is."""
        life = self._prefix + b"life"
        if not self._token:
            await self._target.ask([protocol.KEEP_ALIVE, [self._lease]])
            self._token = (await self._target.ask([commands.GET, 0, life]))[2][1]
        return await self._target.ask([commands.GUARDED, 0, [[life, self._token]], command])

    async def _wait(self, keys: list[bytes]) -> list[Any]:
        answer = await self._target.ask([protocol.WAIT, UNTIL_EXISTS, True, keys, 0])
        return cast("list[Any]", answer[2])

    def close(self) -> None:
        self._target.abort()


class LibraryRank:
    """raftkv's recipe itself, on a client that ranks of one process share."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store

    async def add(self, key: bytes, amount: int) -> int:
        return await self._store.add(key, amount)

    async def set(self, key: bytes, value: bytes) -> None:
        await self._store.set(key, value)

    async def get(self, key: bytes, expected: bytes) -> None:
        assert await self._store.get(key) == expected, "the value is what was written"

    async def multi_get(self, keys: Sequence[bytes], expected: Sequence[bytes]) -> None:
        assert await self._store.multi_get(keys) == expected, "the values are what was written"

    async def barrier(self, key: bytes, world_size: int) -> None:
        await self._store.barrier(key, world_size)

    def close(self) -> None:
        """The client is closed once for all."""


async def connect(kind: str, endpoint: str, run: str, count: int) -> tuple[Sequence[Rank], raftkv.AsyncClient | None]:
    """So many ranks of a kind: tcpstore, raw or library; a library's client is to be closed afterwards."""
    if kind == "library":
        kv = raftkv.connect(endpoint, timeout=120)
        store = kv.rendezvous(run, 0, ttl=600, timeout=600)
        return [LibraryRank(store) for _ in range(count)], kv
    made: list[Rank] = []
    for start in range(0, count, CONNECTING_MAX):
        some = range(min(CONNECTING_MAX, count - start))
        if kind == "tcpstore":
            made += await asyncio.gather(*(TcpStoreRank.connect(endpoint) for _ in some))
        else:
            made += await asyncio.gather(*(RaftkvRank.connect(endpoint, run) for _ in some))
    return made, None
