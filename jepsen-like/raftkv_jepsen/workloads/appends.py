"""Lists that are appended to on the server: the order of what one read saw is the order of all, and nothing is there twice."""

import random
from typing import ClassVar, Final, Sequence

from raftkv_jepsen.checkers.linearizability import check_linearizable
from raftkv_jepsen.checkers.models import APPEND, APPENDS, READ
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import NUMBERS, Client, Held
from raftkv_jepsen.history import Operation
from raftkv_jepsen.workloads.base import Workload

ITEM_DIGITS: Final = 7


def items_of(held: Held | None) -> list[int]:
    """The list behind a value: each item has a fixed width, so a length is a count."""
    return [] if held is None else [int(item) for item in held.value.split(";")[:-1]]


class Appends(Workload):
    """Items are numbers that are appended once at most."""

    name: ClassVar[str] = "appends"
    needs: ClassVar[frozenset[str]] = frozenset({NUMBERS})

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        key = self.object_key(draw)
        if draw.random() < 0.3:
            await self._read(process, client, key)
            return
        item = self.fresh_value()
        await self.stage.recorder.perform(
            Operation(process, APPEND, key, item),
            client.append(key, f"{item:0{ITEM_DIGITS}d};"),
            result=lambda length: length // (ITEM_DIGITS + 1),
        )

    async def _read(self, process: int, client: Client, key: str) -> None:
        await self.stage.recorder.perform(Operation(process, READ, key), client.get(key), result=items_of)

    async def finish(self) -> None:
        await self.final_reads(self.used_keys(), self._read)

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_linearizable(operations, APPENDS)]
