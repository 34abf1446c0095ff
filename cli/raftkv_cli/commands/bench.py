"""`raftkv bench put|get`: load from processes of its own, figures from all of them together.

The load runs in bench_worker.py; here the workers are started, listened to, and added up.
"""

import json
import os
import selectors
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import Any, Sequence

from raftkv.errors import from_code
from raftkv_cli import exits, lifeline
from raftkv_cli.bench_live import Progress
from raftkv_cli.bench_plan import KEY_PREFIX, BenchPlan, shares
from raftkv_cli.connect import login
from raftkv_cli.histogram import Histogram
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Failed, Option, UsageError, Verb, integer_at_least, positive_seconds

KINDS = ("put", "get")
PREPARE_SECONDS_MAX = 600.0
EXTRA_SECONDS_MAX = 30.0
"""How long a worker may be silent before it counts as lost; every request has a deadline below that, or --timeout."""


class Worker:
    """One bench process and what it said so far."""

    __slots__ = ("buffer", "done", "error_count", "final", "process", "ready", "stderr")

    def __init__(self, plan: BenchPlan) -> None:
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115  # `end` closes it
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raftkv_cli.bench_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env={**os.environ, **lifeline.environment()},
            process_group=0,
        )
        self.buffer = b""
        self.ready = False
        self.done = self.error_count = 0
        self.final: dict[str, Any] | None = None
        self.send(json.dumps(plan._asdict()))

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended; reading from it tells why

    def read(self) -> None:
        """Take in what is there. Raises the worker's error, or Failed when it ended without a result."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data and self.final is None:
            raise Failed(f"a bench process ended with exit code {self.process.wait()}: {self.last_words()}")
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            self.take(json.loads(line))

    def take(self, message: dict[str, Any]) -> None:
        if "failed" in message:
            code, text = message["failed"]
            raise from_code(code, text, may_have_happened=False)
        if "histogram" in message:
            self.final = message
        elif "ready" in message:
            self.ready = True
        else:
            self.done, self.error_count = message["done"], message["errors"]

    def last_words(self) -> str:
        self.stderr.seek(0)
        lines = self.stderr.read().decode("utf-8", "replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.stderr):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # it was gone before it read everything


def end_all(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.end()


def run(call: Call) -> int:
    plans = make_plans(call)
    with ExitStack() as stack:
        workers: list[Worker] = []
        stack.callback(lambda: end_all(workers))
        workers.extend(Worker(plan) for plan in plans)
        listen(workers, lambda: all(worker.ready for worker in workers), PREPARE_SECONDS_MAX, None)
        for worker in workers:
            worker.send("go")
        title = f"{plans[0].verb}, {call.number('--in-flight', 64)} in flight"
        progress = None if call.output == "json" else stack.enter_context(Progress(title, plans[0].seconds))
        patience = plans[0].timeout_seconds + EXTRA_SECONDS_MAX
        listen(workers, lambda: all(worker.final is not None for worker in workers), patience, progress)
    result = summary(plans, [worker.final for worker in workers if worker.final is not None])
    print_result(result, call.output)
    return exits.OK if result["operations"] else exits.FAILED


def make_plans(call: Call) -> list[BenchPlan]:
    """One plan per process. Raises UsageError for a load that cannot be."""
    kind = call.arguments["KIND"]
    if kind not in KINDS:
        raise UsageError(f"KIND {kind!r} is none of {', '.join(KINDS)}")
    in_flight, processes = call.number("--in-flight", 64), call.number("--processes", 1)
    if processes > in_flight:
        raise UsageError(f"--processes {processes} needs at least as many --in-flight")
    user, password = login(call.settings)
    return [
        BenchPlan(
            verb=kind,
            endpoints=",".join(call.settings.endpoints),
            cluster_name=call.settings.cluster_name,
            timeout_seconds=call.settings.timeout_seconds,
            in_flight=share,
            seconds=call.seconds("--seconds", 10.0),
            value_bytes=call.number("--value-bytes", 128),
            keys=call.number("--keys", 10_000),
            worker=number,
            workers=processes,
            user=user,
            tls=None if call.settings.tls is None else list(call.settings.tls),
            password=password,
        )
        for number, share in enumerate(shares(in_flight, processes))
    ]


def listen(workers: Sequence[Worker], finished: Any, silence_seconds_max: float, progress: Progress | None) -> None:
    """Read from the workers until `finished()`. Raises Failed when all are silent for too long."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            assert worker.process.stdout is not None
            selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        while not finished():
            events = selector.select(silence_seconds_max)
            if not events:
                raise Failed(f"the bench processes said nothing for {silence_seconds_max:g} s")
            for key, _ in events:
                key.data.read()
                if key.data.final is not None:
                    selector.unregister(key.fileobj)
            # One line per report of the first worker: the others report in the same second.
            if progress is not None and any(key.data is workers[0] and workers[0].final is None for key, _ in events):
                progress.update(sum(worker.done for worker in workers), sum(worker.error_count for worker in workers))


def summary(plans: Sequence[BenchPlan], finals: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All workers as one."""
    histogram = Histogram()
    errors: dict[str, int] = {}
    for final in finals:
        histogram.merge(Histogram.from_data(final["histogram"]))
        for code, count in final["errors"].items():
            errors[code] = errors.get(code, 0) + count
    seconds = max(float(final["seconds"]) for final in finals)
    plan = plans[0]
    return {
        "verb": plan.verb,
        "in_flight": sum(each.in_flight for each in plans),
        "processes": len(plans),
        "value_bytes": plan.value_bytes,
        "keys": plan.keys,
        "seconds": round(seconds, 3),
        "operations": histogram.total,
        "ops_per_second": round(histogram.total / seconds, 1),
        "latency_us": histogram.summary_us(),
        "errors": errors,
    }


def print_result(result: dict[str, Any], output: str) -> None:
    if output == "json":
        write_json(result)
        return
    latencies = {name: f"{latency_us / 1000:.2f} ms" for name, latency_us in result["latency_us"].items()}
    errors = ", ".join(f"{code} {count:,}" for code, count in result["errors"].items()) or "none"
    if output == "table":
        headings = ("verb", "in flight", "operations", "ops/s", *latencies, "errors")
        cells = (result["verb"], result["in_flight"], result["operations"], result["ops_per_second"])
        write_table(headings, [(*cells, *latencies.values(), errors)])
        return
    processes = "1 process" if result["processes"] == 1 else f"{result['processes']} processes"
    write_line(
        f"{result['verb']}: {result['operations']:,} operations in {result['seconds']:.1f} s, {result['in_flight']} in flight "
        f"from {processes}, values of {result['value_bytes']:,} bytes over {result['keys']:,} keys"
    )
    write_line(f"ops/s    {result['ops_per_second']:,.0f}")
    write_line("latency  " + "  ".join(f"{name} {text}" for name, text in latencies.items()))
    write_line(f"errors   {errors}")


VERB = Verb(
    name="bench",
    summary="put load on a cluster and measure it",
    description=(
        "Keeps a number of requests in flight for some seconds, and prints operations per second and latency percentiles. It writes\n"
        f"below {KEY_PREFIX} and leaves the keys there: `raftkv del {KEY_PREFIX} --prefix` removes them. Errors are counted, not fatal."
    ),
    run=run,
    arguments=(Argument("KIND", "put, or get (linearizable; the keys are written first)"),),
    options=(
        Option("--in-flight", "requests at the same time (default 64)", "N", convert=integer_at_least(1, 100_000)),
        Option("--seconds", "how long (default 10)", "SECONDS", convert=positive_seconds),
        Option("--value-bytes", "size of a value (default 128)", "BYTES", convert=integer_at_least(0, 1 << 20)),
        Option("--keys", "how many keys (default 10000)", "N", convert=integer_at_least(1, 10**9)),
        Option("--processes", "load from so many processes (default 1)", "N", convert=integer_at_least(1, 256)),
    ),
    examples=(
        ("raftkv bench put --in-flight 128 --seconds 10 --value-bytes 128", "writes"),
        ("raftkv bench get --in-flight 1 -o json", "the latency of a lone reader, for a script"),
        ("raftkv bench get --in-flight 1024 --processes 4", "more than one process can ask"),
    ),
)
