"""Elections: campaign, hold, proclaim, resign or die; and observers, who hear every leader in order.

Half of the clients stand for one of two offices, through raftkv's recipe or through etcd's election service, which are one and the same queue of keys. The
others look on. When all is healed, everybody who held an office is dead or has stepped back: a last candidate must get each of them, and be heard.
"""

import asyncio
import random
from contextlib import aclosing
from typing import Any, ClassVar, Coroutine, Final, Sequence

from raftkv_jepsen.checkers.elections import CAMPAIGN, LEADER, OBSERVED, PROCLAIM, check_elections
from raftkv_jepsen.checkers.locks import HOLD, check_exclusion
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import Client, ClientError
from raftkv_jepsen.clients.elections import Election
from raftkv_jepsen.history import FAIL, Operation
from raftkv_jepsen.workloads.base import Workload

TTL_S: Final = 2.0
STEP_S: Final = 0.03
OFFICES: Final = 2
RETRY_S: Final = 0.2
LAST_S: Final = 25.0
"""For the last candidate, and for its being heard: what a change of leaders may give to leases is in it."""


class Elections(Workload):
    """The first and every other client stands, the rest looks on."""

    name: ClassVar[str] = "elections"
    clients_min: ClassVar[int] = 6  # two of each door who stand, two who look on

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._heard: dict[int, str] = {}
        """By observer, the value heard last."""
        self._observing: list[asyncio.Task[None]] = []

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        loops: list[Coroutine[Any, Any, None]] = []
        for number, client in enumerate(self.clients):
            process = self.first_process + number
            looks_on = number % 3 == 2
            loops.append(self._look_on(process, client) if looks_on else self._loop(process, client))
        return loops

    def _office(self, number: int) -> str:
        return f"elections/{number % OFFICES}"

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        key = self._office(draw.randrange(OFFICES))
        perform = self.stage.recorder.perform
        election = client.election(key, TTL_S)
        if draw.random() < 0.3:
            await self._ask_leader(process, election, key)
            return
        value = str(self.fresh_value())
        campaign = Operation(process, CAMPAIGN, key, value)
        token = await perform(campaign, election.campaign(value, draw.choice((0.5, 1.5, 4.0))))
        if token is None:
            return
        await self._govern(process, election, key, token, draw)
        try:
            if draw.random() < 0.6:
                await election.resign()
            else:
                await election.abandon()
                await self._say(process, election, key, token)  # it does not know yet, and must not be heard
        except ClientError:
            pass  # lost before, or nobody knows: its lease ends by itself

    async def _govern(self, process: int, election: Election, key: str, token: int, draw: random.Random) -> None:
        recorder = self.stage.recorder
        began_ns = ended_ns = recorder.now_ns()
        for _ in range(draw.randint(1, 12)):
            # The clock is read before the question: what is claimed is never more than what was promised.
            now_ns = recorder.now_ns()
            if not election.surely_held:
                break
            ended_ns = now_ns
            if draw.random() < 0.2:
                await self._say(process, election, key, token)
            else:
                await asyncio.sleep(STEP_S)
        if ended_ns > began_ns:
            recorder.happened(Operation(process, HOLD, key, token), began_ns, ended_ns)

    async def _say(self, process: int, election: Election, key: str, token: int) -> None:
        value = str(self.fresh_value())
        await self.stage.recorder.perform(Operation(process, PROCLAIM, key, [token, value]), election.proclaim(value))

    async def _ask_leader(self, process: int, election: Election, key: str) -> None:
        await self.stage.recorder.perform(
            Operation(process, LEADER, key), election.leader(), result=lambda word: None if word is None else list(word)
        )

    # Those who look on.

    async def _look_on(self, process: int, client: Client) -> None:
        # A task of its own, because it goes on after the candidates have ended.
        self._observing.append(asyncio.create_task(self._observe(process, client)))

    async def _observe(self, process: int, client: Client) -> None:
        draw = random.Random(f"observer {process} {self.draw.random()}")
        # Its number among those who look on: one of each office, at least.
        key = self._office((process - self.first_process) // 3)
        for session in range(1_000_000):
            words_left = draw.randint(20, 100)
            try:
                async with aclosing(client.election(key, TTL_S).observe()) as words:  # type: ignore[type-var]
                    async for word in words:
                        now_ns = self.stage.recorder.now_ns()
                        heard = Operation(process, OBSERVED, key, session, result=list(word))
                        self.stage.recorder.happened(heard, now_ns, now_ns)
                        self._heard[process] = word.value
                        words_left -= 1
                        if words_left <= 0:
                            break
            except ClientError:
                await asyncio.sleep(RETRY_S)

    async def finish(self) -> None:
        for number in range(OFFICES):
            key, value = self._office(number), f"last-{number}"
            election = self.clients[0].election(key, TTL_S)
            campaign = Operation(self.first_process, CAMPAIGN, key, value)
            token = await self.stage.recorder.perform(campaign, election.campaign(value, LAST_S))
            if token is None and campaign.outcome == FAIL:  # as etcd does while users change
                value += "-again"
                campaign = Operation(self.first_process, CAMPAIGN, key, value)
                token = await self.stage.recorder.perform(campaign, election.campaign(value, LAST_S))
            if token is None:
                self.stage.concerns.append(f"{key}: nobody can be elected any more: {campaign.error}")
                continue
            observers = [
                process
                for process in range(self.first_process, self.first_process + len(self.clients))
                if (process - self.first_process) % 3 == 2 and self._office((process - self.first_process) // 3) == key
            ]
            await self._wait_heard(observers, key, value)
            try:
                await election.resign()
            except ClientError:
                pass  # its lease ends by itself
        for task in self._observing:
            if task.done():
                self.stage.concerns.append("elections: an observer of the harness ended before its time")

    async def release(self) -> None:
        for task in self._observing:
            task.cancel()
        for ended in await asyncio.gather(*self._observing, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _wait_heard(self, observers: Sequence[int], key: str, value: str) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LAST_S
        while loop.time() < deadline and any(self._heard.get(process) != value for process in observers):
            await asyncio.sleep(0.05)
        late = {process: self._heard.get(process) for process in observers if self._heard.get(process) != value}
        if late:
            self.stage.concerns.append(f"{key}: the last leader was not heard of within {LAST_S:g} s, but: {late}")

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_exclusion(operations), check_elections(operations)]
