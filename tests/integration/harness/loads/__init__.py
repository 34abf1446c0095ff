"""Loads: what hundreds of clients do with one recipe, and what must be true of it whatever happens to the cluster meanwhile.

One class per recipe, in a table. Faults know nothing of recipes and recipes nothing of faults: test_recipes_faults.py puts each beside each.
"""

from .base import Load
from .holding import ElectionLoad, LockLoad, PoolLoad, ReadersLoad, ReentrantLoad, SemaphoreLoad
from .meeting import CounterLoad, DoubleBarrierLoad, GateLoad, GroupLoad, RendezvousLoad
from .working import GangsLoad, JobsLoad, PrioritiesLoad, QueueLoad

LOADS: dict[str, type[Load]] = {
    "lock": LockLoad,
    "readers and writers": ReadersLoad,
    "reentrant lock": ReentrantLoad,
    "semaphore": SemaphoreLoad,
    "election": ElectionLoad,
    "pool": PoolLoad,
    "queue": QueueLoad,
    "queue by priority": PrioritiesLoad,
    "jobs": JobsLoad,
    "gangs": GangsLoad,
    "counter": CounterLoad,
    "gate": GateLoad,
    "double barrier": DoubleBarrierLoad,
    "group": GroupLoad,
    "rendezvous": RendezvousLoad,
}

__all__ = ["LOADS", "Load"]
