"""Locks: nobody relies on a lock while somebody else does, and no write of an earlier holder comes after one of a later."""

from itertools import pairwise
from typing import Final, Iterable

from raftkv_jepsen.checkers.linearizability import by_key
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import OK, Operation

ACQUIRE: Final = "acquire"
HOLD: Final = "hold"
GUARDED: Final = "guarded-write"


def check_exclusion(operations: Iterable[Operation]) -> Verdict:
    """`hold` spans the time in which its owner could rely on the lock, by the one clock of the history."""
    verdict = Verdict("mutual exclusion")
    count = 0
    for key, part in by_key(operations).items():
        holds = sorted((o for o in part if o.function == HOLD), key=lambda o: o.invoked_ns)
        count += len(holds)
        last: Operation | None = None
        for hold in holds:
            if last is not None and hold.invoked_ns < last.completed_ns:
                verdict.accuse(f"{key}: held by p{last.process} and p{hold.process} at once", [last, hold])
            if last is None or hold.completed_ns > last.completed_ns:
                last = hold
    verdict.detail = f"{count} holds"
    return verdict


def check_fencing(operations: Iterable[Operation]) -> Verdict:
    """A guarded write carries its holder's token; in the order of revisions the tokens never fall, and no token has two owners."""
    verdict = Verdict("fencing")
    count = refused = 0
    for key, part in by_key(operations).items():
        owners: dict[int, Operation] = {}
        for acquired in (o for o in part if o.function == ACQUIRE and o.outcome == OK):
            other = owners.setdefault(acquired.result, acquired)
            if other is not acquired:
                verdict.accuse(f"{key}: token {acquired.result} was given twice", [other, acquired])
        written = sorted((o for o in part if o.function == GUARDED and o.outcome == OK), key=lambda o: int(o.result))
        refused += sum(o.function == GUARDED and o.outcome != OK for o in part)
        count += len(written)
        for earlier, later in pairwise(written):
            if later.argument < earlier.argument:
                verdict.accuse(
                    f"{key}: holder {later.argument} wrote at revision {later.result}, after holder {earlier.argument}"
                    f" had at {earlier.result}",
                    [earlier, later],
                )
    verdict.detail = f"{count} guarded writes, {refused} refused or unknown"
    return verdict
