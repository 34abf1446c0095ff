"""The writes of a client under guards: each is done iff the keys that guard it still are the ones that were created then.

A view without a connection of its own. What a verb means is in requests.py and results.py, as for the clients; the cluster
checks the guards in the write's own command, so there is no moment between the check and the write.
"""

from typing import TYPE_CHECKING, Awaitable, Callable

from raftkv.client import requests
from raftkv.client.requests import Bytes
from raftkv.client.results import DeleteResult, PutResult, TxnResult, delete_result, put_result, txn_result
from raftkv.units import Revision
from raftkv.wire.commands import Answer, Command

if TYPE_CHECKING:
    from raftkv.client.txn import Txn


class Guarded:
    """Guarded writes of a blocking client; `guarded` adds a guard. Reads are not guarded: make them on the client."""

    def __init__(self, write: Callable[[Command, float | None], Answer], guards: list[tuple[bytes, Revision]]) -> None:
        self._send = write
        self._guards = guards

    def guarded(self, key: Bytes, create_revision: Revision) -> "Guarded":
        """Another guard on top: all have to hold."""
        return Guarded(self._send, [*self._guards, (requests.as_bytes(key), create_revision)])

    def _write(self, command: Command, timeout: float | None) -> Answer:
        return self._send(requests.guarded(self._guards, command), timeout)

    def put(
        self, key: Bytes, value: Bytes, *, lease: int = 0, prev_kv: bool = False, timeout: float | None = None
    ) -> PutResult:
        """As the client's."""
        return put_result(self._write(requests.put(key, value, lease, prev_kv), timeout))

    def delete(self, key: Bytes, *, timeout: float | None = None) -> int:
        """As the client's."""
        return delete_result(self._write(requests.delete(key), timeout)).deleted

    def delete_prefix(self, prefix: Bytes, *, timeout: float | None = None) -> int:
        """As the client's."""
        return delete_result(self._write(requests.delete_prefix(prefix), timeout)).deleted

    def delete_range(
        self, key: Bytes, range_end: Bytes, *, prev_kv: bool = False, timeout: float | None = None
    ) -> DeleteResult:
        """As the client's."""
        return delete_result(self._write(requests.delete(key, range_end, prev_kv), timeout))

    def txn(self) -> "Txn[TxnResult]":
        """As the client's; the guards hold for both branches."""
        from raftkv.client.txn import Txn

        return Txn(self._commit)

    def compare_and_set(
        self, key: Bytes, expected: Bytes | None, value: Bytes, *, timeout: float | None = None
    ) -> bool:
        """As the client's."""
        return bool((self._write(requests.compare_and_set(key, expected, value), timeout))[2])

    def put_if_absent(self, key: Bytes, value: Bytes, *, timeout: float | None = None) -> bool:
        """As the client's."""
        return self.compare_and_set(key, None, value, timeout=timeout)

    def increment(self, key: Bytes, delta: int = 1, *, lease: int = 0, timeout: float | None = None) -> int:
        """As the client's."""
        return int((self._write(requests.increment(key, delta, lease), timeout))[2])

    def append(self, key: Bytes, value: Bytes, *, lease: int = 0, timeout: float | None = None) -> int:
        """As the client's."""
        return int((self._write(requests.append(key, value, lease), timeout))[2])

    def _commit(self, command: Command, timeout: float | None) -> TxnResult:
        return txn_result(self._write(command, timeout))


class AsyncGuarded:
    """Guarded writes of an asyncio client; `guarded` adds a guard. Reads are not guarded: make them on the client."""

    def __init__(
        self, write: Callable[[Command, float | None], Awaitable[Answer]], guards: list[tuple[bytes, Revision]]
    ) -> None:
        self._send = write
        self._guards = guards

    def guarded(self, key: Bytes, create_revision: Revision) -> "AsyncGuarded":
        """Another guard on top: all have to hold."""
        return AsyncGuarded(self._send, [*self._guards, (requests.as_bytes(key), create_revision)])

    def _write(self, command: Command, timeout: float | None) -> Awaitable[Answer]:
        return self._send(requests.guarded(self._guards, command), timeout)

    async def put(
        self, key: Bytes, value: Bytes, *, lease: int = 0, prev_kv: bool = False, timeout: float | None = None
    ) -> PutResult:
        """As the client's."""
        return put_result(await self._write(requests.put(key, value, lease, prev_kv), timeout))

    async def delete(self, key: Bytes, *, timeout: float | None = None) -> int:
        """As the client's."""
        return delete_result(await self._write(requests.delete(key), timeout)).deleted

    async def delete_prefix(self, prefix: Bytes, *, timeout: float | None = None) -> int:
        """As the client's."""
        return delete_result(await self._write(requests.delete_prefix(prefix), timeout)).deleted

    async def delete_range(
        self, key: Bytes, range_end: Bytes, *, prev_kv: bool = False, timeout: float | None = None
    ) -> DeleteResult:
        """As the client's."""
        return delete_result(await self._write(requests.delete(key, range_end, prev_kv), timeout))

    def txn(self) -> "Txn[Awaitable[TxnResult]]":
        """As the client's; the guards hold for both branches."""
        from raftkv.client.txn import Txn

        return Txn(self._commit)

    async def compare_and_set(
        self, key: Bytes, expected: Bytes | None, value: Bytes, *, timeout: float | None = None
    ) -> bool:
        """As the client's."""
        return bool((await self._write(requests.compare_and_set(key, expected, value), timeout))[2])

    async def put_if_absent(self, key: Bytes, value: Bytes, *, timeout: float | None = None) -> bool:
        """As the client's."""
        return await self.compare_and_set(key, None, value, timeout=timeout)

    async def increment(self, key: Bytes, delta: int = 1, *, lease: int = 0, timeout: float | None = None) -> int:
        """As the client's."""
        return int((await self._write(requests.increment(key, delta, lease), timeout))[2])

    async def append(self, key: Bytes, value: Bytes, *, lease: int = 0, timeout: float | None = None) -> int:
        """As the client's."""
        return int((await self._write(requests.append(key, value, lease), timeout))[2])

    async def _commit(self, command: Command, timeout: float | None) -> TxnResult:
        return txn_result(await self._write(command, timeout))
