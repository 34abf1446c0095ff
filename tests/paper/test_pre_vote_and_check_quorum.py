"""Claims of 4.2.3 (disruptive servers), 6.2 (a leader without a quorum steps down) and 9.6 (pre-vote)."""

import pytest

from raftkv.raft.messages import AppendEntriesResponse, RequestVote, RequestVoteResponse
from tests.unit.raft.cluster import TIMEOUT, Cluster
from tests.unit.raft.solo import Solo, of_kind


def test_pre_vote_changes_no_term_and_no_vote() -> None:
    """9.6: a candidate only increments its term if it first learns that a majority would vote for it."""
    solo = Solo(terms=[1])
    requests = of_kind(RequestVote, solo.tick(TIMEOUT))
    assert (solo.raft.role, solo.raft.term, solo.raft.vote) == ("pre_candidate", 1, 0)
    assert [(r.term, r.pre_vote) for r in requests] == [(2, True), (2, True)]
    assert all(e.hard_state is None for e in solo.effects), "asking costs no save"


def test_a_won_pre_vote_starts_the_election() -> None:
    """9.6."""
    solo = Solo()
    solo.tick(TIMEOUT)
    requests = of_kind(RequestVote, solo.step(solo.grant(2, pre_vote=True)))
    assert (solo.raft.role, solo.raft.term) == ("candidate", 1)
    assert not any(request.pre_vote for request in requests)


def test_a_lost_pre_vote_leaves_everything_as_it_was() -> None:
    """9.6."""
    solo = Solo(terms=[1])
    solo.tick(TIMEOUT)
    solo.step(RequestVoteResponse(1, 2, 1, False, True), RequestVoteResponse(1, 3, 1, False, True))
    assert (solo.raft.role, solo.raft.term) == ("follower", 1)


def test_a_grant_for_an_earlier_question_does_not_count() -> None:
    """9.6: it echoes the term that was asked for."""
    solo = Solo(size=5, terms=[1])
    solo.tick(TIMEOUT)
    solo.step(RequestVoteResponse(2, 4, 1, False))  # somebody's newer term ends the first attempt
    solo.tick(TIMEOUT)
    assert (solo.raft.role, solo.raft.term) == ("pre_candidate", 2)
    solo.step(RequestVoteResponse(2, 2, 1, True, True), RequestVoteResponse(2, 3, 1, True, True))
    assert solo.raft.role == "pre_candidate"
    solo.step(RequestVoteResponse(3, 2, 1, True, True), RequestVoteResponse(3, 3, 1, True, True))
    assert solo.raft.role == "candidate"


def test_a_pre_vote_is_granted_to_many_and_recorded_for_nobody() -> None:
    """9.6: it is a question, no vote."""
    solo = Solo(terms=[1])
    answers = solo.step(
        solo.request(2, (1, 1), source=2, pre_vote=True), solo.request(2, (1, 1), source=3, pre_vote=True)
    )
    assert [(a.granted, a.term) for a in of_kind(RequestVoteResponse, answers)] == [(True, 2), (True, 2)]
    assert (solo.raft.term, solo.raft.vote) == (1, 0)


def test_a_pre_vote_needs_an_up_to_date_log() -> None:
    """9.6 with 3.6.1."""
    solo = Solo(terms=[1, 1])
    (answer,) = of_kind(RequestVoteResponse, solo.step(solo.request(2, (1, 1), pre_vote=True)))
    assert not answer.granted


@pytest.mark.parametrize("pre_vote", [True, False])
def test_within_the_election_timeout_of_a_leader_no_vote_and_no_newer_term(pre_vote: bool) -> None:
    """4.2.3: "it does not update its term or grant its vote"."""
    solo = Solo()
    solo.step(solo.heartbeat(1))
    solo.tick(TIMEOUT - 1)
    assert solo.step(solo.request(7, (9, 9), pre_vote=pre_vote)) == []
    assert (solo.raft.term, solo.raft.leader) == (1, 2)
    solo = Solo(draw=lambda low, high: high)
    solo.step(solo.heartbeat(1))
    solo.tick(TIMEOUT)
    (answer,) = of_kind(RequestVoteResponse, solo.step(solo.request(7, (9, 9), pre_vote=pre_vote)))
    assert answer.granted


def test_a_leader_is_not_disturbed_by_a_candidate_either() -> None:
    """4.2.3."""
    solo = Solo()
    solo.lead()
    assert solo.step(solo.request(7, (9, 9))) == []
    assert solo.raft.is_leader


def test_a_transfer_may_disturb() -> None:
    """4.2.3: the request carries a flag that the leader has allowed it."""
    solo = Solo()
    solo.step(solo.heartbeat(1))
    (answer,) = of_kind(RequestVoteResponse, solo.step(solo.request(2, (9, 9), transfer=True)))
    assert answer.granted


def test_a_partitioned_member_comes_back_without_raising_the_term() -> None:
    """9.6."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.tick(10 * TIMEOUT)
    assert (cluster[3].term, cluster[3].leader) == (1, 0)
    cluster.heal()
    cluster.tick(3 * TIMEOUT)
    assert cluster.leaders == {1: 1}
    assert cluster[3].leader == 1


def test_a_leader_steps_down_when_no_quorum_answers_for_an_election_timeout() -> None:
    """6.2."""
    solo = Solo(size=5)
    solo.lead()
    solo.tick(TIMEOUT - 1)
    assert solo.raft.is_leader
    solo.step(solo.heartbeat_response(2, 1))
    solo.tick()
    assert (solo.raft.role, solo.raft.leader, solo.raft.term) == ("follower", 0, 1)


def test_a_quorum_of_answers_keeps_the_leader() -> None:
    """6.2."""
    solo = Solo(size=5)
    solo.lead()
    for _ in range(3):
        solo.tick(TIMEOUT - 1)
        solo.step(solo.heartbeat_response(2, 1), solo.heartbeat_response(3, 1))
    assert solo.raft.is_leader


def test_what_a_cut_off_leader_hears_from_candidates_is_no_answer() -> None:
    """6.2: a leader that can receive but not send must not live on the questions of others."""
    solo = Solo()
    solo.lead()
    for _ in range(TIMEOUT):
        solo.tick()
        solo.step(solo.request(9, (9, 9), pre_vote=True))
    assert not solo.raft.is_leader


def test_a_member_whose_term_is_ahead_finds_its_way_back() -> None:
    """3.3 with 4.2.3: its vote requests are ignored, so it tells the leader its term, which leads to an election."""
    cluster = Cluster(3, pre_vote=False)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.tick(5 * TIMEOUT)
    assert cluster[3].term > 1
    cluster.heal()
    cluster.tick_until(lambda: cluster.leader() is not None and cluster.leader().term >= cluster[3].term)  # type: ignore[union-attr]
    cluster.tick(TIMEOUT)
    assert len({node.raft.leader for node in cluster.nodes.values()} - {0}) == 1
    cluster.write(b"x")
    assert all(node.data == [b"x"] for node in cluster.nodes.values() if node.raft.is_leader)


def test_an_older_term_is_told_the_newer_one() -> None:
    """3.3: a stale leader, and a stale candidate, learn from the answer."""
    solo = Solo(terms=[5])
    (to_leader,) = of_kind(AppendEntriesResponse, solo.step(solo.heartbeat(3)))
    assert (to_leader.term, to_leader.rejected) == (5, True)
    (to_candidate,) = of_kind(RequestVoteResponse, solo.step(solo.request(3, (9, 9))))
    assert (to_candidate.term, to_candidate.granted) == (5, False)


def test_a_learner_never_runs_but_votes_when_asked() -> None:
    """4.2.1; it may have been promoted without knowing it."""
    cluster = Cluster(3, learners=1)
    for node_id in (1, 2, 3):
        cluster.crash(node_id)
    cluster.tick(10 * TIMEOUT)
    assert (cluster[4].role, cluster[4].term) == ("learner", 0)
    cluster[4].step(RequestVote(1, 1, 4, 0, 0))
    assert cluster[4].vote == 1


def test_a_learner_notices_that_its_leader_is_gone() -> None:
    """4.2.1 with 6.2."""
    cluster = Cluster(3, learners=1)
    cluster.elect(1)
    cluster.tick(2)
    assert cluster[4].leader == 1
    cluster.isolate(4)
    cluster.tick(2 * TIMEOUT)
    assert (cluster[4].role, cluster[4].leader, cluster[4].quorum_contact) == ("learner", 0, False)
    cluster.heal()
    cluster.tick(2)
    assert (cluster[4].leader, cluster[4].quorum_contact) == (1, True)
