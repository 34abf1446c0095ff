"""Everything at once, in an order drawn from a seed: kills, pauses, cuts of one and of both directions, a tiny log.

The simulator tries thousands of orders; this one proves that the real processes, disks and sockets keep the same promises.
"""

import random
import signal
from typing import Callable

import pytest

from .conftest import StartCluster
from .harness.cluster import SMALL_LOG, Cluster
from .harness.ledger import check_everywhere
from .harness.netns import Network
from .harness.node import Node
from .harness.workload import LibraryWorkload, RawWorkload

pytestmark = [pytest.mark.integration, pytest.mark.netns]

FAULTS_COUNT = 8

Heal = Callable[[], None]


def kill(node: Node, network: Network, others: list[Node]) -> Heal:
    node.kill()

    def heal() -> None:
        node.start()

    return heal


def pause(node: Node, network: Network, others: list[Node]) -> Heal:
    node.pause()
    return node.resume


def isolate(node: Node, network: Network, others: list[Node]) -> Heal:
    network.isolate(node.name, [other.name for other in others])
    return network.heal


def deafen(node: Node, network: Network, others: list[Node]) -> Heal:
    for other in others:
        network.cut(other.name, node.name)
    return network.heal


def mute(node: Node, network: Network, others: list[Node]) -> Heal:
    for other in others:
        network.cut(node.name, other.name)
    return network.heal


def terminate(node: Node, network: Network, others: list[Node]) -> Heal:
    node.daemon.send(signal.SIGTERM)

    def heal() -> None:
        assert node.daemon.wait_exit() == 0
        node.start()

    return heal


FAULTS = (kill, pause, isolate, deafen, mute, terminate)


def victim_of(draw: random.Random, cluster: Cluster) -> Node:
    """The leader half of the time: that is where the bugs are."""
    leader = cluster.current_leader()
    return leader if leader is not None and draw.random() < 0.5 else draw.choice(cluster.nodes)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_one_fault_after_the_other(network: Network, make_cluster: StartCluster, seed: int) -> None:
    """At most one member is faulty at a time, so there is progress under every fault; then all is equal and nothing is lost."""
    draw = random.Random(seed)
    cluster = make_cluster(places=network.places(), environment=SMALL_LOG).start()
    endpoints = [node.client_endpoint for node in cluster.nodes]
    with LibraryWorkload(cluster.endpoints, writers=3) as workload, RawWorkload(endpoints, writers=2) as raw:
        for _ in range(FAULTS_COUNT):
            node = victim_of(draw, cluster)
            heal = draw.choice(FAULTS)(node, network, cluster.others(node))
            workload.wait_acknowledged(draw.choice((20, 100)), deadline_s=30)
            raw.wait_acknowledged(20, deadline_s=30)
            heal()
            node.wait_ready()
        ledgers = workload.stop(), raw.stop()
    for ledger in ledgers:
        check_everywhere(cluster, ledger)
