"""Transactions over several keys: what one read and wrote happened at one moment, in an order that respects real time.

A group is three keys; its transactions read all of them and write some, often only if others are as they were seen.
"""

import random
from typing import Any, ClassVar, Final, Sequence

from raftkv_jepsen.checkers.linearizability import check_linearizable
from raftkv_jepsen.checkers.models import READ, TRANSACTIONS, TXN
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import Client, Transacted
from raftkv_jepsen.history import Operation
from raftkv_jepsen.workloads.base import Workload

KEYS: Final = ("a", "b", "c")


class Transactions(Workload):
    """Strictly serializable within a group."""

    name: ClassVar[str] = "transactions"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._seen: dict[str, dict[str, str | None]] = {}

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        group = self.object_key(draw)
        if draw.random() < 0.3:
            await self._read(process, client, group)
            return
        expected: dict[str, str | None] = {}
        if draw.random() < 0.6 and group in self._seen:
            for key in draw.sample(KEYS, draw.randint(1, 2)):
                expected[key] = self._seen[group][key]
        writes = {key: str(self.fresh_value()) for key in draw.sample(KEYS, draw.randint(1, 3))}
        await self._transact(Operation(process, TXN, group, {"if": expected, "write": writes}), client)

    async def _read(self, process: int, client: Client, group: str) -> None:
        await self._transact(Operation(process, READ, group, {"if": {}, "write": {}}), client)

    async def _transact(self, operation: Operation, client: Client) -> None:
        group, asked = operation.key, operation.argument
        expected = {f"{group}/{key}": value for key, value in asked["if"].items()}
        writes = {f"{group}/{key}": value for key, value in asked["write"].items()}
        done: Transacted | None = await self.stage.recorder.perform(
            operation,
            client.transact(expected, writes, [f"{group}/{key}" for key in KEYS]),
            result=lambda done: [done.succeeded, {key[-1]: value for key, value in done.read.items()}],
        )
        if done is not None:
            self._seen[group] = {key[-1]: value for key, value in done.read.items()}

    async def finish(self) -> None:
        await self.final_reads(self.used_keys(), self._read)

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_linearizable(operations, TRANSACTIONS)]
