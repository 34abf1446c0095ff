"""Leases: a key that hangs on one lives as long as it was promised, through every fault, and not for ever after.

The owner grants a lease, puts its key, renews it for a while, and then lets it run out or revokes it; the others read. What counts as
promised is the time to live, from the moment before the last renewal that was answered.
"""

import asyncio
import random
from typing import Any, ClassVar, Final, Sequence

from raftkv_jepsen.checkers.leases import ATTACH, GRANT, RENEW, REVOKE, check_leases
from raftkv_jepsen.checkers.models import READ
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import Client
from raftkv_jepsen.history import OK, Operation
from raftkv_jepsen.workloads.base import Workload

TTL_S: Final = (2, 3, 5)
GONE_S: Final = 25.0
"""After healing, on top of the longest time to live: what a change of leaders may give."""


class Leases(Workload):
    """Half of the clients own leases, the others look at their keys."""

    name: ClassVar[str] = "leases"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._recent: list[str] = []
        self._keys: list[str] = []

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        if process % 2 and self._recent:
            await self._read(process, client, draw.choice(self._recent))
        elif not process % 2:
            await self._own(process, client, draw)

    async def _read(self, process: int, client: Client, key: str) -> None:
        await self.stage.recorder.perform(
            Operation(process, READ, key), client.get(key), result=lambda held: held is not None
        )

    async def _own(self, process: int, client: Client, draw: random.Random) -> None:
        key = f"leases/{self.fresh_value()}"
        perform = self.stage.recorder.perform
        wanted_s = draw.choice(TTL_S)
        granted = await perform(
            Operation(process, GRANT, key, wanted_s), client.grant(wanted_s), result=lambda grant: grant[1]
        )
        if granted is None:
            return
        lease, ttl_s = granted
        attached = Operation(process, ATTACH, key, ttl_s)
        await perform(attached, client.put(key, "held", lease=lease))
        self._recent = [*self._recent[-7:], key]
        self._keys.append(key)
        for _ in range(draw.randint(0, 8)):
            await asyncio.sleep(draw.uniform(0.1, 0.6) * ttl_s / 2)
            if self.stage.stopping or attached.outcome != OK:
                break
            await perform(Operation(process, RENEW, key, ttl_s), client.keep_alive(lease))
        if draw.random() < 0.3:
            await perform(Operation(process, REVOKE, key), client.revoke(lease))

    async def finish(self) -> None:
        """All of them have run out by now, or will within a bound."""
        client, process = self.clients[0], self.first_process
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(TTL_S) + GONE_S
        left = True
        while left and loop.time() < deadline:
            left = False
            operation = Operation(process, "final-read", "leases/all")
            left = bool(await self.stage.recorder.perform(operation, client.keys("leases/"))) or operation.outcome != OK
            if left:
                await asyncio.sleep(0.5)

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_leases(operations)]
