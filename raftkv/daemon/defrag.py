"""Defragmentation while the member goes on: the store is copied, the copy catches up from the log, and takes the store's place.

LMDB reuses free pages and never gives them back, so a file is as large as the store has ever been. A compact copy of what is committed
is made in a thread; it is a store like one after a restart, and applies in slices what the log has brought since. The log keeps
all of that (`Storage.hold_index`) until nobody can need it, so a crash at any moment leaves the old file or the new one, each of them
good with the log that is there. The order:

    copy -> catch up -> the new file gets the name, durably -> catch up -> in one turn of the loop the copy is the store

Until the new file has the name any trouble ends the attempt, and the member is what it was. From then on the old file has no name,
and what it still commits would be lost with the process: there is only the way forward, or the end of the process.
"""

import asyncio
import logging
import os
import secrets
import time
from pathlib import Path
from typing import Any, Callable, Final, Protocol, Sequence

from raftkv.daemon.datadir import TEMPORARY_SUFFIX, DataDirectory
from raftkv.daemon.storage import Storage
from raftkv.errors import DiskFailure, Internal, NoSpace, Overloaded, RaftKVError
from raftkv.limits import MIB, Limits
from raftkv.raft.messages import Entry
from raftkv.store.lmdb_keyspace import LOCK_SUFFIX, LmdbKeyspace
from raftkv.store.snapshot import replace
from raftkv.store.store import Store
from raftkv.units import Index
from raftkv.wire.commands import OK, Answer, failure

log = logging.getLogger("raftkv.defrag")

SLICE_SECONDS: Final = 0.003  # of applying, per turn of the loop
PAUSE_SECONDS: Final = 0.002
SLICE_BYTES: Final = 256 * 1024
WATCH_SECONDS: Final = 0.1
JOURNAL_POLL_SECONDS: Final = 0.005
DISMANTLE_ITEMS: Final = 512
DISMANTLE_SECONDS: Final = 0.008

Done = Callable[[Answer], None]


class HeldLog(Protocol):
    """The log in memory (raft.node.Raft)."""

    @property
    def log_bytes(self) -> int: ...

    def held_entries(self, first: Index, last: Index, bytes_max: int) -> Sequence[Entry]: ...


class Defragmentation:
    """At most one attempt at a time; who asks while one runs is answered with that one. One owner: the loop."""

    def __init__(
        self,
        storage: Storage,
        directory: DataDirectory,
        *,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        held_log: HeldLog,
        journal_durable_index: Callable[[], Index],
    ) -> None:
        self._storage = storage
        self._store_path = directory.store_file
        self._directory = directory.snapshots_path
        self._loop = loop
        self._limits = limits
        self._log = held_log
        self._journal_durable_index = journal_durable_index
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[Done] = []
        self._given_up: RaftKVError | None = None
        self._closed: RaftKVError | None = None
        self.on_step: Callable[[str], None] = lambda step: None
        storage.before_install = lambda: self.stop(Overloaded("this member is taking in a snapshot"))

    def start(self, done: Done) -> None:
        """Begin, or join the attempt under way; answered with before_bytes, after_bytes and seconds, or why there is no change."""
        if self._closed is not None:
            done(failure(self._closed))
        elif self._storage.is_replacing:
            done(failure(Overloaded("this member is taking in a snapshot")))
        else:
            self._waiting.append(done)
            if self._task is None:
                self._given_up = None
                self._task = self._loop.create_task(self._run())

    @property
    def is_running(self) -> bool:
        """An attempt is under way."""
        return self._task is not None

    async def stop(self, reason: RaftKVError) -> None:
        """End an attempt that runs, or have it finish if it is too late for that; on return none is under way."""
        if self._task is not None:
            self._given_up = reason
            await asyncio.wait([self._task])

    async def close(self, reason: RaftKVError) -> None:
        """As stop, and none is begun any more."""
        self._closed = reason
        await self.stop(reason)

    async def _run(self) -> None:
        answer: Answer
        try:
            answer = [OK, await self._attempt()]
        except (RaftKVError, OSError) as error:
            log.error("the store was not defragmented: %s", error)
            answer = failure(error if isinstance(error, RaftKVError) else DiskFailure(str(error)))
        except BaseException as error:
            self._storage.on_failed(error)
            answer = failure(Internal(f"defragmentation: {error!r}"))
        self._task = None
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(answer)

    # One attempt.

    async def _attempt(self) -> dict[str, Any]:
        storage = self._storage
        started_s = time.monotonic()
        before_bytes = storage.store.db_size_bytes
        copy = await self._make()
        # The old file has no name any more: nothing is to be committed to it, and nothing may stop what follows.
        storage.commits_paused = True
        try:
            await self._catch_up(copy, finishing=True)
            old = storage.take_over(copy)
        except BaseException as error:
            storage.on_failed(error)
            raise
        storage.commits_paused, storage.hold_index = False, None
        self.on_step("swapped")
        after_bytes = copy.db_size_bytes
        await self._in_snapshot_thread(old.close)
        self._dismantle(old)
        seconds = time.monotonic() - started_s
        storage.timings.defragment.observe(seconds)
        log.info("the store was defragmented: %d bytes before, %d after, %.3f s", before_bytes, after_bytes, seconds)
        return {"before_bytes": before_bytes, "after_bytes": after_bytes, "seconds": round(seconds, 3)}

    async def _make(self) -> Store:
        """A copy that is up to date and has the store's name. Whatever this raises, the store is what it was."""
        storage = self._storage
        path = self._directory / f"defrag-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
        storage.hold_index = storage.store.durable_applied_index
        copy: Store | None = None
        try:
            copy = await self._make_copy(path)
            self._check()
            self.on_step("copied")
            await self._catch_up(copy, finishing=False)
            self._compare(copy)
            self.on_step("caught up")
            self._check()
            await self._in_snapshot_thread(replace, copy.keyspace, str(self._store_path))
        except BaseException as error:
            if copy is not None and _path_of(copy) == str(self._store_path):
                storage.on_failed(error)  # the name was given, and perhaps not durably
                raise
            storage.hold_index = None
            await self._in_snapshot_thread(_discard, copy, path)
            if copy is not None:
                self._dismantle(copy)
            raise
        self.on_step("named")
        return copy

    async def _make_copy(self, path: Path) -> Store:
        keyspace = self._storage.store.keyspace
        assert isinstance(keyspace, LmdbKeyspace), "the daemon's store is a file"
        run = self._loop.run_in_executor
        making = run(self._storage.snapshot_thread, self._copy_in_thread, keyspace, path, keyspace.used_bytes())
        while not making.done():
            await asyncio.wait([making], timeout=WATCH_SECONDS)
            self._watch_log()
            if self._given_up is not None:
                keyspace.stop_copying()
        if making.exception() is not None:
            self._check()  # it failed because it was given up
        return making.result()

    def _copy_in_thread(self, keyspace: LmdbKeyspace, path: Path, used_bytes: int) -> Store:
        self._check()
        figures = os.statvfs(self._directory)
        free_bytes = figures.f_bavail * figures.f_frsize
        needed_bytes = used_bytes + 2 * self._limits.wal_segment_bytes + self._limits.overlay_bytes_max
        if free_bytes < needed_bytes:
            raise NoSpace(
                f"a second copy of the store and room to go on meanwhile take {needed_bytes / MIB:.0f} MiB,"
                f" {self._directory} has {free_bytes / MIB:.0f} MiB free",
                details={"needed_bytes": needed_bytes, "free_bytes": free_bytes},
            )
        keyspace.copy(str(path))
        copied = LmdbKeyspace(str(path), self._limits.map_bytes)
        try:
            return Store.open(copied, self._limits)
        except BaseException:
            copied.close()
            raise

    # Catching up.

    async def _catch_up(self, copy: Store, *, finishing: bool) -> None:
        """Until the copy has applied what the store has; when `finishing`, and nothing is being committed. Returns in that turn."""
        storage = self._storage
        while not (self._replay(copy) and not (finishing and storage.is_committing)):
            if not finishing:
                self._watch_log()
                self._check()
            if not copy.has_room or (copy.overlay_bytes >= self._limits.commit_bytes and not finishing):
                await self._commit(copy, finishing)
            else:
                await asyncio.sleep(PAUSE_SECONDS)

    def _replay(self, copy: Store) -> bool:
        """Apply a slice of what the copy lacks; whether it lacks nothing any more."""
        store = self._storage.store
        ends_s = time.monotonic() + SLICE_SECONDS
        while copy.applied_index < store.applied_index and copy.has_room and time.monotonic() < ends_s:
            entries = self._log.held_entries(copy.applied_index + 1, store.applied_index, SLICE_BYTES)
            if not entries:
                raise Overloaded(f"the log does not hold entry {copy.applied_index + 1} any more: try again")
            for entry in entries:
                copy.apply(entry)
                if time.monotonic() >= ends_s:
                    break
        copy.leases.take_news()  # the store has told it already
        return copy.applied_index == store.applied_index

    async def _commit(self, copy: Store, finishing: bool) -> None:
        """Never before the log is durable up to there. Raises NoSpace, unless `finishing`: then it is tried again."""
        while self._journal_durable_index() < copy.applied_index:
            await asyncio.sleep(JOURNAL_POLL_SECONDS)
            if not finishing:
                self._check()
        job = copy.freeze()
        if job is None:
            return
        try:
            await self._loop.run_in_executor(self._storage.commit_thread, job.run)
        except NoSpace:
            if not finishing:
                raise
            await asyncio.sleep(WATCH_SECONDS)
        finally:
            copy.thaw(job)
        self._storage.hold_index = copy.durable_applied_index

    def _compare(self, copy: Store) -> None:
        """Two ways to one state: a difference is a bug or a broken disk, and then the copy is not to be trusted."""
        store = self._storage.store
        ours, theirs = [(one.applied_index, one.revision, one.clock_ms, one.digest) for one in (store, copy)]
        if ours != theirs:
            raise Internal(
                f"the copy came to another state than the store: {theirs}, not {ours}", may_have_happened=False
            )

    # Giving up, cleaning up.

    def _watch_log(self) -> None:
        """Memory is bounded: writes that come faster than the copy is made end it."""
        held_bytes, bytes_max = self._log.log_bytes, self._limits.log_held_bytes_max
        if held_bytes > bytes_max and self._given_up is None:
            self._given_up = Overloaded(
                f"writes came faster than the copy was made: the log holds {held_bytes} bytes for it, log_held_bytes_max"
                f" allows {bytes_max}; try again when there is less to do"
            )

    def _check(self) -> None:
        if self._given_up is not None:
            raise self._given_up

    def _in_snapshot_thread(self, function: Callable[..., None], *arguments: Any) -> "asyncio.Future[None]":
        return self._loop.run_in_executor(self._storage.snapshot_thread, function, *arguments)

    def _dismantle(self, store: Store) -> None:
        if not store.dismantle(DISMANTLE_ITEMS):
            self._loop.call_later(DISMANTLE_SECONDS, self._dismantle, store)


def _path_of(copy: Store) -> str:
    assert isinstance(copy.keyspace, LmdbKeyspace), "the daemon's store is a file"
    return copy.keyspace.path


def _discard(copy: Store | None, path: Path) -> None:
    if copy is not None:
        copy.close()
    path.unlink(missing_ok=True)
    Path(f"{path}{LOCK_SUFFIX}").unlink(missing_ok=True)


__all__ = ["Defragmentation"]
