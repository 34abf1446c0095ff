"""Counters with exactly-once sessions: the clients repeat what got no answer, and every increment must count once.

Two judges: the search for a linear order, and a sum that needs no search (what is there at the end lies between what was
acknowledged and that plus what stayed unknown).
"""

import random
from typing import ClassVar, Sequence

from raftkv_jepsen.checkers.linearizability import check_linearizable
from raftkv_jepsen.checkers.models import COUNTER, INCREMENT, READ
from raftkv_jepsen.checkers.sums import check_sums
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import NUMBERS, SESSIONS, Client
from raftkv_jepsen.history import Operation
from raftkv_jepsen.workloads.base import Workload
from raftkv_jepsen.workloads.register import number_of


class Counter(Workload):
    """Increments by one."""

    name: ClassVar[str] = "counter"
    needs: ClassVar[frozenset[str]] = frozenset({NUMBERS, SESSIONS})

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        key = self.object_key(draw)
        if draw.random() < 0.2:
            await self._read(process, client, key)
        else:
            await self.stage.recorder.perform(Operation(process, INCREMENT, key, 1), client.increment(key, 1))

    async def _read(self, process: int, client: Client, key: str) -> None:
        await self.stage.recorder.perform(Operation(process, READ, key), client.get(key), result=number_of)

    async def finish(self) -> None:
        await self.final_reads(self.used_keys(), self._read)

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_linearizable(operations, COUNTER), check_sums(operations)]
