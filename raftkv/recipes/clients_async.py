"""The asyncio client that users get: that of the room below, and a method for every recipe. See clients.py."""

import inspect
from typing import TYPE_CHECKING, Any, Callable, ParamSpec, Self, TypeVar

from raftkv.client.client import AsyncClient as PlainClient
from raftkv.client.client import connect as plain_connect
from raftkv.client.requests import Bytes
from raftkv.recipes.clients import load, speaks_etcd

if TYPE_CHECKING:
    from raftkv.recipes.barrier import AsyncBarrier, AsyncDoubleBarrier
    from raftkv.recipes.counter import AsyncCounter
    from raftkv.recipes.election import AsyncElection
    from raftkv.recipes.group import AsyncGroup
    from raftkv.recipes.jobs import AsyncJobs
    from raftkv.recipes.lock import AsyncLock
    from raftkv.recipes.pool import AsyncPool
    from raftkv.recipes.queue import AsyncQueue
    from raftkv.recipes.rendezvous import AsyncStore
    from raftkv.recipes.semaphore import AsyncSemaphore

P = ParamSpec("P")
R = TypeVar("R")


class AsyncClient(PlainClient):
    __doc__ = PlainClient.__doc__

    def __new__(cls, endpoints: Any = "", *args: Any, **options: Any) -> Self:
        """The same client on an etcd cluster, for etcd:// endpoints. Raises MissingExtra."""
        if cls is AsyncClient and speaks_etcd(endpoints):
            return object.__new__(load("raftkv.recipes.etcd_clients_async").AsyncEtcdClient)  # type: ignore[no-any-return]
        return object.__new__(cls)

    __new__.__wrapped__ = PlainClient.__init__  # type: ignore[attr-defined]  # what help() and signature() show

    def lock(
        self,
        name: Bytes,
        *,
        ttl: float = 10.0,
        timeout: float | None = None,
        lease: Any = None,
        shared: bool = False,
        reentrant: bool = False,
        owner: Bytes = b"",
    ) -> "AsyncLock":
        """A fair lock among all who use this name: `with kv.lock("merge") as lock:`; see docs/recipes.md.

        `ttl`: seconds that it outlives a holder that dies. `timeout`: how long a `with` waits for it (None: for ever). `lease`: a kept lease of
        yours to hang it on, instead of one of its own. `shared`: as a reader. `owner`: what others see of you. Raises InvalidRequest.
        """
        from raftkv.recipes.lock import AsyncLock

        return AsyncLock(
            self, name, ttl=ttl, timeout=timeout, lease=lease, shared=shared, reentrant=reentrant, owner=owner
        )

    def semaphore(
        self,
        name: Bytes,
        capacity: int,
        *,
        weight: int = 1,
        priority: int = 0,
        ttl: float = 10.0,
        timeout: float | None = None,
        lease: Any = None,
        owner: str = "",
    ) -> "AsyncSemaphore":
        """A share of a semaphore: `with kv.semaphore("gpu", 8, weight=2):`; see docs/recipes.md.

        The largest `priority` comes first, then the oldest; the head of the queue is never overtaken. Further arguments as for `lock`. Raises
        InvalidRequest.
        """
        from raftkv.recipes.semaphore import AsyncSemaphore

        return AsyncSemaphore(
            self,
            name,
            capacity,
            weight=weight,
            priority=priority,
            ttl=ttl,
            timeout=timeout,
            lease=lease,
            owner=owner,
        )

    def election(self, name: Bytes, *, ttl: float = 10.0, lease: Any = None) -> "AsyncElection":
        """An office that one of many holds: `campaign`, `proclaim`, `observe`, `resign`; see docs/recipes.md. Arguments as for `lock`."""
        from raftkv.recipes.election import AsyncElection

        return AsyncElection(self, name, ttl=ttl, lease=lease)

    def barrier(self, name: Bytes) -> "AsyncBarrier":
        """A gate that somebody closes and opens, and others wait at; see docs/recipes.md."""
        from raftkv.recipes.barrier import AsyncBarrier

        return AsyncBarrier(self, name)

    def double_barrier(
        self, name: Bytes, count: int, *, ttl: float = 10.0, timeout: float | None = None, lease: Any = None
    ) -> "AsyncDoubleBarrier":
        """A meeting point for `count` participants: nobody gets in, or out, before all are there; see docs/recipes.md."""
        from raftkv.recipes.barrier import AsyncDoubleBarrier

        return AsyncDoubleBarrier(self, name, count, ttl=ttl, timeout=timeout, lease=lease)

    def queue(self, name: Bytes, *, ttl: float = 10.0, lease: Any = None) -> "AsyncQueue":
        """A queue of items for workers, first in first out or by priority, that loses none; see docs/recipes.md."""
        from raftkv.recipes.queue import AsyncQueue

        return AsyncQueue(self, name, ttl=ttl, lease=lease)

    def counter(self, name: Bytes) -> "AsyncCounter":
        """A number that many change at once; see docs/recipes.md."""
        from raftkv.recipes.counter import AsyncCounter

        return AsyncCounter(self, name)

    def group(self, name: Bytes, *, ttl: float = 10.0, lease: Any = None) -> "AsyncGroup":
        """Who is there and alive: `join`, `members`, `changes`; see docs/recipes.md."""
        from raftkv.recipes.group import AsyncGroup

        return AsyncGroup(self, name, ttl=ttl, lease=lease)

    def pool(self, name: str) -> "AsyncPool":
        """A pool of machines, memory or licences whose use the cluster schedules by weight; see docs/recipes.md. Raises InvalidRequest."""
        from raftkv.recipes.pool import AsyncPool

        return AsyncPool(self, name)

    def jobs(self, name: Bytes, *, ttl: float = 10.0, lease: Any = None, worker: str = "") -> "AsyncJobs":
        """Jobs, who works on them and what became of them; see docs/recipes.md. `worker`: what the history calls us."""
        from raftkv.recipes.jobs import AsyncJobs

        return AsyncJobs(self, name, ttl=ttl, lease=lease, worker=worker)

    def rendezvous(self, run_id: str, round_: int = 0, *, ttl: float = 30.0, timeout: float = 300.0) -> "AsyncStore":
        """Where the ranks of a run find each other, with the semantics of TCPStore, seen by this round alone; see docs/recipes.md.

        It lives until nobody has kept it alive for `ttl` seconds. `timeout`: how long its calls wait at most. Raises InvalidRequest.
        """
        from raftkv.recipes.rendezvous import AsyncStore, Scope

        return AsyncStore(Scope(self, run_id, round_, ttl), timeout=timeout)


def _made_by(cls: Callable[P, R]) -> Callable[P, R]:
    def connect(*args: P.args, **kwargs: P.kwargs) -> R:
        return cls(*args, **kwargs)

    connect.__doc__ = plain_connect.__doc__
    connect.__signature__ = inspect.signature(cls)  # type: ignore[attr-defined]
    return connect


connect = _made_by(AsyncClient)
