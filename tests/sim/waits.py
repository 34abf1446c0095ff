"""Server-side waits as a workload: a caller that waits for what it brings about itself a little later.

An answer has to say what was true at its revision: the keys as the committed log left them there, and the condition holds on them. It is
no older than what was known when the wait began. That waits end at all is demanded after the faults, as of every caller.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from raftkv.client import requests
from raftkv.client.decisions import PATIENT_READ, WRITE
from raftkv.errors import RaftKVError
from raftkv.units import Revision
from raftkv.wire.commands import Answer, Command
from raftkv.wire.protocol import WAIT
from raftkv.wire.watching import UNTIL_CHANGED, UNTIL_DELETED, UNTIL_EXISTS

from .client import SimClient
from .ledger import Items, Ledger

if TYPE_CHECKING:
    from .world import World

THINK_US: Final = 100_000
DELAY_US: Final = 200_000


@dataclass(slots=True)
class Waited:
    """One wait, and its answer."""

    command: Command
    floor: Revision
    answer: Answer

    def wrong(self, ledger: Ledger) -> str:
        """Empty when it is right."""
        _, condition, all_of_them, keys, after = self.command
        _, revision, kvs = self.answer
        if not self.floor <= revision <= ledger.revision:
            return f"answered at {revision}, {self.floor} was known before"
        there = [ledger.at(key, revision) for key in keys]
        if kvs != there:
            return f"answered {self.answer}, at that revision there was {there}"
        met = [_is_met(condition, items, after) for items in there]
        return "" if (all(met) if all_of_them else any(met)) else f"answered {self.answer}, too early"


def _is_met(condition: int, items: Items | None, after: Revision) -> bool:
    if condition == UNTIL_DELETED:
        return items is None
    return items is not None and (condition == UNTIL_EXISTS or items[2] > after)


class Waiter:
    """One client's caller: it waits for keys of its own, and changes them while it waits."""

    def __init__(self, world: "World", place: int) -> None:
        self.client = SimClient(world, place)
        self.completed = 0
        self.resting = False
        self.waited: list[Waited] = []
        self._world = world
        self._random = world.stream(f"waiter {place}")
        self._number = 0

    def start(self) -> None:
        self._think()

    def judge(self, ledger: Ledger) -> None:
        for waited in self.waited:
            wrong = waited.wrong(ledger)
            if wrong:
                self._world.checks.violate(f"the wait {waited.command} of client {self.client.place} {wrong}")

    def _think(self) -> None:
        self._world.after(int(self._random.expovariate(1 / THINK_US)) + 1_000, self._next)

    def _next(self) -> None:
        if self.resting:
            return
        random = self._random
        self._number += 1
        keys = [b"w/%d.%d.%d" % (self.client.place, self._number, part) for part in range(random.choice((1, 2, 3)))]
        condition = random.choice((UNTIL_EXISTS, UNTIL_DELETED, UNTIL_CHANGED))
        all_of_them = random.random() < 0.6
        if condition == UNTIL_EXISTS:
            self._wait([WAIT, condition, all_of_them, keys, 0], keys)
            return

        def written(answer: Answer | None, error: RaftKVError | None) -> None:
            if answer is None:
                self._think()
            else:
                self._world.history.learn(answer[1])
                self._wait([WAIT, condition, all_of_them, keys, answer[1]], keys)

        for key in keys[1:]:
            self.client.submit(requests.put(key, b"1"), WRITE, lambda *_: None)
        self.client.submit(requests.put(keys[0], b"1"), WRITE, written)

    def _wait(self, command: Command, keys: list[bytes]) -> None:
        floor = self._world.history.revision_seen

        def done(answer: Answer | None, error: RaftKVError | None) -> None:
            self._world.tell(f"waiter {self.client.place}: {command} {answer or repr(error)}")
            if answer is not None:
                self.completed += 1
                self._world.history.learn(answer[1])
                self.waited.append(Waited(command, floor, answer))
            self._think()

        self.client.submit(command, PATIENT_READ, done)
        for key in keys:
            change = requests.delete(key) if command[1] == UNTIL_DELETED else requests.put(key, b"2")
            self._world.after(int(self._random.random() * DELAY_US), self._change, (change,))

    def _change(self, command: Command) -> None:
        self.client.submit(command, WRITE, lambda *_: None)
