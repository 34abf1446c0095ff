"""TCPStore's bytes in, its bytes out, however the network cuts them. A cluster and torch itself are in tests/pytorch."""

import asyncio
import struct
from typing import Any, Sequence, cast

import pytest

from raftkv.recipes.rendezvous import AsyncStore
from raftkv.torch.proxy import (
    BARRIER,
    LIST_KEYS,
    MULTI_GET,
    MULTI_SET,
    PING,
    SET,
    VALIDATE,
    VALIDATION_MAGIC,
    WAIT,
    Proxy,
)


class DictStore:
    """As much of a store as these requests need."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    async def set(self, key: bytes, value: bytes) -> None:
        self.values[key] = value

    async def multi_set(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self.values.update(zip(keys, values, strict=True))

    async def multi_get(self, keys: Sequence[bytes], timeout: float) -> list[bytes]:
        return [self.values[key] for key in keys]

    async def wait(self, keys: Sequence[bytes], timeout: float) -> None:
        assert all(key in self.values for key in keys)

    async def list_keys(self) -> list[bytes]:
        return list(self.values)

    async def barrier(self, key: bytes, world_size: int, timeout: float) -> None:
        assert world_size == 1


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def many(values: Sequence[bytes]) -> bytes:
    return b"".join(map(text, values))


def counted(keys: Sequence[bytes]) -> bytes:
    return struct.pack("<Q", len(keys)) + many(keys)


KEYS = [b"", b"/a", *(b"/%d" % number for number in range(40)), b"k" * 8192]
VALUES = [b"v" * number for number in range(len(KEYS))]
PAIRS = [part for pair in zip(KEYS, VALUES, strict=True) for part in pair]
TALK = b"".join(
    (
        *(bytes((VALIDATE,)), struct.pack("<I", VALIDATION_MAGIC)),
        *(bytes((MULTI_SET,)), struct.pack("<Q", len(KEYS)), many(PAIRS)),
        *(bytes((WAIT,)), counted(KEYS)),
        *(bytes((MULTI_GET,)), counted(KEYS)),
        *(bytes((SET,)), text(b"/last"), text(b"")),
        *(bytes((LIST_KEYS,)),),
        *(bytes((BARRIER,)), text(b"/b"), struct.pack("<q", 1)),
        *(bytes((PING,)), b"ping"),
    )
)
ANSWERS = b"".join(
    (b"\0", many(VALUES), struct.pack("<q", len(KEYS) + 1), many([*KEYS, b"/last"]), b"\0", b"ping"),
)


async def said_to(pieces: Sequence[bytes], until_bytes: int) -> bytes:
    async with Proxy(cast(AsyncStore, DictStore())) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            return await asyncio.wait_for(reader.read() if until_bytes < 0 else reader.readexactly(until_bytes), 60)
        finally:
            writer.close()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 100, len(TALK)])
async def test_requests_may_come_in_any_pieces(size: int) -> None:
    pieces = [TALK[start : start + size] for start in range(0, len(TALK), size)]
    assert await said_to(pieces, len(ANSWERS)) == ANSWERS


@pytest.mark.parametrize(
    "words",
    [
        bytes((VALIDATE,)) + b"HTTP",
        bytes((99,)),
        bytes((WAIT,)) + struct.pack("<Q", 1 << 40),
        bytes((MULTI_GET,)) + struct.pack("<QQ", 2, 8193) + b"k" * 8193,
        bytes((MULTI_GET,)) + struct.pack("<QQ", 2, 1) + b"k" + struct.pack("<Q", 8193) + b"k" * 8193,
        bytes((SET,)) + text(b"/k") + struct.pack("<Q", (8 << 20) + 1),
    ],
)
async def test_what_is_no_request_ends_the_connection(words: bytes, caplog: Any) -> None:
    assert await said_to([words], -1) == b""
    assert "a connection is closed" in caplog.text
