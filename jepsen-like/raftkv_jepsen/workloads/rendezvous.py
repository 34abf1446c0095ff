"""Meetings (raftkv.recipes.barrier): nobody is let in before all have come, round after round, whatever happens in between.

All clients of the workload take part in each round; one that gives up leaves the others waiting until they give up too, and the next round
goes on under another name.
"""

import random
from typing import Any, ClassVar, Final, Sequence

from raftkv_jepsen.checkers.meetings import ENTER, LEAVE, check_meetings
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import RECIPES, Client
from raftkv_jepsen.history import OK, Operation
from raftkv_jepsen.workloads.base import Workload

TTL_S: Final = 2.0
TIMEOUT_S: Final = 4.0


class Rendezvous(Workload):
    """A round is a key of the history."""

    name: ClassVar[str] = "rendezvous"
    clients_min: ClassVar[int] = 3
    needs: ClassVar[frozenset[str]] = frozenset({RECIPES})

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._rounds: dict[int, int] = {}

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        # Whoever is behind joins the round of the others: rounds that were given up are over.
        number = max([self._rounds.get(process, 0) + 1, *self._rounds.values()])
        self._rounds[process] = number
        key, count = f"rendezvous/{number}", len(self.clients)
        meeting = client.recipes.meeting(key, count, TTL_S)
        entered = Operation(process, ENTER, key, count)
        await self.stage.recorder.perform(entered, meeting.enter(TIMEOUT_S))
        if entered.outcome == OK:
            await self.stage.recorder.perform(Operation(process, LEAVE, key, count), meeting.leave(TIMEOUT_S))

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return [check_meetings(operations)]
