"""The failover section: SIGKILL the leader again and again, and see how long nobody's write is acknowledged."""

import bisect
import itertools
import signal
import statistics
import time
from typing import Callable, Sequence

from drivers.worker import Spec
from generator import answer, go, worker
from processes import Cluster
from speed import Driver, Row

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
