"""Everyone starts on their own: a merge takes its machines one after the other, wherever it finds one free, and waits for the next.

The locks are as good as the other way's sessions: what a dead worker held is free again after its time. But nobody sees the whole. Merges that each hold
a part of what they need wait for each other, and a merge that hangs keeps its machines. The only way out is the operators'
timeout: give up, and start again later.
"""

import asyncio
import random
from typing import Any

import raftkv
from merge_story.books import Books
from merge_story.platform import MACHINES, Merge
from raftkv.errors import NotAcquired, RaftKVError

GIVE_UP_HOURS = 3.0
AGAIN_HOURS = 0.5
OPERATORS_HOURS = 8.0  # until somebody notices a merge that hangs
CRASH_TTL_SECONDS = 2.0


async def merge_alone(kv: raftkv.AsyncClient, merge: Merge, books: Books, end_hour: float) -> None:
    chance = random.Random(merge.job * 1_000 + merge.number)
    books.falls_due(merge)
    while books.clock.hour < end_hour:
        machines = chance.sample(range(MACHINES), merge.machines)
        locks: list[Any] = []
        try:
            for machine in machines:
                lock = kv.lock(f"naive/machine/{machine}", ttl=CRASH_TTL_SECONDS)
                await lock.acquire(books.clock.seconds(GIVE_UP_HOURS))
                locks.append(lock)
                books.holds(merge, len(locks))
            books.begins(merge)
            await work(merge, books)
            return
        except NotAcquired:
            books.gave_up += 1
            books.held.pop(merge.id, None)
        except RaftKVError:
            books.held.pop(merge.id, None)
        finally:
            for lock in locks:
                try:
                    await lock.release()
                except RaftKVError:
                    pass
        await asyncio.sleep(books.clock.seconds(AGAIN_HOURS))
    books.ends(merge)


async def work(merge: Merge, books: Books) -> None:
    try:
        if merge.crashes:
            books.crashed += 1
            await asyncio.sleep(CRASH_TTL_SECONDS)
        elif merge.hours is None:
            books.hung += 1
            await asyncio.sleep(books.clock.seconds(OPERATORS_HOURS))
        else:
            await asyncio.sleep(books.clock.seconds(merge.hours))
            books.done += 1
    finally:
        books.ends(merge)
