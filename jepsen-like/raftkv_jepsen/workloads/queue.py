"""Queues and jobs (raftkv.recipes): no item is lost, none is done twice, although workers give back, die and lose their sessions.

Half of the clients put, half work; a worker acknowledges, gives back, or walks away from what it claimed. When all is healed the rest is
worked off, and what was put and acknowledged to its putter must have been acknowledged by exactly one worker.
"""

import asyncio
import random
from typing import Any, ClassVar, Final, Sequence

from raftkv_jepsen.checkers.queues import ACKNOWLEDGE, CLAIM, PUT, check_queue
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import RECIPES, Claim, Client, ClientError, Queue
from raftkv_jepsen.history import FAIL, OK, Operation
from raftkv_jepsen.workloads.base import Workload

TTL_S: Final = 2.0
DRAIN_S: Final = 30.0
WAITING_MAX: Final = 60
"""Who puts waits for those who work, so that the rest is worked off within that time."""


class Queues(Workload):
    """One queue for all."""

    name: ClassVar[str] = "queue"
    needs: ClassVar[frozenset[str]] = frozenset({RECIPES})

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queues: dict[int, Queue] = {}
        self._waiting = 0
        """Put and not acknowledged, as far as is known."""

    def _queue(self, process: int, client: Client) -> Queue:
        if process not in self._queues:
            self._queues[process] = self.open(client)
        return self._queues[process]

    def open(self, client: Client) -> Queue:
        """A worker's end, or a putter's."""
        return client.recipes.queue(self.key, TTL_S)

    @property
    def key(self) -> str:
        """Of the one object."""
        return f"{self.name}/0"

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        queue = self._queue(process, client)
        if process % 2:
            await self._work(process, queue, draw)
        elif self._waiting < WAITING_MAX:
            put = Operation(process, PUT, self.key, str(self.fresh_value()))
            await self.stage.recorder.perform(put, queue.put(put.argument), result=lambda _: None)
            self._waiting += put.outcome != FAIL

    async def _work(self, process: int, queue: Queue, draw: random.Random) -> None:
        claim: Claim | None = await self.stage.recorder.perform(
            Operation(process, CLAIM, self.key), queue.claim(0.5), result=lambda claim: [claim.value, claim.token]
        )
        if claim is None:
            return
        await asyncio.sleep(draw.uniform(0, 0.1))
        lot = draw.random()
        if lot < 0.75:
            await self._acknowledge(process, claim)
        elif lot < 0.9:
            try:
                await claim.give_back()
            except ClientError:
                pass  # it was lost: somebody else has it
        else:
            await self._walk_away(process)

    async def _acknowledge(self, process: int, claim: Claim) -> None:
        operation = Operation(process, ACKNOWLEDGE, self.key, claim.value)
        await self.stage.recorder.perform(operation, claim.acknowledge(), result=lambda _: claim.token)
        self._waiting -= operation.outcome == OK

    async def _walk_away(self, process: int) -> None:
        """As a worker that dies, but quicker: its session ends, the item is handed out again."""
        queue = self._queues.pop(process)
        try:
            await queue.close()
        except ClientError:
            pass  # the session runs out by itself

    async def finish(self) -> None:
        """Until nothing was to be had for longer than a claim without an owner lasts."""
        client, process = self.clients[0], self.first_process
        for other in list(self._queues):
            await self._walk_away(other)
        queue = self._queue(process, client)
        loop = asyncio.get_running_loop()
        deadline, quiet_since = loop.time() + DRAIN_S, loop.time()
        while loop.time() < deadline and loop.time() - quiet_since < 2 * TTL_S:
            operation = Operation(process, CLAIM, self.key)
            claim: Claim | None = await self.stage.recorder.perform(
                operation, queue.claim(0.5), result=lambda claim: [claim.value, claim.token]
            )
            if claim is not None:
                await self._acknowledge(process, claim)
            if claim is not None or (operation.outcome == FAIL and "not_acquired" not in operation.error):
                quiet_since = loop.time()
        drained = Operation(process, "drained", self.key, outcome=OK)
        now_ns = self.stage.recorder.now_ns()
        if loop.time() < deadline:
            self.stage.recorder.happened(drained, now_ns, now_ns)
        else:
            self.stage.concerns.append(f"{self.name}: not worked off {DRAIN_S:g} s after healing")
        await self._walk_away(process)

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_queue(operations)]


class Jobs(Queues):
    """raftkv.recipes.jobs: the item is a job, to acknowledge is to complete it, to give back is to let another attempt begin."""

    name: ClassVar[str] = "jobs"

    def open(self, client: Client) -> Queue:
        """A worker's end, or a submitter's."""
        return client.recipes.jobs(self.key, TTL_S)
