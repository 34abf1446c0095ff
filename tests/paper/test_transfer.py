"""Claims of 3.10: leadership transfer."""

import pytest

from raftkv.errors import NotLeader, TransferRefused
from raftkv.limits import Limits
from raftkv.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    HeartbeatResponse,
    RequestVote,
    TimeoutNow,
)
from tests.unit.raft.cluster import TIMEOUT, Cluster
from tests.unit.raft.solo import Solo, of_kind


def test_the_prior_leader_stops_taking_requests() -> None:
    """3.10, step 1."""
    solo = Solo()
    solo.lead()
    solo.raft.propose(1, b"x")
    solo.raft.transfer_leadership(2)
    assert solo.raft.is_transferring
    with pytest.raises(NotLeader, match="being transferred to member 2"):
        solo.raft.propose(1, b"y")


def test_the_target_is_brought_up_to_date_first() -> None:
    """3.10, step 2."""
    solo = Solo()
    solo.lead()
    solo.raft.propose(1, b"x")
    solo.raft.transfer_leadership(2)
    sent = solo.drain()
    assert of_kind(AppendEntries, sent)
    assert of_kind(TimeoutNow, sent) == []
    assert of_kind(TimeoutNow, solo.step(solo.accept(3, 2))) == []
    (now,) = of_kind(TimeoutNow, solo.step(solo.accept(2, 2)))
    assert now.target == 2


def test_timeout_now_starts_an_election_at_once_without_asking() -> None:
    """3.10, step 3."""
    solo = Solo(terms=[1])
    solo.step(solo.heartbeat(1))
    requests = of_kind(RequestVote, solo.step(TimeoutNow(1, 2, 1)))
    assert [(r.term, r.pre_vote, r.transfer) for r in requests] == [(2, False, True)] * 2


@pytest.mark.parametrize(("term", "source"), [(0, 2), (1, 3)])
def test_timeout_now_from_anybody_but_the_present_leader_is_ignored(term: int, source: int) -> None:
    """3.10 with 3.3."""
    solo = Solo()
    solo.step(solo.heartbeat(1))
    solo.step(TimeoutNow(term, source, 1))
    assert (solo.raft.role, solo.raft.term) == ("follower", 1)


def test_leadership_moves_and_nothing_is_lost() -> None:
    """3.10."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.write(b"a")
    cluster[1].transfer_leadership(3)
    cluster.settle()
    assert cluster.leaders == {1: 1, 2: 3}
    cluster.write(b"b")
    cluster.tick()
    assert all(node.data == [b"a", b"b"] for node in cluster.nodes.values())
    assert not cluster[1].is_transferring


def test_without_a_target_the_most_caught_up_voter_takes_over() -> None:
    """3.10."""
    cluster = Cluster(3, learners=1)
    cluster.elect(1)
    cluster.isolate(2)
    cluster.write(b"a")
    cluster.heal()
    cluster[1].transfer_leadership()
    cluster.settle()
    assert cluster.leaders[2] == 3


def test_a_transfer_is_aborted_after_an_election_timeout() -> None:
    """3.10: the prior leader must resume."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(2)
    cluster.write(b"a")
    cluster[1].transfer_leadership(2)
    cluster.tick(TIMEOUT - 1)
    assert cluster[1].is_transferring
    cluster.tick()
    assert not cluster[1].is_transferring
    cluster.write(b"b")
    assert cluster.nodes[1].data == [b"a", b"b"]


def refusal(solo: Solo, target: int | None) -> str:
    with pytest.raises(TransferRefused) as caught:
        solo.raft.transfer_leadership(target)
    return caught.value.message


def test_refusals_say_why() -> None:
    """Our addition to 3.10."""
    solo = Solo(configuration=Configuration(frozenset({1, 2, 3}), learners=frozenset({4})))
    assert refusal(solo, 2) == "this member is not the leader"
    solo.lead()
    assert refusal(solo, 9) == "member 9 is not part of the cluster"
    assert refusal(solo, 4) == "member 4 has no vote in the configuration, so it cannot lead"
    solo.raft.transfer_leadership(1)
    assert not solo.raft.is_transferring, "to itself is a no-op"
    solo.raft.propose(1, b"x")
    solo.raft.transfer_leadership(2)
    assert refusal(solo, 3) == "a transfer to member 2 is running"
    solo.raft.transfer_leadership(2)
    solo.raft.transfer_leadership()
    alone = Solo(size=1)
    alone.lead()
    assert refusal(alone, None) == "there is no other voter"


def test_a_target_that_would_keep_the_cluster_waiting_is_refused() -> None:
    """Our addition: proposals stop during a transfer, so a target that is far behind or silent is no target."""
    solo = Solo(limits=Limits(transfer_lag_entries_max=3))
    solo.lead()
    for number in range(4):
        solo.raft.propose(1, b"%d" % number)
    solo.drain()
    assert refusal(solo, 3).startswith("member 3 is 4 entries behind, at most 3 may be left")
    solo.step(solo.accept(3, 2))
    solo.raft.transfer_leadership(3)
    assert solo.raft.is_transferring
    solo = Solo()
    solo.lead()
    for _ in range(TIMEOUT):
        solo.tick()
        solo.step(solo.heartbeat_response(2, 0))
    assert refusal(solo, 3) == "member 3 has not answered for 250 ms"
    assert not solo.raft.is_transferring
    solo.raft.transfer_leadership()
    assert solo.raft.is_transferring, "member 2 answers"


def test_a_target_that_is_being_sent_a_snapshot_is_refused() -> None:
    """Our addition, as above: the log cannot bring it up to date."""
    solo = Solo(terms=[1] * 9, commit=9, applied=9)
    solo.elect()
    solo.step(solo.accept(2, 10))
    solo.raft.compact(8)
    solo.step(AppendEntriesResponse(2, 3, 1, 9, rejected=True, hint_index=2, hint_term=1))
    assert refusal(solo, 3) == "member 3 is so far behind that it is being sent a snapshot"


def test_a_silent_cluster_has_nobody_to_take_over() -> None:
    """Our addition to 3.10."""
    solo = Solo(check_quorum=False)
    solo.lead()
    solo.tick(TIMEOUT)
    assert refusal(solo, None) == "no other voter answers"


def test_a_new_leader_may_hand_over_before_it_knows_its_followers() -> None:
    """3.10: one that is told to end right after its election must not stay in office for want of acknowledgements."""
    solo = Solo(terms=[1] * 9, limits=Limits(transfer_lag_entries_max=3))
    solo.elect()
    solo.raft.transfer_leadership(2)
    assert solo.raft.is_transferring


def test_a_lost_timeout_now_leaves_the_leader_in_office() -> None:
    """3.10."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.drop = lambda message: isinstance(message, TimeoutNow)
    cluster[1].transfer_leadership(2)
    cluster.tick(TIMEOUT)
    assert cluster[1].is_leader
    assert not cluster[1].is_transferring


def test_rather_a_member_whose_disk_is_well() -> None:
    """3.10 leaves the choice to us, when nobody names a target; whoever is the only one is asked all the same."""
    for ill, expected in (((2,), 3), ((2, 3), 2), ((), 2)):
        cluster = Cluster(3)
        cluster.elect(1)
        for node_id in ill:
            cluster[node_id].report_unfit(True)
        cluster.tick(TIMEOUT)
        cluster[1].transfer_leadership()
        assert cluster[1].transfer_target == expected


def test_not_one_that_is_well_and_far_behind() -> None:
    """3.10, step 2: nothing is proposed until it has caught up."""
    solo = Solo(limits=Limits(transfer_lag_entries_max=3))
    solo.lead()
    for _ in range(5):
        solo.raft.propose(1, b"x")
    solo.drain()
    solo.step(solo.accept(2, solo.raft.last_index))
    solo.step(HeartbeatResponse(solo.raft.term, 2, 1, unfit=True), HeartbeatResponse(solo.raft.term, 3, 1))
    solo.raft.transfer_leadership()
    assert solo.raft.transfer_target == 2
