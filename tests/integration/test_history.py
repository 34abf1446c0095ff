"""History that is let go of by itself: by number, by age, across a leader change and a restart, and the room is used again."""

import re

import pytest

import raftkv
from raftkv.errors import Compacted
from raftkv.limits import MIB

from .conftest import StartCluster
from .harness.cluster import Cluster
from .harness.node import Node
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

KEPT = 500


def figure(node: Node, name: str) -> int | None:
    """None when the member was too slow to say it."""
    found = re.search(rf"^{name} (\S+)$", node.http_get("/metrics")[1], flags=re.MULTILINE)
    return int(float(found[1])) if found is not None else None


def file_bytes(node: Node) -> int:
    return wait_until(lambda: figure(node, "raftkv_db_size_bytes"), f"the size of the store of {node.name}")


def is_small(node: Node) -> bool:
    used_bytes = figure(node, "raftkv_db_size_in_use_bytes")
    return used_bytes is not None and used_bytes < 8 * MIB


def compacted_at(node: Node) -> int:
    return figure(node, "raftkv_compact_revision") or 0


def wait_compacted(cluster: Cluster, revision: int) -> None:
    wait_until(
        lambda: all(compacted_at(node) >= revision for node in cluster.nodes),
        f"every member to compact at {revision} or later",
        seen=lambda: [compacted_at(node) for node in cluster.nodes],
    )


def write(cluster: Cluster, count: int, value: str) -> int:
    revision = 0
    with raftkv.Client(cluster.endpoints, timeout=20.0) as kv:
        for number in range(count):
            revision = kv.put(f"k{number % 10}", f"{number} {value}").revision
    return revision


def test_by_number_also_under_the_next_leader_and_the_room_comes_back(make_cluster: StartCluster) -> None:
    cluster = make_cluster(environment={"RAFTKV_LIMITS_HISTORY_REVISIONS_MAX": str(KEPT)}).start()
    value = "v" * 8_000
    for _ in range(2):
        for _ in range(2):
            revision = write(cluster, 900, value)
            wait_compacted(cluster, revision - KEPT * 11 // 10 - 1)
        leader = cluster.leader()
        leader.kill()
        cluster.leader(cluster.others(leader))
        leader.start()
        leader.wait_ready()
    with raftkv.Client(cluster.endpoints, timeout=20.0) as kv:
        assert len(kv.range(prefix="k", revision=revision - KEPT // 2).kvs) == 10
        with pytest.raises(Compacted):
            kv.range(prefix="k", revision=revision - 2 * KEPT)
    # 3,600 values of 8 kB were written, 29 MB; kept are some 560 of them, once the room was made.
    wait_until(
        lambda: all(is_small(node) for node in cluster.nodes),
        "history to be gone from the pages too",
        deadline_s=20,
        seen=lambda: [figure(node, "raftkv_db_size_in_use_bytes") for node in cluster.nodes],
    )
    before = {node.name: file_bytes(node) for node in cluster.nodes}
    for _ in range(4):
        wait_compacted(cluster, write(cluster, 900, value) - KEPT * 11 // 10 - 1)
    grown = {node.name: file_bytes(node) - before[node.name] for node in cluster.nodes}
    assert max(grown.values()) < 15 * MIB, f"29 MB again did not find the free pages: {grown}"


def test_by_age(make_cluster: StartCluster) -> None:
    cluster = make_cluster(environment={"RAFTKV_LIMITS_HISTORY_MS_MAX": "2000"}).start()
    revision = write(cluster, 20, "v")
    wait_compacted(cluster, revision)
    with raftkv.Client(cluster.endpoints, timeout=20.0) as kv:
        assert len(kv.get_prefix("k")) == 10, "what is there stays"
