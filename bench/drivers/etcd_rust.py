"""etcd through etcd-client-py: a Rust core (tonic) under asyncio.

One of its communicators carries one request at a time (it holds a lock around the connection), so a target keeps a pool of them
and a request takes a free one.
"""

import asyncio
from typing import Any, Sequence

import etcd_client

COMMUNICATORS_MAX = 128


class EtcdRustTarget:
    """Connections to the first endpoint, made as they are needed."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._sessions: list[Any] = []
        self._free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()

    @classmethod
    async def connect(cls, endpoints: Sequence[str]) -> "EtcdRustTarget":
        target = cls(f"http://{endpoints[0]}")
        await target._open()
        return target

    async def _open(self) -> None:
        session = etcd_client.Client([self._endpoint]).connect()
        self._sessions.append(session)
        self._free.put_nowait(await session.__aenter__())

    async def _take(self) -> Any:
        if self._free.empty() and len(self._sessions) < COMMUNICATORS_MAX:
            await self._open()
        return await self._free.get()

    async def put(self, key: bytes, value: bytes) -> None:
        communicator = await self._take()
        try:
            await communicator.put(key, value)
        finally:
            self._free.put_nowait(communicator)

    async def get(self, key: bytes) -> None:
        communicator = await self._take()
        try:
            await communicator.get(key)
        finally:
            self._free.put_nowait(communicator)

    async def close(self) -> None:
        for session in self._sessions:
            await session.__aexit__(None, None, None)
