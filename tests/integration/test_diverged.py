"""A member whose store is not that of the others: it stops by itself and says why, follower or leader, and the rest go on.

A store goes astray here while its member is down: a byte of a value on disk, with or without the digest that belongs to it.
"""

import re
from contextlib import closing

import pytest

import raftkv
from raftkv.daemon.datadir import DataDirectory
from raftkv.limits import DEFAULT_LIMITS
from raftkv.store.keyspace import HEAD, META, TableChange
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.store.meta import STATE_KEY, load_state

from .conftest import StartCluster
from .harness.cluster import Cluster
from .harness.node import Node
from .harness.offices import move_leader
from .harness.waiting import wait_until
from .harness.workload import LibraryWorkload

pytestmark = pytest.mark.integration

STOPS_S = 15.0
VERDICT = re.compile(
    r"raftkv serve: stopped after a fatal error: the store of this member has diverged: its digest at index (\d+) is"
    r" ([0-9a-f]{8}), that of a quorum is ([0-9a-f]{8}); .*: remove this member, delete its data directory, add it anew"
)


def go_astray(node: Node, key: bytes = b"key", value: bytes = b"wrong", *, digest_too: bool = True) -> None:
    """Change the value of a key, and the digest with it."""
    with (
        DataDirectory(node.data_directory) as directory,
        closing(LmdbKeyspace(str(directory.store_file), DEFAULT_LIMITS.map_bytes)) as keyspace,
    ):
        state, record = load_state(keyspace), keyspace.get(HEAD, key)
        assert record is not None, "it was committed at the shutdown"
        state.digest ^= 0x80 * digest_too
        astray = record[: -len(value)] + value
        assert astray != record
        keyspace.commit([TableChange(HEAD, [(key, astray)]), TableChange(META, [(STATE_KEY, state.pack())])])


def wait_stopped(node: Node) -> tuple[int, str, str]:
    """It ends with exit code 1; index, its digest and that of a quorum."""
    assert node.daemon.wait_exit(STOPS_S) == 1
    found = VERDICT.search(node.daemon.log_text())
    assert found is not None, node.daemon.log_text()[-2000:]
    return int(found[1]), found[2], found[3]


def agreed_everywhere(cluster: Cluster) -> bool:
    statuses = cluster.statuses()
    marks = {status["applied_index"] for status in statuses.values()}
    marks |= {status["digest_agreed_index"] for status in statuses.values()}
    return len(statuses) == len(cluster.nodes) and len(marks) == 1


def metric(node: Node, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", node.http_get("/metrics")[1], flags=re.MULTILINE)
    return float(found[1]) if found else -1.0


def test_a_follower_that_has_diverged_stops_and_the_others_serve_on(cluster: Cluster) -> None:
    leader = cluster.leader()
    with raftkv.Client(cluster.endpoints) as kv:
        kv.put("key", "right")
    wait_until(
        lambda: agreed_everywhere(cluster), "all to know that they are one", deadline_s=10, seen=cluster.statuses
    )
    astray = cluster.others(leader)[0]
    assert astray.terminate() == 0
    go_astray(astray)
    term = cluster.statuses()[leader.name]["term"]
    with LibraryWorkload(leader.client_endpoint, writers=2) as workload:
        workload.wait_acknowledged(100)
        astray.start()
        index, own, agreed = wait_stopped(astray)
        assert own != agreed
        assert index <= cluster.statuses()[leader.name]["applied_index"]
        workload.wait_acknowledged(100)
        ledger = workload.stop()
    assert ledger.errors == []
    status = cluster.statuses()[leader.name]
    assert (status["role"], status["term"]) == ("leader", term), "an election was caused"
    # Whether the leader says so too is left open here: the member may stop before the leader has heard its digest.
    # A restart does not mend it.
    astray.start()
    wait_stopped(astray)
    with raftkv.Client(cluster.endpoints) as kv:
        assert kv.get("key") == b"right"
        assert cluster.statuses()[leader.name]["term"] == term


def test_a_member_that_was_added_anew_is_well(cluster: Cluster) -> None:
    """What the message tells the operator to do."""
    with raftkv.Client(cluster.endpoints) as kv:
        kv.put("key", "right")
        cluster.wait_applied_equal()
        astray = cluster.followers()[0]
        assert astray.terminate() == 0
        go_astray(astray)
        astray.start()
        wait_stopped(astray)
        kv.member_remove(astray.name)
        cluster.nodes.remove(astray)
        node = cluster.add_node("n4", join=cluster.leader().client_endpoint)
        node.start()
        node.wait_ready()
        wait_until(lambda: all(member.voter for member in kv.members()), "n4 to vote", deadline_s=20)
        kv.put("key", "new")
    wait_until(
        lambda: agreed_everywhere(cluster), "all to know that they are one", deadline_s=10, seen=cluster.statuses
    )


def test_a_leader_that_has_diverged_stops_once_a_quorum_speaks_against_it(make_cluster: StartCluster) -> None:
    """With one other member nobody can say who is right: both go on, and say so. With two it is over."""
    cluster = make_cluster().start()
    with raftkv.Client(cluster.endpoints) as kv:
        kv.put("key", "right")
    cluster.wait_applied_equal()
    astray, other, third = cluster.leader(), *cluster.followers()
    for node in cluster.nodes:
        assert node.terminate() == 0
    go_astray(astray)
    for node in (astray, other):
        node.start()
    cluster.wait_ready()
    if cluster.leader() is other:
        with raftkv.Client(cluster.endpoints) as kv:
            move_leader(kv, astray.name)
    assert cluster.leader() is astray
    words = f"the store of member {other.name} differs"
    wait_until(lambda: words in astray.daemon.log_text(), "the leader to say so", deadline_s=10)
    assert any(words in error for error in cluster.statuses()[astray.name]["errors"])
    assert metric(astray, "raftkv_digest_agreed_index") == 0
    assert astray.running and other.running
    third.start()
    wait_stopped(astray)
    rest = [other, third]
    assert cluster.leader(rest) in rest
    with raftkv.Client(",".join(node.client_endpoint for node in rest)) as kv:
        assert kv.get("key") == b"right"
        kv.put("key", "after")
    # Back again, it may not lead on.
    astray.start()
    wait_stopped(astray)
    assert cluster.leader(rest) in rest


def test_what_rots_on_disk_shows_once_a_write_depends_on_it(cluster: Cluster) -> None:
    """The digest is of what apply did, not of bytes on disk: a rotten counter is noticed when it is counted on."""
    with raftkv.Client(cluster.endpoints) as kv:
        for _ in range(3):
            kv.increment("counter", 1)
        kv.put("key", "right")
        cluster.wait_applied_equal()
        astray = cluster.followers()[0]
        assert astray.terminate() == 0
        go_astray(astray, b"counter", b"7", digest_too=False)
        astray.start()
        astray.wait_ready()
        kv.put("key", "other")
        wait_until(lambda: agreed_everywhere(cluster), "all to agree", deadline_s=10, seen=cluster.statuses)
        assert kv.increment("counter", 1) == 4
        wait_stopped(astray)
        assert kv.increment("counter", 1) == 5
