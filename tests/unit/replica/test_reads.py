"""Reads share rounds, wait for apply, and end exactly once; a context is never used twice."""

from raftkv.errors import DeadlineExceeded, NotLeader
from raftkv.replica.reads import PendingReads
from tests.unit.replica.origins import RecordingOrigin, get_group


def test_all_reads_of_one_moment_share_a_round_and_later_ones_the_next() -> None:
    reads, origin = PendingReads(first_context=70), RecordingOrigin()
    early = [get_group(origin, "a"), get_group(origin, "b")]
    for group in early:
        reads.add(group)
    assert reads.start_round(now_ms=0) == 70
    late = get_group(origin, "c")
    reads.add(late)
    assert reads.start_round(now_ms=0) == 0, "one round at a time"
    reads.confirmed(70, index=9)
    assert reads.start_round(now_ms=0) == 71
    assert reads.take_ready(applied_index=8) == []
    assert reads.take_ready(applied_index=9) == early


def test_nobody_waiting_means_no_round() -> None:
    assert PendingReads().start_round(now_ms=0) == 0


def test_an_answer_to_an_abandoned_round_is_not_taken_for_the_new_one() -> None:
    reads, origin = PendingReads(), RecordingOrigin()
    reads.add(get_group(origin, "a"))
    abandoned = reads.start_round(now_ms=0)
    reads.give_up_round(now_ms=499, after_ms=500)
    assert reads.start_round(now_ms=499) == 0
    reads.give_up_round(now_ms=500, after_ms=500)
    current = reads.start_round(now_ms=500)
    assert current != abandoned
    reads.confirmed(abandoned, index=1)
    assert reads.take_ready(applied_index=100) == []
    reads.confirmed(current, index=2)
    assert len(reads.take_ready(applied_index=100)) == 1


def test_a_failed_round_refuses_its_reads_and_only_those() -> None:
    reads, origin, other = PendingReads(), RecordingOrigin(), RecordingOrigin()
    reads.add(get_group(origin, "a"))
    context = reads.start_round(now_ms=0)
    reads.add(get_group(other, "b"))
    reads.failed(context, NotLeader())
    assert [type(error) for error in origin.errors] == [NotLeader]
    assert other.ends == 0
    assert reads.pending_commands == 1


def test_without_anybody_to_confirm_all_unconfirmed_reads_end_but_confirmed_ones_are_served() -> None:
    reads, confirmed, waiting, new = PendingReads(), RecordingOrigin(), RecordingOrigin(), RecordingOrigin()
    reads.add(get_group(confirmed, "a"))
    reads.confirmed(reads.start_round(now_ms=0), index=3)
    reads.add(get_group(waiting, "b"))
    reads.start_round(now_ms=0)
    reads.add(get_group(new, "c"))
    reads.fail_unconfirmed(NotLeader())
    assert (waiting.ends, new.ends, confirmed.ends) == (1, 1, 0)
    assert len(reads.take_ready(applied_index=3)) == 1
    assert reads.pending_commands == 0


def test_deadlines_end_reads_at_every_stage() -> None:
    reads, origin = PendingReads(), RecordingOrigin()
    reads.add(get_group(origin, "confirmed", deadline_ms=10))
    reads.confirmed(reads.start_round(now_ms=0), index=99)
    reads.add(get_group(origin, "in-round", deadline_ms=10))
    reads.start_round(now_ms=0)
    reads.add(get_group(origin, "new", deadline_ms=10))
    reads.expire(now_ms=9)
    assert origin.ends == 0
    reads.expire(now_ms=10)
    assert [type(error) for error in origin.errors] == [DeadlineExceeded] * 3
    assert not any(error.may_have_happened for error in origin.errors)
    assert reads.take_ready(applied_index=100) == []
    assert reads.pending_commands == 0
