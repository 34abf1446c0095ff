"""Signals: SIGTERM hands leadership over, a second one ends at once, SIGUSR2 changes how much is logged."""

import re
import signal
import time

import pytest

from raftkv.wire import commands, protocol

from .conftest import StartCluster
from .harness.cluster import Cluster
from .harness.ledger import UNKNOWN, check_everywhere
from .harness.native import ConnectionEnded
from .harness.node import Node
from .harness.waiting import wait_until
from .harness.workload import LibraryWorkload, gap_s

pytestmark = pytest.mark.integration

EXIT_MAX_S = 5.0
# etcd needs 0.11 to 0.23 s. An election by timeout would take at least 1 s: below that, leadership was handed over.
HANDOVER_GAP_MAX_S = 0.9
LOG_LEVEL_LINE = re.compile(r"log level\W+(?:is |now |set to )*(\w+)", re.IGNORECASE)


def test_sigterm_of_the_leader_hands_leadership_over(cluster: Cluster) -> None:
    """Exit code 0 within the grace period, no election timeout for the clients, nothing lost."""
    with LibraryWorkload(cluster.endpoints) as workload:
        workload.wait_acknowledged(200)
        leader = cluster.leader()
        term = cluster.statuses()[leader.name]["term"]
        terminated_at_s = time.monotonic()
        assert leader.terminate(EXIT_MAX_S) == 0
        workload.wait_acknowledged(200)
        gap = gap_s(workload, terminated_at_s)
        ledger = workload.stop()
    assert gap < HANDOVER_GAP_MAX_S, f"{gap:.2f} s without an acknowledged write"
    assert ledger.count(UNKNOWN) == 0, ledger.errors
    successor = cluster.leader()
    assert successor is not leader
    assert cluster.statuses()[successor.name]["term"] == term + 1, "one transfer is one election"
    check_everywhere(cluster, ledger)


def test_sigterm_of_a_follower_costs_nothing(cluster: Cluster) -> None:
    """Exit code 0 and no gap."""
    with LibraryWorkload(cluster.endpoints) as workload:
        workload.wait_acknowledged(100)
        follower = cluster.followers()[0]
        terminated_at_s = time.monotonic()
        assert follower.terminate(EXIT_MAX_S) == 0
        workload.wait_acknowledged(100)
        assert gap_s(workload, terminated_at_s) < HANDOVER_GAP_MAX_S
        ledger = workload.stop()
    check_everywhere(cluster, ledger)


@pytest.mark.parametrize("how", ["terminate", "interrupt"])
def test_all_members_end_cleanly_and_come_back(cluster: Cluster, how: str) -> None:
    """The last one has nobody to hand over to, and still ends within the grace period with exit code 0."""
    number = signal.SIGTERM if how == "terminate" else signal.SIGINT
    with cluster.leader().connect() as connection:
        connection.put(b"kept", b"1")
    for node in cluster.nodes:
        node.daemon.send(number)
    assert [node.daemon.wait_exit(EXIT_MAX_S + 1) for node in cluster.nodes] == [0, 0, 0]
    cluster.start()
    with cluster.leader().connect() as connection:
        assert connection.get(b"kept") == b"1"


def test_second_sigterm_ends_at_once(cluster: Cluster) -> None:
    """With both followers paused the first one waits for a successor that cannot come."""
    leader = cluster.leader()
    with leader.connect() as connection:
        for follower in cluster.others(leader):
            follower.pause()
        connection.send([commands.PUT, 0, b"pending", b"x", 0, 0])
        leader.daemon.send(signal.SIGTERM)
        wait_until(lambda: "SIGTERM: shutting down" in leader.daemon.log_text(), "the first one to be heard")
        leader.daemon.send(signal.SIGTERM)
        leader.daemon.wait_exit(EXIT_MAX_S)
        assert "second signal SIGTERM: exiting at once" in leader.daemon.log_text()


def test_leadership_moves_around_under_load(cluster: Cluster) -> None:
    """Asked for, six times in a row: each transfer is one election, without a pause worth the name."""
    with LibraryWorkload(cluster.endpoints) as workload:
        workload.wait_acknowledged(100)
        for turn in range(6):
            leader = cluster.leader()
            target = cluster.others(leader)[turn % 2]
            asked_at_s = time.monotonic()
            with leader.connect(timeout_s=10) as connection:
                connection.call([protocol.MOVE_LEADER, target.name])
            wait_until(lambda: cluster.current_leader() is target, f"{target.name} to lead")  # noqa: B023 - used at once
            workload.wait_acknowledged(50)
            assert gap_s(workload, asked_at_s) < HANDOVER_GAP_MAX_S
        ledger = workload.stop()
    assert ledger.count(UNKNOWN) == 0, ledger.errors
    check_everywhere(cluster, ledger)


def test_sigterm_right_after_the_start(make_cluster: StartCluster) -> None:
    """A member that has found nobody yet ends as cleanly."""
    cluster = make_cluster()
    node = cluster.nodes[0]
    node.start()
    wait_until(lambda: node.http_get("/livez")[0] == 200, "the member to live")
    assert node.terminate(EXIT_MAX_S) == 0


def test_requests_in_flight_are_answered_before_the_end(cluster: Cluster) -> None:
    """What was taken before SIGTERM is finished or refused, never dropped silently while others are served."""
    leader = cluster.leader()
    with leader.connect() as connection:
        ids = connection.send(*[[commands.PUT, 0, b"flight/%d" % number, b"x", 0, 0] for number in range(500)])
        leader.daemon.send(signal.SIGTERM)
        answers = []
        for request_id in ids:
            try:
                answers.append(connection.answer(request_id, timeout_s=10))
            except ConnectionEnded:
                break
    assert leader.daemon.wait_exit(EXIT_MAX_S) == 0
    assert len(answers) == len(ids), f"{len(ids) - len(answers)} requests were dropped"
    acknowledged = [number for number, answer in enumerate(answers) if answer[0] == 0]
    with cluster.leader(cluster.others(leader)).connect() as connection:
        assert all(connection.get(b"flight/%d" % number) == b"x" for number in acknowledged)


def test_sigusr2_changes_the_log_level(cluster: Cluster) -> None:
    """It says the new level, and goes on serving."""
    node = cluster.nodes[0]
    assert len({asked_log_level(node) for _ in range(3)}) >= 2
    assert node.http_get("/readyz")[0] == 200


def asked_log_level(node: Node) -> str:
    """The level that it says to have after one SIGUSR2."""
    logged_before = len(node.daemon.log_text())
    node.daemon.send(signal.SIGUSR2)
    line = wait_until(
        lambda: LOG_LEVEL_LINE.search(node.daemon.log_text(), logged_before),
        "the new log level to be said",
        deadline_s=5,
        seen=lambda: node.daemon.log_text()[-500:],
    )
    return line.group(1).lower()
