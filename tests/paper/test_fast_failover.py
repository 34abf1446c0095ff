"""Our addition to 3.4: a reset connection from the leader counts as its silence (DESIGN, fast failover)."""

from raftkv.raft.messages import RequestVote, RequestVoteResponse
from tests.unit.raft.cluster import TIMEOUT, Cluster
from tests.unit.raft.solo import Solo, of_kind


def test_a_reset_from_the_leader_starts_a_pre_vote_after_the_draw() -> None:
    """Our addition to 3.4."""
    solo = Solo(fast_failover=True, draw=lambda low, high: high)
    solo.step(solo.heartbeat(1))
    solo.raft.on_peer_reset(2)
    assert solo.tick() == []
    assert of_kind(RequestVote, solo.tick())
    assert (solo.raft.role, solo.raft.term) == ("pre_candidate", 1)


def test_a_draw_of_zero_means_now_and_it_happens_once_per_reset() -> None:
    """Our addition to 3.4."""
    solo = Solo(fast_failover=True)
    solo.step(solo.heartbeat(1))
    solo.raft.on_peer_reset(2)
    assert len(of_kind(RequestVote, solo.drain())) == 2
    assert solo.tick(TIMEOUT - 1) == [], "after the one attempt the ordinary timeout counts"


def test_it_frees_the_vote_for_others() -> None:
    """Our addition to 4.2.3: what was heard of a leader that is gone keeps nobody from voting."""
    solo = Solo(fast_failover=True, draw=lambda low, high: high)
    solo.step(solo.heartbeat(1))
    solo.raft.on_peer_reset(2)
    (answer,) = of_kind(RequestVoteResponse, solo.step(solo.request(2, (0, 0), pre_vote=True)))
    assert answer.granted


def test_a_heartbeat_that_comes_after_all_calls_it_off() -> None:
    """Our addition to 3.4."""
    solo = Solo(fast_failover=True, draw=lambda low, high: high)
    solo.step(solo.heartbeat(1))
    solo.raft.on_peer_reset(2)
    solo.step(solo.heartbeat(1))
    assert solo.tick(2 * TIMEOUT - 2) == []


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
    assert ticks <= 2
    assert cluster.leader().term == 2  # type: ignore[union-attr]
