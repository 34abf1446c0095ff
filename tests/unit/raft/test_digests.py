"""What members say of their stores on its way through the core: carried, never understood, and not with every read."""

import pytest

from raftkv.raft.effects import DigestHeard
from raftkv.raft.messages import Heartbeat, HeartbeatResponse
from tests.unit.raft.solo import Solo, of_kind

HEARTBEAT_TICKS = 4  # enough for one at least


def heard(solo: Solo) -> list[DigestHeard]:
    return [one for effects in solo.effects for one in effects.digests]


def test_a_leader_announces_with_every_heartbeat_while_it_is_in_office() -> None:
    solo = Solo(check_quorum=False)
    solo.lead()
    assert {message.digest_index for message in of_kind(Heartbeat, solo.tick(HEARTBEAT_TICKS))} == {0}
    solo.raft.announce_digest(5, 77)
    for _ in range(2):
        beats = of_kind(Heartbeat, solo.tick(HEARTBEAT_TICKS))
        assert {beat.target for beat in beats} == {2, 3}
        assert {(beat.digest_index, beat.digest) for beat in beats} == {(5, 77)}
    term = solo.raft.term
    solo.step(solo.append((1, term), [], term=term + 1))
    assert not solo.raft.is_leader
    solo.lead()
    assert {message.digest_index for message in of_kind(Heartbeat, solo.tick(HEARTBEAT_TICKS))} == {0}


def test_only_a_leader_announces() -> None:
    with pytest.raises(AssertionError, match="leader"):
        Solo().raft.announce_digest(5, 77)


def test_the_rounds_of_reads_carry_nothing() -> None:
    solo = Solo()
    solo.lead()
    solo.raft.announce_digest(5, 77)
    solo.raft.read_index(1)
    beats = of_kind(Heartbeat, solo.drain())
    assert beats
    assert {beat.digest_index for beat in beats} == {0}


def test_a_follower_reports_once_and_tells_its_driver_what_was_announced() -> None:
    solo = Solo()
    assert solo.raft.wants_digest
    solo.raft.report_digest(9, 99)
    assert not solo.raft.wants_digest
    beat = Heartbeat(1, 2, 1, 0, 1, 7, 70)
    (answer,) = of_kind(HeartbeatResponse, solo.step(beat))
    assert (answer.digest_index, answer.digest) == (9, 99)
    assert solo.raft.wants_digest
    (answer,) = of_kind(HeartbeatResponse, solo.step(solo.heartbeat(1, read_round=2)))
    assert answer.digest_index == 0
    assert heard(solo) == [DigestHeard(2, 7, 70, agreed=True)]


def test_a_leader_hears_reports_of_members_only() -> None:
    solo = Solo()
    solo.lead()
    solo.step(HeartbeatResponse(1, 2, 1, 0, 0, 9, 99), HeartbeatResponse(1, 8, 1, 0, 0, 9, 99))
    assert heard(solo) == [DigestHeard(2, 9, 99, agreed=False)]
