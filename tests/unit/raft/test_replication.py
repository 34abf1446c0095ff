"""Flow control between a leader and its followers: windows, probes, losses, batches."""

from raftkv.limits import Limits
from raftkv.raft.log import ENTRY_OVERHEAD_BYTES
from raftkv.raft.messages import AppendEntries, AppendEntriesResponse, Heartbeat
from tests.unit.raft.cluster import HEARTBEAT, TIMEOUT, Cluster
from tests.unit.raft.solo import Solo, of_kind, to

SMALL = Limits(
    append_messages_in_flight_max=2,
    append_bytes_in_flight_max=1_000,
    append_message_bytes_max=200,
    request_bytes_max=150,
    value_bytes_max=150,
    peer_frame_bytes_max=1_000,
)


def appends_to(target: int, solo: Solo) -> list[AppendEntries]:
    return of_kind(AppendEntries, to(target, solo.drain()))


def indexes(message: AppendEntries) -> list[int]:
    return [entry.index for entry in message.entries]


def test_a_batch_larger_than_a_message_is_cut_and_the_window_holds() -> None:
    solo = Solo(limits=SMALL)
    solo.lead()
    for _ in range(10):
        solo.raft.propose(1, b"x" * (100 - ENTRY_OVERHEAD_BYTES))
    sent = appends_to(2, solo)
    assert [indexes(message) for message in sent] == [[2, 3], [4, 5]]
    assert [message.previous_index for message in sent] == [1, 3]
    assert solo.raft.progress(2).in_flight == 2  # type: ignore[union-attr]
    solo.raft.step(solo.accept(2, 3))
    assert [indexes(message) for message in appends_to(2, solo)] == [[6, 7]]
    solo.raft.step(solo.accept(2, 7))
    assert [indexes(message) for message in appends_to(2, solo)] == [[8, 9], [10, 11]]


def test_an_entry_larger_than_everything_goes_alone() -> None:
    solo = Solo(limits=SMALL)
    solo.lead()
    for size in (1, 5_000, 1):
        solo.raft.propose(1, b"x" * size)
    assert [indexes(message) for message in appends_to(2, solo)] == [[2]]
    solo.raft.step(solo.accept(2, 2))
    assert [indexes(message) for message in appends_to(2, solo)] == [[3]]
    solo.raft.step(solo.accept(2, 3))
    assert [indexes(message) for message in appends_to(2, solo)] == [[4]]


def test_entries_are_sent_ahead_without_waiting_for_answers() -> None:
    solo = Solo()
    solo.lead()
    for index in (2, 3, 4):
        solo.raft.propose(1, b"x")
        (message,) = appends_to(2, solo)
        assert (message.previous_index, indexes(message)) == (index - 1, [index])


def test_a_probe_is_one_message_until_it_is_answered() -> None:
    solo = Solo()
    solo.elect()
    for _ in range(3):
        solo.raft.propose(1, b"x")
    assert appends_to(2, solo) == []
    solo.raft.step(solo.accept(2, 1))
    assert [indexes(message) for message in appends_to(2, solo)] == [[2, 3, 4]]


def test_an_unanswered_probe_is_sent_again_after_a_heartbeat_interval() -> None:
    solo = Solo()
    solo.elect()
    assert of_kind(AppendEntries, solo.tick(HEARTBEAT - 1)) == []
    assert [(m.target, indexes(m)) for m in of_kind(AppendEntries, solo.tick())] == [(2, [1]), (3, [1])]


def test_a_silent_follower_is_not_sent_its_entries_over_and_over() -> None:
    solo = Solo()
    solo.elect()
    solo.step(solo.accept(2, 1))
    for _ in range(TIMEOUT):
        solo.tick()
        solo.step(solo.heartbeat_response(2, 0))
    sent = of_kind(AppendEntries, to(3, solo.tick(HEARTBEAT)))
    assert [indexes(message) for message in sent] == [[]]
    assert solo.raft.progress(3).recently_active is False  # type: ignore[union-attr]


def test_a_rejection_is_probed_at_the_hint_and_repeated_ones_are_stale() -> None:
    solo = Solo(terms=[1, 1, 1, 4, 4], term=4)
    solo.elect()
    refusal = AppendEntriesResponse(5, 2, 1, 5, rejected=True, hint_index=3, hint_term=1)
    solo.raft.step(refusal)
    solo.raft.step(refusal)
    assert [(m.previous_index, indexes(m)) for m in appends_to(2, solo)] == [(3, [4, 5, 6])]
    solo.raft.step(refusal)
    assert appends_to(2, solo) == []


def test_a_whole_term_is_skipped_at_a_time() -> None:
    """The follower ends with a long term that this leader never saw."""
    solo = Solo(terms=[1, 1, 3, 3, 3, 3], term=3)
    solo.elect()
    solo.raft.step(AppendEntriesResponse(4, 2, 1, 6, rejected=True, hint_index=6, hint_term=2))
    assert [message.previous_index for message in appends_to(2, solo)] == [2]


def test_a_lost_tail_is_found_by_the_next_heartbeats() -> None:
    solo = Solo()
    solo.lead()
    solo.raft.propose(1, b"lost on its way")
    appends_to(2, solo)
    solo.step(solo.heartbeat_response(2, 0))
    assert appends_to(2, solo) == [], "it may well be on its way"
    solo.raft.tick()
    (beat, _) = of_kind(Heartbeat, solo.tick(HEARTBEAT - 1))
    (nudge,) = of_kind(AppendEntries, solo.step(solo.heartbeat_response(2, beat.read_round)))
    assert (nudge.previous_index, indexes(nudge)) == (2, [])
    solo.raft.step(AppendEntriesResponse(1, 2, 1, 2, rejected=True, hint_index=1, hint_term=1))
    assert [indexes(message) for message in appends_to(2, solo)] == [[2]]


def test_read_rounds_do_not_multiply_nudges() -> None:
    solo = Solo()
    solo.lead()
    solo.raft.propose(1, b"x")
    solo.drain()
    for context in range(5):
        solo.raft.read_index(context)
        (beat, _) = of_kind(Heartbeat, solo.drain())
        assert of_kind(AppendEntries, solo.step(solo.heartbeat_response(2, beat.read_round))) == []


def test_an_unreachable_follower_is_probed_from_what_it_has() -> None:
    solo = Solo()
    solo.lead()
    solo.raft.propose(1, b"x")
    solo.drain()
    solo.raft.on_peer_unreachable(2)
    assert solo.raft.progress(2).state == "probe"  # type: ignore[union-attr]
    solo.raft.tick()
    assert [(m.previous_index, indexes(m)) for m in appends_to(2, solo)] == [(1, [2])]


def test_a_lost_message_followed_by_others_is_refused_and_sent_again() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.tick(HEARTBEAT)
    cluster.drop = lambda message: isinstance(message, AppendEntries) and message.target == 3
    cluster.write(b"a")
    cluster.heal()
    cluster.write(b"b")
    cluster.tick()
    assert cluster.nodes[3].data == [b"a", b"b"]


def test_commit_indexes_need_no_message_of_their_own_under_load() -> None:
    solo = Solo()
    solo.lead()
    solo.raft.propose(1, b"x")
    solo.drain()
    assert of_kind(AppendEntries, solo.step(solo.accept(2, 2))) == []
    solo.raft.propose(1, b"y")
    assert [message.commit_index for message in appends_to(2, solo)] == [2]
    solo.step(solo.accept(2, 3))
    sent = of_kind(AppendEntries, solo.tick())
    assert [(message.target, message.commit_index, indexes(message)) for message in sent] == [(2, 3, []), (3, 3, [])]
    assert of_kind(AppendEntries, solo.tick()) == [], "once is enough"


def test_acknowledgements_of_a_batch_are_one() -> None:
    solo = Solo()
    for index in range(5):
        solo.raft.step(solo.append((index, int(index > 0)), [1], term=1))
    effects = solo.take()
    assert [m.match_index for m in of_kind(AppendEntriesResponse, effects.send_after_save)] == [5]
    assert len(effects.entries) == 5


def test_doubled_and_reordered_appends_do_no_harm() -> None:
    solo = Solo()
    first, second = solo.append((0, 0), [1, 1], term=1), solo.append((2, 1), [1, 1], term=1)
    (refused,) = of_kind(AppendEntriesResponse, solo.step(second))
    assert (refused.rejected, refused.hint_index) == (True, 0)
    for message in (first, second, first, second):
        solo.step(message)
    assert solo.log_terms() == [1, 1, 1, 1]
