"""Loads of what is held: locks, semaphores, offices, shares of a pool.

Three judges. Among the hands of one process: whoever comes in finds nobody in there, by their own `valid_for`, with whom it does not fit. In the
store: they count by reading and writing under the guard of their token, so two at once would be one step too few. In the history: every write that
the cluster accepted was made under a token that held the lock right before it, and at no revision is more given than there is.
"""

import asyncio
import json
import random
from contextlib import contextmanager
from typing import Any, ClassVar, Iterator

import raftkv
from raftkv.client.results import KeyValue
from raftkv.errors import FencingTokenStale, LockLost, PoolExists, RaftKVError
from raftkv.recipes.lock import line_up, places

from ..rivals import count_under
from .base import TTL_S, Load, Seen

ACQUIRE_S = 30.0


class Holding(Load):
    """One at a time, by a lock."""

    capacity: ClassVar[int] = 1

    def __init__(self, place: str, hands: int = 0) -> None:
        super().__init__(place, hands)
        self.inside: dict[int, tuple[Any, int]] = {}

    @contextmanager
    def within(self, holder: Any, weight: int) -> Iterator[None]:
        """We believe to be inside, together with who surely is."""
        self.inside[id(holder)] = holder, weight
        # What is surely held by now, by the holders' own clocks: an answer may have been long on its way.
        surely = [share for other, share in self.inside.values() if other.valid_for > 0]
        try:
            assert sum(surely) <= self.capacity, f"{self.place}: {surely} are inside, of {self.capacity}"
            yield
        finally:
            del self.inside[id(holder)]

    def make(self, kv: raftkv.AsyncClient, number: int) -> Any:
        return kv.lock(f"{self.place}/lock", ttl=TTL_S, owner=str(number))

    async def acquire(self, holder: Any) -> None:
        await holder.acquire(ACQUIRE_S)

    async def release(self, holder: Any) -> None:
        try:
            await holder.release()
        except LockLost:
            self.seen.lost += 1

    async def turn(self, kv: raftkv.AsyncClient, number: int) -> None:
        holder = self.make(kv, number)
        await self.acquire(holder)
        try:
            with self.within(holder, 1):
                await self.work(holder, kv)
        finally:
            await self.release(holder)

    async def work(self, holder: Any, kv: raftkv.AsyncClient) -> None:
        await count_under(holder, kv, self.seen, f"{self.place}/count")

    async def check(self, kv: raftkv.AsyncClient, seen: Seen) -> None:
        tokens = [int(token) for token in (await kv.get(f"{self.place}/count", b"")).split()]
        assert tokens == sorted(set(tokens)), "a token counted twice, or after a larger one"
        assert seen.done <= len(tokens) <= seen.done + seen.uncertain, (len(tokens), seen)
        await self.check_history(kv)
        await self.check_empty(kv)

    async def check_history(self, kv: raftkv.AsyncClient) -> None:
        prefix, count = f"{self.place}/lock/".encode(), f"{self.place}/count".encode()
        line: dict[bytes, KeyValue] = {}
        judged = 0
        for event in await self.history(kv, f"{self.place}/"):
            if event.key == count:
                token = int(event.value.split()[-1])
                holders = [holder.token for holder in line_up(places(list(line.values()), prefix)) if holder.holds]
                assert token in holders, f"{token} wrote at {event.revision} while {holders} held the lock"
                judged += 1
            elif event.type == "delete":
                line.pop(event.key, None)
            elif event.key.startswith(prefix):
                line[event.key] = event.kv
        assert judged > 0, "nothing was judged"

    async def check_empty(self, kv: raftkv.AsyncClient) -> None:
        """Nothing of the load is held for good: the next one comes in."""
        holder = self.make(kv, -1)
        await holder.acquire(ACQUIRE_S)
        await holder.release()


class LockLoad(Holding):
    """lock"""


class ReentrantLoad(Holding):
    """Whoever has it takes it once more, and gives it back twice."""

    def make(self, kv: raftkv.AsyncClient, number: int) -> Any:
        return kv.lock(f"{self.place}/lock", ttl=TTL_S, reentrant=True)

    async def work(self, holder: Any, kv: raftkv.AsyncClient) -> None:
        try:
            await holder.acquire()
        except LockLost:
            self.seen.lost += 1
            return
        try:
            await super().work(holder, kv)
        finally:
            await self.release(holder)
            assert holder.held, "the outer one still has it"


class ReadersLoad(Holding):
    """Three of four read: a reader sees no writer come between two looks."""

    READER, WRITER = 1, 1_000
    capacity = WRITER

    async def turn(self, kv: raftkv.AsyncClient, number: int) -> None:
        shared = number % 4 != 0
        holder = kv.lock(f"{self.place}/lock", ttl=TTL_S, shared=shared)
        await self.acquire(holder)
        try:
            with self.within(holder, self.READER if shared else self.WRITER):
                await (self.read(holder, kv) if shared else self.work(holder, kv))
        finally:
            await self.release(holder)

    async def read(self, holder: Any, kv: raftkv.AsyncClient) -> None:
        first = await kv.get(f"{self.place}/count")
        second = await kv.get(f"{self.place}/count")
        assert first == second or holder.valid_for <= 0, "somebody wrote while we read"
        self.seen.note("read", 1)


class SemaphoreLoad(Holding):
    """Weights of 1 to 3 of 5."""

    capacity = 5

    async def turn(self, kv: raftkv.AsyncClient, number: int) -> None:
        weight = 1 + number % 3
        holder = kv.semaphore(f"{self.place}/sem", self.capacity, weight=weight, priority=number % 2, ttl=TTL_S)
        await self.acquire(holder)
        try:
            with self.within(holder, weight):
                await note_under(holder, f"{self.place}/tokens", self.seen)
        finally:
            await self.release(holder)

    async def check(self, kv: raftkv.AsyncClient, seen: Seen) -> None:
        await check_notes(kv, f"{self.place}/tokens", seen)
        held: dict[bytes, int] = {}
        prefix = f"{self.place}/sem/h/"
        used, at = 0, 0
        for event in await self.history(kv, prefix):
            if event.revision != at:
                assert used <= self.capacity, f"{used} of {self.capacity} at revision {at}"
            held.pop(event.key, None)
            if event.type == "put":
                held[event.key] = int(json.loads(event.value)["weight"])
            used, at = sum(held.values()), event.revision
        assert at > 0, "nothing was judged"
        assert used <= self.capacity
        place = kv.semaphore(f"{self.place}/sem", self.capacity, weight=self.capacity)
        await place.acquire(ACQUIRE_S)
        await place.release()


class ElectionLoad(Holding):
    """Who leads says so, under its own office; one hand listens."""

    def make(self, kv: raftkv.AsyncClient, number: int) -> Any:
        return kv.election(f"{self.place}/lock", ttl=TTL_S)

    async def acquire(self, holder: Any) -> None:
        await holder.campaign("candidate", ACQUIRE_S)

    async def release(self, holder: Any) -> None:
        try:
            await holder.resign()
        except LockLost:
            self.seen.lost += 1

    async def work(self, holder: Any, kv: raftkv.AsyncClient) -> None:
        try:
            await holder.proclaim(str(holder.token))
        except FencingTokenStale:
            self.seen.lost += 1
            return
        await super().work(holder, kv)

    async def hand(self, kv: raftkv.AsyncClient, number: int) -> None:
        if number:
            await super().hand(kv, number)
            return
        listening = asyncio.create_task(self.listen(kv))
        await self.ending.wait()
        listening.cancel()
        try:
            await listening
        except asyncio.CancelledError:
            pass

    async def listen(self, kv: raftkv.AsyncClient) -> None:
        latest = 0
        while True:
            try:
                async for leader in kv.election(f"{self.place}/lock").observe():
                    assert leader.token >= latest, "a leader of before was heard of again"
                    assert leader.value in (b"candidate", b"%d" % leader.token), "somebody else's words"
                    latest = leader.token
                    self.seen.note("heard", leader.token)
            except RaftKVError as error:
                self.seen.note("deaf", error.code)

    async def check(self, kv: raftkv.AsyncClient, seen: Seen) -> None:
        await super().check(kv, seen)
        assert seen.of("heard"), "the listener heard of nobody"

    async def check_empty(self, kv: raftkv.AsyncClient) -> None:
        last = self.make(kv, -1)
        await last.campaign("last", ACQUIRE_S)
        await last.resign()


class PoolLoad(Holding):
    """Shares of two pools, all or nothing; some who have one die."""

    capacity = 8
    LICENCES: ClassVar[int] = 3

    async def prepare(self, kv: raftkv.AsyncClient) -> None:
        await super().prepare(kv)
        for name, capacity in (("gpus", {"gpu": self.capacity}), ("licences", {"solver": self.LICENCES})):
            try:
                await kv.pool(self.pool(name)).create(capacity, age_weight=1000)
            except PoolExists:
                pass

    def pool(self, name: str) -> str:
        return f"{self.place}.{name}".replace("/", ".")

    async def turn(self, kv: raftkv.AsyncClient, number: int) -> None:
        gpus, solvers = 1 + number % 4, int(number % 3 == 0)
        also = {self.pool("licences"): {"solver": solvers}} if solvers else None
        name = f"{self.pool('r')}-{gpus}-{solvers}-{number}-{random.getrandbits(48):x}"
        grant = await kv.pool(self.pool("gpus")).acquire(
            {"gpu": gpus}, also=also, ttl=TTL_S, timeout=ACQUIRE_S, weight=number % 3, request_id=name
        )
        try:
            with self.within(grant, gpus):
                await note_under(grant, f"{self.place}/tokens", self.seen)
        finally:
            await self.release(grant)

    async def check(self, kv: raftkv.AsyncClient, seen: Seen) -> None:
        await check_notes(kv, f"{self.place}/tokens", seen)
        granted: dict[bytes, tuple[int, int]] = {}
        prefix = f"raftkv.pools/g/{self.pool('r')}-"
        used, at = (0, 0), 0
        for event in await self.pool_history(kv, prefix):
            if event.revision != at:
                assert used[0] <= self.capacity and used[1] <= self.LICENCES, f"{used} at revision {at}"
            granted.pop(event.key, None)
            if event.type == "put":
                gpus, solvers = event.key.decode()[len(prefix) :].split("-")[:2]
                granted[event.key] = int(gpus), int(solvers)
            used, at = (
                (sum(row[0] for row in granted.values()), sum(row[1] for row in granted.values())),
                event.revision,
            )
        assert at > 0, "nothing was judged"
        # All of both at once: what dead sessions had comes back with them.
        grant = await kv.pool(self.pool("gpus")).acquire(
            {"gpu": self.capacity}, also={self.pool("licences"): {"solver": self.LICENCES}}, timeout=ACQUIRE_S
        )
        await grant.release()

    async def pool_history(self, kv: raftkv.AsyncClient, prefix: str) -> list[Any]:
        """Nobody may write there, so a last grant is the end."""
        last = f"{self.pool('r')}-0-0-end-{random.getrandbits(48):x}"
        grant = await kv.pool(self.pool("gpus")).acquire({"gpu": 1}, timeout=ACQUIRE_S, request_id=last)
        events = []
        async with kv.watch(prefix=prefix, start_revision=self.begun_at_revision) as watch:
            async for event in watch:
                if event.key.endswith(last.encode()):
                    break
                events.append(event)
        await grant.release()
        return events


async def note_under(holder: Any, key: str, seen: Seen) -> None:
    """Leave our token behind, once. Where several hold at once, key and number together are the token."""
    try:
        await holder.guard().append(key, b" %s:%d" % (holder.key, holder.token), timeout=10)
    except FencingTokenStale:
        seen.lost += 1
    except RaftKVError as error:
        seen.uncertain += error.may_have_happened
    else:
        seen.done += 1


async def check_notes(kv: raftkv.AsyncClient, key: str, seen: Seen) -> None:
    tokens = (await kv.get(key, b"")).split()
    assert len(tokens) == len(set(tokens)), "a note was made twice"
    assert seen.done <= len(tokens) <= seen.done + seen.uncertain, (len(tokens), seen)
