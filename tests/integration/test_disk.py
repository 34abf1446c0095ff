"""Disks that are full, slow or broken: a clear word, a cluster that goes on, and never a lie about durability."""

import os
import random
import time
from pathlib import Path

import pytest

from raftkv.errors import DeadlineExceeded, LeadershipLost, NoSpace, RaftKVError
from raftkv.store.keyspace import HEAD, TableChange
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.wire import commands

from .conftest import StartCluster
from .harness.cluster import Cluster
from .harness.disk import DiskFaultUnavailable, SmallDisk, SyncFault
from .harness.ledger import UNKNOWN, check_everywhere
from .harness.node import Node
from .harness.waiting import holds_for, wait_until
from .harness.workload import LibraryWorkload

pytestmark = pytest.mark.integration

SMALL_DISK_BYTES = 48 * 1024 * 1024
SMALL_SEGMENTS = {"RAFTKV_LIMITS_WAL_SEGMENT_BYTES": str(2 * 1024 * 1024), "RAFTKV_LIMITS_COMMIT_INTERVAL_MS": "100"}
VALUE = b"v" * 32 * 1024


def put_on_small_disk(cluster: Cluster, node: Node) -> SmallDisk:
    """Moves the data directory of a node that is not started onto a small disk."""
    try:
        disk = SmallDisk(cluster.directory / f"{node.name}-disk", SMALL_DISK_BYTES)
    except DiskFaultUnavailable as error:
        pytest.skip(f"no small disk: {error}")
    cluster.at_close(disk.unmount)
    node.data_directory = disk.path / "data"
    return disk


def inject(node: Node, injection: str, cluster: Cluster) -> SyncFault:
    try:
        return SyncFault(node.daemon, injection, cluster.directory)
    except DiskFaultUnavailable as error:
        pytest.skip(f"no sync fault: {error}")


def put_until_refused(node: Node) -> RaftKVError:
    """The first refusal of a stream of puts, enough to fill what a log had preallocated.

    The write that finds the disk full was taken already: it can only end with its deadline, honestly.
    """
    with node.connect(timeout_s=15) as connection:
        for number in range(2_000):
            put = [commands.PUT, 0, b"fill/%d" % (number % 20), VALUE, 0, 0]
            outcome = connection.outcome(put, timeout_ms=1_000)
            if isinstance(outcome, RaftKVError):
                if not outcome.may_have_happened:
                    return outcome
                assert isinstance(outcome, DeadlineExceeded | LeadershipLost), outcome
    raise AssertionError("a full disk took 64 MB")


def test_single_member_with_a_full_disk(make_cluster: StartCluster) -> None:
    """Writes are refused by name, reads go on, and writes come back with the space."""
    cluster = make_cluster(size=1, environment=SMALL_SEGMENTS)
    node = cluster.nodes[0]
    disk = put_on_small_disk(cluster, node)
    cluster.start()
    with node.connect() as connection:
        connection.put(b"kept", b"1")
    disk.fill()
    error = put_until_refused(node)
    assert isinstance(error, NoSpace), error
    assert node.running
    with node.connect() as connection:
        assert connection.get(b"kept") == b"1", "reads go on"
    disk.free()

    def writes_again() -> bool:
        with node.connect(timeout_s=15) as connection:
            return not isinstance(connection.outcome([commands.PUT, 0, b"after", b"2", 0, 0]), RaftKVError)

    wait_until(writes_again, "writes to be taken again")
    node.kill()
    cluster.start()
    with node.connect() as connection:
        assert connection.get(b"kept") == b"1"
        assert connection.get(b"after") == b"2"


def test_leader_with_a_full_disk_hands_over(make_cluster: StartCluster) -> None:
    """The other two have room: leadership goes to one of them, and nothing is lost."""
    cluster = make_cluster(environment=SMALL_SEGMENTS)
    disks = {node.name: put_on_small_disk(cluster, node) for node in cluster.nodes}
    cluster.start()
    leader = cluster.leader()
    with LibraryWorkload(cluster.endpoints, writers=3) as workload:
        workload.wait_acknowledged(100)
        disks[leader.name].fill()
        put_until_refused(leader)
        successor = wait_until(
            lambda: next((node for node in [cluster.current_leader()] if node not in (None, leader)), None),
            "another leader",
            seen=cluster.statuses,
        )
        workload.wait_acknowledged(100)
        assert cluster.current_leader() is successor
        disks[leader.name].free()
        workload.wait_acknowledged(100)
        ledger = workload.stop()
    if not leader.running:
        leader.start()
    leader.wait_ready()
    assert ledger.count(UNKNOWN) == 0, ledger.errors
    check_everywhere(cluster, ledger)


def test_follower_with_a_full_disk_and_back(make_cluster: StartCluster) -> None:
    """The majority goes on; the follower is equal again once it has room."""
    cluster = make_cluster(environment=SMALL_SEGMENTS)
    disks = {node.name: put_on_small_disk(cluster, node) for node in cluster.nodes}
    cluster.start()
    leader = cluster.leader()
    follower = cluster.others(leader)[0]
    disks[follower.name].fill()
    with leader.connect(timeout_s=15) as connection:
        for number in range(300):
            connection.put(b"fill/%d" % (number % 20), VALUE)
    assert cluster.leader() is leader
    disks[follower.name].free()
    with LibraryWorkload(cluster.endpoints, writers=2) as workload:
        workload.wait_acknowledged(100)
        ledger = workload.stop()
    if not follower.running:
        follower.start()
    follower.wait_ready()
    check_everywhere(cluster, ledger)


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_failing_sync_ends_the_member_with_a_clear_line(cluster: Cluster, role: str) -> None:
    """After a failed fdatasync the page cache may lie: no retry, the process ends, the others go on."""
    with LibraryWorkload(cluster.endpoints) as workload:
        workload.wait_acknowledged(100)
        leader = cluster.leader()
        victim = leader if role == "leader" else cluster.others(leader)[0]
        with inject(victim, "error=EIO", cluster):
            assert victim.daemon.wait_exit(15) == 1
        words = victim.daemon.log_text().strip().splitlines()[-1]
        assert "Traceback" not in victim.daemon.log_text()
        assert str(victim.data_directory) in words, words
        assert "Input/output error" in words, words
        workload.wait_acknowledged(200)
        victim.start()
        victim.wait_ready()
        ledger = workload.stop()
    assert ledger.count(UNKNOWN) == 0, ledger.errors
    check_everywhere(cluster, ledger)


def test_slow_sync_of_the_leader_causes_no_election(cluster: Cluster) -> None:
    """Heartbeats do not wait for the disk: 600 ms per sync is slow, and no dead leader."""
    leader = cluster.leader()
    term = cluster.statuses()[leader.name]["term"]
    with LibraryWorkload(cluster.endpoints, writers=2) as workload:
        workload.wait_acknowledged(50)
        with inject(leader, "delay_enter=600000", cluster):
            # Three times the longest election timeout.
            holds_for(
                lambda: all(status["term"] == term for status in cluster.statuses().values()),
                "the leader's term",
                seconds=4,
            )
        workload.wait_acknowledged(50)
        ledger = workload.stop()
    assert cluster.leader() is leader
    check_everywhere(cluster, ledger)


def test_slow_sync_of_a_follower_slows_nobody_down(cluster: Cluster) -> None:
    """The quorum is the leader and the other follower."""
    leader = cluster.leader()
    follower = cluster.others(leader)[0]
    with LibraryWorkload(cluster.endpoints, writers=2) as workload:
        with inject(follower, "delay_enter=500000", cluster):
            workload.wait_acknowledged(50)
            started_s = time.monotonic()
            workload.wait_acknowledged(200)
            assert time.monotonic() - started_s < 25.0, "each after the other by two writers, behind its disk: 50 s"
        ledger = workload.stop()
    assert cluster.leader() is leader
    check_everywhere(cluster, ledger)


def commit_until_full(keyspace: LmdbKeyspace, source: random.Random) -> None:
    for number in range(10_000):
        values = [source.randbytes(source.randint(100, 60_000)) for _ in range(source.randint(1, 30))]
        items = [(b"%d-%d" % (number, position), value) for position, value in enumerate(values)]
        keyspace.commit([TableChange(HEAD, items)])


def test_a_store_that_fills_its_disk_says_so_however_the_write_was_cut(tmp_path: Path) -> None:
    """LMDB calls a write of which a part fitted an I/O error; taken for one, it ended the member nine times out of ten."""
    try:
        disk = SmallDisk(tmp_path / "disk", 8 * 1024 * 1024)
    except DiskFaultUnavailable as error:
        pytest.skip(f"no small disk: {error}")
    source = random.Random(7)
    try:
        for turn in range(10):
            keyspace = LmdbKeyspace(str(disk.path / f"store{turn}"), 1 << 30)
            with pytest.raises(NoSpace):
                commit_until_full(keyspace, source)
            keyspace.renew()
            assert keyspace.get(HEAD, b"0-0") is not None
            keyspace.close()
            os.unlink(disk.path / f"store{turn}")
    finally:
        disk.unmount()
