"""The door to the core: batches of effects, what needs a save, what status pages see."""

import pytest

from raftkv.errors import NotLeader
from raftkv.limits import Limits
from raftkv.raft.config import SavedState
from raftkv.raft.effects import RoleChange
from raftkv.raft.messages import Configuration, HardState, Heartbeat, Message
from raftkv.raft.node import HANDLERS, Raft
from tests.unit.raft.cluster import HEARTBEAT, TIMEOUT, Cluster, config_of
from tests.unit.raft.solo import Solo, of_kind


def test_every_message_has_a_handler() -> None:
    assert set(HANDLERS) == set(Message.__args__)  # type: ignore[attr-defined]


def test_an_idle_member_wants_nothing() -> None:
    solo = Solo(terms=[1, 1])
    assert not solo.raft.has_effects
    solo.raft.tick()
    assert not solo.raft.has_effects
    effects = solo.take()
    assert effects.needs_save() is False
    assert effects.save_id == 0


def test_effects_come_once() -> None:
    solo = Solo()
    solo.lead()
    solo.raft.propose(1, b"x")
    assert solo.raft.has_effects
    assert solo.take().entries
    assert not solo.raft.has_effects
    again = solo.take()
    assert (again.entries, again.send_now, again.hard_state) == ([], [], None)


def test_save_ids_grow_by_save_and_only_by_save() -> None:
    solo = Solo()
    solo.lead()
    before = solo.raft.take_effects().save_id
    ids = []
    for _ in range(3):
        solo.raft.propose(1, b"x")
        ids.append(solo.raft.take_effects().save_id)
    assert before == 0
    assert ids == [ids[0], ids[0] + 1, ids[0] + 2]


def test_a_commit_index_alone_is_no_reason_to_save() -> None:
    solo = Solo(terms=[1, 1])
    solo.step(solo.heartbeat(1))
    solo.step(solo.heartbeat(1, commit=2))
    assert solo.effects[-1].committed
    assert solo.effects[-1].hard_state is None
    solo.step(solo.append((2, 1), [1], term=1, commit=2))
    hard_state = solo.effects[-1].hard_state
    assert hard_state is not None
    assert hard_state.commit == 2, "it rides along"


def test_what_is_given_out_is_bounded_per_batch() -> None:
    limits = Limits(
        append_bytes_in_flight_max=60, append_message_bytes_max=50, request_bytes_max=40, value_bytes_max=40
    )
    solo = Solo(terms=[1] * 7, commit=7, limits=limits)
    given = []
    while solo.raft.has_effects:
        given.append([entry.index for entry in solo.take().committed])
    assert given == [[1, 2], [3, 4], [5, 6], [7]]


def test_a_restart_gives_out_what_was_committed_but_not_applied() -> None:
    solo = Solo(terms=[1] * 5, commit=4, applied=2)
    assert solo.raft.has_effects
    assert [entry.index for entry in solo.take().committed] == [3, 4]
    assert solo.raft.handed_index == 4


def test_role_changes_are_told_once_per_batch() -> None:
    solo = Solo()
    solo.lead()
    changes = [effects.role_change for effects in solo.effects if effects.role_change is not None]
    assert changes == [
        RoleChange("pre_candidate", 0, 0),
        RoleChange("candidate", 1, 0),
        RoleChange("leader", 1, 1),
    ]


def test_a_member_without_a_vote_shows_as_learner() -> None:
    solo = Solo(configuration=Configuration(frozenset({2, 3})))
    assert solo.raft.role == "learner"
    solo.tick(5 * TIMEOUT)
    assert (solo.raft.role, solo.raft.term) == ("learner", 0)


def test_only_leaders_take_proposals() -> None:
    solo = Solo()
    with pytest.raises(NotLeader):
        solo.raft.propose(1, b"x")
    solo.lead()
    assert solo.raft.propose(1, b"x") == (2, 1)
    assert solo.raft.propose(1, b"y") == (3, 1)


def test_messages_for_somebody_else_are_dropped() -> None:
    solo = Solo()
    solo.raft.step(Heartbeat(9, 2, 3, 0))
    solo.raft.step(Heartbeat(9, 1, 1, 0))
    assert solo.raft.term == 0


def test_answers_from_strangers_count_for_nothing() -> None:
    solo = Solo()
    solo.elect()
    solo.step(solo.accept(8, 1), solo.accept(9, 1), solo.heartbeat_response(8, 0))
    assert solo.raft.commit_index == 0


def test_quorum_contact_of_a_leader_is_who_answered() -> None:
    solo = Solo(check_quorum=False)
    solo.lead()
    assert solo.raft.quorum_contact
    solo.tick(TIMEOUT)
    assert not solo.raft.quorum_contact
    solo.step(solo.heartbeat_response(3, 0))
    assert solo.raft.quorum_contact


def test_quorum_contact_of_others_is_whom_they_heard() -> None:
    solo = Solo(size=5)
    assert not solo.raft.quorum_contact
    solo.step(solo.heartbeat(1))
    assert solo.raft.quorum_contact, "a leader that lives has a quorum"
    solo = Solo(size=5, draw=lambda low, high: high)
    solo.step(solo.request(1, (0, 0), source=2, pre_vote=True), solo.request(1, (0, 0), source=3, pre_vote=True))
    assert solo.raft.quorum_contact, "two of the others and this one"
    solo.tick(TIMEOUT)
    assert not solo.raft.quorum_contact


def test_a_cut_off_follower_knows_after_an_election_timeout() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.tick(HEARTBEAT)
    assert cluster[3].quorum_contact
    cluster.isolate(3)
    assert cluster.tick_until(lambda: not cluster[3].quorum_contact) <= TIMEOUT


def test_progress_as_status_pages_see_it() -> None:
    solo = Solo()
    assert solo.raft.progress(2) is None
    solo.lead()
    solo.raft.propose(1, b"x")
    solo.drain()
    view = solo.raft.progress(2)
    assert view is not None
    assert (view.match_index, view.next_index, view.state, view.in_flight, view.recently_active) == (
        1,
        3,
        "replicate",
        1,
        True,
    )


def test_a_single_voter_elects_itself_and_commits_alone() -> None:
    solo = Solo(size=1)
    solo.tick(TIMEOUT)
    assert solo.raft.is_leader
    solo.raft.propose(1, b"x")
    effects = solo.take()
    assert effects.committed == []
    solo.save()
    assert [entry.data for entry in solo.take().committed] == [b"x"]


def test_a_state_machine_ahead_of_the_log_is_refused() -> None:
    saved = SavedState(hard_state=HardState(1), configuration=Configuration(frozenset({1})), applied_index=3)
    with pytest.raises(AssertionError, match="neither behind the log's start nor ahead of its end"):
        Raft(config_of(1), saved, lambda low, high: low)


def test_the_log_can_be_kept_within_bounds() -> None:
    solo = Solo(terms=[1] * 10, commit=10, applied=10)
    index = solo.raft.compactable_index(retained_entries_max=4, retained_bytes_max=10_000)
    assert index == 6
    solo.raft.compact(index)
    assert (solo.raft.log_start_index, solo.raft.log_start_term) == (6, 1)
    assert solo.raft.compactable_index(retained_entries_max=4, retained_bytes_max=10_000) == 6
    assert [entry.index for entry in solo.raft.held_entries(7, 9, 10_000)] == [7, 8, 9]
    assert [entry.index for entry in solo.raft.held_entries(8, 10, 1)] == [8]
    assert solo.raft.held_entries(6, 9, 10_000) == []
    assert of_kind(Heartbeat, solo.drain()) == []
