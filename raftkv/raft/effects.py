"""What the core wants done: data, taken once per batch. The order of the fields is the contract.

The driver (replica/replica.py) calls `Raft.take_effects()` after a batch of inputs and then, in this order:

1. sends `send_now` (a leader's entries go out while its own disk works: dissertation 10.2.1),
2. hands `hard_state`, `entries` and, if set, `restored` to the journal as one save,
3. once that save is durable, and not before, sends `send_after_save` and calls `Raft.on_saved(save_id)`,
4. applies `committed` and answers `reads`.

Saves become durable in the order of their ids. Steps 1, 2 and 4 do not wait for step 3 of this batch or of earlier ones:
an entry committed by others may be applied before it is durable here (the store's own commit waits for the journal).
"""

from dataclasses import dataclass, field

from raftkv.raft.messages import Entry, HardState, InstallSnapshot, Message, SnapshotMeta
from raftkv.units import Index, NodeId, Term


@dataclass(slots=True)
class ReadReady:
    """The reads registered under `context` may be served once the state machine has applied `index` (6.4)."""

    context: int
    index: Index


@dataclass(slots=True)
class SendSnapshotChunk:
    """Read `size_max` bytes at `offset` of the offered snapshot and send them to `target` as InstallSnapshot."""

    target: NodeId
    snapshot: SnapshotMeta
    offset: int
    size_max: int
    term: Term = 0  # the message carries it; a chunk that is sent late must not speak for a later term


@dataclass(slots=True)
class DigestHeard:
    """A member said of its store that it has this digest at `index`; `agreed`: its leader says so of a quorum."""

    source: NodeId
    index: Index
    digest: int
    agreed: bool


@dataclass(slots=True)
class RoleChange:
    """Who this member now is. `leader` is NOBODY while there is none known."""

    role: str  # follower, pre_candidate, candidate, leader, learner
    term: Term
    leader: NodeId


@dataclass(slots=True)
class Effects:
    """One batch of wishes. Empty lists and None mean nothing to do."""

    save_id: int = 0  # of this batch, larger than all before; 0 when needs_save() is False
    send_now: list[Message] = field(default_factory=list)
    restored: SnapshotMeta | None = None  # the log was replaced by this snapshot; `entries` follow it
    hard_state: HardState | None = None  # changed: must be durable before anything in send_after_save leaves
    entries: list[Entry] = field(default_factory=list)  # entries[0].index may be <= the last: the suffix is replaced
    send_after_save: list[Message] = field(default_factory=list)
    committed: list[Entry] = field(default_factory=list)  # newly committed, in order, each exactly once
    reads: list[ReadReady] = field(default_factory=list)
    reads_failed: list[int] = field(default_factory=list)  # contexts that will never be confirmed
    role_change: RoleChange | None = None
    need_snapshot: bool = False  # some follower needs entries that are gone and no snapshot has been offered
    snapshot_chunks: list[SendSnapshotChunk] = field(default_factory=list)
    received_chunks: list[InstallSnapshot] = field(default_factory=list)  # store them, then Raft.on_chunk_stored
    digests: list[DigestHeard] = field(default_factory=list)

    def needs_save(self) -> bool:
        """Whether there is anything for the journal, or anything that must wait for what it was given before."""
        return bool(self.entries or self.send_after_save) or self.hard_state is not None or self.restored is not None
