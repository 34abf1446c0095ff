"""Ranks: what all hear of each other in one round is the same, complete, and what each has said itself; and what is over is over."""

from collections import defaultdict
from typing import Final, Iterable, Mapping, Sequence

from raftkv_jepsen.checkers.linearizability import by_key
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import FAIL, NEVER_NS, OK, Operation

TELL: Final = "tell"
"""argument: the address, which begins with the rank."""
GATHER: Final = "gather"
"""argument: how many; result: the addresses by rank."""


def check_ranks(operations: Iterable[Operation]) -> Verdict:
    """Each key is a life of a round: its number, a dot, and the token of the life."""
    verdict = Verdict("everybody hears of everybody")
    rounds = gathered = 0
    lives = by_key(operations)
    _check_lives(verdict, lives)
    for key, part in lives.items():
        rounds += 1
        told = {operation.argument: operation for operation in part if operation.function == TELL}
        first: Operation | None = None
        for gather in (o for o in part if o.function == GATHER and o.outcome == OK):
            gathered += 1
            first = first or gather
            if gather.result != first.result:
                verdict.accuse(f"{key}: {gather} and {first} differ", [first, gather])
            for rank, address in enumerate(gather.result, 1):
                author = told.get(address)
                if author is None or author.outcome == FAIL or author.invoked_ns > gather.completed_ns:
                    verdict.accuse(f"{key}: nobody has said {address!r}: {gather}", [gather])
                elif not address.startswith(f"{rank}@"):
                    verdict.accuse(f"{key}: {address!r} stands in the place of rank {rank}", [author, gather])
            if len(gather.result) != gather.argument:
                verdict.accuse(f"{key}: {len(gather.result)} of {gather.argument} were heard of: {gather}", [gather])
    verdict.detail = f"{rounds} rounds, {gathered} times all were heard of"
    return verdict


def _check_lives(verdict: Verdict, lives: Mapping[str, Sequence[Operation]]) -> None:
    """Once somebody was served in a later life of a round, nobody is in an earlier one."""
    born: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for key, part in lives.items():
        name, token = life_of(key)
        served = [operation.completed_ns for operation in part if operation.outcome == OK]
        if served:
            born[name].append((token, min(served)))
    for key, part in lives.items():
        name, token = life_of(key)
        over_ns = min((at_ns for other, at_ns in born[name] if other > token), default=NEVER_NS)
        late = [operation for operation in part if operation.outcome == OK and operation.invoked_ns > over_ns]
        if late:
            verdict.accuse(f"{key}: it was over, and p{late[0].process} went on in it: {late[0]}", late[:6])


def life_of(key: str) -> tuple[str, int]:
    """The round, and the token of its life."""
    name, _, token = key.partition(".")
    return name, int(token or 0)
