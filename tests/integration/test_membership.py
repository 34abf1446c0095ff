"""Members that come and go, as real processes: joining, promotion, removal, replacement, a leader that is to go, moved addresses."""

import contextlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import raftkv
from raftkv.errors import MembershipRefused

from .conftest import StartCluster
from .harness.cluster import SMALL_LOG, Cluster
from .harness.ledger import check_everywhere
from .harness.node import Node
from .harness.waiting import wait_until
from .harness.workload import LibraryWorkload

pytestmark = pytest.mark.integration


def voters_of(cluster: Cluster) -> set[str]:
    with raftkv.Client(cluster.endpoints, cluster_name=cluster.cluster_name) as kv:
        return {member.name for member in kv.members() if member.voter}


def wait_voters(cluster: Cluster, *names: str) -> None:
    wait_until(
        lambda: voters_of(cluster) == set(names),
        f"{names} to have the votes",
        deadline_s=20,
        seen=lambda: voters_of(cluster),
    )


def wait_members(kv: raftkv.Client, *names: str) -> None:
    """Any member answers, also one that has not applied the last change yet."""
    wait_until(lambda: {member.name for member in kv.members()} == set(names), f"{names} to be the members")


def wait_stopped(node: Node) -> None:
    assert node.daemon.wait_exit(15) == 0, "it stops in order"
    assert "was removed from the cluster" in node.daemon.log_text()


def join(cluster: Cluster, name: str) -> Node:
    node = cluster.add_node(name, join=cluster.nodes[0].client_endpoint)
    node.start()
    node.wait_ready()
    return node


def test_a_member_joins_gets_a_vote_and_holds_everything(cluster: Cluster) -> None:
    """`raftkv serve --join` and nothing else."""
    with LibraryWorkload(cluster.endpoints) as workload:
        workload.wait_acknowledged(200)
        join(cluster, "n4")
        wait_voters(cluster, "n1", "n2", "n3", "n4")
        workload.wait_acknowledged(100)
        ledger = workload.stop()
    assert not ledger.errors
    check_everywhere(cluster, ledger)


def test_a_member_that_needs_a_snapshot_joins_and_a_restart_finds_it_a_member(make_cluster: StartCluster) -> None:
    cluster = make_cluster(environment=SMALL_LOG).start()
    with raftkv.Client(cluster.endpoints) as kv:
        for number in range(400):
            kv.put(f"k{number}", b"v" * 1000)
    node = join(cluster, "n4")
    wait_voters(cluster, "n1", "n2", "n3", "n4")
    assert "installed a snapshot" in node.daemon.log_text()
    node.kill()
    node.start()
    node.wait_ready()
    with raftkv.Client(node.client_endpoint) as kv:
        assert kv.get("k399") == b"v" * 1000
        assert kv.range(prefix="k", count_only=True).count == 400
    cluster.wait_applied_equal()


def test_all_three_are_replaced_in_one_change_under_load(cluster: Cluster) -> None:
    old = list(cluster.nodes)
    with LibraryWorkload(cluster.endpoints) as workload:
        workload.wait_acknowledged(100)
        for name in ("n4", "n5", "n6"):
            with raftkv.Client(cluster.endpoints) as kv:
                node = cluster.add_node(name, join=old[0].client_endpoint)
                kv.member_add(name, node.peer_endpoint, learner=True)
            node.start()
            node.wait_ready()
        with raftkv.Client(cluster.endpoints, timeout=15) as kv:
            kv.member_change(promote=["n4", "n5", "n6"], remove=["n1", "n2", "n3"])
        for node in old:
            wait_stopped(node)
        del cluster.nodes[:3]
        workload.wait_acknowledged(100)
        ledger = workload.stop()
    assert voters_of(cluster) == {"n4", "n5", "n6"}
    check_everywhere(cluster, ledger)
    for node in old:
        assert node.start().wait_exit(15) == 1, "a former member does not come back"
        assert "was removed from the cluster" in node.daemon.log_text()


def test_a_leader_that_is_removed_hands_over_first(cluster: Cluster) -> None:
    leader = cluster.leader()
    term = cluster.statuses()[leader.name]["term"]
    with raftkv.Client(cluster.endpoints) as kv:
        kv.member_remove(leader.name)
        wait_stopped(leader)
        kv.put("after", "it")
    assert "handing" in leader.daemon.log_text() or "now follower" in leader.daemon.log_text()
    cluster.nodes.remove(leader)
    assert cluster.statuses()[cluster.leader().name]["term"] == term + 1, "one election, without a timeout"
    assert len(voters_of(cluster)) == 2


def test_a_member_that_was_removed_while_it_was_down_learns_it_when_it_comes_back(cluster: Cluster) -> None:
    """It is told when it names its cluster, and in its first moments it has the name in memory only."""
    gone = cluster.followers()[0]
    with raftkv.Client(gone.client_endpoint) as kv:
        kv.backup(lambda data: None)  # of what is on its disk, which is all that it has applied
    gone.kill()
    with raftkv.Client(cluster.endpoints) as kv:
        kv.member_remove(gone.name)
    gone.start()
    wait_stopped(gone)


def test_refusals_change_nothing(cluster: Cluster) -> None:
    leader = cluster.leader()
    followers = cluster.followers()
    cluster.wait_applied_equal()  # any member answers what the members are
    with raftkv.Client(cluster.endpoints) as kv:
        before = kv.members()
        for change, reason in (
            ({"remove": ["n9"]}, "there is no member 'n9'"),
            ({"promote": ["n1"]}, "member n1 has a vote already"),
            ({"demote": ["n1", "n2", "n3"]}, "nobody would have a vote"),
            ({"remove": ["n1"], "demote": ["n1"]}, "names a member twice"),
            ({}, "names no member"),
        ):
            if change:
                with pytest.raises(MembershipRefused, match=reason):
                    kv.member_change(**change)
        with pytest.raises(MembershipRefused, match="there is a member 'n1' already"):
            kv.member_add("n1", "127.0.0.1:1")
        with pytest.raises(MembershipRefused, match="is the peer address of member 'n1'"):
            kv.member_add("n7", cluster["n1"].peer_endpoint)
        kv.member_add("n8", "127.0.0.1:1", learner=True)
        with pytest.raises(MembershipRefused, match="member n8 cannot get a vote"):
            kv.member_promote("n8")
        kv.member_remove("n8")
        wait_until(lambda: kv.members() == before, "everything to be as it was", deadline_s=5)
        before = kv.members()
        followers[0].kill()
        ended = re.compile("the peer closed the connection|Connection reset by peer")  # by what was not read yet
        wait_until(lambda: ended.search(leader.daemon.log_text()), "its end to be seen", deadline_s=10)
        with pytest.raises(MembershipRefused, match=r"would lose its quorum: of 2 voters member n\d would not answer"):
            kv.member_change(demote=[followers[1].name])
        assert kv.members() == before
        kv.member_remove(followers[0].name)
        wait_voters(cluster, leader.name, followers[1].name)


def test_a_member_moves_to_another_address_by_restarting_there(cluster: Cluster) -> None:
    moved = cluster.followers()[0]
    other = cluster.add_node("spare", join="127.0.0.1:1")
    cluster.nodes.remove(other)
    assert moved.terminate() == 0
    moved.flags["listen_peer"] = moved.flags["advertise_peer"] = other.peer_endpoint
    moved.start()
    moved.wait_ready()
    with raftkv.Client(cluster.endpoints) as kv:
        wait_until(
            lambda: {member.name: member.peer_address for member in kv.members()}[moved.name] == other.peer_endpoint,
            "the log to know the new address",
            deadline_s=10,
        )
        kv.put("x", "y")
    cluster.wait_applied_equal()


def test_one_that_was_away_while_all_others_were_replaced_finds_the_new_ones(cluster: Cluster) -> None:
    """It knows none of them: they come to it, and are let in because they belong to the same cluster."""
    away = cluster.followers()[0]
    away.kill()
    stay = [node for node in cluster.nodes if node is not away]
    for name in ("n4", "n5"):
        node = cluster.add_node(name, join=stay[0].client_endpoint)
        node.start()
        node.wait_ready()
    wait_voters(cluster, "n1", "n2", "n3", "n4", "n5")
    with raftkv.Client(cluster.endpoints, timeout=15) as kv:
        kv.member_remove(*(node.name for node in stay))
        for node in stay:
            wait_stopped(node)
            cluster.nodes.remove(node)
        kv.put("while", "it was away")
    away.start()
    away.wait_ready()
    cluster.wait_applied_equal()


def test_joining_is_refused_in_one_line(cluster: Cluster) -> None:
    """A name that is taken, and another cluster."""
    taken = cluster.add_node("n1", join=cluster.nodes[0].client_endpoint)
    taken.data_directory = taken.data_directory.with_name("other")
    taken.log_path = taken.log_path.with_name("other.log")
    assert taken.start().wait_exit(15) == 1
    assert "there is a member 'n1' already" in taken.daemon.log_text()
    stranger = cluster.add_node("n5", join=cluster.nodes[0].client_endpoint)
    stranger.cluster_name = "elsewhere"
    assert stranger.start().wait_exit(15) == 1
    assert "cluster" in stranger.daemon.log_text()
    del cluster.nodes[3:]


def test_changes_that_are_asked_for_at_once_are_done_one_after_the_other(cluster: Cluster) -> None:
    """One at a time (4.1); the others' clients wait for their turn instead of being refused."""
    names = [f"x{number}" for number in range(6)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(raftkv.Client(cluster.endpoints, timeout=20)) for _ in names]
        workers = stack.enter_context(ThreadPoolExecutor(len(names)))
        together = threading.Barrier(len(names))

        def add(kv: raftkv.Client, name: str, port: int) -> None:
            kv.members()
            together.wait(20)
            kv.member_add(name, f"127.0.0.1:{port}", learner=True)

        def remove(kv: raftkv.Client, name: str) -> None:
            together.wait(20)
            kv.member_remove(name)

        list(workers.map(add, clients, names, range(1, 1 + len(names))))
        wait_members(clients[0], "n1", "n2", "n3", *names)
        list(workers.map(remove, clients, names))
        wait_members(clients[0], "n1", "n2", "n3")


def test_one_that_nobody_answers_waits_and_ends_when_it_is_told_to(make_cluster: StartCluster) -> None:
    cluster = make_cluster()
    node = cluster.add_node("n4", join="127.0.0.1:1")
    node.start()
    wait_until(lambda: "cannot join yet" in node.daemon.log_text(), "it to say what it waits for", deadline_s=15)
    assert node.terminate() == 0
