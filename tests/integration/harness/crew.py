"""Hundreds of clients in a few processes: each process runs one load with so many hands, each hand on a client of its own.

    python -m integration.harness.crew RECIPE PLACE ENDPOINTS FIRST COUNT

prints `done N` now and then; SIGTERM ends it, and its last line is what it saw, as JSON. See loads/ for what the loads do and how they are judged.
"""

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Sequence

import raftkv

from .faults import Fault
from .loads import LOADS
from .loads.base import Load, Seen, reaches
from .process import Process, raftkv_environment

PROCESSES = 3
THINKS_S = 3.0  # between turns, at most: three hundred in a closed loop would be a measurement of the machine
TESTS = Path(__file__).resolve().parents[2]


async def main(recipe: str, place: str, endpoints: str, first: str, count: str) -> None:
    load = LOADS[recipe](place, int(count))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.ending.set)
    load.thinks_s = THINKS_S
    load.settled.set()  # our sessions end with us; the others' are not ours to wait for
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for number in range(int(first), int(first) + int(count)):
            kv = await stack.enter_async_context(raftkv.connect(endpoints, timeout=20))
            group.create_task(load.hand(kv, number))
        while not load.ending.is_set():
            print("done", load.seen.done, flush=True)
            await asyncio.sleep(0.1)
    print(json.dumps(load.seen.packed()), flush=True)


def child(module: str, *words: str, log: Path) -> Process:
    """A process of this package, whose output is `log`."""
    environment = raftkv_environment()
    environment["PYTHONPATH"] += os.pathsep + str(TESTS)
    return Process((sys.executable, "-m", f"integration.harness.{module}", *words), log, environment=environment)


def done_by(crew: Sequence[Process]) -> int:
    assert all(each.exit_code is None for each in crew), [each.log_text()[-3000:] for each in crew]
    whole = [each.log_text().rpartition("\n")[0].rpartition("done ")[2] for each in crew]
    return sum(int(count or 0) for count in whole)


async def run_hundreds(recipe: str, endpoints: str, fault: Fault, directory: Path, hands: int = 300) -> Seen:
    """One load by many clients through one fault, and its judgement. Raises AssertionError."""
    load: Load = LOADS[recipe]("hundreds")
    each = hands // PROCESSES
    async with raftkv.connect(endpoints, timeout=20) as kv:
        await load.prepare(kv)
        crew = [
            child("crew", recipe, load.place, endpoints, str(first), str(each), log=directory / f"crew{first}")
            for first in range(0, hands, each)
        ]
        try:
            for turns, then in ((hands // 10, fault.begin), (hands // 10, fault.end), (hands // 10, None)):
                wanted = done_by(crew) + turns
                await reaches(lambda wanted=wanted: done_by(crew) >= wanted, "the crew", lambda: done_by(crew))  # type: ignore[misc]
                if then is not None:
                    await then()
            for process in crew:
                process.send(signal.SIGTERM)
            for process in crew:
                code = await asyncio.to_thread(process.wait_exit, 120)
                assert code == 0, process.log_text()[-6000:]
        finally:
            for process in crew:
                process.kill()
        await load.settle(kv)
        seen = load.seen
        for process in crew:
            seen.add(Seen(**json.loads(process.log_text().splitlines()[-1])))
        await load.check(kv, seen)
    return seen


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
