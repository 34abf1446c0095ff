"""One load-generating process: connects, prints `ready`, waits for a line on stdin, runs, prints one JSON line.

Started by bench/generator.py as `python worker.py SPEC`, where SPEC is the JSON of a Spec. Latencies go to a file as raw doubles.
"""

import array
import asyncio
import gc
import itertools
import json
import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Awaitable

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from processes import cpu_seconds_of

from drivers.failover import open_writers, write_until
from drivers.load import Operation, Outcome, closed_loop, fixed_count, open_loop
from drivers.target import Target, connect


@dataclass(kw_only=True)
class Spec:
    """What to do. `shape` is closed, open, count or failover."""

    driver: str
    endpoints: list[str]
    shape: str
    op: str = "put"
    in_flight: int = 1
    seconds: float = 2.0
    warmup_seconds: float = 0.5
    per_second: float = 0.0  # open
    count: int = 0  # count
    first: int = 0  # count: number of the first key
    connections: int = 1  # that share the operations in turn
    distinct_keys: int = 0  # count: go round over so many keys, one version each time; 0: as many keys as operations
    keys: int = 100_000  # operations are spread over so many keys; 0: a new random key for each put
    key_bytes: int = 16
    value_bytes: int = 128
    seed: int = 0
    attempt_seconds: float = 0.5  # failover
    latencies_path: str = ""
    watch_pids: list[int] = field(default_factory=list)  # whose CPU time to read at both ends of the counted time


def key_of(number: int, key_bytes: int) -> bytes:
    """The key of that number, padded to `key_bytes`."""
    return (b"bench/%d" % number).ljust(key_bytes, b".")


def operation_of(spec: Spec, target: "Target | Spread") -> Operation:
    """The operation that the spec describes, over its keys in an order that differs per process."""
    draw = random.Random(spec.seed)
    value = draw.randbytes(spec.value_bytes)
    keys, key_bytes, first = spec.keys, spec.key_bytes, spec.first
    put, get, txn = target.put, target.get, target.txn
    if spec.shape == "count":
        distinct = spec.distinct_keys or spec.count
        return lambda number: put(key_of(first + number % distinct, key_bytes), value)
    if keys == 0:
        return lambda number: put(draw.randbytes(key_bytes), value)
    names = [key_of(number, key_bytes) for number in range(keys)]
    draw.shuffle(names)
    if spec.op == "put":
        return lambda number: put(names[number % keys], value)
    if spec.op == "txn":
        return lambda number: txn(names[number % keys], value)
    return lambda number: get(names[number % keys])


class Spread:
    """A Target of several connections that take turns."""

    def __init__(self, targets: list[Target]) -> None:
        self._targets = targets
        self._next = itertools.cycle(targets).__next__

    def put(self, key: bytes, value: bytes) -> Awaitable[None]:
        return self._next().put(key, value)

    def get(self, key: bytes) -> Awaitable[None]:
        return self._next().get(key)

    def txn(self, key: bytes, value: bytes) -> Awaitable[None]:
        return self._next().txn(key, value)

    async def close(self) -> None:
        for target in self._targets:
            await target.close()


class CpuWatch:
    """CPU seconds of this process and of the watched ones, within the counted time."""

    def __init__(self, spec: Spec) -> None:
        self._pids = [os.getpid(), *spec.watch_pids]
        self._begin: list[float] = []
        self._end: list[float] = []
        loop = asyncio.get_running_loop()
        loop.call_later(spec.warmup_seconds, lambda: self._begin.extend(map(cpu_seconds_of, self._pids)))
        loop.call_later(spec.warmup_seconds + spec.seconds, lambda: self._end.extend(map(cpu_seconds_of, self._pids)))

    def result(self) -> dict[str, Any]:
        """Empty when the run was too short for both readings."""
        used = [end - begin for begin, end in zip(self._begin, self._end, strict=False)]
        return {"client": used[0], "watched": used[1:]} if used else {}


async def wait_for_go() -> None:
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def save(latencies: list[float], path: Path) -> None:
    path.write_bytes(array.array("d", latencies).tobytes())


async def run_load(spec: Spec) -> dict[str, Any]:
    targets = [await connect(spec.driver, spec.endpoints) for _ in range(spec.connections)]
    target = targets[0] if len(targets) == 1 else Spread(targets)
    operation = operation_of(spec, target)
    if spec.shape != "count":
        for number in range(spec.connections):
            await operation(number)
    await wait_for_go()
    gc.collect()
    gc.freeze()  # a full collection over prepared keys is no part of what is measured
    watch = CpuWatch(spec)
    outcome: Outcome
    if spec.shape == "open":
        outcome = await open_loop(operation, spec.per_second, spec.seconds, spec.warmup_seconds)
    elif spec.shape == "count":
        outcome = await fixed_count(operation, spec.in_flight, spec.count)
    else:
        outcome = await closed_loop(operation, spec.in_flight, spec.seconds, spec.warmup_seconds)
    await target.close()
    if spec.latencies_path:
        save(outcome.latencies, Path(spec.latencies_path))
    return {
        "seconds": outcome.seconds,
        "errors": outcome.errors,
        "error_example": outcome.error_example,
        "refused": outcome.refused,
        "cpu_seconds": watch.result(),
    }


async def run_failover(spec: Spec) -> dict[str, Any]:
    writers = await open_writers(spec.driver, spec.endpoints)
    done = asyncio.Event()
    writing = asyncio.create_task(
        write_until(
            done,
            writers,
            spec.in_flight,
            spec.attempt_seconds,
            lambda number: key_of(number % spec.keys, spec.key_bytes),
            bytes(spec.value_bytes),
        )
    )
    await wait_for_go()
    done.set()
    acknowledged = await writing
    for writer in writers:
        await writer.close()
    return {"acknowledged": acknowledged}


def main() -> None:
    spec = Spec(**json.loads(sys.argv[1]))
    result = uvloop.run(run_failover(spec) if spec.shape == "failover" else run_load(spec))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
