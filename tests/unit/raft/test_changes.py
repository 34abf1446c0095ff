"""Which configuration a change leads to, and what speaks against it (chapter 4)."""

import itertools

import pytest

from raftkv.errors import MembershipBusy, MembershipRefused, NotLeader, QuorumWouldBeLost
from raftkv.raft.changes import Change, next_configuration
from raftkv.raft.messages import Configuration
from tests.unit.raft.cluster import HEARTBEAT, TIMEOUT, Cluster
from tests.unit.raft.solo import Solo


def ids(*node_ids: int) -> frozenset[int]:
    return frozenset(node_ids)


THREE = Configuration(ids(1, 2, 3), learners=ids(4, 5))


@pytest.mark.parametrize(
    ("change", "following"),
    [
        (Change(learn=ids(6, 7)), Configuration(ids(1, 2, 3), learners=ids(4, 5, 6, 7))),
        (Change(promote=ids(4)), Configuration(ids(1, 2, 3, 4), learners=ids(5))),
        (Change(remove=ids(3)), Configuration(ids(1, 2), learners=ids(4, 5))),
        (Change(demote=ids(3), remove=ids(4)), Configuration(ids(1, 2), learners=ids(3, 5))),
        (
            Change(promote=ids(4, 5)),
            Configuration(ids(1, 2, 3, 4, 5), ids(1, 2, 3), auto_leave=True),
        ),
        (
            Change(promote=ids(4, 5), remove=ids(1), demote=ids(2)),
            Configuration(ids(3, 4, 5), ids(1, 2, 3), learners_next=ids(2), auto_leave=True),
        ),
    ],
)
def test_one_vote_goes_in_one_step_and_more_go_through_a_joint_configuration(
    change: Change, following: Configuration
) -> None:
    """4.2, 4.3."""
    assert next_configuration(THREE, change) == following


def test_majorities_before_and_after_every_step_overlap() -> None:
    """Every change of up to five members: a single step, or both halves of a joint one, share a member with what was before."""
    kinds = ("promote", "demote", "remove", "learn", "")
    for chosen in itertools.product(kinds, repeat=5):
        lists = {kind: frozenset(i for i, k in enumerate(chosen, 1) if k == kind) for kind in kinds if kind}
        try:
            following = next_configuration(THREE, Change(**lists))
        except MembershipRefused:
            continue
        if following.voters_outgoing:
            assert following.voters_outgoing == THREE.voters
            assert not following.learners & (following.voters | following.voters_outgoing)
        else:
            assert len(following.voters ^ THREE.voters) <= 1
        assert not following.voters & following.learners


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Change(), "names no member"),
        (Change(promote=ids(4), remove=ids(4)), "names a member twice"),
        (Change(learn=ids(1)), "member 1 is part of the cluster already"),
        (Change(promote=ids(9)), "member 9 is not part of the cluster"),
        (Change(promote=ids(1)), "member 1 has a vote already"),
        (Change(demote=ids(4)), "member 4 has no vote"),
        (Change(remove=ids(1, 2), demote=ids(3)), "nobody would have a vote"),
    ],
)
def test_what_makes_no_sense_is_refused(change: Change, reason: str) -> None:
    with pytest.raises(MembershipRefused, match=reason):
        next_configuration(THREE, change)


def leading() -> Cluster:
    cluster = Cluster(5)
    cluster.elect(1)
    cluster[1].propose_change(Change(demote=ids(4)))
    cluster.settle()
    cluster[1].propose_change(Change(demote=ids(5)))
    cluster.settle()
    return cluster


def test_only_a_leader_that_knows_what_is_committed_changes_anything() -> None:
    solo = Solo()
    with pytest.raises(NotLeader):
        solo.raft.propose_change(Change(learn=ids(4)))
    solo.elect()
    with pytest.raises(MembershipBusy, match="not committed anything yet"):
        solo.raft.propose_change(Change(learn=ids(4)))


def test_one_change_at_a_time() -> None:
    """4.1: until the configuration of the first is committed."""
    solo = Solo()
    solo.lead()
    solo.raft.propose_change(Change(learn=ids(4)))
    with pytest.raises(MembershipBusy, match="not finished"):
        solo.raft.propose_change(Change(learn=ids(5)))


def test_nothing_changes_while_leadership_is_being_transferred() -> None:
    solo = Solo()
    solo.lead()
    solo.raft.transfer_leadership(2)
    with pytest.raises(NotLeader, match="transferred"):
        solo.raft.propose_change(Change(learn=ids(4)))


def test_a_learner_that_lags_is_refused_with_figures() -> None:
    """4.2.1."""
    cluster = leading()
    cluster.crash(5)
    cluster.tick(TIMEOUT)
    with pytest.raises(MembershipRefused, match="member 5 cannot get a vote: it has not answered for"):
        cluster[1].propose_change(Change(promote=ids(5)))
    configuration = cluster[1].configuration
    cluster[1].propose_change(Change(promote=ids(4)))
    cluster.settle()
    assert configuration.learners == ids(4, 5)
    assert cluster[1].configuration.voters == ids(1, 2, 3, 4)


def test_a_learner_whose_disk_is_ill_gets_no_vote_until_it_is_well() -> None:
    """It answers, and has the log: found by the simulator, where its vote was then the one that a majority lacked."""
    cluster = leading()
    cluster[4].report_unfit(True)
    cluster.tick(TIMEOUT)
    with pytest.raises(MembershipRefused, match="member 4 cannot get a vote: its disk is full or stalled"):
        cluster[1].propose_change(Change(promote=ids(4)))
    cluster[4].report_unfit(False)
    cluster.tick(TIMEOUT)
    cluster[1].propose_change(Change(promote=ids(4)))
    cluster.settle()
    assert cluster[1].configuration.voters == ids(1, 2, 3, 4)


def test_a_new_learner_is_refused_until_it_has_caught_up() -> None:
    solo = Solo()
    solo.lead()
    solo.raft.propose_change(Change(learn=ids(4)))
    solo.drain()
    for source in (2, 3):
        solo.step(solo.accept(source, solo.raft.last_index))
    with pytest.raises(MembershipRefused, match=r"member 4 cannot get a vote yet: it is 2 entries behind \(0 of 2\)"):
        solo.raft.propose_change(Change(promote=ids(4)))


def test_a_change_that_no_quorum_would_answer_is_refused_unless_it_is_forced() -> None:
    cluster = leading()
    cluster.crash(3)
    cluster.tick(TIMEOUT)
    before = cluster[1].configuration
    with pytest.raises(MembershipRefused, match="would lose its quorum: of 2 voters member 3 would not answer"):
        cluster[1].propose_change(Change(remove=ids(2)))
    assert cluster[1].configuration == before
    cluster[1].propose_change(Change(remove=ids(2)), force=True)
    assert cluster[1].configuration.voters == ids(1, 3)


def test_one_whose_connection_broke_a_moment_ago_does_not_count_for_the_quorum() -> None:
    cluster = leading()
    cluster.crash(3)
    cluster[1].on_peer_unreachable(3)
    with pytest.raises(MembershipRefused, match="would lose its quorum"):
        cluster[1].propose_change(Change(remove=ids(2)))


def test_of_those_who_had_no_time_yet_to_answer_this_leader_nobody_says_that_they_would_not() -> None:
    """Whoever hands over because it is to go, is followed by the same request at once; a daemon that joins would have given up."""
    solo = Solo(5)
    solo.elect()
    for source in (2, 3):
        solo.step(solo.accept(source, solo.raft.last_index))
    change = Change(remove=ids(2, 3))
    with pytest.raises(MembershipBusy, match="has not heard of member 4, member 5 yet"):
        solo.raft.propose_change(change)
    solo.step(solo.accept(4, solo.raft.last_index))
    solo.raft.propose_change(change)
    assert solo.raft.configuration.voters == ids(1, 4, 5)


def test_a_leader_that_is_not_new_any_more_knows_who_is_silent() -> None:
    solo = Solo(5)
    solo.elect()
    for source in (2, 3):
        solo.step(solo.accept(source, solo.raft.last_index))
    for _ in range(TIMEOUT):
        solo.tick()
        solo.step(*(solo.accept(source, solo.raft.last_index) for source in (2, 3)))
    with pytest.raises(QuorumWouldBeLost, match="of 5 voters member 4, member 5 would not answer"):
        solo.raft.propose_change(Change(remove=ids(2, 3)))


def test_any_set_of_voters_is_replaced_in_one_change_and_the_joint_configuration_left() -> None:
    """4.3; the leader is not part of the new configuration and gives its office up once that is committed (4.2.2)."""
    cluster = leading()
    cluster[1].propose_change(Change(promote=ids(4, 5), remove=ids(1, 2)))
    assert cluster[1].configuration.voters_outgoing == ids(1, 2, 3)
    cluster.settle()
    cluster.tick(HEARTBEAT)
    assert cluster[3].configuration == Configuration(ids(3, 4, 5))
    assert cluster[1].role != "leader"
    cluster.tick(3 * TIMEOUT)
    assert any(cluster[node_id].is_leader for node_id in (3, 4, 5))


def test_a_joint_configuration_is_left_after_a_transfer_that_came_to_nothing() -> None:
    """Nothing is appended during a transfer (3.10); without another entry the cluster would stay joint."""
    cluster = leading()
    cluster.nodes[2].draw = lambda low, high: high
    cluster[1].propose_change(Change(promote=ids(4, 5)))
    cluster.crash(3)
    cluster[1].transfer_leadership(2)
    cluster.crash(2)
    cluster.settle()
    assert cluster[1].configuration.voters_outgoing
    cluster.restart(2)
    cluster.restart(3)
    cluster.tick(3 * TIMEOUT)
    leader = next(node_id for node_id in (1, 2, 3, 4, 5) if cluster[node_id].is_leader)
    assert not cluster[leader].configuration.voters_outgoing
