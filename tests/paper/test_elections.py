"""Claims of 3.2 to 3.4, 3.6.1 and 3.8 about terms, votes and elections; each test names its claim."""

import pytest

from raftkv.raft.messages import AppendEntries, AppendEntriesResponse, RequestVote, RequestVoteResponse
from tests.unit.raft.cluster import TIMEOUT, Cluster
from tests.unit.raft.solo import Solo, of_kind


def test_servers_start_as_followers() -> None:
    """3.3: "When servers start up, they begin as followers"."""
    assert Solo(terms=[1, 2]).raft.role == "follower"


def test_a_follower_stays_one_while_it_hears_a_leader() -> None:
    """3.4."""
    solo = Solo()
    for _ in range(3 * TIMEOUT):
        solo.tick()
        solo.step(solo.heartbeat(1))
    assert (solo.raft.role, solo.raft.term, solo.raft.leader) == ("follower", 1, 2)


def test_silence_for_an_election_timeout_starts_an_election() -> None:
    """3.4: it increments its term, votes for itself and asks all others in parallel."""
    solo = Solo(size=5, terms=[1, 1], pre_vote=False)
    assert solo.tick(TIMEOUT - 1) == []
    requests = of_kind(RequestVote, solo.tick())
    assert (solo.raft.role, solo.raft.term, solo.raft.vote) == ("candidate", 2, 1)
    assert [(r.target, r.term, r.last_index, r.last_term) for r in requests] == [(n, 2, 2, 1) for n in (2, 3, 4, 5)]


@pytest.mark.parametrize(
    ("size", "votes", "role"),
    [(1, 0, "leader"), (3, 0, "candidate"), (3, 1, "leader"), (5, 1, "candidate"), (5, 2, "leader"), (5, 4, "leader")],
)
def test_a_majority_of_the_full_cluster_wins(size: int, votes: int, role: str) -> None:
    """3.4: the candidate's own vote counts as one."""
    solo = Solo(size, pre_vote=False)
    solo.tick(TIMEOUT)
    for source in range(2, votes + 2):
        solo.step(solo.grant(source))
    assert solo.raft.role == role


def test_a_vote_counts_once_however_often_it_arrives() -> None:
    """3.4: each server gives at most one vote; a doubled message is no second one."""
    solo = Solo(size=5, pre_vote=False)
    solo.tick(TIMEOUT)
    solo.step(solo.grant(2), solo.grant(2), solo.grant(2))
    assert solo.raft.role == "candidate"


def test_votes_of_an_older_term_do_not_count() -> None:
    """3.3: messages of an older term are rejected."""
    solo = Solo(pre_vote=False)
    solo.tick(TIMEOUT)
    solo.tick(TIMEOUT)
    assert solo.raft.term == 2
    solo.step(RequestVoteResponse(1, 2, 1, True), RequestVoteResponse(1, 3, 1, True))
    assert solo.raft.role == "candidate"


def test_at_most_one_vote_per_term_first_come_first_served() -> None:
    """3.4, and 3.2 (election safety)."""
    solo = Solo(check_quorum=False)
    (first,) = of_kind(RequestVoteResponse, solo.step(solo.request(1, (0, 0), source=2)))
    (second,) = of_kind(RequestVoteResponse, solo.step(solo.request(1, (0, 0), source=3)))
    (again,) = of_kind(RequestVoteResponse, solo.step(solo.request(1, (0, 0), source=2)))
    assert (first.granted, second.granted, again.granted) == (True, False, True)


def test_a_candidate_yields_to_a_leader_of_its_own_term() -> None:
    """3.4: a leader's term at least as large as the candidate's is legitimate."""
    solo = Solo(pre_vote=False)
    solo.tick(TIMEOUT)
    solo.step(solo.append((0, 0), [1], term=1))
    assert (solo.raft.role, solo.raft.leader, solo.raft.vote) == ("follower", 2, 1)


def test_a_candidate_rejects_a_leader_of_an_older_term_and_goes_on() -> None:
    """3.4."""
    solo = Solo(terms=[1], pre_vote=False)
    solo.tick(TIMEOUT)
    (response,) = of_kind(AppendEntriesResponse, solo.step(solo.append((0, 0), [1], term=1)))
    assert (response.rejected, response.term, solo.raft.role) == (True, 2, "candidate")


def test_a_split_vote_ends_with_a_new_term_after_a_new_timeout() -> None:
    """3.4: nobody wins, and each times out and starts a new election."""
    solo = Solo(pre_vote=False)
    solo.tick(TIMEOUT)
    solo.step(RequestVoteResponse(1, 2, 1, False))
    assert solo.raft.role == "candidate"
    solo.tick(TIMEOUT)
    assert (solo.raft.role, solo.raft.term) == ("candidate", 2)


def test_timeouts_are_drawn_anew_from_a_fixed_interval() -> None:
    """3.4, 9.3: randomized, so that split votes are rare; [T, 2T) here."""
    drawn: list[tuple[int, int]] = []

    def draw(low: int, high: int) -> int:
        drawn.append((low, high))
        return high

    solo = Solo(pre_vote=False, draw=draw)
    assert solo.tick(2 * TIMEOUT - 2) == []
    assert of_kind(RequestVote, solo.tick())
    solo.tick(2 * TIMEOUT - 1)
    assert solo.raft.term == 2
    assert set(drawn) == {(TIMEOUT, 2 * TIMEOUT - 1)}
    assert len(drawn) >= 3


@pytest.mark.parametrize("role", ["follower", "candidate", "leader"])
def test_a_larger_term_turns_anybody_into_a_follower(role: str) -> None:
    """3.3: terms act as a logical clock."""
    solo = Solo(pre_vote=False)
    if role == "candidate":
        solo.tick(TIMEOUT)
    elif role == "leader":
        solo.lead()
    assert solo.raft.role == role
    solo.step(AppendEntriesResponse(9, 3, 1, 0, rejected=True))
    assert (solo.raft.role, solo.raft.term, solo.raft.vote) == ("follower", 9, 0)


@pytest.mark.parametrize(
    ("own", "candidate", "granted"),
    [
        ([1], (1, 1), True),
        ([1], (2, 1), True),
        ([1, 1], (1, 1), False),
        ([1], (1, 2), True),
        ([1, 1], (1, 2), True),
        ([2], (1, 1), False),
        ([2], (9, 1), False),
        ([], (0, 0), True),
    ],
)
def test_the_election_restriction(own: list[int], candidate: tuple[int, int], granted: bool) -> None:
    """3.6.1: more up-to-date is the later last term, then the longer log."""
    solo = Solo(terms=own)
    (response,) = of_kind(RequestVoteResponse, solo.step(solo.request(5, candidate)))
    assert response.granted is granted
    assert solo.raft.vote == (3 if granted else 0)
    assert solo.raft.term == 5, "a refused vote still brings the newer term"


def test_votes_leave_only_after_they_are_durable() -> None:
    """3.8: a server that restarts must not vote twice in a term."""
    solo = Solo()
    solo.raft.step(solo.request(3, (0, 0)))
    effects = solo.take()
    assert effects.send_now == []
    assert effects.hard_state is not None
    assert (effects.hard_state.term, effects.hard_state.vote) == (3, 3)
    assert [type(m) for m in effects.send_after_save] == [RequestVoteResponse]


def test_a_candidate_asks_and_counts_itself_only_after_its_own_vote_is_durable() -> None:
    """3.8."""
    solo = Solo(size=1, pre_vote=False)
    for _ in range(TIMEOUT):
        solo.raft.tick()
    effects = solo.take()
    assert effects.hard_state is not None
    assert not solo.raft.is_leader
    solo.save()
    assert solo.raft.is_leader

    solo = Solo(size=3, pre_vote=False)
    for _ in range(TIMEOUT):
        solo.raft.tick()
    effects = solo.take()
    assert effects.send_now == []
    assert len(of_kind(RequestVote, effects.send_after_save)) == 2


def test_the_save_of_an_earlier_term_does_not_make_the_own_vote_count() -> None:
    """3.8: the disk may lag behind by an election."""
    solo = Solo(size=1, pre_vote=False)
    for term in (1, 2):
        for _ in range(TIMEOUT):
            solo.raft.tick()
        solo.take()
        assert solo.raft.term == term
    solo.save()
    assert not solo.raft.is_leader
    solo.save()
    assert solo.raft.is_leader


def test_term_and_vote_survive_a_restart() -> None:
    """3.8."""
    cluster = Cluster(3)
    cluster.elect(1)
    before = (cluster[2].term, cluster[2].vote)
    cluster.crash(2)
    cluster.restart(2)
    assert (cluster[2].term, cluster[2].vote) == before == (1, 1)
    cluster[2].step(RequestVote(1, 3, 2, 99, 1))
    assert cluster[2].vote == 1


def test_two_leaders_in_one_term_stop_the_member() -> None:
    """3.2: election safety is watched in production, too."""
    solo = Solo()
    solo.step(solo.heartbeat(1, source=2))
    with pytest.raises(AssertionError, match="two leaders in term 1"):
        solo.step(solo.heartbeat(1, source=3))
    leader = Solo()
    leader.lead()
    with pytest.raises(AssertionError, match="two leaders"):
        leader.step(AppendEntries(1, 2, 1, 0, 0, 0, []))


def test_the_leader_sends_heartbeats_to_prevent_elections() -> None:
    """3.4."""
    cluster = Cluster(5)
    cluster.elect(3)
    cluster.tick(10 * TIMEOUT)
    assert cluster.leaders == {1: 3}
    assert all(node.raft.leader == 3 for node in cluster.nodes.values())
