"""The figures of chapter 4, and what it says about leaders and candidates that are no members."""

from collections.abc import Iterator
from itertools import combinations

import pytest

from raftkv.limits import Limits
from raftkv.raft.membership import encode_configuration, leave_joint
from raftkv.raft.messages import (
    ENTRY_CONFIGURATION,
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    RequestVote,
    RequestVoteResponse,
)
from raftkv.raft.quorum import has_quorum
from tests.unit.raft.cluster import HEARTBEAT, TIMEOUT, Cluster, Disk, Node, config_of
from tests.unit.raft.solo import Solo, cluster_of, of_kind


def voters(*ids: int) -> frozenset[int]:
    return frozenset(ids)


def subsets(members: frozenset[int]) -> Iterator[set[int]]:
    for size in range(len(members) + 1):
        yield from map(set, combinations(sorted(members), size))


def configure(cluster: Cluster, leader: int, configuration: Configuration) -> None:
    cluster[leader].propose(ENTRY_CONFIGURATION, encode_configuration(configuration))


def join(cluster: Cluster, *node_ids: int) -> None:
    """Members that know no configuration yet."""
    for node_id in node_ids:
        cluster.nodes[node_id] = Node(cluster, config_of(node_id), Disk(Configuration(frozenset())))


OLD, NEW = Configuration(voters(1, 2, 3)), Configuration(voters(1, 2, 3, 4, 5))


def test_figure_4_2_two_majorities_that_decide_apart_are_why_there_are_joint_configurations() -> None:
    """4.2: from three members to five in one step, some go by the old configuration and some by the new one."""
    apart = [
        (one, other)
        for one in subsets(NEW.voters)
        for other in subsets(NEW.voters)
        if has_quorum(OLD, one) and has_quorum(NEW, other) and not one & other
    ]
    assert ({1, 2}, {3, 4, 5}) in apart
    joint = Configuration(NEW.voters, OLD.voters)
    for neighbour in (OLD, NEW):
        assert not any(
            has_quorum(neighbour, one) and has_quorum(joint, other) and not one & other
            for one in subsets(NEW.voters)
            for other in subsets(NEW.voters)
        )


@pytest.mark.parametrize(("before", "after"), [(4, 5), (3, 4), (5, 4), (4, 3), (2, 1), (1, 2)])
def test_figure_4_3_majorities_that_differ_by_one_member_overlap(before: int, after: int) -> None:
    """4.1: so that a single member is added or removed without a joint configuration, for even and odd sizes."""
    old, new = (Configuration(frozenset(range(1, size + 1))) for size in (before, after))
    everybody = old.voters | new.voters
    assert all(
        one & other
        for one in subsets(everybody)
        for other in subsets(everybody)
        if has_quorum(old, one) and has_quorum(new, other)
    )


@pytest.mark.parametrize("as_learner", [False, True])
def test_figure_4_4_an_empty_member_with_a_vote_costs_availability(as_learner: bool) -> None:
    """4.2.1: S4 has nothing yet. With a vote it is needed as soon as S3 fails; as a learner it is not."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.write(b"a")
    join(cluster, 4)
    cluster.drop = lambda message: message.source == 4  # it is still catching up
    if as_learner:
        configure(cluster, 1, Configuration(voters(1, 2, 3), learners=voters(4)))
    else:
        configure(cluster, 1, Configuration(voters(1, 2, 3, 4)))
    cluster.settle()
    cluster.crash(3)
    before = leader.commit_index
    cluster.write(b"b")
    assert (leader.commit_index > before) is as_learner
    cluster.heal()
    cluster.tick(2 * HEARTBEAT)
    assert cluster.nodes[4].data == [b"a", b"b"]
    assert leader.commit_index == leader.last_index


def test_figure_4_4_three_empty_members_in_a_row_stop_everything() -> None:
    """4.2.1: no failure is needed: {1,2,3} and three empty members make six, and four of them have to agree."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    join(cluster, 4, 5, 6)
    cluster.drop = lambda message: message.source in (4, 5, 6)
    for members in (voters(1, 2, 3, 4), voters(1, 2, 3, 4, 5)):
        configure(cluster, 1, Configuration(members))
        cluster.settle()
        assert leader.commit_index == leader.last_index, "three of four and of five are there"
    configure(cluster, 1, Configuration(voters(1, 2, 3, 4, 5, 6)))
    cluster.settle()
    assert leader.commit_index < leader.last_index


def test_figure_4_5_a_learner_catches_up_in_rounds_that_become_shorter() -> None:
    """4.2.1: each round brings what came in during the one before."""
    cluster = Cluster(3, limits=Limits(append_messages_in_flight_max=1))
    leader = cluster.elect(1)
    cluster.write(*[b"%d" % number for number in range(64)])
    join(cluster, 4)
    configure(cluster, 1, Configuration(voters(1, 2, 3), learners=voters(4)))
    cluster.settle(only={1, 2, 3})
    cluster.settle(only={4})  # it says that it has nothing
    rounds: list[int] = []
    while not rounds or rounds[-1]:
        cluster.settle(only={1, 2, 3})
        view = leader.progress(4)
        assert view is not None
        rounds.append(leader.last_index - view.match_index)
        for _ in range(rounds[-1] // 4):  # while a round is under way, the cluster writes a quarter as much
            leader.propose(1, b"x")
        cluster.settle(only={1, 2, 3})
        cluster.settle(only={4})
    assert rounds == [66, 16, 4, 1, 0]
    assert cluster[4].last_index == leader.last_index


@pytest.mark.parametrize("pre_vote", [True, False])
def test_figure_4_6_a_leader_that_removes_itself_may_be_the_only_one_who_can_win(pre_vote: bool) -> None:
    """4.2.2: S1's entry that removes it reaches nobody before it restarts; S2 cannot win against S1's longer log."""
    cluster = Cluster(2, pre_vote=pre_vote)
    cluster.elect(1)
    cluster.drop = lambda message: isinstance(message, AppendEntries)
    configure(cluster, 1, Configuration(voters(2)))
    cluster.settle()
    cluster.crash(1)
    cluster.restart(1)
    cluster.heal()
    cluster.tick_until(lambda: cluster[2].commit_index >= 2)
    assert 1 in list(cluster.leaders.values())[1:], "S1 led once more, without a vote"
    cluster.tick_until(lambda: cluster[2].is_leader)
    cluster.write(b"x")
    assert cluster.nodes[2].data == [b"x"]
    term = cluster[1].term
    for _ in range(10 * TIMEOUT):
        cluster[1].tick()
    assert cluster[1].term == term, "now its removal is committed, and it knows: it never runs again"


def test_who_was_removed_by_a_committed_entry_does_not_run_after_a_restart_either() -> None:
    """4.2.2, 4.2.3."""
    cluster = Cluster(3)
    cluster.elect(1)
    configure(cluster, 1, Configuration(voters(2, 3)))
    cluster.settle()
    cluster.tick_until(lambda: cluster.leader() is not None)
    cluster.crash(1)
    cluster.restart(1)
    cluster.history.clear()
    for _ in range(5 * TIMEOUT):
        cluster[1].tick()
        cluster.settle()
    asked = of_kind(RequestVote, cluster.history)
    assert not cluster[1].is_leader
    assert all(message.pre_vote for message in asked), (
        "its saved commit index is a hint; it may ask, and raises no term"
    )
    assert set(cluster.leaders) == {1, cluster[1].term}, "the others' leader is still the same"


def test_figure_4_7_a_removed_server_whose_log_is_good_enough_disturbs_nobody() -> None:
    """4.2.3: S4 leads and removes S1; S2 and S3 do not have that entry yet, so by its log S1 could win. They hear S4."""
    cluster = cluster_of([[1], [1], [1], [1]], term=1)
    leader = cluster.elect(4)
    cluster.tick(HEARTBEAT)
    cluster.drop = lambda message: isinstance(message, AppendEntries)
    configure(cluster, 4, Configuration(voters(2, 3, 4)))
    cluster.settle()
    assert cluster[1].last_term == cluster[2].last_term == cluster[3].last_term
    assert cluster[1].last_index == cluster[2].last_index < leader.last_index
    for _ in range(4 * TIMEOUT):
        cluster[1].tick()
        cluster[4].tick()
        cluster.settle()
    assert cluster[1].role == "pre_candidate"
    assert not [m for m in of_kind(RequestVoteResponse, cluster.history) if m.target == 1], "nobody even answers"
    assert (leader.is_leader, leader.term) == (True, cluster[2].term)
    cluster.heal()
    cluster.tick(TIMEOUT)
    assert leader.commit_index == leader.last_index


def stages() -> Iterator[tuple[str, Solo]]:
    """A leader of {1,2,3} on the way to {1,4,5}, at each stage of figure 4.8."""
    joint = Configuration(voters(1, 4, 5), OLD.voters)
    for stage in ("old", "joint", "new"):
        solo = Solo()
        solo.lead()
        if stage != "old":
            solo.raft.propose(ENTRY_CONFIGURATION, encode_configuration(joint))
            solo.drain()
        if stage == "new":
            solo.step(solo.accept(2, 2), solo.accept(4, 2))
            solo.raft.propose(ENTRY_CONFIGURATION, encode_configuration(leave_joint(joint)))
            solo.drain()
        yield stage, solo


def test_figure_4_8_there_is_no_time_at_which_both_configurations_decide_alone() -> None:
    """4.3: {1,2,3} alone before the joint entry, both majorities under it, {1,4,5} alone behind it."""
    deciders: dict[str, set[frozenset[int]]] = {"old": set(), "joint": set(), "new": set()}
    for others in subsets(voters(2, 3, 4, 5)):
        for stage, solo in stages():
            solo.raft.propose(1, b"x")
            solo.drain()
            for source in sorted(others):
                if solo.raft.is_leader and solo.raft.progress(source) is not None:
                    solo.step(AppendEntriesResponse(solo.raft.term, source, 1, solo.raft.last_index))
            if solo.raft.commit_index == solo.raft.last_index:
                deciders[stage].add(frozenset(others | {1}))
    assert {1, 2} in deciders["old"]
    assert not any(has_quorum(OLD, group) != (group in deciders["old"]) for group in map(frozenset, groups()))
    new = Configuration(voters(1, 4, 5))
    for group in map(frozenset, groups()):
        assert (group in deciders["joint"]) == (has_quorum(OLD, group) and has_quorum(new, group))
        assert (group in deciders["new"]) == has_quorum(new, group)


def groups() -> Iterator[set[int]]:
    for others in subsets(voters(2, 3, 4, 5)):
        yield others | {1}


def test_a_new_configuration_is_committed_by_its_own_majority() -> None:
    """4.1: "committed on a majority of the C_new servers", the leader counted among them."""
    solo = Solo()
    solo.lead()
    solo.raft.propose(ENTRY_CONFIGURATION, encode_configuration(Configuration(voters(1, 2, 3, 4))))
    solo.drain()
    solo.step(solo.accept(4, 2))
    assert solo.raft.commit_index == 1, "two of four"
    solo.step(solo.accept(2, 2))
    assert solo.raft.commit_index == 2


def test_a_leader_that_removes_itself_does_not_count_itself() -> None:
    """4.2.2: "it replicates log entries but does not count itself in majorities"."""
    solo = Solo()
    solo.lead()
    solo.raft.propose(ENTRY_CONFIGURATION, encode_configuration(Configuration(voters(2, 3))))
    solo.drain()
    solo.step(solo.accept(2, 2))
    assert solo.raft.commit_index == 1
    assert solo.raft.is_leader
    solo.step(solo.accept(3, 2))
    assert solo.raft.commit_index == 2
    assert not solo.raft.is_leader


def test_entries_are_taken_from_a_leader_that_is_no_member() -> None:
    """4.1: "a server accepts AppendEntries requests from a leader that is not part of the server's latest configuration"."""
    solo = Solo(configuration=Configuration(voters(1, 3, 4)))
    (answer,) = of_kind(AppendEntriesResponse, solo.step(solo.append((0, 0), [1], term=1)))
    assert (answer.target, answer.rejected, answer.match_index) == (2, False, 1)
    newcomer = Solo(configuration=Configuration(frozenset()))
    (answer,) = of_kind(AppendEntriesResponse, newcomer.step(newcomer.append((0, 0), [1], term=1)))
    assert answer.match_index == 1, "a new member has no configuration at all"


def test_a_vote_is_given_to_a_candidate_that_is_no_member() -> None:
    """4.1: "a server grants its vote to a candidate that is not part of the server's latest configuration"."""
    solo = Solo(configuration=Configuration(voters(1, 2)))
    (answer,) = of_kind(RequestVoteResponse, solo.step(solo.request(1, (0, 0), source=9)))
    assert answer.granted
