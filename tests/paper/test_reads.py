"""Claims of 6.4: linearizable reads without the log, by ReadIndex (6.4) and by lease (6.4.1)."""

import pytest

from raftkv.raft.messages import AppendEntries, Heartbeat, HeartbeatResponse, ReadIndex, ReadIndexResponse
from tests.unit.raft.cluster import HEARTBEAT, TIMEOUT, Cluster, config_of
from tests.unit.raft.solo import Solo, of_kind


def reads(solo: Solo) -> list[tuple[int, int]]:
    return [(ready.context, ready.index) for effects in solo.effects for ready in effects.reads]


def failed(solo: Solo) -> list[int]:
    return [context for effects in solo.effects for context in effects.reads_failed]


def test_a_leader_first_commits_an_entry_of_its_own_term() -> None:
    """6.4, step 1."""
    solo = Solo(terms=[1, 1], commit=1)
    solo.elect()
    solo.raft.read_index(7)
    assert of_kind(Heartbeat, solo.drain()) == []
    (beat, _) = of_kind(Heartbeat, solo.step(solo.accept(2, 3)))
    solo.step(solo.heartbeat_response(2, beat.read_round))
    assert reads(solo) == [(7, 3)]


def test_a_leader_confirms_its_office_with_a_majority_before_it_answers() -> None:
    """6.4, step 3."""
    solo = Solo(size=5)
    solo.lead()
    solo.raft.read_index(7)
    beats = of_kind(Heartbeat, solo.drain())
    assert [beat.target for beat in beats] == [2, 3, 4, 5]
    solo.step(solo.heartbeat_response(2, beats[0].read_round))
    solo.step(solo.heartbeat_response(2, beats[0].read_round))
    assert reads(solo) == []
    solo.step(solo.heartbeat_response(4, beats[0].read_round))
    assert reads(solo) == [(7, 1)]


def test_reads_of_a_batch_share_a_round_and_later_ones_the_next() -> None:
    """6.4: one round for any number of reads."""
    solo = Solo()
    solo.lead()
    for context in (1, 2, 3):
        solo.raft.read_index(context)
    (first, _) = of_kind(Heartbeat, solo.drain())
    for context in (4, 5):
        solo.raft.read_index(context)
    assert of_kind(Heartbeat, solo.drain()) == [], "one round at a time"
    (second, _) = of_kind(Heartbeat, solo.step(solo.heartbeat_response(2, first.read_round)))
    assert reads(solo) == [(1, 1), (2, 1), (3, 1)]
    assert second.read_round > first.read_round
    solo.step(solo.heartbeat_response(2, first.read_round))
    assert len(reads(solo)) == 3, "an answer to the first round confirms nothing of the second"
    solo.step(solo.heartbeat_response(3, second.read_round))
    assert reads(solo)[3:] == [(4, 1), (5, 1)]


def test_a_lost_round_is_made_good_by_the_next_heartbeat() -> None:
    """6.4: a round of heartbeats is a round of heartbeats, whoever started it."""
    solo = Solo()
    solo.lead()
    solo.raft.read_index(1)
    lost = of_kind(Heartbeat, solo.drain())
    solo.raft.read_index(2)
    (beat, _) = of_kind(Heartbeat, solo.tick(HEARTBEAT))
    assert beat.read_round > lost[0].read_round
    solo.step(solo.heartbeat_response(2, beat.read_round))
    assert reads(solo) == [(1, 1), (2, 1)]


def test_an_answer_of_an_older_term_never_confirms_a_read() -> None:
    """6.4: rounds are unique per term: an answer given to the office before this one says nothing about this one."""
    solo = Solo()
    solo.lead()
    solo.raft.read_index(1)
    (old, _) = of_kind(Heartbeat, solo.drain())
    solo.step(solo.heartbeat(2, source=3))
    assert failed(solo) == [1]
    solo.tick(TIMEOUT)
    solo.step(solo.grant(2, pre_vote=True))
    solo.step(solo.grant(2))
    solo.step(solo.accept(2, 2))
    assert solo.raft.term == 3
    solo.raft.read_index(2)
    (new, _) = of_kind(Heartbeat, solo.drain())
    assert new.read_round > old.read_round, "never reused, not even in another term"
    solo.step(HeartbeatResponse(1, 2, 1, old.read_round), HeartbeatResponse(1, 3, 1, new.read_round))
    assert reads(solo) == []


def test_a_deposed_leader_serves_no_stale_read() -> None:
    """6.4: the partitioned old leader does not know that there is a new one."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)
    for _ in range(TIMEOUT + 2):
        cluster[2].tick()
        cluster[3].tick()
        cluster.settle()
    assert cluster.leader().node_id == 2  # type: ignore[union-attr]
    cluster.write(b"new")
    assert cluster[1].is_leader, "it has not noticed yet"
    cluster[1].read_index(5)
    cluster.settle()
    cluster.tick(TIMEOUT)
    assert cluster.nodes[1].reads == []
    assert cluster.nodes[1].reads_failed == [5]


def test_reads_that_wait_fail_when_leadership_is_lost() -> None:
    """6.4, 6.2."""
    solo = Solo(terms=[1])
    solo.elect()
    solo.raft.read_index(1)
    solo.step(ReadIndex(2, 3, 1, 77))
    answers = solo.step(solo.heartbeat(3))
    assert failed(solo) == [1]
    assert [(a.context, a.index, a.target) for a in of_kind(ReadIndexResponse, answers)] == [(77, 0, 3)]


def test_a_single_voter_confirms_itself() -> None:
    """6.4."""
    solo = Solo(size=1)
    solo.lead()
    solo.raft.read_index(3)
    assert solo.drain() == []
    assert reads(solo) == [(3, 1)]


def test_learners_do_not_confirm_a_round() -> None:
    """4.2.1."""
    cluster = Cluster(3, learners=2)
    cluster.elect(1)
    cluster.isolate(1, 4, 5)
    cluster[1].read_index(1)
    cluster.settle()
    assert cluster.nodes[1].reads == []


def test_followers_ask_the_leader_and_learn_the_commit_index_with_the_answer() -> None:
    """6.4: followers offload reads; they still need the leader for the index."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.write(b"a")
    assert cluster[3].commit_index == 1, "nothing has carried the commit index yet"
    for context in (11, 12):
        cluster[3].read_index(context)
    cluster.settle()
    assert [(r.context, r.index) for r in cluster.nodes[3].reads] == [(11, 2), (12, 2)]
    assert cluster[3].commit_index == 2, "the reads need not wait for the next heartbeat"
    asked = [message for message in cluster.history if isinstance(message, ReadIndex)]
    assert len(asked) == 1, "a batch asks once"


def test_a_follower_whose_acknowledgement_is_late_still_learns_the_commit_index() -> None:
    """6.4: the heartbeat may only name what is known to match; an append without entries says the rest."""
    solo = Solo()
    solo.lead()
    solo.raft.propose(1, b"x")
    solo.drain()
    solo.step(solo.accept(3, 2))
    (beat, _) = of_kind(Heartbeat, solo.step(ReadIndex(1, 2, 1, 50)))
    assert beat.commit_index == 1
    sent = solo.step(solo.heartbeat_response(3, beat.read_round))
    assert [(m.target, m.index) for m in of_kind(ReadIndexResponse, sent)] == [(2, 2)]
    assert [(m.target, m.commit_index, m.entries) for m in of_kind(AppendEntries, sent)] == [(2, 2, [])]


def test_reads_of_followers_and_of_the_leader_share_rounds() -> None:
    """6.4."""
    solo = Solo()
    solo.lead()
    solo.raft.read_index(1)
    solo.raft.step(ReadIndex(1, 2, 1, 50))
    solo.raft.step(ReadIndex(1, 3, 1, 60))
    (beat, _) = of_kind(Heartbeat, solo.drain())
    answers = of_kind(ReadIndexResponse, solo.step(solo.heartbeat_response(3, beat.read_round)))
    assert [(a.target, a.context, a.index) for a in answers] == [(2, 50, 1), (3, 60, 1)]
    assert reads(solo) == [(1, 1)]


def test_without_a_leader_a_read_fails_at_once() -> None:
    """6.2: nobody waits for a leader that is not known."""
    solo = Solo()
    solo.raft.read_index(4)
    solo.drain()
    assert failed(solo) == [4]


def test_a_question_that_got_lost_fails_after_an_election_timeout() -> None:
    """6.4."""
    solo = Solo()
    solo.step(solo.heartbeat(1))
    solo.raft.read_index(4)
    assert len(of_kind(ReadIndex, solo.drain())) == 1
    for _ in range(TIMEOUT):
        solo.step(solo.heartbeat(1))
        assert failed(solo) == []
        solo.tick()
    assert failed(solo) == [4]
    solo.step(ReadIndexResponse(1, 2, 1, 4, 9))
    assert reads(solo) == [], "the late answer counts for nothing"


def test_a_refusal_and_a_change_of_leader_fail_what_was_asked() -> None:
    """6.4."""
    solo = Solo()
    solo.step(solo.heartbeat(1))
    solo.raft.read_index(4)
    solo.drain()
    solo.step(ReadIndexResponse(1, 2, 1, 4, 0))
    solo.raft.read_index(5)
    solo.drain()
    solo.step(solo.heartbeat(2, source=3))
    assert failed(solo) == [4, 5]


def test_a_member_that_does_not_lead_refuses_at_once() -> None:
    """6.2."""
    solo = Solo()
    solo.step(solo.heartbeat(1))
    (answer,) = of_kind(ReadIndexResponse, solo.step(ReadIndex(1, 3, 1, 8)))
    assert (answer.context, answer.index) == (8, 0)
    (answer,) = of_kind(ReadIndexResponse, solo.step(ReadIndex(0, 3, 1, 9)))
    assert (answer.context, answer.index) == (9, 0)


# Leases.


class Clock:
    """A clock that counts how often it is asked."""

    def __init__(self) -> None:
        self.now_ms = 1_000
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        return self.now_ms


def leased(clock: Clock, promise_ms: int = 200) -> Solo:
    """A leader of three whose heartbeat of just now was answered with a promise."""
    solo = Solo(lease_reads=True, clock_ms=clock)
    solo.lead()
    (beat, _) = of_kind(Heartbeat, solo.tick(HEARTBEAT))
    solo.step(solo.heartbeat_response(2, beat.read_round, promise_ms))
    return solo


def test_a_lease_answers_at_once_until_the_shortened_promise_is_over() -> None:
    """6.4.1: from the sending of the heartbeat, minus the drift of clocks."""
    clock = Clock()
    solo = leased(clock)
    assert solo.raft.lease_until_ms == 1_180
    clock.now_ms = 1_179
    solo.raft.read_index(1)
    assert solo.drain() == []
    assert reads(solo) == [(1, 1)]
    clock.now_ms = 1_180
    solo.raft.read_index(2)
    assert len(of_kind(Heartbeat, solo.drain())) == 2
    assert reads(solo) == [(1, 1)]


def test_a_lease_counts_from_the_sending_not_from_the_answer() -> None:
    """6.4.1."""
    clock = Clock()
    solo = Solo(lease_reads=True, clock_ms=clock)
    solo.lead()
    (beat, _) = of_kind(Heartbeat, solo.tick(HEARTBEAT))
    clock.now_ms += 150
    solo.step(solo.heartbeat_response(2, beat.read_round, 200))
    assert solo.raft.lease_until_ms == 1_180


def test_a_lease_needs_promises_of_a_quorum() -> None:
    """6.4.1, figure 6.3."""
    clock = Clock()
    solo = Solo(size=5, lease_reads=True, clock_ms=clock)
    solo.lead()
    beat = of_kind(Heartbeat, solo.tick(HEARTBEAT))[0]
    solo.step(solo.heartbeat_response(2, beat.read_round, 200))
    solo.step(solo.heartbeat_response(3, beat.read_round, 0))
    assert solo.raft.lease_until_ms == 0, "one promises, one promises nothing"
    solo.step(solo.heartbeat_response(4, beat.read_round, 100))
    assert solo.raft.lease_until_ms == 1_090, "the quorum's weakest promise"


@pytest.mark.parametrize(
    ("settings", "promise_ms"),
    [
        ({"lease_reads": True}, (TIMEOUT - 1) * 25),
        ({"lease_reads": True, "fast_failover": True}, 0),
        ({"lease_reads": True, "check_quorum": False}, 0),
        ({"lease_reads": False}, 0),
    ],
)
def test_a_follower_promises_only_what_it_keeps(settings: dict[str, bool], promise_ms: int) -> None:
    """6.4.1."""
    solo = Solo(clock_ms=lambda: 0, **settings)
    (response,) = of_kind(HeartbeatResponse, solo.step(solo.heartbeat(1)))
    assert response.promise_ms == promise_ms


def test_a_promise_outlives_a_restart_and_a_newer_term() -> None:
    """6.4.1: neither a crash nor somebody's newer term lets a follower vote within its promise."""
    solo = Solo(lease_reads=True, clock_ms=lambda: 0)
    assert solo.step(solo.request(5, (9, 9))) == [], "just restarted: it may have promised"
    solo.tick(TIMEOUT - 1)
    assert solo.step(solo.request(5, (9, 9))) == []
    solo = Solo(lease_reads=True, clock_ms=lambda: 0)
    solo.step(solo.heartbeat(1))
    solo.step(ReadIndex(4, 3, 1, 1))
    assert (solo.raft.term, solo.raft.leader) == (4, 0)
    assert solo.step(solo.request(5, (9, 9))) == []


def test_the_lease_ends_before_timeout_now_and_for_the_whole_term() -> None:
    """3.10 with 6.4.1: the message may come late, long after the transfer was given up."""
    clock = Clock()
    solo = leased(clock)
    solo.step(solo.accept(2, solo.raft.last_index))
    solo.raft.transfer_leadership(2)
    assert solo.raft.lease_until_ms == 0
    for _ in range(TIMEOUT):
        solo.step(solo.heartbeat_response(2, 0), solo.heartbeat_response(3, 0))
        solo.tick()
    assert not solo.raft.is_transferring
    beat = of_kind(Heartbeat, solo.tick(HEARTBEAT))[0]
    solo.step(solo.heartbeat_response(2, beat.read_round, 200))
    assert solo.raft.lease_until_ms == 0
    solo.raft.read_index(1)
    assert len(of_kind(Heartbeat, solo.drain())) == 2, "reads go on with rounds"


def test_a_lease_ends_with_the_office() -> None:
    """6.4.1."""
    solo = leased(Clock())
    solo.step(solo.heartbeat(5))
    assert solo.raft.lease_until_ms == 0


def test_without_lease_reads_nobody_asks_the_clock() -> None:
    """6.4.1: the way that depends on clocks is off unless asked for."""
    clock = Clock()
    solo = Solo(clock_ms=clock)
    solo.lead()
    solo.raft.read_index(1)
    solo.tick(HEARTBEAT)
    assert clock.asked == 0
    with pytest.raises(AssertionError, match="lease reads need a clock"):
        config_of(1, lease_reads=True)
