"""Gates (raftkv.recipes.barrier): closed by some, opened by some, and nobody who waits comes through while it is closed.

A gate is one sequential object: whoever closes it learns whether it was open, whoever opens it whether it was closed, and who has waited for it proves that
it was open at one moment of the wait. When all is healed each gate is opened, and everybody who waits must come through.
"""

import asyncio
import random
from typing import ClassVar, Final, Sequence

from raftkv_jepsen.checkers.linearizability import check_linearizable
from raftkv_jepsen.checkers.models import CLOSE, GATE, OPEN, READ, WAIT
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import RECIPES, Client
from raftkv_jepsen.history import OK, Operation
from raftkv_jepsen.workloads.base import Workload

WAITERS: Final = 3
LAST_S: Final = 10.0


class Gates(Workload):
    """Two gates at a time."""

    name: ClassVar[str] = "gates"
    clients_min: ClassVar[int] = 3
    needs: ClassVar[frozenset[str]] = frozenset({RECIPES})

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        key = self.object_key(draw)
        gate = client.recipes.gate(key)
        perform = self.stage.recorder.perform
        lot = draw.random()
        if lot < 0.3:
            await perform(Operation(process, CLOSE, key), gate.close())
        elif lot < 0.55:
            await perform(Operation(process, OPEN, key), gate.open())
        elif lot < 0.7:
            await perform(Operation(process, READ, key), gate.is_closed())
        else:
            await self._wait(process, client, key, draw.choice((0.1, 0.5, 2.0)))

    async def _wait(self, process: int, client: Client, key: str, timeout_s: float) -> Operation:
        operation = Operation(process, WAIT, key)
        await self.stage.recorder.perform(operation, client.recipes.gate(key).wait(timeout_s), result=lambda _: None)
        return operation

    async def finish(self) -> None:
        perform, client = self.stage.recorder.perform, self.clients[0]
        for key in self.used_keys()[-2:]:
            await perform(Operation(self.first_process, CLOSE, key), client.recipes.gate(key).close())
            waiting = [
                asyncio.create_task(self._wait(self.first_process + number, self.clients[number], key, LAST_S))
                for number in range(1, min(WAITERS, len(self.clients)))
            ]
            await perform(Operation(self.first_process, OPEN, key), client.recipes.gate(key).open())
            for waited in await asyncio.gather(*waiting):
                if waited.outcome != OK:
                    self.stage.concerns.append(f"{key}: it is open and lets nobody through: {waited}")

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_linearizable(operations, GATE)]
