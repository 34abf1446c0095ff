"""The sections about what a cluster costs at rest: memory empty and full, idle CPU, start-up time with data."""

import signal
import statistics
import time
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Load:
    """So many small keys, so many versions of each. Written KEYS or KEYSxVERSIONS."""

    keys: int
    versions: int = 1

    @classmethod
    def parse(cls, text: str) -> "Load":
        keys, _, versions = text.partition("x")
        return cls(int(keys), int(versions or 1))

    def __str__(self) -> str:
        return f"{self.keys} keys" if self.versions == 1 else f"{self.versions} revisions of {self.keys} keys"


def run_memory(
    cluster: Cluster, driver: Driver, load: Load, startup: bool, note: Callable[[str], None]
) -> Iterator[Row]:
    """Memory per member empty and full, disk space; then, if asked for, start-up times on that data."""
    row: dict[str, Any] = {"system": cluster.kind.name, "driver": str(driver)}
    time.sleep(SETTLE_SECONDS)
    yield {"section": "memory", **row, "load": "empty", "members": _memory(cluster)}
    puts = load.keys * load.versions
    leader = cluster.leader()
    cpu_seconds = leader.cpu_seconds()
    spec = Spec(
        driver=driver.name,
        endpoints=[],
        shape="count",
        in_flight=LOAD_IN_FLIGHT,
        count=puts,
        distinct_keys=load.keys,
        key_bytes=SMALL_KEY_BYTES,
        value_bytes=SMALL_VALUE_BYTES,
    )
    loaded = measure(cluster, spec, driver.processes, seconds_max=60.0 + puts / 500)
    cpu_us = 1e6 * (leader.cpu_seconds() - cpu_seconds) / puts
    held = f", loop held {loaded.leader_stall_ms:.0f} ms" if loaded.leader_stall_ms else ""
    note(f"{cluster.kind.name}: loaded {load}, {loaded.ops_per_second:.0f}/s, leader {cpu_us:.1f} us per put{held}")
    time.sleep(SETTLE_SECONDS)
    members = _memory(cluster)
    disk = cluster.disk_bytes()
    note(f"{cluster.kind.name} memory with {load}: " + ", ".join(f"{m['rss'] >> 20} MiB" for m in members.values()))
    figures = {
        "loaded_per_second": loaded.ops_per_second,
        "leader_cpu_us_per_put": cpu_us,
        "leader_stall_ms": loaded.leader_stall_ms,
    }
    yield {"section": "memory", **row, "load": str(load), "members": members, "disk_bytes": disk, **figures}
    if startup:
        yield _startup(cluster, load, note)


def _memory(cluster: Cluster) -> dict[str, dict[str, int]]:
    leader = cluster.leader()
    return {
        f"{member.name} ({'leader' if member is leader else 'follower'})": member.memory_bytes()
        for member in cluster.running()
    }


def _startup(cluster: Cluster, load: Load, note: Callable[[str], None]) -> Row:
    """From exec to ready: a follower that returns to a running cluster, asked to stop or killed before; and all three at once
    (which includes an election).

    The page cache is warm: this is a restart, not a reboot.
    """
    after: dict[signal.Signals, list[float]] = {signal.SIGTERM: [], signal.SIGKILL: []}
    all_seconds = []
    for number, one_seconds in after.items():
        for _ in range(STARTS):
            follower = cluster.followers()[0]
            cluster.stop([follower], number)
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
        "load": str(load),
        "one_member_seconds": statistics.median(after[signal.SIGTERM]),
        "one_killed_member_seconds": statistics.median(after[signal.SIGKILL]),
        "whole_cluster_seconds": statistics.median(all_seconds),
        "all": {
            "one_member": after[signal.SIGTERM],
            "one_killed_member": after[signal.SIGKILL],
            "whole_cluster": all_seconds,
        },
    }
    note(
        f"{cluster.kind.name} start-up: one {row['one_member_seconds']:.2f} s, one killed {row['one_killed_member_seconds']:.2f} s, "
        f"all {row['whole_cluster_seconds']:.2f} s"
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
