"""Pools for threads: the recipe of pool.py, whose calls are done when they return."""

from typing import TYPE_CHECKING, Any, Mapping, cast

from raftkv.recipes.pool import TTL_S, Amounts, AsyncGrant, PoolInfo, PoolRequest, _ThreadedPool
from raftkv.recipes.verbs import blocking, run
from raftkv.units import Revision

if TYPE_CHECKING:
    from raftkv.client.guarded import Guarded
    from raftkv.client.sync import Client


class Grant:
    """What was asked for is ours, until it is released, taken back, or our session ends. Leaving its block releases it."""

    def __init__(self, grant: AsyncGrant, kv: "Client") -> None:
        self._grant = grant
        self._kv = kv
        self.id = grant.id
        """Of the request."""
        self.token = grant.token
        """The fencing token."""
        self.ending: Any = grant.ending
        """An event: set when notice was given. After the grace the grant is taken back."""
        self.lost: Any = grant.lost
        """An event: set when the grant is gone, or when nobody can tell any more."""

    @property
    def key(self) -> bytes:
        """The key whose existence is the grant."""
        return self._grant.key

    @property
    def valid_for(self) -> float:
        """For how many seconds from now our session surely lasts; the longest run may end it earlier."""
        return self._grant.valid_for

    def guard(self, kv: Any = None) -> "Guarded":
        """The writes of a client, each refused by the cluster once the grant is gone."""
        return cast("Guarded", self._grant.guard(self._kv if kv is None else kv))

    def release(self) -> None:
        """Give it back. Raises NotHeld the second time, LockLost when it was gone before."""
        run(self._grant.release())

    def __enter__(self) -> "Grant":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        run(self._grant.__aexit__(kind, error, trace))


class Pool:
    """A pool of machines, memory, licences or whatever is counted; made by `kv.pool(name)`."""

    def __init__(self, kv: "Client", name: str) -> None:
        self._kv = kv
        self._pool = _ThreadedPool(blocking(kv), name)

    def create(
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
        settings: dict[str, Any] = {"threshold": threshold, "age_weight": age_weight, "classes": classes}
        settings |= {"staleness_weight": staleness_weight, "quotas": quotas, "backfill": backfill}
        settings |= {"max_wait": max_wait, "max_run": max_run, "grace": grace}
        run(self._pool.create(capacity, **settings))

    def set(self, **settings: Any) -> None:
        """Change some of what `create` has set, while it is used. A smaller capacity takes nothing back. Raises PoolNotFound, InvalidRequest."""
        run(self._pool.set(**settings))

    def delete(self) -> None:
        """Raises PoolNotFound, or PoolBusy while anybody holds or wants something of it."""
        run(self._pool.delete())

    def info(self) -> PoolInfo:
        """What there is and what is used. Raises PoolNotFound."""
        return run(self._pool.info())

    def queue(self) -> list[PoolRequest]:
        """Who holds something of it, then who waits, in order. Raises PoolNotFound."""
        return run(self._pool.queue())

    def why(self, request_id: str) -> PoolRequest:
        """How a request stands, and why it waits. Raises PoolRequestNotFound."""
        return run(self._pool.why(request_id))

    def acquire(
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
    ) -> Grant:
        """Wait for so much of this pool, and of others (`also`), all at once; for ever or for `timeout` seconds (0: only if it is free now).

        `weight`, `klass` and `staleness` (seconds since what is to be merged was) make the weight, with age. `max_run` and `max_wait` may
        only shorten the pool's own. `request_id`: the same id is the same request; drawn if empty. Raises NotAcquired when
        the time is over or the wait was too long, DemandTooLarge, PoolNotFound, PoolRequestExists, InvalidRequest.
        """
        return Grant(
            run(
                self._pool.acquire(
                    demand,
                    also=also,
                    tenant=tenant,
                    klass=klass,
                    weight=weight,
                    staleness=staleness,
                    max_wait=max_wait,
                    max_run=max_run,
                    timeout=timeout,
                    ttl=ttl,
                    lease=lease,
                    request_id=request_id,
                )
            ),
            self._kv,
        )

    def release(self, request_id: str, token: Revision = 0) -> None:
        """Give back somebody's grant, or (token 0) take back a request that waits. Raises PoolRequestNotFound, FencingTokenStale."""
        run(self._pool.release(request_id, token))
