"""What clients ask: registers, counters, lists to append to, and compare-and-set, each on keys of its own kind.

A key's name says its kind (r, n, a, c) and its age; after some operations another key takes its place. Values are unique, so that
a reader says which write it saw.
"""

from typing import TYPE_CHECKING, Any

from raftkv.client import requests
from raftkv.client.decisions import READ as READ_KIND
from raftkv.client.decisions import WRITE as WRITE_KIND
from raftkv.errors import RaftKVError
from raftkv.wire.commands import Answer, Command
from raftkv_jepsen.checkers.models import APPEND, CAS, DELETE, INCREMENT, READ, WRITE

from . import telling
from .client import SimClient

if TYPE_CHECKING:
    from random import Random

    from .world import World

KINDS = "rnac"
PATIENCE_US = 1_000


class Keys:
    """The keys in use, shared by all clients of a world."""

    def __init__(self, count: int, operations_max: int) -> None:
        self._operations_max = operations_max
        self._used = [0] * count
        self._ages = [0] * count
        self.last_values: dict[str, bytes | None] = {}
        """What the last reader of a key saw: a good guess for a compare-and-set."""

    def draw(self, random: "Random") -> str:
        number = int(random.random() * len(self._used))
        self._used[number] += 1
        if self._used[number] > self._operations_max:
            self._used[number] = 0
            self._ages[number] += 1
        return f"{KINDS[number % len(KINDS)]}{number}.{self._ages[number]}"


class Workload:
    """One client's caller: it draws a call, waits for its end, thinks, and draws the next."""

    def __init__(self, world: "World", client: SimClient) -> None:
        self.client = client
        self.completed = 0
        self._world = world
        self._random = world.stream(f"workload {client.place}")
        self._number = 0
        self.resting = False

    def start(self) -> None:
        for _ in range(self._world.knobs.pipelined):
            self._think()

    def _think(self) -> None:
        pause_us = int(self._random.expovariate(1 / self._world.knobs.think_us)) + PATIENCE_US
        self._world.after(pause_us, self._next)

    def _next(self) -> None:
        if self.client.gone or self.resting:
            return
        key = self._world.keys.draw(self._random)
        function, argument = self._draw_operation(key)
        self._call(key, function, argument)

    def _draw_operation(self, key: str) -> tuple[str, Any]:
        random = self._random
        if random.random() < 0.4:
            return READ, None
        self._number += 1
        token = b"%d.%d" % (self.client.place, self._number)
        kind = key[0]
        if kind == "n":
            return INCREMENT, random.randint(1, 3)
        if kind == "a":
            return APPEND, token + b";"
        if kind == "r":
            return WRITE, token + b"." * int(random.random() ** 4 * 300)
        dice = random.random()
        if dice < 0.1:
            return DELETE, None
        if dice < 0.3:
            return WRITE, token
        return CAS, (self._world.keys.last_values.get(key), token)

    def _call(self, key: str, function: str, argument: Any) -> None:
        world = self._world
        command, kind, prev = _command(key, function, argument, self._random)
        operation, floor = world.history.invoke(self.client.place, function, key, argument, world.now_us)
        if world.story is not None:
            world.tell(f"client {self.client.place} asks: {telling.asked(operation)}")

        def done(answer: Answer | None, error: RaftKVError | None) -> None:
            if answer is None:
                assert error is not None, "a call ends with an answer or an error"
                happened = error.may_have_happened
                world.history.refuse(operation, error.code, may_have_happened=happened, now_us=world.now_us)
            else:
                self.completed += 1
                result = _result(function, answer, prev=prev)
                if function == READ:
                    world.keys.last_values[key] = result[0]
                world.history.complete(operation, result, answer[1], floor, world.now_us)
            if world.story is not None:
                world.tell(f"client {self.client.place} {telling.answered(operation)}")
            self._think()

        self.client.submit(command, kind, done)


def _command(key: str, function: str, argument: Any, random: "Random") -> tuple[Command, int, bool]:
    """The command, what kind of call it is, and whether a put tells what was there before."""
    if function == READ:
        return requests.get(key), READ_KIND, False
    if function == WRITE:
        prev = random.random() < 0.5
        return requests.put(key, argument, prev_kv=prev), WRITE_KIND, prev
    if function == INCREMENT:
        return requests.increment(key, argument), WRITE_KIND, False
    if function == APPEND:
        return requests.append(key, argument), WRITE_KIND, False
    if function == DELETE:
        return requests.delete(key), WRITE_KIND, False
    assert function == CAS, function
    return requests.compare_and_set(key, *argument), WRITE_KIND, False


def _result(function: str, answer: Answer, *, prev: bool) -> Any:
    """The answer as history.py's model gives it."""
    if function == READ or (function == WRITE and prev):
        items = answer[2]
        return (None, 0) if items is None else (items[5], items[3])
    if function == WRITE:
        return None
    if function == DELETE:
        return answer[2] > 0
    return answer[2]
