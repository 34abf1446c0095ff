"""The state machine port on the LMDB store: who commits when, and how snapshots are made and taken in.

Apply and reads happen in the loop, on the store itself. What touches the disk for long runs elsewhere: commits in one thread of
their own (LMDB's write transactions are bound to it), copies and installations of snapshots in another. LMDB never commits an
index before the log is durable up to it.
"""

import asyncio
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Awaitable, Callable, Sequence
from weakref import WeakSet

from raftkv.daemon.datadir import TEMPORARY_SUFFIX
from raftkv.daemon.snapshots import IncomingSnapshot, ThreadedReader
from raftkv.daemon.timings import Timings
from raftkv.errors import Corruption, NoSpace, Overloaded, RaftKVError
from raftkv.limits import Limits
from raftkv.raft.membership import decode_configuration
from raftkv.raft.messages import Configuration, Entry, SnapshotMeta
from raftkv.replica.ports import ReadCursor
from raftkv.store.access import Access
from raftkv.store.leases import Leases
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.store.ranges import RangeCursor
from raftkv.store.snapshot import SnapshotFile, SnapshotFileReader, install, write
from raftkv.store.store import CommitJob, Store
from raftkv.store.watches import WatchHub
from raftkv.units import Index
from raftkv.wire.commands import Answer

log = logging.getLogger("raftkv.storage")

COMPACTION_PAUSE_SECONDS = 0.008  # between steps of a millisecond or two
COMPACTION_COMMIT_SECONDS = 0.1  # at least, between commits that only compaction wants
COMMIT_RETRY_SECONDS = 1.0  # after a full disk


class Storage:
    """Implements replica.ports.StateMachine. One owner: the loop."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        store_file: Path,
        snapshots_path: Path,
        limits: Limits,
        timings: Timings,
    ) -> None:
        self._loop = loop
        self._store_path = store_file
        self._snapshots_path = snapshots_path
        self._limits = limits
        self.timings = timings
        self.commit_thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self.snapshot_thread = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self.chunk_thread = ThreadPoolExecutor(1, thread_name_prefix="chunks")
        self._committing: asyncio.Future[None] | None = None
        self._next_commit_at = self._next_compaction_commit_at = 0.0
        self._compaction_handle: asyncio.TimerHandle | None = None
        self._replacing = False
        self.refusal: RaftKVError | None = None  # of all reads
        self._cursors: WeakSet[RangeCursor] = WeakSet()  # ranges that are half answered
        self.hold_index: Index | None = None  # a copy of the store goes on from there (defrag.py)
        self.commits_paused = False  # the same, near its end
        self.before_install: Callable[[], Awaitable[None]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.full: NoSpace | None = None  # the store's own disk
        self.on_progress: Callable[[], None] = lambda: None
        self.on_store_replaced: Callable[[], None] = lambda: None
        self.on_failed: Callable[[BaseException], None] = lambda error: None
        self.on_snapshot_made: Callable[[ThreadedReader | None], None] = lambda reader: None
        self.on_snapshot_installed: Callable[[SnapshotMeta, bool], None] = lambda meta, ok: None
        self.snapshots_made = self.snapshots_installed = self.snapshots_damaged = 0
        self._watches = WatchHub(limits)
        self.store = self._open()
        self._go_on_compacting()
        self._incoming = IncomingSnapshot(snapshots_path, self.store.applied_index, thread=self.snapshot_thread)

    def _open(self) -> Store:
        store = Store.open(LmdbKeyspace(str(self._store_path), self._limits.map_bytes), self._limits)
        store.tell(self._watches)
        return store

    # replica.ports.StateMachine.

    @property
    def applied_index(self) -> Index:
        """The last entry applied."""
        return self.store.applied_index

    @property
    def durable_applied_index(self) -> Index:
        """The last entry that LMDB has on disk, in the store and in the copy that is to take its place."""
        durable_index = self.store.durable_applied_index
        return durable_index if self.hold_index is None else min(durable_index, self.hold_index)

    @property
    def clock_ms(self) -> int:
        """Replicated time."""
        return self.store.clock_ms

    @property
    def revision(self) -> int:
        """The store's revision."""
        return self.store.revision

    @property
    def digest(self) -> int:
        """The running digest at `applied_index`."""
        return self.store.digest

    @property
    def leases(self) -> Leases:
        """The replicated leases."""
        return self.store.leases

    @property
    def access(self) -> Access:
        """Who may do what."""
        return self.store.access

    @property
    def compact_revision(self) -> int:
        """History below it is gone."""
        return self.store.compact_revision

    @property
    def watches(self) -> WatchHub:
        """Who wants to hear of events."""
        return self._watches

    @property
    def has_room(self) -> bool:
        """False while the overlay is over its bound, or the store is being replaced."""
        return self.store.has_room and not self._replacing

    def apply(self, entry: Entry) -> list[list[Answer]]:
        """Apply the next entry."""
        return self.timings.apply.call(self.store.apply, entry)

    def read(self, command: Sequence[Any]) -> Answer:
        """Answer one read at the applied state. Raises RaftKVError."""
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)  # one object for many: it must not collect where it was raised
        return self.store.read(command)

    def range_cursor(self, command: Sequence[Any]) -> ReadCursor:
        """Begin a range at the applied state. Raises RaftKVError."""
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)  # one object for many: it must not collect where it was raised
        cursor = self.store.range_cursor(command)
        self._cursors.add(cursor)
        return cursor

    # replica.upkeep.Directory.

    @property
    def cluster_id(self) -> int:
        """0 until the cluster's first entry is applied here."""
        return self.store.cluster_id

    @property
    def earliest_deadline_ms(self) -> int | None:
        """When the next session is due, in replicated time."""
        return self.store.earliest_deadline_ms

    @property
    def pool_deadline_ms(self) -> int | None:
        """When time matters to a pool next, in replicated time."""
        return self.store.pool_deadline_ms

    def members(self) -> Sequence[dict[str, Any]]:
        """The replicated member table."""
        return self.store.members()

    @property
    def db_size_in_use_bytes(self) -> int:
        """Pages of the store that hold something."""
        return self.store.db_size_in_use_bytes

    @property
    def full_members(self) -> frozenset[int]:
        """Members whose store is over its quota."""
        return self.store.full_members

    def removed_members(self) -> list[int]:
        """Ids of those that were members once."""
        return self.store.removed_members()

    # Commits.

    @property
    def wants_commit(self) -> bool:
        """Cheap: whether there is reason for a commit ahead of its time."""
        store = self.store
        return self._committing is None and (
            store.overlay_bytes >= self._limits.commit_bytes or store.compaction.wants_commit
        )

    def commit_if_due(self, journal_durable_index: Index) -> None:
        """Start a commit when it is time, or when the overlay is large. The log must be durable to what is applied."""
        if self._committing is not None or self._replacing or self.commits_paused:
            return
        if journal_durable_index < self.store.applied_index:
            return
        now = self._loop.time()
        is_due = now >= self._next_commit_at or self.store.overlay_bytes >= self._limits.commit_bytes
        if not is_due and not (self.store.compaction.wants_commit and now >= self._next_compaction_commit_at):
            return
        job = self.store.freeze()
        if job is None:
            return
        self._next_commit_at = now + self._limits.commit_interval_ms / 1000
        self._next_compaction_commit_at = now + COMPACTION_COMMIT_SECONDS
        self._committing = self._loop.run_in_executor(self.commit_thread, self._run_job, job)
        self._committing.add_done_callback(lambda done: self._on_committed(job, done))

    def commit_soon(self, journal_durable_index: Index) -> None:
        """Commit what is applied without waiting for the interval, if the log has it."""
        self._next_commit_at = 0.0
        self.commit_if_due(journal_durable_index)

    async def copy_to(self, target: Path) -> SnapshotFile:
        """A compact copy of the committed store, made in a thread. Raises NoSpace, DiskFailure, OSError."""
        run, make = self._loop.run_in_executor, self.timings.copy.call
        return await run(self.snapshot_thread, make, write, self.store.keyspace, str(target))

    @property
    def is_committing(self) -> bool:
        """A commit is under way."""
        return self._committing is not None

    @property
    def is_replacing(self) -> bool:
        """A snapshot is being put in the store's place."""
        return self._replacing

    def take_over(self, store: Store) -> Store:
        """Go on with another store that has applied the same and whose file has the name; the old one is the caller's to close."""
        assert self._committing is None, "nothing is under way in the store"
        old, self.store = self.store, store
        store.take_place_of(old)
        for cursor in self._cursors:
            store.move_cursor(cursor)
        self._go_on_compacting()
        return old

    def _run_job(self, job: CommitJob) -> None:
        self.timings.commit.call(job.run)

    def _on_committed(self, job: CommitJob, done: "asyncio.Future[None]") -> None:
        self._committing = None
        error = done.exception()
        if error is not None and not isinstance(error, NoSpace):
            self.on_failed(error)
            return
        self.store.thaw(job)
        if isinstance(error, NoSpace):
            if self.full is None:
                log.error("the store cannot commit: %s", error.message)
            self.full = error
            self._next_commit_at = self._loop.time() + COMMIT_RETRY_SECONDS
        elif self.full is not None:
            log.warning("the store commits again")
            self.full = None
        self._go_on_compacting()
        self._incoming.drop_outdated(self.store.applied_index)
        self.on_progress()

    # Room: history that was compacted is removed a little at a time.

    def _go_on_compacting(self) -> None:
        if self._compaction_handle is None and self.store.compaction.has_work:
            self._compaction_handle = self._loop.call_later(COMPACTION_PAUSE_SECONDS, self._compact_some)

    def _compact_some(self) -> None:
        self._compaction_handle = None
        if not self._replacing:
            self.store.compaction.step()
            self._go_on_compacting()

    def _stop_compacting(self) -> None:
        if self._compaction_handle is not None:
            self._compaction_handle.cancel()
            self._compaction_handle = None

    # Snapshots, outgoing.

    def begin_snapshot(self, configuration: Configuration) -> None:
        """Copy the committed state in a thread; `on_snapshot_made` follows."""
        self._spawn(self._make_snapshot(configuration))

    async def _make_snapshot(self, configuration: Configuration) -> None:
        target = self._snapshots_path / f"outgoing-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
        try:
            made = await self.copy_to(target)
        except (OSError, NoSpace) as error:
            log.error("cannot make a snapshot: %s", error)
            target.unlink(missing_ok=True)
            self.on_snapshot_made(None)
            return
        meta = SnapshotMeta(
            index=made.index,
            term=made.term,
            configuration=decode_configuration(made.configuration) if made.configuration else configuration,
            size_bytes=made.size_bytes,
            checksum=made.checksum,
            snapshot_id=secrets.randbits(62) or 1,
        )
        reader = SnapshotFileReader(str(target), meta)
        target.unlink()  # the open file stays readable until it is closed, and nothing is left behind by a crash
        log.info("made a snapshot at index %d, %d bytes", meta.index, meta.size_bytes)
        self.snapshots_made += 1
        self.on_snapshot_made(
            ThreadedReader(reader, loop=self._loop, thread=self.chunk_thread, on_failed=self.on_failed)
        )

    # Snapshots, incoming.

    def receive_chunk(self, meta: SnapshotMeta, offset: int, data: bytes) -> int:
        """Store a chunk; the next offset that is wanted."""
        return self._incoming.receive(meta, offset, data)

    def begin_install(self, meta: SnapshotMeta) -> None:
        """Verify what was received and put it in the store's place; `on_snapshot_installed` follows."""
        self._spawn(self._install(meta))

    async def _install(self, meta: SnapshotMeta) -> None:
        receiver = self._incoming.take(meta)
        self._replacing = True
        taking_in = Overloaded("this member is taking in a snapshot")
        self.refusal = self.refusal or taking_in
        try:
            if self.before_install is not None:
                await self.before_install()
            if self._committing is not None:
                await asyncio.wait([self._committing])
            run = self._loop.run_in_executor
            try:
                received = await run(self.snapshot_thread, receiver.finish)
            except Corruption as error:
                log.error("the received snapshot is damaged, asking again: %s", error.message)
                self.snapshots_damaged += 1
                self.on_snapshot_installed(meta, False)
                return
            self.on_store_replaced()
            self.store.close()
            await run(self.snapshot_thread, install, received, str(self._store_path))
            self.store = self._open()
        finally:
            self._replacing = False
            if self.refusal is taking_in:
                self.refusal = None
        self._go_on_compacting()
        self.snapshots_installed += 1
        log.info("installed a snapshot at index %d, %d bytes", meta.index, meta.size_bytes)
        self.on_snapshot_installed(meta, True)

    # Life.

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_failed(error)

    async def close(self, journal_durable_index: Index) -> None:
        """Commit what is applied (if the log has it), so that the next start has little to replay; then close."""
        self._stop_compacting()
        was_replacing = self._replacing  # then the store may be closed, and the snapshot has all that it had
        for task in list(self._tasks):
            task.cancel()
        if self._committing is not None:
            await asyncio.wait([self._committing])
        if not was_replacing and journal_durable_index >= self.store.applied_index:
            job = self.store.freeze()
            if job is not None:
                try:
                    await self._loop.run_in_executor(self.commit_thread, job.run)
                except NoSpace as error:
                    log.error("the last commit found the disk full, the log has it all: %s", error.message)
                self.store.thaw(job)
        self.commit_thread.shutdown()
        if isinstance(self.store.keyspace, LmdbKeyspace):
            self.store.keyspace.stop_copying()
        self.snapshot_thread.shutdown(cancel_futures=True)
        self.chunk_thread.shutdown()
        self._incoming.close()
        self.store.close()


__all__ = ["Storage"]
