"""Starts load-generating processes on a cluster and turns what they report into figures.

The load is made in processes of their own, never in this one: the benchmark's bookkeeping must not slow the client down.
"""

import array
import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Iterator

from drivers.worker import Spec
from processes import BenchError, Cluster, Member, die_with_parent

WORKER = Path(__file__).parent / "drivers" / "worker.py"
_ANSWER_SECONDS_MAX = 30.0


@dataclass(slots=True)
class Figures:
    """One measurement. Times in ms; CPU in microseconds per operation."""

    ops_per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    operations: int
    errors: int
    refused: int
    leader_stall_ms: float  # the longest the leader's loop was held, warm-up included; 0 where the product does not say
    cpu_us_per_op: dict[str, float] = field(default_factory=dict)
    error_example: str = ""


def percentile(ordered: list[float], fraction: float) -> float:
    """The value below which `fraction` of the ordered values lie (nearest rank); 0 for none."""
    assert 0 <= fraction <= 1, "a fraction"
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))] if ordered else 0.0


@contextlib.contextmanager
def worker(spec: Spec) -> Iterator["subprocess.Popen[str]"]:
    """A worker that has connected and waits for its line; ended on leaving."""
    process = subprocess.Popen(
        [sys.executable, str(WORKER), json.dumps(asdict(spec))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise BenchError(f"driver {spec.driver} did not start on {', '.join(spec.endpoints)} (see above)")
        yield process
    finally:
        process.kill()
        process.communicate()


def go(process: "subprocess.Popen[str]") -> None:
    """Send a worker the line that it waits for."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def answer(process: "subprocess.Popen[str]", seconds_max: float) -> dict[str, Any]:
    """A worker's JSON line. Raises BenchError when it failed or takes longer than `seconds_max`."""
    try:
        output, _ = process.communicate(timeout=seconds_max)
    except subprocess.TimeoutExpired:
        raise BenchError(f"a load generator did not end within {seconds_max:.0f} s") from None
    if process.returncode != 0 or not output.strip():
        raise BenchError(f"a load generator ended with {process.returncode} (see above)")
    result: dict[str, Any] = json.loads(output)
    return result


def measure(cluster: Cluster, spec: Spec, processes: int = 1, seconds_max: float | None = None) -> Figures:
    """Run `spec` on the cluster's leader from `processes` processes that share its in-flight operations and rate."""
    leader = cluster.leader()
    followers = [member for member in cluster.running() if member is not leader]
    watched = [leader, *followers]
    processes = min(processes, spec.in_flight)
    limit = seconds_max if seconds_max is not None else spec.seconds + spec.warmup_seconds + _ANSWER_SECONDS_MAX
    with tempfile.TemporaryDirectory(prefix="bench-latencies-") as folder, contextlib.ExitStack() as stack:
        specs = []
        for i in range(processes):
            mine = replace(
                spec, latencies_path=f"{folder}/{i}", seed=spec.seed + i, per_second=spec.per_second / processes
            )
            mine.in_flight = spec.in_flight // processes + (i < spec.in_flight % processes)
            mine.count, mine.first = spec.count // processes, spec.first + i * (spec.count // processes)
            mine.watch_pids = [member.pid for member in watched] if i == 0 else []
            # The leader first: drivers that know nothing of leaders use the first endpoint.
            mine.endpoints = [member.endpoint for member in watched]
            specs.append(mine)
        workers = [stack.enter_context(worker(mine)) for mine in specs]
        cluster.kind.stall_ms(leader)
        for process in workers:
            go(process)
        results = [answer(process, limit) for process in workers]
        stall_ms = cluster.kind.stall_ms(leader)
        latencies = array.array("d")
        for mine in specs:
            latencies.frombytes(Path(mine.latencies_path).read_bytes())
    return _figures(results, latencies, spec, watched, stall_ms)


def _figures(
    results: list[dict[str, Any]],
    latencies: "array.array[float]",
    spec: Spec,
    watched: list[Member],
    stall_ms: float,
) -> Figures:
    operations = spec.count if spec.shape == "count" else len(latencies)
    errors = sum(result["errors"] for result in results)
    example = next((result["error_example"] for result in results if result["error_example"]), "")
    if operations == 0:
        raise BenchError(f"{spec.driver}: no {spec.op} succeeded, {errors} failed: {example}")
    ordered = sorted(latencies)
    cpu = {}
    if results[0]["cpu_seconds"]:
        per_member = [1e6 * seconds / operations for seconds in results[0]["cpu_seconds"]["watched"]]
        client_seconds = sum(result["cpu_seconds"].get("client", 0.0) for result in results)
        cpu = {"client": 1e6 * client_seconds / operations, "leader": per_member[0]}
        cpu["follower"] = sum(per_member[1:]) / max(1, len(watched) - 1)
    return Figures(
        ops_per_second=operations / max(result["seconds"] for result in results),
        p50_ms=1e3 * percentile(ordered, 0.5),
        p99_ms=1e3 * percentile(ordered, 0.99),
        p999_ms=1e3 * percentile(ordered, 0.999),
        max_ms=1e3 * (ordered[-1] if ordered else 0.0),
        operations=operations,
        errors=errors,
        leader_stall_ms=stall_ms,
        refused=sum(result["refused"] for result in results),
        cpu_us_per_op=cpu,
        error_example=example,
    )
