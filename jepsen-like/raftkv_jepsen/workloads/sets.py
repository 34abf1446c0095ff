"""Sets: every element is a key of its own, a read is one range. What was added before a read began is in it, nothing else is."""

import random
from typing import ClassVar, Sequence

from raftkv_jepsen.checkers.models import READ
from raftkv_jepsen.checkers.sets import ADD, check_sets
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import Client
from raftkv_jepsen.history import Operation
from raftkv_jepsen.workloads.base import Workload


class Sets(Workload):
    """Elements are numbers that are added once at most."""

    name: ClassVar[str] = "sets"

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        key = self.object_key(draw)
        if draw.random() < 0.15:
            await self._read(process, client, key)
            return
        element = self.fresh_value()
        await self.stage.recorder.perform(
            Operation(process, ADD, key, element), client.put(f"{key}/{element}", str(element))
        )

    async def _read(self, process: int, client: Client, key: str) -> None:
        await self.stage.recorder.perform(
            Operation(process, READ, key),
            client.keys(f"{key}/"),
            result=lambda keys: [int(name.rsplit("/", 1)[1]) for name in keys],
        )

    async def finish(self) -> None:
        await self.final_reads(self.used_keys(), self._read)

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_sets(operations)]
