"""Loads of what brings clients together: counters, gates, meeting points, groups and rendezvous.

Most of these have clients that are more patient than any fault of the tests lasts, and errors that reach them are failures: a retry that applied twice, or a
place that was forgotten, would keep all from meeting.
"""

import asyncio
import random
from typing import Any, ClassVar

import raftkv
from raftkv.errors import RaftKVError

from .base import TTL_S, Load, Seen

PATIENT_S = 60.0


class CounterLoad(Load):
    """Everybody adds one; nobody is given a number twice."""

    async def turn(self, kv: raftkv.AsyncClient, number: int) -> None:
        try:
            self.seen.note("given", await kv.counter(f"{self.place}/n").add())
        except RaftKVError as error:
            self.seen.uncertain += error.may_have_happened
            raise
        self.seen.done += 1

    async def check(self, kv: raftkv.AsyncClient, seen: Seen) -> None:
        given = seen.of("given")
        assert len(set(given)) == len(given), "two were given one number"
        assert len(given) <= await kv.counter(f"{self.place}/n").value() <= len(given) + seen.uncertain, seen.uncertain


class GateLoad(Load):
    """One closes and opens; nobody gets through while it surely was closed from beginning to end."""

    def __init__(self, place: str, hands: int = 0) -> None:
        super().__init__(place, hands)
        self.closed = 0
        """Which time it is closed for, for sure; 0 while that is not sure."""
        self.times = 0

    async def hand(self, kv: raftkv.AsyncClient, number: int) -> None:
        await super().hand(kv, number)
        while not number and await kv.barrier(f"{self.place}/gate").is_closed():
            await self.try_turn(kv, number)  # nobody else opens it

    async def turn(self, kv: raftkv.AsyncClient, number: int) -> None:
        gate = kv.barrier(f"{self.place}/gate")
        if number:
            before = self.closed
            await gate.wait(1.0)
            assert not before or before != self.closed, "somebody went through a closed gate"
            self.seen.note("through", 1)
            return
        await gate.close()
        self.times += 1
        self.closed = self.times
        try:
            await kv.get(f"{self.place}/gate")
            await kv.put(f"{self.place}/something", str(self.times))
        finally:
            self.closed = 0
        await gate.open()
        self.seen.done += 1

    async def check(self, kv: raftkv.AsyncClient, seen: Seen) -> None:
        assert seen.of("through"), "nobody got through"
        await kv.barrier(f"{self.place}/gate").wait(0)


class Rounds(Load):
    """All do round after round; `last` is the one after which they stop, when the end has come."""

    hands = 20
    timeout_s = PATIENT_S

    def __init__(self, place: str, hands: int = 0) -> None:
        super().__init__(place, hands)
        self.where = [0] * self.hands_count

    async def hand(self, kv: raftkv.AsyncClient, number: int) -> None:
        # Nobody is in round n + 1 before all are in round n, so what the end says reaches all in the same one.
        while self.last is None or self.where[number] < self.last:
            await asyncio.sleep(random.random() * 0.02)
            await self.round(kv, number, self.where[number] + 1)

    @property
    def last(self) -> int | None:
        if not self.ending.is_set():
            return None
        if "last" not in self.seen.notes:
            self.seen.note("last", max(self.where) + 1)
        return int(self.seen.of("last")[0])

    async def round(self, kv: raftkv.AsyncClient, number: int, round_: int) -> None:
        raise NotImplementedError

    def arrive(self, number: int, round_: int) -> None:
        self.where[number] = round_
        assert round_ - 1 <= min(self.where), "somebody is a whole round behind"
        assert max(self.where) <= round_, "somebody is ahead"
        self.seen.done += 1


class DoubleBarrierLoad(Rounds):
    """Twenty meet again and again on one name."""

    async def round(self, kv: raftkv.AsyncClient, number: int, round_: int) -> None:
        point = kv.double_barrier(f"{self.place}/meet", self.hands_count, ttl=PATIENT_S)
        await point.enter(PATIENT_S)
        self.arrive(number, round_)
        await point.leave(PATIENT_S)
        assert min(self.where) >= round_, "nobody leaves before all were there"

    async def check(self, kv: raftkv.AsyncClient, seen: Seen) -> None:
        assert set(self.where) == {max(self.where)}
        assert await kv.get_prefix(f"{self.place}/meet/") == [], "all have left, so the round is over"


class RendezvousLoad(Rounds):
    """Ranks find each other, and pass barrier after barrier."""

    stores: dict[int, Any]

    async def prepare(self, kv: raftkv.AsyncClient) -> None:
        await super().prepare(kv)
        self.run_id = self.place.replace("/", ".")
        self.stores = {}

    async def round(self, kv: raftkv.AsyncClient, number: int, round_: int) -> None:
        if number not in self.stores:
            self.stores[number] = kv.rendezvous(self.run_id, 1, ttl=PATIENT_S, timeout=PATIENT_S)
        store = self.stores[number]
        rank = await store.add(f"rank/{round_}", 1) - 1
        self.seen.note("rank", (round_, rank))
        await store.set(f"address/{round_}/{rank}", f"10.0.{round_}.{rank}")
        await store.barrier(f"all here {round_}", self.hands_count)
        self.where[number] = round_
        neighbour = (rank + 1) % self.hands_count
        assert await store.get(f"address/{round_}/{neighbour}") == f"10.0.{round_}.{neighbour}".encode()
        await store.queue_push("told", f"{round_}.{rank}")
        self.seen.note("told", (await store.queue_pop("told")).decode())
        await store.barrier(f"all done {round_}", self.hands_count)
        self.arrive(number, round_)

    async def check(self, kv: raftkv.AsyncClient, seen: Seen) -> None:
        ranks, told = seen.of("rank"), seen.of("told")
        assert len(set(ranks)) == len(ranks) == self.hands_count * max(self.where), "a rank twice, or one left out"
        assert sorted(told) == sorted(f"{round_}.{rank}" for round_, rank in ranks), "lost or told twice"
        for store in self.stores.values():
            await store.close()


class GroupLoad(Load):
    """Who joins is seen until it leaves; a looker's view of all changes ends where the group does."""

    WATCHER: ClassVar[int] = 0

    async def hand(self, kv: raftkv.AsyncClient, number: int) -> None:
        if number != self.WATCHER:
            await super().hand(kv, number)
            return
        looking = asyncio.create_task(self.look(kv))
        await self.settled.wait()
        looking.cancel()
        try:
            await looking
        except asyncio.CancelledError:
            pass

    async def look(self, kv: raftkv.AsyncClient) -> None:
        latest = 0
        while True:
            try:
                async for members in kv.group(f"{self.place}/group").changes():
                    joined = [member.joined for member in members]
                    assert joined == sorted(set(joined))
                    latest = max([latest, *joined])
                    self.seen.notes["view"] = [[member.name.decode() for member in members]]
            except RaftKVError as error:
                self.seen.note("deaf", error.code)

    async def turn(self, kv: raftkv.AsyncClient, number: int) -> None:
        group = kv.group(f"{self.place}/group", ttl=TTL_S)
        name = await group.join(str(number), member=f"m{number}" if number % 2 else b"")
        try:
            await group.say("still here")
            there = {member.name: member.value for member in await group.members()}
            lease: Any = group._membership()[2]
            assert name in there or lease.valid_for <= 0, "a living member was not seen"
        finally:
            await group.leave()
        if name in {member.name for member in await group.members()}:
            self.seen.note("lingered", number)  # the cluster could not be told: it ends with the session
        self.seen.done += 1

    async def settle(self, kv: raftkv.AsyncClient) -> None:
        group = kv.group(f"{self.place}/group")
        await group.join("last", member="last")
        async with asyncio.timeout(30):
            while self.seen.of("view") != [["last"]]:
                await asyncio.sleep(0.05)
        await group.leave()

    async def check(self, kv: raftkv.AsyncClient, seen: Seen) -> None:
        assert len(seen.of("lingered")) <= 3 * self.hands_count, "seen after they left"
        assert await kv.group(f"{self.place}/group").members() == []
