"""The rendezvous of a training job (raftkv.recipes.rendezvous, under torch's Store): each worker takes a number, says where it is, and waits for all.

A round is one job: `add` gives every worker another number, `set` and `multi_get` tell all of all, and a barrier lets nobody on before all have come. Whoever gives
up leaves its round to the others, and the next round goes on.

A round ends with its lease, and then may begin anew under the same name. A history is cut by its lives: in each numbers are given once and all hear of all, and
whoever was in one that is over may go on in none.
"""

import random
from typing import Any, ClassVar, Final, Sequence

from raftkv_jepsen.checkers.linearizability import check_linearizable
from raftkv_jepsen.checkers.meetings import ENTER, check_meetings
from raftkv_jepsen.checkers.models import COUNTER, INCREMENT
from raftkv_jepsen.checkers.ranks import GATHER, TELL, check_ranks
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import RECIPES, Client, ClientError, Store
from raftkv_jepsen.history import OK, Operation
from raftkv_jepsen.workloads.base import Workload

TTL_S: Final = 5.0
TIMEOUT_S: Final = 5.0


class Ranks(Workload):
    """All clients of the workload take part in each round."""

    name: ClassVar[str] = "ranks"
    clients_min: ClassVar[int] = 3
    needs: ClassVar[frozenset[str]] = frozenset({RECIPES})

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._rounds: dict[int, int] = {}

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        # Whoever is behind joins the round of the others: rounds that were given up are over.
        number = max([self._rounds.get(process, 0) + 1, *self._rounds.values()])
        self._rounds[process] = number
        store = client.recipes.store("jepsen", number, TTL_S)
        try:
            await self._take_part(process, store, f"ranks/{number}.{await store.enter()}")
        except ClientError:
            pass  # nobody let it in
        finally:
            try:
                await store.close()
            except ClientError:
                pass  # its lease ends by itself

    async def _take_part(self, process: int, store: Store, key: str) -> None:
        count = len(self.clients)
        perform = self.stage.recorder.perform
        rank = await perform(Operation(process, INCREMENT, key, 1), store.add("ranks", 1))
        if rank is None:
            return
        address = f"{rank}@p{process}"
        told = Operation(process, TELL, key, address)
        await perform(told, store.set(f"address/{rank}", address), result=lambda _: None)
        if told.outcome != OK:
            return
        wanted = [f"address/{number}" for number in range(1, count + 1)]
        await perform(Operation(process, GATHER, key, count), store.multi_get(wanted, TIMEOUT_S))
        await perform(
            Operation(process, ENTER, key, count), store.barrier("all", count, TIMEOUT_S), result=lambda _: None
        )

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        counted = [operation for operation in operations if operation.function == INCREMENT]
        return [check_linearizable(counted, COUNTER), check_ranks(operations), check_meetings(operations)]
