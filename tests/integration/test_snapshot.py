"""A follower that is further behind than the log reaches comes back by snapshot, while the leader keeps serving."""

import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

import raftkv
from raftkv.limits import MIB
from raftkv.wire import protocol

from .conftest import StartCluster
from .harness.cluster import SMALL_LOG, Cluster, Place
from .harness.ledger import Ledger, check_everywhere
from .harness.node import Node
from .harness.ports import PortReservations
from .harness.proxy import LossyProxy
from .harness.waiting import holds_for, wait_until
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


# A snapshot of a few megabytes takes seconds, so that a test finds it under way.
SLOW_SNAPSHOTS = {
    **SMALL_LOG,
    "RAFTKV_SNAPSHOT_BYTES_PER_SECOND_MAX": "1MiB",
    "RAFTKV_LIMITS_SNAPSHOT_CHUNK_BYTES": str(64 * 1024),
}
WINDOW_BYTES = 4 * 64 * 1024  # what is on its way when a connection breaks


@dataclass
class Late:
    """A follower that is far behind, and reached through a proxy; `proxy` is None while the way is cut."""

    cluster: Cluster
    leader: Node
    follower: Node
    peer_endpoint: str
    proxy_port: int
    proxy: LossyProxy | None = None
    sent_before_bytes: int = 0  # an attempt before the follower lived

    def connect(self) -> None:
        self.proxy = LossyProxy(self.peer_endpoint, self.proxy_port)

    def cut(self) -> None:
        if self.proxy is not None:
            self.proxy.close()
            self.proxy = None

    def sent_bytes(self) -> int:
        return figure(self.leader, "raftkv_snapshot_sent_bytes_total") - self.sent_before_bytes

    def size_bytes(self) -> int:
        """Of the one snapshot that it needs, as the leader's log says: one that was made before there was a way to it was for nobody."""
        _, _, since = self.leader.daemon.log_text().partition(f"connected to peer 127.0.0.1:{self.proxy_port}\n")
        made = re.findall(r"made a snapshot at index (\d+), (\d+) bytes", since)
        assert len(made) == 1, f"one snapshot is enough: {made}"
        index, size_bytes = map(int, made[0])
        assert index > BULK_KEYS, "it was taken behind the bulk"
        return size_bytes

    def wait_sent(self, share: float) -> None:
        """The transfer has got so far."""
        wait_until(lambda: self.sent_bytes() > 0, "a snapshot to be sent", deadline_s=20)
        goal = share * self.size_bytes()
        wait_until(lambda: self.sent_bytes() >= goal, "the transfer to get on", deadline_s=20, seen=self.sent_bytes)

    def wait_installed(self) -> None:
        wait_until(lambda: came_back_by_snapshot(self.follower), "the snapshot to be installed", deadline_s=40)
        self.follower.wait_ready()


def figure(node: Node, name: str) -> int:
    """One number without labels out of /metrics."""
    found = re.search(rf"^{name} (\S+)$", node.http_get("/metrics")[1], flags=re.MULTILINE)
    assert found, f"{name} is not in /metrics"
    return int(float(found[1]))


@pytest.fixture
def late(make_cluster: StartCluster) -> Iterator[Late]:
    """n3 was away while the log was compacted, and is back behind a proxy."""
    with closing(PortReservations()) as ports:
        real, port = f"127.0.0.1:{ports.take()}", ports.take()
        places = [Place(f"127.0.0.1:{ports.take()}", f"127.0.0.1:{ports.take()}") for _ in range(2)]
        places.append(Place(f"127.0.0.1:{ports.take()}", f"127.0.0.1:{port}"))
        cluster = make_cluster(environment=SLOW_SNAPSHOTS, places=places)
        follower = cluster["n3"]
        follower.flags["listen_peer"] = real
        for node in cluster.others(follower):
            node.start()
        cluster.wait_ready()
        leader = cluster.leader(cluster.others(follower))
        write_bulk(leader, b"bulk")
        with raftkv.Client(leader.client_endpoint) as kv:
            kv.backup(lambda data: None)  # so that all of it is in the store, and with that in the next snapshot
        leader.wait_compacted()
        late = Late(cluster, leader, follower, real, port)
        late.sent_before_bytes = late.sent_bytes()
        late.connect()
        follower.start()
        yield late
        late.cut()


def test_a_transfer_outlives_broken_connections(late: Late) -> None:
    """Reset in the middle, then away for longer than an election timeout: the bytes that had arrived are not sent again."""
    late.wait_sent(0.3)
    assert late.proxy is not None
    late.proxy.reset()
    late.wait_sent(0.6)
    late.cut()
    sent_bytes = late.sent_bytes()
    # Longer than the election timeout: the leader takes the follower for gone.
    holds_for(lambda: late.sent_bytes() <= sent_bytes + 2 * WINDOW_BYTES, "nothing to be sent", seconds=2)
    late.connect()
    late.wait_installed()
    size_bytes = late.size_bytes()
    assert size_bytes > 8 * WINDOW_BYTES, "large enough to tell"
    assert size_bytes <= late.sent_bytes() <= size_bytes + 4 * WINDOW_BYTES
    check_everywhere(late.cluster, Ledger())


def test_a_transfer_outlives_the_receiver(late: Late) -> None:
    """kill -9 in the middle: the next process goes on with what the first has received."""
    late.wait_sent(0.6)
    late.follower.kill()
    late.follower.start()
    late.wait_installed()
    size_bytes = late.size_bytes()
    assert size_bytes > 8 * WINDOW_BYTES, "large enough to tell"
    assert size_bytes <= late.sent_bytes() <= size_bytes + 4 * WINDOW_BYTES
    assert figure(late.follower, "raftkv_snapshot_received_bytes_total") < size_bytes
    check_everywhere(late.cluster, Ledger())


def test_a_transfer_keeps_to_its_budget(late: Late) -> None:
    """1 MiB in a second; what a loop that was late may add is a tick's worth."""
    late.wait_sent(0.1)
    started_s, sent_bytes = time.monotonic(), late.sent_bytes()
    late.wait_sent(0.8)
    elapsed_s = time.monotonic() - started_s
    # A scrape counts a chunk or two before or behind the moment that the clock was read.
    assert late.sent_bytes() - sent_bytes <= elapsed_s * MIB + 4 * WINDOW_BYTES
    late.wait_installed()


def test_two_followers_are_served_at_once(make_cluster: StartCluster) -> None:
    """One copy of the store serves both, neither waits for the other, and the writers of the remaining three do not notice."""
    cluster = make_cluster(size=5, environment=SLOW_SNAPSHOTS).start()
    leader = cluster.leader()
    away = cluster.others(leader)[:2]
    for node in away:
        node.kill()
    write_bulk(leader, b"bulk")
    leader.wait_compacted()
    with LibraryWorkload(cluster.endpoints, writers=3) as workload:
        workload.wait_acknowledged(100)
        started_at_s = time.monotonic()
        for node in away:
            node.start()

        def received() -> list[int]:
            return [figure(node, "raftkv_snapshot_received_bytes_total") for node in away]

        wait_until(lambda: all(node.http_get("/livez")[0] == 200 for node in away), "the two to live")
        wait_until(lambda: min(received()) > 0, "both to receive", seen=received)
        assert not any(came_back_by_snapshot(node) for node in away), "at the same time"
        wait_until(lambda: all(map(came_back_by_snapshot, away)), "both to be installed", deadline_s=40, seen=received)
        cluster.wait_ready()
        assert gap_s(workload, started_at_s) < 1.0
        ledger = workload.stop()
    installed = {re.findall(r"installed a snapshot at index (\d+)", node.daemon.log_text())[0] for node in away}
    assert len(installed) == 1, "of one copy"
    check_everywhere(cluster, ledger)


def test_a_follower_within_the_bound_is_served_from_the_log(make_cluster: StartCluster) -> None:
    """The log is kept for who is behind, up to `log_retained_*` and (see above) not beyond it: no snapshot is made for little."""
    retained = {**SMALL_LOG, "RAFTKV_LIMITS_LOG_RETAINED_BYTES_MAX": str(16 * MIB)}
    retained["RAFTKV_LIMITS_LOG_RETAINED_ENTRIES_MAX"] = "10000"
    cluster = make_cluster(environment=retained).start()
    leader = cluster.leader()
    follower = cluster.others(leader)[0]
    follower.kill()
    write_bulk(leader, b"bulk")
    follower.start()
    follower.wait_ready()
    check_everywhere(cluster, Ledger())
    assert figure(leader, "raftkv_snapshots_made_total") == 0
    assert not came_back_by_snapshot(follower)


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
