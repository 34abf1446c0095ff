"""The sections about what a cluster costs at rest: memory empty and full, idle CPU, start-up time with data."""

import signal
import statistics
import time
from typing import Any, Callable, Iterator

from drivers.worker import Spec
from generator import measure
from processes import Cluster
from speed import Driver, Row

SETTLE_SECONDS = 5.0
IDLE_SECONDS = 10.0
LOAD_IN_FLIGHT = 256
SMALL_KEY_BYTES = 16
SMALL_VALUE_BYTES = 16
STARTS = 3


def run_memory(
    cluster: Cluster, driver: Driver, keys: int, startup: bool, note: Callable[[str], None]
) -> Iterator[Row]:
    """Memory per member empty and with `keys` small keys, disk space; then, if asked for, start-up times on that data."""
    row: dict[str, Any] = {"system": cluster.kind.name, "driver": str(driver)}
    time.sleep(SETTLE_SECONDS)
    yield {"section": "memory", **row, "load": "empty", "members": _memory(cluster)}
    spec = Spec(
        driver=driver.name,
        endpoints=[],
        shape="count",
        in_flight=LOAD_IN_FLIGHT,
        count=keys,
        key_bytes=SMALL_KEY_BYTES,
        value_bytes=SMALL_VALUE_BYTES,
    )
    loaded = measure(cluster, spec, driver.processes, seconds_max=60.0 + keys / 500)
    note(f"{cluster.kind.name}: loaded {keys} keys, {loaded.ops_per_second:.0f}/s")
    time.sleep(SETTLE_SECONDS)
    members = _memory(cluster)
    disk = cluster.disk_bytes()
    note(
        f"{cluster.kind.name} memory with {keys} keys: " + ", ".join(f"{m['rss'] >> 20} MiB" for m in members.values())
    )
    yield {"section": "memory", **row, "load": f"{keys} keys", "members": members, "disk_bytes": disk}
    if startup:
        yield _startup(cluster, keys, note)


def _memory(cluster: Cluster) -> dict[str, dict[str, int]]:
    leader = cluster.leader()
    return {
        f"{member.name} ({'leader' if member is leader else 'follower'})": member.memory_bytes()
        for member in cluster.running()
    }


def _startup(cluster: Cluster, keys: int, note: Callable[[str], None]) -> Row:
    """From exec to ready: one follower that returns to a running cluster, and all three at once (which includes an election).

    The page cache is warm: this is a restart, not a reboot.
    """
    one_seconds, all_seconds = [], []
    for _ in range(STARTS):
        follower = cluster.followers()[0]
        cluster.stop([follower], signal.SIGTERM)
        cluster.start(follower)
        one_seconds.append(cluster.wait_ready([follower]))
    for _ in range(STARTS):
        cluster.stop(cluster.members, signal.SIGTERM)
        for member in cluster.members:
            cluster.start(member)
        all_seconds.append(cluster.wait_ready())
    row = {
        "section": "startup",
        "system": cluster.kind.name,
        "load": f"{keys} keys",
        "one_member_seconds": statistics.median(one_seconds),
        "whole_cluster_seconds": statistics.median(all_seconds),
        "all": {"one_member": one_seconds, "whole_cluster": all_seconds},
    }
    note(
        f"{cluster.kind.name} start-up: one {row['one_member_seconds']:.2f} s, all {row['whole_cluster_seconds']:.2f} s"
    )
    return row


def run_idle(cluster: Cluster, note: Callable[[str], None]) -> Row:
    """CPU of the three members with no client at all, in percent of one core."""
    time.sleep(SETTLE_SECONDS)
    before = {member.name: member.cpu_seconds() for member in cluster.members}
    started = time.monotonic()
    time.sleep(IDLE_SECONDS)
    elapsed = time.monotonic() - started
    percent = {m.name: 100 * (m.cpu_seconds() - before[m.name]) / elapsed for m in cluster.members}
    note(f"{cluster.kind.name} idle CPU: {sum(percent.values()):.2f} % of a core for all three")
    return {
        "section": "idle",
        "system": cluster.kind.name,
        "load": "no client",
        "percent_total": sum(percent.values()),
        "percent": percent,
    }
