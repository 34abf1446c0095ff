"""Claims that hold over a whole history: the properties of figure 3.2, the figures around them, and 3.7 to 3.9."""

from itertools import combinations

import pytest

from raftkv.raft.messages import (
    ENTRY_COMMANDS,
    ENTRY_NOOP,
    AppendEntries,
    AppendEntriesResponse,
    Message,
    RequestVote,
    RequestVoteResponse,
)
from raftkv.raft.node import Raft
from tests.unit.raft.cluster import HEARTBEAT, TIMEOUT, Cluster, config_of
from tests.unit.raft.solo import Solo, cluster_of, of_kind


def test_figure_3_2_through_a_troubled_history() -> None:
    """3.2: five changes of leader, each with a member cut off and entries that are lost; the five properties hold all along.

    The cluster itself checks election safety, leader completeness and state machine safety at every step.
    """
    cluster = Cluster(5)
    cluster.elect(1)
    logs_of_leaders: dict[int, list[tuple[int, int]]] = {}
    for number, leader in enumerate((1, 2, 3, 4, 5, 1)):
        cluster.heal()
        cluster.tick(HEARTBEAT)
        cluster.elect(leader)
        term = cluster[leader].term
        follower = leader % 5 + 1
        cluster.isolate(follower)
        cluster.write(b"kept %d" % number)
        cluster.isolate(leader)
        cluster.write(b"lost %d" % number, leader=leader)
        logs_of_leaders[term] = cluster.nodes[leader].log()
        cluster.heal()
        cluster.cuts.update((leader, other) for other in cluster.nodes)
        cluster.tick_until(lambda: any(raft.term > term for raft in leaders(cluster)))  # noqa: B023
        cluster.check_logs()
    cluster.heal()
    cluster.tick(2 * TIMEOUT)
    assert len(cluster.leaders) >= 6, "there were many leaders, and never two in one term"
    kept = [b"kept %d" % number for number in range(6)]
    for node in cluster.nodes.values():
        assert [data for data in node.data if data.startswith(b"kept")] == kept, "leader completeness"
    for term, log in logs_of_leaders.items():
        assert [index for index, _ in log] == list(range(1, len(log) + 1)), f"append-only in term {term}"


def leaders(cluster: Cluster) -> list[Raft]:
    return [node.raft for node in cluster.nodes.values() if node.raft.is_leader]


def in_role(role: str) -> Solo:
    solo = Solo(pre_vote=False)
    if role != "follower":
        solo.tick(TIMEOUT)
    if role == "leader":
        solo.step(solo.grant(2))
    assert solo.raft.role == role
    return solo


TIME_OUT = "an election timeout"
TRANSITIONS: list[tuple[str, str | Message, str, int]] = [
    ("follower", TIME_OUT, "candidate", 1),
    ("candidate", TIME_OUT, "candidate", 2),
    ("candidate", RequestVoteResponse(1, 2, 1, True), "leader", 1),
    ("candidate", AppendEntries(1, 2, 1, 0, 0, 0, []), "follower", 1),
    ("candidate", RequestVote(2, 2, 1, 0, 0), "follower", 2),
    ("leader", AppendEntriesResponse(2, 2, 1, 0, rejected=True), "follower", 2),
    ("leader", AppendEntries(2, 2, 1, 0, 0, 0, []), "follower", 2),
    ("leader", RequestVoteResponse(1, 3, 1, True), "leader", 1),
]


@pytest.mark.parametrize(("role", "event", "next_role", "term"), TRANSITIONS)
def test_figure_3_3_every_arrow_between_the_states(role: str, event: str | Message, next_role: str, term: int) -> None:
    """3.3."""
    solo = in_role(role)
    if isinstance(event, str):
        solo.tick(TIMEOUT)
    else:
        solo.step(event)
    assert (solo.raft.role, solo.raft.term) == (next_role, term)


def test_figure_3_4_terms_begin_with_an_election_and_may_end_without_a_leader() -> None:
    """3.3, figure 3.4: a split vote spends a term; the next has a leader of its own."""
    cluster = Cluster(4, pre_vote=False)
    cluster.drop = lambda message: (
        isinstance(message, RequestVote)
        and (message.source, message.target)
        in {
            (1, 4),
            (2, 3),
        }
    )
    for node_id in (1, 2):
        for _ in range(TIMEOUT + node_id - 1):
            cluster[node_id].tick()
    cluster.settle()
    assert {node_id: node.raft.vote for node_id, node in cluster.nodes.items()} == {1: 1, 2: 2, 3: 1, 4: 2}
    assert cluster.leaders == {}
    cluster.heal()
    cluster.tick_until(lambda: cluster.leader() is not None)
    assert list(cluster.leaders) == [2], "term 1 had none"


def test_figure_3_5_a_log_is_made_of_entries_with_an_index_a_term_and_a_command() -> None:
    """3.5, figure 3.5: and what a majority holds is committed, with everything before it."""
    cluster = Cluster(5)
    cluster.elect(1)
    cluster.isolate(4, 5)
    cluster.write(b"x<-3", b"y<-1")
    cluster.isolate(3)
    cluster[1].propose(ENTRY_COMMANDS, b"x<-5")
    cluster.settle()
    entries = [(e.index, e.term, e.kind, e.data) for e in cluster.nodes[1].applied]
    assert entries == [
        (1, 1, ENTRY_NOOP, b""),
        (2, 1, ENTRY_COMMANDS, b"x<-3"),
        (3, 1, ENTRY_COMMANDS, b"y<-1"),
    ], "two of five hold the last, so it is not committed"
    assert cluster[1].last_index == 4


@pytest.mark.parametrize("accepted", list(combinations((2, 3, 4), 2)))
def test_figure_3_8_whoever_lacks_a_committed_entry_finds_no_majority(accepted: tuple[int, int]) -> None:
    """3.6.3, figure 3.8: S1 has committed with any two others; S5, which lacks the entry, is refused by one in every majority."""
    holders = {1, *accepted}
    for voters in combinations((1, 2, 3, 4), 2):
        logs = [[1, 2] if node_id in holders else [1] for node_id in range(1, 6)]
        cluster = cluster_of(logs, term=2, pre_vote=False, check_quorum=False)
        cluster.isolate(5, *voters)
        for _ in range(3 * TIMEOUT):
            cluster[5].tick()
            cluster.settle()
        assert not cluster.leaders, f"S5 was elected by {voters}, the entry is on {holders}"
        granted = {m.source for m in of_kind(RequestVoteResponse, cluster.history) if m.granted}
        assert granted == set(voters) - holders


def test_requests_to_a_crashed_follower_are_repeated_until_it_is_back() -> None:
    """3.7: "the server will eventually restart and complete"; 3.5: also after the entry is long committed and answered."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.crash(3)
    cluster.write(b"a", b"b")
    cluster.tick(5 * TIMEOUT)
    assert cluster.nodes[1].data == [b"a", b"b"]
    assert cluster.nodes[3].data == []
    cluster.restart(3)
    cluster.tick(3 * HEARTBEAT)
    assert cluster.nodes[3].data == [b"a", b"b"]


def test_a_request_that_was_carried_out_before_the_crash_may_come_again() -> None:
    """3.7: requests are idempotent: a follower ignores entries that its log has already."""
    solo = Solo()
    first = solo.append((0, 0), [1, 1], term=1)
    solo.step(first)
    saves = sum(bool(effects.entries) for effects in solo.effects)
    (again,) = of_kind(AppendEntriesResponse, solo.step(first))
    assert (again.rejected, again.match_index) == (False, 2)
    assert sum(bool(effects.entries) for effects in solo.effects) == saves, "nothing is written twice"


def test_a_candidates_crash_costs_its_term_and_nothing_else() -> None:
    """3.7."""
    cluster = Cluster(3, pre_vote=False)
    for _ in range(TIMEOUT):
        cluster[1].tick()
    cluster.nodes[1].pump()
    cluster.nodes[1].finish_save()
    cluster.crash(1)
    cluster.settle()
    assert cluster.leaders == {}
    cluster.tick_until(lambda: cluster.leader() is not None)
    assert list(cluster.leaders) == [2]


def test_what_was_applied_durably_is_not_applied_again() -> None:
    """3.8: the state machine keeps its own last applied index, and the log does not give it older entries after a restart."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.write(b"a", b"b")
    cluster.nodes[1].compact(2)
    cluster.crash(1)
    cluster.restart(1)
    given: list[int] = []
    cluster.observer = lambda node, effects: given.extend(
        entry.index for entry in effects.committed if node.raft.node_id == 1
    )
    cluster.tick_until(lambda: cluster[1].commit_index >= 4)
    assert given == [3, 4], "1 and 2 are in the state machine"
    assert cluster.nodes[1].data == [b"a", b"b"]


def test_the_broadcast_time_has_to_be_far_below_the_election_timeout() -> None:
    """3.9: several heartbeats fit into a timeout, or the settings are refused."""
    with pytest.raises(AssertionError, match="several heartbeats per timeout"):
        config_of(1, heartbeat_ticks=TIMEOUT)


@pytest.mark.parametrize(("delay_ticks", "is_stable"), [(1, True), (2, True), (4 * TIMEOUT, False)])
def test_timing_decides_about_availability_and_never_about_safety(delay_ticks: int, is_stable: bool) -> None:
    """3.9: with messages slower than the timeouts nobody leads for long, and still no two lead in one term."""
    cluster = Cluster(3, pre_vote=False, check_quorum=False)
    late: list[tuple[int, Message]] = []
    for now in range(40 * TIMEOUT):
        for node in cluster.nodes.values():
            node.raft.tick()
        for message in [message for due, message in late if due <= now]:
            cluster.deliver(message)
        late = [(due, message) for due, message in late if due > now]
        for node in cluster.nodes.values():
            while node.pump() or node.finish_save():
                pass
        late += [(now + delay_ticks, message) for message in cluster.wire]
        cluster.wire = []
    cluster.check_logs()
    highest = max(node.raft.term for node in cluster.nodes.values())
    assert (highest <= 2) is is_stable, f"term {highest} after 40 timeouts"
