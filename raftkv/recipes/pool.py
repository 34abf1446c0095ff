"""Pools: who may use which part of what there is, decided inside the cluster, by weight, for several pools at once or not at all.

There is no loop of compare-and-set here, and no scheduler process that could die: a request is one command, and the state machine decides in
the very entry in which something comes free (raftkv/store/pool_schedule.py has the rules). A request and a grant hang on the session of whoever
made it. The grant is a key, `raftkv.pools/g/ID`, whose create revision is the fencing token; when the grant is taken back because it
ran too long, that key goes, and what its holder still writes under `guard` is refused. A holder hears of both, the notice and the end, by a
wait on that key.
"""

import json
import os
from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple, Protocol

from raftkv.errors import (
    FencingTokenStale,
    InvalidRequest,
    LockLost,
    NotAcquired,
    NotHeld,
    PoolNotFound,
    PoolRequestNotFound,
    RaftKVError,
)
from raftkv.recipes.places import check_seconds, enter_lease, surely_not
from raftkv.recipes.verbs import Kept, Verbs, run
from raftkv.recipes.waiting import Deadline, check_lease, wait_keys
from raftkv.units import Revision
from raftkv.wire.pools import (
    CREATE,
    POOL_DELETE,
    POOL_QUEUE,
    POOL_RELEASE,
    POOL_REQUEST,
    POOL_SET,
    POOL_WHY,
    POOLS,
    check_pool_name,
    grant_key,
    request_key,
)

if TYPE_CHECKING:
    from raftkv.client.guarded import AsyncGuarded

TTL_S = 10.0
Amounts = Mapping[str, int]
_MILLISECONDS = ("max_wait", "max_run", "grace")


class Signal(Protocol):
    """An event that we set."""

    def set(self) -> None: ...

    def is_set(self) -> bool: ...


class PoolInfo(NamedTuple):
    """A pool: what there is, what is used, and how many hold and wait."""

    name: str
    capacity: dict[str, int]
    used: dict[str, int]
    granted: int
    waiting: int
    settings: dict[str, Any]
    """As `create` and `set` take them; times in seconds."""


class PoolRequest(NamedTuple):
    """A request, in the order of the queue."""

    id: str
    state: str
    """"waiting", "granted", or "ending": it has been given notice."""
    token: Revision
    """0 while it waits."""
    tenant: str
    demand: dict[str, dict[str, int]]
    waited: float
    """Seconds; until it was granted."""
    weight: float | None
    """While it waits: what it has now."""
    ahead: int | None
    """While it waits: how many who want one of its pools come before it."""
    reason: str | None
    """Why it waits."""
    details: dict[str, Any]
    """The numbers of that: what is missing of what, or who is first in line."""


def settings_in_ms(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a pool as the cluster keeps them. Raises InvalidRequest."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if value is None:
            continue
        if name in _MILLISECONDS:
            found[f"{name}_ms"] = milliseconds(value, name)
        elif name == "quotas":
            found[name] = {tenant: dict(amounts) for tenant, amounts in value.items()}
        else:
            found[name] = dict(value) if isinstance(value, Mapping) else value
    return found


def milliseconds(seconds: float, what: str) -> int:
    """Raises InvalidRequest."""
    if not 0 <= seconds < float("inf"):
        raise InvalidRequest(f"{what} is a number of seconds of 0 or more, not {seconds!r}")
    return round(seconds * 1000)


def pool_info(row: Mapping[str, Any]) -> PoolInfo:
    rest = {name: value for name, value in row.items() if name not in ("name", "used", "granted", "waiting")}
    settings = {
        name.removesuffix("_ms"): value / 1000 if name.endswith("_ms") else value for name, value in rest.items()
    }
    return PoolInfo(row["name"], row["capacity"], row["used"], row["granted"], row["waiting"], settings)


def pool_request(row: Mapping[str, Any]) -> PoolRequest:
    weight = row.get("weight_milli")
    return PoolRequest(
        row["id"],
        row["state"],
        row["token"],
        row["tenant"],
        row["demand"],
        row["waited_ms"] / 1000,
        None if weight is None else weight / 1000,
        row.get("ahead"),
        row.get("reason"),
        row.get("details", {}),
    )


class AsyncGrant:
    """What was asked for is ours, until it is released, taken back, or our session ends. Leaving its block releases it."""

    def __init__(
        self, kv: Verbs, request_id: str, token: Revision, lease: Kept, owns_lease: bool, event: Callable[[], Signal]
    ) -> None:
        self._kv = kv
        self._lease = lease
        self._owns_lease = owns_lease
        self._open = True
        self.id = request_id
        """Of the request."""
        self.token = token
        """The fencing token."""
        self.ending: Any = event()
        """An event: set when notice was given. After the grace the grant is taken back."""
        self.lost: Any = event()
        """An event: set when the grant is gone, or when nobody can tell any more."""
        self._watching: Any = None

    @property
    def key(self) -> bytes:
        """The key whose existence is the grant."""
        return grant_key(self.id)

    @property
    def valid_for(self) -> float:
        """For how many seconds from now our session surely lasts; the longest run may end it earlier."""
        return 0.0 if self.lost.is_set() else self._lease.valid_for

    def guard(self, kv: Any = None) -> "AsyncGuarded":
        """The writes of a client, each refused by the cluster once the grant is gone."""
        client: Any = self._kv if kv is None else kv
        guarded: AsyncGuarded = client.guarded(self.key, self.token)
        return guarded

    async def release(self) -> None:
        """Give it back. Raises NotHeld the second time, LockLost when it was gone before."""
        if not self._open:
            raise NotHeld(f"grant {self.id!r} was released before")
        self._open = False
        try:
            await self._kv._write([POOL_RELEASE, 0, self.id, self.token], None)
        except (PoolRequestNotFound, FencingTokenStale) as error:
            raise LockLost(f"grant {self.id!r} was gone before it was released: {error.message}") from None
        finally:
            if self._watching is not None:
                self._watching.cancel()
            if self._owns_lease:
                await self._lease.revoke()

    async def __aenter__(self) -> "AsyncGrant":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._open:
            return
        try:
            await self.release()
        except LockLost:
            if error is None:
                raise

    async def _watch(self) -> None:
        """Until it is gone: hear of the notice, and of the end."""
        heard = self.token
        while True:
            try:
                found = await wait_keys(
                    self._kv, [self.key], until="differs", after=heard, deadline=Deadline(None), lease=self._lease
                )
            except RaftKVError:
                break  # the session is lost, or the client closed
            kv = found.kvs[0] if found is not None else None
            if kv is None or kv.create_revision != self.token:
                break
            heard = kv.mod_revision
            if json.loads(kv.value)["state"] == "ending":
                self.ending.set()
        self.ending.set()
        self.lost.set()


class AsyncPool:
    """A pool of machines, memory, licences or whatever is counted; made by `kv.pool(name)`."""

    def __init__(self, kv: Verbs, name: str) -> None:
        check_pool_name(name)
        self._kv = kv
        self._name = name

    async def create(
        self,
        capacity: Amounts,
        *,
        threshold: int | None = None,
        age_weight: int | None = None,
        staleness_weight: int | None = None,
        classes: Mapping[str, int] | None = None,
        quotas: Mapping[str, Amounts] | None = None,
        backfill: bool | None = None,
        max_wait: float | None = None,
        max_run: float | None = None,
        grace: float | None = None,
    ) -> None:
        """Make it. Weights are points, those of age and staleness per hour; times are seconds, 0 is no limit. See docs/recipes.md.

        Raises PoolExists, or InvalidRequest.
        """
        settings: dict[str, Any] = {"capacity": capacity, "threshold": threshold, "age_weight": age_weight}
        settings |= {"staleness_weight": staleness_weight, "classes": classes, "quotas": quotas, "backfill": backfill}
        settings |= {"max_wait": max_wait, "max_run": max_run, "grace": grace}
        await self._kv._write([POOL_SET, 0, self._name, CREATE, settings_in_ms(settings)], None)

    async def set(self, **settings: Any) -> None:
        """Change some of what `create` has set, while it is used. A smaller capacity takes nothing back. Raises PoolNotFound, InvalidRequest."""
        await self._kv._write([POOL_SET, 0, self._name, 0, settings_in_ms(settings)], None)

    async def delete(self) -> None:
        """Raises PoolNotFound, or PoolBusy while anybody holds or wants something of it."""
        await self._kv._write([POOL_DELETE, 0, self._name], None)

    async def info(self) -> PoolInfo:
        """What there is and what is used. Raises PoolNotFound."""
        for pool in await list_pools(self._kv):
            if pool.name == self._name:
                return pool
        raise PoolNotFound(f"there is no pool {self._name!r}")

    async def queue(self) -> list[PoolRequest]:
        """Who holds something of it, then who waits, in order. Raises PoolNotFound."""
        answer = await self._kv._read([POOL_QUEUE, 0, self._name], False, None)
        return [pool_request(row) for row in answer[2]]

    async def why(self, request_id: str) -> PoolRequest:
        """How a request stands, and why it waits. Raises PoolRequestNotFound."""
        return await why(self._kv, request_id)

    async def acquire(
        self,
        demand: Amounts,
        *,
        also: Mapping[str, Amounts] | None = None,
        tenant: str = "",
        klass: str = "",
        weight: int = 0,
        staleness: float = 0.0,
        max_wait: float = 0.0,
        max_run: float = 0.0,
        timeout: float | None = None,
        ttl: float = TTL_S,
        lease: Any = None,
        request_id: str = "",
    ) -> AsyncGrant:
        """Wait for so much of this pool, and of others (`also`), all at once; for ever or for `timeout` seconds (0: only if it is free now).

        `weight`, `klass` and `staleness` (seconds since what is to be merged was) make the weight, with age. `max_run` and `max_wait` may
        only shorten the pool's own. `request_id`: the same id is the same request; drawn if empty. Raises NotAcquired when
        the time is over or the wait was too long, DemandTooLarge, PoolNotFound, PoolRequestExists, InvalidRequest.
        """
        check_seconds(ttl, "ttl")
        options = {
            "tenant": tenant,
            "class": klass,
            "weight": weight,
            "staleness_ms": milliseconds(staleness, "staleness"),
        }
        options |= {"max_wait_ms": milliseconds(max_wait, "max_wait"), "max_run_ms": milliseconds(max_run, "max_run")}
        asked: dict[str, dict[str, int]] = {self._name: dict(demand)}
        asked |= {name: dict(amounts) for name, amounts in (also or {}).items()}
        deadline = Deadline(timeout)
        held, owns_lease = await enter_lease(self._kv, ttl, lease, timeout)
        name = request_id or f"{held.id:x}-{os.urandom(4).hex()}"
        try:
            answer = await self._kv._write([POOL_REQUEST, 0, name, held.id, asked, options], None)
            token = answer[2]
            if token:
                check_lease(held, f"request {name!r}")  # the answer may have been long on its way
            else:
                token = await self._wait(name, held, deadline)
        except BaseException as error:
            await self._give_up(name, held, owns_lease, error)
            if isinstance(error, RaftKVError):
                raise surely_not(error, f"a grant of pool {self._name!r}") from error
            raise
        if not token:
            await self._give_up(name, held, owns_lease, None)
            raise NotAcquired(f"request {name!r} was not granted in time", details={"id": name})
        grant = AsyncGrant(self._kv, name, token, held, owns_lease, self._event)
        self._start_watching(grant)
        return grant

    async def release(self, request_id: str, token: Revision = 0) -> None:
        """Give back somebody's grant, or (token 0) take back a request that waits. Raises PoolRequestNotFound, FencingTokenStale."""
        await self._kv._write([POOL_RELEASE, 0, request_id, token], None)

    async def _wait(self, name: str, lease: Kept, deadline: Deadline) -> Revision:
        """The token; 0 when the time is over."""
        what = f"request {name!r}"
        key = request_key(name)
        if await wait_keys(self._kv, [key], until="deleted", deadline=deadline, lease=lease, what=what) is None:
            return 0
        kv = await self._kv.get_kv(grant_key(name))
        check_lease(lease, what)
        if kv is None or kv.lease != lease.id:
            raise NotAcquired(f"{what} waited too long, or was taken back", details={"id": name})
        return kv.create_revision

    async def _give_up(self, name: str, lease: Kept, owns_lease: bool, error: BaseException | None) -> None:
        if owns_lease:
            await lease.revoke()
        elif getattr(error, "code", "") != "pool_request_exists":
            try:
                found = await self._kv.get_kv(grant_key(name))
                token = found.create_revision if found is not None and found.lease == lease.id else 0
                try:
                    await self._kv._write([POOL_RELEASE, 0, name, token], None)
                except FencingTokenStale as stale:  # it was granted between the two
                    if not token and (await self._kv.get_kv(request_key(name))) is None:
                        await self._kv._write([POOL_RELEASE, 0, name, stale.details["actual"]], None)
            except RaftKVError:
                pass  # it hangs on the lease

    def _event(self) -> Signal:
        import asyncio

        return asyncio.Event()

    def _start_watching(self, grant: AsyncGrant) -> None:
        import asyncio

        grant._watching = asyncio.get_running_loop().create_task(grant._watch())


class _ThreadedPool(AsyncPool):
    """For the blocking facade: events of threads, and a thread that watches."""

    def _event(self) -> Signal:
        import threading

        return threading.Event()

    def _start_watching(self, grant: AsyncGrant) -> None:
        import threading

        threading.Thread(target=lambda: run(grant._watch()), name="raftkv-grant", daemon=True).start()


async def list_pools(kv: Verbs) -> list[PoolInfo]:
    """All pools, by name."""
    return [pool_info(row) for row in (await kv._read([POOLS, 0], False, None))[2]]


async def list_requests(kv: Verbs) -> list[PoolRequest]:
    """Those of all pools: who holds, then who waits, in order."""
    return [pool_request(row) for row in (await kv._read([POOL_QUEUE, 0, ""], False, None))[2]]


async def why(kv: Verbs, request_id: str) -> PoolRequest:
    """How a request stands, and why it waits. Raises PoolRequestNotFound."""
    return pool_request((await kv._read([POOL_WHY, 0, request_id], False, None))[2])
