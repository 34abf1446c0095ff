"""Bugs of pools: store/pools.py and store/pool_schedule.py. Their worlds have workers that share pools."""

from collections.abc import Iterator, Sequence

from raftkv.store import store as store_module
from raftkv.store.keyspace import Keyspace
from raftkv.store.pool_schedule import _Scene
from raftkv.store.pools import Pools, load_pools
from raftkv.units import Milliseconds

from .registry import bug, swapped


@bug(
    "pools without a deadline after a restart",
    "a member that starts knows its pools but not when time changes something next",
    "members that applied the same entries have the same digest",
    knobs={"pools": True, "disasters": ("kill", "power_loss"), "nemesis_us": 300_000},
)
def forgotten_deadline() -> Iterator[None]:
    def load_without_deadline(keyspace: Keyspace, clock_ms: Milliseconds) -> Pools:
        pools = load_pools(keyspace, clock_ms)
        pools.deadline_ms = None
        return pools

    with swapped(store_module, "load_pools", load_without_deadline):
        yield


@bug(
    "shares of the dead",
    "what a session held when it ended stays held",
    "no share is lost with its worker",
    knobs={"pools": True},
)
def shares_of_the_dead() -> Iterator[None]:
    def look_away(self: Pools, events: Sequence[bytes]) -> None:
        self.seen = len(events)

    with swapped(Pools, "sync", look_away):
        yield


@bug(
    "a pool gives one more than there is",
    "a demand is compared with what is free and one more",
    "never more is given than there is",
    knobs={"pools": True},
)
def one_more_than_there_is() -> Iterator[None]:
    free = _Scene.free

    with swapped(_Scene, "free", lambda self, pool, resource: free(self, pool, resource) + 1):
        yield
