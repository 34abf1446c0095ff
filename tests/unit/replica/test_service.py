"""Routing, batching, forwarding, and the writes that a member makes by itself."""

import msgpack
import pytest

from raftkv.errors import (
    DeadlineExceeded,
    LeadershipLost,
    NoQuorum,
    NoSpace,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ShuttingDown,
    Unreachable,
)
from raftkv.limits import Limits
from raftkv.raft.effects import ReadReady, RoleChange
from raftkv.replica.groups import ReadGroup
from raftkv.replica.service import FAREWELLS_PER_ELECTION, SWEEP_INTERVAL_MS
from raftkv.wire.commands import CREATE_CLUSTER, EXPIRE_SESSIONS, FAILED, PUBLISH_MEMBER, RANGE, decode_batch, failure
from raftkv.wire.pools import POOL_TICK
from tests.unit.replica.fakes import Bench
from tests.unit.replica.origins import RecordingOrigin, get_group, put_group


def test_what_waits_together_becomes_one_entry() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.service.submit_writes(put_group(origin, "a", "b"))
    bench.service.submit_writes(put_group(origin, "c"))
    bench.service.flush(now_ms=5)
    assert len(bench.raft.proposed) == 1
    _, groups = decode_batch(bench.raft.proposed[0].data)
    assert [[command[2] for command in group[5]] for group in groups] == [[b"a", b"b"], [b"c"]]
    bench.apply_all([[[0, 2], [0, 3]], [[0, 4]]])
    assert origin.answers == [[[0, 2], [0, 3]], [[0, 4]]]


def test_while_entries_are_in_flight_requests_gather_for_the_next() -> None:
    bench, origin = Bench(), RecordingOrigin()
    for key in "abcd":
        bench.service.submit_writes(put_group(origin, key))
        bench.service.flush(now_ms=1)
    assert len(bench.raft.proposed) == 2
    bench.apply_all([[[0, 3]]])
    bench.service.flush(now_ms=1)
    _, groups = decode_batch(bench.raft.proposed[2].data)
    assert [group[5][0][2] for group in groups] == [b"c", b"d"]


def test_the_first_leader_has_a_name_before_the_log_tells_it() -> None:
    bench = Bench()
    bench.raft.leader = 2
    bench.state_machine.members = list  # type: ignore[method-assign]
    assert bench.service.leader_hint() == {"id": 2, "name": "n2", "address": ""}


def test_an_entry_holds_at_most_its_bytes_or_one_group() -> None:
    bench, origin = Bench(Limits(entry_bytes_max=250)), RecordingOrigin()
    for key, size_bytes in (("a", 100), ("b", 100), ("c", 100), ("huge", 900)):
        bench.service.submit_writes(put_group(origin, key, size_bytes=size_bytes))
    bench.service.flush(now_ms=1)
    keys = [[group[5][0][2] for group in decode_batch(entry.data)[1]] for entry in bench.raft.proposed]
    assert keys == [[b"a", b"b"], [b"c"]]


@pytest.mark.parametrize(
    ("leader", "quorum_contact", "expected"), [(2, True, NotLeader), (0, True, NotLeader), (0, False, NoQuorum)]
)
def test_a_member_that_does_not_lead_says_where_to_go(leader: int, quorum_contact: bool, expected: type) -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.raft.follow(leader, quorum_contact=quorum_contact)
    bench.service.submit_writes(put_group(origin, "a"))
    (error,) = origin.errors
    assert type(error) is expected
    assert not error.may_have_happened
    assert [member["name"] for member in error.details["members"]] == ["n1", "n2"]
    if leader:
        assert error.details["leader"] == {"id": 2, "name": "n2", "address": "n2:2379"}


def test_losing_the_majority_ends_pending_writes_as_unknown_and_unproposed_ones_as_refused() -> None:
    bench, proposed, waiting = Bench(), RecordingOrigin(), RecordingOrigin()
    for origin in (proposed, proposed, waiting):
        bench.service.submit_writes(put_group(origin, "k"))
        bench.service.flush(now_ms=1)
    bench.raft.follow(0, quorum_contact=False)
    bench.service.on_role_change(RoleChange("follower", 1, 0))
    assert [(type(error), error.may_have_happened) for error in proposed.errors] == [(NoQuorum, True)] * 2
    assert [(type(error), error.may_have_happened) for error in waiting.errors] == [(NoQuorum, False)]


def test_losing_the_office_to_another_leader_names_it() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.service.submit_writes(put_group(origin, "k"))
    bench.service.flush(now_ms=1)
    bench.raft.follow(2)
    bench.service.on_role_change(RoleChange("follower", 2, 2))
    (error,) = origin.errors
    assert type(error) is LeadershipLost
    assert error.may_have_happened
    assert error.details["leader"]["name"] == "n2"


def test_writes_wait_out_a_transfer_and_follow_the_new_leader() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.raft.is_transferring = True
    bench.service.submit_writes(put_group(origin, "k"))
    bench.service.flush(now_ms=1)
    assert bench.raft.proposed == []
    bench.raft.is_transferring = False
    bench.raft.follow(2)
    bench.service.on_role_change(RoleChange("follower", 2, 2))
    assert [(type(error), error.may_have_happened) for error in origin.errors] == [(NotLeader, False)]


def test_a_full_disk_refuses_writes_and_serves_reads() -> None:
    bench, writer, reader = Bench(), RecordingOrigin(), RecordingOrigin()
    bench.service.write_block = NoSpace()
    bench.service.submit_writes(put_group(writer, "k"))
    bench.service.submit_reads(get_group(reader, "k"))
    bench.service.flush(now_ms=1)
    bench.service.on_reads_ready([ReadReady(bench.raft.contexts[0], 0)])
    assert [type(error) for error in writer.errors] == [NoSpace]
    assert reader.answers == [[[0, 1, None]]]


def test_over_its_bounds_a_member_refuses_new_writes() -> None:
    bench, origin = Bench(Limits(pending_writes_bytes_max=150)), RecordingOrigin()
    for key in "abc":
        bench.service.submit_writes(put_group(origin, key, size_bytes=100))
    assert [type(error) for error in origin.errors] == [Overloaded]


def test_no_new_entry_while_the_store_has_no_room() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.state_machine.has_room = False
    bench.service.submit_writes(put_group(origin, "k"))
    bench.service.flush(now_ms=1)
    assert bench.raft.proposed == []
    bench.state_machine.has_room = True
    bench.service.flush(now_ms=2)
    assert len(bench.raft.proposed) == 1


def test_reads_wait_for_apply_and_each_fails_alone() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.service.submit_reads(get_group(origin, "here", "missing"))
    bench.service.flush(now_ms=1)
    bench.service.on_reads_ready([ReadReady(bench.raft.contexts[0], 3)])
    assert origin.ends == 0
    bench.state_machine.applied_index = 3
    bench.service.flush(now_ms=1)
    ((found, missing),) = origin.answers
    assert found == [0, 1, None]
    assert missing[:2] == [1, "key_not_found"]


@pytest.mark.parametrize(("election_timeout_ms", "gives_up_ms"), [(1_000, 1_000), (200, 500), (8_000, 8_000)])
def test_a_follower_waits_for_an_election_timeout_and_a_leader_for_as_long_as_it_leads(
    election_timeout_ms: int, gives_up_ms: int
) -> None:
    """Found by the scale check: over links of 400 ms every confirmation was given up just before it came."""
    bench, origin = Bench(), RecordingOrigin()
    bench.raft.election_timeout_ms = election_timeout_ms
    bench.service.submit_reads(get_group(origin, "k", deadline_ms=100_000))
    bench.service.flush(now_ms=0)
    bench.service.tick(now_ms=50_000)
    bench.service.flush(now_ms=50_000)
    assert len(bench.raft.contexts) == 1, "the leader's own round is repeated by its heartbeats"
    bench.raft.follow(2)
    bench.service.tick(now_ms=50_000 + SWEEP_INTERVAL_MS)
    bench.service.flush(now_ms=50_000 + SWEEP_INTERVAL_MS)
    asked_ms = 50_000 + SWEEP_INTERVAL_MS
    for late_ms, asked in ((gives_up_ms - 1, 2), (gives_up_ms + SWEEP_INTERVAL_MS, 3)):
        bench.service.tick(now_ms=asked_ms + late_ms)
        bench.service.flush(now_ms=asked_ms + late_ms)
        assert len(bench.raft.contexts) == asked


def test_a_lost_confirmation_is_asked_again_under_a_new_context() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.raft.follow(2)
    bench.service.submit_reads(get_group(origin, "k", deadline_ms=100_000))
    bench.service.flush(now_ms=0)
    bench.service.tick(now_ms=1_000)
    bench.service.flush(now_ms=1_000)
    first, second = bench.raft.contexts
    assert first != second
    bench.service.on_reads_ready([ReadReady(first, 0)])
    assert origin.ends == 0
    bench.service.on_reads_ready([ReadReady(second, 0)])
    assert origin.ends == 1


def test_reads_without_a_leader_are_refused_where_they_land_but_stale_ones_are_served() -> None:
    bench, strict, stale = Bench(), RecordingOrigin(), RecordingOrigin()
    bench.raft.follow(0, quorum_contact=False)
    bench.service.submit_reads(get_group(strict, "k"))
    bench.service.read_now(get_group(stale, "k"))
    assert [type(error) for error in strict.errors] == [NoQuorum]
    assert stale.answers == [[[0, 1, None]]]


def test_deadlines_end_what_waits_honestly() -> None:
    bench, proposed, waiting = Bench(), RecordingOrigin(), RecordingOrigin()
    for origin in (proposed, proposed, waiting):
        bench.service.submit_writes(put_group(origin, "k", deadline_ms=50))
        bench.service.flush(now_ms=1)
    bench.service.tick(now_ms=600)
    assert [(type(error), error.may_have_happened) for error in proposed.errors] == [(DeadlineExceeded, True)] * 2
    assert [(type(error), error.may_have_happened) for error in waiting.errors] == [(DeadlineExceeded, False)]


def test_forwarding_is_one_hop_and_its_answer_comes_back() -> None:
    follower, leader, origin = Bench(), Bench(), RecordingOrigin()
    follower.raft.follow(2)
    follower.service.forward(put_group(origin, "k", session=b"s" * 16))
    ((request_id, target, payload),) = follower.forwarder.forwarded
    assert target == 2
    leader.service.on_forward(request_id, 1, payload)
    leader.service.flush(now_ms=1)
    leader.apply_all([[[0, 2, None]]])
    ((answered_id, asker, answer),) = leader.forwarder.answered
    assert (answered_id, asker) == (request_id, 1)
    follower.service.on_forward_answer(answered_id, answer)
    follower.service.on_forward_answer(answered_id, answer)
    assert origin.answers == [[[0, 2, None]]]


def test_a_forward_that_reaches_no_leader_is_refused_and_not_passed_on() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.raft.follow(2)
    sender = Bench()
    sender.raft.follow(2)
    sender.service.forward(put_group(origin, "k"))
    request_id, _, payload = sender.forwarder.forwarded[0]
    bench.service.on_forward(request_id, 3, payload)
    assert bench.forwarder.forwarded == []
    sender.service.on_forward_answer(request_id, bench.forwarder.answered[0][2])
    assert [(type(error), error.may_have_happened) for error in origin.errors] == [(NotLeader, False)]


def test_a_forward_that_finds_no_way_was_surely_not_done() -> None:
    """A link that broke with its leader: to wait for an answer, and then for an unknown outcome, would be for nothing."""
    bench, origin = Bench(), RecordingOrigin()
    bench.raft.follow(2)
    bench.forwarder.has_way = False
    bench.service.forward(put_group(origin, "k"))
    assert [(type(error), error.may_have_happened) for error in origin.errors] == [(Unreachable, False)]
    bench.forwarder.has_way = True
    bench.service.forward(put_group(origin, "k"))
    assert len(bench.forwarder.forwarded) == 1
    assert len(origin.errors) == 1


def test_a_forward_whose_leader_changes_has_an_unknown_outcome() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.raft.follow(2)
    bench.service.forward(put_group(origin, "k"))
    bench.service.on_role_change(RoleChange("follower", 3, 0))
    bench.service.on_role_change(RoleChange("follower", 3, 2))
    farewell_ms = bench.raft.election_timeout_ms // FAREWELLS_PER_ELECTION
    bench.service.tick(now_ms=farewell_ms - 1)
    assert not origin.errors, "the old leader may still say what became of it"
    bench.service.tick(now_ms=farewell_ms)
    assert [type(error) for error in origin.errors] == [OutcomeUnknown]
    bench.service.on_forward_answer(bench.forwarder.forwarded[0][0], b"")
    assert bench.service.is_idle


def test_a_forward_whose_leader_is_gone_ends_with_its_connection() -> None:
    """It answers on that connection, so that nothing more is to be waited for; what others were asked goes on."""
    bench, gone, other = Bench(), RecordingOrigin(), RecordingOrigin()
    bench.raft.follow(2)
    bench.service.forward(put_group(gone, "k"))
    bench.raft.follow(3)
    bench.service.forward(put_group(other, "k"))
    bench.service.on_peer_reset(2)
    assert [(type(error), error.may_have_happened) for error in gone.errors] == [(OutcomeUnknown, True)]
    bench.service.on_forward_answer(bench.forwarder.forwarded[0][0], b"")
    bench.service.on_role_change(RoleChange("follower", 3, 0))
    bench.service.tick(now_ms=10_000)
    assert [type(error) for error in (*gone.errors, *other.errors)] == [OutcomeUnknown, OutcomeUnknown]
    assert bench.service.is_idle


def test_a_leader_that_hands_over_says_what_became_of_what_it_was_forwarded() -> None:
    bench, leader = Bench(), Bench()
    done, refused = RecordingOrigin(), RecordingOrigin()
    bench.raft.follow(2)
    for origin in (done, refused):
        bench.service.forward(put_group(origin, "k"))
    for request_id, _, payload in bench.forwarder.forwarded:
        leader.service.on_forward(request_id, 1, payload)
    leader.service.flush(now_ms=1)
    bench.service.on_role_change(RoleChange("follower", 3, 3))
    leader.apply_all([[[0, 2, None]], [[0, 3, None]]])
    for request_id, _, answer in leader.forwarder.answered[:1]:
        bench.service.on_forward_answer(request_id, answer)
    refusal = msgpack.packb([FAILED, failure(NotLeader())])
    bench.service.on_forward_answer(bench.forwarder.forwarded[1][0], refusal)
    bench.service.tick(now_ms=10_000)
    assert done.answers == [[[0, 2, None]]]
    assert [(type(error), error.may_have_happened) for error in refused.errors] == [(NotLeader, False)]


def range_group(origin: RecordingOrigin, steps: int) -> ReadGroup:
    command = [RANGE, 0, b"a", b"z", steps, 0, 0, 0, 0, 0, 0, 0]
    return ReadGroup(origin, [1], [command], deadline_ms=1_000_000)


def test_a_long_range_gets_a_step_per_turn_and_others_overtake_it() -> None:
    bench, long, short = Bench(), RecordingOrigin(), RecordingOrigin()
    bench.service.read_now(range_group(long, steps=4))
    bench.service.read_now(get_group(short, "k"))
    assert (long.ends, short.ends) == (0, 1)
    assert bench.service.has_backlog
    for now_ms in (1, 2):
        bench.service.flush(now_ms)
    assert long.answers == [[[0, 1, [], False, 0]]]
    assert not bench.service.has_backlog


def test_large_answers_go_out_in_parts_and_not_to_a_client_that_does_not_take_them() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.service.read_now(get_group(origin, *["big"] * 5))
    assert [len(part) for part in origin.answers] == [2], "a portion ends with the megabyte that it reached"
    origin.takes_answers = False
    bench.service.flush(now_ms=1)
    assert len(origin.answers) == 1
    assert not bench.service.has_backlog, "nothing to do until it takes them"
    assert not bench.service.is_idle
    origin.takes_answers = True
    assert bench.service.has_backlog
    for now_ms in (2, 3):
        bench.service.flush(now_ms)
    assert [len(part) for part in origin.answers] == [2, 2, 1]
    assert bench.service.is_idle


def test_ranges_end_when_the_store_under_them_is_replaced() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.service.read_now(range_group(origin, steps=9))
    bench.service.on_store_replaced()
    assert [type(error) for error in origin.errors] == [Overloaded]
    assert bench.service.is_idle


def test_shutting_down_refuses_what_is_new() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.service.submit_writes(put_group(origin, "early"))
    bench.service.begin_shutdown()
    bench.service.submit_writes(put_group(origin, "late"))
    assert [type(error) for error in origin.errors] == [ShuttingDown, ShuttingDown]
    assert bench.service.is_idle


def _own_commands(bench: Bench) -> list[int]:
    return [decode_batch(entry.data)[1][0][5][0][0] for entry in bench.raft.proposed]


def test_the_first_leader_founds_the_cluster_then_publishes_itself() -> None:
    bench = Bench()
    bench.state_machine.cluster_id = 0
    bench.state_machine.own_record = [1, "n1", 0, "", "n1:2380", "", 0]
    bench.service.tick(now_ms=1_000)
    bench.service.flush(now_ms=1_000)
    assert _own_commands(bench) == [CREATE_CLUSTER]
    bench.apply_all([[[0, 1]]])
    bench.state_machine.cluster_id = 7
    bench.service.tick(now_ms=2_000)
    bench.service.flush(now_ms=2_000)
    assert _own_commands(bench) == [CREATE_CLUSTER, PUBLISH_MEMBER]
    bench.apply_all([[[0, 1]]])
    bench.state_machine.own_record = [1, "n1", 11, "n1:2379", "n1:2380", "1", 0]
    bench.service.tick(now_ms=3_000)
    bench.service.flush(now_ms=3_000)
    assert len(bench.raft.proposed) == 2, "nothing is left to say"


def test_a_follower_publishes_itself_through_the_leader_one_at_a_time() -> None:
    bench = Bench()
    bench.raft.follow(2)
    bench.state_machine.own_record = [1, "n1", 11, "elsewhere:2379", "n1:2380", "1", 0]
    bench.service.tick(now_ms=1_000)
    bench.service.tick(now_ms=2_000)
    ((_, target, payload),) = bench.forwarder.forwarded
    assert target == 2
    assert msgpack.unpackb(payload)[2][5][0][0] == PUBLISH_MEMBER


def test_a_follower_that_does_not_apply_what_is_done_says_it_again_only_now_and_then() -> None:
    """Or a full disk, which keeps it from applying, would fill the log of everybody: found by the simulator."""
    bench, leader = Bench(), Bench()
    bench.raft.follow(2)
    bench.state_machine.own_record = [1, "n1", 11, "elsewhere:2379", "n1:2380", "1", 0]
    for now_ms in range(1_000, 31_000, 100):
        bench.service.tick(now_ms)
        if len(bench.forwarder.forwarded) > len(leader.forwarder.answered):
            request_id, _, payload = bench.forwarder.forwarded[-1]
            leader.service.flush(now_ms)
            leader.service.on_forward(request_id, 1, payload)
            leader.service.flush(now_ms)
            leader.apply_all([[[0, 1]]])
            bench.service.on_forward_answer(*leader.forwarder.answered[-1][::2])
    assert len(bench.forwarder.forwarded) == 3


def test_sessions_end_by_a_log_command_once_replicated_time_has_come() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.service.submit_writes(put_group(origin, "k"))
    bench.service.flush(now_ms=10)
    bench.apply_all([[[0, 2]]])  # the office is taken at replicated time 0
    bench.state_machine.earliest_deadline_ms = 5_000
    bench.service.tick(now_ms=4_000)
    assert len(bench.raft.proposed) == 1
    bench.service.tick(now_ms=6_000)
    bench.service.flush(now_ms=6_000)
    time_ms, groups = decode_batch(bench.raft.proposed[-1].data)
    assert groups[0][5][0][0] == EXPIRE_SESSIONS
    assert time_ms >= 5_000


def test_the_time_of_pools_is_moved_by_a_log_command_and_only_when_it_matters() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.service.submit_writes(put_group(origin, "k"))
    bench.service.flush(now_ms=10)
    bench.apply_all([[[0, 2]]])
    bench.service.tick(now_ms=4_000)
    bench.state_machine.pool_deadline_ms = 5_000
    bench.service.tick(now_ms=4_600)
    bench.service.flush(now_ms=4_600)
    assert len(bench.raft.proposed) == 1, "it has not come yet"
    bench.service.tick(now_ms=6_000)
    bench.service.flush(now_ms=6_000)
    time_ms, groups = decode_batch(bench.raft.proposed[-1].data)
    assert groups[0][5] == [[POOL_TICK, 0]]
    assert time_ms >= 5_000


def test_replicated_time_continues_where_the_log_ended_and_not_with_a_new_leaders_clock() -> None:
    bench, origin = Bench(), RecordingOrigin()
    bench.state_machine.clock_ms = 70_000
    bench.service.submit_writes(put_group(origin, "before"))
    bench.service.flush(now_ms=5)
    assert decode_batch(bench.raft.proposed[0].data)[0] == 70_000
    bench.apply_all([[[0, 2]]])
    bench.service.submit_writes(put_group(origin, "after"))
    bench.service.flush(now_ms=105)
    assert decode_batch(bench.raft.proposed[1].data)[0] == 70_100
