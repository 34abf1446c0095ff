"""The journal port on the WAL: one thread writes and syncs, so that no heartbeat ever waits for a disk.

Saves that queue up while the disk works are written and synced together: the group commit. A failed fsync ends the
process (the page cache can no longer be believed); a full disk keeps the saves and tries again, while the leader
refuses new writes.
"""

import asyncio
import queue
import threading
import time
from collections import deque
from typing import Callable, Sequence

from raftkv.errors import NoSpace
from raftkv.raft.messages import Entry, HardState, SnapshotMeta
from raftkv.units import Index, Term
from raftkv.wal.wal import Wal

RETRY_FULL_DISK_SECONDS = 0.5


class Save:
    """One save in the queue."""

    __slots__ = ("entries", "hard_state", "size_bytes", "snapshot", "ticket")

    def __init__(
        self, ticket: int, hard_state: HardState | None, entries: Sequence[Entry], snapshot: SnapshotMeta | None
    ) -> None:
        self.ticket = ticket
        self.hard_state = hard_state
        self.entries = entries
        self.snapshot = snapshot
        self.size_bytes = sum(len(entry.data) for entry in entries)


class Compaction:
    """Entries up to `index` may go; queued like a save, so that it happens in order."""

    __slots__ = ("index", "term")

    def __init__(self, index: Index, term: Term) -> None:
        self.index = index
        self.term = term


class JournalThread:
    """Implements replica.ports.Journal. `save` and `compact` are called in the loop and return at once."""

    def __init__(
        self,
        wal: Wal,
        loop: asyncio.AbstractEventLoop,
        *,
        durable_index: Index,
        observe_sync_seconds: Callable[[float], None],
    ) -> None:
        self._wal = wal
        self._loop = loop
        # Where the thread reports to; set by the owner before `start`, called in the loop.
        self.on_saved: Callable[[int], None] = _unset
        self.on_space: Callable[[NoSpace | None], None] = _unset  # an error: full, saves wait; None: it has room again
        self.on_failed: Callable[[BaseException], None] = _unset
        self._observe_sync_seconds = observe_sync_seconds
        self._queue: queue.SimpleQueue[Save | Compaction | None] = queue.SimpleQueue()
        self._next_ticket = 1
        self._written_ticket = 0  # this and the two below belong to the thread
        self._synced_ticket = 0
        self._disk_full = False
        self._unsaved: deque[tuple[Save, float]] = deque()  # queued or being saved, and since when (monotonic, s)
        self.pending_bytes = 0  # of entries that are not durable yet
        self.durable_index = durable_index
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        assert self.on_saved is not _unset and self.on_failed is not _unset, "somebody listens"
        self._thread.start()

    def save(self, hard_state: HardState | None, entries: Sequence[Entry], snapshot: SnapshotMeta | None) -> int:
        """Queue one save; `on_saved(ticket)` follows, in order, once it is durable."""
        ticket = self._next_ticket
        self._next_ticket += 1
        save = Save(ticket, hard_state, entries, snapshot)
        self._unsaved.append((save, time.monotonic()))
        self.pending_bytes += save.size_bytes
        self._queue.put(save)
        return ticket

    def compact(self, index: Index, term: Term) -> None:
        """Queue the removal of what is no longer needed."""
        self._queue.put(Compaction(index, term))

    @property
    def oldest_save_seconds(self) -> float:
        """How long the oldest save has been waiting for the disk: large means that the disk is stalled."""
        return time.monotonic() - self._unsaved[0][1] if self._unsaved else 0.0

    @property
    def has_space(self) -> bool:
        """False while the disk has no room for the log's next segment."""
        return self._wal.has_space

    async def stop(self) -> None:
        """Finish the queue, close the log, end the thread."""
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    # In the loop.

    def _on_saved(self, ticket: int) -> None:
        unsaved = self._unsaved
        while unsaved and unsaved[0][0].ticket <= ticket:
            save, _ = unsaved.popleft()
            self.pending_bytes -= save.size_bytes
            if save.entries:
                self.durable_index = save.entries[-1].index
            elif save.snapshot is not None:
                self.durable_index = save.snapshot.index
        assert self.pending_bytes >= 0, "a save is counted once"
        self.on_saved(ticket)

    # In the thread.

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._report(self.on_failed, error)

    def _work(self) -> None:
        stopping = False
        while not stopping:
            saves, compaction, stopping = self._take_batch()
            for save in saves:
                self._wal.write(save.hard_state, save.entries, save.snapshot)
                self._written_ticket = save.ticket
            if self._written_ticket > self._synced_ticket and self._sync():
                self._synced_ticket = self._written_ticket
                self._report(self._on_saved, self._synced_ticket)
            if compaction is not None:
                self._compact(compaction)
        self._wal.close()

    def _take_batch(self) -> tuple[list[Save], Compaction | None, bool]:
        """Wait for something, take all there is. With saves waiting for a full disk, wait only until the next try."""
        saves: list[Save] = []
        compaction: Compaction | None = None
        stopping = False
        try:
            item = self._queue.get(timeout=RETRY_FULL_DISK_SECONDS if self._disk_full else None)
            while True:
                if item is None:
                    stopping = True
                elif isinstance(item, Save):
                    saves.append(item)
                else:
                    compaction = item  # the last one covers those before it
                item = self._queue.get_nowait()
        except queue.Empty:
            return saves, compaction, stopping

    def _sync(self) -> bool:
        """False when the disk is full: the WAL keeps what it was given, the next turn tries again."""
        started = time.perf_counter()
        try:
            self._wal.sync()
        except NoSpace as error:
            if not self._disk_full:
                self._disk_full = True
                self._report(self.on_space, error)
            return False
        self._observe_sync_seconds(time.perf_counter() - started)
        if self._disk_full:
            self._disk_full = False
            self._report(self.on_space, None)
        return True

    def _compact(self, compaction: Compaction) -> None:
        try:
            self._wal.compact(compaction.index, compaction.term)
        except NoSpace as error:
            self._report(self.on_space, error)  # nothing is lost: the next compaction tries again

    def _report(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told


def _unset(report: object) -> None:
    raise AssertionError("the journal reports before its owner listens")
