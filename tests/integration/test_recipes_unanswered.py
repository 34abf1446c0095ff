"""Answers that do not come: a claim that was made without its maker's knowledge is not kept alive by the session that it hangs on.

The write is done and its answer lost, or the waiter is cancelled in that moment, while its session lives on for good. The next one has to get what
it had all the same, without waiting for anybody's TTL.
"""

import asyncio
from contextlib import contextmanager
from typing import Any, Iterator

import pytest

import raftkv
from raftkv.errors import FencingTokenStale, OutcomeUnknown, RaftKVError

from .harness.cluster import Cluster

pytestmark = pytest.mark.integration

LONG_S = 100.0
SOON_S = 30.0


@contextmanager
def deaf(kv: raftkv.AsyncClient, key: str, error: type[BaseException]) -> Iterator[None]:
    """The next write that names a key which begins like this is done, and its answer does not reach whoever asked."""
    lost: list[Any] = []
    real: Any = kv._write

    async def lose(answer: "asyncio.Future[Any]") -> Any:
        await answer
        raise error()

    def write(command: Any, timeout: float | None) -> Any:
        answer = real(command, timeout)
        if lost or key not in repr(command):
            return answer
        lost.append(command)
        return lose(answer)

    kv._write = write  # type: ignore[method-assign]
    try:
        yield
    finally:
        del kv._write  # type: ignore[method-assign]
    assert lost, "there was no such write"


lost_answers = pytest.mark.parametrize("error", [OutcomeUnknown, asyncio.CancelledError])


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "".join(letter for letter in request.node.name if letter.isalnum())


@lost_answers
async def test_an_item_of_a_queue(healthy: Cluster, name: str, error: type[BaseException]) -> None:
    async with raftkv.connect(healthy.endpoints) as kv, kv.queue(name, ttl=LONG_S) as queue, kv.queue(name) as other:
        await queue.put("first")
        await queue.put("second")
        held = await queue.claim(0)
        with deaf(kv, f"{name}/c/1", error), pytest.raises(error):
            await queue.claim(0)
        assert (await other.claim(SOON_S)).value == b"second"
        await held.ack()  # nothing has happened to what the session had already


@lost_answers
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_job(healthy: Cluster, name: str, error: type[BaseException], workers: int) -> None:
    async with raftkv.connect(healthy.endpoints) as kv, kv.jobs(name, ttl=LONG_S) as jobs, kv.jobs(name) as others:
        await jobs.submit("x", job_id="a", workers=workers)
        with deaf(kv, f"{name}/c/a/", error), pytest.raises(error):
            await jobs.claim(SOON_S)
        assert (await jobs.show("a")).state == "queued"
        assert await kv.get_prefix(f"{name}/c/") == []
        claims = await asyncio.gather(*(others.claim(SOON_S) for _ in range(workers)))
        assert sorted(claim.rank for claim in claims) == list(range(workers))
        assert claims[0].job.attempt == 1, "what nobody heard of was no attempt"


@lost_answers
async def test_the_last_of_a_gang(healthy: Cluster, name: str, error: type[BaseException]) -> None:
    """The others have begun with one who does not know it: they are told, and it begins anew."""
    async with (
        raftkv.connect(healthy.endpoints) as kv,
        raftkv.connect(healthy.endpoints) as elsewhere,
        elsewhere.jobs(name) as first,
        kv.jobs(name, ttl=LONG_S) as second,
    ):
        await first.submit("x", job_id="a", workers=2)
        waiting = asyncio.create_task(first.claim(SOON_S))
        while not await kv.get_prefix(f"{name}/c/"):
            await asyncio.sleep(0.01)
        with deaf(kv, f"{name}/c/a/", error), pytest.raises(error):
            await second.claim(SOON_S)
        again = asyncio.create_task(second.claim(SOON_S))
        begun = await waiting
        if begun.job.history[-1] == (await first.show("a")).history[-1]:
            await again  # they had stepped back before the first one looked: it waited on
        else:
            with pytest.raises(FencingTokenStale):
                await begun.complete("alone")
            begun = await first.claim(SOON_S)
        assert {begun.rank, (await again).rank} == {0, 1}


@lost_answers
@pytest.mark.parametrize("table", ["q/", "h/"])
async def test_a_place_in_a_semaphore_on_a_lease_of_ones_own(
    healthy: Cluster, name: str, error: type[BaseException], table: str
) -> None:
    async with raftkv.connect(healthy.endpoints) as kv, kv.lease(LONG_S) as lease:
        with deaf(kv, f"{name}/{table}{lease.id:x}", error), pytest.raises((error, RaftKVError)):
            await kv.semaphore(name, 1, lease=lease).acquire(SOON_S)
        await kv.semaphore(name, 1).acquire(SOON_S)


@lost_answers
async def test_a_lock_on_a_lease_of_ones_own(healthy: Cluster, name: str, error: type[BaseException]) -> None:
    async with raftkv.connect(healthy.endpoints) as kv, kv.lease(LONG_S) as lease:
        with deaf(kv, f"{name}/{lease.id:x}", error), pytest.raises((error, RaftKVError)):
            await kv.lock(name, lease=lease).acquire(SOON_S)
        await kv.lock(name).acquire(SOON_S)


@lost_answers
async def test_a_share_of_a_pool_on_a_lease_of_ones_own(
    healthy: Cluster, name: str, error: type[BaseException]
) -> None:
    async with raftkv.connect(healthy.endpoints) as kv, kv.lease(LONG_S) as lease:
        pool = kv.pool(name[:60])
        await pool.create({"gpu": 1})
        with deaf(kv, f"{lease.id:x}-", error), pytest.raises((error, RaftKVError)):
            await pool.acquire({"gpu": 1}, lease=lease)
        await (await pool.acquire({"gpu": 1}, timeout=SOON_S)).release()


async def test_a_request_that_is_granted_while_it_is_given_up(healthy: Cluster) -> None:
    """Between the look at the grant and the word that it is not wanted any more."""
    async with raftkv.connect(healthy.endpoints) as kv, kv.lease(LONG_S) as lease:
        pool = kv.pool("late")
        await pool.create({"gpu": 1})
        grant = await pool.acquire({"gpu": 1})
        real = kv.get_kv

        async def get_kv(key: Any, **options: Any) -> Any:
            found = await real(key, **options)
            if key.startswith(b"raftkv.pools/g/") and found is None:
                await grant.release()
            return found

        kv.get_kv = get_kv  # type: ignore[method-assign]
        with pytest.raises(RaftKVError):
            await pool.acquire({"gpu": 1}, lease=lease, timeout=0.1)
        del kv.get_kv  # type: ignore[method-assign]
        assert (await pool.info()).used == {"gpu": 0}
        await pool.delete()


@lost_answers
async def test_who_does_not_get_into_a_group_puts_nobody_out(
    healthy: Cluster, name: str, error: type[BaseException]
) -> None:
    async with raftkv.connect(healthy.endpoints) as kv, kv.lease(LONG_S) as lease:
        there = kv.group(name)
        await there.join(member="one")
        with deaf(kv, f"{name}/one", error), pytest.raises((error, RaftKVError)):
            await kv.group(name, lease=lease).join(member="one")
        assert [member.name for member in await there.members()] == [b"one"]
        with deaf(kv, f"{name}/two", error), pytest.raises((error, RaftKVError)):
            await kv.group(name, lease=lease).join(member="two")
        assert [member.name for member in await there.members()] == [b"one"]
        await there.leave()


async def test_what_begins_a_session_twice_at_once_keeps_one(healthy: Cluster) -> None:
    async with raftkv.connect(healthy.endpoints) as kv:
        queue, jobs, store = kv.queue("twice"), kv.jobs("twice.jobs"), kv.rendezvous("twice", ttl=2)
        for number in range(4):
            await queue.put(str(number))
            await jobs.submit("x", job_id=str(number))
        before = set(await kv.leases())
        await asyncio.gather(*(queue.claim(0) for _ in range(4)))
        await asyncio.gather(*(jobs.claim(SOON_S) for _ in range(4)))
        assert len(set(await kv.leases()) - before) == 2
        await asyncio.gather(*(store.set(str(number), "x") for number in range(4)))
        await queue.close()
        await jobs.close()
        await store.close()
        assert not any(item.claimed for item in await queue.items())
        while set(await kv.leases()) - before:  # nobody keeps the round alive any more
            await asyncio.sleep(0.05)


async def test_a_worker_that_lost_its_session_while_it_waited_goes_on(healthy: Cluster) -> None:
    async with raftkv.connect(healthy.endpoints) as kv, kv.jobs("idle", ttl=3) as jobs:
        before = set(await kv.leases())
        waiting = asyncio.create_task(jobs.claim(SOON_S))
        while not (own := set(await kv.leases()) - before):
            await asyncio.sleep(0.01)
        await kv.lease_revoke(own.pop())
        while not set(await kv.leases()) - before:
            await asyncio.sleep(0.05)  # it has noticed, and has another one
        await jobs.submit("x", job_id="a")
        assert (await waiting).id == "a"


async def test_a_session_that_ended_before_it_was_noticed(healthy: Cluster) -> None:
    """The claim that finds it out begins another one, and takes what is first in line."""
    async with raftkv.connect(healthy.endpoints) as kv:
        before = set(await kv.leases())
        queue, jobs = kv.queue("unnoticed", ttl=LONG_S), kv.jobs("unnoticed.jobs", ttl=LONG_S)
        for number in range(8):
            await queue.put(str(number))
            await jobs.submit("x", job_id=str(number))
        first = await queue.claim(0)
        await (await jobs.claim(0)).give_back()
        await first.ack()
        for lease in set(await kv.leases()) - before:
            await kv.lease_revoke(lease)
        assert (await queue.claim(0)).value == b"1"
        assert (await jobs.claim(SOON_S)).id == "0"
