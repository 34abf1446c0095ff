"""The use-cases: what a member does with the requests of its clients, whatever door they came through.

Routing (here, to the leader, nowhere), batching into entries, linearizable reads, forwarding for those that cannot be
redirected, and the few writes that members make themselves: founding the cluster, publishing an address, ending sessions.
Sans-IO like all of this room: time comes with `flush` and `tick`.
"""

from typing import Any, Callable, Sequence

from raftkv.errors import (
    LeadershipLost,
    NoQuorum,
    Overloaded,
    RaftKVError,
    ShuttingDown,
    UserEmpty,
)
from raftkv.limits import Limits
from raftkv.raft.effects import ReadReady, RoleChange
from raftkv.raft.messages import ENTRY_COMMANDS, Entry
from raftkv.raft.node import Raft
from raftkv.replica.compaction import AutoCompaction
from raftkv.replica.figures import ServiceFigures
from raftkv.replica.forwarding import Forwarder, Forwarding
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.lease_desk import FIRST_CONTEXT, QUESTIONS, LeaseDesk, Question
from raftkv.replica.membership import Reconfiguration, Request
from raftkv.replica.ports import AccessControl, StateMachine
from raftkv.replica.proposals import Proposals
from raftkv.replica.reads import PendingReads
from raftkv.replica.serving import Serving
from raftkv.replica.signpost import Signpost
from raftkv.replica.upkeep import Directory, Founding, Upkeep
from raftkv.replica.versions import VersionGate
from raftkv.replica.waiting import WaitingWrites
from raftkv.replica.watching import Watching
from raftkv.units import NOBODY, Milliseconds, NodeId
from raftkv.wire.commands import SYSTEM_WRITES, Answer, encode_batch
from raftkv.wire.protocol import CHANGE_MEMBERS

LEADER = "leader"

# While so many of its entries are unapplied the leader lets requests gather for the next one: the batch is the unit, and
# one entry of 256 requests costs a quarter of four of 64. Two, so that the disk works while the followers do.
ENTRIES_IN_FLIGHT_MAX = 2
SWEEP_INTERVAL_MS = 500
FAREWELLS_PER_ELECTION = 4  # so long is an old leader listened to: an election timeout knows how far it is
READ_ROUND_TIMEOUT_MS = 500  # or an election timeout, which knows how far the members are from each other


class Service:
    """Requests in, answers out, for one member. Calls of `submit_*` and `forward` end in exactly one callback per group."""

    def __init__(
        self,
        *,
        raft: Raft,
        state_machine: StateMachine,
        directory: Directory,
        forwarder: Forwarder,
        limits: Limits,
        founding: Founding,
        own_record: Callable[[], list[Any]],
        first_read_context: int,
        draw_id: Callable[[], NodeId],
    ) -> None:
        self._raft = raft
        self._state_machine = state_machine
        self._directory = directory
        self._limits = limits
        self._signpost = Signpost(raft, directory, founding.names)
        self._versions = VersionGate(directory)
        self._proposals = Proposals()
        self._reads = PendingReads(first_read_context)
        self._serving = Serving(state_machine)
        self._leases = LeaseDesk(state_machine, self._submit_own, first_read_context)
        self._new = WaitingWrites(limits.entry_bytes_max)
        self._forwarding = Forwarding(forwarder, first_read_context, limits.pending_writes_max)
        history = AutoCompaction(age_ms_max=limits.history_ms_max, revisions_max=limits.history_revisions_max)
        self._upkeep = Upkeep(directory, founding, own_record, self.forward, history, limits.quota_bytes)
        self._reconfiguration = Reconfiguration(
            raft, directory, limits, submit=self.submit_writes, elsewhere=self.elsewhere, draw_id=draw_id
        )
        self.watching = Watching(state_machine.watches, self.submit_reads, self.deadline, limits)
        self.now_ms: Milliseconds = 0  # of the last tick or flush: deadlines are judged by it
        self._clock_base_ms: Milliseconds | None = None  # replicated time when the office was taken; None: not yet
        self._office_since_ms: Milliseconds = 0
        self._next_sweep_ms: Milliseconds = 0
        self.is_closing = False
        self.write_block: RaftKVError | None = None  # set by the owner: the disk is full
        self.on_leader_change: Callable[[RoleChange], None] = lambda change: None

    # What front doors call.

    def submit_writes(self, group: WriteGroup) -> None:
        """Propose the group with the next batch, or refuse it with where to go."""
        refusal = self._refusal_of_writes()
        if refusal is None and group.user is None and self._state_machine.access.is_on:
            # Apply would refuse it as well; but the log is not for those who have not logged in. Members need no login.
            refusal = None if group.commands[0][0] in SYSTEM_WRITES else UserEmpty()
        if refusal is None:
            refusal = self._versions.refusal(group.commands)
        if refusal is not None:
            group.origin.on_refused(group, refusal)
            return
        self._new.add(group, self.now_ms)

    def submit_reads(self, group: ReadGroup) -> None:
        """Answer the group at a linearizable point, on any member that reaches a leader."""
        refusal = self._refusal_of_reads()
        if refusal is not None:
            group.origin.on_refused(group, refusal)
            return
        self._reads.add(group)

    def read_now(self, group: ReadGroup) -> None:
        """Answer the group from what is applied here, however old that is (serializable)."""
        self._serving.serve([group])

    def ask_leader(self, group: Question) -> None:
        """Keep leases alive, or tell how long they live. Only the leader knows; the others say where it is."""
        refusal = self._refusal_of_questions()
        if refusal is not None:
            group.origin.on_refused(group, refusal)
            return
        self._leases.submit(group)

    def forward(self, group: WriteGroup) -> None:
        """Like submit_writes or ask_leader; a follower asks the leader on the client's behalf, one hop, and never twice."""
        raft = self._raft
        if raft.role == LEADER or raft.leader == NOBODY or self.is_closing:
            self._submit_forwarded(group)
        else:
            self._forwarding.send(group, raft.leader, self.now_ms)

    def _submit_forwarded(self, group: WriteGroup) -> None:
        if group.commands[0][0] in QUESTIONS:
            self.ask_leader(group)
        elif group.commands[0][0] == CHANGE_MEMBERS:
            self._reconfiguration.ask_for(group, self.access, self.now_ms)
        else:
            self.submit_writes(group)

    def change_members(self, request: Request, done: Callable[[Answer], None], timeout_ms: Milliseconds) -> None:
        """Change the membership, on the leader; `done` is called once, perhaps before this returns."""
        self._reconfiguration.ask(request, done, self.now_ms, self.deadline(timeout_ms))

    @property
    def access(self) -> AccessControl:
        """Who may do what here and now: for what a door answers by itself."""
        return self._state_machine.access

    def deadline(self, timeout_ms: Milliseconds) -> Milliseconds:
        """When a request that just arrived with this timeout (0: none) is given up."""
        return self.now_ms + (timeout_ms or 1 << 40)

    # What the owner calls.

    def flush(self, now_ms: Milliseconds) -> None:
        """Turn what has gathered into one entry and one read round, if it is their time. Before every pump."""
        self.now_ms = now_ms
        raft = self._raft
        if self._new and raft.role == LEADER and not raft.is_transferring:
            while self._new and len(self._proposals) < ENTRIES_IN_FLIGHT_MAX and self._state_machine.has_room:
                self._propose_entry()
        context = self._leases.start_round(now_ms)
        if context:
            raft.read_index(context)
        context = self._reads.start_round(now_ms)
        if context:
            raft.read_index(context)
        ready = self._reads.take_ready(self._state_machine.applied_index)
        if ready:
            self._serving.serve(ready)
        self._serving.step()
        self.watching.step()

    def tick(self, now_ms: Milliseconds) -> None:
        """A few times a second: deadlines, and the member's own writes."""
        self.now_ms = now_ms
        self._leases.tick(now_ms)
        self.watching.tick(now_ms)
        self._forwarding.part(now_ms)
        if now_ms < self._next_sweep_ms and not self._upkeep.is_due:
            return
        self._next_sweep_ms = now_ms + SWEEP_INTERVAL_MS
        self._proposals.expire(now_ms)
        self._reads.expire(now_ms)
        self._leases.expire(now_ms)
        self._new.expire(now_ms)
        self._forwarding.expire(now_ms)
        self._reconfiguration.tick(now_ms)
        raft = self._raft
        if raft.role != LEADER:
            # A follower's question may be lost. A leader's heartbeats repeat its part: giving up would only put it behind itself.
            self._reads.give_up_round(now_ms, max(READ_ROUND_TIMEOUT_MS, raft.election_timeout_ms))
        if raft.leader == NOBODY and not raft.quorum_contact:
            # Pre-votes went unanswered: whoever still waits for a confirmation waits in vain.
            self._reads.fail_unconfirmed(self._signpost.no_quorum())
            self.watching.send_away(self._signpost.no_quorum())
        if raft.leader != NOBODY and not self.is_closing:
            self._upkeep.look(now_ms, self._clock_ms(), leading=raft.role == LEADER)

    @property
    def wants_flush(self) -> bool:
        """Whether writes or reads wait for their turn; cheap."""
        return len(self._new) > 0 or self._reads.wants_round or self._leases.wants_round

    def begin_shutdown(self) -> None:
        """Refuse what is new; what is in flight goes on."""
        self.is_closing = True
        self._new.refuse_all(ShuttingDown())
        away = self._signpost.shutting_down()
        self._leases.leave_office(away)
        self.watching.send_away(away)

    @property
    def is_idle(self) -> bool:
        """Nothing is in flight."""
        waiting = len(self._new) + len(self._proposals) + self._reads.pending_commands
        return waiting + len(self._forwarding) + len(self._serving) == 0 and self._leases.is_idle

    @property
    def has_backlog(self) -> bool:
        """Reads are half answered, or events wait: flush again in the next turn."""
        return self._serving.is_busy or self.watching.has_backlog

    def on_store_replaced(self) -> None:
        """The store that half-answered ranges were reading is gone; another member has the answer."""
        self._serving.refuse_all(Overloaded("this member is taking in a snapshot"))

    @property
    def is_published(self) -> bool:
        """Whether the log says of this member what it says of itself."""
        return self._upkeep.is_published

    @property
    def figures(self) -> ServiceFigures:
        """What was counted."""
        proposals, reads = self._proposals, self._reads
        failed, slow, renewed = proposals.failed_commands, reads.rounds_slow, self._leases.renewed
        return ServiceFigures(proposals.pending_commands, failed, slow, reads.rounds_failed, renewed)

    def on_forward(self, request_id: int, source: NodeId, payload: bytes) -> None:
        """Another member forwards a group."""
        self._submit_forwarded(self._forwarding.receive(request_id, source, payload, self.now_ms))

    def on_forward_answer(self, request_id: int, payload: bytes) -> None:
        """The leader's answer to a forwarded group."""
        self._forwarding.on_answer(request_id, payload)

    def on_peer_reset(self, peer: NodeId) -> None:
        """The connection broke on which that member answers."""
        self._forwarding.on_peer_reset(peer)

    # What the replica reports.

    def on_applied(self, entry: Entry, answers: Sequence[Sequence[Answer]]) -> None:
        """An entry took effect."""
        raft = self._raft
        self._leases.on_applied()
        self._proposals.applied(entry.index, entry.term, answers, self.now_ms)
        self._reconfiguration.on_applied(entry.index)
        if self._clock_base_ms is None and raft.role == LEADER and entry.term == raft.term:
            # Everything before our office is applied: from here on replicated time moves with our monotonic clock.
            self._clock_base_ms = self._state_machine.clock_ms
            self._office_since_ms = self.now_ms
            self._leases.take_office(raft.term)

    def on_reads_ready(self, ready: Sequence[ReadReady]) -> None:
        """Rounds were confirmed."""
        for read in ready:
            if read.context >= FIRST_CONTEXT:
                self._leases.on_confirmed(read.context, read.index)
            else:
                self._reads.confirmed(read.context, read.index)
        groups = self._reads.take_ready(self._state_machine.applied_index)
        if groups:
            self._serving.serve(groups)

    def on_reads_failed(self, contexts: Sequence[int]) -> None:
        """Rounds will never be confirmed: say where to go instead."""
        error = self.elsewhere()
        for context in contexts:
            self._reads.failed(context, error)
            self._leases.on_failed(context, error)

    def on_role_change(self, change: RoleChange) -> None:
        """Leadership came or went."""
        self._clock_base_ms = None
        self._leases.leave_office(self.elsewhere())
        if change.role != LEADER:
            elsewhere = self.elsewhere()
            lost = (
                NoQuorum("the majority was lost while the write was pending", may_have_happened=True)
                if isinstance(elsewhere, NoQuorum)
                else LeadershipLost()
            )
            lost.details.update(elsewhere.details)
            self._proposals.fail_all(lost)
            self._new.refuse_all(elsewhere)
            self._reconfiguration.on_office_lost()
        self._forwarding.on_leader_change(self.now_ms + self._raft.election_timeout_ms // FAREWELLS_PER_ELECTION)
        self._upkeep.on_leader_change()
        self.on_leader_change(change)

    # Where to go.

    def leader_hint(self) -> dict[str, Any] | None:
        """The leader as {id, name, address}; None while none is known."""
        return self._signpost.leader()

    def member_hints(self) -> list[dict[str, Any]]:
        """All members as {id, name, address}: where else a client may go."""
        return self._signpost.members()

    def elsewhere(self) -> RaftKVError:
        """Why this member cannot lead or confirm, and where to go."""
        return self._signpost.elsewhere()

    def _refusal_of_writes(self) -> RaftKVError | None:
        if self.is_closing:
            return self._signpost.shutting_down()
        if self._raft.role != LEADER:
            return self.elsewhere()
        if self.write_block is not None:
            return self.write_block
        proposals = self._proposals
        if (
            proposals.pending_bytes + self._new.size_bytes > self._limits.pending_writes_bytes_max
            or proposals.pending_commands + len(self._new) > self._limits.pending_writes_max
        ):
            return Overloaded()
        return None

    def _refusal_of_questions(self) -> RaftKVError | None:
        if self.is_closing:
            return self._signpost.shutting_down()
        if self._raft.role != LEADER:
            return self.elsewhere()
        if self._leases.pending_commands > self._limits.pending_reads_max:
            return Overloaded()
        return None

    def _submit_own(self, group: WriteGroup) -> None:
        """What the books of leases propose goes in front of what clients wait for: no load may keep a lease from its owner."""
        refusal = self._refusal_of_questions() or self.write_block
        if refusal is not None:
            group.origin.on_refused(group, refusal)
            return
        self._new.add_first(group, self.now_ms)

    def _refusal_of_reads(self) -> RaftKVError | None:
        if self.is_closing:
            return self._signpost.shutting_down()
        if self._raft.leader == NOBODY:
            return self.elsewhere()
        if self._reads.pending_commands > self._limits.pending_reads_max:
            return Overloaded()
        return None

    # Entries and answers.

    def _propose_entry(self) -> None:
        """One entry from the front of the queue."""
        groups = self._new.take(self.now_ms, self._proposals.round_ms)
        if groups:
            data = encode_batch(self._clock_ms(), [group.items() for group in groups])
            index, term = self._raft.propose(ENTRY_COMMANDS, data)
            self._proposals.add(index, term, groups, self.now_ms)

    def _clock_ms(self) -> Milliseconds:
        """Replicated time: it moves only under a leader, and never backwards (apply takes the maximum)."""
        if self._clock_base_ms is None:
            return self._state_machine.clock_ms
        return self._clock_base_ms + self.now_ms - self._office_since_ms


__all__ = ["Service"]
