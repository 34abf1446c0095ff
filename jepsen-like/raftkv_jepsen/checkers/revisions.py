"""Revisions: one per write, and a write that began after another was acknowledged has the larger one. It costs a sort, over all keys."""

from typing import Final, Iterable

from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import OK, Operation

TOLD: Final = frozenset({"write", "add", "attach", "guarded-write"})
"""Functions whose result is their revision."""


def check_revisions(operations: Iterable[Operation]) -> Verdict:
    """Of every workload together: the store has one order of writes."""
    verdict = Verdict("revisions")
    told = [o for o in operations if o.function in TOLD and o.outcome == OK and type(o.result) is int]
    by_revision: dict[int, Operation] = {}
    for operation in told:
        other = by_revision.setdefault(operation.result, operation)
        if other is not operation:
            verdict.accuse(f"revision {operation.result} was given twice", [other, operation])
    completed = sorted(told, key=lambda o: o.completed_ns)
    position, newest = 0, None
    for operation in sorted(told, key=lambda o: o.invoked_ns):
        while position < len(completed) and completed[position].completed_ns < operation.invoked_ns:
            if newest is None or completed[position].result > newest.result:
                newest = completed[position]
            position += 1
        if newest is not None and operation.result <= newest.result:
            verdict.accuse(f"{operation} got a revision behind that of a write before it", [newest, operation])
    verdict.detail = f"{len(told)} writes"
    return verdict
