"""Claims of chapter 5: compaction, and snapshots for followers whose next entry is gone."""

from dataclasses import replace

import pytest

from raftkv.limits import Limits
from raftkv.raft.effects import SendSnapshotChunk
from raftkv.raft.membership import encode_configuration
from raftkv.raft.messages import (
    ENTRY_CONFIGURATION,
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    Entry,
    InstallSnapshot,
    InstallSnapshotResponse,
    SnapshotMeta,
)
from tests.unit.raft.cluster import HEARTBEAT, TIMEOUT, Cluster
from tests.unit.raft.solo import Solo, of_kind

VOTERS = Configuration(frozenset({1, 2, 3}))
CHUNKY = Limits(snapshot_chunk_bytes=10, snapshot_chunks_in_flight_max=3)


def leader_of_a_late_follower(limits: Limits = CHUNKY) -> Solo:
    """A leader with entries 1 to 10 compacted up to 8, and member 3 known to end at 2."""
    return leader_of_a_late_follower_with(limits=limits)


def leader_of_a_late_follower_with(**settings: object) -> Solo:
    solo = Solo(terms=[1] * 9, commit=9, applied=9, **{"limits": CHUNKY, **settings})  # type: ignore[arg-type]
    solo.elect()
    solo.step(solo.accept(2, 10))
    solo.raft.compact(8)
    solo.step(AppendEntriesResponse(2, 3, 1, 9, rejected=True, hint_index=2, hint_term=1))
    return solo


def chunks(solo: Solo, since: int = 0) -> list[SendSnapshotChunk]:
    return [chunk for effects in solo.effects[since:] for chunk in effects.snapshot_chunks]


def stored(next_offset: int, *, snapshot_id: int = 5, installed: bool = False) -> InstallSnapshotResponse:
    return InstallSnapshotResponse(2, 3, 1, snapshot_id, next_offset, installed)


def meta_at(index: int, term: int = 1, snapshot_id: int = 5, size_bytes: int = 45) -> SnapshotMeta:
    return SnapshotMeta(index, term, VOTERS, size_bytes, 0, snapshot_id)


def test_a_compacted_log_still_answers_the_consistency_check_at_its_start() -> None:
    """5.1: the last included index and term are kept."""
    solo = Solo(start=(7, 2), terms=[2])
    (answer,) = of_kind(AppendEntriesResponse, solo.step(solo.append((7, 2), [2, 3], term=3)))
    assert (answer.rejected, answer.match_index) == (False, 9)
    assert solo.log_terms() == [2, 3]


def test_compaction_stops_at_what_is_given_out_and_durable() -> None:
    """5.1: only committed and applied entries are replaced."""
    solo = Solo(terms=[1, 1, 1], commit=2)
    solo.drain()
    solo.raft.compact(3)
    assert (solo.raft.log_start_index, solo.raft.log_start_term) == (2, 1)
    solo.raft.compact(1)
    assert solo.raft.log_start_index == 2


def test_a_snapshot_is_asked_for_once_when_the_next_entry_is_gone() -> None:
    """5.3."""
    solo = leader_of_a_late_follower()
    assert [effects.need_snapshot for effects in solo.effects].count(True) == 1
    solo.tick(2 * HEARTBEAT)
    assert [effects.need_snapshot for effects in solo.effects].count(True) == 1
    assert solo.raft.progress(3).state == "snapshot"  # type: ignore[union-attr]


def test_chunks_go_in_a_small_window_and_follow_the_answers() -> None:
    """5.3, figure 5.3: a snapshot is split into chunks."""
    solo = leader_of_a_late_follower()
    solo.raft.offer_snapshot(meta_at(9))
    solo.drain()
    assert [(c.target, c.offset, c.size_max, c.term) for c in chunks(solo)] == [
        (3, 0, 10, 2),
        (3, 10, 10, 2),
        (3, 20, 10, 2),
    ]
    solo.step(stored(10))
    solo.step(stored(30))
    assert [chunk.offset for chunk in chunks(solo)] == [0, 10, 20, 30, 40]
    solo.step(stored(45))
    assert solo.raft.snapshot_in_use
    sent = of_kind(AppendEntries, solo.step(stored(45, installed=True)))
    assert [(a.previous_index, [e.index for e in a.entries]) for a in sent] == [(9, [10])]
    assert not solo.raft.snapshot_in_use


def test_a_transfer_resumes_where_the_follower_is() -> None:
    """Our addition to 5.3."""
    solo = leader_of_a_late_follower()
    solo.raft.offer_snapshot(meta_at(9))
    solo.drain()
    before = len(solo.effects)
    solo.step(stored(32))
    assert [chunk.offset for chunk in chunks(solo, before)] == [32, 42]


def test_a_follower_that_starts_over_is_served_from_there_and_only_once() -> None:
    """Our addition to 5.3."""
    solo = leader_of_a_late_follower()
    solo.raft.offer_snapshot(meta_at(9))
    solo.step(stored(30))
    before = len(solo.effects)
    for _ in range(3):
        solo.step(stored(0))
    assert [chunk.offset for chunk in chunks(solo, before)] == [0, 10, 20]


def test_answers_that_come_out_of_order_do_not_multiply_the_chunks() -> None:
    """Our addition: each old answer looks like a follower that started over; without a bound every one asks for a window, and so for more."""
    solo = leader_of_a_late_follower()
    solo.drain()
    solo.raft.offer_snapshot(meta_at(9, size_bytes=10_000))
    solo.drain()
    before = len(chunks(solo))
    for _ in range(50):
        solo.step(stored(20), stored(10))
    assert len(chunks(solo)) - before < 20
    solo.raft.tick()
    solo.step(stored(10))
    assert chunks(solo)[-1].offset >= 10, "a real one is followed"


def test_silence_resends_after_an_election_timeout() -> None:
    """5.3 with 3.7: what is not answered is sent again."""
    solo = leader_of_a_late_follower()
    solo.raft.offer_snapshot(meta_at(9))
    solo.step(stored(10))
    before = len(solo.effects)
    for _ in range(TIMEOUT):
        assert chunks(solo, before) == []
        solo.tick()
        solo.step(solo.heartbeat_response(3, 0), solo.heartbeat_response(2, 0))
    assert [chunk.offset for chunk in chunks(solo, before)] == [10, 20, 30]


def test_when_only_the_end_was_lost_the_last_chunk_is_sent_again() -> None:
    """5.3 with 3.7."""
    solo = leader_of_a_late_follower()
    solo.raft.offer_snapshot(meta_at(9))
    solo.step(stored(45))
    before = len(solo.effects)
    for _ in range(TIMEOUT):
        solo.tick()
        solo.step(solo.heartbeat_response(3, 0), solo.heartbeat_response(2, 0))
    assert [chunk.offset for chunk in chunks(solo, before)] == [44]


def test_an_answer_about_another_snapshot_is_ignored() -> None:
    """5.3."""
    solo = leader_of_a_late_follower()
    solo.raft.offer_snapshot(meta_at(9))
    solo.step(stored(45, snapshot_id=4, installed=True))
    assert solo.raft.progress(3).state == "snapshot"  # type: ignore[union-attr]


def test_a_follower_that_turns_out_to_have_enough_needs_no_snapshot() -> None:
    """5.3: an acknowledgement that was under way shows that the log can serve it after all."""
    solo = leader_of_a_late_follower()
    solo.step(AppendEntriesResponse(2, 3, 1, 7))
    assert solo.raft.progress(3).state == "snapshot"  # type: ignore[union-attr]
    sent = of_kind(AppendEntries, solo.step(AppendEntriesResponse(2, 3, 1, 8)))
    assert [(a.previous_index, [e.index for e in a.entries]) for a in sent] == [(8, [9, 10])]


def pass_time(solo: Solo, ticks: int, *heard: int) -> None:
    """Ticks in which only these members answer."""
    for _ in range(ticks):
        solo.tick()
        solo.step(*(solo.heartbeat_response(peer, 0) for peer in heard))


def test_compaction_stops_at_a_snapshot_in_use_and_goes_on_when_the_follower_is_gone() -> None:
    """5.1, 5.3; and our addition: it may come back within a while."""
    solo = leader_of_a_late_follower(replace(CHUNKY, snapshot_resume_ms_max=2 * TIMEOUT * 25))
    solo.raft.offer_snapshot(meta_at(9))
    solo.step(stored(10))
    solo.raft.compact(10)
    assert solo.raft.log_start_index == 9
    pass_time(solo, TIMEOUT, 2)
    assert solo.raft.progress(3).state == "probe"  # type: ignore[union-attr]
    assert solo.raft.snapshot_in_use, "it may come back and go on"
    pass_time(solo, TIMEOUT, 2)
    assert not solo.raft.snapshot_in_use, "a follower that stays silent holds no snapshot"
    solo.raft.compact(10)
    assert solo.raft.log_start_index == 10
    before = len(solo.effects)
    solo.step(solo.heartbeat_response(3, 0))
    assert solo.effects[before].need_snapshot, "the offered one is older than the log now"


def test_a_withdrawn_or_failed_snapshot_is_asked_for_again() -> None:
    """Our addition to 5.3."""
    solo = leader_of_a_late_follower()
    before = len(solo.effects)
    solo.raft.withdraw_snapshot()
    solo.tick()
    assert [effects.need_snapshot for effects in solo.effects[before:]].count(True) == 1


def test_several_followers_are_served_from_one_snapshot() -> None:
    """5.3."""
    solo = leader_of_a_late_follower()
    solo.raft.offer_snapshot(meta_at(9))
    solo.raft.on_peer_unreachable(2)
    solo.drain()
    solo.step(AppendEntriesResponse(2, 2, 1, 10, rejected=True, hint_index=0, hint_term=0))
    assert {chunk.target for chunk in chunks(solo)} == {3}, "what it acknowledged it has"
    cluster = Cluster(5, limits=CHUNKY)
    cluster.elect(1)
    cluster.isolate(4, 5)
    cluster.write(*[b"%d" % number for number in range(20)])
    cluster.nodes[1].compact(15)
    cluster.heal()
    cluster.tick(3 * TIMEOUT)
    assert cluster.nodes[1].snapshots_made == 1
    assert cluster.nodes[4].data == cluster.nodes[5].data == cluster.nodes[1].data
    assert cluster[4].log_start_index == cluster[5].log_start_index == 21


def test_the_leader_goes_on_serving_during_a_transfer() -> None:
    """5.3."""
    cluster = Cluster(3, limits=CHUNKY)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.write(*[b"%d" % number for number in range(20)])
    cluster.nodes[1].compact(21)
    cluster.heal()
    cluster.drop = lambda message: isinstance(message, InstallSnapshot) and message.offset > 0
    cluster.tick(HEARTBEAT + 1)
    assert cluster[1].snapshot_in_use
    cluster.write(b"during")
    assert cluster.nodes[1].data[-1] == b"during"
    cluster.heal()
    cluster.tick(3 * TIMEOUT)
    assert cluster.nodes[3].data == cluster.nodes[1].data


def test_a_follower_that_was_silent_goes_on_where_it_was() -> None:
    """Our addition to chapter 5: the snapshot outlives the connection, so what has arrived is not sent again."""
    solo = leader_of_a_late_follower()
    solo.raft.offer_snapshot(meta_at(9))
    solo.step(stored(20))
    pass_time(solo, 2 * TIMEOUT, 2)
    assert solo.raft.progress(3).state == "probe"  # type: ignore[union-attr]
    before = len(solo.effects)
    solo.step(solo.heartbeat_response(3, 0))
    assert [chunk.offset for chunk in chunks(solo, before)] == [20, 30, 40]
    assert not any(effects.need_snapshot for effects in solo.effects[before:])
    before = len(solo.effects)
    solo.step(stored(10))
    assert [chunk.offset for chunk in chunks(solo, before)] == [10, 20, 30], "unless the follower has lost it"


def test_a_follower_that_never_took_a_byte_holds_nothing() -> None:
    """5.1; one that is down when a leader is elected counts as active for an election timeout."""
    solo = leader_of_a_late_follower()
    solo.raft.offer_snapshot(meta_at(9))
    pass_time(solo, TIMEOUT, 2)
    assert not solo.raft.snapshot_in_use


def leader_of_one_that_catches_up(limits: Limits = CHUNKY) -> Solo:
    """Member 3 has installed the snapshot at 9; meanwhile the log went on to 12, and everything is committed."""
    solo = leader_of_a_late_follower(limits)
    solo.raft.offer_snapshot(meta_at(9))
    for _ in range(2):
        solo.raft.propose(1, b"x" * 100)
    solo.drain()
    solo.step(solo.accept(2, 12), stored(45))
    solo.step(stored(45, installed=True))
    assert not solo.raft.snapshot_in_use
    return solo


def test_compaction_stops_behind_a_follower_that_catches_up_from_a_snapshot() -> None:
    """Our addition to 5.1: else it would need the next snapshot before it has read what follows the last, again and again."""
    solo = leader_of_one_that_catches_up()
    solo.raft.compact(12)
    assert solo.raft.log_start_index == 9
    solo.step(solo.accept(3, 10))
    solo.raft.compact(12)
    assert solo.raft.log_start_index == 10, "what it has is not kept"
    solo.raft.propose(1, b"later")
    solo.drain()
    solo.step(solo.accept(2, 13))
    solo.step(solo.accept(3, 12))
    solo.raft.compact(13)
    assert solo.raft.log_start_index == 13, (
        "it has seen the log as it was when it began: from here on it is one like any other"
    )


def test_one_that_catches_up_is_not_waited_for_without_end() -> None:
    """5.1: a silent one is forgotten after a while, and a log that grows too far is compacted."""
    solo = leader_of_one_that_catches_up(replace(CHUNKY, snapshot_resume_ms_max=2 * TIMEOUT * 25))
    pass_time(solo, TIMEOUT, 2)
    solo.raft.compact(12)
    assert solo.raft.log_start_index == 9
    pass_time(solo, TIMEOUT, 2)
    solo.raft.compact(12)
    assert solo.raft.log_start_index == 12
    solo = leader_of_one_that_catches_up(replace(CHUNKY, log_retained_bytes_max=1, log_held_bytes_max=200))
    solo.raft.compact(12)
    assert solo.raft.log_start_index == 12


def test_one_that_got_the_whole_state_is_not_waited_for() -> None:
    """5.1: a snapshot up to the last entry leaves nothing to catch up with."""
    solo = leader_of_a_late_follower()
    solo.step(solo.accept(2, 10))
    solo.raft.offer_snapshot(meta_at(10, term=2))
    solo.step(stored(45))
    solo.step(stored(45, installed=True))
    solo.raft.compact(10)
    assert solo.raft.log_start_index == 10


def test_a_log_that_grows_without_bound_is_compacted_under_a_transfer() -> None:
    """Our addition: a receiver that is too slow for the writes gets a newer snapshot, memory stays what it is."""
    limits = replace(CHUNKY, log_retained_bytes_max=1, log_held_bytes_max=1000)
    solo = leader_of_a_late_follower(limits)
    solo.raft.offer_snapshot(meta_at(9))
    for size_bytes in (500, 2000):
        solo.raft.propose(1, b"x" * size_bytes)
        solo.drain()
        solo.step(solo.accept(2, solo.raft.last_index))
        before = len(solo.effects)
        solo.raft.compact(solo.raft.last_index)
        solo.drain()
        if size_bytes == 500:
            assert (solo.raft.log_start_index, solo.raft.snapshot_in_use) == (9, True)
    assert solo.raft.log_start_index == solo.raft.last_index == 12
    pass_time(solo, 1, 2, 3)
    assert [effects.need_snapshot for effects in solo.effects[before:]].count(True) == 1
    solo.raft.offer_snapshot(meta_at(12, term=2, snapshot_id=6))
    solo.drain()
    assert {(c.snapshot.snapshot_id, c.offset) for c in chunks(solo, before)} == {(6, 0), (6, 10), (6, 20)}


def test_a_snapshot_that_is_refused_twice_is_made_anew() -> None:
    """Our addition: the way may damage it once; when it arrives damaged again, the copy itself is bad, and would be for ever."""
    solo = leader_of_a_late_follower()
    solo.raft.offer_snapshot(meta_at(9))
    before = len(solo.effects)
    for round_ in (1, 2):
        solo.step(stored(30))
        solo.step(stored(45))
        solo.step(stored(0))
        wanted = [effects.need_snapshot for effects in solo.effects[before:]].count(True)
        assert wanted == (0 if round_ == 1 else 1)
        assert chunks(solo)[-3].offset == 0, "sent again"


def test_the_budget_of_a_tick_bounds_what_all_followers_are_sent() -> None:
    """Our addition: a snapshot must not take the network from the appends. 10 of 45 bytes a tick, in chunks of 10."""
    solo = leader_of_a_late_follower_with(snapshot_bytes_per_tick=5)
    solo.raft.offer_snapshot(meta_at(9))
    sent: list[int] = []
    for _ in range(20):
        before = len(solo.effects)
        pass_time(solo, 1, 2, 3)
        offsets = [chunk.offset for chunk in chunks(solo, before)]
        sent.append(len(offsets))
        if offsets:
            solo.step(stored(min(45, offsets[-1] + 10)))
        if offsets and offsets[-1] == 40:
            break
    assert max(sent) == 1
    assert sum(sent) == 5
    assert len(sent) == 9, "two ticks for each chunk but the first"


def test_a_budget_is_not_saved_up() -> None:
    """Our addition: a burst after a quiet time is what the budget prevents."""
    solo = leader_of_a_late_follower_with(snapshot_bytes_per_tick=10)
    pass_time(solo, 3 * TIMEOUT, 2, 3)
    solo.raft.offer_snapshot(meta_at(9))
    solo.drain()
    assert [chunk.offset for chunk in chunks(solo)] == [0]


def test_followers_share_the_budget() -> None:
    """Our addition: neither waits for the other's end."""
    cluster = Cluster(5, limits=CHUNKY, snapshot_bytes_per_tick=10)
    cluster.elect(1)
    cluster.isolate(4, 5)
    cluster.write(*[b"%d" % number for number in range(20)])
    cluster.nodes[1].compact(15)
    cluster.heal()
    order: list[int] = []
    cluster.observer = lambda node, effects: order.extend(chunk.target for chunk in effects.snapshot_chunks)
    cluster.tick_until(lambda: cluster[4].log_start_index == cluster[5].log_start_index == 21, ticks_max=400)
    assert cluster.nodes[1].snapshots_made == 1
    assert order.count(4) == order.count(5) > 10
    ahead = [order[:count].count(4) - order[:count].count(5) for count in range(len(order))]
    assert max(map(abs, ahead)) <= 2


def test_a_damaged_transfer_starts_over_and_ends_well() -> None:
    """5.3: a snapshot replaces the state whole, or not at all."""
    cluster = Cluster(3, limits=CHUNKY)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.write(*[b"%d" % number for number in range(20)])
    cluster.nodes[1].compact(15)
    cluster.nodes[3].refuses = 1
    cluster.heal()
    cluster.tick(3 * TIMEOUT)
    assert cluster.nodes[3].refuses == 0
    assert cluster.nodes[1].snapshots_made == 1
    assert cluster.nodes[3].data == cluster.nodes[1].data


# The follower.


def chunk(meta: SnapshotMeta, offset: int = 0) -> InstallSnapshot:
    return InstallSnapshot(2, 2, 1, meta, offset, b"x" * 10, offset + 10 >= meta.size_bytes)


def test_chunks_are_passed_on_and_answered_when_stored() -> None:
    """Figure 5.3."""
    solo = Solo(terms=[1, 1])
    message = chunk(meta_at(9))
    solo.step(message)
    assert [e.received_chunks for e in solo.effects if e.received_chunks] == [[message]]
    solo.raft.on_chunk_stored(message, 10)
    (answer,) = of_kind(InstallSnapshotResponse, solo.drain())
    assert (answer.target, answer.snapshot_id, answer.next_offset, answer.installed) == (2, 5, 10, False)


def test_an_installed_snapshot_replaces_the_log() -> None:
    """5.3: the follower discards its entire log; it is all superseded by the snapshot."""
    solo = Solo(terms=[1, 1, 1], commit=1)
    solo.step(chunk(meta_at(9, term=2)))
    solo.raft.on_snapshot_installed(meta_at(9, term=2), True)
    effects = solo.take()
    assert effects.restored == meta_at(9, term=2)
    assert effects.send_now == []
    (answer,) = of_kind(InstallSnapshotResponse, effects.send_after_save)
    assert answer.installed
    raft = solo.raft
    assert (raft.log_start_index, raft.last_index, raft.last_term, raft.commit_index) == (9, 9, 2, 9)
    solo.save()
    (accepted,) = of_kind(AppendEntriesResponse, solo.step(solo.append((9, 2), [2], term=2, commit=10)))
    assert (accepted.rejected, accepted.match_index) == (False, 10)
    assert [e.index for e in solo.effects[-2].committed + solo.effects[-1].committed] == [10]


def test_a_suffix_that_follows_on_the_snapshot_is_kept_and_saved_again() -> None:
    """5.3: "entries following the snapshot are still valid and must be retained"."""
    solo = Solo(terms=[1, 1, 2, 2], commit=1)
    solo.drain()
    solo.raft.on_snapshot_installed(meta_at(3, term=2), True)
    effects = solo.take()
    assert [entry.index for entry in effects.entries] == [4]
    assert (solo.raft.log_start_index, solo.log_terms(), solo.raft.durable_index) == (3, [2], 3)
    solo.save()
    assert solo.raft.durable_index == 4


def test_a_stale_snapshot_is_answered_as_installed() -> None:
    """5.3: a snapshot may come again, or late."""
    solo = Solo(terms=[1, 1, 1], commit=3)
    for index in (2, 3):
        (answer,) = of_kind(InstallSnapshotResponse, solo.step(chunk(meta_at(index))))
        assert answer.installed
    assert all(effects.received_chunks == [] for effects in solo.effects)


def test_a_log_that_holds_the_snapshots_last_entry_needs_no_snapshot() -> None:
    """3.5, Log Matching: everything up to it agrees, and it is committed."""
    solo = Solo(terms=[1, 1, 1])
    (answer,) = of_kind(InstallSnapshotResponse, solo.step(chunk(meta_at(3))))
    assert answer.installed
    assert solo.raft.commit_index == 3


def test_a_snapshot_that_could_not_be_installed_starts_over() -> None:
    """Our addition to 5.3."""
    solo = Solo()
    solo.step(chunk(meta_at(9)))
    solo.raft.on_snapshot_installed(meta_at(9), False)
    (answer,) = of_kind(InstallSnapshotResponse, solo.drain())
    assert (answer.next_offset, answer.installed) == (0, False)
    assert solo.raft.last_index == 0


def test_a_snapshot_that_was_overtaken_does_not_take_the_log_back() -> None:
    """5.3."""
    solo = Solo(terms=[1] * 5, commit=2)
    solo.step(chunk(meta_at(9)))
    solo.step(solo.append((5, 1), [1] * 6, term=2, commit=11))
    solo.raft.on_snapshot_installed(meta_at(9), True)
    solo.drain()
    assert all(effects.restored is None for effects in solo.effects)
    assert (solo.raft.commit_index, solo.raft.last_index) == (11, 11)


def test_a_snapshot_brings_its_configuration() -> None:
    """5.1: the latest configuration is part of the snapshot; newer ones of a kept suffix stay on top."""
    grown = Configuration(frozenset({1, 2, 3, 4, 5}))
    solo = Solo()
    solo.step(chunk(meta_at(9)))
    solo.raft.on_snapshot_installed(SnapshotMeta(9, 2, grown, 0, 0, 5), True)
    solo.drain()
    assert solo.raft.configuration == grown
    solo = Solo(terms=[1, 1])
    entry = Entry(3, 2, ENTRY_CONFIGURATION, encode_configuration(grown))
    solo.step(AppendEntries(2, 2, 1, 2, 1, 0, [entry]))
    solo.raft.on_snapshot_installed(SnapshotMeta(2, 1, VOTERS, 0, 0, 5), True)
    solo.drain()
    assert solo.raft.configuration == grown


def test_a_leader_never_lacks_what_a_snapshot_holds() -> None:
    """3.6.3."""
    solo = Solo()
    solo.lead()
    with pytest.raises(AssertionError, match="holds every committed entry"):
        solo.raft.on_snapshot_installed(meta_at(9), True)


def test_a_crash_between_the_store_and_the_log_is_survived() -> None:
    """5.3 with 3.8: the snapshot may be durable before the log and the hard state have heard of it."""
    solo = Solo(start=(9, 4), term=2, applied=9)
    assert (solo.raft.term, solo.raft.vote, solo.raft.last_index) == (4, 0, 9)
    hard_state = solo.take().hard_state
    assert hard_state is not None
    assert hard_state.term == 4
