"""Election: one leader among those who campaign, and everybody can watch who it is.

It is a lock seen from outside: the oldest key under `NAME/` is the leader, the next one succeeds it, and its value is what the leader proclaims.
What is added: `proclaim` changes the value under the guard of the office itself, so that a deposed leader cannot overwrite its successor's
words, and `observe` tells of every leader, by a watch on the leader's key. The layout is etcd's, so `etcdctl elect` takes part.
"""

from typing import TYPE_CHECKING, Any, AsyncIterator, Iterator, NamedTuple, cast

from raftkv.client.requests import Bytes, as_bytes
from raftkv.recipes.lock import TTL_S, AsyncLock, line_up, places
from raftkv.recipes.places import prefix_of
from raftkv.recipes.verbs import Verbs, blocking, iterate, run
from raftkv.units import Revision

if TYPE_CHECKING:
    import asyncio
    import threading

    from raftkv.client.guarded import AsyncGuarded, Guarded
    from raftkv.client.sync import Client


class Leader(NamedTuple):
    """Who leads, and what it says."""

    key: bytes
    token: Revision
    """The fencing token of its office."""
    value: bytes
    revision: Revision
    """When it said so."""


class AsyncElection:
    """An office that one of many holds; made by `kv.election(name)`."""

    def __init__(self, kv: Verbs, name: Bytes, *, ttl: float = TTL_S, lease: Any = None, me: Any = None) -> None:
        self._kv = kv
        self._prefix = prefix_of(name)
        self._lock = AsyncLock(kv, name, ttl=ttl, lease=lease, me=me)

    @property
    def held(self) -> bool:
        """Whether we were elected and have not resigned; `lost` says whether that still means anything."""
        return self._lock.held

    @property
    def token(self) -> Revision:
        """The fencing token of our office. Raises NotHeld."""
        return self._lock.token

    @property
    def key(self) -> bytes:
        """The key whose existence is our office. Raises NotHeld."""
        return self._lock.key

    @property
    def lost(self) -> "asyncio.Event":
        """Set when the office is gone, or when nobody can tell any more. Raises NotHeld."""
        return self._lock.lost

    @property
    def valid_for(self) -> float:
        """For how many seconds from now it surely is ours, whatever happens. Raises NotHeld."""
        return self._lock.valid_for

    def guard(self, kv: Any = None) -> "AsyncGuarded":
        """The writes of a client, each refused by the cluster once we are not the leader any more. Raises NotHeld."""
        return self._lock.guard(kv)

    async def campaign(self, value: Bytes, timeout: float | None = None) -> Revision:
        """Wait until we lead, for ever or for `timeout` seconds, and proclaim `value`. Returns the fencing token. Raises NotAcquired."""
        self._lock._owner = as_bytes(value)
        return await self._lock.acquire(timeout)

    async def proclaim(self, value: Bytes, *, timeout: float | None = None) -> None:
        """Say something else as the leader. Raises NotHeld, or FencingTokenStale when we are not the leader any more."""
        place = self._lock._held()
        guarded = self._kv.guarded(place.key, place.create_revision)
        await guarded.put(place.key, value, lease=place.lease.id, timeout=timeout)

    async def resign(self) -> None:
        """Step back: the next one leads. Raises NotHeld, LockLost when the office was lost before."""
        await self._lock.release()

    async def leader(self) -> Leader | None:
        """Who leads now; None: nobody."""
        return (await self._look())[0]

    async def observe(self) -> AsyncIterator[Leader]:
        """The leader now, or the first one, and then each new one and whatever it proclaims."""
        while True:
            leader, revision = await self._look()
            if leader is None:
                async with self._kv.watch(prefix=self._prefix, start_revision=revision + 1, only="put") as watch:
                    async for _ in watch:
                        break
                continue
            yield leader
            async with self._kv.watch(leader.key, start_revision=revision + 1) as watch:
                async for event in watch:
                    if event.type == "delete":
                        break
                    leader = leader._replace(value=event.value, revision=event.revision)
                    yield leader

    async def _look(self) -> tuple[Leader | None, Revision]:
        found = await self._kv.range(prefix=self._prefix)
        line = places(found.kvs, self._prefix)
        if not line:
            return None, found.revision
        first = line_up(line)[0]
        said = next(kv.mod_revision for kv in line if kv.key == first.key)
        return Leader(first.key, first.token, first.owner, said), found.revision


class Election:
    """An office that one of many holds; made by `kv.election(name)`."""

    def __init__(self, kv: "Client", name: Bytes, *, ttl: float = TTL_S, lease: Any = None) -> None:
        import threading

        self._kv = kv
        self._election = AsyncElection(blocking(kv), name, ttl=ttl, lease=lease, me=threading.get_ident)

    @property
    def held(self) -> bool:
        """Whether we were elected and have not resigned; `lost` says whether that still means anything."""
        return self._election.held

    @property
    def token(self) -> Revision:
        """The fencing token of our office. Raises NotHeld."""
        return self._election.token

    @property
    def key(self) -> bytes:
        """The key whose existence is our office. Raises NotHeld."""
        return self._election.key

    @property
    def lost(self) -> "threading.Event":
        """Set when the office is gone, or when nobody can tell any more. Raises NotHeld."""
        return cast("threading.Event", self._election.lost)

    @property
    def valid_for(self) -> float:
        """For how many seconds from now it surely is ours, whatever happens. Raises NotHeld."""
        return self._election.valid_for

    def guard(self, kv: Any = None) -> "Guarded":
        """The writes of a client, each refused by the cluster once we are not the leader any more. Raises NotHeld."""
        return cast("Guarded", self._election.guard(self._kv if kv is None else kv))

    def campaign(self, value: Bytes, timeout: float | None = None) -> Revision:
        """Wait until we lead, for ever or for `timeout` seconds, and proclaim `value`. Returns the fencing token. Raises NotAcquired."""
        return run(self._election.campaign(value, timeout))

    def proclaim(self, value: Bytes, *, timeout: float | None = None) -> None:
        """Say something else as the leader. Raises NotHeld, or FencingTokenStale when we are not the leader any more."""
        run(self._election.proclaim(value, timeout=timeout))

    def resign(self) -> None:
        """Step back: the next one leads. Raises NotHeld, LockLost when the office was lost before."""
        run(self._election.resign())

    def leader(self) -> Leader | None:
        """Who leads now; None: nobody."""
        return run(self._election.leader())

    def observe(self) -> Iterator[Leader]:
        """The leader now, or the first one, and then each new one and whatever it proclaims."""
        return iterate(self._election.observe())
