"""One process of `raftkv bench`: keeps a number of requests in flight and records how long each took.

Run as `python -m raftkv_cli.bench_worker`; see bench_plan.py for what goes in and out. A lane is one request after the other;
`in_flight` lanes share one multiplexed client.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

import raftkv
from raftkv.errors import RaftKVError
from raftkv_cli import lifeline
from raftkv_cli.bench_plan import BenchPlan, key_of, plan_from_data
from raftkv_cli.histogram import Histogram

ERROR_PAUSE_SECONDS = 0.02
"""After an error a lane waits: a member that refuses must not be asked a hundred thousand times a second."""
PREPARE_IN_FLIGHT = 256
STRIDE = 7_919
"""A prime, so that lanes walk all keys out of order without drawing random numbers."""


class Tally:
    """What the lanes of this process count."""

    __slots__ = ("errors", "histogram")

    def __init__(self) -> None:
        self.histogram = Histogram()
        self.errors: dict[str, int] = {}

    def count_error(self, error: RaftKVError) -> None:
        self.errors[error.code] = self.errors.get(error.code, 0) + 1


def main() -> int:
    lifeline.hold()
    plan = plan_from_data(json.loads(sys.stdin.readline()))
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(work(plan))
    except RaftKVError as error:
        return fail(error)
    except ExceptionGroup as errors:
        known = [error for error in errors.exceptions if isinstance(error, RaftKVError)]
        if not known:
            raise
        return fail(known[0])
    return 0


def fail(error: RaftKVError) -> int:
    tell({"failed": [error.code, error.message]})
    return 1


def loop_factory() -> Any:
    """uvloop where it is installed: the figures then say more about the cluster than about this process."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def work(plan: BenchPlan) -> None:
    tally = Tally()
    async with raftkv.connect(
        plan.endpoints,
        cluster_name=plan.cluster_name,
        timeout=plan.timeout_seconds,
        user=plan.user,
        password=plan.password,
        tls=None if plan.tls is None else raftkv.Tls(*plan.tls),
    ) as client:
        value = os.urandom(plan.value_bytes)
        await prepare(client, plan, value)
        tell({"ready": True})
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        began = time.perf_counter()
        end_at = began + plan.seconds
        async with asyncio.TaskGroup() as group:
            lanes = [
                group.create_task(run_lane(client, plan, number, value, end_at, tally))
                for number in range(plan.in_flight)
            ]
            reporter = group.create_task(report(tally))
            await asyncio.wait(lanes)
            reporter.cancel()
        seconds = time.perf_counter() - began
    tell({"histogram": tally.histogram.as_data(), "errors": tally.errors, "seconds": seconds})


async def prepare(client: raftkv.AsyncClient, plan: BenchPlan, value: bytes) -> None:
    """Reads need keys to find; writes need one round trip, so that connecting is not measured."""
    if plan.verb == "put":
        await client.put(key_of(plan.worker % plan.keys), value)
        return
    numbers = iter(range(plan.worker, plan.keys, plan.workers))

    async def fill() -> None:
        for number in numbers:
            await client.put(key_of(number), value)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(PREPARE_IN_FLIGHT, plan.keys)):
            group.create_task(fill())


async def run_lane(
    client: raftkv.AsyncClient, plan: BenchPlan, lane: int, value: bytes, end_at: float, tally: Tally
) -> None:
    record, clock_ns = tally.histogram.record, time.perf_counter_ns
    reading, keys = plan.verb == "get", plan.keys
    number = (lane * plan.workers + plan.worker) % keys
    while time.perf_counter() < end_at:
        number = (number + STRIDE) % keys
        key = key_of(number)
        began_ns = clock_ns()
        try:
            if reading:
                await client.get(key)
            else:
                await client.put(key, value)
        except RaftKVError as error:
            tally.count_error(error)
            await asyncio.sleep(ERROR_PAUSE_SECONDS)
        else:
            record((clock_ns() - began_ns) // 1000)


async def report(tally: Tally) -> None:
    while True:
        await asyncio.sleep(1)
        tell({"done": tally.histogram.total, "errors": sum(tally.errors.values())})


def tell(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
