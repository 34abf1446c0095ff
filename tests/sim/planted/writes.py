"""Bugs of the queue in which writes wait for the leader: replica/waiting.py. Their worlds have more writes than can be carried."""

from collections.abc import Iterator

from raftkv.replica.groups import WriteGroup
from raftkv.replica.waiting import WaitingWrites
from raftkv.units import Milliseconds

from .registry import bug, swapped


@bug(
    "first come, first served",
    "writes whose time is nearly over are proposed before those that have some left, so that all are committed too late",
    "whoever can be served is: more load than can be carried does not stop everything",
    knobs={
        "members": 3,
        "leases": True,
        "disasters": ("kill",),
        "nemesis_us": 0,
        "chaos_us": 12_000_000,
        "clients": 6,
        "pipelined": 4,
        "think_us": 5_000,
        "call_timeout_s": 1.0,
        "latency_us": (500, 30_000),
        "sync_us": (500, 40_000),
        "lease_reads": False,
        "faulty_minority": False,
    },
    limits={"entry_bytes_max": 64, "pending_writes_max": 100_000},
)
def first_come_first_served() -> Iterator[None]:
    take = WaitingWrites.take

    def take_in_order(self: WaitingWrites, now_ms: Milliseconds, round_ms: Milliseconds) -> list[WriteGroup]:
        deadlines = [group.deadline_ms for group in self._groups]
        for group in self._groups:
            group.deadline_ms = 1 << 62
        taken = take(self, now_ms, round_ms)
        for group, deadline_ms in zip([*taken, *self._groups], deadlines, strict=True):
            group.deadline_ms = deadline_ms
        return taken

    with swapped(WaitingWrites, "take", take_in_order):
        yield
