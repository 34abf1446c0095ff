"""The verbs of leases and of guarded writes, a mixin for each of the two clients (client.py, sync.py), so that one page shows both.

Imported by the command line with every verb, so it imports little; what keeps leases alive is loaded with the first one.
"""

from typing import TYPE_CHECKING, Awaitable

from raftkv.client import requests
from raftkv.client.requests import Bytes, as_bytes
from raftkv.client.results import GrantedLease, LeaseInfo, granted_lease, lease_info, renewed_ttl
from raftkv.units import Revision
from raftkv.wire.commands import Answer, Command

if TYPE_CHECKING:
    from raftkv.client.guarded import AsyncGuarded, Guarded
    from raftkv.client.keptlease import Keeper, KeptLease
    from raftkv.client.keptlease_async import AsyncKeeper, AsyncKeptLease


class LeaseVerbs:
    """Of the blocking client."""

    def _write(self, command: Command, timeout: float | None) -> Answer:
        raise NotImplementedError

    def _read(self, command: Command, stale: bool, timeout: float | None) -> Answer:
        raise NotImplementedError

    def _ask_leader(self, command: Command, timeout: float | None) -> Answer:
        raise NotImplementedError

    def _lease_keeper(self) -> "Keeper":
        raise NotImplementedError

    def lease(self, ttl: float, *, timeout: float | None = None, shared_id: int = 0) -> "KeptLease":
        """A lease that lives as long as its block, however long that is: `with kv.lease(10) as lease:`.

        It is granted on entry, kept alive beside your code, and revoked on exit, with its keys. `lease.lost` is set when it is surely or
        possibly gone, `lease.valid_for` says for how many seconds it surely is not. `ttl` is how long it outlives this process,
        `timeout` the deadline of the grant. `shared_id`: a lease of this id that several keep alive together: the first one grants it, and it
        ends, with its keys, when the last one has stopped for as long as `ttl`.
        """
        from raftkv.client.keptlease import KeptLease

        return KeptLease(self, self._lease_keeper, ttl, timeout, shared_id)

    def lease_grant(self, ttl: float, *, lease_id: int = 0, timeout: float | None = None) -> GrantedLease:
        """A lease that expires after `ttl` seconds unless it is kept alive; then the keys that were put with it are deleted.

        A short `ttl` is raised to the cluster's minimum (2 s by default), see the result. `lease_id` 0: the cluster draws one. Raises
        LeaseExists, TooManyLeases, LeaseTtlTooLarge, or InvalidRequest for 0 or less.
        """
        return granted_lease(self._write(requests.lease_grant(ttl, lease_id), timeout))

    def lease_revoke(self, lease_id: int, *, timeout: float | None = None) -> int:
        """End a lease and delete its keys, at one revision. Returns how many keys. Raises LeaseNotFound."""
        return int((self._write(requests.lease_revoke(lease_id), timeout))[2])

    def lease_keep_alive_once(self, lease_id: int, *, timeout: float | None = None) -> float:
        """Give a lease its whole time again. Returns that time in seconds, counted from before this call. Raises LeaseNotFound."""
        return renewed_ttl(self._ask_leader(requests.keep_alive([lease_id]), timeout), lease_id)

    def lease_ttl(self, lease_id: int, *, keys: bool = False, timeout: float | None = None) -> LeaseInfo:
        """How long a lease lives, and with `keys` what hangs on it. Raises LeaseNotFound."""
        return lease_info(self._ask_leader(requests.lease_ttl(lease_id, keys), timeout), lease_id)

    def leases(self, *, timeout: float | None = None) -> list[int]:
        """The ids of all leases, in order."""
        return sorted(self._read(requests.leases(), False, timeout)[2])

    def guarded(self, key: Bytes, create_revision: Revision) -> "Guarded":
        """The writes of this client, each done only if `key` still exists as it was created at `create_revision`.

        The pair is a fencing token: who has lost a lock can write nothing any more, however late it learns of that. A write that is
        refused raises FencingTokenStale and has changed nothing.
        """
        from raftkv.client.guarded import Guarded

        return Guarded(self._write, [(as_bytes(key), create_revision)])


class AsyncLeaseVerbs:
    """Of the asyncio client."""

    def _write(self, command: Command, timeout: float | None) -> Awaitable[Answer]:
        raise NotImplementedError

    def _read(self, command: Command, stale: bool, timeout: float | None) -> Awaitable[Answer]:
        raise NotImplementedError

    def _ask_leader(self, command: Command, timeout: float | None) -> Awaitable[Answer]:
        raise NotImplementedError

    def _lease_keeper(self) -> "AsyncKeeper":
        raise NotImplementedError

    def lease(self, ttl: float, *, timeout: float | None = None, shared_id: int = 0) -> "AsyncKeptLease":
        """A lease that lives as long as its block, however long that is: `with kv.lease(10) as lease:`.

        It is granted on entry, kept alive beside your code, and revoked on exit, with its keys. `lease.lost` is set when it is surely or
        possibly gone, `lease.valid_for` says for how many seconds it surely is not. `ttl` is how long it outlives this process,
        `timeout` the deadline of the grant. `shared_id`: a lease of this id that several keep alive together: the first one grants it, and it
        ends, with its keys, when the last one has stopped for as long as `ttl`.
        """
        from raftkv.client.keptlease_async import AsyncKeptLease

        return AsyncKeptLease(self, self._lease_keeper, ttl, timeout, shared_id)

    async def lease_grant(self, ttl: float, *, lease_id: int = 0, timeout: float | None = None) -> GrantedLease:
        """A lease that expires after `ttl` seconds unless it is kept alive; then the keys that were put with it are deleted.

        A short `ttl` is raised to the cluster's minimum (2 s by default), see the result. `lease_id` 0: the cluster draws one. Raises
        LeaseExists, TooManyLeases, LeaseTtlTooLarge, or InvalidRequest for 0 or less.
        """
        return granted_lease(await self._write(requests.lease_grant(ttl, lease_id), timeout))

    async def lease_revoke(self, lease_id: int, *, timeout: float | None = None) -> int:
        """End a lease and delete its keys, at one revision. Returns how many keys. Raises LeaseNotFound."""
        return int((await self._write(requests.lease_revoke(lease_id), timeout))[2])

    async def lease_keep_alive_once(self, lease_id: int, *, timeout: float | None = None) -> float:
        """Give a lease its whole time again. Returns that time in seconds, counted from before this call. Raises LeaseNotFound."""
        return renewed_ttl(await self._ask_leader(requests.keep_alive([lease_id]), timeout), lease_id)

    async def lease_ttl(self, lease_id: int, *, keys: bool = False, timeout: float | None = None) -> LeaseInfo:
        """How long a lease lives, and with `keys` what hangs on it. Raises LeaseNotFound."""
        return lease_info(await self._ask_leader(requests.lease_ttl(lease_id, keys), timeout), lease_id)

    async def leases(self, *, timeout: float | None = None) -> list[int]:
        """The ids of all leases, in order."""
        return sorted((await self._read(requests.leases(), False, timeout))[2])

    def guarded(self, key: Bytes, create_revision: Revision) -> "AsyncGuarded":
        """The writes of this client, each done only if `key` still exists as it was created at `create_revision`.

        The pair is a fencing token: who has lost a lock can write nothing any more, however late it learns of that. A write that is
        refused raises FencingTokenStale and has changed nothing.
        """
        from raftkv.client.guarded import AsyncGuarded

        return AsyncGuarded(self._write, [(as_bytes(key), create_revision)])
