"""Queues: what was put is acknowledged by one worker, once; nobody gets what nobody put; two do not work on one item at one time."""

from typing import Final, Iterable

from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import FAIL, INFO, OK, Operation

PUT, CLAIM, ACKNOWLEDGE = "put", "claim", "acknowledge"
DRAINED: Final = "drained"


def check_queue(operations: Iterable[Operation]) -> Verdict:
    """Values are put once at most. Judges losses only of a queue that was worked off at the end."""
    verdict = Verdict("queue")
    puts: dict[str, Operation] = {}
    claims: dict[str, list[Operation]] = {}
    done: dict[str, list[Operation]] = {}
    is_drained = False
    for operation in operations:
        if operation.function == PUT:
            puts[operation.argument] = operation
        elif operation.function == CLAIM and operation.outcome == OK:
            claims.setdefault(operation.result[0], []).append(operation)
        elif operation.function == ACKNOWLEDGE and operation.outcome != FAIL:
            done.setdefault(operation.argument, []).append(operation)
        is_drained = is_drained or operation.function == DRAINED
    for value, taken in claims.items():
        put = puts.get(value)
        if put is None or put.outcome == FAIL:
            verdict.accuse(f"{value} was handed out and never put: {taken[0]}", taken[:3])
        tokens = [claim.result[1] for claim in taken]
        if len(set(tokens)) != len(tokens):
            verdict.accuse(f"{value} was handed out twice under one token: {tokens}", taken)
    for value, ends in done.items():
        sure = [end for end in ends if end.outcome == OK]
        if len(sure) > 1:
            verdict.accuse(f"{value} was acknowledged {len(sure)} times", [*claims.get(value, []), *sure])
        for end in sure:
            later = [claim for claim in claims.get(value, []) if claim.invoked_ns > end.completed_ns]
            if later:
                verdict.accuse(f"{value} was handed out after it was acknowledged", [end, *later])
    if is_drained:
        lost = [put for value, put in puts.items() if put.outcome == OK and value not in done]
        if lost:
            verdict.accuse(f"{len(lost)} items were put and never acknowledged by anybody", lost[:8])
    unknown = sum(put.outcome == INFO for put in puts.values())
    verdict.detail = (
        f"{len(puts)} items ({unknown} unknown), {sum(map(len, claims.values()))} claims, {len(done)} acknowledged"
    )
    return verdict
