"""The quiet case: other sizes of cluster, the health pages, and logs that have nothing to complain about."""

import json
import re

import pytest

from raftkv.wire import commands

from .conftest import StartCluster
from .harness.cluster import Cluster
from .harness.ledger import REFUSED, UNKNOWN, check_everywhere
from .harness.node import Node
from .harness.waiting import wait_until
from .harness.workload import LibraryWorkload

pytestmark = pytest.mark.integration

COMPLAINT = re.compile(
    r"\bERROR\b|\bCRITICAL\b|Traceback|Exception|assert|never retrieved|DeprecationWarning", re.IGNORECASE
)


def complaints(node: Node) -> list[str]:
    """Lines of a log that a healthy run must not have."""
    return [line for line in node.daemon.log_text().splitlines() if COMPLAINT.search(line)]


def test_logs_of_a_healthy_run_are_clean(cluster: Cluster) -> None:
    """Start, load, hand-over, end: no error, no traceback, and not a line per request."""
    with LibraryWorkload(cluster.endpoints) as workload:
        workload.wait_acknowledged(1_000)
        ledger = workload.stop()
    assert (ledger.count(UNKNOWN), ledger.count(REFUSED), ledger.errors) == (0, 0, [])
    check_everywhere(cluster, ledger)
    for node in cluster.nodes:
        assert node.terminate() == 0
    for node in cluster.nodes:
        assert not complaints(node), complaints(node)
        assert len(node.daemon.log_text().splitlines()) < 100, "it logs what it does for each request"


def test_single_member(make_cluster: StartCluster) -> None:
    """Ready at once, durable over kill -9."""
    cluster = make_cluster(size=1).start()
    with LibraryWorkload(cluster.endpoints, writers=3) as workload:
        for _ in range(2):
            workload.wait_acknowledged(100)
            cluster.nodes[0].kill()
            cluster.start()
        workload.wait_acknowledged(100)
        ledger = workload.stop()
    assert ledger.count(UNKNOWN) == 0, ledger.errors
    check_everywhere(cluster, ledger)


def test_five_members_survive_two(make_cluster: StartCluster) -> None:
    """The leader and another one are killed at once."""
    cluster = make_cluster(size=5).start()
    with LibraryWorkload(cluster.endpoints, writers=4) as workload:
        workload.wait_acknowledged(100)
        leader = cluster.leader()
        victims = [leader, cluster.others(leader)[0]]
        for node in victims:
            node.kill()
        workload.wait_acknowledged(100)
        for node in victims:
            node.start()
        cluster.wait_ready()
        ledger = workload.stop()
    assert ledger.count(UNKNOWN) == 0, ledger.errors
    check_everywhere(cluster, ledger)


def test_two_of_three_are_enough_to_begin(make_cluster: StartCluster) -> None:
    """The third one comes late, to a cluster that already has data."""
    cluster = make_cluster()
    first, second, late = cluster.nodes
    first.start()
    second.start()
    cluster.wait_ready()
    with cluster.leader([first, second]).connect() as connection:
        connection.put(b"early", b"1")
    late.start()
    late.wait_ready()
    with late.connect() as connection:
        assert connection.get(b"early") == b"1"
    cluster.wait_applied_equal()


def test_one_of_three_is_not_enough(make_cluster: StartCluster) -> None:
    """It lives, is not ready, says no_quorum, and does not elect itself."""
    cluster = make_cluster()
    node = cluster.nodes[0]
    node.start()
    wait_until(lambda: node.http_get("/livez")[0] == 200, "the member to live")
    assert node.http_get("/readyz")[0] == 503

    def refuses() -> bool:
        with node.connect() as connection:
            outcome = connection.outcome([commands.PUT, 0, b"key", b"value", 0, 0])
        return getattr(outcome, "code", "") == "no_quorum"

    wait_until(refuses, "the member to say no_quorum")
    assert node.http_get("/readyz")[0] == 503


def test_health_pages(cluster: Cluster) -> None:
    """What load balancers, etcd's tools and Prometheus ask for."""
    for node in cluster.nodes:
        assert node.http_get("/livez")[0] == 200
        assert node.http_get("/readyz")[0] == 200
        code, body = node.http_get("/health")
        assert (code, json.loads(body)["health"]) == (200, "true")
        code, body = node.http_get("/metrics")
        assert code == 200
        names = set(re.findall(r"^(raftkv_\w+)", body, re.MULTILINE))
        assert len(names) > 5, body[:500]


def test_linearizable_reads_from_every_member(cluster: Cluster) -> None:
    """What one member acknowledged, every other one returns from then on."""
    connections = [node.connect() for node in cluster.nodes]
    with cluster.leader().connect() as writer:
        for number in range(100):
            value = b"%d" % number
            writer.put(b"key", value)
            assert [connection.get(b"key") for connection in connections] == [value] * 3
    for connection in connections:
        connection.close()
