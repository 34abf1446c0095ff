"""What all loads have in common: hands that take turns, what they saw, and the history that the judgement is made from.

A load may run in several processes at once. What each saw (`Seen`) is plain data that is added up; what can be judged in the process, because
it is about what two hands believe at the same moment, is asserted on the spot; all else is judged at the end from the keys' whole history.
"""

import asyncio
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, ClassVar, Iterable

import raftkv
from raftkv.client.watchstate import Event
from raftkv.errors import RaftKVError

TTL_S = 3.0
PROGRESS_DEADLINE_S = 60.0


@dataclass
class Seen:
    """What the hands saw; `notes` are lists by name."""

    done: int = 0
    uncertain: int = 0
    lost: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    notes: dict[str, list[Any]] = field(default_factory=dict)

    def note(self, name: str, what: Any) -> None:
        self.notes.setdefault(name, []).append(what)

    def of(self, name: str) -> list[Any]:
        return self.notes.get(name, [])

    def add(self, other: "Seen") -> None:
        self.done += other.done
        self.uncertain += other.uncertain
        self.lost += other.lost
        self.errors = dict(Counter(self.errors) + Counter(other.errors))
        for name, notes in other.notes.items():
            self.notes.setdefault(name, []).extend(notes)

    def packed(self) -> dict[str, Any]:
        return asdict(self)


class Load:
    """One recipe at work under `place`, a prefix of its own."""

    hands: ClassVar[int] = 40
    timeout_s: ClassVar[float] = 10.0
    """Of the calls of its clients."""

    def __init__(self, place: str, hands: int = 0) -> None:
        self.place = place
        self.hands_count = hands or type(self).hands
        self.seen = Seen()
        self.ending = asyncio.Event()
        self.settled = asyncio.Event()
        """Sessions of hands last until here, so that what they forgot to give up is noticed."""
        self.begun_at_revision = 1
        self.thinks_s = 0.0

    async def prepare(self, kv: raftkv.AsyncClient) -> None:
        """Before anybody begins."""
        self.begun_at_revision = (await kv.put(f"{self.place}/begun", "")).revision

    async def turn(self, kv: raftkv.AsyncClient, number: int) -> None:
        """One turn of one hand. What the cluster refuses is counted and tried again."""
        raise NotImplementedError

    async def hand(self, kv: raftkv.AsyncClient, number: int) -> None:
        """Turns until the end."""
        while not self.ending.is_set():
            await self.try_turn(kv, number)
            await self.think()

    async def think(self) -> None:
        """Between two turns."""
        if self.thinks_s and not self.ending.is_set():
            await asyncio.sleep(random.random() * self.thinks_s)

    async def try_turn(self, kv: raftkv.AsyncClient, number: int) -> None:
        try:
            await self.turn(kv, number)
        except RaftKVError as error:
            self.seen.errors[error.code] = self.seen.errors.get(error.code, 0) + 1

    async def settle(self, kv: raftkv.AsyncClient) -> None:
        """After the last turn: finish what is left, so that it can be counted."""

    async def check(self, kv: raftkv.AsyncClient, seen: Seen) -> None:
        """What must be true, of all processes together. Raises AssertionError."""
        raise NotImplementedError

    async def history(self, kv: raftkv.AsyncClient, prefix: str) -> list[Event]:
        """Everything that ever happened under `prefix` since we began."""
        end = f"{prefix}zzz"
        await kv.put(end, "")
        events: list[Event] = []
        async with kv.watch(prefix=prefix, start_revision=self.begun_at_revision) as watch:
            async for event in watch:
                if event.key == end.encode():
                    break
                events.append(event)
        return events


async def reaches(condition: Callable[[], bool], what: str, seen: Callable[[], object]) -> None:
    """Waits for something that the hands do. Raises AssertionError."""
    ends_at = time.monotonic() + PROGRESS_DEADLINE_S
    while not condition():
        assert time.monotonic() < ends_at, f"waited {PROGRESS_DEADLINE_S:g} s for {what}: {seen()}"
        await asyncio.sleep(0.02)


async def progress(loads: Iterable[Load], turns: int, when: str) -> None:
    """Each load does so many turns more, from now."""
    wanted = {load: load.seen.done + turns for load in loads}
    for load, count in wanted.items():
        await reaches(
            lambda load=load, count=count: load.seen.done >= count,  # type: ignore[misc]
            f"{type(load).__name__} to get on {when}",
            lambda load=load: (load.seen.done, load.seen.errors),  # type: ignore[misc]
        )
