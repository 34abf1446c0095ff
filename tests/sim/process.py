"""One life of a member: the twin of daemon/loop.py and of the wiring in daemon/member.py, from a start to a death.

As there, inputs only take in what happened and one pump per turn acts on all of it. A turn may last (knobs.turn_us): what
arrives meanwhile is one batch. Errors that the daemon calls fatal end the process here too; a broken invariant is no death of
a process but the end of the seed, because it is what the simulator looks for.
"""

from typing import TYPE_CHECKING, Any

from raftkv.daemon.restart import bring_together
from raftkv.errors import DiskFailure, Diverged, NoSpace, RaftKVError, TransferRefused
from raftkv.raft.config import RaftConfig
from raftkv.raft.effects import RoleChange
from raftkv.raft.messages import AppendEntries, Message, SnapshotMeta
from raftkv.raft.node import Raft
from raftkv.replica.fitness import Fitness
from raftkv.replica.ports import SnapshotReader
from raftkv.replica.preference import Preference
from raftkv.replica.replica import Replica
from raftkv.replica.service import LEADER, Service
from raftkv.replica.upkeep import Founding
from raftkv.units import Milliseconds, NodeId
from raftkv.wire.settings import settings_of

from . import telling
from .door import Door
from .journal import SimJournal
from .storage import SimStorage

if TYPE_CHECKING:
    from .machine import Machine

HOUSEKEEPING_TICKS = 20
FSYNC_STALL_US_MAX = 2_000_000
SHUTDOWN_GRACE_US = 3_000_000


class Process:
    """A running member. Raises what a start of the daemon raises."""

    def __init__(self, machine: "Machine") -> None:
        world = machine.world
        knobs = world.knobs
        self.world = world
        self.machine = machine
        self.knobs = knobs
        self.alive = True
        self._random = world.stream(f"process {machine.node_id} {machine.lives}")
        wal, recovered = machine.open_log()
        self.storage = SimStorage(self)
        saved = bring_together(wal, recovered, self.storage.store, world.configuration_known_by(machine.node_id))
        world.checks.on_start(machine.books, recovered, saved, self.storage.store)
        self.raft = Raft(self._raft_config(), saved, self._random.randint)
        self.state = self.raft._state  # read by the checks after every event
        self.journal = SimJournal(self, wal, self.raft.last_index)
        self.service = self._new_service()
        self.replica = Replica(
            raft=self.raft,
            journal=self.journal,
            network=self,
            state_machine=self.storage,
            limits=knobs.limits,
            listener=self.service,
            apply_budget_bytes=knobs.apply_budget_bytes,
        )
        self.door = Door(self)
        self.service.on_leader_change = self._on_leader_change
        self._waiting_for_space: NoSpace | None = None
        self._fitness = Fitness(self.raft)
        self._preference = Preference(self.raft)
        self._ticks = 0
        self._busy_until_us = 0
        self._pump_scheduled = False
        self._shutdown_deadline_us: int | None = None
        self._told = (self.raft.commit_index, self.raft.durable_index, self.raft.log_start_index)
        self._tick_us = machine.clock.virtual_us(knobs.tick_ms * 1000)

    def start(self) -> None:
        """Begin to tick."""
        self.world.after(int(self._random.random() * self._tick_us), self._on_tick)
        self.turn()

    def _raft_config(self) -> RaftConfig:
        knobs, machine = self.knobs, self.machine
        return RaftConfig(
            node_id=machine.node_id,
            heartbeat_ticks=knobs.heartbeat_ticks,
            election_timeout_ticks=knobs.election_timeout_ticks,
            tick_ms=knobs.tick_ms,
            pre_vote=knobs.pre_vote,
            check_quorum=knobs.check_quorum,
            fast_failover=knobs.fast_failover,
            lease_reads=knobs.lease_reads,
            snapshot_bytes_per_tick=knobs.snapshot_bytes_per_tick,
            clock_ms=self.now_ms,
            limits=knobs.limits,
        )

    def _new_service(self) -> Service:
        world, machine = self.world, self.machine
        record = [machine.node_id, machine.name, machine.incarnation, machine.address, machine.peer_address, "sim"]
        record.append(machine.node_id % 3 if self.knobs.priorities else 0)
        return Service(
            raft=self.raft,
            state_machine=self.storage,
            directory=self.storage,
            forwarder=self,
            limits=self.knobs.limits,
            founding=Founding(
                self._random.getrandbits(62) or 1, world.CLUSTER_NAME, world.founders(), settings_of(self.knobs.limits)
            ),
            own_record=lambda: record,
            first_read_context=self._random.getrandbits(48) or 1,
            draw_id=world.draw_member_id,
        )

    def now_ms(self) -> Milliseconds:
        """The machine's monotonic clock."""
        return self.machine.clock.now_ms(self.world.now_us)

    # replica.ports.Network and replica.forwarding.Forwarder.

    def send(self, messages: Any) -> None:
        self.world.network.send(self.machine.node_id, messages)

    def forward(self, request_id: int, target: NodeId, payload: bytes) -> bool:
        self._carry(target, "on_forward", request_id, self.machine.node_id, payload)
        return True

    def answer(self, request_id: int, target: NodeId, payload: bytes) -> None:
        self._carry(target, "on_forward_answer", request_id, payload)

    def _carry(self, target: NodeId, method: str, *arguments: Any) -> None:
        machine = self.world.machines.get(target)
        if machine is not None:
            self.world.network.post(self.machine.node_id, target, machine.receive, method, arguments)

    # Events.

    def on_message(self, message: Message) -> None:
        """A peer's message."""
        if not self.alive:
            return
        too_much = self.journal.pending_bytes > self.knobs.limits.pending_writes_bytes_max
        if not (too_much and type(message) is AppendEntries):
            self.raft.step(message)
        self.turn()

    def on_forward(self, request_id: int, source: NodeId, payload: bytes) -> None:
        self.service.on_forward(request_id, source, payload)
        self.turn()

    def on_forward_answer(self, request_id: int, payload: bytes) -> None:
        self.service.on_forward_answer(request_id, payload)
        self.turn()

    def on_peer_reset(self, node_id: NodeId) -> None:
        """An established connection from that peer broke."""
        self.raft.on_peer_reset(node_id)
        self.service.on_peer_reset(node_id)
        self.raft.on_peer_unreachable(node_id)
        self.turn()

    def on_saved(self, ticket: int) -> None:
        self.replica.on_journal_saved(ticket)
        self.turn()

    def on_space(self, error: NoSpace | None) -> None:
        self._waiting_for_space = error
        self._watch_space()
        if self._hears_of_its_end():
            self.machine.retire()

    def on_snapshot_made(self, reader: SnapshotReader | None) -> None:
        if reader is None:
            self._fitness.on_snapshot_failed(self.now_ms())
        self.replica.on_snapshot_made(reader)
        self.turn()

    def on_snapshot_installed(self, meta: SnapshotMeta, *, ok: bool) -> None:
        self.replica.on_snapshot_installed(meta, ok=ok)
        self.turn()

    def fail(self, error: RaftKVError) -> None:
        """The disk broke a promise: the process ends, as the daemon does."""
        self.world.tell(f"{self.machine.name} stops: {error.code}: {error.message}")
        self.machine.kill()

    # The turn.

    def turn(self) -> None:
        """Act on what has come, now or when the turn under way is over."""
        if not self.alive or self._pump_scheduled:
            return
        if self.knobs.turn_us and self.world.now_us < self._busy_until_us:
            self._schedule_pump(self._busy_until_us - self.world.now_us)
        else:
            self._pump()

    def _schedule_pump(self, delay_us: int) -> None:
        self._pump_scheduled = True
        self.world.after(delay_us, self.machine.input, (self, self._pump_later))

    def _pump_later(self) -> None:
        self._pump_scheduled = False
        self._pump()

    def _pump(self) -> None:
        now_ms = self.now_ms()
        service, replica = self.service, self.replica
        service.flush(now_ms)
        replica.pump()
        if service.wants_flush:
            service.flush(now_ms)
            replica.pump()
        if self.storage.wants_commit:
            self.storage.commit_if_due(self.journal.durable_index)
        self._busy_until_us = self.world.now_us + self.knobs.turn_us
        if (replica.has_backlog or service.has_backlog) and not self._pump_scheduled and self.alive:
            self._schedule_pump(max(self.knobs.turn_us, 10))
        if self.world.story is not None:
            self._tell_progress()
        self.world.checks.after_event(self)

    def _tell_progress(self) -> None:
        """Before the checks, so that a violation stands below what led to it."""
        raft = self.raft
        told, self._told = self._told, (raft.commit_index, raft.durable_index, raft.log_start_index)
        if self._told != told:
            start = f"{raft.log_start_index + 1}" if raft.last_index > raft.log_start_index else "nothing"
            self.world.tell(
                f"{self.machine.name} holds {start} to {raft.last_index}/{raft.last_term}, durable to {raft.durable_index},"
                f" commit {raft.commit_index}, applied {self.storage.applied_index}"
            )

    def _on_tick(self) -> None:
        if not self.alive:
            return
        if self.machine.paused:
            self.machine.ticks_late = True  # the inbox is drained first, then comes one tick
            return
        self.tick()

    def tick(self) -> None:
        """One tick of the loop, and the next one scheduled."""
        self._tick_us = self.machine.clock.virtual_us(self.knobs.tick_ms * 1000)
        self.world.after(self._tick_us, self._on_tick)
        self._ticks += 1
        if self._ticks % HOUSEKEEPING_TICKS == 0:
            self._housekeeping()
        try:
            self.replica.compare_digests()
        except Diverged as error:
            # Nobody's store goes astray in here, so either it did all the same, or the comparison is wrong.
            self.world.checks.violate(f"{self.machine.name} stops as diverged (5.3): {error.message}")
        self.raft.tick()
        self.service.tick(self.now_ms())
        if self._shutdown_deadline_us is not None:
            self._watch_shutdown()
        if self.raft.has_effects or self.replica.has_backlog or self.service.has_backlog or not self.service.is_idle:
            self.turn()
        else:
            self.world.checks.after_event(self)

    def _housekeeping(self) -> None:
        self.storage.commit_if_due(self.journal.durable_index)
        self.replica.compact_log()
        self.replica.release_snapshot()
        self._watch_space()

    def _watch_space(self) -> None:
        error = self._waiting_for_space or self.storage.full
        if error is None and not self.journal.has_space:
            error = NoSpace("the disk has no room for the next segment of the log")
        self.service.write_block = error
        is_stalled = self.journal.oldest_save_us > FSYNC_STALL_US_MAX
        reason = self._fitness.reason(self.now_ms(), is_full=error is not None, is_stalled=is_stalled)
        try:
            if self._fitness.look(self.now_ms(), reason):
                self.world.tell(f"{self.machine.name} hands over: {reason}")
                self.turn()
        except TransferRefused as refusal:
            self.world.tell(f"{self.machine.name} cannot hand over although {reason}: {refusal.message}")
        priorities = {member["id"]: member["priority"] for member in self.storage.members()}
        preferred = self._preference.look(self.now_ms(), priorities, is_well=not reason)
        if preferred is not None:
            self.world.tell(f"{self.machine.name} hands over to {preferred}, which is preferred")
            self.turn()

    def _hears_of_its_end(self) -> bool:
        """From its own log, or from any member that it tries to connect with and that has applied it."""
        me, network = self.machine.node_id, self.world.network
        return self.storage.store.is_removed(me) or any(
            other.process is not None
            and other.process.storage.store.is_removed(me)
            and not (network.is_cut(me, other.node_id) or network.is_cut(other.node_id, me))
            for other in (self.world.machines.values() if self.knobs.spares else ())
        )

    # Leadership.

    def transfer(self, target: NodeId | None) -> None:
        """An operator moves the leader."""
        try:
            self.raft.transfer_leadership(target)
        except TransferRefused as refusal:
            self.world.tell(f"{self.machine.name} refuses to hand over: {refusal.message}")
        self.turn()

    def _hand_over(self, reason: str) -> None:
        if self.raft.role != LEADER:
            return
        self.world.tell(f"{self.machine.name} hands over: {reason}")
        self.transfer(None)

    def _on_leader_change(self, change: RoleChange) -> None:
        self.world.tell(
            f"{self.machine.name} is {change.role} in term {change.term}, leader {telling.member(change.leader)}"
        )

    # SIGTERM.

    def begin_shutdown(self) -> None:
        """Hand over, finish what is in flight, close."""
        if self._shutdown_deadline_us is None:
            self._shutdown_deadline_us = self.world.now_us + SHUTDOWN_GRACE_US
            self._hand_over("it shuts down")

    def _watch_shutdown(self) -> None:
        assert self._shutdown_deadline_us is not None, "it shuts down"
        is_late = self.world.now_us >= self._shutdown_deadline_us
        if self.raft.role == LEADER and self.raft.is_transferring and not is_late:
            return
        self.service.begin_shutdown()
        if not is_late and not (self.service.is_idle and self.journal.is_idle):
            return
        self.machine.close_in_order()

    def close_log(self) -> None:
        """The end of an orderly shutdown."""
        try:
            self.journal.write_batch()
            self.journal.wal.close()
        except DiskFailure as error:
            self.world.tell(f"{self.machine.name} closes with {error.code}")
