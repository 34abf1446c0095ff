"""Backups for those who ask for one: a copy of the store as of now, held open while it is fetched piece by piece.

The copy is of the committed store, so what is applied is committed first: a backup holds everything that was acknowledged before
it was asked for, as far as this member has it. The file has no name from the start of the fetching on, and is gone with the last reader,
whatever becomes of it; one that nobody reads from for a while is let go.
"""

import asyncio
import logging
import os
import secrets
from pathlib import Path
from typing import Callable, Final

from raftkv.daemon.datadir import TEMPORARY_SUFFIX
from raftkv.daemon.snapshots import ThreadedReader
from raftkv.daemon.storage import Storage
from raftkv.errors import InvalidRequest, NoSpace, Overloaded, RaftKVError
from raftkv.raft.messages import Configuration, SnapshotMeta
from raftkv.store.snapshot import SnapshotFile, SnapshotFileReader
from raftkv.units import Index
from raftkv.wire.commands import OK, Answer, failure

log = logging.getLogger("raftkv.backups")

OPEN_MAX: Final = 2
IDLE_SECONDS_MAX: Final = 60.0
PIECE_BYTES_MAX: Final = 1 << 20
COMMIT_POLL_SECONDS: Final = 0.01

Done = Callable[[Answer], None]


class _Open:
    __slots__ = ("handle", "reader")

    def __init__(self, reader: ThreadedReader) -> None:
        self.reader = reader
        self.handle: asyncio.TimerHandle | None = None


class Backups:
    """The open ones of one member. One owner: the loop."""

    def __init__(
        self,
        storage: Storage,
        directory: Path,
        *,
        loop: asyncio.AbstractEventLoop,
        journal_durable_index: Callable[[], Index],
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._loop = loop
        self._journal_durable_index = journal_durable_index
        self._open: dict[int, _Open] = {}
        self._making = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, done: Done) -> None:
        """Make a backup; the answer has id, size_bytes, checksum (CRC-32), index, revision and cluster."""
        if len(self._open) + self._making >= OPEN_MAX:
            done(failure(Overloaded(f"{OPEN_MAX} backups are being fetched already")))
            return
        self._making += 1
        task = self._loop.create_task(self._make(done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, done: Done) -> None:
        try:
            made = await self._copy()
        except (RaftKVError, OSError) as error:
            log.error("cannot make a backup: %s", error)
            done(failure(error if isinstance(error, RaftKVError) else NoSpace(str(error))))
            return
        finally:
            self._making -= 1
        meta = SnapshotMeta(made.index, made.term, Configuration(frozenset()), made.size_bytes, made.checksum)
        reader = ThreadedReader(
            SnapshotFileReader(made.path, meta),
            loop=self._loop,
            thread=self._storage.chunk_thread,
            on_failed=self._storage.on_failed,
        )
        os.unlink(made.path)  # the open file stays readable, and nothing is left behind by a crash
        backup_id = secrets.randbits(62) or 1
        opened = self._open[backup_id] = _Open(reader)
        self._expect_use(backup_id, opened)
        log.info("made a backup at index %d, %d bytes", made.index, made.size_bytes)
        answer = {
            "id": backup_id,
            "size_bytes": made.size_bytes,
            "checksum": made.checksum,
            "index": made.index,
            "revision": made.revision,
            "cluster_id": self._storage.cluster_id,
            "cluster_name": self._storage.store.cluster_name,
        }
        done([OK, answer])

    async def _copy(self) -> SnapshotFile:
        """Raises NoSpace, DiskFailure, OSError."""
        wanted = self._storage.applied_index
        while self._storage.store.durable_applied_index < wanted:
            if self._storage.full is not None:
                raise self._storage.full
            self._storage.commit_soon(self._journal_durable_index())
            await asyncio.sleep(COMMIT_POLL_SECONDS)
        target = self._directory / f"backup-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
        return await self._storage.copy_to(target)

    def read(self, backup_id: int, offset: int, size: int, done: Done) -> None:
        """A piece of an open backup: [OK, bytes]; empty behind its end."""
        opened = self._open.get(backup_id)
        if opened is None:
            done(failure(InvalidRequest("there is no such backup (any more): open one again")))
            return
        self._expect_use(backup_id, opened)
        if offset >= opened.reader.meta.size_bytes or size == 0:
            done([OK, b""])
            return
        opened.reader.fetch(offset, min(size, PIECE_BYTES_MAX), lambda data: done([OK, data]))

    def close(self, backup_id: int) -> None:
        """Let go of one; of none that is not open."""
        opened = self._open.pop(backup_id, None)
        if opened is not None:
            if opened.handle is not None:
                opened.handle.cancel()
            opened.reader.close()

    def close_all(self) -> None:
        """The member ends."""
        for task in list(self._tasks):
            task.cancel()
        for backup_id in list(self._open):
            self.close(backup_id)

    def _expect_use(self, backup_id: int, opened: _Open) -> None:
        if opened.handle is not None:
            opened.handle.cancel()
        opened.handle = self._loop.call_later(IDLE_SECONDS_MAX, self.close, backup_id)


__all__ = ["Backups"]
