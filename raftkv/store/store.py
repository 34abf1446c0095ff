"""The deterministic state machine: Store joins apply, reads, and the commit of what was applied.

Owned by the loop: everything here but CommitJob.run is called from one thread and returns at once. Three layers hold the
data: the active overlay takes what is applied, the frozen one is being committed, the keyspace is durable. `freeze`, `run` in
the commit thread, `thaw` is the cycle that moves data down; what was not committed is applied again from the log after a
restart, with the same answers and the same digest.
"""

import struct
import zlib
from typing import Any, Final, Sequence

from msgpack.exceptions import UnpackException

from raftkv.errors import Corruption, InvalidRequest
from raftkv.limits import Limits
from raftkv.raft.messages import ENTRY_COMMANDS, ENTRY_CONFIGURATION, ENTRY_NOOP, Entry
from raftkv.store.access import Access
from raftkv.store.apply import apply_batch
from raftkv.store.auth import Auth, load_auth
from raftkv.store.commit import CommitJob
from raftkv.store.compaction import Compaction
from raftkv.store.hashing import ContentHash
from raftkv.store.keyspace import Keyspace
from raftkv.store.leases import Leases, load_leases
from raftkv.store.members import Cluster
from raftkv.store.meta import StoredState, load_cluster, load_state
from raftkv.store.mvcc import Mvcc
from raftkv.store.overlay import Overlay
from raftkv.store.pools import load_pools
from raftkv.store.ranges import RangeCursor
from raftkv.store.reads import read_small
from raftkv.store.sessions import load_sessions
from raftkv.store.state import State
from raftkv.store.watches import WatchHub
from raftkv.units import Index, Milliseconds, NodeId, Revision, Term
from raftkv.wire.commands import RANGE, Answer, decode_batch
from raftkv.wire.settings import settings_of
from raftkv.wire.validate import validate

_SUMMARY: Final = struct.Struct(">QQQQ")
_RELEASED_PER_ENTRY: Final = 1024
_SESSION_ITEMS: Final = 64  # a session and its answers count as so many


class Store:
    """The state machine of one member. Made by `Store.open`."""

    def __init__(self, keyspace: Keyspace, limits: Limits, stored: StoredState) -> None:
        cluster = load_cluster(keyspace, settings_of(limits))
        mvcc = Mvcc(keyspace, stored.revision, stored.compact_revision, load_leases(keyspace))
        pools = load_pools(keyspace, stored.clock_ms)
        self._state = State(mvcc, load_sessions(keyspace), cluster, load_auth(keyspace), pools, stored.clock_ms)
        self._mvcc = mvcc
        self._keyspace = keyspace
        self._limits = limits
        self._applied_index: Index = stored.applied_index
        self._applied_term: Term = stored.applied_term
        self._durable_applied_index: Index = stored.applied_index
        self._digest = stored.digest
        self._job: CommitJob | None = None  # handed out by freeze
        self._retired: Overlay | None = None  # committed, and let go of piece by piece
        self._watches: WatchHub | None = None
        self._compaction = Compaction(keyspace, stored.compact_revision)
        self._freezing_compact_revision: Revision = stored.compact_revision
        self._failed: CommitJob | None = None  # found no space, waits to be handed out again

    @classmethod
    def open(cls, keyspace: Keyspace, limits: Limits) -> "Store":
        """The state as committed in `keyspace`. Raises Unsupported for a newer format, Corruption."""
        keyspace.renew()
        return cls(keyspace, limits, load_state(keyspace))

    @property
    def keyspace(self) -> Keyspace:
        """What it stands on, for snapshots."""
        return self._keyspace

    def tell(self, watches: WatchHub) -> None:
        """From here on the hub hears of all events. It outlives this store."""
        watches.attach(self._mvcc, self.access)
        self._watches = watches

    def close(self) -> None:
        """Close the keyspace. What was not committed is in the log; no job may be running."""
        if self._watches is not None:
            self._watches.detach()
            self._watches = None
        self._keyspace.close()

    # In the place of another store.

    def take_place_of(self, other: "Store") -> None:
        """Go on where `other`, which has applied exactly the same, stands: who watches or waits does not notice.

        `other` is only to be closed afterwards, and dismantled.
        """
        assert self._applied_index == other._applied_index, "not an entry between them"
        assert self._digest == other._digest, "the same log makes the same state"
        self._mvcc.leases.take_over(other._mvcc.leases)
        self.auth.take_over(other.auth)
        watches, other._watches = other._watches, None
        if watches is not None:
            watches.move(self._mvcc, self.access)
            self._watches = watches

    def move_cursor(self, cursor: RangeCursor) -> None:
        """A range that was begun in a store whose place this one has taken goes on here."""
        cursor.move(self._mvcc)

    def dismantle(self, items_max: int) -> bool:
        """Let go of some of the memory of a closed store; True when nothing much is left.

        Freeing all of it at once would hold the loop for as long as loading it did.
        """
        mvcc, state = self._mvcc, self._state
        for layer in (mvcc.active, mvcc.frozen, self._retired):
            if layer is not None and not layer.release(items_max):
                return False
        return state.sessions.release(1 + items_max // _SESSION_ITEMS) and mvcc.leases.release(items_max)

    # Where it is.

    @property
    def applied_index(self) -> Index:
        return self._applied_index

    @property
    def applied_term(self) -> Term:
        """The term of the last applied entry."""
        return self._applied_term

    @property
    def durable_applied_index(self) -> Index:
        """Everything up to here is committed in the keyspace; log compaction never passes it."""
        return self._durable_applied_index

    @property
    def clock_ms(self) -> Milliseconds:
        """Replicated time of the last applied batch."""
        return self._state.clock_ms

    @property
    def revision(self) -> Revision:
        return self._mvcc.revision

    @property
    def compact_revision(self) -> Revision:
        """Reads below it are refused; -1 when nothing was ever compacted."""
        return self._mvcc.compact_revision

    @property
    def digest(self) -> int:
        """A checksum over all effects so far: members with one applied index have one digest, or have diverged."""
        return self._digest

    @property
    def has_room(self) -> bool:
        """False while what is not committed yet exceeds its bound: take no more writes."""
        size = records = 0
        for layer in (self._mvcc.active, self._mvcc.frozen):
            if layer is not None:
                size += layer.size_bytes
                records += len(layer.log)
        return size <= self._limits.overlay_bytes_max and records <= self._limits.overlay_records_max

    @property
    def overlay_bytes(self) -> int:
        """Of the active overlay: compare it with limits.commit_bytes to decide about a commit."""
        return self._mvcc.active.size_bytes

    @property
    def db_size_bytes(self) -> int:
        """Of the keyspace on disk, free pages included."""
        return self._keyspace.allocated_bytes()

    @property
    def db_size_in_use_bytes(self) -> int:
        return self._keyspace.used_bytes()

    # Who the cluster is.

    @property
    def cluster_id(self) -> int:
        """0 until the cluster was created."""
        return self._state.cluster.cluster_id

    @property
    def cluster_name(self) -> str:
        return self._state.cluster.cluster_name

    @property
    def configuration(self) -> bytes:
        """The data of the last applied ENTRY_CONFIGURATION; empty before the first one."""
        return self._state.cluster.configuration

    def members(self) -> list[dict[str, Any]]:
        """Mappings of id, name, address, peer_address, version, incarnation (None until published), by id."""
        members = self._state.cluster.members
        return [dict(members[node_id]) for node_id in sorted(members)]

    @property
    def full_members(self) -> frozenset[NodeId]:
        """Members whose store is over its quota: while there is one, nothing that grows is taken."""
        return frozenset(self._state.cluster.full)

    @property
    def cluster(self) -> Cluster:
        """Identity, members, alarms: to be looked at."""
        return self._state.cluster

    def is_removed(self, node_id: NodeId) -> bool:
        """Whether it was a member once, and is none any more."""
        return node_id in self._state.cluster.removed

    def removed_members(self) -> list[NodeId]:
        """Ids of those that were members once, and never will be again."""
        return list(self._state.cluster.removed)

    @property
    def sessions_count(self) -> int:
        return len(self._state.sessions)

    @property
    def auth(self) -> Auth:
        """Users and roles."""
        return self._state.auth

    @property
    def access(self) -> Access:
        """Who may do what, at the applied state."""
        return self._state.access

    @property
    def leases(self) -> Leases:
        """The granted leases, for the leader's books."""
        return self._mvcc.leases

    @property
    def earliest_deadline_ms(self) -> Milliseconds | None:
        """When, in replicated time, the leader should propose EXPIRE_SESSIONS next; None without sessions."""
        return self._state.sessions.earliest_deadline_ms()

    @property
    def pool_deadline_ms(self) -> Milliseconds | None:
        """When, in replicated time, the leader should propose POOL_TICK next; None while no time matters to a pool."""
        return self._state.pools.deadline_ms

    # Writes.

    def apply(self, entry: Entry) -> list[list[Answer]]:
        """Apply one committed entry: one list of answers per write group; nothing for the other kinds.

        Raises Corruption for an entry that cannot be decoded: this member must not guess what it says.
        """
        assert entry.index == self._applied_index + 1, "entries are applied in order, without gaps (5.3)"
        assert entry.term >= self._applied_term, "terms never go back along the log (3.5)"
        state = self._state
        answers: list[list[Answer]] = []
        if entry.kind == ENTRY_COMMANDS:
            time_ms, groups = _decode(entry)
            state.index, state.term, state.draws = entry.index, entry.term, 0
            answers = apply_batch(state, time_ms, groups)
        elif entry.kind == ENTRY_CONFIGURATION:
            state.cluster.configure(entry.data)
            state.change_cluster()
        elif entry.kind != ENTRY_NOOP:
            raise Corruption(
                f"log entry {entry.index} has kind {entry.kind}, which this member does not know: upgrade it"
            )
        self._applied_index, self._applied_term = entry.index, entry.term
        self._fold()
        self._mvcc.active.settle_many()
        if self._retired is not None and self._retired.release(_RELEASED_PER_ENTRY):
            self._retired = None
        return answers

    def _fold(self) -> None:
        """Fold the effects of one entry into the digest, and tell who watches."""
        state, mvcc = self._state, self._mvcc
        if self._watches is not None and self._watches.is_active:
            self._watches.feed(mvcc.events)
        summary = _SUMMARY.pack(self._applied_index, mvcc.revision, state.clock_ms, len(state.sessions))
        self._digest = zlib.crc32(b"".join((*mvcc.events, *state.effects, summary)), self._digest)
        mvcc.forget_events()
        state.effects.clear()

    # Reads.

    def read(self, command: Sequence[Any]) -> Answer:
        """As `read_small`."""
        return read_small(self._state, command, self._limits)

    def range_cursor(self, command: Sequence[Any]) -> RangeCursor:
        """A RANGE that may be large: call `step` between other work until it is True, then take `answer()`.

        Raises as read does. The cursor outlives commits, but not this store.
        """
        self._check_range(command)
        self._mvcc.tally.ranges += 1
        return RangeCursor(self._mvcc, command, self._state.cluster.settings.range_reply_bytes_max)

    def content_hash(self, revision: Revision) -> ContentHash:
        """What all members with the same data agree on, in steps. Raises FutureRevision, Compacted."""
        return ContentHash(self._mvcc, revision)

    def _check_range(self, command: Sequence[Any]) -> None:
        validate(command, self._limits)
        if command[0] != RANGE:
            raise InvalidRequest("a read is GET or RANGE")

    # Commit.

    def freeze(self) -> CommitJob | None:
        """What has been applied since the last commit, as a job for the commit thread; None when there is nothing to do.

        At most one job is under way: None until it was thawed. A job that failed for space is handed out again.
        """
        if self._job is not None:
            return None
        mvcc, state = self._mvcc, self._state
        if mvcc.frozen is not None:
            assert self._failed is not None, "a frozen overlay without a job is one that found no space"
            self._job, self._failed = self._failed, None
            return self._job
        if self._applied_index == self._durable_applied_index and not self._compaction.has_changes:
            return None
        overlay = mvcc.active
        overlay.settle()
        mvcc.frozen, mvcc.active = overlay, Overlay()
        changed, gone = state.sessions.take_changes()
        self._freezing_compact_revision = mvcc.compact_revision
        self._job = CommitJob(
            self._keyspace,
            overlay,
            self._applied_index,
            state=self._stored_state().pack(),
            cluster=state.cluster.pack() if state.cluster_changed else None,
            sessions=changed,
            sessions_gone=gone,
            leases=mvcc.leases.take_changes(),
            records=[state.auth.take_changes(), state.pools.take_changes()],
            compaction=self._compaction.take_changes(),
        )
        state.cluster_changed = False
        return self._job

    def thaw(self, job: CommitJob) -> None:
        """Take back a job that has run. If it found no space, nothing is lost: its layer stays, and `freeze` offers it again."""
        assert job is self._job, "the job that freeze handed out"
        self._job = None
        if not job.committed:
            self._failed = job
            return
        assert job.applied_index >= self._durable_applied_index, "commits move forward"
        self._keyspace.renew()
        self._mvcc.drop_frozen()
        self._retired = job.release()
        self._durable_applied_index = job.applied_index
        self._compaction.on_durable(self._freezing_compact_revision)

    @property
    def compaction(self) -> Compaction:
        """What is left to be removed of history that is hidden already: call `step` between other work while it has some."""
        return self._compaction

    def _stored_state(self) -> StoredState:
        return StoredState(
            applied_index=self._applied_index,
            applied_term=self._applied_term,
            revision=self._mvcc.revision,
            compact_revision=self._mvcc.compact_revision,
            clock_ms=self._state.clock_ms,
            digest=self._digest,
        )


def _decode(entry: Entry) -> tuple[Milliseconds, list[Any]]:
    try:
        time_ms, groups = decode_batch(entry.data)
    except (ValueError, TypeError, UnpackException) as error:
        raise Corruption(f"log entry {entry.index} is no batch of commands: {error}") from error
    if type(time_ms) is not int or type(groups) is not list:
        raise Corruption(f"log entry {entry.index} is no batch of commands")
    return time_ms, groups


__all__ = ["CommitJob", "Store"]
