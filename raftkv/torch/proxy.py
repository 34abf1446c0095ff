"""TCPStore's wire protocol in front of a raftkv cluster: unmodified scripts see a TCPStore, and behind it any member may die.

One listener serves one (run id, round); it belongs next to the workers, on loopback, for that protocol knows neither logins nor names of
jobs. A connection's requests are carried out in order; a WAIT can be called off by the next request (CANCEL_WAIT). What a write could
not do cannot be said, as writes have no answer: then the connection is closed, and the client reports it at its next request.
"""

import asyncio
import logging
import struct
from typing import Any, Awaitable, Callable, Final

from raftkv.errors import DeadlineExceeded, QueueEmpty, RaftKVError
from raftkv.recipes.rendezvous import AsyncStore

logger = logging.getLogger(__name__)

VALIDATION_MAGIC: Final = 0x3C85F7CE
KEY_BYTES_MAX: Final = 8 * 1024
VALUE_BYTES_MAX: Final = 8 * 1024 * 1024
KEYS_MAX: Final = 128 * 1024
READ_BYTES: Final = 256 * 1024
FOR_EVER_S: Final = 1e6  # the client's timeout counts: it calls its wait off

(VALIDATE, SET, COMPARE_SET, GET, ADD, CHECK, WAIT, NUM_KEYS, DELETE_KEY, APPEND, MULTI_GET, MULTI_SET) = range(12)
(CANCEL_WAIT, PING, QUEUE_PUSH, QUEUE_POP, QUEUE_LEN, LIST_KEYS, BARRIER) = range(12, 19)
_READY: Final = b"\0"
_NOT_READY: Final = b"\1"
_CANCELED: Final = b"\1"
_U64: Final = struct.Struct("<Q")
_I64: Final = struct.Struct("<q")
_U32: Final = struct.Struct("<I")


class _Broken(Exception):
    """The client does not speak this protocol."""


class Proxy:
    """The listener. `async with Proxy(store, "127.0.0.1", 0) as proxy: proxy.port`."""

    def __init__(self, store: AsyncStore, host: str = "127.0.0.1", port: int = 0) -> None:
        self._store = store
        self._host = host
        self.port = port
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Proxy":
        """Listen. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None, "it was entered"
        self._server.close()
        for line in tuple(self._lines):
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a server makes a task of each connection"
        self._lines.add(task)
        try:
            await _Line(self._store, reader, writer).run()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except _Broken as error:
            logger.warning("a connection is closed: %s", error)
        except RaftKVError as error:
            logger.warning("a connection is closed because its request cannot be carried out: %s", error)
        finally:
            self._lines.discard(task)
            writer.transport.abort()


class _Line:
    """One client."""

    def __init__(self, store: AsyncStore, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._store = store
        self._reader = reader
        self._buffer, self._at = b"", 0  # what was received, and how far it is read
        self._writer = writer
        self._waiting: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until it ends. Raises what ends it."""
        try:
            while True:
                operation = (await self._take(1))[0]
                if self._waiting is not None and operation != CANCEL_WAIT:
                    await self._waiting  # in order
                    self._waiting = None
                handler = _HANDLERS.get(operation)
                if handler is None:
                    raise _Broken(f"operation {operation} is not known")
                await handler(self)
                await self._writer.drain()
        finally:
            if self._waiting is not None:
                self._waiting.cancel()

    # Reading.

    async def _take(self, size: int) -> bytes:
        """So many bytes."""
        await self._have(size)
        self._at += size
        return self._buffer[self._at - size : self._at]

    async def _have(self, size: int) -> None:
        """Wait until so many can be read from the buffer: a request for a thousand keys is not two thousand waits."""
        while len(self._buffer) - self._at < size:
            more = await self._reader.read(READ_BYTES)
            if not more:
                raise asyncio.IncompleteReadError(b"", size)
            self._buffer = self._buffer[self._at :] + more
            self._at = 0

    async def _u64(self) -> int:
        return int(_U64.unpack(await self._take(8))[0])

    async def _i64(self) -> int:
        return int(_I64.unpack(await self._take(8))[0])

    async def _bytes(self, bytes_max: int) -> bytes:
        size = await self._u64()
        if size > bytes_max:
            raise _Broken(f"{size} bytes where {bytes_max} are allowed")
        return await self._take(size)

    async def _key(self) -> bytes:
        return await self._bytes(KEY_BYTES_MAX)

    async def _value(self) -> bytes:
        return await self._bytes(VALUE_BYTES_MAX)

    async def _keys(self) -> list[bytes]:
        count = await self._u64()
        if count > KEYS_MAX:
            raise _Broken(f"{count} keys where {KEYS_MAX} are allowed")
        keys: list[bytes] = []
        while len(keys) < count:
            keys.append(await self._key())
            self._keys_that_are_here(keys, count)
        return keys

    def _keys_that_are_here(self, keys: list[bytes], count: int) -> None:
        """Those that are in the buffer as a whole."""
        buffer, at, end = self._buffer, self._at, len(self._buffer)
        while len(keys) < count and at + 8 <= end:
            size = _U64.unpack_from(buffer, at)[0]
            if size > KEY_BYTES_MAX or at + 8 + size > end:
                break
            keys.append(buffer[at + 8 : at + 8 + size])
            at += 8 + size
        self._at = at

    # Writing.

    def _say(self, value: bytes) -> None:
        self._writer.write(_U64.pack(len(value)) + value)

    def _say_number(self, number: int) -> None:
        self._writer.write(_I64.pack(number))

    # Requests.

    async def _validate(self) -> None:
        if _U32.unpack(await self._take(4))[0] != VALIDATION_MAGIC:
            raise _Broken("it is no client of TCPStore")

    async def _ping(self) -> None:
        self._writer.write(await self._take(4))

    async def _set(self) -> None:
        key, value = await self._key(), await self._value()
        await self._store.set(key, value)

    async def _compare_set(self) -> None:
        key, expected, desired = await self._key(), await self._value(), await self._value()
        self._say(await self._store.compare_set(key, expected, desired))

    async def _get(self) -> None:
        self._say(await self._store.get(await self._key(), FOR_EVER_S))

    async def _add(self) -> None:
        key, amount = await self._key(), await self._i64()
        self._say_number(await self._store.add(key, amount))

    async def _check(self) -> None:
        self._writer.write(_READY if await self._store.check(await self._keys()) else _NOT_READY)

    async def _wait(self) -> None:
        keys = await self._keys()

        async def wait() -> None:
            await self._store.wait(keys, FOR_EVER_S)
            self._writer.write(_READY)

        self._waiting = asyncio.get_running_loop().create_task(wait())
        self._waiting.add_done_callback(self._on_waited)

    def _on_waited(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self._writer.transport.abort()  # a wait that cannot be is told by the end of the connection

    async def _cancel_wait(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        self._writer.write(_CANCELED)

    async def _num_keys(self) -> None:
        self._say_number(await self._store.num_keys())

    async def _delete_key(self) -> None:
        self._say_number(int(await self._store.delete_key(await self._key())))

    async def _append(self) -> None:
        key, value = await self._key(), await self._value()
        await self._store.append(key, value)

    async def _multi_get(self) -> None:
        values = await self._store.multi_get(await self._keys(), FOR_EVER_S)
        self._writer.write(b"".join([_U64.pack(len(value)) + value for value in values]))

    async def _multi_set(self) -> None:
        count = await self._u64()
        if count > KEYS_MAX:
            raise _Broken(f"{count} keys where {KEYS_MAX} are allowed")
        pairs = [(await self._key(), await self._value()) for _ in range(count)]
        await self._store.multi_set([key for key, _ in pairs], [value for _, value in pairs])

    async def _queue_push(self) -> None:
        key, value = await self._key(), await self._value()
        await self._store.queue_push(key, value)

    async def _queue_pop(self) -> None:
        key = await self._key()
        try:
            value = await self._store.queue_pop(key, block=False)
        except QueueEmpty:
            self._say_number(0)
        else:
            self._say_number(1)
            self._say(value)

    async def _queue_len(self) -> None:
        self._say_number(await self._store.queue_len(await self._key()))

    async def _list_keys(self) -> None:
        keys = await self._store.list_keys()
        self._writer.write(_I64.pack(len(keys)) + b"".join([_U64.pack(len(key)) + key for key in keys]))

    async def _barrier(self) -> None:
        key, world_size = await self._key(), await self._i64()

        async def wait() -> None:
            try:
                await self._store.barrier(key, world_size, FOR_EVER_S)
            except DeadlineExceeded:
                return
            self._writer.write(_READY)

        self._waiting = asyncio.get_running_loop().create_task(wait())
        self._waiting.add_done_callback(self._on_waited)


_HANDLERS: Final[dict[int, Callable[[Any], Awaitable[None]]]] = {
    VALIDATE: _Line._validate,
    SET: _Line._set,
    COMPARE_SET: _Line._compare_set,
    GET: _Line._get,
    ADD: _Line._add,
    CHECK: _Line._check,
    WAIT: _Line._wait,
    NUM_KEYS: _Line._num_keys,
    DELETE_KEY: _Line._delete_key,
    APPEND: _Line._append,
    MULTI_GET: _Line._multi_get,
    MULTI_SET: _Line._multi_set,
    CANCEL_WAIT: _Line._cancel_wait,
    PING: _Line._ping,
    QUEUE_PUSH: _Line._queue_push,
    QUEUE_POP: _Line._queue_pop,
    QUEUE_LEN: _Line._queue_len,
    LIST_KEYS: _Line._list_keys,
    BARRIER: _Line._barrier,
}

__all__ = ["Proxy"]
