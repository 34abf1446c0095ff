"""The asyncio side of one member: the sole owner of its Replica, and the clock and wake-ups that the core does without.

Inputs (peers, clients, the journal, the store's commits, ticks) only mark work; one `pump` per turn of the loop carries it
out, so whatever arrived together is one batch. An error in the core is fatal by design: a replica that broke an
invariant must not go on voting.
"""

import asyncio
import logging
import time
from typing import Any, Callable, Mapping, Sequence

from raftkv.daemon.agreement import Agreement
from raftkv.daemon.journal import WalJournal
from raftkv.daemon.leadership import Leadership
from raftkv.daemon.metrics import Counters
from raftkv.daemon.storage import Storage
from raftkv.errors import Corruption, DiskFailure, Internal, NoSpace, RaftKVError
from raftkv.raft.effects import RoleChange
from raftkv.raft.messages import AppendEntries, Message, SnapshotMeta
from raftkv.raft.node import Raft
from raftkv.replica.ports import SnapshotReader
from raftkv.replica.replica import Replica
from raftkv.replica.service import Service
from raftkv.transport.frames import Forward, ForwardAnswer
from raftkv.transport.peers import PeerTransport
from raftkv.units import NOBODY, NodeId

log = logging.getLogger("raftkv.loop")

HOUSEKEEPING_TICKS = 20  # half a second at 25 ms


def monotonic_ms() -> int:
    """The clock of this process, in ms."""
    return time.monotonic_ns() // 1_000_000


def fatal_error_of(context: Mapping[str, Any]) -> BaseException | None:
    """The error of an exception handler's context, if the member must not go on after it; running out of files is no such."""
    error = context.get("exception")
    return error if isinstance(error, AssertionError | DiskFailure | Corruption) else None


class PeerNetwork:
    """Implements replica.ports.Network and replica.forwarding.Forwarder on the peer transport."""

    def __init__(self, node_id: NodeId) -> None:
        self._node_id = node_id
        self.transport: PeerTransport | None = None  # set once it listens; until then messages are lost, as they may be

    def send(self, messages: Sequence[Message]) -> None:
        """Written at once: before the journal's thread wants the interpreter, and without another turn of the loop."""
        if self.transport is not None:
            self.transport.send_at_once(messages)

    def forward(self, request_id: int, target: NodeId, payload: bytes) -> bool:
        """Carry a client's writes to the leader. False: there is no way to it now."""
        message = Forward(request_id, self._node_id, target, payload)
        return self.transport is not None and self.transport.send([message])

    def answer(self, request_id: int, target: NodeId, payload: bytes) -> None:
        """Carry the leader's answer back."""
        if self.transport is not None:
            self.transport.send([ForwardAnswer(request_id, self._node_id, target, payload)])


class ReplicaLoop:
    """Turns events into pumps. `failed` is resolved with the first fatal error."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        raft: Raft,
        replica: Replica,
        service: Service,
        storage: Storage,
        journal: WalJournal,
        tick_ms: int,
        fsync_stall_ms_max: int,
        journal_bytes_max: int,
        counters: Counters,
    ) -> None:
        self._loop = loop
        self._raft = raft
        self._replica = replica
        self._service = service
        self._storage = storage
        self._tick_seconds = tick_ms / 1000
        self._fsync_stall_seconds_max = fsync_stall_ms_max / 1000
        self._journal_bytes_max = journal_bytes_max
        self._counters = counters
        self._journal = journal
        self._scheduled = False
        self._dead = False
        self._ticks = 0
        self._next_tick_at = 0.0
        self._tick_handle: asyncio.TimerHandle | None = None
        self._waiting_for_space: NoSpace | None = None
        self._over_quota: frozenset[int] = frozenset()
        self.leadership = Leadership(
            raft,
            service,
            now=loop.time,
            members=storage.members,
            schedule_pump=self.schedule_pump,
            is_dead=lambda: self._dead,
        )
        self.agreement = Agreement(raft, replica.digests, storage.members)
        self.on_housekeeping: Callable[[], None] = lambda: None
        self.failed: asyncio.Future[BaseException] = loop.create_future()
        loop.set_exception_handler(self._on_unhandled)
        service.on_leader_change = self._on_leader_change
        storage.on_progress = self.schedule_pump
        storage.on_failed = self.fail
        storage.on_store_replaced = service.on_store_replaced
        storage.on_snapshot_made = self._on_snapshot_made
        storage.on_snapshot_installed = self._on_snapshot_installed
        journal.on_saved = self.on_saved
        journal.on_space = self.on_space
        journal.on_failed = self.fail

    def start(self) -> None:
        """Begin to tick."""
        self._journal.start()
        self._next_tick_at = self._loop.time() + self._tick_seconds
        self._tick_handle = self._loop.call_at(self._next_tick_at, self._on_tick)
        self.schedule_pump()

    def stop(self) -> None:
        """No more ticks and pumps."""
        self._dead = True
        if self._tick_handle is not None:
            self._tick_handle.cancel()

    # Events. Each only takes in what happened; the pump at the end of the turn acts on all of it.

    def schedule_pump(self) -> None:
        """Pump once at the end of this turn of the loop."""
        if not self._scheduled and not self._dead:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def on_messages(self, messages: Sequence[Any]) -> None:
        """Everything that one read of a peer's socket brought."""
        if self._dead:
            return
        try:
            core: list[Message] = []
            for message in messages:
                if type(message) is Forward:
                    self._service.on_forward(message.request_id, message.source, message.payload)
                elif type(message) is ForwardAnswer:
                    self._service.on_forward_answer(message.request_id, message.payload)
                else:
                    core.append(message)
            if core:
                if self._journal.pending_bytes > self._journal_bytes_max:
                    # The disk is full or stalled: what cannot be saved is not taken, and the leader sends it again.
                    core = [message for message in core if type(message) is not AppendEntries]
                self._replica.receive(core)
        except BaseException as error:
            self.fail(error)
            return
        self.schedule_pump()

    def on_peer_connected(self, node_id: NodeId) -> None:
        """A link came up: nothing to do, heartbeats and probes find out by themselves."""

    def on_peer_reset(self, node_id: NodeId) -> None:
        """An established connection from that peer broke: its process may be gone."""
        self._raft.on_peer_reset(node_id)
        self._service.on_peer_reset(node_id)
        self.schedule_pump()

    def on_peer_unreachable(self, node_id: NodeId) -> None:
        """Messages to that peer were dropped."""
        self._raft.on_peer_unreachable(node_id)
        self.schedule_pump()

    def on_saved(self, ticket: int) -> None:
        """The journal is durable up to this save."""
        if self._dead:
            return
        try:
            self._replica.on_journal_saved(ticket)
        except BaseException as error:
            self.fail(error)
            return
        self.schedule_pump()

    def _on_snapshot_made(self, reader: SnapshotReader | None) -> None:
        if reader is None:
            self.leadership.on_snapshot_failed()
        self._replica.on_snapshot_made(reader)
        self.schedule_pump()

    def _on_snapshot_installed(self, meta: SnapshotMeta, ok: bool) -> None:
        self._replica.on_snapshot_installed(meta, ok=ok)
        self.schedule_pump()

    def on_space(self, error: NoSpace | None) -> None:
        """A save found the disk full and waits, or went through at last."""
        self._waiting_for_space = error
        self._watch_space()

    def fail(self, error: BaseException) -> None:
        """The end: nothing is voted or acknowledged after this."""
        if self._dead:
            return
        self._dead = True
        # The doors are open until the process is gone: what is in memory may be wrong, and nobody is to read it.
        self._storage.refusal = error if isinstance(error, RaftKVError) else Internal("this member stops: see its log")
        log.critical(
            "fatal, this member stops: %s", error, exc_info=error if not isinstance(error, RaftKVError) else None
        )
        if not self.failed.done():
            self.failed.set_result(error)

    def errors(self) -> list[str]:
        """For the status: what ends this member, and whose store differs."""
        fatal = self._storage.refusal if self._dead else None
        return [f"{fatal.code}: {fatal.message}" for fatal in (fatal,) if fatal is not None] + self.agreement.errors()

    def _on_unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback outside the pump raised: the loop would only log it, but a broken invariant is the end wherever it breaks."""
        error = fatal_error_of(context)
        if error is not None:
            self.fail(error)
        else:
            loop.default_exception_handler(context)

    # The turn.

    def _pump(self) -> None:
        self._scheduled = False
        if self._dead:
            return
        try:
            now_ms = monotonic_ms()
            self._service.flush(now_ms)
            self._replica.pump()
            if self._service.wants_flush:
                # What the pump applied has made room for the next entry or the next round.
                self._service.flush(now_ms)
                self._replica.pump()
        except BaseException as error:
            self.fail(error)
            return
        if self._replica.has_backlog or self._service.has_backlog:
            self.schedule_pump()
        if self._storage.wants_commit:
            self._storage.commit_if_due(self._journal.durable_index)

    def _on_tick(self) -> None:
        now = self._loop.time()
        late = now - self._next_tick_at
        if late > self._counters.loop_stall_seconds_max:
            self._counters.loop_stall_seconds_max = late
        if late > 2 * self._tick_seconds:
            # After a stall the sockets are read before time moves on: the heartbeats of the meantime may lie there.
            self._next_tick_at = now
            self._loop.call_soon(self._loop.call_soon, self._tick)
            return
        self._tick()

    def _tick(self) -> None:
        if self._dead:
            return
        self._next_tick_at += self._tick_seconds
        self._tick_handle = self._loop.call_at(self._next_tick_at, self._on_tick)
        self._ticks += 1
        try:
            if self._ticks % HOUSEKEEPING_TICKS == 0:
                # Before the core's tick: a leader whose heartbeats fall on this very tick would have effects each time, and
                # the log is not compacted while there are any.
                self._housekeeping()
            self._replica.compare_digests()
            self._raft.tick()
            self.leadership.tick()
            self._service.tick(monotonic_ms())
        except BaseException as error:
            self.fail(error)
            return
        # A tick may leave the service with a write of its own, and a single member has no peers whose messages would pump.
        if (
            self._raft.has_effects
            or self._replica.has_backlog
            or self._service.has_backlog
            or not self._service.is_idle
        ):
            self.schedule_pump()

    def _housekeeping(self) -> None:
        self._storage.commit_if_due(self._journal.durable_index)
        self._replica.compact_log()
        self._replica.release_snapshot()
        self._watch_space()
        self._watch_quota()
        self.leadership.watch_priorities(
            is_well=self._service.write_block is None and not self.leadership.stalled_seconds
        )
        self.agreement.look()
        self.on_housekeeping()

    def _watch_space(self) -> None:
        """Refuse new writes before the log is in trouble: elections and the hand-over must still fit."""
        error = self._waiting_for_space or self._storage.full
        if error is None and not self._journal.has_space:
            error = NoSpace("the disk has no room for the next segment of the log")
        was_full, self._service.write_block = self._service.write_block, error
        if error is None and was_full is not None:
            log.warning("the disk has room again: taking writes")
        elif error is not None and was_full is None:
            log.error("writes are refused, reads go on: %s", error.message)
        self.leadership.watch_disk(
            self._journal.look_at_oldest_save(), self._fsync_stall_seconds_max, is_full=error is not None
        )

    def _watch_quota(self) -> None:
        """The alarm is the cluster's: every member writes it down, so that whoever looks at one of them finds it."""
        full = self._storage.full_members
        if full == self._over_quota:
            return
        self._over_quota = full
        if full:
            names = [str(row["name"]) for row in self._storage.members() if row["id"] in full]
            log.error(
                "the store is over its quota on %s: puts and grants are refused everywhere, reads and deletes go on; delete keys, compact, or raise quota_bytes",
                ", ".join(names) or full,
            )
        else:
            log.warning("the store is within its quota again: taking writes")

    # Leadership.

    async def hand_over_and_drain(self, deadline: float) -> None:
        """For a shutdown: give the office away, answer what is in flight. Loop time `deadline`."""
        await self.leadership.hand_over_and_drain(deadline)

    def _on_leader_change(self, change: RoleChange) -> None:
        leader = self._service.leader_hint()
        self._counters.leader_changes += 1 if change.leader != NOBODY else 0
        log.info(
            "now %s in term %d, leader %s",
            change.role,
            change.term,
            leader["name"] or leader["id"] if leader else "unknown",
        )
        self.leadership.on_leader_change(change)


__all__ = ["PeerNetwork", "ReplicaLoop", "monotonic_ms"]
