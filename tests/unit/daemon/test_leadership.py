"""Who is told what of a transfer, and the reasons for which a member hands over by itself."""

import logging
from typing import Any

import pytest

from raftkv.daemon.leadership import REQUEST_SECONDS_MAX, Leadership
from raftkv.errors import NotLeader
from raftkv.limits import Limits
from raftkv.raft.effects import RoleChange
from raftkv.raft.messages import Configuration
from raftkv.replica.fitness import RETRY_MS
from raftkv.units import NOBODY
from raftkv.wire.commands import OK, Answer, error_of
from tests.unit.raft.cluster import TIMEOUT
from tests.unit.raft.solo import Solo


class FakeService:
    """Where to go; nothing is ever in flight."""

    is_idle = True
    closing = False

    def leader_hint(self) -> dict[str, Any]:
        return {"id": 2, "name": "n2", "address": "there:1"}

    def elsewhere(self) -> NotLeader:
        return NotLeader(details={"leader": self.leader_hint()})

    def begin_shutdown(self) -> None:
        self.closing = True


class Office:
    """A Leadership of member 1, and the answers that it gave."""

    def __init__(self, solo: Solo) -> None:
        self.solo = solo
        self.now = 100.0
        self.pumps = 0
        self.dead = False
        self.answers: list[Answer] = []
        self.leadership = Leadership(
            solo.raft,
            FakeService(),  # type: ignore[arg-type]
            now=lambda: self.now,
            members=lambda: [{"id": number, "name": f"n{number}"} for number in (1, 2, 3, 4)],
            schedule_pump=self.pump,
            is_dead=lambda: self.dead,
        )

    def pump(self) -> None:
        self.pumps += 1

    def move(self, target: int | None) -> None:
        self.leadership.move(target, self.answers.append)

    def refusal(self) -> str:
        (answer,) = self.answers
        error = error_of(answer)
        assert error.code == "transfer_refused"
        return error.message


def leading(**settings: Any) -> Office:
    solo = Solo(**settings)
    solo.lead()
    return Office(solo)


def test_a_request_is_answered_once_the_office_has_moved() -> None:
    office = leading()
    office.move(2)
    assert (office.pumps, office.answers) == (1, [])
    office.leadership.on_leader_change(RoleChange("follower", 2, NOBODY))
    assert office.answers == [], "the office is empty, not moved"
    office.leadership.on_leader_change(RoleChange("follower", 2, 2))
    assert office.answers == [[OK, {"leader": {"id": 2, "name": "n2", "address": "there:1"}}]]


def test_any_member_will_do_when_none_was_named() -> None:
    office = leading()
    office.move(None)
    office.leadership.on_leader_change(RoleChange("follower", 2, 3))
    assert office.answers[0][0] == OK


@pytest.mark.parametrize(("role", "leader"), [("follower", 3), ("leader", 1)])
def test_somebody_else_than_the_named_one_is_a_refusal(role: str, leader: int) -> None:
    office = leading()
    office.move(2)
    office.leadership.on_leader_change(RoleChange(role, 2, leader))
    assert office.refusal() == f"member n{leader} was elected instead"


def test_a_transfer_that_was_given_up_is_told_at_once() -> None:
    office = leading()
    office.move(2)
    for _ in range(TIMEOUT):
        assert office.answers == []
        office.solo.tick()
        office.solo.step(office.solo.heartbeat_response(3, 0))
        office.leadership.tick()
    assert office.refusal() == "the office was not taken over by member n2 within an election timeout; nothing changed"


def test_refusals_name_members_as_their_operators_do() -> None:
    office = leading(
        configuration=Configuration(frozenset({1, 2, 3}), learners=frozenset({4})),
        limits=Limits(transfer_lag_entries_max=2),
    )
    office.move(4)
    assert office.refusal() == "member n4 has no vote in the configuration, so it cannot lead"
    office.answers.clear()
    for number in range(3):
        office.solo.raft.propose(1, b"%d" % number)
    office.move(3)
    assert office.refusal() == ("member n3 is 3 entries behind, at most 2 may be left: try again when it has caught up")
    assert office.pumps == 0, "nothing changed"


def test_a_follower_says_where_to_ask() -> None:
    office = Office(Solo())
    office.move(2)
    assert error_of(office.answers[0]).code == "not_leader"


def test_moving_to_itself_is_done_already() -> None:
    office = leading()
    office.move(1)
    assert office.answers[0][0] == OK


def test_a_stalled_disk_is_told_once_and_handed_over_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    office = leading()

    def watch(oldest: float, most: float) -> None:
        office.leadership.watch_disk(oldest, most, is_full=False)

    watch(1.9, 2.0)
    assert (office.leadership.stalled_seconds, office.pumps) == (0.0, 0)
    watch(2.5, 2.0)
    watch(3.0, 2.0)
    assert (office.leadership.stalled_seconds, office.pumps) == (3.0, 1)
    assert office.solo.raft.is_transferring
    for _ in range(TIMEOUT):
        office.solo.tick()
        office.solo.step(office.solo.heartbeat_response(2, 0), office.solo.heartbeat_response(3, 0))
    assert not office.solo.raft.is_transferring
    watch(4.0, 2.0)
    assert office.pumps == 1
    office.now += RETRY_MS / 1000
    watch(9.0, 2.0)
    assert office.pumps == 2
    watch(0.0, 2.0)
    assert office.leadership.stalled_seconds == 0.0
    said = [record.getMessage() for record in caplog.records]
    assert said.count("an fsync of the log has not returned for 2.5 s (limit 2.0 s)") == 1
    assert said[-1] == "the disk came back"


def test_a_preferred_member_is_handed_the_office_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    office = leading()
    office.leadership._members = lambda: [
        {"id": number, "name": f"n{number}", "priority": 7 if number == 2 else 0} for number in (1, 2, 3)
    ]
    for _ in range(12):
        office.now += 0.5
        for peer in (2, 3):
            office.solo.step(office.solo.accept(peer, office.solo.raft.last_index))
        office.leadership.watch_priorities(is_well=True)
    assert office.solo.raft.transfer_target == 2
    assert (office.pumps, office.leadership.handovers) == (1, 1)
    assert [record.getMessage() for record in caplog.records if "priority" in record.getMessage()] == [
        "handing leadership over to member n2, whose priority is 7 (here: 0)"
    ]


async def test_a_shutdown_ends_without_anybody_to_hand_over_to() -> None:
    alone = leading(size=1)
    await alone.leadership.hand_over_and_drain(alone.now + 10)
    assert alone.solo.raft.is_leader


async def test_a_shutdown_waits_for_the_transfer_and_not_beyond_its_deadline() -> None:
    office = leading()

    def now() -> float:
        office.now += 0.5
        return office.now

    office.leadership._now = now
    await office.leadership.hand_over_and_drain(office.now + 10)
    assert office.solo.raft.is_transferring
    assert office.pumps == 1


def test_an_office_that_nobody_takes_is_an_unknown_outcome() -> None:
    """The request ends after its time, also when this member hears of no leader any more."""
    office = leading()
    office.move(2)
    office.leadership.on_leader_change(RoleChange("follower", 2, NOBODY))
    office.now += REQUEST_SECONDS_MAX - 0.1
    office.leadership.tick()
    assert office.answers == []
    office.now += 0.1
    office.leadership.tick()
    (answer,) = office.answers
    assert error_of(answer).code == "outcome_unknown"
    office.leadership.on_leader_change(RoleChange("follower", 2, 2))
    assert len(office.answers) == 1, "answered once"


async def test_a_member_that_died_is_not_waited_for() -> None:
    office = leading()
    office.dead = True
    office.leadership._now = lambda: 0.0  # a clock that stands: only the death ends the wait
    FakeService.is_idle, idle = False, FakeService.is_idle
    try:
        await office.leadership.hand_over_and_drain(10.0)
    finally:
        FakeService.is_idle = idle


def test_names_replace_whole_ids_only() -> None:
    office = leading()
    assert office.leadership._with_names("member 1 and member 12") == "member n1 and member 12"
