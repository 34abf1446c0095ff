"""The load of the main job: many writes in flight, counters that would show a double application, and a ledger of what was acknowledged.

The ledger is the only truth that the checks know: what it holds as acknowledged must be found, once, on every member.
"""

import asyncio
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Callable, Iterator

import raftkv
from raftkv.errors import RaftKVError
from stdlib_job.dataset import Part

COUNTER_PREFIX = "counter/"
RETRY_SECONDS_MAX = 60.0
RETRY_PAUSE_SECONDS = 0.05


@dataclass(slots=True)
class Counter:
    """One counter, incremented by one lane only, so that every answer is known beforehand."""

    key: str
    acknowledged: int = 0
    unknown: int = 0
    surprises: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Ledger:
    """What the cluster acknowledged, and when (seconds of time.monotonic)."""

    digests: dict[bytes, bytes] = field(default_factory=dict)
    bytes_written: int = 0
    unknown_keys: list[bytes] = field(default_factory=list)
    counters: list[Counter] = field(default_factory=list)
    acknowledged_at: list[float] = field(default_factory=list)

    @property
    def increments(self) -> int:
        return sum(counter.acknowledged for counter in self.counters)

    def acknowledge(self, part: Part) -> None:
        assert part.key not in self.digests, "a key is written once"
        self.digests[part.key] = part.digest
        self.bytes_written += len(part.value)
        self.acknowledged_at.append(time.monotonic())

    def longest_gap_seconds(self, start: float) -> float:
        """The longest time without any acknowledgement that ended after `start`, counted from `start` at the earliest."""
        moments = [start, *sorted(moment for moment in self.acknowledged_at if moment > start)]
        return max((after - before for before, after in pairwise(moments)), default=0.0)


async def load(
    client: raftkv.AsyncClient,
    parts: list[Part],
    ledger: Ledger,
    *,
    lanes: int,
    counters: int,
    on_progress: Callable[[int], None],
) -> None:
    """Write all parts with `lanes` requests in flight, and increment `counters` counters all the while. Raises the first lane's error."""
    waiting = iter(parts)
    done = asyncio.Event()
    ledger.counters = [Counter(f"{COUNTER_PREFIX}{number}") for number in range(counters)]
    try:
        async with asyncio.TaskGroup() as group:
            for counter in ledger.counters:
                group.create_task(count(client, counter, ledger, done))
            writers = [group.create_task(write(client, waiting, ledger, on_progress)) for _ in range(lanes)]
            await asyncio.wait(writers)
            done.set()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def write(
    client: raftkv.AsyncClient, waiting: Iterator[Part], ledger: Ledger, on_progress: Callable[[int], None]
) -> None:
    for part in waiting:
        if await put_once(client, part):
            ledger.acknowledge(part)
        else:
            ledger.unknown_keys.append(part.key)
        on_progress(len(ledger.digests))


async def put_once(client: raftkv.AsyncClient, part: Part) -> bool:
    """True when it was acknowledged, False when nobody knows. A refusal that surely did nothing is tried again for a while."""
    give_up_at = time.monotonic() + RETRY_SECONDS_MAX
    while True:
        try:
            await client.put(part.key, part.value)
        except RaftKVError as error:
            if error.may_have_happened:
                return False
            if time.monotonic() > give_up_at:
                raise
            await asyncio.sleep(RETRY_PAUSE_SECONDS)
        else:
            return True


async def count(client: raftkv.AsyncClient, counter: Counter, ledger: Ledger, done: asyncio.Event) -> None:
    while not done.is_set():
        try:
            value = int(await client.increment(counter.key))
        except RaftKVError as error:
            counter.unknown += error.may_have_happened
            await asyncio.sleep(RETRY_PAUSE_SECONDS)
            continue
        counter.acknowledged += 1
        ledger.acknowledged_at.append(time.monotonic())
        lowest, highest = counter.acknowledged, counter.acknowledged + counter.unknown
        if not lowest <= value <= highest:
            counter.surprises.append(f"{counter.key}: the answer {value} is not within {lowest} and {highest}")
