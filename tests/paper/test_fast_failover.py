"""Our addition to 3.4: a reset connection from the leader counts as its silence (DESIGN, fast failover)."""

import pytest

from raftkv.raft.messages import RequestVote, RequestVoteResponse
from tests.unit.raft.cluster import HEARTBEAT, TIMEOUT, Cluster
from tests.unit.raft.solo import Solo, of_kind


def first_tick(solo: Solo) -> int:
    """How many ticks after now it asks for votes."""
    return next(tick for tick in range(1, 2 * TIMEOUT) if of_kind(RequestVote, solo.tick()))


def test_a_reset_from_the_leader_starts_a_pre_vote_at_once_and_once_per_reset() -> None:
    """Our addition to 3.4."""
    solo = Solo(fast_failover=True)
    solo.step(solo.heartbeat(1, source=3))
    solo.raft.on_peer_reset(3)
    assert len(of_kind(RequestVote, solo.drain())) == 2
    assert (solo.raft.role, solo.raft.term) == ("pre_candidate", 1)
    assert solo.tick(TIMEOUT - 1) == [], "after the one attempt the ordinary timeout counts"


@pytest.mark.parametrize(
    ("leader", "size", "before"), [(2, 2, 0), (3, 3, 0), (2, 3, 1), (5, 5, 0), (4, 5, 1), (2, 5, 3)]
)
def test_members_take_turns_a_heartbeat_apart_around_the_ring_of_ids(leader: int, size: int, before: int) -> None:
    """Our addition to 3.4: `before` others come between the leader that is gone and this member, which is number 1."""
    solo = Solo(size, fast_failover=True)
    solo.step(solo.heartbeat(1, source=leader))
    solo.raft.on_peer_reset(leader)
    assert bool(of_kind(RequestVote, solo.drain())) == (before == 0)
    if before:
        assert first_tick(solo) == before * HEARTBEAT


def test_who_voted_for_the_first_one_does_not_take_its_turn() -> None:
    """Our addition to 3.4: with the vote begins an ordinary timeout."""
    solo = Solo(fast_failover=True)
    solo.step(solo.heartbeat(1))
    solo.raft.on_peer_reset(2)
    solo.step(solo.request(2, (0, 0), source=3, pre_vote=True))
    assert solo.raft.role == "follower"
    solo.step(solo.request(2, (0, 0), source=3))
    assert first_tick(solo) == TIMEOUT


def test_who_asked_before_the_reset_was_seen_is_answered_with_it() -> None:
    """Our addition to 4.2.3: the first in the line saw it a moment sooner, and would have asked in vain. Its turn is respected."""
    solo = Solo(fast_failover=True)
    solo.step(solo.heartbeat(1, source=3))
    assert solo.step(solo.request(2, (0, 0), source=2, pre_vote=True)) == []
    solo.tick(HEARTBEAT)
    solo.raft.on_peer_reset(3)
    (answer,) = solo.drain()
    assert isinstance(answer, RequestVoteResponse)
    assert (answer.granted, answer.pre_vote, answer.target) == (True, True, 2)
    assert first_tick(solo) == HEARTBEAT, "it is number 1, the first after 3, but somebody was quicker"


def test_a_turn_that_is_in_vain_brings_the_next_one_forward() -> None:
    """Our addition to 3.4: the first in the line misses what the leader sent only to the second, which need not wait."""
    for is_early in (False, True):
        solo = Solo(terms=[1], fast_failover=True)
        solo.step(solo.heartbeat(1))
        request = solo.request(2, (0, 0), source=3, pre_vote=True)
        if is_early:
            solo.step(request)
            solo.raft.on_peer_reset(2)
            answer, *asked = solo.drain()
        else:
            solo.raft.on_peer_reset(2)
            (answer,) = solo.step(request)
            asked = solo.tick()
        assert isinstance(answer, RequestVoteResponse)
        assert not answer.granted
        assert len(of_kind(RequestVote, asked)) == 2


def test_a_turn_that_goes_well_is_given_its_time() -> None:
    """Our addition to 3.4: its vote may have to wait for a disk."""
    solo = Solo(fast_failover=True)
    solo.step(solo.heartbeat(1))
    solo.raft.on_peer_reset(2)
    solo.step(solo.request(2, (0, 0), source=3, pre_vote=True))
    assert first_tick(solo) == 2 * HEARTBEAT


def test_who_asked_long_before_the_reset_had_its_answer() -> None:
    """Our addition to 4.2.3: silence. So has a vote that was asked for without asking before."""
    for request in ({"pre_vote": True}, {}):
        solo = Solo(fast_failover=True)
        solo.step(solo.heartbeat(1, source=3))
        assert solo.step(solo.request(2, (0, 0), source=2, **request)) == []
        solo.tick(HEARTBEAT + 1 if request else 0)
        solo.raft.on_peer_reset(3)
        assert not of_kind(RequestVoteResponse, solo.drain())


def test_it_frees_the_vote_for_others() -> None:
    """Our addition to 4.2.3: what was heard of a leader that is gone keeps nobody from voting."""
    solo = Solo(fast_failover=True)
    solo.step(solo.heartbeat(1))
    solo.raft.on_peer_reset(2)
    (answer,) = of_kind(RequestVoteResponse, solo.step(solo.request(2, (0, 0), pre_vote=True)))
    assert answer.granted


def test_a_heartbeat_that_comes_after_all_calls_it_off() -> None:
    """Our addition to 3.4."""
    solo = Solo(fast_failover=True)
    solo.step(solo.heartbeat(1))
    solo.raft.on_peer_reset(2)
    solo.step(solo.heartbeat(1))
    assert first_tick(solo) == TIMEOUT


def test_others_resets_and_the_setting_off_change_nothing() -> None:
    """Our addition to 3.4."""
    for enabled, peer in ((True, 3), (False, 2)):
        solo = Solo(fast_failover=enabled)
        solo.step(solo.heartbeat(1))
        solo.raft.on_peer_reset(peer)
        assert solo.drain() == []
        assert solo.tick(TIMEOUT - 1) == []
        assert solo.step(solo.request(2, (9, 9), pre_vote=True)) == []


def test_a_killed_leader_is_replaced_at_once_and_a_living_one_stays() -> None:
    """Our addition to 3.4, with 9.6: the pre-vote decides whether the leader is really gone."""
    cluster = Cluster(3, fast_failover=True)
    cluster.elect(1)
    cluster[2].on_peer_reset(1)
    cluster.settle()
    assert cluster.leaders == {1: 1}, "the others still hear it"
    cluster.tick(TIMEOUT)
    assert cluster[2].leader == 1
    cluster.crash(1)
    for survivor in (2, 3):
        cluster[survivor].on_peer_reset(1)
    cluster.settle()
    ticks = cluster.tick_until(lambda: cluster.leader() is not None)
    assert ticks == 0
    assert cluster.leader().term == 2  # type: ignore[union-attr]
