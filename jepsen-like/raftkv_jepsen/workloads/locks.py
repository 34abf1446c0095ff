"""Locks (raftkv.recipes.lock): mutual exclusion as long as the owner is told so, and fencing for those who were not told.

On `plain` locks the owners rely on what the library says (`valid_for`), and no two may rely on one lock at the same time. On `fenced` ones
somebody takes the lock away behind its owner's back, as a long pause would, and the owner writes on, guarded: none of its writes may be done once
the next owner has written. Waiters give up after a while, so that a queue has gaps in the middle.
"""

import asyncio
import random
from typing import Any, ClassVar, Final, Sequence

from raftkv_jepsen.checkers.locks import ACQUIRE, GUARDED, HOLD, check_exclusion, check_fencing
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import GUARDS, LOCKS, Client, ClientError, Lock
from raftkv_jepsen.history import OK, Operation
from raftkv_jepsen.workloads.base import Workload

TTL_S: Final = 2.0
STEP_S: Final = 0.02


class Locks(Workload):
    """The first half of the clients uses one lock of each kind, the second half another."""

    name: ClassVar[str] = "locks"
    clients_min: ClassVar[int] = 3  # one holds, one waits, and one waits behind a waiter that gives up
    needs: ClassVar[frozenset[str]] = frozenset({LOCKS, GUARDS})

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._thefts: set[asyncio.Task[None]] = set()

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        kind = draw.choice(("plain", "fenced"))
        key = f"locks/{kind}-{draw.randrange(2) if len(self.clients) > 4 else 0}"
        lock = client.lock(key, TTL_S)
        operation = Operation(process, ACQUIRE, key)
        token = await self.stage.recorder.perform(operation, lock.acquire(draw.choice((0.3, 1.0, 3.0))))
        if token is None:
            return
        try:
            if kind == "plain":
                await self._hold(process, lock, key, draw)
            else:
                await self._write_on(process, lock, key, token, draw)
        finally:
            try:
                await lock.release()
            except ClientError:
                pass  # lost before, or nobody knows: its lease ends by itself

    async def _hold(self, process: int, lock: Lock, key: str, draw: random.Random) -> None:
        """In the history for as long as the owner could rely on it."""
        recorder = self.stage.recorder
        began_ns = ended_ns = recorder.now_ns()
        for _ in range(draw.randint(1, 15)):
            # The clock is read before the question: what is claimed is never more than what was promised.
            now_ns = recorder.now_ns()
            if not lock.surely_held:
                break
            ended_ns = now_ns
            await asyncio.sleep(STEP_S)
        recorder.happened(Operation(process, HOLD, key), began_ns, ended_ns)

    async def _write_on(self, process: int, lock: Lock, key: str, token: int, draw: random.Random) -> None:
        """Writes its token as long as it may; half of the time somebody revokes its lease on the way."""
        thief = draw.choice(self.clients)
        steals_at = draw.randint(1, 6) if draw.random() < 0.5 else 0
        for number in range(12):
            if number == steals_at and steals_at:
                self._steal(thief, lock.lease)
            operation = Operation(process, GUARDED, key, token)
            await self.stage.recorder.perform(operation, lock.guarded_put(f"{key}-resource", str(token)))
            if operation.outcome != OK:
                break
            await asyncio.sleep(STEP_S)

    def _steal(self, thief: Client, lease: int) -> None:
        async def revoke() -> None:
            try:
                await thief.revoke(lease)
            except ClientError:
                pass

        task = asyncio.create_task(revoke())
        self._thefts.add(task)
        task.add_done_callback(self._thefts.discard)

    async def finish(self) -> None:
        await asyncio.gather(*self._thefts)

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_exclusion(operations), check_fencing(operations)]
