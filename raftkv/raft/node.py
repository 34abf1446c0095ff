"""class Raft: the door to the core. Inputs go in one by one, what they ask for comes out as one `Effects` per batch.

The rules live in the files named after the chapters; here is only the dispatch table, the order of the work of a tick, and how
a batch is put together. Sans-IO: no clock, no chance, no sockets, no disks.
"""

from typing import Any, Callable, Collection, Final

from raftkv.errors import InvalidRequest, NotLeader
from raftkv.raft import changes, election, membership, reads, replication, snapshot, transfer
from raftkv.raft.config import RaftConfig, SavedState
from raftkv.raft.effects import Effects, RoleChange
from raftkv.raft.messages import (
    ENTRY_CONFIGURATION,
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
    TimeoutNow,
)
from raftkv.raft.progress import ProgressView
from raftkv.raft.state import CANDIDATE, FOLLOWER, State
from raftkv.units import NOBODY, Index, Milliseconds, NodeId, Term


def _on_timeout_now(state: State, message: TimeoutNow) -> None:
    """The leader wants this member to take over (3.10)."""
    if state.role == FOLLOWER and state.leader == message.source and state.is_voter(state.node_id):
        election.campaign(state, transfer=True)


HANDLERS: Final[dict[type, Callable[[State, Any], None]]] = {
    RequestVote: election.on_request_vote,
    RequestVoteResponse: election.on_request_vote_response,
    AppendEntries: replication.on_append_entries,
    AppendEntriesResponse: replication.on_append_entries_response,
    Heartbeat: replication.on_heartbeat,
    HeartbeatResponse: replication.on_heartbeat_response,
    InstallSnapshot: snapshot.on_install_snapshot,
    InstallSnapshotResponse: snapshot.on_install_snapshot_response,
    TimeoutNow: _on_timeout_now,
    ReadIndex: reads.on_read_index,
    ReadIndexResponse: reads.on_read_index_response,
}


class Raft:
    """One member's consensus core.

    Give it inputs, then call `take_effects` once per batch and do what it says, in the order that effects.py fixes. Not
    thread-safe. A broken invariant raises AssertionError; the member must then stop.
    """

    __slots__ = ("_shown", "_state")

    def __init__(self, config: RaftConfig, saved: SavedState, draw_ticks: Callable[[int, int], int]) -> None:
        """Start as a follower from what survived; `draw_ticks(low, high)` gives an int in [low, high]."""
        self._state = State(config, saved, draw_ticks)
        self._shown = (self._state.shown_role, self._state.term, self._state.leader)

    # Inputs.

    def step(self, message: Message) -> None:
        """Take a message from a peer. What is for somebody else is dropped."""
        state = self._state
        if message.target != state.node_id or message.source == state.node_id:
            return
        state.note_heard(message.source)
        if election.admit(state, message):
            HANDLERS[type(message)](state, message)

    def tick(self) -> None:
        """`RaftConfig.tick_ms` have passed."""
        state = self._state
        state.ticks += 1
        if state.is_leader:
            _tick_leader(state)
        else:
            reads.tick_follower(state)
            election.tick(state)

    def propose(self, kind: int, data: bytes) -> tuple[Index, Term]:
        """Append an entry; it is committed if the index comes back in `committed` with this term.

        Raises NotLeader (also while leadership is being transferred), and InvalidRequest for a configuration while an
        earlier one is not committed, or before this leader has committed anything (4.1).
        """
        state = self._state
        if not state.is_leader:
            raise NotLeader
        if state.transfer is not None:
            raise NotLeader(f"leadership is being transferred to member {state.transfer.target}")
        if kind == ENTRY_CONFIGURATION and (
            state.history.latest_index > state.commit_index or not state.committed_in_term
        ):
            raise InvalidRequest("another configuration change is not finished")
        entry = replication.append(state, kind, data)
        return entry.index, entry.term

    def check_change(self, change: changes.Change, *, force: bool = False) -> None:
        """Raise what propose_change would raise now."""
        changes.check(self._state, change, force=force)

    def propose_change(self, change: changes.Change, *, force: bool = False) -> tuple[Index, Term]:
        """Append the configuration that a change leads to; a joint one is left by itself (4.3). See changes.check.

        Raises NotLeader, and MembershipRefused with what speaks against it; `force` lets a change pass that no quorum answers.
        """
        following = changes.check(self._state, change, force=force)
        entry = replication.append(self._state, ENTRY_CONFIGURATION, membership.encode_configuration(following))
        return entry.index, entry.term

    def read_index(self, context: int) -> None:
        """Ask for an index that is safe to read at; the answer comes in `reads` or `reads_failed`, at once if no leader is known.

        `context` must never be used twice by this member, not even after a restart: a late answer must not serve a later read.
        """
        reads.register(self._state, context)

    def transfer_leadership(self, target: NodeId | None = None, avoid: Collection[NodeId] = ()) -> None:
        """Hand leadership to `target` (None: the most caught-up voter that is not in `avoid`). Raises TransferRefused."""
        transfer.start(self._state, target, avoid)

    def on_saved(self, save_id: int) -> None:
        """The journal has made this save durable, and all before it."""
        state = self._state
        save = state.log.save_finished(save_id)
        if save is None:
            return
        state.durable_term, state.durable_vote = save.term, save.vote
        if state.is_leader and state.log.durable_index > state.commit_index:
            replication.maybe_commit(state)
        elif state.role == CANDIDATE and (save.term, save.vote) == (state.term, state.node_id):
            election.on_own_vote_saved(state)

    def on_peer_reset(self, peer: NodeId) -> None:
        """The connection from `peer` was reset: with fast failover its process counts as gone, if it led."""
        election.on_peer_reset(self._state, peer)

    def on_peer_unreachable(self, peer: NodeId) -> None:
        """The link to `peer` broke, so what was sent may be lost."""
        replication.on_peer_unreachable(self._state, peer)

    def compact(self, index: Index) -> None:
        """Drop the log up to `index`, or as far as may be: see `log_start_index` afterwards."""
        snapshot.compact(self._state, index)

    def offer_snapshot(self, meta: SnapshotMeta) -> None:
        """Chunks of this snapshot can be read from now on."""
        snapshot.offer(self._state, meta)

    def withdraw_snapshot(self) -> None:
        """No snapshot can be read any more, or the one that was asked for could not be made."""
        snapshot.withdraw(self._state)

    def on_chunk_stored(self, message: InstallSnapshot, next_offset: int) -> None:
        """A chunk out of `received_chunks` was stored (or dropped); bytes before `next_offset` are here without gaps."""
        snapshot.on_chunk_stored(self._state, message, next_offset)

    def on_snapshot_installed(self, meta: SnapshotMeta, ok: bool) -> None:
        """The state machine holds the snapshot durably (or could not take it).

        The driver installs none at or below what it has applied, and applies nothing while one is being installed.
        """
        snapshot.on_installed(self._state, meta, ok)

    def announce_digest(self, index: Index, digest: int) -> None:
        """As leader: say with each heartbeat, while in office, that a quorum has this digest at `index`."""
        assert self._state.is_leader, "only a leader knows of a quorum"
        self._state.digest_agreed = (index, digest)

    def report_digest(self, index: Index, digest: int) -> None:
        """Tell the next leader that is heard, once, that the own store has this digest at `index` (0: nothing to tell)."""
        self._state.digest_report = (index, digest)

    def report_unfit(self, unfit: bool) -> None:
        """Tell every leader that is heard from now on whether the own disk is ill: then a learner gets no vote, and others are preferred."""
        self._state.unfit = unfit

    @property
    def wants_digest(self) -> bool:
        """The last report has left, or there was none."""
        return self._state.digest_report[0] == 0

    # Outputs.

    @property
    def has_effects(self) -> bool:
        """False when take_effects() would return nothing; cheap enough to ask after every input."""
        return self._state.dirty or self._state.handed_index < self._state.commit_index

    def take_effects(self) -> Effects:
        """What is to be done for the inputs since the last call; each effect is returned exactly once."""
        state = self._state
        reads.flush(state)
        if state.is_leader:
            replication.flush(state)
        effects, state.effects = state.effects, Effects()
        state.dirty = False
        effects.entries = state.log.take_unjournaled()
        self._put_hard_state(effects)
        self._put_committed(effects)
        self._put_role_change(effects)
        if effects.needs_save():
            state.save_id += 1
            effects.save_id = state.save_id
            state.log.save_started(state.save_id, state.term, state.vote)
        return effects

    def _put_hard_state(self, effects: Effects) -> None:
        """Term and vote when they changed; the commit index alone is worth no save, it only rides along (3.8)."""
        state = self._state
        current = (state.term, state.vote)
        if current != state.handed_hard_state or effects.entries or effects.restored is not None:
            effects.hard_state = state.hard_state()
            state.handed_hard_state = current

    def _put_committed(self, effects: Effects) -> None:
        """Bounded per batch; the rest makes has_effects true at once."""
        state = self._state
        if state.handed_index < state.commit_index:
            effects.committed, _ = state.log.slice(
                state.handed_index + 1, state.commit_index, state.limits.append_bytes_in_flight_max
            )
            state.handed_index = effects.committed[-1].index
        assert state.handed_index <= state.commit_index, "only committed entries are given out (3.6)"

    def _put_role_change(self, effects: Effects) -> None:
        state = self._state
        shown = (state.shown_role, state.term, state.leader)
        if shown != self._shown:
            self._shown = shown
            effects.role_change = RoleChange(*shown)

    # What can be looked at.

    @property
    def node_id(self) -> NodeId:
        return self._state.node_id

    @property
    def role(self) -> str:
        """follower, pre_candidate, candidate, leader or learner."""
        return self._state.shown_role

    @property
    def is_leader(self) -> bool:
        return self._state.is_leader

    @property
    def election_timeout_ms(self) -> Milliseconds:
        """The least that a follower waits for its leader: several round trips between the members."""
        return self._state.config.election_timeout_ticks * self._state.config.tick_ms

    @property
    def term(self) -> Term:
        return self._state.term

    @property
    def vote(self) -> NodeId:
        return self._state.vote

    @property
    def leader(self) -> NodeId:
        """The leader of this term, NOBODY while none is known."""
        return self._state.leader

    @property
    def commit_index(self) -> Index:
        return self._state.commit_index

    @property
    def handed_index(self) -> Index:
        """The last index that was given out in `committed`, or restored."""
        return self._state.handed_index

    @property
    def durable_index(self) -> Index:
        """The last index that the journal has reported."""
        return self._state.log.durable_index

    @property
    def last_index(self) -> Index:
        return self._state.log.last_index

    @property
    def last_term(self) -> Term:
        return self._state.log.last_term

    @property
    def log_start_index(self) -> Index:
        """Entries up to here are gone."""
        return self._state.log.start_index

    @property
    def log_start_term(self) -> Term:
        return self._state.log.start_term

    @property
    def log_bytes(self) -> int:
        """Bytes of the entries that are held in memory."""
        return self._state.log.held_bytes

    def compactable_index(self, *, retained_entries_max: int, retained_bytes_max: int) -> Index:
        """How far the log would have to be compacted to hold no more than this; `log_start_index` when it does not."""
        return self._state.log.first_retained_index(retained_entries_max, retained_bytes_max) - 1

    def held_entries(self, first: Index, last: Index, bytes_max: int) -> list[Entry]:
        """The entries from `first` up to `last` that fit, at least one; none when `first` is compacted already."""
        log = self._state.log
        assert first <= last <= log.last_index, "what was appended"
        return log.slice(first, last, bytes_max)[0] if first > log.start_index else []

    def term_of(self, index: Index) -> Term:
        """The term of an entry between log_start_index and last_index."""
        return self._state.log.term_of(index)

    @property
    def configuration(self) -> Configuration:
        return self._state.configuration

    def configuration_at(self, index: Index) -> Configuration:
        """The configuration as of an index between log_start_index and last_index."""
        return self._state.history.at(index)

    @property
    def configuration_index(self) -> Index:
        """The index of the entry that brought the configuration; it is rolled back while it is not committed (4.1)."""
        return self._state.history.latest_index

    @property
    def snapshot_in_use(self) -> bool:
        """Whether a follower is being sent the offered snapshot; compaction stops at it."""
        return snapshot.is_in_use(self._state)

    @property
    def quorum_contact(self) -> bool:
        """Whether this member can reach a quorum, as far as it has heard within the last election timeout."""
        return self._state.has_quorum_contact()

    @property
    def is_transferring(self) -> bool:
        return self._state.transfer is not None

    @property
    def transfer_target(self) -> NodeId | None:
        """Who is to lead next, while a transfer runs."""
        transfer = self._state.transfer
        return None if transfer is None else transfer.target

    @property
    def last_committed_in_term(self) -> bool:
        """Whether this leader has committed an entry of its own term, so that it knows what is committed (6.4)."""
        return self._state.committed_in_term

    @property
    def lease_until_ms(self) -> Milliseconds:
        """The end of the lease on the injected clock; 0 without one."""
        return self._state.reads.lease_until_ms

    def progress(self, peer: NodeId) -> ProgressView | None:
        """A follower as this leader sees it; None when this member does not lead or does not know it."""
        state = self._state
        progress = state.progress.get(peer)
        if progress is None:
            return None
        return ProgressView(
            progress.match_index,
            progress.next_index,
            progress.state,
            len(progress.inflight),
            state.is_active(progress),
        )


def _tick_leader(state: State) -> None:
    """A leader that no quorum answers gives up its office: nobody should wait for it (6.2)."""
    if state.config.check_quorum and not state.has_quorum_contact():
        state.become_follower(state.term, NOBODY)
        return
    transfer.tick(state)
    if state.configuration.voters_outgoing:
        replication.leave_joint(state)
    snapshot.tick(state)
    replication.tick(state)
    state.heartbeat_elapsed += 1
    if state.heartbeat_elapsed >= state.config.heartbeat_ticks:
        state.heartbeat_elapsed = 0
        reads.start_round(state, list(state.progress), state.digest_agreed)
