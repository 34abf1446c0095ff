"""raftkv's own asyncio client as the harness's client: errors become ClientErrors, bytes become text, nothing else happens here.

A read that names a member goes to it and nowhere else (a linearizable read that a follower has to serve), past the library's choice
of where to go; everything else is the library as users have it, with or without sessions.
"""

from typing import Any, AsyncIterator, Final, Mapping, Sequence

import raftkv
from raftkv.client import requests
from raftkv.client.decisions import PATIENT_READ
from raftkv.client.dispatch import Dispatcher
from raftkv.client.endpoints import Directory, parse_endpoints
from raftkv.client.options import DEFAULT_IDLE_S, DEFAULT_LIFETIME_S, make_options
from raftkv.client.results import RangeResult, key_value_or_none
from raftkv.client.txn import Get, Put, Txn, Value, Version
from raftkv.errors import RaftKVError
from raftkv_jepsen.clients.base import (
    GUARDS,
    LOCKS,
    NUMBERS,
    RECIPES,
    SESSIONS,
    Batch,
    Change,
    Held,
    Transacted,
)
from raftkv_jepsen.clients.elections import Election, GatewayElection, NativeElection
from raftkv_jepsen.clients.gateway import Gateway
from raftkv_jepsen.clients.recipes import NativeRecipes, asked, error_of
from raftkv_jepsen.clients.users import GatewayUsers, NativeUsers, Users

TIMEOUT_S: Final = 5.0
PINNED_TIMEOUT_S: Final = 2.0
LISTEN_S: Final = 5.0


class NativeClient:
    """One process of the history. Endpoints are given in its own order, so that processes begin at different members."""

    features = frozenset({SESSIONS, NUMBERS, GUARDS, LOCKS, RECIPES})

    def __init__(
        self,
        endpoints: Sequence[str],
        addresses: Mapping[str, str],
        *,
        cluster_name: str,
        session: bool = True,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.session = session
        self._login = _words(login)
        self._kv = raftkv.connect(
            list(endpoints), cluster_name=cluster_name, timeout=TIMEOUT_S, session=session, **self._login
        )
        self._gateway = Gateway(addresses, login)
        self._endpoints = list(endpoints)
        self._addresses = addresses
        self._cluster_name = cluster_name
        self._pinned: Dispatcher | None = None

    async def close(self) -> None:
        await self._kv.close()
        await self._gateway.close()
        if self._pinned is not None:
            await self._pinned.close()

    def _pinning(self) -> Dispatcher:
        if self._pinned is None:
            options = make_options(
                cluster_name=self._cluster_name,
                timeout=PINNED_TIMEOUT_S,
                attempt_timeout=None,
                session=False,
                connection_lifetime=DEFAULT_LIFETIME_S,
                idle_check_after=DEFAULT_IDLE_S,
                client_name="raftkv-jepsen",
                **self._login,
            )
            self._pinned = Dispatcher(Directory(parse_endpoints(self._endpoints)), options)
        return self._pinned

    async def get(self, key: str, *, node: str = "") -> Held | None:
        if node:
            address = self._addresses[node]
            answer = await asked(self._pinning().ask(address, requests.get(key), PINNED_TIMEOUT_S, PATIENT_READ))
            kv = key_value_or_none(answer[2])
        else:
            kv = await asked(self._kv.get_kv(key))
        return None if kv is None else Held(kv.value.decode(), kv.create_revision, kv.mod_revision)

    async def keys(self, prefix: str) -> list[str]:
        found = await asked(self._kv.range(prefix=prefix, keys_only=True))
        return [kv.key.decode() for kv in found.kvs]

    async def put(self, key: str, value: str, *, lease: int = 0) -> int:
        return (await asked(self._kv.put(key, value, lease=lease))).revision

    async def compare_and_set(self, key: str, expected: str | None, value: str) -> bool:
        return await asked(self._kv.compare_and_set(key, expected, value))

    async def transact(
        self, expected: Mapping[str, str | None], writes: Mapping[str, str], reads: Sequence[str]
    ) -> Transacted:
        compares = [Version(key) == 0 if value is None else Value(key) == value for key, value in expected.items()]
        looks = [Get(key) for key in reads]
        puts = [Put(key, value) for key, value in writes.items()]
        txn: Txn[Any] = self._kv.txn()
        done = await asked(txn.if_(*compares).then(*looks, *puts).else_(*looks).commit())
        read: dict[str, str | None] = {}
        for key, found in zip(reads, done.responses, strict=False):
            assert isinstance(found, RangeResult), "the reads come first"
            read[key] = found.kvs[0].value.decode() if found.kvs else None
        return Transacted(done.succeeded, read, done.revision)

    async def increment(self, key: str, delta: int) -> int:
        return await asked(self._kv.increment(key, delta))

    async def append(self, key: str, text: str) -> int:
        return await asked(self._kv.append(key, text))

    async def grant(self, ttl_s: float) -> tuple[int, float]:
        granted = await asked(self._kv.lease_grant(ttl_s))
        return granted.id, granted.ttl

    async def keep_alive(self, lease: int) -> float:
        return await asked(self._kv.lease_keep_alive_once(lease))

    async def revoke(self, lease: int) -> None:
        await asked(self._kv.lease_revoke(lease))

    async def watch(self, prefix: str, start_revision: int) -> AsyncIterator[Batch]:
        try:
            async with self._kv.watch(
                prefix=prefix, start_revision=start_revision, prev_kv=True, progress=True, timeout=60
            ) as watch:
                async for batch in watch.batches():
                    yield Batch(
                        batch.revision,
                        [
                            Change(
                                event.type,
                                event.key.decode(),
                                event.value.decode(),
                                None if event.prev_kv is None else event.prev_kv.value.decode(),
                            )
                            for event in batch.events
                        ],
                    )
        except RaftKVError as error:
            raise error_of(error) from error

    def election(self, name: str, ttl_s: float) -> Election:
        """Half of them through etcd's service, so that both stand for one office."""
        if self.session:
            return NativeElection(self._kv, name, ttl_s)
        return GatewayElection(self._gateway, list(self._addresses), name, ttl_s)

    @property
    def users(self) -> Users:
        """Half of them through etcd's calls."""
        if self.session:
            return NativeUsers(self._kv)
        return GatewayUsers(self._gateway, list(self._addresses))

    @property
    def recipes(self) -> NativeRecipes:
        return NativeRecipes(self._kv)

    def lock(self, name: str, ttl_s: float) -> "NativeLock":
        return NativeLock(self._kv, name, ttl_s)


def _words(login: tuple[str, str] | None) -> dict[str, Any]:
    return {} if login is None else {"user": login[0], "password": login[1]}


class NativeDoor:
    """One user at the native protocol: reads at the member that is named, writes wherever they belong."""

    def __init__(
        self, endpoints: Sequence[str], addresses: Mapping[str, str], cluster_name: str, login: tuple[str, str]
    ) -> None:
        self._client = NativeClient(endpoints, addresses, cluster_name=cluster_name, session=False, login=login)

    async def get(self, key: str, *, node: str) -> Held | None:
        return await self._client.get(key, node=node)

    async def put(self, key: str, value: str, *, node: str) -> int:
        return await self._client.put(key, value)

    async def listen(self, key: str) -> AsyncIterator[str]:
        """The values that are written to a key from now on. Raises ClientError."""
        try:
            async with self._client._kv.watch(key, only="put", timeout=LISTEN_S) as watch:
                async for event in watch:
                    yield event.value.decode()
        except RaftKVError as error:
            raise error_of(error) from error

    async def close(self) -> None:
        await self._client.close()


class NativeLock:
    """raftkv.recipes.lock, for one owner."""

    def __init__(self, kv: Any, name: str, ttl_s: float) -> None:
        self._lock = kv.lock(name, ttl=ttl_s)

    async def acquire(self, timeout_s: float) -> int:
        return int(await asked(self._lock.acquire(timeout_s)))

    async def release(self) -> None:
        await asked(self._lock.release())

    @property
    def surely_held(self) -> bool:
        return bool(self._lock.held and self._lock.valid_for > 0)

    @property
    def lease(self) -> int:
        key: bytes = self._lock.key
        return int(key.rsplit(b"/", 1)[1].split(b"-")[0], 16)

    async def guarded_put(self, key: str, value: str) -> int:
        return int((await asked(self._lock.guard().put(key, value))).revision)
