"""Merging through a pool: each merge is one request, and the cluster decides who is next.

The check of it all comes from outside: a watch on the pool's keys hears every request and every grant at its revision, and replays them
against the rules: never more machines than there are, and nobody of less weight before somebody who waited for no more.
"""

import asyncio
import contextlib
import json
from typing import Any

import raftkv
from merge_story.books import Books
from merge_story.platform import MACHINES, MEMORY_GB, Merge
from raftkv.errors import FencingTokenStale, LockLost, NotAcquired, RaftKVError

POOL = "merge"
MAX_RUN_HOURS = 2.0
GRACE_HOURS = 0.5
URGENT_POINTS = 1_000
POINTS_PER_HOUR = 10
CRASH_TTL_SECONDS = 2.0


class BareLease:
    """The session of a worker that is about to die: granted, and renewed by nobody."""

    def __init__(self, lease_id: int) -> None:
        self.id = lease_id
        self.ttl = self.valid_for = CRASH_TTL_SECONDS
        self.lost = asyncio.Event()
        self.doubt = asyncio.Event()

    async def __aenter__(self) -> "BareLease":
        return self

    async def revoke(self) -> None:
        """The dead do nothing."""


class Audit:
    """What the watch heard, and what was wrong with it."""

    def __init__(self, second_per_hour: float) -> None:
        self.faults: list[str] = []
        self.grants = 0
        self._points_per_ms = staleness_weight(second_per_hour) / 3_600_000
        self._machines: dict[str, int] = {}
        self._waiting: dict[str, float] = {}

    def hear(self, batch: raftkv.WatchBatch) -> None:
        """All events of one revision: what goes, then what was granted together."""
        prefix = len(b"raftkv.pools/r/")
        granted: list[tuple[str, float]] = []
        for event in batch.events:
            name, kind = event.key[prefix:].decode(), event.key[prefix - 2 : prefix - 1]
            if event.type == "delete":
                (self._waiting if kind == b"r" else self._machines).pop(name, None)
                continue
            says = json.loads(event.value)
            if kind == b"r":
                self._waiting[name] = self._weight(says)
            elif event.kv.version == 1:
                granted.append((name, self._weight(says)))
                self._machines[name] = says["demand"][POOL]["machines"]
        if sum(self._machines.values()) > MACHINES:
            self.faults.append(f"revision {batch.revision}: {sum(self._machines.values())} machines are given away")
        for name, weight in granted:
            self.grants += 1
            for other, others_weight in self._waiting.items():
                if others_weight > weight + 0.01:  # points; the cluster counts in thousandths
                    self.faults.append(
                        f"revision {batch.revision}: {name} was granted before {other}, which weighs more"
                    )

    def _weight(self, says: dict[str, Any]) -> float:
        """But for the part that grows alike for everybody."""
        urgent = URGENT_POINTS * (says["class"] == "urgent")
        return urgent + float(says["staleness_ms"] - says["submitted_ms"]) * self._points_per_ms


async def audit(kv: raftkv.AsyncClient, books: Audit, ready: asyncio.Event) -> None:
    """Listens until it is cancelled."""
    async with kv.watch(prefix="raftkv.pools/") as watch:
        ready.set()
        async for batch in watch.batches():
            books.hear(batch)


def staleness_weight(second_per_hour: float) -> int:
    """Points per real hour, so that they are POINTS_PER_HOUR per hour of the platform."""
    return round(3600 / second_per_hour * POINTS_PER_HOUR)


async def set_up(kv: raftkv.AsyncClient, books: Books) -> None:
    clock = books.clock
    await kv.pool(POOL).create(
        {"machines": MACHINES, "memory_gb": MEMORY_GB},
        classes={"urgent": URGENT_POINTS},
        staleness_weight=staleness_weight(clock.second_per_hour),
        max_run=clock.seconds(MAX_RUN_HOURS),
        grace=clock.seconds(GRACE_HOURS),
    )


async def merge_by_pool(kv: raftkv.AsyncClient, merge: Merge, books: Books, session: Any) -> None:
    """Ask, wait, merge, give back; a merge that hangs or dies does none of the last."""
    clock = books.clock
    books.falls_due(merge)
    lease = session
    if merge.crashes:
        lease = BareLease((await kv.lease_grant(CRASH_TTL_SECONDS)).id)
    late_hours = max(0.0, clock.hour - merge.due_hour)
    try:
        grant = await kv.pool(POOL).acquire(
            {"machines": merge.machines, "memory_gb": merge.memory_gb},
            klass="urgent" if merge.urgent else "",
            staleness=clock.seconds(late_hours),
            request_id=merge.id,
            lease=lease,
        )
    except (NotAcquired, LockLost):
        books.crashed += merge.crashes
        books.ends(merge)
        return
    books.begins(merge)
    try:
        await work(grant, merge, books)
    finally:
        books.ends(merge)


async def work(grant: Any, merge: Merge, books: Books) -> None:
    if merge.crashes:
        books.crashed += 1
        await grant.lost.wait()  # only so that the books know how long it held its machines for nothing
        return
    if merge.hours is None:
        books.hung += 1
        await grant.lost.wait()
        books.stopped += 1
        with contextlib.suppress(FencingTokenStale):
            await grant.guard().put(f"model/{merge.job}", "from a merge that hung")
            raise AssertionError("a merge that was stopped has written")
        books.refused_late += 1
        with contextlib.suppress(LockLost):
            await grant.release()
        return
    await asyncio.sleep(books.clock.seconds(merge.hours))
    books.ends(merge)
    try:
        await grant.guard().put(f"model/{merge.job}", merge.id)
        await grant.release()
        books.done += 1
    except (FencingTokenStale, LockLost, RaftKVError):
        books.gave_up += 1
