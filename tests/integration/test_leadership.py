"""Who leads, with real processes: the preferred member gets the office back, a member with a stalled disk gives it away."""

import re
import time

import pytest

import raftkv
from raftkv.errors import TransferRefused
from raftkv.wire import protocol

from .conftest import StartCluster
from .harness.cluster import Cluster
from .harness.disk import DiskFaultUnavailable, SyncFault
from .harness.ledger import UNKNOWN, check_everywhere
from .harness.node import Node
from .harness.waiting import wait_until
from .harness.workload import LibraryWorkload, gap_s

pytestmark = pytest.mark.integration

ELECTION_TIMEOUT_S = 1.0


def wait_leader(cluster: Cluster, node: Node, deadline_s: float = 30.0) -> None:
    wait_until(
        lambda: cluster.current_leader() is node, f"{node.name} to lead", deadline_s=deadline_s, seen=cluster.statuses
    )


def test_the_preferred_member_gets_the_office_back(make_cluster: StartCluster) -> None:
    """Killed, followed by another, back and caught up: it leads again without an election timeout, and nothing is lost."""
    cluster = make_cluster()
    preferred = cluster["n2"]
    preferred.environment["RAFTKV_PRIORITY"] = "10"
    cluster.start()
    wait_leader(cluster, preferred)
    assert cluster.statuses()["n2"]["priority"] == 10
    with LibraryWorkload(cluster.endpoints, writers=3) as workload:
        workload.wait_acknowledged(100)
        preferred.kill()
        successor = cluster.leader(cluster.others(preferred))
        workload.wait_acknowledged(100)
        term = cluster.statuses()[successor.name]["term"]
        returned_at_s = time.monotonic()
        preferred.start()
        wait_leader(cluster, preferred)
        workload.wait_acknowledged(200)
        assert gap_s(workload, returned_at_s) < ELECTION_TIMEOUT_S
        assert cluster.statuses()["n2"]["term"] == term + 1, "one hand-over, no election"
        ledger = workload.stop()
    assert "handing leadership over to member n2, whose priority is 10 (here: 0)" in successor.daemon.log_text()
    assert ledger.count(UNKNOWN) == 0, ledger.errors
    check_everywhere(cluster, ledger)


def test_a_leader_with_a_stalled_disk_hands_over_and_says_so(make_cluster: StartCluster) -> None:
    """An fsync that takes four seconds where half of one is allowed: in the log, in the status, in /metrics, and away."""
    cluster = make_cluster(environment={"RAFTKV_FSYNC_STALL_MS_MAX": "500"}).start()
    leader = cluster.leader()
    term = cluster.statuses()[leader.name]["term"]
    try:
        fault = SyncFault(leader.daemon, "delay_enter=4000000", cluster.directory)
    except DiskFaultUnavailable as error:
        pytest.skip(f"no sync fault: {error}")
    with LibraryWorkload(cluster.endpoints, writers=2) as workload:
        with fault:
            began_at_s = time.monotonic()
            words = wait_until(lambda: (leader.status() or {})["errors"], "the status to say so", seen=leader.status)
            assert re.fullmatch(r"disk_stalled: an fsync of the log has not returned for \d\.\d s", words[0]), words
            text = leader.http_get("/metrics")[1]
            assert re.search(r"^raftkv_disk_stalled_seconds [0-9.]*[1-9]", text, flags=re.MULTILINE), text
            wait_until(lambda: cluster.current_leader() not in (None, leader), "another leader", seen=cluster.statuses)
            workload.wait_acknowledged(100)
            statuses = cluster.statuses(cluster.others(leader))
            assert {status["term"] for status in statuses.values()} == {term + 1}, "one hand-over, no election"
            # The limit, half a second until it is looked at, and the hand-over; an election timeout alone would be longer.
            assert gap_s(workload, began_at_s) < 2.5
        wait_until(
            lambda: (leader.status() or {"errors": ["-"]})["errors"] == [], "the disk to be well", seen=leader.status
        )
        ledger = workload.stop()
    said = leader.daemon.log_text()
    for line in (
        r"an fsync of the log has not returned for .* s \(limit 0\.5 s\)",
        "handing leadership over: its disk is stalled",
        "the disk came back",
    ):
        assert re.search(line, said), line
    assert re.search(r"^raftkv_leader_handovers_total 1\.0", leader.http_get("/metrics")[1], flags=re.MULTILINE)
    check_everywhere(cluster, ledger)


def refusal_to(leader: Node, name: str) -> str:
    """What the leader says when it is asked to hand over to `name`."""
    with leader.connect(timeout_s=10) as connection:
        outcome = connection.outcome([protocol.MOVE_LEADER, name])
    assert isinstance(outcome, TransferRefused), outcome
    return outcome.message


def test_transfers_that_cannot_succeed_are_refused_with_numbers(make_cluster: StartCluster) -> None:
    """To nobody, to a learner, to one whose disk lags, to one that is down: at once, and nothing has changed."""
    cluster = make_cluster(environment={"RAFTKV_LIMITS_TRANSFER_LAG_ENTRIES_MAX": "5"}).start()
    leader = cluster.leader()
    lagging, down = cluster.others(leader)
    term = cluster.statuses()[leader.name]["term"]
    with raftkv.Client(cluster.endpoints, cluster_name="test") as kv:
        kv.member_add("n8", "127.0.0.1:1", learner=True)
    assert refusal_to(leader, "nobody") == "there is no member 'nobody'"
    assert refusal_to(leader, "n8") == "member n8 has no vote in the configuration, so it cannot lead"
    try:
        fault = SyncFault(lagging.daemon, "delay_enter=4000000", cluster.directory)
    except DiskFaultUnavailable as error:
        pytest.skip(f"no sync fault: {error}")
    with fault, leader.connect(timeout_s=10) as connection:
        for number in range(50):
            connection.put(b"k", b"%d" % number)
        said = refusal_to(leader, lagging.name)
        found = re.fullmatch(rf"member {lagging.name} is (\d+) entries behind, at most 5 may be left: .*", said)
        assert found, said
        assert int(found[1]) > 5, said
    down.kill()
    wait_until(lambda: "has not answered for" in refusal_to(leader, down.name), "the member to be taken for silent")
    with leader.connect() as connection:
        connection.put(b"after", b"x")
        status = connection.status()
    assert (status["role"], status["term"]) == ("leader", term)
