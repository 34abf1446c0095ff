"""raftkv through its own client library, as an application uses it: sessions on, so every put is exactly-once."""

from typing import Any, Sequence

import raftkv
from raftkv.client.txn import CreateRevision, Put


class RaftkvTarget:
    """One client; it finds the leader among the endpoints by itself."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    async def connect(cls, endpoints: Sequence[str]) -> "RaftkvTarget":
        client = raftkv.connect(",".join(endpoints))
        return cls(await client.__aenter__())

    async def put(self, key: bytes, value: bytes) -> None:
        await self._client.put(key, value)

    async def get(self, key: bytes) -> None:
        await self._client.get(key)

    async def txn(self, key: bytes, value: bytes) -> None:
        await self._client.txn().if_(CreateRevision(key) != 1).then(Put(key, value)).commit()

    async def close(self) -> None:
        await self._client.__aexit__(None, None, None)
