"""Watches: what was promised of etcd's and raftkv's: ordered, unique, whole revisions, no gap, resumable anywhere, bookmarkable.

Writers change a handful of keys, one at a time and several in one transaction. Watchers hear the prefix from the first revision on; now and then one
is closed and goes on where it was, at another member. One that a fault kept from hearing for longer than history is kept begins anew where it begins, under
another name, if that is really behind what it wanted. When all is healed a last write must reach every watcher.
"""

import asyncio
import random
from collections import deque
from contextlib import aclosing
from typing import Any, ClassVar, Coroutine, Final, Sequence

from raftkv_jepsen.checkers.models import TXN, WRITE
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.checkers.watches import HEAR, check_watches
from raftkv_jepsen.clients.base import Batch, Client, ClientError
from raftkv_jepsen.history import Operation
from raftkv_jepsen.workloads.base import Workload

KEYS: Final = 5
LAST_HEARD_S: Final = 30.0
RETRY_S: Final = 0.2


class Watch(Workload):
    """Half of the clients watch, the others write."""

    name: ClassVar[str] = "watch"
    clients_min: ClassVar[int] = 4  # two watchers, who have to agree

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._heard: dict[int, int] = {}
        """By watcher, the revision up to which it has heard everything."""
        self._heard_ns: dict[int, int] = {}
        """By watcher, when it heard last."""
        self._begun: dict[int, list[int]] = {}
        """By watcher, the revisions at which it began."""
        self._watching: list[asyncio.Task[None]] = []
        self._ended = False

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        loops = []
        for number, client in enumerate(self.clients):
            process = self.first_process + number
            loops.append(self._watch(process) if number % 2 else self._loop(process, client))
        return loops

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        keys = [f"watch/{number}" for number in range(KEYS)]
        perform = self.stage.recorder.perform
        if draw.random() < 0.7:
            key, value = draw.choice(keys), str(self.fresh_value())
            await perform(Operation(process, WRITE, key, value), client.put(key, value))
            return
        writes = {key: str(self.fresh_value()) for key in draw.sample(keys, draw.randint(2, 3))}
        await perform(
            Operation(process, TXN, "watch/all", writes),
            client.transact({}, writes, []),
            result=lambda done: done.revision,
        )

    # The watchers.

    async def _watch(self, process: int) -> None:
        # A task of its own, because it goes on after the writers have ended.
        self._watching.append(asyncio.create_task(self._watch_on(process)))

    async def _watch_on(self, process: int) -> None:
        draw = random.Random(f"watcher {process} {self.draw.random()}")
        others = deque(self.clients)
        self._heard[process], self._heard_ns[process], self._begun[process] = 0, 0, [1]
        while not self._ended:
            others.rotate(1)
            batches_left = draw.randint(50, 400)
            try:
                async with aclosing(others[0].watch("watch/", self._heard[process] + 1)) as batches:  # type: ignore[type-var]
                    async for batch in batches:
                        self._hear(process, batch)
                        batches_left -= 1
                        if batches_left <= 0 or self._ended:
                            break
            except ClientError as error:
                if error.history_begins > self._heard[process] + 1 and self._was_hindered(process):
                    self._begun[process].append(error.history_begins)
                    self._heard[process] = error.history_begins - 1
                elif "compacted" in str(error):
                    self.stage.concerns.append(f"watcher {process}: {error}")
                    return
                await asyncio.sleep(RETRY_S)

    def _was_hindered(self, process: int) -> bool:
        """Whether there was any fault since it heard last."""
        return any(fault.ended_ns >= self._heard_ns[process] for fault in self.stage.recorder.history.faults)

    def _hear(self, process: int, batch: Batch) -> None:
        changes = [[change.kind, change.key, change.value, change.previous] for change in batch.changes]
        now_ns = self.stage.recorder.now_ns()
        # Keys of a watcher's own, so that a history is cut by watcher.
        lives = self._begun[process]
        name = f"watch/by-{process}" + (f".{len(lives)}" if len(lives) > 1 else "")
        operation = Operation(process, HEAR, name, lives[-1], result=[batch.revision, changes])
        self.stage.recorder.happened(operation, now_ns, now_ns)
        self._heard[process], self._heard_ns[process] = max(self._heard[process], batch.revision), now_ns

    async def finish(self) -> None:
        client, process = self.clients[0], self.first_process
        operation = Operation(process, WRITE, "watch/last", "last")
        revision = await self.stage.recorder.perform(operation, client.put("watch/last", "last"))
        if revision is None:
            self.stage.concerns.append(f"watch: the last write failed after healing: {operation.error}")
        else:
            await self._wait_heard(revision)
        self._ended = True
        for task in self._watching:
            if task.done() and not self.stage.concerns:
                self.stage.concerns.append("watch: a watcher of the harness ended before its time")

    async def release(self) -> None:
        for task in self._watching:
            task.cancel()
        for ended in await asyncio.gather(*self._watching, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _wait_heard(self, revision: int) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LAST_HEARD_S
        while loop.time() < deadline and any(heard < revision for heard in self._heard.values()):
            await asyncio.sleep(0.05)
        late = {process: heard for process, heard in self._heard.items() if heard < revision}
        if late:
            self.stage.concerns.append(
                f"watch: {LAST_HEARD_S:g} s after healing the last revision {revision} was not heard by {late}"
            )

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_watches(operations)]
