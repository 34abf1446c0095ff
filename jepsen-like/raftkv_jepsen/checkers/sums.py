"""Counters without a search: a value lies between the increments surely done and those that may have been, at any moment.

It says less than linearizability and can never run out of time, so it also judges what the search gives up on.
"""

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import Iterable

from raftkv_jepsen.checkers.linearizability import by_key
from raftkv_jepsen.checkers.models import INCREMENT, READ
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import FAIL, NEVER_NS, OK, Operation


def check_sums(operations: Iterable[Operation]) -> Verdict:
    """Increments by one. Reads, and the numbers that increments returned."""
    verdict = Verdict("counters")
    looked_at = 0
    for key, part in by_key(operations).items():
        steps = [operation for operation in part if operation.function == INCREMENT]
        done_ns = sorted(step.completed_ns for step in steps if step.outcome == OK)
        begun_ns = sorted(step.invoked_ns for step in steps if step.outcome != FAIL)
        returned = sorted(step.result for step in steps if step.outcome == OK)
        for number, following in pairwise(returned):
            if number == following:
                verdict.accuse(f"{key}: two increments returned {number}", [s for s in steps if s.result == number])
        for operation in part:
            if operation.outcome != OK or operation.function not in (READ, INCREMENT):
                continue
            looked_at += 1
            value = operation.result or 0
            least = bisect_left(done_ns, operation.invoked_ns)
            most = bisect_right(begun_ns, min(operation.completed_ns, NEVER_NS))
            if not least <= value <= most:
                verdict.accuse(
                    f"{key}: {value} where {least} increments were acknowledged and {most} begun: {operation}",
                    [*steps[-6:], operation],
                )
    verdict.detail = f"{looked_at} numbers"
    return verdict
