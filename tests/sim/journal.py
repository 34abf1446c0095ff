"""The twin of daemon/journal.py: the real Wal, its syncs taking virtual time. Saves that gather meanwhile are synced together.

What is being synced reaches the disk when the sync ends; a power loss in the middle lets the write stop at any operation of the
disk (machine.py), and what was not synced by then survives in any part.
"""

from typing import TYPE_CHECKING, Sequence

from raftkv.errors import DiskFailure, NoSpace
from raftkv.raft.messages import Entry, HardState, SnapshotMeta
from raftkv.units import Index, Term
from raftkv.wal.wal import Wal

if TYPE_CHECKING:
    from .process import Process

RETRY_FULL_DISK_US = 500_000


class Save:
    """One save in the queue."""

    __slots__ = ("entries", "hard_state", "since_us", "size_bytes", "snapshot", "ticket")

    def __init__(
        self,
        ticket: int,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        snapshot: SnapshotMeta | None,
        since_us: int,
    ) -> None:
        self.ticket = ticket
        self.hard_state = hard_state
        self.entries = entries
        self.snapshot = snapshot
        self.since_us = since_us
        self.size_bytes = sum(len(entry.data) for entry in entries)


class SimJournal:
    """Implements replica.ports.Journal."""

    def __init__(self, process: "Process", wal: Wal, durable_index: Index) -> None:
        self.wal = wal
        self.durable_index = durable_index
        self.pending_bytes = 0
        self._process = process
        self._world = process.world
        self._machine = process.machine
        self._random = self._world.stream(f"journal {self._machine.node_id}")
        self._queue: list[Save | tuple[Index, Term]] = []
        self._batch: list[Save | tuple[Index, Term]] = []  # at the disk
        self._unsaved: list[Save] = []
        self._unreported: list[Save] = []  # written, waiting for a sync that succeeds
        self._busy = False
        self._disk_full = False
        self._next_ticket = 1

    def save(self, hard_state: HardState | None, entries: Sequence[Entry], snapshot: SnapshotMeta | None) -> int:
        save = Save(self._next_ticket, hard_state, entries, snapshot, self._world.now_us)
        self._next_ticket += 1
        self._world.checks.on_save(self._machine.books, save, self._process.state)
        self._queue.append(save)
        self._unsaved.append(save)
        self.pending_bytes += save.size_bytes
        self.kick()
        return save.ticket

    def compact(self, index: Index, term: Term) -> None:
        self._queue.append((index, term))
        self.kick()

    @property
    def oldest_save_us(self) -> int:
        """How long the oldest save has been waiting for the disk."""
        return self._world.now_us - self._unsaved[0].since_us if self._unsaved else 0

    @property
    def has_space(self) -> bool:
        return self.wal.has_space

    @property
    def is_idle(self) -> bool:
        return not (self._busy or self._queue or self._unreported)

    def kick(self) -> None:
        """Begin to sync what waits, unless the disk is busy."""
        if self._busy or not self._queue:
            return
        self._busy = True
        self._batch, self._queue = self._queue, []
        self._world.after(self._sync_us(), self._machine.input, (self._process, self._finish))

    def _sync_us(self) -> int:
        low, high = self._world.knobs.sync_us
        return self._machine.extra_sync_us + low + int(self._random.random() * (high - low + 1))

    def write_batch(self) -> None:
        """The disk's part of what is under way. Raises NoSpace, DiskFailure."""
        batch, self._batch = self._batch, []
        saves = [item for item in batch if isinstance(item, Save)]
        for save in saves:
            self.wal.write(save.hard_state, save.entries, save.snapshot)
        self._unreported += saves
        if self._unreported:
            self._sync()
        marks = [item for item in batch if not isinstance(item, Save)]
        if marks:
            self._compact(marks[-1])  # it covers those before it

    def _sync(self) -> None:
        try:
            self.wal.sync()
        except NoSpace as error:
            if not self._disk_full:
                self._disk_full = True
                self._process.on_space(error)
            return
        saved, self._unreported = self._unreported, []
        self._world.checks.on_durable(self._machine.books, saved)
        if self._disk_full:
            self._disk_full = False
            self._process.on_space(None)

    def _compact(self, mark: tuple[Index, Term]) -> None:
        try:
            self.wal.compact(*mark)
        except NoSpace:
            pass  # the next compaction tries again
        self._world.checks.on_compacted(self._machine.books, self.wal.log_start_index)

    def _finish(self) -> None:
        try:
            self.write_batch()
        except DiskFailure as error:
            self._process.fail(error)
            return
        self._busy = False
        self._report()
        if self._disk_full:
            self._busy = True
            self._batch, self._queue = self._queue, []
            self._world.after(RETRY_FULL_DISK_US, self._machine.input, (self._process, self._finish))
        else:
            self.kick()

    def _report(self) -> None:
        unsaved = self._unsaved
        ticket = 0
        first_unreported = self._unreported[0].ticket if self._unreported else self._first_waiting()
        while unsaved and unsaved[0].ticket < first_unreported:
            save = unsaved.pop(0)
            ticket = save.ticket
            self.pending_bytes -= save.size_bytes
            if save.entries:
                self.durable_index = save.entries[-1].index
            elif save.snapshot is not None:
                self.durable_index = save.snapshot.index
        if ticket:
            self._process.on_saved(ticket)

    def _first_waiting(self) -> int:
        """The first ticket that the disk has not been given."""
        return next((item.ticket for item in self._queue if isinstance(item, Save)), self._next_ticket)
