"""Meetings: who is in proves that all had come, and who is out that all had left or given up."""

from typing import Iterable

from raftkv_jepsen.checkers.linearizability import by_key
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import OK, Operation

ENTER, LEAVE = "enter", "leave"


def check_meetings(operations: Iterable[Operation]) -> Verdict:
    """Each key is one round; `argument` is how many take part, each of them once."""
    verdict = Verdict("meetings")
    rounds = full = 0
    for key, part in by_key(operations).items():
        enters = [operation for operation in part if operation.function == ENTER]
        leaves = [operation for operation in part if operation.function == LEAVE]
        entered = [enter for enter in enters if enter.outcome == OK]
        rounds += 1
        full += bool(entered)
        for enter in entered:
            come = sum(other.invoked_ns <= enter.completed_ns for other in enters)
            if come < enter.argument:
                verdict.accuse(f"{key}: p{enter.process} was let in when {come} of {enter.argument} had come", enters)
        for leave in (leave for leave in leaves if leave.outcome == OK):
            inside = [
                enter
                for enter in entered
                if enter.completed_ns < leave.completed_ns
                and not any(o.process == enter.process and o.invoked_ns <= leave.completed_ns for o in leaves)
            ]
            if inside:
                verdict.accuse(
                    f"{key}: p{leave.process} was let out while p{inside[0].process} was in", [leave, *inside]
                )
    verdict.detail = f"{rounds} rounds, {full} of them full"
    return verdict
