"""A lost quorum: what `raftkv recover` makes of a survivor, and what it refuses."""

import json
import subprocess
from typing import Any

import pytest

import raftkv
from raftkv.errors import Compacted, RaftKVError

from .conftest import StartCluster
from .harness.cluster import SMALL_LOG, Cluster
from .harness.node import Node
from .harness.process import RAFTKV, raftkv_environment
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration


def recover(node: Node, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RAFTKV, "recover", "--data-dir", str(node.data_directory), *words],
        env=raftkv_environment({}),
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def lose_two(cluster: Cluster) -> Node:
    """Two of three are gone for good, under writes; the third one is stopped, and has all of them on its disk."""
    survivor, other = cluster.followers()
    with raftkv.Client(cluster.endpoints) as kv:
        for number in range(300):
            kv.put(f"k{number}", f"v{number}" * 50)
        other.kill()  # what is acknowledged from here on, and all before it, is on the survivor's disk
        kv.delete("k7")
    for node in cluster.nodes:
        node.kill()
    return survivor


@pytest.mark.parametrize("environment", [{}, SMALL_LOG])
def test_a_survivor_becomes_a_cluster_that_others_join(make_cluster: StartCluster, environment: dict[str, Any]) -> None:
    cluster = make_cluster(environment=environment).start()
    survivor = lose_two(cluster)
    done = recover(survivor, "--yes", "-o", "json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["revision"] > 1_000_000_000
    cluster.nodes[:] = [survivor]
    survivor.start()
    survivor.wait_ready()
    with raftkv.Client(survivor.client_endpoint) as kv:
        assert kv.get("k299") == b"v299" * 50
        assert kv.get("k7") is None
        assert kv.range(prefix="k", count_only=True).count == 299
        assert kv.put("after", "it").revision > said["revision"]
        with pytest.raises(Compacted):
            kv.range("k1", revision=100)
    node = cluster.add_node("n4", join=survivor.client_endpoint)
    node.start()
    node.wait_ready()
    with raftkv.Client(cluster.endpoints) as kv:
        wait_until(lambda: all(member.voter for member in kv.members()), "n4 to vote", deadline_s=20)
        assert {member.name for member in kv.members()} == {survivor.name, "n4"}
    cluster.wait_applied_equal()


def test_members_of_the_old_cluster_are_not_taken_for_new_ones(cluster: Cluster) -> None:
    survivor = lose_two(cluster)
    assert recover(survivor, "--yes").returncode == 0
    old = [node for node in cluster.nodes if node is not survivor]
    survivor.start()
    survivor.wait_ready()
    for node in old:
        node.start()
    cluster.leader(old)  # they are a majority of the old cluster, and go on being that one
    with raftkv.Client(survivor.client_endpoint) as kv:
        assert [member.name for member in kv.members()] == [survivor.name]
        kv.put("here", "only")
    assert survivor.status()["leader"] == survivor.name  # type: ignore[index]


def test_it_asks_and_changes_nothing_without_the_right_answer(cluster: Cluster) -> None:
    survivor = lose_two(cluster)
    refused = recover(survivor, typed="yes\n")
    assert refused.returncode == 1
    assert "only member of a NEW cluster" in refused.stderr
    assert refused.stderr.rstrip().endswith("nothing was changed")
    for node in cluster.nodes:
        node.start()
    cluster.wait_ready()
    for node in cluster.nodes:
        node.kill()
    done = recover(survivor, typed=f"{survivor.name}\n")
    assert done.returncode == 0
    assert ".before-recovery-1" in done.stdout


def test_a_cluster_that_lives_is_left_alone(cluster: Cluster) -> None:
    with raftkv.Client(cluster.endpoints) as kv:
        kv.put("x", "y")
    running = recover(cluster.nodes[0], "--yes")
    assert running.returncode == 1
    assert "is in use by process" in running.stderr
    stopped = cluster.followers()[0]
    assert stopped.terminate() == 0
    lives = recover(stopped, "--yes")
    assert lives.returncode == 1
    assert "the cluster lives" in lives.stderr
    stopped.start()
    stopped.wait_ready()
    cluster.wait_applied_equal()


def test_what_is_no_data_directory_is_refused_in_one_line(cluster: Cluster) -> None:
    node = cluster.add_node("n9", join="127.0.0.1:1")
    for words in ((), ("--yes",)):
        done = recover(node, *words)
        assert done.returncode == 2
        assert "there is no data directory" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    cluster.nodes.remove(node)


def test_the_library_hears_of_it(cluster: Cluster) -> None:
    """A client that was connected to the old cluster does not take the new one for it."""
    survivor = lose_two(cluster)
    with raftkv.Client(survivor.client_endpoint, timeout=5) as kv:
        assert recover(survivor, "--yes").returncode == 0
        survivor.start()
        survivor.wait_ready()
        try:
            assert kv.get("k1") == b"v1" * 50
        except RaftKVError as error:
            raise AssertionError("a client that had no session is served") from error
