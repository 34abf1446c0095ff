"""Holders that are to be killed, and what waits for them to be gone: one pair per recipe that holds something.

    python -m integration.harness.holder RECIPE ENDPOINTS TTL

takes hold, prints `held LEASE`, and goes on for good. It runs in a process of its own, because a task that is cancelled still can say good-bye.
"""

import asyncio
import sys
from dataclasses import dataclass
from typing import Any, Awaitable, Callable

import raftkv


@dataclass(frozen=True)
class Pair:
    hold: Callable[[raftkv.AsyncClient, str, float], Awaitable[int]]
    """Takes hold under a name; the id of the lease that it hangs on."""
    await_free: Callable[[raftkv.AsyncClient, str], Awaitable[object]]
    """Returns once the next one can have it."""


async def hold_lock(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    return await held_by(kv.lock(name, ttl=ttl))


async def hold_as_reader(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    return await held_by(kv.lock(name, ttl=ttl, shared=True))


async def hold_twice(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    lock = kv.lock(name, ttl=ttl, reentrant=True)
    await lock.acquire()
    return await held_by(lock)


async def hold_semaphore(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    return await held_by(kv.semaphore(name, 3, weight=2, ttl=ttl))


async def hold_office(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    election = kv.election(name, ttl=ttl)
    await election.campaign("me")
    return int(election._lock._held().lease.id)


async def held_by(holder: Any) -> int:
    await holder.acquire()
    return int(holder._held().lease.id)


async def hold_gate(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    lease = kv.lease(ttl)
    await lease.__aenter__()
    await kv.barrier(name).close(lease=lease.id)
    return lease.id


async def hold_meeting(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    point = kv.double_barrier(name, 1, ttl=ttl)
    await point.enter()
    return point._inside()[1].id


async def hold_item(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    queue = kv.queue(name, ttl=ttl)
    await queue.put("x")
    return (await queue.claim())._lease.id


async def hold_membership(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    group = kv.group(name, ttl=ttl)
    await group.join("x")
    return group._membership()[2].id


async def hold_share(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    await kv.pool(name).create({"gpu": 2})
    return (await kv.pool(name).acquire({"gpu": 2}, ttl=ttl))._lease.id


async def hold_job(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    jobs = kv.jobs(name, ttl=ttl)
    await jobs.submit("x")
    return (await jobs.claim())._lease.id


async def hold_gang(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    """Both of its places."""
    jobs = kv.jobs(name, ttl=ttl)
    await jobs.submit("x", workers=2)
    claims = await asyncio.gather(jobs.claim(), jobs.claim())
    return claims[0]._lease.id


async def hold_round(kv: raftkv.AsyncClient, name: str, ttl: float) -> int:
    store = kv.rendezvous(name, 1, ttl=ttl)
    await store.set("address", "x")
    return int((await store._scope.life()).lease.id)


async def next_semaphore(kv: raftkv.AsyncClient, name: str) -> None:
    await kv.semaphore(name, 3, weight=2).acquire()


async def next_item(kv: raftkv.AsyncClient, name: str) -> None:
    assert (await kv.queue(name).claim()).attempt == 2


async def nobody_there(kv: raftkv.AsyncClient, name: str) -> None:
    async for members in kv.group(name).changes():
        if not members:
            return


async def next_job(kv: raftkv.AsyncClient, name: str) -> None:
    assert (await kv.jobs(name).claim()).job.attempt == 2


async def next_gang(kv: raftkv.AsyncClient, name: str) -> None:
    jobs = kv.jobs(name)
    claims = await asyncio.gather(jobs.claim(), jobs.claim())
    assert [claim.job.attempt for claim in claims] == [2, 2]


async def round_over(kv: raftkv.AsyncClient, name: str) -> None:
    await kv.wait_for([f"rdzv/{name}/1/k/address"], until="deleted", timeout=60)


PAIRS = {
    "lock": Pair(hold_lock, lambda kv, name: kv.lock(name).acquire()),
    "reader": Pair(hold_as_reader, lambda kv, name: kv.lock(name).acquire()),
    "reentrant": Pair(hold_twice, lambda kv, name: kv.lock(name).acquire()),
    "semaphore": Pair(hold_semaphore, next_semaphore),
    "election": Pair(hold_office, lambda kv, name: kv.election(name).campaign("next")),
    "gate": Pair(hold_gate, lambda kv, name: kv.barrier(name).wait()),
    "meeting": Pair(hold_meeting, lambda kv, name: kv.double_barrier(name, 1).enter()),
    "queue": Pair(hold_item, next_item),
    "group": Pair(hold_membership, nobody_there),
    "pool": Pair(hold_share, lambda kv, name: kv.pool(name).acquire({"gpu": 1})),
    "jobs": Pair(hold_job, next_job),
    "gang": Pair(hold_gang, next_gang),
    "rendezvous": Pair(hold_round, round_over),
}


async def main(recipe: str, endpoints: str, ttl: str) -> None:
    async with raftkv.connect(endpoints, timeout=20) as kv:
        lease_id = await PAIRS[recipe].hold(kv, f"killed.{recipe}", float(ttl))
        sys.stdout.write(f"held {lease_id}\n")  # in one piece: somebody reads along
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
