"""The clients that users get: those of the room below, and a method for every recipe.

The client's room knows nothing of recipes, and the command line must not load them for a `get`: they are imported with their first use.
A test holds the methods of the two classes together.
"""

from typing import TYPE_CHECKING, Any

from raftkv.client.requests import Bytes
from raftkv.client.sync import Client as PlainClient

if TYPE_CHECKING:
    from raftkv.recipes.lock import Lock
    from raftkv.recipes.semaphore import Semaphore


class Client(PlainClient):
    __doc__ = PlainClient.__doc__

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
