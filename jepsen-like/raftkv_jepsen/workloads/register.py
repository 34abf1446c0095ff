"""Registers: read, write and compare-and-set on single keys, judged by the search for a linear order.

A third of the reads asks one member and no other, whoever leads: what a follower answers must be as fresh as what the leader does.
"""

import random
from typing import ClassVar, Sequence

from raftkv_jepsen.checkers.linearizability import check_linearizable
from raftkv_jepsen.checkers.models import CAS, READ, REGISTER, WRITE
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import Client, Held
from raftkv_jepsen.history import Operation
from raftkv_jepsen.workloads.base import Workload


def number_of(held: Held | None) -> int | None:
    """A register's value as the history has it."""
    return None if held is None else int(held.value)


class Register(Workload):
    """Values are numbers, each written once at most."""

    name: ClassVar[str] = "register"

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        key = self.object_key(draw)
        lot = draw.random()
        perform = self.stage.recorder.perform
        if lot < 0.5:
            node = draw.choice(self.stage.nodes) if lot < 0.17 else ""
            await self._read(process, client, key, node)
        elif lot < 0.75:
            value = self.fresh_value()
            await perform(Operation(process, WRITE, key, value), client.put(key, str(value)))
        else:
            held = await self._read(process, client, key, "")
            expected, value = number_of(held), self.fresh_value()
            text = None if expected is None else str(expected)
            await perform(
                Operation(process, CAS, key, [expected, value]), client.compare_and_set(key, text, str(value))
            )

    async def _read(self, process: int, client: Client, key: str, node: str) -> Held | None:
        operation = Operation(process, READ, key, node=node)
        return await self.stage.recorder.perform(operation, client.get(key, node=node), result=number_of)

    async def finish(self) -> None:
        async def read(process: int, client: Client, key: str) -> None:
            await self._read(process, client, key, "")

        await self.final_reads(self.used_keys(), read)

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_linearizable(operations, REGISTER)]
