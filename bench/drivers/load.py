"""Shapes of load on one target: closed loop, open loop (fixed arrival times), and a fixed count.

Latencies are collected raw, in seconds, and judged by the process that started this one.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Awaitable, Callable

Operation = Callable[[int], Awaitable[None]]
"""Sends the operation of that number and returns when it is acknowledged."""

TIMER_GRAIN_SECONDS = 0.002
_clock = time.perf_counter


@dataclass(slots=True)
class Outcome:
    """What one process saw."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # acknowledged operations only
    errors: int = 0
    error_example: str = ""
    refused: int = 0  # open loop: arrivals that were dropped because too many were waiting


async def closed_loop(operation: Operation, in_flight: int, seconds: float, warmup_seconds: float) -> Outcome:
    """Keep `in_flight` operations going for `seconds`; what completes during the warm-up is not counted."""
    outcome = Outcome()
    start = _clock() + warmup_seconds
    end = start + seconds
    next_number = iter(range(1 << 62)).__next__

    async def keep_one_going() -> None:
        latencies = outcome.latencies
        while True:
            sent = _clock()
            if sent >= end:
                return
            try:
                await operation(next_number())
            except Exception as error:  # any library's error: not acknowledged
                _note(outcome, error)
                await asyncio.sleep(0)
                continue
            now = _clock()
            if start <= now < end:
                latencies.append(now - sent)

    await asyncio.gather(*(keep_one_going() for _ in range(in_flight)))
    outcome.seconds = seconds
    return outcome


async def fixed_count(operation: Operation, in_flight: int, count: int) -> Outcome:
    """Do the operations 0 ... count - 1 once each, each until it is acknowledged (loading of data)."""
    outcome = Outcome()
    numbers = iter(range(count))
    started = _clock()

    async def work() -> None:
        for number in numbers:
            while True:
                try:
                    await operation(number)
                    break
                except Exception as error:
                    _note(outcome, error)
                    if outcome.errors > 1000:
                        raise
                    await asyncio.sleep(0.05)

    await asyncio.gather(*(work() for _ in range(in_flight)))
    outcome.seconds = _clock() - started
    return outcome


async def open_loop(
    operation: Operation, per_second: float, seconds: float, warmup_seconds: float, waiting_max: int = 20_000
) -> Outcome:
    """Start an operation at every 1/per_second, however slow the answers are; latency counts from the planned time.

    A closed loop waits for the server and so never measures what arrives while it stalls ("coordinated omission"). Lateness
    within the grain of the loop's timers is the generator's own and not counted.
    """
    outcome = Outcome()
    tasks: set[asyncio.Task[None]] = set()
    begin = _clock() + 0.01
    start, end = begin + warmup_seconds, begin + warmup_seconds + seconds

    async def one(number: int, since: float, counted: bool) -> None:
        try:
            await operation(number)
        except Exception as error:
            _note(outcome, error)
            return
        if counted:
            outcome.latencies.append(_clock() - since)

    number = 0
    while True:
        planned = begin + number / per_second
        if planned >= end:
            break
        delay = planned - _clock()
        if delay > 0:
            await asyncio.sleep(delay)
        if len(tasks) >= waiting_max:
            outcome.refused += 1
        else:
            now = _clock()
            since = planned if now - planned > TIMER_GRAIN_SECONDS else now
            task = asyncio.ensure_future(one(number, since, planned >= start))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        number += 1
    await asyncio.gather(*tasks)
    outcome.seconds = seconds
    return outcome


def _note(outcome: Outcome, error: Exception) -> None:
    outcome.errors += 1
    if not outcome.error_example:
        outcome.error_example = f"{type(error).__name__}: {error}"
