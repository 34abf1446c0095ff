"""One member's replica: carries out what the consensus core wants, in the order that makes it safe.

Send, save, send what waited for the save, apply, answer (see raft/effects.py). Everything slow is behind a port and reports
back, so this file runs alike under the daemon's loop and under the simulator. It does not know who asked for anything:
that is service.py.
"""

from collections import deque
from functools import partial
from typing import Protocol, Sequence

from raftkv.limits import Limits
from raftkv.raft.effects import Effects, ReadReady, RoleChange, SendSnapshotChunk
from raftkv.raft.messages import Entry, InstallSnapshot, Message, SnapshotMeta
from raftkv.raft.node import Raft
from raftkv.replica.digests import Digests
from raftkv.replica.ports import Journal, Network, SnapshotReader, StateMachine
from raftkv.wire.commands import Answer


class ReplicaListener(Protocol):
    """Who is told what came of it (service.py)."""

    def on_applied(self, entry: Entry, answers: Sequence[Sequence[Answer]]) -> None: ...

    def on_reads_ready(self, ready: Sequence[ReadReady]) -> None: ...

    def on_reads_failed(self, contexts: Sequence[int]) -> None: ...

    def on_role_change(self, change: RoleChange) -> None: ...


class Replica:
    """Drives a Raft core with a journal, a network and a state machine. One owner; nothing here blocks.

    After any input (`receive`, `tick`, `on_*`, or a call on `raft`) the owner calls `pump` once, at the end of its batch.
    """

    __slots__ = (
        "_apply_budget_bytes",
        "_backlog",
        "_compacted_index",
        "_installing",
        "_journal",
        "_limits",
        "_listener",
        "_making_snapshot",
        "_network",
        "_snapshot",
        "_unsaved",
        "digests",
        "raft",
        "snapshot_bytes_received",
        "snapshot_bytes_sent",
        "state_machine",
    )

    def __init__(
        self,
        *,
        raft: Raft,
        journal: Journal,
        network: Network,
        state_machine: StateMachine,
        limits: Limits,
        listener: ReplicaListener,
        apply_budget_bytes: int = 64 * 1024,
    ) -> None:
        self.raft = raft
        self.state_machine = state_machine
        self._journal = journal
        self._network = network
        self._limits = limits
        self._listener = listener
        self._apply_budget_bytes = apply_budget_bytes  # per pump: a follower that catches up must not hold the loop
        self._backlog: deque[Entry] = deque()  # committed, not applied
        self._unsaved: deque[tuple[int, int, list[Message]]] = deque()  # ticket, save id, what waits for it
        self._snapshot: SnapshotReader | None = None  # offered to the core, open while followers may want it
        self._making_snapshot = False
        self._installing: SnapshotMeta | None = None
        self._compacted_index = raft.log_start_index
        self.digests = Digests(limits.digests_kept_max, state_machine.applied_index, state_machine.digest)
        self.snapshot_bytes_sent = 0  # chunks, those sent again included
        self.snapshot_bytes_received = 0

    # Inputs.

    def receive(self, messages: Sequence[Message]) -> None:
        """Messages from peers, in the order of arrival."""
        step = self.raft.step
        for message in messages:
            step(message)

    def on_journal_saved(self, ticket: int) -> None:
        """All saves up to `ticket` are durable: now, and not before, may others hear of them."""
        unsaved = self._unsaved
        waiting: list[Message] = []
        save_ids: list[int] = []
        while unsaved and unsaved[0][0] <= ticket:
            _, save_id, messages = unsaved.popleft()
            waiting += messages
            save_ids.append(save_id)
        if waiting:
            self._network.send(waiting)
        for save_id in save_ids:
            self.raft.on_saved(save_id)

    def on_snapshot_made(self, reader: SnapshotReader | None) -> None:
        """The state machine finished (or failed) the snapshot that was asked for."""
        assert self._making_snapshot, "only one snapshot is made at a time"
        self._making_snapshot = False
        if reader is None:
            self.raft.withdraw_snapshot()  # the core asks again while somebody needs one
            return
        self._close_snapshot()
        self._snapshot = reader
        self.raft.offer_snapshot(reader.meta)

    def on_snapshot_installed(self, meta: SnapshotMeta, *, ok: bool) -> None:
        """The state machine now is the received snapshot, or refused it and is what it was."""
        assert self._installing is not None, "an installation was begun"
        self._installing = None
        if ok:
            assert self.state_machine.applied_index == meta.index, "the snapshot is what it says"
            while self._backlog and self._backlog[0].index <= meta.index:
                self._backlog.popleft()
            self.digests.restart(meta.index, self.state_machine.digest)
            self.raft.report_digest(0, 0)  # a report that has not left is about the old store
        self.raft.on_snapshot_installed(meta, ok)

    # Outputs.

    @property
    def has_backlog(self) -> bool:
        """Committed entries wait although there is room: pump again in the next turn."""
        return bool(self._backlog) and self._installing is None and self.state_machine.has_room

    @property
    def unsaved(self) -> int:
        """Saves that are not durable yet."""
        return len(self._unsaved)

    def pump(self) -> None:
        """Carry out all wishes of the core; answers that this allows are given before it returns."""
        self._carry_out_all()
        if self._backlog:
            self._apply_backlog()
            self._carry_out_all()  # what was applied may lead on: the record of a new member to its configuration

    def compare_digests(self) -> None:
        """Once per tick, before the core's: say what there is to say of the own store. Raises Diverged: then stop at once."""
        raft, digests = self.raft, self.digests
        if raft.is_leader:
            agreed = digests.settle(raft.term, raft.node_id, raft.configuration)
            if agreed is not None:
                raft.announce_digest(*agreed)
        elif raft.wants_digest:
            raft.report_digest(*digests.next_report())
        digests.check()

    def compact_log(self) -> None:
        """Let go of entries that are durable in the state machine and beyond what is kept for slow followers."""
        raft, limits = self.raft, self._limits
        if raft.has_effects:
            return  # a restored log must be saved before it is compacted
        if self._making_snapshot and raft.log_bytes <= limits.log_held_bytes_max:
            return  # the snapshot being made must not end before the log begins
        index = raft.compactable_index(
            retained_entries_max=limits.log_retained_entries_max, retained_bytes_max=limits.log_retained_bytes_max
        )
        index = min(index, self.state_machine.durable_applied_index)
        if index > raft.log_start_index:
            raft.compact(index)
        if raft.log_start_index > self._compacted_index:
            self._compacted_index = raft.log_start_index
            self._journal.compact(raft.log_start_index, raft.log_start_term)

    def release_snapshot(self) -> None:
        """Close the offered snapshot when no follower is being sent it any more."""
        if self._snapshot is not None and not self.raft.snapshot_in_use:
            self.raft.withdraw_snapshot()
            self._close_snapshot()

    # The order of things.

    def _carry_out_all(self) -> None:
        raft = self.raft
        while raft.has_effects:
            self._carry_out(raft.take_effects())

    def _carry_out(self, effects: Effects) -> None:
        if effects.send_now:
            self._network.send(effects.send_now)
        if effects.needs_save():
            self._save(effects)
        if effects.received_chunks:
            self._store_chunks(effects.received_chunks)
        if effects.snapshot_chunks:
            self._send_chunks(effects.snapshot_chunks)
        if effects.need_snapshot and not self._making_snapshot:
            self._making_snapshot = True
            # For a state machine that has applied no configuration yet: the latest of the log may be newer than the snapshot.
            configuration = self.raft.configuration_at(self.state_machine.durable_applied_index)
            self.state_machine.begin_snapshot(configuration)
        if effects.committed:
            self._backlog.extend(effects.committed)
            self._apply_backlog()
        for heard in effects.digests:
            self.digests.hear(heard)
        if effects.reads:
            self._listener.on_reads_ready(effects.reads)
        if effects.reads_failed:
            self._listener.on_reads_failed(effects.reads_failed)
        if effects.role_change is not None:
            # Last: what was committed in this batch is answered before the pending rest is given up.
            self._listener.on_role_change(effects.role_change)

    def _save(self, effects: Effects) -> None:
        assert effects.save_id > 0, "a save has an id"
        nothing_to_write = effects.hard_state is None and not effects.entries and effects.restored is None
        if nothing_to_write and not self._unsaved:
            # Everything said so far is durable already: the messages need not visit the disk's queue.
            if effects.send_after_save:
                self._network.send(effects.send_after_save)
            self.raft.on_saved(effects.save_id)
            return
        ticket = self._journal.save(effects.hard_state, effects.entries, effects.restored)
        self._unsaved.append((ticket, effects.save_id, effects.send_after_save))

    def _apply_backlog(self) -> None:
        if self._installing is not None:
            return  # the state machine is being replaced
        backlog, state_machine, listener = self._backlog, self.state_machine, self._listener
        budget, note_digest = self._apply_budget_bytes, self.digests.note
        while backlog and budget > 0 and state_machine.has_room:
            entry = backlog.popleft()
            assert entry.index == state_machine.applied_index + 1, "entries are applied in order, once (3.5)"
            answers = state_machine.apply(entry)
            note_digest(entry.index, state_machine.digest)
            budget -= len(entry.data) + 64
            listener.on_applied(entry, answers)

    # Snapshots.

    def _send_chunks(self, wanted: Sequence[SendSnapshotChunk]) -> None:
        reader = self._snapshot
        for chunk in wanted:
            if reader is None or reader.meta.snapshot_id != chunk.snapshot.snapshot_id:
                continue  # withdrawn in the meantime; the core asks for a new one
            reader.fetch(chunk.offset, chunk.size_max, partial(self._send_chunk, chunk))

    def _send_chunk(self, chunk: SendSnapshotChunk, data: bytes) -> None:
        done = chunk.offset + len(data) >= chunk.snapshot.size_bytes
        self.snapshot_bytes_sent += len(data)
        self._network.send(
            [InstallSnapshot(chunk.term, self.raft.node_id, chunk.target, chunk.snapshot, chunk.offset, data, done)]
        )

    def _store_chunks(self, chunks: Sequence[InstallSnapshot]) -> None:
        for message in chunks:
            if self._installing is not None:
                continue  # duplicates of what is being installed
            meta = message.snapshot
            self.snapshot_bytes_received += len(message.data)
            next_offset = self.state_machine.receive_chunk(meta, message.offset, message.data)
            assert 0 <= next_offset <= meta.size_bytes, "no more than the whole was received"
            self.raft.on_chunk_stored(message, next_offset)
            if next_offset == meta.size_bytes:
                self._installing = meta
                self.state_machine.begin_install(meta)

    def _close_snapshot(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None
