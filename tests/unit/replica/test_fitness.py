"""When a leader with an ill disk hands over, and to whom. Both stories at the end were seeds of the simulator."""

import pytest

from raftkv.errors import TransferRefused
from raftkv.raft.messages import HeartbeatResponse
from raftkv.replica.fitness import FORGET_MS, RETRY_MS, SNAPSHOT_FAILURE_MS, Fitness
from tests.unit.raft.cluster import TIMEOUT
from tests.unit.raft.solo import Solo, of_kind

FULL = "its disk is full"


def leading(size: int = 3) -> Solo:
    solo = Solo(size)
    solo.lead()
    return solo


def abort_transfer(solo: Solo) -> None:
    """The target does not take the office; everybody answers all the while."""
    others = solo.raft.configuration.voters - {1}
    for _ in range(TIMEOUT):
        solo.tick()
        solo.step(*(solo.heartbeat_response(peer, 0) for peer in sorted(others)))
    assert not solo.raft.is_transferring


def test_a_healthy_leader_stays() -> None:
    solo = leading()
    assert not Fitness(solo.raft).look(0, "")
    assert not solo.raft.is_transferring


def test_an_ill_member_that_does_not_lead_has_nothing_to_give() -> None:
    solo = Solo()
    assert not Fitness(solo.raft).look(0, FULL)


def test_an_ill_member_tells_whoever_leads() -> None:
    solo = Solo()
    said = []
    for now_ms, reason in enumerate(("", FULL, FULL, "")):
        Fitness(solo.raft).look(now_ms, reason)
        (answer,) = of_kind(HeartbeatResponse, solo.step(solo.heartbeat(1)))
        said.append(answer.unfit)
    assert said == [False, True, True, False]


def test_nobody_is_asked_where_there_is_nobody() -> None:
    solo = leading(size=1)
    assert not Fitness(solo.raft).look(0, FULL)


def test_it_goes_on_trying_and_passes_by_whom_it_has_tried() -> None:
    solo = leading()
    fitness = Fitness(solo.raft)
    assert fitness.look(0, FULL)
    assert solo.raft.transfer_target == 2
    abort_transfer(solo)
    assert not fitness.look(RETRY_MS - 1, FULL), "not in every turn"
    assert fitness.look(RETRY_MS, FULL)
    assert solo.raft.transfer_target == 3
    abort_transfer(solo)
    assert not fitness.look(2 * RETRY_MS, FULL), "everybody was tried"
    assert fitness.look(RETRY_MS + FORGET_MS, FULL)
    assert solo.raft.transfer_target == 2


def test_of_those_that_answer_all_were_tried() -> None:
    solo = leading()
    fitness = Fitness(solo.raft)
    assert fitness.look(0, FULL)
    for _ in range(TIMEOUT):
        solo.tick()
        solo.step(solo.heartbeat_response(2, 0))
    with pytest.raises(TransferRefused, match="every one was tried"):
        fitness.look(RETRY_MS, FULL)
    assert fitness.look(2 * RETRY_MS, FULL), "then from the start"
    assert solo.raft.transfer_target == 2


def test_one_that_is_elected_while_its_disk_is_full_hands_over() -> None:
    solo = Solo()
    fitness = Fitness(solo.raft)
    assert not fitness.look(0, FULL)
    solo.lead()
    assert fitness.look(500, FULL)


def test_an_office_that_comes_back_goes_to_the_next_at_once() -> None:
    """Two full disks must not hand it to each other while a third member is well."""
    solo = leading()
    fitness = Fitness(solo.raft)
    assert fitness.look(0, FULL)
    assert solo.raft.transfer_target == 2
    solo.step(solo.heartbeat(solo.raft.term + 1))
    assert not fitness.look(500, FULL)
    solo.lead()
    assert fitness.look(1_000, FULL)
    assert solo.raft.transfer_target == 3


def test_a_leader_that_cannot_make_a_snapshot_hands_over() -> None:
    """A seed of the simulator: the followers that needed the snapshot were what a majority lacked."""
    solo = leading()
    fitness = Fitness(solo.raft)
    assert fitness.reason(0, is_full=False, is_stalled=False) == ""
    fitness.on_snapshot_failed(1_000)
    reason = fitness.reason(2_000, is_full=False, is_stalled=False)
    assert "snapshot" in reason
    assert fitness.look(2_000, reason)
    assert solo.raft.is_transferring


def test_a_failed_snapshot_is_forgotten_when_nobody_needs_one_any_more() -> None:
    fitness = Fitness(leading().raft)
    fitness.on_snapshot_failed(1_000)
    assert fitness.reason(1_000 + SNAPSHOT_FAILURE_MS - 1, is_full=False, is_stalled=False)
    assert fitness.reason(1_000 + SNAPSHOT_FAILURE_MS, is_full=False, is_stalled=False) == ""


def test_what_is_said_is_the_gravest() -> None:
    fitness = Fitness(leading().raft)
    fitness.on_snapshot_failed(0)
    assert fitness.reason(0, is_full=True, is_stalled=True) == FULL
    assert fitness.reason(0, is_full=False, is_stalled=True) == "its disk is stalled"
