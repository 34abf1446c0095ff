"""Loads of what is handed out: items of queues, and jobs.

Every hand puts something in and takes something out, in a session that lasts as long as the hand: what such a session has in its hands without knowing
it would stay there for good, so at the end all has to come out by itself while the sessions still live. Now and then a hand dies with what
it has. Nothing is in two hands at once by the holders' own `valid_for`, everything is acknowledged, and nothing twice.
"""

import asyncio
import json
import random
from collections import Counter
from contextlib import contextmanager
from typing import Any, ClassVar, Iterator

import raftkv
from raftkv.errors import FencingTokenStale, LockLost, NotAcquired, RaftKVError

from .base import TTL_S, Load, Seen

CLAIM_S = 5.0
DIES = 0.05
SETTLERS, SETTLE_S = 8, 100.0


class Handing(Load):
    """What both have in common: who has what."""

    def __init__(self, place: str, hands: int = 0) -> None:
        super().__init__(place, hands)
        self.having: dict[Any, list[Any]] = {}
        self.made = 0

    @contextmanager
    def has(self, name: Any, claim: Any, at_once: int = 1) -> Iterator[None]:
        holders = self.having.setdefault(name, [])
        holders.append(claim)
        try:
            surely = [other.token for other in holders if other._lease.valid_for > 0]
            assert len(surely) <= at_once, f"{name} is in the hands of {surely}"
            yield
        finally:
            holders.remove(claim)

    async def give_up(self, claim: Any, session: Any) -> None:
        """What we know that we have, and shall not finish: the session goes on, and would keep it from everybody."""
        try:
            await claim.give_back()
        except (LockLost, FencingTokenStale):
            pass  # it was acknowledged after all, or is somebody else's
        except RaftKVError:
            await session.close()  # no service for that either: then it ends with its session

    def new_name(self, number: int) -> str:
        self.made += 1
        return f"{number}-{self.made}-{random.getrandbits(32):x}"


class QueueLoad(Handing):
    """First in, first out. One line has a single worker, who has to find it in order."""

    priorities: ClassVar[int] = 1
    LINE: ClassVar[int] = 200

    async def prepare(self, kv: raftkv.AsyncClient) -> None:
        await super().prepare(kv)
        for number in range(self.LINE):
            await kv.queue(f"{self.place}/line").put(str(number), priority=number % self.priorities)

    async def hand(self, kv: raftkv.AsyncClient, number: int) -> None:
        name = "line" if number == 0 else "work"
        async with kv.queue(f"{self.place}/{name}", ttl=TTL_S) as queue:
            while not self.ending.is_set():
                await self.try_turn_on(queue, number)
                if number:  # the line has one worker alone, who has to get on in the little time that hundreds take
                    await self.think()
            await self.settled.wait()

    async def try_turn_on(self, queue: Any, number: int) -> None:
        try:
            if number:
                await self.put(queue, number)
            elif len(set(self.seen.of("line"))) == self.LINE:
                await self.ending.wait()
                return
            await self.work(queue, number)
        except RaftKVError as error:
            self.seen.errors[error.code] = self.seen.errors.get(error.code, 0) + 1

    async def put(self, queue: Any, number: int) -> None:
        value = self.new_name(number)
        try:
            await queue.put(value, priority=self.made % self.priorities)
        except RaftKVError as error:
            if error.may_have_happened:
                self.seen.note("perhaps put", value)
            raise
        self.seen.note("put", value)

    async def work(self, queue: Any, number: int) -> None:
        claim = await queue.claim(CLAIM_S)
        value = claim.value.decode()
        if not number and claim.attempt == 1:
            self.seen.note("order", int(value))
        try:
            with self.has((queue.prefix, claim.id), claim):
                await queue.length()
        except RaftKVError:
            await self.give_up(claim, queue)
            raise
        if random.random() < DIES:
            await queue.close()  # dies with the item in hand
            return
        try:
            await claim.ack()
        except LockLost:
            self.seen.lost += 1
            self.seen.note("perhaps done", value)  # the first answer may have got lost
        except RaftKVError as error:
            if error.may_have_happened:
                self.seen.note("perhaps done", value)
            await self.give_up(claim, queue)
        else:
            self.seen.note("done" if number else "line", value)
            self.seen.done += 1

    async def settle(self, kv: raftkv.AsyncClient) -> None:
        async with kv.queue(f"{self.place}/work") as queue:
            while await queue.length():
                try:
                    await self.work(queue, 1)
                except NotAcquired:
                    assert not await queue.length(), f"{await queue.items()} cannot be had, and nobody works on it"

    async def check(self, kv: raftkv.AsyncClient, seen: Seen) -> None:
        done, put = Counter(seen.of("done")), set(seen.of("put"))
        assert max(done.values()) == 1, "an item was acknowledged twice"
        assert put <= done.keys() | set(seen.of("perhaps done")), "an item was lost"
        assert done.keys() <= put | set(seen.of("perhaps put")), "an item that nobody put"
        assert await kv.queue(f"{self.place}/work").length() == 0
        # What is handed out again comes when its holder's time is over.
        order = seen.of("order")
        assert order == sorted(order, key=lambda number: (-(number % self.priorities), number)), "out of order"
        assert len(order) > 1, "the line did not move"


class PrioritiesLoad(QueueLoad):
    """With three priorities."""

    priorities = 3


class JobsLoad(Handing):
    """Each submits a job and works on one, whosever it is."""

    workers: ClassVar[int] = 1

    def jobs(self, kv: raftkv.AsyncClient, number: int) -> Any:
        return kv.jobs(f"{self.place}/jobs", ttl=TTL_S, worker=f"w{number}")

    async def hand(self, kv: raftkv.AsyncClient, number: int) -> None:
        async with self.jobs(kv, number) as jobs:
            while not self.ending.is_set():
                try:
                    if number % self.workers == 0:
                        await self.submit(jobs, number)
                    await self.work(kv, jobs)
                except RaftKVError as error:
                    self.seen.errors[error.code] = self.seen.errors.get(error.code, 0) + 1
                await self.think()
            await self.settled.wait()

    async def submit(self, jobs: Any, number: int) -> None:
        name = self.new_name(number)
        try:
            await jobs.submit("x", job_id=name, attempts=1_000, priority=self.made % 3, workers=self.workers)
        except RaftKVError as error:
            if error.may_have_happened:
                self.seen.note("perhaps put", name)
            raise
        self.seen.note("put", name)

    async def work(self, kv: raftkv.AsyncClient, jobs: Any, wait_s: float = CLAIM_S) -> None:
        claim = await jobs.claim(wait_s)
        try:
            # One of several loses its place when another one dies, and learns it from the cluster: history is their judge.
            with self.has(claim.id, claim, 1 if self.workers == 1 else self.hands_count):
                await claim.guard().append(
                    f"{self.place}/notes/{claim.id}", f"{claim.job.attempt}.{claim.token}.{claim.rank} "
                )
        except FencingTokenStale:
            self.seen.lost += 1
            return
        except RaftKVError:
            await self.give_up(claim, jobs)
            raise
        if random.random() < DIES:
            await jobs.close()  # dies with the job in hand
        elif claim.rank == 0:
            await self.complete(claim, jobs)

    async def complete(self, claim: Any, jobs: Any) -> None:
        try:
            await claim.complete("well")
        except FencingTokenStale:
            self.seen.lost += 1
            self.seen.note("perhaps done", claim.id)  # perhaps by the word whose answer got lost
        except RaftKVError as error:
            if error.may_have_happened:
                self.seen.note("perhaps done", claim.id)
            await self.give_up(claim, jobs)
        else:
            self.seen.note("done", claim.id)
            self.seen.done += 1

    async def settle(self, kv: raftkv.AsyncClient) -> None:
        async def work_off(number: int) -> None:
            async with self.jobs(kv, number) as jobs:
                while True:
                    try:
                        await self.work(kv, jobs, 1.0)
                    except NotAcquired:
                        if all(job.has_ended for job in await jobs.list()):
                            return

        async with asyncio.timeout(SETTLE_S), asyncio.TaskGroup() as group:
            for number in range(SETTLERS):
                group.create_task(work_off(number))

    async def check(self, kv: raftkv.AsyncClient, seen: Seen) -> None:
        done, put = Counter(seen.of("done")), set(seen.of("put"))
        assert max(done.values()) == 1, "a job was completed twice"
        assert put <= done.keys() | set(seen.of("perhaps done")), "a job was lost"
        assert done.keys() <= put | set(seen.of("perhaps put")), "a job that nobody submitted"
        jobs = kv.jobs(f"{self.place}/jobs")
        for job in await jobs.list():
            assert job.state == "succeeded", job
            begun = [line["attempt"] for line in job.history if line["state"] == "running"]
            assert begun == sorted(begun), job.history
            notes = (await kv.get(f"{self.place}/notes/{job.id}", b"")).split()
            assert len(notes) == len(set(notes)), f"{job.id} was worked on twice under one token: {notes}"
        await self.check_history(kv)
        for left in ("q/", "r/"):
            assert await kv.get_prefix(f"{self.place}/jobs/{left}") == []
        async with asyncio.timeout(30):
            while await kv.get_prefix(f"{self.place}/jobs/c/"):
                await asyncio.sleep(0.1)  # what could not be given up ends with its session

    async def check_history(self, kv: raftkv.AsyncClient) -> None:
        """At no revision has a job more workers than it wants, and it begins at one at which it has them all."""
        prefix = f"{self.place}/jobs/"
        claims: dict[str, set[str]] = {}
        began: dict[str, int] = {}
        judged, at = 0, 0
        for event in [*await self.history(kv, prefix), None]:
            if event is None or event.revision != at:
                for name, attempt in began.items():
                    assert len(claims[name]) == self.workers, f"{name}, attempt {attempt}: {claims[name]} at {at}"
                    judged += 1
                began.clear()
                assert all(len(each) <= self.workers for each in claims.values()), f"{claims} at {at}"
            if event is None:
                break
            at = event.revision
            table, name, *rest = [*event.key.decode()[len(prefix) :].split("/"), ""]
            if table == "c" and event.type == "put":
                claims.setdefault(name, set()).add(rest[0])
            elif table == "c":
                claims[name].discard(rest[0])
            elif table == "j" and json.loads(event.value)["state"] == "running":
                began[name] = json.loads(event.value)["attempt"]
        assert judged > 0, "nothing was judged"


class GangsLoad(JobsLoad):
    """Jobs for three at once."""

    workers = 3
