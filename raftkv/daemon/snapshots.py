"""Snapshots on their way: read for others in a thread, and received from others in a file that outlives a restart.

A chunk that is not in memory any more takes as long as the disk likes, and the loop must not wait for it. What was received is
written in the loop: that goes to the page cache, and the sync is left to the end. One snapshot is received at a time; the part
of another one, of a leader that is gone, is removed when the next begins.
"""

import asyncio
import logging
from concurrent.futures import Executor
from pathlib import Path
from typing import Callable

from raftkv.daemon.datadir import TEMPORARY_SUFFIX
from raftkv.errors import NoSpace
from raftkv.raft.messages import SnapshotMeta
from raftkv.store.snapshot import SnapshotFileReader, SnapshotReceiver, part_name
from raftkv.units import Index

log = logging.getLogger("raftkv.snapshots")

PART_PATTERN = "incoming-*"


class ThreadedReader:
    """Implements replica.ports.SnapshotReader. `thread` has one worker, so that chunks come in order and the end comes last."""

    def __init__(
        self,
        reader: SnapshotFileReader,
        *,
        loop: asyncio.AbstractEventLoop,
        thread: Executor,
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self.meta = reader.meta
        self._reader = reader
        self._loop = loop
        self._thread = thread
        self._on_failed = on_failed
        self._closed = False

    def fetch(self, offset: int, size_max: int, deliver: Callable[[bytes], None]) -> None:
        """Read in the thread; `deliver` is called in the loop, and not any more after `close`."""
        assert not self._closed, "a closed snapshot is not offered"
        reading = self._loop.run_in_executor(self._thread, self._reader.read, offset, size_max)
        reading.add_done_callback(lambda done: self._on_read(done, deliver))

    def _on_read(self, done: "asyncio.Future[bytes]", deliver: Callable[[bytes], None]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._on_failed(error)
        elif not self._closed:
            deliver(done.result())

    def close(self) -> None:
        """Close the file behind the reads that are under way."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._reader.close)


class IncomingSnapshot:
    """The snapshot that is being received, if any. `thread` removes files: for gigabytes that takes longer than the loop may wait."""

    def __init__(self, directory: Path, applied_index: Index, *, thread: Executor) -> None:
        self._directory = directory
        self._thread = thread
        self._receiver: SnapshotReceiver | None = None
        for part in directory.glob(PART_PATTERN):
            if part.suffix != TEMPORARY_SUFFIX and _index_of(part) <= applied_index:
                self._remove(part)

    def receive(self, meta: SnapshotMeta, offset: int, data: bytes) -> int:
        """Store a chunk; the next offset that is wanted. Raises DiskFailure."""
        try:
            if self._receiver is None or self._receiver.meta.snapshot_id != meta.snapshot_id:
                self._begin(meta)
            assert self._receiver is not None, "it was begun"
            return self._receiver.write(offset, data)
        except NoSpace as error:
            # Dropped like a lost message: the leader sends it again, and by then there may be room.
            if offset == 0:
                log.error("no room for the snapshot that the leader sends: %s", error.message)
            return 0 if self._receiver is None else self._receiver.next_offset

    def _begin(self, meta: SnapshotMeta) -> None:
        self.close()
        for part in self._directory.glob(PART_PATTERN):
            if part.name != part_name(meta) and part.suffix != TEMPORARY_SUFFIX:
                self._remove(part)
        self._receiver = SnapshotReceiver(str(self._directory), meta)
        log.info(
            "receiving a snapshot at index %d, %d bytes, from byte %d",
            meta.index,
            meta.size_bytes,
            self._receiver.next_offset,
        )

    def take(self, meta: SnapshotMeta) -> SnapshotReceiver:
        """Everything of `meta` is here: it is the caller's now."""
        receiver, self._receiver = self._receiver, None
        assert receiver is not None and receiver.meta.snapshot_id == meta.snapshot_id, "it was received"
        return receiver

    def drop_outdated(self, applied_index: Index) -> None:
        """The log has brought what the snapshot would have: its bytes are not needed."""
        if self._receiver is not None and self._receiver.meta.index <= applied_index:
            path = Path(self._receiver.path)
            self.close()
            self._remove(path)

    def _remove(self, part: Path) -> None:
        """The name goes at once, so that nobody goes on with it; what a crash leaves is removed at the next start."""
        doomed = part.with_name(part.name + TEMPORARY_SUFFIX)
        part.rename(doomed)
        self._thread.submit(doomed.unlink, missing_ok=True)

    def close(self) -> None:
        """What is here stays for the next process."""
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None


def _index_of(part: Path) -> Index:
    """As the name says; 0 for a name that is none of ours."""
    index = part.name.split("-")[1]
    return int(index) if index.isdigit() else 0


__all__ = ["IncomingSnapshot", "ThreadedReader"]
