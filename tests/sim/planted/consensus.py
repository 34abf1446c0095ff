"""Bugs of elections and of the log: raft/election.py, raft/replication.py, raft/state.py."""

from collections.abc import Iterator
from typing import Any

from raftkv.raft import election, membership, node, replication, snapshot, transfer
from raftkv.raft import reads as read_rounds
from raftkv.raft.effects import Effects
from raftkv.raft.log import RaftLog
from raftkv.raft.messages import (
    AppendEntries,
    Heartbeat,
    HeartbeatResponse,
    Message,
    RequestVote,
    RequestVoteResponse,
)
from raftkv.raft.node import HANDLERS
from raftkv.raft.progress import Progress
from raftkv.raft.quorum import joint_value
from raftkv.raft.state import FOLLOWER, State
from raftkv.replica.replica import Replica
from raftkv.units import NOBODY

from . import stories
from .registry import bug, swapped

ELECTIONS = {
    "members": 5,
    "pre_vote": False,
    "check_quorum": False,
    "fates": ("dead",),
    "lease_reads": False,
    "nemesis_us": 150_000,
}
CONFLICTS = {**ELECTIONS, "disasters": ("isolate_leader", "kill", "partition"), "latency_us": (500, 30_000)}


@bug(
    "vote twice in a term",
    "a voter forgets whom it has voted for",
    "election safety: one vote per term (3.4)",
    knobs={**ELECTIONS, "disasters": ("kill", "isolate_leader", "loss"), "latency_us": (500, 30_000)},
)
def vote_twice() -> Iterator[None]:
    def on_request_vote(state: State, message: RequestVote) -> None:
        granted = state.role == FOLLOWER and state.log.is_up_to_date(message.last_index, message.last_term)
        if granted and not message.pre_vote:
            state.vote = message.source
            state.election_elapsed = 0
        term = message.term if granted else state.term
        state.answer(RequestVoteResponse(term, state.node_id, message.source, granted, message.pre_vote))

    with swapped(HANDLERS, RequestVote, on_request_vote):
        yield


@bug(
    "vote for a stale log",
    "a voter does not compare the candidate's log with its own",
    "leader completeness (3.6.1)",
    knobs={**ELECTIONS, "disasters": ("kill", "isolate_leader", "partition")},
)
def vote_for_a_stale_log() -> Iterator[None]:
    with swapped(RaftLog, "is_up_to_date", lambda self, last_index, last_term: True):
        yield


@bug("reply before save", "answers leave before what they claim is durable", "durability (3.8, figure 3.1)")
def reply_before_save() -> Iterator[None]:
    def answer(self: State, message: Message, durable_to: int = 0) -> None:
        self.effects.send_now.append(message)
        self.dirty = True

    with swapped(State, "answer", answer):
        yield


@bug(
    "replica sends before the journal reports",
    "the replica does not keep back what has to wait for the save",
    "durability (3.8, 10.2.1)",
)
def replica_sends_early() -> Iterator[None]:
    def save(self: Replica, effects: Effects) -> None:
        self._network.send(effects.send_after_save)
        ticket = self._journal.save(effects.hard_state, effects.entries, effects.restored)
        self._unsaved.append((ticket, effects.save_id, []))

    with swapped(Replica, "_save", save):
        yield


@bug(
    "commit an old-term entry",
    "a leader commits an entry of an earlier term by counting replicas",
    "leader completeness (3.6.2, figure 3.7)",
    story=stories.figure_3_7,
)
def commit_an_old_term_entry() -> Iterator[None]:
    def maybe_commit(state: State) -> None:
        acked = {peer: progress.match_index for peer, progress in state.progress.items()}
        acked[state.node_id] = state.log.durable_index
        index = joint_value(state.configuration, acked)
        if index > state.commit_index:
            state.commit_to(index)
            state.committed_in_term = True
            replication._on_committed(state)

    with swapped(replication, "maybe_commit", maybe_commit):
        yield


@bug(
    "commit without a quorum",
    "two copies are enough, however many members there are",
    "durability: a committed entry is on a quorum of disks (3.6)",
    knobs={"members": 5},
)
def commit_without_a_quorum() -> Iterator[None]:
    def second_largest(configuration: Any, acked: dict[int, int]) -> int:
        return sorted(acked.values())[-2]

    with swapped(replication, "joint_value", second_largest):
        yield


@bug(
    "leader counts itself before its disk does",
    "a leader counts its own copy when it is appended, not when it is durable",
    "durability (10.2.1)",
    knobs={"members": 3, "sync_us": (500, 40_000)},
)
def leader_counts_itself_early() -> Iterator[None]:
    def maybe_commit(state: State) -> None:
        acked = {peer: progress.match_index for peer, progress in state.progress.items()}
        acked[state.node_id] = state.log.last_index
        index = joint_value(state.configuration, acked)
        if index > state.commit_index and state.log.term_of(index) == state.term:
            state.commit_to(index)
            state.committed_in_term = True

    with swapped(replication, "maybe_commit", maybe_commit):
        yield


@bug(
    "no consistency check",
    "a follower appends wherever there is no gap, whatever the entry before is",
    "log matching (3.5)",
    knobs=CONFLICTS,
)
def no_consistency_check() -> Iterator[None]:
    def on_append_entries(state: State, message: AppendEntries) -> None:
        state.follow(message.source)
        previous_index, entries = message.previous_index, message.entries
        if previous_index < state.commit_index:
            entries = entries[state.commit_index - previous_index :]
            previous_index = state.commit_index
        elif previous_index > state.log.last_index:
            replication._reject(state, message)
            return
        replication._take_over(state, entries)
        state.commit_to(min(message.commit_index, previous_index + len(entries)))
        replication._acknowledge(state, message.source, previous_index + len(entries))

    with swapped(HANDLERS, AppendEntries, on_append_entries):
        yield


@bug(
    "truncation of committed entries",
    "a follower drops whatever it has behind the first entry of each message, so an old message shortens its log",
    "durability: an append never takes back what was acknowledged (3.5)",
    knobs={"reordering": 0.5, "duplication": 0.1, "latency_us": (500, 30_000), "pipelined": 4, "think_us": 5_000},
    limits={"append_messages_in_flight_max": 64, "entry_bytes_max": 64},
)
def truncation_of_committed_entries() -> Iterator[None]:
    def on_append_entries(state: State, message: AppendEntries) -> None:
        state.follow(message.source)
        log = state.log
        entries, previous_index = message.entries, message.previous_index
        if previous_index < log.start_index:
            entries, previous_index = entries[log.start_index - previous_index :], log.start_index
        elif not log.matches(previous_index, message.previous_term):
            replication._reject(state, message)
            return
        if entries:
            if entries[0].index <= log.last_index:
                log.truncate_from(entries[0].index)
                membership.on_truncated(state, entries[0].index)
            log.append(entries)
            membership.on_appended(state, entries)
        state.commit_to(min(message.commit_index, previous_index + len(entries)))
        replication._acknowledge(state, message.source, previous_index + len(entries))

    with swapped(HANDLERS, AppendEntries, on_append_entries):
        yield


@bug(
    "heartbeat's commit index is unbounded",
    "a leader names its commit index to followers that may hold other entries there, and they believe it",
    "state machine safety (3.5)",
    knobs=CONFLICTS,
)
def unbounded_heartbeat() -> Iterator[None]:
    def send(self: State, message: Message) -> None:
        if type(message) is Heartbeat:
            message.commit_index = self.commit_index
        self.effects.send_now.append(message)
        self.dirty = True

    def on_heartbeat(state: State, message: Heartbeat) -> None:
        state.follow(message.source)
        state.commit_to(min(message.commit_index, state.log.last_index))
        state.answer(HeartbeatResponse(state.term, state.node_id, message.source, message.read_round, state.promise_ms))

    with swapped(State, "send", send), swapped(HANDLERS, Heartbeat, on_heartbeat):
        yield


@bug(
    "pre-vote that raises terms",
    "whoever is asked for a pre-vote enters the term that is only asked about",
    "a pre-vote changes nothing (9.6)",
    knobs={
        "pre_vote": True,
        "check_quorum": False,
        "fates": ("dead",),
        "lease_reads": False,
        "disasters": ("isolate_leader", "kill"),
    },
)
def pre_vote_that_raises_terms() -> Iterator[None]:
    def admit_newer(state: State, message: Message) -> bool:
        source = message.source if type(message) in election.FROM_LEADERS else NOBODY
        state.become_follower(message.term, source)
        return True

    with swapped(election, "_admit_newer", admit_newer):
        yield


@bug(
    "an old leader is obeyed",
    "messages of older terms are handled like those of the own",
    "at most one leader counts (3.3)",
    knobs=CONFLICTS,
)
def old_leader_is_obeyed() -> Iterator[None]:
    with swapped(election, "_refuse_older", lambda state, message: True):
        yield


@bug(
    "check-quorum never steps down",
    "a leader that no quorum answers goes on sending heartbeats, and nobody takes over",
    "liveness with a leader that is heard and hears nobody (6.2)",
    knobs={
        "members": 3,
        "check_quorum": True,
        "faulty_minority": True,
        "fates": ("deaf",),
        "disasters": (),
        "chaos_us": 4_000_000,
    },
)
def check_quorum_never_steps_down() -> Iterator[None]:
    def tick_leader(state: State) -> None:
        transfer.tick(state)
        snapshot.tick(state)
        replication.tick(state)
        state.heartbeat_elapsed += 1
        if state.heartbeat_elapsed >= state.config.heartbeat_ticks:
            state.heartbeat_elapsed = 0
            read_rounds.start_round(state, list(state.progress))

    with swapped(node, "_tick_leader", tick_leader):
        yield


@bug(
    "lost appends are never sent again",
    "a leader takes what it sent for received",
    "liveness under message loss (3.5)",
    knobs={"loss": 0.1, "disasters": ("loss",), "members": 3, "chaos_us": 4_000_000},
)
def lost_appends_stay_lost() -> Iterator[None]:
    def on_rejected(state: State, progress: Progress, message: Any) -> None:
        progress.moved_tick = state.ticks

    with swapped(replication, "_on_rejected", on_rejected):
        yield
