"""etcd through etcd-client-py: a Rust core (tonic) under asyncio.

One of its communicators carries one request at a time (it holds a lock around the connection), so a target keeps a pool of them
and a request takes a free one.
"""

import asyncio
import contextlib
from typing import Any, AsyncIterator, Sequence

import etcd_client

COMMUNICATORS_MAX = 128


class EtcdRustTarget:
    """Connections to the first endpoint, made as they are needed."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._sessions: list[Any] = []
        self._free: list[Any] = []
        self._permits = asyncio.Semaphore(COMMUNICATORS_MAX)  # fair: who waits longest goes first

    @classmethod
    async def connect(cls, endpoints: Sequence[str]) -> "EtcdRustTarget":
        target = cls(f"http://{endpoints[0]}")
        target._free.append(await target._open())
        return target

    async def _open(self) -> Any:
        session = etcd_client.Client([self._endpoint]).connect()
        self._sessions.append(session)
        return await session.__aenter__()

    @contextlib.asynccontextmanager
    async def _communicator(self) -> AsyncIterator[Any]:
        async with self._permits:
            communicator = self._free.pop() if self._free else await self._open()
            try:
                yield communicator
            finally:
                self._free.append(communicator)

    async def put(self, key: bytes, value: bytes) -> None:
        async with self._communicator() as communicator:
            await communicator.put(key, value)

    async def get(self, key: bytes) -> None:
        async with self._communicator() as communicator:
            await communicator.get(key)

    async def txn(self, key: bytes, value: bytes) -> None:
        compare = etcd_client.Compare.create_revision(key, etcd_client.CompareOp.NOT_EQUAL, 1)
        txn = etcd_client.Txn().when([compare]).and_then([etcd_client.TxnOp.put(key, value)])
        async with self._communicator() as communicator:
            await communicator.txn(txn)

    async def close(self) -> None:
        for session in self._sessions:
            await session.__aexit__(None, None, None)
