"""What members say to each other, and what the log holds: plain slotted records, no behaviour.

Every message carries term, source and target, as in figure 3.1 of the Raft dissertation. Encoding lives in
transport/frames.py; nothing here knows about bytes on a wire. Slotted but not frozen: a frozen dataclass costs four times
as much to build, and these are built for every batch. Nobody changes a message after it was made.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from raftkv.units import NOBODY, Index, NodeId, Term

# Entry kinds. Numbers are on disk and on the wire: never reuse one.
ENTRY_NOOP = 0  # a new leader's first entry (3.6.2, 6.4); data is empty
ENTRY_COMMANDS = 1  # a batch of client commands, see wire/commands.py
ENTRY_CONFIGURATION = 2  # an encoded Configuration (chapter 4); takes effect when appended


@dataclass(slots=True)
class Entry:
    """One entry of the replicated log. `data` is encoded once, by the proposer, and reused for the WAL and every follower."""

    index: Index
    term: Term
    kind: int
    data: bytes


@dataclass(slots=True)
class HardState:
    """What must be durable before a vote or an acknowledgement leaves (3.3, figure 3.1). `commit` is a hint, see 3.8."""

    term: Term = 0
    vote: NodeId = NOBODY
    commit: Index = 0


@dataclass(frozen=True, slots=True)
class Configuration:
    """The members that count, as of one entry of the log.

    `voters_outgoing` is empty unless the configuration is joint (4.3): then both majorities are needed. Learners receive
    entries and never vote (4.2.1). `learners_next` are outgoing voters that become learners when the joint one is left.
    """

    voters: frozenset[NodeId]
    voters_outgoing: frozenset[NodeId] = frozenset()
    learners: frozenset[NodeId] = frozenset()
    learners_next: frozenset[NodeId] = frozenset()
    auto_leave: bool = False

    def members(self) -> frozenset[NodeId]:
        """Everybody who receives entries."""
        return self.voters | self.voters_outgoing | self.learners


@dataclass(slots=True)
class SnapshotMeta:
    """Names one snapshot: the state up to and including `index` (chapter 5), its configuration, and its bytes' checksum."""

    index: Index
    term: Term
    configuration: Configuration
    size_bytes: int = 0
    checksum: int = 0  # CRC-32 (zlib) of the whole file
    snapshot_id: int = 0  # drawn by the sender; a transfer resumes only within one id


@dataclass(slots=True)
class RequestVote:
    """3.4; with `pre_vote` the question of 9.6, which changes nothing at the receiver. `transfer`: the leader asked for it (3.10)."""

    term: Term
    source: NodeId
    target: NodeId
    last_index: Index
    last_term: Term
    pre_vote: bool = False
    transfer: bool = False


@dataclass(slots=True)
class RequestVoteResponse:
    """`term` echoes the asked term when a pre-vote is granted, else it is the voter's own."""

    term: Term
    source: NodeId
    target: NodeId
    granted: bool
    pre_vote: bool = False


@dataclass(slots=True)
class AppendEntries:
    """3.5. Never empty of purpose: entries, or a probe, or a new commit index. Liveness is the Heartbeat's."""

    term: Term
    source: NodeId
    target: NodeId
    previous_index: Index
    previous_term: Term
    commit_index: Index
    entries: list[Entry] = field(default_factory=list)


@dataclass(slots=True)
class AppendEntriesResponse:
    """Sent once the entries are durable. Rejected: `hint_index`/`hint_term` let the leader skip a whole term at a time (3.5)."""

    term: Term
    source: NodeId
    target: NodeId
    match_index: Index  # accepted: last index known to agree. rejected: the previous_index that was refused
    rejected: bool = False
    hint_index: Index = 0
    hint_term: Term = 0
    promise_ms: int = 0  # the sender will not vote for anybody else for so long (6.4.1); 0 promises nothing


@dataclass(slots=True)
class Heartbeat:
    """Liveness, commit index (never beyond what the target is known to have), and the shared ReadIndex round (6.4).

    It never waits for a disk: a slow fsync is not a dead leader. `digest`: of the store at `digest_index`, as a quorum has it.
    """

    term: Term
    source: NodeId
    target: NodeId
    commit_index: Index
    read_round: int = 0
    digest_index: Index = 0
    digest: int = 0


@dataclass(slots=True)
class HeartbeatResponse:
    """`digest` is that of the sender's own store at `digest_index`; index 0 says nothing. `unfit`: its disk is ill, it should not lead."""

    term: Term
    source: NodeId
    target: NodeId
    read_round: int = 0
    promise_ms: int = 0
    digest_index: Index = 0
    digest: int = 0
    unfit: bool = False


@dataclass(slots=True)
class InstallSnapshot:
    """One chunk of a snapshot (figure 5.3), `offset` bytes from its start."""

    term: Term
    source: NodeId
    target: NodeId
    snapshot: SnapshotMeta
    offset: int
    data: bytes
    done: bool


@dataclass(slots=True)
class InstallSnapshotResponse:
    """`next_offset`: what the receiver has without gaps. `installed`: the state is durable and in use (or was not needed)."""

    term: Term
    source: NodeId
    target: NodeId
    snapshot_id: int
    next_offset: int
    installed: bool = False


@dataclass(slots=True)
class TimeoutNow:
    """3.10: start an election at once."""

    term: Term
    source: NodeId
    target: NodeId


@dataclass(slots=True)
class ReadIndex:
    """A follower asks the leader for an index that is safe to read at (6.4). `context` is never used twice by its sender."""

    term: Term
    source: NodeId
    target: NodeId
    context: int


@dataclass(slots=True)
class ReadIndexResponse:
    """`index` 0: refused (not the leader any more); the asker fails or retries with a new context."""

    term: Term
    source: NodeId
    target: NodeId
    context: int
    index: Index


Message: TypeAlias = (
    RequestVote
    | RequestVoteResponse
    | AppendEntries
    | AppendEntriesResponse
    | Heartbeat
    | HeartbeatResponse
    | InstallSnapshot
    | InstallSnapshotResponse
    | TimeoutNow
    | ReadIndex
    | ReadIndexResponse
)
