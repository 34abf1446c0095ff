"""A workload: loops of operations while faults go on, last looks after the healing, and the checkers that read its history.

The judging half needs the operations alone, so that a history file can be judged again without a cluster. All keys of a workload begin
with its name and a slash; that is how a history is taken apart. Objects are used for a while and then left for fresh ones: a search over
one key's history is exponential in what stayed unknown on it.
"""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, Awaitable, Callable, ClassVar, Coroutine, Final, Mapping, Sequence

from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import Client, Door
from raftkv_jepsen.history import Operation
from raftkv_jepsen.recorder import Recorder

OBJECT_OPERATIONS: Final = 120
"""After so many operations an object is left for a fresh one."""
FINAL_OBJECTS_MAX: Final = 300
"""So many of the last ones are read when all is healed."""


@dataclass(slots=True)
class Stage:
    """What a workload plays on; one event loop."""

    recorder: Recorder
    nodes: tuple[str, ...]
    pause_s: float
    """Mean, between two operations of one client."""
    doors: Mapping[str, Callable[[str, str], Door]] = field(default_factory=dict)
    """By their names, and for a user and its password, what else than the clients leads in."""
    stopping: bool = False
    concerns: list[str] = field(default_factory=list)
    """What did not happen in time and cannot be seen in the history."""

    async def pause(self, draw: random.Random) -> None:
        """As a Poisson process would, within reason."""
        await asyncio.sleep(min(draw.expovariate(1 / self.pause_s), 5 * self.pause_s))


class Workload:
    """The shared part. A subclass gives `step`, which is one operation of one client, and `check`."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    clients_min: ClassVar[int] = 2

    def __init__(self, stage: Stage, clients: Sequence[Client], first_process: int, draw: random.Random) -> None:
        self.stage = stage
        self.clients = clients
        self.first_process = first_process
        self.draw = draw
        self._object = 0
        self._object_operations = 0
        self._next_value = 0

    # While faults go on.

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """One per client."""
        return [self._loop(self.first_process + number, client) for number, client in enumerate(self.clients)]

    async def _loop(self, process: int, client: Client) -> None:
        draw = random.Random(f"{self.name} {process} {self.draw.random()}")
        while not self.stage.stopping:
            await self.stage.pause(draw)
            await self.step(process, client, draw)

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        raise NotImplementedError

    async def finish(self) -> None:
        """When all is healed and the loops have ended: the last looks."""

    async def release(self) -> None:
        """What is still open is closed; also when the run was broken off before `finish`."""

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        """The operations are those of this workload."""
        raise NotImplementedError

    # For subclasses.

    def fresh_value(self) -> int:
        """No two writes of a run write the same."""
        self._next_value += 1
        return self._next_value

    def object_key(self, draw: random.Random, breadth: int = 2) -> str:
        """One of the objects in use."""
        self._object_operations += 1
        if self._object_operations > OBJECT_OPERATIONS * breadth:
            self._object_operations = 0
            self._object += breadth
        return f"{self.name}/{self._object + draw.randrange(breadth)}"

    def used_keys(self, breadth: int = 2) -> list[str]:
        """All objects so far, the latest last; no more than are read at the end."""
        count = self._object + breadth
        return [f"{self.name}/{number}" for number in range(max(0, count - FINAL_OBJECTS_MAX), count)]

    async def final_reads(self, keys: Sequence[str], read: Callable[[int, Client, str], Awaitable[None]]) -> None:
        """Each key once, by all clients in turn."""
        for number, key in enumerate(keys):
            position = number % len(self.clients)
            await read(self.first_process + position, self.clients[position], key)
