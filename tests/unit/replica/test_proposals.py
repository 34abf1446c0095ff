"""Every group that was proposed ends exactly once, with its own answers or with an honest error."""

import pytest

from raftkv.errors import DeadlineExceeded, LeadershipLost, NotLeader
from raftkv.replica.proposals import Proposals
from tests.unit.replica.origins import RecordingOrigin, put_group


def test_answers_reach_the_groups_of_their_entry_in_order() -> None:
    proposals, first, second = Proposals(), RecordingOrigin(), RecordingOrigin()
    proposals.add(5, 2, [put_group(first, "a", "b"), put_group(second, "c")], now_ms=0)
    proposals.applied(5, 2, [[[0, 2], [0, 3]], [[0, 4]]], now_ms=5)
    assert first.answers == [[[0, 2], [0, 3]]]
    assert second.answers == [[[0, 4]]]
    assert (proposals.pending_bytes, proposals.pending_commands, len(proposals)) == (0, 0, 0)


def test_an_entry_of_another_term_at_the_index_means_that_ours_was_lost() -> None:
    proposals, origin = Proposals(), RecordingOrigin()
    proposals.add(5, 2, [put_group(origin, "a")], now_ms=0)
    proposals.applied(5, 3, [[[0, 9]]], now_ms=5)
    assert origin.answers == []
    assert [type(error) for error in origin.errors] == [LeadershipLost]
    assert origin.errors[0].may_have_happened


def test_entries_of_others_concern_nobody() -> None:
    Proposals().applied(1, 1, [], now_ms=0)


def test_losing_the_office_ends_everything_once() -> None:
    proposals, origin = Proposals(), RecordingOrigin()
    proposals.add(5, 2, [put_group(origin, "a")], now_ms=0)
    proposals.add(6, 2, [put_group(origin, "b"), put_group(origin, "c")], now_ms=0)
    proposals.fail_all(LeadershipLost())
    proposals.fail_all(LeadershipLost())
    assert origin.ends == 3
    assert proposals.pending_commands == 0


def test_giving_up_a_proposed_write_never_claims_that_nothing_happened() -> None:
    proposals = Proposals()
    with pytest.raises(AssertionError):
        proposals.fail_all(NotLeader())


def test_a_late_group_ends_at_its_deadline_and_the_others_keep_their_answers() -> None:
    proposals, late, patient = Proposals(), RecordingOrigin(), RecordingOrigin()
    proposals.add(7, 1, [put_group(late, "a", deadline_ms=10), put_group(patient, "b", deadline_ms=1000)], now_ms=0)
    proposals.expire(now_ms=10)
    assert [type(error) for error in late.errors] == [DeadlineExceeded]
    assert late.errors[0].may_have_happened
    proposals.expire(now_ms=20)
    proposals.applied(7, 1, [[[0, 2]], [[0, 3]]], now_ms=5)
    assert late.ends == 1
    assert patient.answers == [[[0, 3]]]
    assert proposals.pending_bytes == 0
