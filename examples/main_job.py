"""The main job, `make run`: three members as real processes, real data, and a leader that is killed in the middle.

It loads the standard library's sources through the client, kills the leader with SIGKILL, goes on, restarts the dead member,
and compares what every member holds with what was acknowledged. Exit code 1 when a single acknowledged write is missing,
damaged or applied twice. No process is left behind; with KEEP=1 (or --keep) the cluster stays up until Ctrl-C.
"""

import asyncio
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import raftkv
from raftkv.errors import RaftKVError
from raftkv_cli.local_cluster import Layout, LocalCluster, free_ports
from raftkv_cli.output import write_table
from raftkv_cli.signals import SignalInbox
from raftkv_cli.spec import Failed
from stdlib_job.checking import Verdict, check_member, wait_equal
from stdlib_job.dataset import load_parts
from stdlib_job.loading import Ledger, load

CLUSTER_NAME = "main-job"
LANES = 64
COUNTERS = 8
KILL_AFTER_FRACTION = 0.4
READY_SECONDS_MAX = 60.0
CLIENT_TIMEOUT_SECONDS = 30.0
FAULTS_SHOWN = 5


class Results(NamedTuple):
    """What the report is made of."""

    ledger: Ledger
    load_seconds: float
    killed: str
    gap_seconds: float
    catch_up_seconds: float
    verdicts: dict[str, Verdict]
    members: list[dict[str, Any]]

    @property
    def ok(self) -> bool:
        return all(verdict.ok for verdict in self.verdicts.values())


class Story:
    """Tells what happens, with the time since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._live = sys.stdout.isatty()

    def say(self, text: str) -> None:
        self._write(f"{time.monotonic() - self._began:7.2f} s  {text}\n")

    def progress(self, text: str) -> None:
        """A line that the next one replaces; only where somebody watches."""
        if self._live:
            self._write(f"{time.monotonic() - self._began:7.2f} s  {text}\r")

    def _write(self, text: str) -> None:
        sys.stdout.write(("\x1b[K" if self._live else "") + text)
        sys.stdout.flush()


async def run_job(cluster: LocalCluster, story: Story) -> Results:
    endpoints = ",".join(cluster.layout.endpoints)
    parts, file_count = load_parts()
    megabytes = sum(len(part.value) for part in parts) / 1e6
    story.say(f"data set: {file_count:,} source files, {megabytes:.1f} MB, {len(parts):,} keys")
    async with raftkv.connect(endpoints, cluster_name=CLUSTER_NAME, timeout=CLIENT_TIMEOUT_SECONDS) as client:
        ledger = Ledger()
        kill_now = asyncio.Event()

        def on_progress(acknowledged: int) -> None:
            story.progress(f"{acknowledged:,} of {len(parts):,} keys acknowledged")
            if acknowledged >= KILL_AFTER_FRACTION * len(parts):
                kill_now.set()

        began = time.monotonic()
        killing = asyncio.create_task(kill_leader(client, cluster, kill_now, story))
        try:
            story.say(f"loading with {LANES} writes in flight, and incrementing {COUNTERS} counters all the while")
            await load(client, parts, ledger, lanes=LANES, counters=COUNTERS, on_progress=on_progress)
            load_seconds = time.monotonic() - began
            killed, killed_at = await killing
        finally:
            killing.cancel()
        gap_seconds = ledger.longest_gap_seconds(killed_at)
        story.say(f"loaded; the longest silence after the kill was {gap_seconds * 1000:.0f} ms")
        cluster.start_member(killed)
        story.say(f"{killed} started again, pid {cluster.members[killed].pid}")
        members, catch_up_seconds = await wait_equal(client, list(cluster.members))
        story.say(f"{killed} caught up: all members are at index {members[0]['applied_index']:,}")
    verdicts = await verify(cluster, ledger, story)
    return Results(ledger, load_seconds, killed, gap_seconds, catch_up_seconds, verdicts, members)


async def kill_leader(
    client: raftkv.AsyncClient, cluster: LocalCluster, kill_now: asyncio.Event, story: Story
) -> tuple[str, float]:
    """Wait for the moment, then SIGKILL whoever leads; its name and when."""
    await kill_now.wait()
    name = await leader_name(client)
    pid = cluster.members[name].pid
    killed_at = time.monotonic()
    cluster.signal_member(name, signal.SIGKILL)
    story.say(f"{name}, the leader, killed with SIGKILL (pid {pid}) in the middle of the load")
    return name, killed_at


async def leader_name(client: raftkv.AsyncClient) -> str:
    while True:
        for member in await client.status():
            if member["role"] == "leader":
                return str(member["name"])
        await asyncio.sleep(0.05)


async def verify(cluster: LocalCluster, ledger: Ledger, story: Story) -> dict[str, Verdict]:
    """Each member as it is itself, then the cluster as a whole with linearizable reads."""
    verdicts: dict[str, Verdict] = {}
    places = [(place.name, place.client, True) for place in cluster.layout.places]
    for name, endpoints, stale in [*places, ("linearizable", ",".join(cluster.layout.endpoints), False)]:
        async with raftkv.connect(endpoints, cluster_name=CLUSTER_NAME, timeout=CLIENT_TIMEOUT_SECONDS) as client:
            verdicts[name] = await check_member(client, ledger, stale=stale)
        story.say(f"read everything back, {name}: {verdicts[name].verified:,} keys verified")
    return verdicts


def report(results: Results) -> None:
    ledger = results.ledger
    acknowledged = len(ledger.digests) + ledger.increments
    unknown = len(ledger.unknown_keys) + sum(counter.unknown for counter in ledger.counters)
    verdicts = results.verdicts.values()
    everywhere = min(verdict.verified for verdict in verdicts)
    rows = [
        ("writes acknowledged", f"{len(ledger.digests):,} keys and {ledger.increments:,} increments"),
        (
            "writes verified",
            f"{everywhere:,} keys by hash and version on every member, {len(ledger.counters)} counters",
        ),
        ("lost or damaged", sum(len(verdict.missing) + len(verdict.damaged) for verdict in verdicts)),
        ("applied twice", sum(len(verdict.twice) for verdict in verdicts)),
        ("outcome unknown", unknown),
        (
            "failover gap",
            f"{results.gap_seconds * 1000:.0f} ms without an acknowledgement after SIGKILL of {results.killed}",
        ),
        ("catching up", f"{results.catch_up_seconds * 1000:.0f} ms from the restart of {results.killed}"),
        (
            "throughput",
            f"{acknowledged / results.load_seconds:,.0f} writes/s, "
            f"{ledger.bytes_written / 1e6 / results.load_seconds:.1f} MB/s, the failover included",
        ),
    ]
    print()
    write_table(("what happened", ""), rows)
    print()
    fields = ("name", "endpoint", "role", "term", "applied_index", "revision", "db_size_bytes")
    write_table(fields, [[member.get(field, "-") for field in fields] for member in results.members])
    print()
    for name, verdict in results.verdicts.items():
        for kind, faults in (
            ("missing", verdict.missing),
            ("damaged", verdict.damaged),
            ("applied twice", verdict.twice),
        ):
            for fault in faults[:FAULTS_SHOWN]:
                print(f"{kind} on {name}: {fault}")
    print("OK: every acknowledged write is on every member, once." if results.ok else "FAILED")


def keep_up(cluster: LocalCluster) -> None:
    """Leave the cluster to the user until Ctrl-C."""
    with SignalInbox([signal.SIGINT, signal.SIGTERM]) as inbox:
        invite(cluster)
        while not inbox.wait(60.0):
            pass
    print("\nending the members")


def invite(cluster: LocalCluster) -> None:
    raftkv_script = Path(sys.executable).with_name("raftkv")
    command = str(raftkv_script) if raftkv_script.exists() else f"{sys.executable} -m raftkv_cli"
    pids = " ".join(f"{name}={member.pid}" for name, member in cluster.members.items())
    print(f"\nThe cluster stays up until Ctrl-C (pids {pids}). In another terminal:\n")
    print(f"  export RAFTKV_ENDPOINTS={','.join(cluster.layout.endpoints)}")
    for words in ("status", "get stdlib/this.py", "get stdlib/json/ --prefix --keys-only", "bench put --in-flight 128"):
        print(f"  {command} {words}")
    print(f"  kill -9 {cluster.members['n1'].pid}; {command} put still here\n", flush=True)


def main(argv: list[str]) -> int:
    keep = "--keep" in argv or os.environ.get("KEEP", "") not in ("", "0")
    signal.signal(signal.SIGTERM, interrupt)
    story = Story()
    print(f"raftkv on Python {platform.python_version()}, {os.cpu_count()} cores: load, kill the leader, verify\n")
    try:
        with tempfile.TemporaryDirectory(prefix="raftkv-run-", ignore_cleanup_errors=True) as directory:
            layout = Layout(Path(directory), CLUSTER_NAME, free_ports(3))
            with LocalCluster(layout) as cluster:
                return run_on(cluster, story, keep)
    except KeyboardInterrupt:
        print("\ninterrupted; every member was ended", file=sys.stderr)
        return 130
    except (Failed, RaftKVError, TimeoutError, OSError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1


def run_on(cluster: LocalCluster, story: Story, keep: bool) -> int:
    story.say(f"starting three members in {cluster.layout.directory}")
    cluster.start()
    if not cluster.wait_ready(READY_SECONDS_MAX):
        show_logs(cluster)
        raise Failed("the cluster did not become ready")
    for member in cluster.members.values():
        place = member.place
        story.say(f"{place.name} pid={member.pid} client={place.client} peer={place.peer}")
    try:
        results = asyncio.run(run_job(cluster, story))
    except (RaftKVError, TimeoutError):
        show_logs(cluster)
        raise
    report(results)
    if keep:
        keep_up(cluster)
    return 0 if results.ok else 1


def show_logs(cluster: LocalCluster) -> None:
    """The directory goes when the job ends: what the members said last must be seen before."""
    for name, member in cluster.members.items():
        print(f"\nlog of {name}:", file=sys.stderr)
        for line in member.log_tail():
            print(f"  {line}", file=sys.stderr)


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the job as Ctrl-C does, through every `finally`."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
