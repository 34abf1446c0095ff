"""Histories to judge: written by hand in one line each, or recorded from an imaginary store that may be told to lie."""

import random
from typing import Any

from raftkv_jepsen.checkers.models import APPEND, CAS, INCREMENT, READ, WRITE, Model
from raftkv_jepsen.history import FAIL, INFO, NEVER_NS, OK, Operation


def operation(
    function: str,
    argument: Any = None,
    result: Any = None,
    *,
    at: tuple[int, int | None],
    key: str = "x",
    process: int = 0,
) -> Operation:
    """One that was invoked and completed at these times; without an end it is open."""
    invoked, completed = at
    return Operation(
        process=process,
        function=function,
        key=key,
        argument=argument,
        outcome=INFO if completed is None else OK,
        result=result,
        invoked_ns=invoked,
        completed_ns=NEVER_NS if completed is None else completed,
    )


def write(value: Any, begin: int, end: int | None) -> Operation:
    return operation(WRITE, value, at=(begin, end))


def read(value: Any, begin: int, end: int | None) -> Operation:
    return operation(READ, None, value, at=(begin, end))


def cas(expected: Any, value: Any, succeeded: bool | None, begin: int, end: int | None) -> Operation:
    return operation(CAS, [expected, value], succeeded, at=(begin, end))


def recorded(
    model: Model,
    draw: random.Random,
    *,
    count: int,
    processes: int = 8,
    keys: int = 1,
    open_share: float = 0.02,
    stale_share: float = 0.0,
) -> list[Operation]:
    """What `processes` clients see of a correct store; with `stale_share` some reads answer from an older state.

    An operation takes effect at a moment between its ends. An open one takes effect with an even chance, perhaps much later.
    """
    states: dict[str, list[Any]] = {f"k{number}": [model.initial] for number in range(keys)}
    operations, late = [], []
    free_at = [0] * processes
    moments = []
    for number in range(count):
        process = min(range(processes), key=free_at.__getitem__)
        begin = free_at[process] + draw.randint(1, 20)
        effect, end = begin + draw.randint(1, 50), 0
        end = effect + draw.randint(1, 50)
        free_at[process] = end
        done = operation("", at=(begin, end), key=draw.choice(list(states)), process=process)
        _draw_request(done, model, number, draw)
        if draw.random() < open_share:
            done.outcome, done.completed_ns = INFO, NEVER_NS
            effect += draw.choice((0, 500))
            if draw.random() < 0.5:
                late.append(done)
                moments.append((effect, done))
        else:
            moments.append((effect, done))
        operations.append(done)
    for _, done in sorted(moments, key=lambda moment: moment[0]):
        past = states[done.key]
        _take_effect(done, model, past, draw.random() < stale_share and len(past) > 4)
    return operations


def _draw_request(done: Operation, model: Model, number: int, draw: random.Random) -> None:
    functions = {"register": (READ, WRITE, CAS), "counter": (READ, INCREMENT), "appends": (READ, APPEND)}[model.name]
    done.function = draw.choice(functions)
    if done.function == CAS:
        done.argument = [draw.randrange(5), draw.randrange(5)]
    elif done.function == WRITE:
        done.argument = draw.randrange(5)
    elif done.function == APPEND:
        done.argument = number
    elif done.function == INCREMENT:
        done.argument = draw.choice((1, 2))


def _take_effect(done: Operation, model: Model, past: list[Any], stale: bool) -> None:
    state = past[-1]
    if done.function == READ:
        seen = past[-4] if stale else state
        done.result = list(seen) if isinstance(seen, tuple) else seen
        return
    if done.function == CAS:
        done.result = state == done.argument[0]
    elif done.function == INCREMENT:
        done.result = state + done.argument
    elif done.function == APPEND:
        done.result = len(state) + 1
    past.append(model.step(state, done)[1])


def refused(done: Operation) -> Operation:
    done.outcome = FAIL
    return done
