"""Capacity: at no moment do those who may rely on their shares have more together than there is."""

from typing import Iterable

from raftkv_jepsen.checkers.linearizability import by_key
from raftkv_jepsen.checkers.locks import HOLD
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import Operation


def check_capacity(operations: Iterable[Operation], capacity: int) -> Verdict:
    """`argument` of a hold is its weight; it spans the time in which its owner could rely on it."""
    verdict = Verdict("capacity")
    count = most = 0
    for key, part in by_key(operations).items():
        holds = [operation for operation in part if operation.function == HOLD]
        count += len(holds)
        # At equal times ends come first: nobody is accused for the same nanosecond.
        moments = sorted(
            [(hold.completed_ns, 0, -hold.argument, hold) for hold in holds if hold.completed_ns > hold.invoked_ns]
            + [(hold.invoked_ns, 1, hold.argument, hold) for hold in holds if hold.completed_ns > hold.invoked_ns],
            key=lambda moment: moment[:2],
        )
        used = 0
        for at_ns, _, weight, _ in moments:
            used += weight
            most = max(most, used)
            if used > capacity:
                at_once = [hold for hold in holds if hold.invoked_ns <= at_ns < hold.completed_ns]
                verdict.accuse(f"{key}: {used} of {capacity} were held at {at_ns / 1e9:.4f} s", at_once)
    verdict.detail = f"{count} holds, at most {most} of {capacity} at once"
    return verdict
