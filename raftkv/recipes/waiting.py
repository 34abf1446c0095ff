"""Waiting for keys under a deadline and a lease, through elections and outages.

One request waits in the cluster until what it waits for is true; nobody polls. It is renewed before the waiter's own lease could end, so that
who has lost its place in a queue learns of that in time, and it is asked anew when no member could serve it.
"""

from time import monotonic
from typing import Sequence

from raftkv.client.requests import Bytes
from raftkv.client.watch_verbs import Until, WaitResult
from raftkv.errors import LockLost, RaftKVError
from raftkv.recipes.verbs import Kept, Verbs
from raftkv.units import Revision

WAIT_S_MAX = 60.0
_PASSING = frozenset({"deadline_exceeded", "no_quorum", "unreachable", "not_leader", "shutting_down", "overloaded"})


class Deadline:
    """When the caller's patience ends; `timeout` None: never."""

    __slots__ = ("_ends_at",)

    def __init__(self, timeout: float | None) -> None:
        self._ends_at = float("inf") if timeout is None else monotonic() + timeout

    @property
    def remaining_s(self) -> float:
        return max(0.0, self._ends_at - monotonic())

    @property
    def has_passed(self) -> bool:
        return monotonic() >= self._ends_at


def check_lease(lease: Kept, what: str) -> None:
    """Raises LockLost when the lease is lost, or nobody can tell any more."""
    if lease.lost.is_set() or lease.valid_for <= 0:
        raise LockLost(f"{what}: its session has ended")


async def wait_keys(
    kv: Verbs,
    keys: Sequence[Bytes],
    *,
    deadline: Deadline,
    until: Until,
    any: bool = False,
    after: Revision = 0,
    lease: Kept | None = None,
    what: str = "",
) -> WaitResult | None:
    """What `wait_for` returns; None when the deadline passed. Raises LockLost when the lease was lost meanwhile."""
    while not deadline.has_passed:
        wait_s = min(deadline.remaining_s, WAIT_S_MAX)
        if lease is not None:
            check_lease(lease, what)
            wait_s = min(wait_s, lease.valid_for)
        if wait_s <= 0:
            continue
        try:
            return await kv.wait_for(keys, until=until, any=any, after=after, timeout=wait_s)
        except RaftKVError as error:
            if error.code not in _PASSING:
                raise
    return None
