"""Transactions over several keys, and reads of the past, as a workload.

Every answer names a revision, so nothing has to be searched for: at the end a model (txn_model.py) does each transaction upon the keys as the
committed log left them at the revision before, and the answer has to be the model's, the log's events of that revision, too. With every
revision above all that was known when the call began, that is strict serializability. What a transaction writes is unique, so one that is done
twice, or after it was refused, shows itself.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from raftkv.client.decisions import READ, WRITE
from raftkv.errors import RaftKVError
from raftkv.store.records import DELETE_EVENT, POSITION_BYTES, key_of, key_value
from raftkv.units import Revision
from raftkv.wire.commands import (
    COMPARE_CREATE,
    COMPARE_MOD,
    COMPARE_VALUE,
    COMPARE_VERSION,
    DELETE_RANGE,
    EQUAL,
    GREATER,
    LESS,
    NOT_EQUAL,
    PREV_KV,
    PUT,
    RANGE,
    READ_TXN,
    TXN,
    Answer,
    Command,
    as_read,
)

from .client import SimClient
from .ledger import Items, Ledger
from .txn_model import Change, TxnModel

if TYPE_CHECKING:
    from .world import World

KEYS: Final = tuple(b"t/%d" % number for number in range(5))
START, END = b"t/", b"t0"
PAST_MAX: Final = 100
THINK_US: Final = 60_000


@dataclass(slots=True)
class Attempt:
    """One call: a transaction, or a read of the past."""

    command: Command
    token: bytes
    floor: Revision
    answer: Answer | None = None
    error: RaftKVError | None = None


class Transactor:
    """One client's caller: it draws a transaction, waits for its end, thinks, and draws the next."""

    def __init__(self, world: "World", place: int) -> None:
        self.client = SimClient(world, place)
        self.completed = 0
        self.resting = False
        self.attempts: list[Attempt] = []
        self._world = world
        self._random = world.stream(f"transactor {place}")
        self._known: dict[bytes, Items | None] = {}

    def start(self) -> None:
        self._think()

    def _think(self) -> None:
        self._world.after(int(self._random.expovariate(1 / THINK_US)) + 1_000, self._next)

    def _next(self) -> None:
        if self.resting:
            return
        token = b"%d.%d" % (self.client.place, len(self.attempts))
        is_past = self._random.random() < 0.3
        command = self._draw_past() if is_past else self._draw_txn(token)
        floor = self._world.history.revision_seen
        attempt = Attempt(command, b"" if is_past else token, floor)
        self.attempts.append(attempt)

        def done(answer: Answer | None, error: RaftKVError | None) -> None:
            attempt.answer, attempt.error = answer, error
            self._world.tell(f"transactor {self.client.place}: {command} {answer or repr(error)}")
            if answer is not None:
                self.completed += 1
                self._world.history.learn(answer[1])
                self._look_at(answer)
            self._think()

        if is_past:
            self.client.submit(command, READ, done)
        else:
            command = as_read(command)
            self.client.submit(command, READ if command[0] == READ_TXN else WRITE, done)

    def _look_at(self, answer: Answer) -> None:
        """What the answer tells of the keys makes the next compares likely ones."""
        for response in answer[3] if type(answer[3]) is list else ():
            if response[0] == RANGE:
                self._known.update({items[0]: items for items in response[2]})

    # Draws.

    def _draw_past(self) -> Command:
        seen = self._world.history.revision_seen
        revision = max(1, seen - self._random.randrange(PAST_MAX))
        start, end = self._random.choice(((START, END), (b"\0", b"\0"), (self._random.choice(KEYS), b"")))
        return _range(start, end, revision)

    def _draw_txn(self, token: bytes) -> Command:
        random = self._random
        compares = [self._draw_compare() for _ in range(random.choice((0, 1, 1, 2, 3)))]
        return [TXN, 0, compares, self._draw_branch(token + b"+", 1), self._draw_branch(token + b"-", 1)]

    def _draw_compare(self) -> list[Any]:
        random = self._random
        key = random.choice(KEYS)
        known = self._known.get(key)
        result = random.choice((EQUAL, EQUAL, GREATER, LESS, NOT_EQUAL))
        if random.random() < 0.2:
            return [result, COMPARE_VERSION, START, random.randrange(3), END]
        target = random.choice((COMPARE_VALUE, COMPARE_VERSION, COMPARE_MOD, COMPARE_CREATE))
        if target == COMPARE_VALUE:
            return [result, target, key, known[5] if known else b"1000.1+", b""]
        place = {COMPARE_VERSION: 3, COMPARE_MOD: 2, COMPARE_CREATE: 1}[target]
        return [result, target, key, known[place] if known else 0, b""]

    def _draw_branch(self, token: bytes, depth: int) -> list[Command]:
        """No key is written twice, as etcd demands."""
        keys = list(KEYS)
        self._random.shuffle(keys)
        return self._draw_operations(token, keys[: self._random.randint(0, len(keys))], depth)

    def _draw_operations(self, token: bytes, keys: list[bytes], depth: int) -> list[Command]:
        random = self._random
        operations: list[Command] = []
        while keys:
            dice = random.random()
            if dice < 0.5:
                operations.append([PUT, 0, keys.pop(), token, 0, random.choice((0, PREV_KV))])
            elif dice < 0.65:
                operations.append([DELETE_RANGE, 0, keys.pop(), b"", random.choice((0, PREV_KV))])
            elif dice < 0.75 and depth:
                inner, keys = keys[:2], keys[2:]
                compares = [self._draw_compare()]
                branch = self._draw_operations(token + b"n", inner, depth - 1)
                operations.append([TXN, 0, compares, branch, [_range(START, END, 0)]])
            else:
                operations.append(_range(keys.pop(), b"", 0))
        if random.random() < 0.5:
            operations.append(_range(START, END, 0))
        return operations

    # The judge.

    def judge(self, ledger: Ledger) -> None:
        """Violates when an answer is not what the log says, or something was done twice, or although it was refused."""
        written = _tokens(ledger)
        for attempt in self.attempts:
            wrong = self._wrong(attempt, ledger, written.get(attempt.token, []))
            if wrong:
                self._world.checks.violate(
                    f"{attempt.command} of client {self.client.place}, {attempt.floor} was known: {wrong}"
                )

    def _wrong(self, attempt: Attempt, ledger: Ledger, revisions: list[Revision]) -> str:
        answer, error = attempt.answer, attempt.error
        if attempt.command[0] == RANGE:
            return _wrong_past(attempt, ledger)
        if answer is not None:
            if len(revisions) > 1 or (revisions and revisions != [answer[1]]):
                return f"done at {revisions}, answered {answer}"
            return _wrong_answer(attempt, answer, ledger)
        if error is not None and not error.may_have_happened:
            return f"done at {revisions} although it was refused: {error!r}" if revisions else ""
        if len(revisions) > 1:
            return f"done at {revisions}"
        if revisions and not _explains(attempt.command, ledger, revisions[0], None):
            return f"what it did at {revisions} is not what it says"
        return ""


def _range(start: bytes, end: bytes, revision: Revision) -> Command:
    return [RANGE, 0, start, end, 0, revision, 0, 0, 0, 0, 0, 0]


def _tokens(ledger: Ledger) -> dict[bytes, list[Revision]]:
    """What each transaction has put, by the number that it gave to its values."""
    found: dict[bytes, list[Revision]] = {}
    for revision, records in ledger.events.items():
        tokens = {
            key_value(record)[5].rstrip(b"n+-")
            for record in records
            if record[POSITION_BYTES] != DELETE_EVENT and key_of(record).startswith(START)
        }
        for token in tokens:
            found.setdefault(token, []).append(revision)
    return found


def _wrong_answer(attempt: Attempt, answer: Answer, ledger: Ledger) -> str:
    revision = answer[1]
    if not attempt.floor <= revision <= ledger.revision:
        return f"answered {answer}"
    # It has changed nothing, and read this revision; or it has made it.
    for before in (revision, revision - 1):
        model = TxnModel(ledger.range_at(START, END, before), before)
        result = model.run(attempt.command)
        if result == answer[2:] and bool(model.changes) == (before < revision):
            if not model.changes:
                return ""
            return "" if revision > attempt.floor and model.changes == _changes(ledger, revision) else f"did {answer}"
    return f"answered {answer}, which no state explains"


def _explains(command: Command, ledger: Ledger, revision: Revision, result: list[Any] | None) -> bool:
    model = TxnModel(ledger.range_at(START, END, revision - 1), revision - 1)
    told = model.run(command)
    return model.changes == _changes(ledger, revision) and (result is None or told == result)


def _changes(ledger: Ledger, revision: Revision) -> list[Change]:
    return [
        (key_of(record), None if record[POSITION_BYTES] == DELETE_EVENT else key_value(record))
        for record in ledger.events.get(revision, ())
    ]


def _wrong_past(attempt: Attempt, ledger: Ledger) -> str:
    """A read of the past is answered from there, unless it was compacted."""
    _, _, start, end, _, revision, *_ = attempt.command
    if attempt.answer is None:
        code = attempt.error.code if attempt.error is not None else ""
        if code == "future_revision" or (code == "compacted" and revision >= ledger.compact_revision):
            return f"refused with {code}, compacted is {ledger.compact_revision}"
        return ""
    _, header, items, more, count = attempt.answer
    expected = ledger.range_at(start, start + b"\0" if not end else None if end == b"\0" else end, revision)
    if header < attempt.floor or items != expected or more or count != len(expected):
        return f"answered {attempt.answer}, at that revision there was {expected}"
    return ""
