"""Ranks: what all hear of each other in one round is the same, complete, and what each has said itself."""

from typing import Final, Iterable

from raftkv_jepsen.checkers.linearizability import by_key
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import FAIL, OK, Operation

TELL: Final = "tell"
"""argument: the address, which begins with the rank."""
GATHER: Final = "gather"
"""argument: how many; result: the addresses by rank."""


def check_ranks(operations: Iterable[Operation]) -> Verdict:
    """Each key is a round."""
    verdict = Verdict("everybody hears of everybody")
    rounds = gathered = 0
    for key, part in by_key(operations).items():
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
