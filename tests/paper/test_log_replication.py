"""Claims of 3.5 to 3.8 about the log: its two properties, the consistency check, commitment, and figures 3.6 and 3.7."""

import pytest

from raftkv.raft.messages import AppendEntries, AppendEntriesResponse, Entry, Heartbeat
from tests.unit.raft.cluster import HEARTBEAT, Cluster
from tests.unit.raft.solo import Solo, cluster_of, entries_of, of_kind, to

FIGURE_3_6 = {
    "leader": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("follower", ["a", "b", "c", "d", "e", "f"])
def test_figure_3_6_the_leader_brings_every_log_to_its_own(follower: str) -> None:
    """3.5: the follower's conflicting entries are overwritten with the leader's."""
    cluster = cluster_of([FIGURE_3_6["leader"], FIGURE_3_6[follower], FIGURE_3_6["leader"]], term=7)
    if follower in ("c", "d"):
        cluster.cuts.add((2, 1))  # its log is longer: it would refuse its vote, and is not needed
    leader = cluster.elect(1)
    cluster.heal()
    cluster.tick(2 * HEARTBEAT)
    assert leader.term == 8
    logs = [node.log() for node in cluster.nodes.values()]
    assert logs[0] == logs[1] == logs[2]
    assert [term for _, term in logs[0]] == [*FIGURE_3_6["leader"], 8]


@pytest.mark.parametrize("follower", ["a", "b", "c", "d", "e", "f"])
def test_conflicts_cost_at_most_one_round_trip_per_term(follower: str) -> None:
    """3.5: "one AppendEntries RPC will be required for each term with conflicting entries"."""
    cluster = cluster_of([FIGURE_3_6["leader"], FIGURE_3_6[follower], FIGURE_3_6["leader"]], term=7)
    cluster.cuts.add((2, 1))
    cluster.elect(1)
    cluster.heal()
    cluster.history.clear()
    cluster.tick(2 * HEARTBEAT)
    refusals = [m for m in cluster.history if isinstance(m, AppendEntriesResponse) and m.source == 2 and m.rejected]
    assert len(refusals) <= len(set(FIGURE_3_6[follower]) | set(FIGURE_3_6["leader"]))


def test_figure_3_7_an_old_term_entry_is_not_committed_by_counting() -> None:
    """3.6.2, figure 3.7 (c) and (d): S1 has replicated entry 2 of term 2 to a majority, and it may still be overwritten."""
    # S1 leads term 4; its log is 1, 2 and its opening entry of term 4 is at 3.
    solo = Solo(size=5, terms=[1, 2], term=3, commit=1)
    solo.elect()
    assert (solo.raft.term, solo.raft.last_index) == (4, 3)
    solo.step(solo.accept(2, 2), solo.accept(3, 2))
    assert solo.raft.commit_index == 1, "three of five hold entry 2, which is of an older term"
    # (e): with an entry of its own term on a majority, everything before is committed, too.
    solo.step(solo.accept(2, 3), solo.accept(3, 3))
    assert solo.raft.commit_index == 3


def test_figure_3_7_as_a_story() -> None:
    """3.6.2: the entry of term 2 that a majority holds is replaced by S5's of term 3, and nobody has applied it."""
    cluster = cluster_of([[1, 2], [1, 2], [1], [1], [1, 3]], term=3, pre_vote=False, check_quorum=False)
    # (c): S1 leads term 4. Its own entry reaches nobody; the one of term 2 reaches S3, and so a majority.
    cluster.drop = lambda message: (
        isinstance(message, AppendEntries) and any(entry.term == 4 for entry in message.entries)
    )
    leader = cluster.elect(1)
    cluster[3].step(AppendEntries(4, 1, 3, 1, 1, 1, entries_of([2], 2)))
    cluster[2].step(AppendEntries(4, 1, 2, 2, 2, 1, []))  # and the leader hears from both that they have it
    cluster.settle()
    assert [(2, 2) in node.log() for node in cluster.nodes.values()] == [True, True, True, False, False]
    assert leader.commit_index < 2
    # (d): S1 crashes, S5 is elected by S2, S3 and S4, and replaces the entry everywhere.
    cluster.crash(1)
    cluster.heal()
    new_leader = cluster.elect(5)
    cluster.tick(2 * HEARTBEAT)
    assert new_leader.commit_index >= 2
    for node_id in (2, 3, 4, 5):
        assert [entry.term for entry in cluster.nodes[node_id].applied][:2] == [1, 3]


def test_log_matching() -> None:
    """3.5: the consistency check refuses entries whose predecessor differs, in index or in term."""
    solo = Solo(terms=[1, 1])
    for previous in ((3, 1), (2, 2)):
        (answer,) = of_kind(AppendEntriesResponse, solo.step(solo.append(previous, [2], term=2)))
        assert answer.rejected
        assert answer.match_index == previous[0]
    (answer,) = of_kind(AppendEntriesResponse, solo.step(solo.append((2, 1), [2], term=2)))
    assert (answer.rejected, answer.match_index) == (False, 3)


def test_a_follower_removes_only_what_conflicts() -> None:
    """3.5, figure 3.1: step 3 deletes the existing entry that conflicts "and all that follow it", and nothing else."""
    solo = Solo(terms=[1, 1, 1])
    solo.step(solo.append((0, 0), [1, 1], term=2))
    assert solo.log_terms() == [1, 1, 1], "an old, shorter message does not cut the log"
    solo.step(solo.append((1, 1), [2, 2], term=2))
    assert solo.log_terms() == [1, 2, 2]


def test_a_leader_never_changes_its_own_log() -> None:
    """3.2, Leader Append-Only."""
    cluster = cluster_of([FIGURE_3_6["leader"], FIGURE_3_6["f"], FIGURE_3_6["b"]], term=7)
    leader = cluster.elect(1)
    before = cluster.nodes[1].log()
    for number in range(20):
        cluster.write(b"%d" % number)
        now = cluster.nodes[1].log()
        assert now[: len(before)] == before
        before = now
    assert leader.last_index == 31


def test_committed_entries_are_never_replaced() -> None:
    """3.6.3: a message that asks for it stops the member."""
    solo = Solo(terms=[1, 1], commit=2)
    solo.drain()
    solo.step(solo.append((0, 0), [1, 1, 2], term=2))  # what is committed agrees and is skipped
    assert solo.log_terms() == [1, 1, 2]
    with pytest.raises(AssertionError, match="a leader's log holds every committed entry"):
        solo.step(AppendEntries(3, 2, 1, 2, 2, 2, []))


def test_an_entry_is_committed_once_a_majority_holds_it_durably() -> None:
    """3.5 with 3.8: the leader's own copy counts only when it is durable; its followers' may be enough (10.2.1)."""
    solo = Solo(size=5)
    solo.lead()
    solo.raft.propose(1, b"x")
    solo.take()  # not saved
    solo.raft.step(solo.accept(2, 2))
    solo.raft.step(solo.accept(3, 2))
    assert solo.raft.commit_index == 1
    solo.raft.step(solo.accept(4, 2))
    assert solo.raft.commit_index == 2, "three followers are a majority without the leader"

    solo = Solo()
    solo.lead()
    solo.raft.propose(1, b"x")
    solo.take()
    solo.raft.step(solo.accept(2, 2))
    assert solo.raft.commit_index == 1
    solo.save()
    assert solo.raft.commit_index == 2


def test_followers_learn_the_commit_index_and_apply_in_order() -> None:
    """3.5."""
    solo = Solo()
    solo.step(solo.append((0, 0), [1, 1, 1], term=1))
    assert [e.committed for e in solo.effects if e.committed] == []
    solo.step(solo.append((3, 1), [1], term=1, commit=2))
    solo.step(solo.heartbeat(1, commit=4))
    given = [[entry.index for entry in e.committed] for e in solo.effects if e.committed]
    assert given == [[1, 2], [3, 4]]


def test_a_follower_takes_no_commit_index_beyond_what_matches() -> None:
    """Figure 3.1: min(leaderCommit, index of last new entry)."""
    solo = Solo(terms=[1, 1, 1])
    solo.step(solo.append((1, 1), [], term=2, commit=3))
    assert solo.raft.commit_index == 1


def test_acknowledgements_leave_only_after_the_entries_are_durable() -> None:
    """3.8."""
    solo = Solo()
    solo.raft.step(solo.append((0, 0), [1, 1], term=1))
    effects = solo.take()
    assert of_kind(AppendEntriesResponse, effects.send_now) == []
    assert [m.match_index for m in of_kind(AppendEntriesResponse, effects.send_after_save)] == [2]
    # The same entries once more, while the save runs: still nothing may be claimed.
    solo.raft.step(solo.append((0, 0), [1, 1], term=1))
    assert of_kind(AppendEntriesResponse, solo.take().send_now) == []


def test_a_heartbeat_is_answered_without_the_disk_unless_the_term_is_new() -> None:
    """3.8: no answer claims a term that a crash would take back."""
    solo = Solo()
    solo.raft.step(solo.heartbeat(1))
    effects = solo.take()
    assert effects.send_now == []
    assert len(effects.send_after_save) == 1
    solo.raft.step(solo.heartbeat(1))
    assert solo.take().send_now == [], "the save is still under way"
    while solo.unsaved:
        solo.save()
    solo.raft.step(solo.append((0, 0), [1], term=1))
    solo.raft.step(solo.heartbeat(1))
    effects = solo.take()
    assert [type(m).__name__ for m in effects.send_now] == ["HeartbeatResponse"]
    assert [type(m).__name__ for m in effects.send_after_save] == ["AppendEntriesResponse"]


def test_the_leader_sends_entries_while_its_own_disk_works() -> None:
    """10.2.1."""
    solo = Solo()
    solo.lead()
    solo.raft.propose(1, b"x")
    effects = solo.take()
    assert len(of_kind(AppendEntries, effects.send_now)) == 2
    assert [entry.data for entry in effects.entries] == [b"x"]


def test_a_new_leader_opens_its_term_with_an_entry() -> None:
    """3.6.2, 6.4: a no-op, so that it learns what is committed."""
    solo = Solo(terms=[1])
    appends = of_kind(AppendEntries, solo.elect())
    assert [(a.previous_index, a.previous_term, [(e.index, e.term, e.data) for e in a.entries]) for a in appends] == [
        (1, 1, [(2, 2, b"")])
    ] * 2


def test_one_message_per_follower_and_batch() -> None:
    """10.2.2: batching."""
    solo = Solo()
    solo.lead()
    for number in range(50):
        solo.raft.propose(1, b"%d" % number)
    appends = of_kind(AppendEntries, solo.take().send_now)
    assert [(a.target, len(a.entries)) for a in appends] == [(2, 50), (3, 50)]


def test_a_heartbeat_names_no_commit_index_beyond_what_the_follower_has() -> None:
    """3.5: a follower that lags must not commit what it does not hold."""
    solo = Solo()
    solo.elect()
    solo.step(solo.accept(2, 1))
    beats = {beat.target: beat.commit_index for beat in of_kind(Heartbeat, solo.tick(HEARTBEAT))}
    assert beats == {2: 1, 3: 0}


def test_acknowledged_entries_survive_the_crash_of_a_minority_and_the_restart_of_all() -> None:
    """3.6.3, 3.8."""
    cluster = Cluster(5)
    cluster.elect(1)
    cluster.write(b"a", b"b")
    for node_id in cluster.nodes:
        cluster.crash(node_id)
        cluster.restart(node_id)
    cluster.tick_until(lambda: cluster.leader() is not None)
    cluster.write(b"c")
    cluster.tick(HEARTBEAT)
    cluster.crash(cluster.leader().node_id)  # type: ignore[union-attr]
    cluster.tick_until(lambda: cluster.leader() is not None)
    cluster.tick(HEARTBEAT)
    assert all(node.data == [b"a", b"b", b"c"] for node in cluster.nodes.values() if node.alive)


def test_a_saved_commit_index_is_a_hint() -> None:
    """3.8: a torn tail may have taken the entries that it counts."""
    solo = Solo(terms=[1, 1], commit=7)
    assert solo.raft.commit_index == 2
    assert [entry.index for entry in solo.take().committed] == [1, 2]


def test_entries_of_a_later_term_than_the_leaders_are_impossible() -> None:
    """3.5: a leader has no entries of terms that are yet to come."""
    solo = Solo()
    with pytest.raises(AssertionError, match="no leader has entries of a later term"):
        solo.step(AppendEntries(1, 2, 1, 0, 0, 0, [Entry(1, 5, 1, b"")]))


def test_only_the_leaders_followers_get_what_is_new() -> None:
    """3.5."""
    solo = Solo()
    solo.lead()
    solo.raft.propose(1, b"x")
    sent = solo.take().send_now
    assert to(1, sent) == []
