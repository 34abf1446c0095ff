"""The clients that users get: those of the room below, and a method for every recipe.

The client's room knows nothing of recipes, and the command line must not load them for a `get`: they are imported with their first use.
A test holds the methods of the two classes together.
"""

from typing import TYPE_CHECKING, Any, Self

from raftkv.client.requests import Bytes
from raftkv.client.sync import Client as PlainClient

if TYPE_CHECKING:
    from raftkv.recipes.barrier import Barrier, DoubleBarrier
    from raftkv.recipes.counter import Counter
    from raftkv.recipes.election import Election
    from raftkv.recipes.group import Group
    from raftkv.recipes.jobs_blocking import Jobs
    from raftkv.recipes.lock import Lock
    from raftkv.recipes.pool_blocking import Pool
    from raftkv.recipes.queue import Queue
    from raftkv.recipes.rendezvous_blocking import Store
    from raftkv.recipes.semaphore import Semaphore


def speaks_etcd(endpoints: Any) -> bool:
    """Whether these endpoints are of an etcd cluster, by their scheme."""
    first = endpoints if isinstance(endpoints, str) else next(iter(endpoints), "")
    return isinstance(first, str) and first.lstrip().lower().startswith(("etcd://", "etcds://"))


def load(name: str) -> Any:
    """The module that speaks etcd. Raises MissingExtra."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        if (error.name or "").startswith("raftkv"):
            raise
        from raftkv.errors import MissingExtra

        raise MissingExtra(f"an etcd:// endpoint needs {error.name}: pip install 'raftkv[etcd]'") from None


class Client(PlainClient):
    __doc__ = PlainClient.__doc__

    def __new__(cls, endpoints: Any = "", *args: Any, **options: Any) -> Self:
        """The same client on an etcd cluster, for etcd:// endpoints. Raises MissingExtra."""
        if cls is Client and speaks_etcd(endpoints):
            return object.__new__(load("raftkv.recipes.etcd_clients").EtcdClient)  # type: ignore[no-any-return]
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
    ) -> "Lock":
        """A fair lock among all who use this name: `with kv.lock("merge") as lock:`; see docs/recipes.md.

        `ttl`: seconds that it outlives a holder that dies. `timeout`: how long a `with` waits for it (None: for ever). `lease`: a kept lease of
        yours to hang it on, instead of one of its own. `shared`: as a reader. `owner`: what others see of you. Raises InvalidRequest.
        """
        from raftkv.recipes.lock import Lock

        return Lock(self, name, ttl=ttl, timeout=timeout, lease=lease, shared=shared, reentrant=reentrant, owner=owner)

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
    ) -> "Semaphore":
        """A share of a semaphore: `with kv.semaphore("gpu", 8, weight=2):`; see docs/recipes.md.

        The largest `priority` comes first, then the oldest; the head of the queue is never overtaken. Further arguments as for `lock`. Raises
        InvalidRequest.
        """
        from raftkv.recipes.semaphore import Semaphore

        return Semaphore(
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

    def election(self, name: Bytes, *, ttl: float = 10.0, lease: Any = None) -> "Election":
        """An office that one of many holds: `campaign`, `proclaim`, `observe`, `resign`; see docs/recipes.md. Arguments as for `lock`."""
        from raftkv.recipes.election import Election

        return Election(self, name, ttl=ttl, lease=lease)

    def barrier(self, name: Bytes) -> "Barrier":
        """A gate that somebody closes and opens, and others wait at; see docs/recipes.md."""
        from raftkv.recipes.barrier import Barrier

        return Barrier(self, name)

    def double_barrier(
        self, name: Bytes, count: int, *, ttl: float = 10.0, timeout: float | None = None, lease: Any = None
    ) -> "DoubleBarrier":
        """A meeting point for `count` participants: nobody gets in, or out, before all are there; see docs/recipes.md."""
        from raftkv.recipes.barrier import DoubleBarrier

        return DoubleBarrier(self, name, count, ttl=ttl, timeout=timeout, lease=lease)

    def queue(self, name: Bytes, *, ttl: float = 10.0, lease: Any = None) -> "Queue":
        """A queue of items for workers, first in first out or by priority, that loses none; see docs/recipes.md."""
        from raftkv.recipes.queue import Queue

        return Queue(self, name, ttl=ttl, lease=lease)

    def counter(self, name: Bytes) -> "Counter":
        """A number that many change at once; see docs/recipes.md."""
        from raftkv.recipes.counter import Counter

        return Counter(self, name)

    def group(self, name: Bytes, *, ttl: float = 10.0, lease: Any = None) -> "Group":
        """Who is there and alive: `join`, `members`, `changes`; see docs/recipes.md."""
        from raftkv.recipes.group import Group

        return Group(self, name, ttl=ttl, lease=lease)

    def pool(self, name: str) -> "Pool":
        """A pool of machines, memory or licences whose use the cluster schedules by weight; see docs/recipes.md. Raises InvalidRequest."""
        from raftkv.recipes.pool_blocking import Pool

        return Pool(self, name)

    def jobs(self, name: Bytes, *, ttl: float = 10.0, lease: Any = None, worker: str = "") -> "Jobs":
        """Jobs, who works on them and what became of them; see docs/recipes.md. `worker`: what the history calls us."""
        from raftkv.recipes.jobs_blocking import Jobs

        return Jobs(self, name, ttl=ttl, lease=lease, worker=worker)

    def rendezvous(self, run_id: str, round_: int = 0, *, ttl: float = 30.0, timeout: float = 300.0) -> "Store":
        """Where the ranks of a run find each other, with the semantics of TCPStore, seen by this round alone; see docs/recipes.md.

        It lives until nobody has kept it alive for `ttl` seconds. `timeout`: how long its calls wait at most. Raises InvalidRequest.
        """
        from raftkv.recipes.rendezvous import AsyncStore, Scope
        from raftkv.recipes.rendezvous_blocking import Store
        from raftkv.recipes.verbs import blocking

        return Store(AsyncStore(Scope(blocking(self), run_id, round_, ttl), timeout=timeout))
