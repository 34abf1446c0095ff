"""Linearizable reads without the log (6.4): ReadIndex rounds, shared by all reads that come together, and leases (6.4.1).

A round is one broadcast of heartbeats; a quorum that answers it proves that this member still led when the round began, so
the commit index of that moment is safe to read at. While a round runs, further reads wait and share the next one. Round
numbers only grow, and answers of older terms are dropped before they come here, so an old answer never confirms a new read.

Leases are measured from the sending of a round, never of an append: an acknowledgement of entries may answer an earlier copy.
"""

from collections import deque
from typing import TYPE_CHECKING, Final, Iterable, TypeAlias

from raftkv.raft.effects import ReadReady
from raftkv.raft.messages import Heartbeat, HeartbeatResponse, ReadIndex, ReadIndexResponse
from raftkv.raft.progress import Progress
from raftkv.raft.quorum import UNBOUNDED, joint_value
from raftkv.units import NOBODY, Index, Milliseconds, NodeId, Term

if TYPE_CHECKING:
    from raftkv.raft.state import State

Reader: TypeAlias = tuple[NodeId, int]
"""Which follower asked (NOBODY: the own driver), and under which context."""

SEND_TIMES_KEPT_MAX: Final = 256
"""Rounds whose sending time is remembered; a lease is not extended by answers to older ones."""


class ReadRounds:
    """The books of reads. Contexts are the driver's; rounds are the core's own."""

    __slots__ = ("_barred_term", "asked", "in_flight", "last_round", "lease_until_ms", "sent_at", "unasked", "waiting")

    def __init__(self) -> None:
        self.last_round = 0
        self.waiting: list[Reader] = []  # for the next round
        self.in_flight: deque[tuple[int, Index, list[Reader]]] = deque()  # round, commit index at its start, its reads
        self.unasked: list[int] = []  # a follower's, for the next ReadIndex
        self.asked: dict[int, tuple[int, list[int]]] = {}  # a follower's: context -> tick, the contexts that share it
        self.sent_at: deque[tuple[int, Milliseconds]] = deque(maxlen=SEND_TIMES_KEPT_MAX)
        self.lease_until_ms: Milliseconds = 0
        self._barred_term: Term = 0

    def drain(self) -> list[Reader]:
        """Forget all reads that are under way and the lease; returns whom to tell. Local reads have NOBODY as reader."""
        readers = [reader for _, _, shared in self.in_flight for reader in shared] + self.waiting
        readers += [(NOBODY, context) for _, contexts in self.asked.values() for context in contexts]
        readers += [(NOBODY, context) for context in self.unasked]
        self.waiting, self.unasked = [], []
        self.in_flight.clear()
        self.asked.clear()
        self.sent_at.clear()
        self.lease_until_ms = 0
        return readers

    def bar_lease(self, term: Term) -> None:
        """No lease any more in this term: another member was allowed to be elected (3.10)."""
        self._barred_term = term
        self.lease_until_ms = 0

    def is_lease_barred(self, term: Term) -> bool:
        return self._barred_term == term


# Where reads come from.


def register(state: "State", context: int) -> None:
    """A read of this member, under a context that its driver never uses again, not even after a restart."""
    if state.is_leader:
        _serve(state, (NOBODY, context))
    elif state.leader == NOBODY or len(state.reads.unasked) >= state.limits.pending_reads_max:
        state.refuse_read(NOBODY, context)
    else:
        state.reads.unasked.append(context)
        state.dirty = True


def on_read_index(state: "State", message: ReadIndex) -> None:
    """A follower asks. A member that does not lead says so at once, so that nobody waits for nothing."""
    if state.is_leader:
        _serve(state, (message.source, message.context))
    else:
        state.refuse_read(message.source, message.context)


def _serve(state: "State", reader: Reader) -> None:
    if len(state.reads.waiting) >= state.limits.pending_reads_max:
        state.refuse_read(*reader)
    elif has_lease(state):
        _deliver(state, state.commit_index, (reader,))
    else:
        state.reads.waiting.append(reader)
        state.dirty = True


def on_read_index_response(state: "State", message: ReadIndexResponse) -> None:
    """The leader's answer to what this member asked; it counts once and only if it was asked since the leader is known."""
    _, contexts = state.reads.asked.pop(message.context, (0, ()))
    state.dirty = True
    if message.index > 0:
        state.effects.reads.extend(ReadReady(context, message.index) for context in contexts)
    else:
        state.effects.reads_failed.extend(contexts)


# Rounds.


def flush(state: "State") -> None:
    """End of a batch: a leader starts a round for what waits, a follower asks once for all of its reads."""
    reads = state.reads
    if state.is_leader:
        if reads.waiting and not reads.in_flight and state.committed_in_term:
            start_round(state, [peer for peer in state.progress if state.is_voter(peer)])
    elif reads.unasked:
        contexts, reads.unasked = reads.unasked, []
        reads.asked[contexts[0]] = (state.ticks, contexts)
        # It claims nothing but the own term; that must be durable like in any answer.
        state.answer(ReadIndex(state.term, state.node_id, state.leader, contexts[0]))


def start_round(state: "State", peers: Iterable[NodeId], digest: tuple[Index, int] = (0, 0)) -> None:
    """Broadcast a heartbeat, which is also a read round for everything that waits; `digest` rides along.

    Only a leader that has committed an entry of its term knows what is committed (6.4); before, reads go on waiting.
    """
    assert state.is_leader, "only a leader sends heartbeats (3.4)"
    reads = state.reads
    reads.last_round += 1
    if reads.waiting and state.committed_in_term:
        reads.in_flight.append((reads.last_round, state.commit_index, reads.waiting))
        reads.waiting = []
    if state.config.lease_reads and state.config.clock_ms is not None:
        reads.sent_at.append((reads.last_round, state.config.clock_ms()))
    for peer in peers:
        progress = state.progress[peer]
        commit_index = min(progress.match_index, state.commit_index)
        progress.commit_sent = max(progress.commit_sent, commit_index)
        state.send(Heartbeat(state.term, state.node_id, peer, commit_index, reads.last_round, *digest))
    if reads.in_flight:
        _confirm(state)


def on_round_answered(state: "State", progress: Progress, message: HeartbeatResponse) -> None:
    """A follower of this term answered a round, and with it all rounds before."""
    assert message.read_round <= state.reads.last_round, "nobody answers a round that was never sent (6.4)"
    if message.read_round <= progress.acked_round:
        return
    progress.acked_round = message.read_round
    if state.config.lease_reads and message.promise_ms > 0:
        _extend_lease(state, progress, message)
    if state.reads.in_flight:
        _confirm(state)


def _confirm(state: "State") -> None:
    """Deliver the reads of all rounds that a quorum has answered."""
    in_flight = state.reads.in_flight
    acked = {peer: progress.acked_round for peer, progress in state.progress.items()}
    acked[state.node_id] = state.reads.last_round
    confirmed_round = joint_value(state.configuration, acked)
    while in_flight and in_flight[0][0] <= confirmed_round:
        _, index, readers = in_flight.popleft()
        _deliver(state, index, readers)


def _deliver(state: "State", index: Index, readers: Iterable[Reader]) -> None:
    assert 0 < index <= state.commit_index, "reads are served at a committed index (6.4)"
    for source, context in readers:
        if source == NOBODY:
            state.effects.reads.append(ReadReady(context, index))
            continue
        state.send(ReadIndexResponse(state.term, state.node_id, source, context, index))
        progress = state.progress.get(source)
        if progress is not None and progress.commit_sent < index:
            progress.nudge = True  # it waits for this commit index
    state.dirty = True


def tick_follower(state: "State") -> None:
    """A question or its answer may be lost: after an election timeout the driver asks anew, with a new context."""
    reads = state.reads
    timeout_ticks = state.config.election_timeout_ticks
    while reads.asked:
        oldest = next(iter(reads.asked))
        asked_tick, contexts = reads.asked[oldest]
        if state.ticks - asked_tick < timeout_ticks:
            break
        del reads.asked[oldest]
        state.effects.reads_failed.extend(contexts)
        state.dirty = True


# Leases.


def has_lease(state: "State") -> bool:
    """Whether a quorum has promised to elect nobody else yet (6.4.1). Reads the clock, unless leases are off."""
    config = state.config
    if not config.lease_reads or config.clock_ms is None or not state.committed_in_term:
        return False
    lease_until_ms = state.reads.lease_until_ms
    return lease_until_ms > 0 and config.clock_ms() < lease_until_ms


def _extend_lease(state: "State", progress: Progress, message: HeartbeatResponse) -> None:
    """The promise began when the follower got the round, so after it was sent; a slow clock shortens what it is worth."""
    reads = state.reads
    sent_ms = next((sent_ms for number, sent_ms in reads.sent_at if number == message.read_round), None)
    if sent_ms is None or reads.is_lease_barred(state.term):
        return
    worth_ms = message.promise_ms * (100 - state.config.clock_drift_percent_max) // 100
    progress.lease_until_ms = max(progress.lease_until_ms, sent_ms + worth_ms)
    ends = {peer: other.lease_until_ms for peer, other in state.progress.items()}
    ends[state.node_id] = max(
        ends.values()
    )  # for a single voter a learner's promise will do: nobody else could be elected
    reads.lease_until_ms = joint_value(state.configuration, ends)
    assert reads.lease_until_ms < UNBOUNDED, "a lease rests on somebody else's promise (6.4.1)"
