"""The journal port on the WAL: syncs in the loop while the disk is quick, in a thread as soon as it is not.

Handing a save to a thread and back costs two wake-ups, a sixth of all that a cluster of three does for a write; waiting in the
loop for a disk that takes its time costs heartbeats. So a disk has to earn the loop by a row of quick syncs and loses it by one
slow sync (docs/decisions/0003); each sync that held the loop for a heartbeat doubles the row. The idle thread watches the loop:
one that is held says so, though it can do nothing else. Saves that gather meanwhile are synced together: the group commit. A
failed fsync ends the process (the page cache can no longer be believed); a full disk keeps the saves and tries again in the thread.
"""

import asyncio
import enum
import logging
import queue
import threading
import time
from collections import deque
from typing import Callable, Sequence

from raftkv.errors import NoSpace
from raftkv.raft.messages import Entry, HardState, SnapshotMeta
from raftkv.units import Index, Term
from raftkv.wal.wal import Wal

log = logging.getLogger("raftkv.journal")

RETRY_FULL_DISK_SECONDS = 0.5
WATCH_SECONDS = 0.5  # how often the idle thread looks whether the loop is held by a sync
QUICK_SYNC_SECONDS = 0.002  # a sync that the loop may wait for
SLOW_SYNC_SECONDS = 0.010  # as long as anything may hold the loop: one such sync and the thread has it again
STALLED_SYNC_SECONDS = 0.100  # a heartbeat was late for it: such a disk has to be quick for longer
QUICK_SYNCS_MIN = 128  # in a row, before the loop takes over
QUICK_SYNCS_MAX = 16_384  # what the row grows to by stalls


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


class _Note(enum.Enum):
    """What the thread is told besides work."""

    STOP = enum.auto()
    SYNC = enum.auto()  # what was written in the loop still has to be synced


class Onlooker:
    """How long something has lasted, by looks twice a second at most: of the time between two looks no more counts than that.

    Who was stopped in the meantime (SIGSTOP, a frozen machine) finds that everything has lasted for long, and must not blame the disk.
    """

    __slots__ = ("_looked_at", "_seen", "_since")

    def __init__(self) -> None:
        self._since = self._seen = self._looked_at = 0.0

    def look(self, since: float, now: float) -> float:
        """Seconds that were seen of what began at `since`; both monotonic, 0: nothing is under way."""
        if since != self._since:
            self._since, self._seen, self._looked_at = since, 0.0, since
        if not since:
            return 0.0
        self._seen += min(now - self._looked_at, 2 * WATCH_SECONDS)
        self._looked_at = now
        return self._seen


class WalJournal:
    """Implements replica.ports.Journal. `save` and `compact` are called in the loop."""

    def __init__(
        self,
        wal: Wal,
        loop: asyncio.AbstractEventLoop,
        *,
        durable_index: Index,
        observe_sync_seconds: Callable[[float], None],
        stall_seconds_max: float = 2.0,
    ) -> None:
        self._wal = wal
        self._loop = loop
        # Where the thread reports to; set by the owner before `start`, called in the loop.
        self.on_saved: Callable[[int], None] = _unset
        self.on_space: Callable[[NoSpace | None], None] = _unset  # an error: full, saves wait; None: it has room again
        self.on_failed: Callable[[BaseException], None] = _unset
        self._observe_sync_seconds = observe_sync_seconds
        self._queue: queue.SimpleQueue[Save | Compaction | _Note] = queue.SimpleQueue()
        self._in_thread = (
            0  # items that the thread was given and has not reported; while there are any, the WAL is its own
        )
        self._in_loop: list[Save] = []  # saves that the loop will sync at the end of this turn
        self._next_ticket = 1
        self.written_bytes = 0  # since the start
        self._written_ticket = 0  # these four belong to whoever has the WAL
        self._synced_ticket = 0
        self._disk_full = False
        self._quick_syncs = 0  # in a row
        self._quick_syncs_needed = QUICK_SYNCS_MIN
        self._stall_seconds_max = stall_seconds_max  # a sync that holds the loop for longer is reported
        self._loop_held_since = 0.0  # when the sync began that the loop waits for (monotonic, s); 0: it does not
        self._said_held_since = 0.0
        self._thread_looks, self._loop_looks = Onlooker(), Onlooker()
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
        if self._in_thread or self._quick_syncs < self._quick_syncs_needed:
            self._hand_to_thread(save)
        else:
            if not self._in_loop:
                self._loop.call_soon(self._sync_in_loop)
            self._in_loop.append(save)
        return ticket

    def compact(self, index: Index, term: Term) -> None:
        """Queue the removal of what is no longer needed."""
        self._sync_in_loop()  # in order
        self._hand_to_thread(Compaction(index, term))

    def look_at_oldest_save(self) -> float:
        """Seconds that the oldest save was seen to wait for the disk: many mean that the disk is stalled. For one who looks every half second."""
        return self._loop_looks.look(self._unsaved[0][1] if self._unsaved else 0.0, time.monotonic())

    @property
    def has_space(self) -> bool:
        """False while the disk has no room for the log's next segment."""
        return self._wal.has_space

    async def stop(self) -> None:
        """Finish the queue, close the log, end the thread."""
        self._sync_in_loop()
        self._hand_to_thread(_Note.STOP)
        await self._loop.run_in_executor(None, self._thread.join)

    # In the loop.

    def _hand_to_thread(self, item: "Save | Compaction | _Note") -> None:
        assert not self._in_loop, "saves become durable in order"
        self._in_thread += 1
        self._queue.put(item)

    def _sync_in_loop(self) -> None:
        saves, self._in_loop = self._in_loop, []
        if not saves:
            return
        assert not self._in_thread, "the WAL has one user at a time"
        self._loop_held_since = time.monotonic()
        try:
            self._write(saves)
            if self._sync():
                self._synced_ticket = self._written_ticket
                self._on_saved(self._synced_ticket)
            else:
                self._hand_to_thread(_Note.SYNC)  # the disk is full: it waits for room there
        except BaseException as error:
            self.on_failed(error)
        finally:
            self._loop_held_since = 0.0

    def _on_thread_done(self, items: int, ticket: int) -> None:
        """The thread has nothing of `items` left; `ticket` 0: there was no save among them."""
        self._in_thread -= items
        assert self._in_thread >= 0, "an item is reported once"
        if ticket:
            self._on_saved(ticket)

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
        unreported = 0
        stopping = False
        while not stopping:
            items = self._take_batch()
            unreported += len(items)
            stopping = _Note.STOP in items
            self._write([item for item in items if isinstance(item, Save)])
            ticket = 0
            if self._written_ticket > self._synced_ticket:
                if self._sync():
                    ticket = self._synced_ticket = self._written_ticket
                elif not stopping:
                    self._compact(items)  # it may make the room
                    continue
            self._compact(items)
            self._report(self._on_thread_done, unreported, ticket)
            unreported = 0
        self._wal.close()

    def _take_batch(self) -> "list[Save | Compaction | _Note]":
        """Wait for something, take all there is. With saves waiting for a full disk, wait only until the next try."""
        items: list[Save | Compaction | _Note] = []
        while not items:
            try:
                items.append(self._queue.get(timeout=RETRY_FULL_DISK_SECONDS if self._disk_full else WATCH_SECONDS))
                while True:
                    items.append(self._queue.get_nowait())
            except queue.Empty:
                if self._disk_full:
                    break
                self._watch_loop()
        return items

    def _watch_loop(self) -> None:
        """Nobody else can say that the loop is held: it waits for the disk, and the others will elect."""
        since = self._loop_held_since
        seconds = self._thread_looks.look(since, time.monotonic())
        if since and since != self._said_held_since and seconds > self._stall_seconds_max:
            self._said_held_since = since
            log.error(
                "an fsync of the log has not returned for %.1f s (limit %.1f s) and holds this member: another one will lead",
                seconds,
                self._stall_seconds_max,
            )

    # Wherever the WAL is.

    def _write(self, saves: Sequence[Save]) -> None:
        for save in saves:
            self._wal.write(save.hard_state, save.entries, save.snapshot)
            self._written_ticket = save.ticket

    def _sync(self) -> bool:
        """False when the disk is full: the WAL keeps what it was given, the next turn tries again."""
        started = time.perf_counter()
        try:
            self.written_bytes += self._wal.sync()
        except NoSpace as error:
            if not self._disk_full:
                self._disk_full = True
                self._report(self.on_space, error)
            return False
        seconds = time.perf_counter() - started
        self._observe_sync_seconds(seconds)
        if seconds <= QUICK_SYNC_SECONDS:
            self._quick_syncs += 1
        elif seconds >= SLOW_SYNC_SECONDS:
            self._quick_syncs = 0
            if seconds >= STALLED_SYNC_SECONDS and self._loop_held_since:
                self._quick_syncs_needed = min(2 * self._quick_syncs_needed, QUICK_SYNCS_MAX)
                log.warning("an fsync of the log held this member for %.1f s: a thread waits for the disk now", seconds)
        if self._disk_full:
            self._disk_full = False
            self._report(self.on_space, None)
        return True

    def _compact(self, items: "Sequence[Save | Compaction | _Note]") -> None:
        compactions = [item for item in items if isinstance(item, Compaction)]
        if not compactions:
            return
        last = compactions[-1]  # it covers those before it
        try:
            self._wal.compact(last.index, last.term)
        except NoSpace:
            pass  # nothing is lost: the next compaction tries again, and `has_space` tells the owner

    def _report(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told


def _unset(report: object) -> None:
    raise AssertionError("the journal reports before its owner listens")
