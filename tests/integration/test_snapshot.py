"""A follower that is further behind than the log reaches comes back by snapshot, while the leader keeps serving."""

import time

import pytest

from raftkv.wire import protocol

from .conftest import StartCluster
from .harness.cluster import SMALL_LOG, Cluster
from .harness.ledger import Ledger, check_everywhere
from .harness.node import Node
from .harness.waiting import wait_until
from .harness.workload import LibraryWorkload, gap_s

pytestmark = pytest.mark.integration

BULK_VALUE_BYTES = 16 * 1024
BULK_KEYS = 200


def write_bulk(node: Node, prefix: bytes) -> None:
    """Enough to push the log far past its tiny bounds."""
    with node.connect(timeout_s=20) as connection:
        for number in range(BULK_KEYS):
            connection.put(b"%s/%d" % (prefix, number), b"%d" % number * (BULK_VALUE_BYTES // 4))


def came_back_by_snapshot(node: Node) -> bool:
    """Whether a member has installed a snapshot since it started."""
    return "installed a snapshot" in node.daemon.log_text()


@pytest.fixture
def small(make_cluster: StartCluster) -> Cluster:
    """Three members whose log reaches back only a few entries."""
    return make_cluster(environment=SMALL_LOG).start()


def test_follower_returns_by_snapshot_while_the_leader_serves(small: Cluster) -> None:
    """Down while the log was compacted, then brought up to date and equal, without a pause for the writers."""
    leader = small.leader()
    follower = small.others(leader)[0]
    follower.kill()
    write_bulk(leader, b"bulk")
    leader.wait_compacted()
    with LibraryWorkload(small.endpoints, writers=3) as workload:
        workload.wait_acknowledged(200)
        started_at_s = time.monotonic()
        follower.start()
        follower.wait_ready()
        workload.wait_acknowledged(100)
        assert gap_s(workload, started_at_s) < 1.0
        ledger = workload.stop()
    assert small.leader() is leader
    check_everywhere(small, ledger)
    assert came_back_by_snapshot(follower)


def test_receiver_killed_in_the_middle_of_a_snapshot(small: Cluster) -> None:
    """Half a snapshot on disk is no state: the next start begins anew and ends equal."""
    leader = small.leader()
    follower = small.others(leader)[0]
    for _ in range(3):
        follower.kill()
        write_bulk(leader, b"bulk")
        follower.start()
        wait_until(lambda: follower.http_get("/livez")[0] == 200, "the follower to live")
    follower.kill()
    follower.start()
    follower.wait_ready()
    check_everywhere(small, Ledger())


def test_sender_killed_in_the_middle_of_a_snapshot(small: Cluster) -> None:
    """The next leader finishes what the first began."""
    leader = small.leader()
    follower = small.others(leader)[0]
    follower.kill()
    write_bulk(leader, b"bulk")
    follower.start()
    wait_until(lambda: follower.http_get("/livez")[0] == 200, "the follower to live")
    leader.kill()
    leader.start()
    small.wait_ready()
    with small.leader().connect() as connection:
        connection.put(b"after", b"x")
    check_everywhere(small, Ledger())


def test_restart_after_a_snapshot_and_after_compaction(small: Cluster) -> None:
    """All members, the one that got a snapshot included, come back from snapshot plus log."""
    leader = small.leader()
    follower = small.others(leader)[0]
    follower.kill()
    write_bulk(leader, b"bulk")
    follower.start()
    small.wait_ready()
    for node in small.nodes:
        node.kill()
    small.start()
    write_bulk(small.leader(), b"more")
    check_everywhere(small, Ledger())
    with small.leader().connect() as connection:
        found = {bytes(items[0]) for items in connection.dump(serializable=False)}
    assert {b"%s/%d" % (prefix, number) for prefix in (b"bulk", b"more") for number in range(BULK_KEYS)} <= found


def test_disk_of_the_log_stays_bounded(small: Cluster) -> None:
    """The WAL of every leader shrinks while it leads; several, because what drives compaction has a phase in each office."""
    for turn in range(6):
        leader = small.leader()
        write_bulk(leader, b"turn")
        leader.wait_compacted()
        with leader.connect(timeout_s=10) as connection:
            connection.call([protocol.MOVE_LEADER, small.others(leader)[turn % 2].name])
