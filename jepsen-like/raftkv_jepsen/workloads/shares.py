"""Semaphores and pools: shares of something that is counted. Those who may rely on theirs never have more together than there is.

As with locks, what counts is the time for which the library says that a share surely is held. Waiters give up after a while, weights
differ, and faults take sessions away.
"""

import asyncio
import random
from typing import ClassVar, Final, Sequence

from raftkv_jepsen.checkers.locks import ACQUIRE, HOLD
from raftkv_jepsen.checkers.shares import check_capacity
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import RECIPES, Client, ClientError, Share
from raftkv_jepsen.history import OK, Operation
from raftkv_jepsen.workloads.base import Workload

CAPACITY: Final = 3
TTL_S: Final = 2.0
STEP_S: Final = 0.02


class Semaphores(Workload):
    """raftkv.recipes.semaphore: clients count, under a condition that the cluster checks."""

    name: ClassVar[str] = "semaphore"
    needs: ClassVar[frozenset[str]] = frozenset({RECIPES})

    async def share(self, client: Client, weight: int) -> Share | None:
        """What is asked for, not acquired yet; None when it cannot be had now."""
        return client.recipes.semaphore("semaphore/0", CAPACITY, weight, TTL_S)

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        weight = draw.choice((1, 1, 2))
        share = await self.share(client, weight)
        if share is None:
            return
        key = f"{self.name}/0"
        recorder = self.stage.recorder
        acquired = Operation(process, ACQUIRE, key, weight)
        await recorder.perform(acquired, share.acquire(draw.choice((0.3, 1.0, 3.0))))
        if acquired.outcome != OK:
            return
        began_ns = ended_ns = recorder.now_ns()
        for _ in range(draw.randint(1, 15)):
            # The clock is read before the question: what is claimed is never more than what was promised.
            now_ns = recorder.now_ns()
            if not share.surely_held:
                break
            ended_ns = now_ns
            await asyncio.sleep(STEP_S)
        recorder.happened(Operation(process, HOLD, key, weight), began_ns, ended_ns)
        try:
            await share.release()
        except ClientError:
            pass  # lost before, or nobody knows: its session ends by itself

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_capacity(operations, CAPACITY)]


class Pools(Semaphores):
    """raftkv.recipes.pool: the state machine decides."""

    name: ClassVar[str] = "pool"

    _made = False

    async def share(self, client: Client, weight: int) -> Share | None:
        if not self._made:
            try:
                await client.recipes.make_pool("jepsen", CAPACITY)
            except ClientError:
                return None
            self._made = True
        return client.recipes.pool("jepsen", weight, TTL_S)
