"""The failover section: SIGKILL the leader again and again, and see how long nobody's write is acknowledged.

    python bench/failover.py --kills 10 --rounds 2    raftkv with fast failover and without, in turn: A B A B

With fast failover a follower that sees the connection of its leader reset stands for election at once; without, it waits for its
election timeout of 1 to 2 s. Writes a JSON file with every single gap.
"""

import argparse
import bisect
import itertools
import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Callable, Sequence

from drivers.worker import Spec
from generator import answer, go, worker
from machine import machine
from processes import BenchError, Cluster
from raftkv_cluster import RaftkvKind
from speed import Driver, Row

RESULTS = Path(__file__).parent / "results" / "fast-failover.json"
WITH_AND_WITHOUT = (
    RaftkvKind("fast failover", ("--fast-failover",)),
    RaftkvKind("election timeout", ("--no-fast-failover",)),
)

WRITERS = 6
STEADY_SECONDS = 1.0  # of writing before each kill and after each return


def longest_gap(acknowledged: Sequence[float], begin: float, end: float) -> float:
    """The longest time without an acknowledgement that overlaps [begin, end]; inputs and result in seconds."""
    assert begin < end, "a window"
    first = bisect.bisect_left(acknowledged, begin)
    last = bisect.bisect_right(acknowledged, end)
    since = acknowledged[first - 1] if first else begin
    until = acknowledged[last] if last < len(acknowledged) else end
    times = [since, *acknowledged[first:last], until]
    return max(later - earlier for earlier, later in itertools.pairwise(times))


def run_failover(cluster: Cluster, driver: Driver, kills: int, note: Callable[[str], None]) -> Row:
    """Kill the leader `kills` times under a light write load; each dead member returns on its data before the next kill."""
    endpoints = [member.endpoint for member in cluster.members]
    spec = Spec(driver=driver.name, endpoints=endpoints, shape="failover", in_flight=WRITERS, keys=10_000)
    windows = []
    with worker(spec) as writing:
        for _ in range(kills):
            time.sleep(STEADY_SECONDS)
            leader = cluster.leader()
            begin = time.monotonic()
            cluster.stop([leader], signal.SIGKILL)
            cluster.leader()
            time.sleep(STEADY_SECONDS)
            windows.append((begin, time.monotonic()))
            cluster.start(leader)
            cluster.wait_ready()
        go(writing)
        acknowledged = answer(writing, 60.0)["acknowledged"]
    gaps_ms = [1e3 * longest_gap(acknowledged, begin, end) for begin, end in windows]
    note(f"{cluster.kind.name} failover gap: median {statistics.median(gaps_ms):.0f} ms, worst {max(gaps_ms):.0f} ms")
    return {
        "section": "failover",
        "system": cluster.kind.name,
        "driver": str(driver),
        "load": f"{kills} kills",
        "median_ms": statistics.median(gaps_ms),
        "worst_ms": max(gaps_ms),
        "gaps_ms": gaps_ms,
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """Between the two nearest ranks; of few values the high ones are close to the worst."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def compare(rounds: int, kills: int, note: Callable[[str], None]) -> dict[str, list[float]]:
    """All gaps in ms by name, measured in turn on fresh clusters."""
    gaps_ms: dict[str, list[float]] = {kind.name: [] for kind in WITH_AND_WITHOUT}
    for _ in range(rounds):
        for kind in WITH_AND_WITHOUT:
            with Cluster(kind) as cluster:
                gaps_ms[kind.name] += run_failover(cluster, Driver("raftkv"), kills, note)["gaps_ms"]
    return gaps_ms


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="in each round of each (default 10)")
    parser.add_argument("--rounds", type=int, default=2, help="of both in turn (default 2)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the JSON file")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    facts = machine()
    try:
        gaps_ms = compare(chosen.rounds, chosen.kills, lambda text: print(text, file=sys.stderr, flush=True))
    except BenchError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    facts["load_average_after"] = os.getloadavg()
    summary = {
        name: {
            "kills": len(values),
            "median_ms": statistics.median(values),
            "p99_ms": percentile(values, 99),
            "worst_ms": max(values),
        }
        for name, values in gaps_ms.items()
    }
    for name, figures in summary.items():
        print(f"{name}: " + ", ".join(f"{figure} {value:.0f}" for figure, value in figures.items()))
    report = {"machine": facts, "arguments": sys.argv[1:], "summary": summary, "gaps_ms": gaps_ms}
    chosen.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
