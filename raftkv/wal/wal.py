"""The write-ahead log: buffers what a save holds, and makes it durable with one write and one fdatasync per batch.

Synchronous, and used by one thread (only `has_space` may be read by others). What it promises, in the words of chapter 3: what
`sync` returned for survives. After a failed fsync nothing is known about the file any more, so the log ends there: every later
call raises DiskFailure, and the process has to end (a retried fsync may report success for pages that were dropped). A full
disk is no failure: NoSpace, and the buffer is kept.

The order of things when a segment is full: the batch goes into the next file, prepared ahead, together with the header; that
file is synced, then renamed to its name, then the directory is synced. So a batch is never spread over two files.
"""

from dataclasses import dataclass, field
from os.path import join
from typing import NoReturn, Sequence

from raftkv.errors import DiskFailure, NoSpace
from raftkv.limits import Limits
from raftkv.raft.messages import Entry, HardState, SnapshotMeta
from raftkv.units import NOBODY, Index, Term
from raftkv.wal import frame, record
from raftkv.wal.ahead import NextSegment, is_full
from raftkv.wal.disk import Disk
from raftkv.wal.record import Identity, LogStart, LogState, SegmentHeader, SnapshotMark
from raftkv.wal.recovery import Recovered, Tail, list_segments, recover
from raftkv.wal.segment import NEXT_NAME, RESERVE_BYTES, Segment, segment_name


@dataclass(slots=True)
class _Batch:
    """What the next sync makes durable, and what the log comes to with it."""

    state: LogState
    records: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    replaced_from: Index | None = None  # older segments are not needed from here on, once this is durable


@dataclass(slots=True)
class _Begun:
    """A frame that may be on disk in part. It must be completed, unchanged, before anything else is written."""

    header: bytes
    body: bytes
    checksum: int
    batch: _Batch


class Wal:
    """One member's log directory, open for writing. Make it with `create` or `open`."""

    __slots__ = (
        "_active",
        "_batch_number",
        "_begun",
        "_closed",
        "_directory",
        "_disk",
        "_failure",
        "_file",
        "_identity",
        "_next",
        "_offset",
        "_pending",
        "_refused",
        "_sealed",
        "_seed",
        "_segment_bytes",
        "_synced",
    )

    def __init__(self, disk: Disk, directory: str, identity: Identity, limits: Limits, tail: Tail) -> None:
        self._disk = disk
        self._directory = directory
        self._identity = identity
        self._segment_bytes = limits.wal_segment_bytes
        self._closed = tail.closed
        self._active = tail.active
        self._file = tail.file
        self._offset = tail.offset
        self._batch_number = tail.batch
        self._seed = tail.seed
        self._synced = tail.state
        self._pending = _Batch(tail.state.copy())
        self._begun: _Begun | None = None
        self._next = NextSegment(disk, directory)
        self._refused = False
        self._sealed = False
        self._failure: str | None = None

    @staticmethod
    def exists(disk: Disk, directory: str) -> bool:
        """Whether there is a log in `directory`: then `open` it, else `create` one. Raises Corruption, DiskFailure."""
        try:
            return bool(list_segments(disk, directory))
        except OSError as error:
            raise DiskFailure(f"the log directory {directory} cannot be read: {error}") from error

    @classmethod
    def create(cls, disk: Disk, directory: str, identity: Identity, limits: Limits) -> "Wal":
        """A new, empty log in an existing directory without one; durable on return. Raises NoSpace, DiskFailure."""
        assert not cls.exists(disk, directory), "a log is opened, never created anew over an old one"
        assert identity.node_id > 0, "0 means nobody"
        assert 0 <= identity.incarnation < 2**63, "an incarnation has 63 bits"
        state = LogState()
        encoded = record.encode_segment(SegmentHeader(identity, 1, 0, state))
        size_bytes = max(limits.wal_segment_bytes, frame.padded(len(encoded)) + RESERVE_BYTES)
        encoded = record.encode_segment(SegmentHeader(identity, 1, size_bytes, state))
        header, body, checksum = frame.encode((encoded,), batch=1, offset=0, seed=0)
        active = Segment(segment_name(1, 1), 1, size_bytes, 0)
        path = join(directory, NEXT_NAME)
        try:
            file = disk.open(path, create=True)
            file.preallocate(size_bytes)
            offset = file.pwritev((header, body), 0)
            file.fdatasync()
            disk.rename(path, join(directory, active.name))
            disk.sync_directory(directory)
        except OSError as error:
            raise _startup_error(f"the log in {directory} cannot be made", error) from error
        wal = cls(disk, directory, identity, limits, Tail([], active, file, offset, 1, checksum, state))
        wal._prepare()
        return wal

    @classmethod
    def open(cls, disk: Disk, directory: str, limits: Limits) -> tuple["Wal", Recovered]:
        """The log in `directory` and what it holds. Whose it is, the caller compares. Raises Corruption, NoSpace, DiskFailure."""
        try:
            recovered, tail = recover(disk, directory)
        except OSError as error:
            raise _startup_error(f"the log in {directory} cannot be read or repaired", error) from error
        wal = cls(disk, directory, recovered.identity, limits, tail)
        wal._prepare()
        return wal, recovered

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def last_index(self) -> Index:
        """Of the last entry written, durable or not."""
        return self._pending.state.last_index

    @property
    def log_start_index(self) -> Index:
        """Entries up to here are gone. Behind what `compact` was told while the disk is so full that its mark has to wait."""
        return self._pending.state.start_index

    @property
    def segments(self) -> int:
        """Named files."""
        return len(self._closed) + 1

    @property
    def has_space(self) -> bool:
        """False while the disk has no room for the next segment: refuse new client writes.

        Elections, hand-over and compaction still fit into the rest of the active one. May be read by any thread.
        """
        return not self._refused and self._failure is None and self._next.could_prepare(self._segment_bytes)

    def write(self, hard_state: HardState | None, entries: Sequence[Entry], snapshot: SnapshotMeta | None) -> None:
        """Buffer one save; nothing reaches the disk before `sync`.

        `snapshot`: it replaces the whole log, `entries` follow it. If entries[0].index is not behind the last one, the suffix
        is replaced. Raises DiskFailure once the log has ended.
        """
        self._check()
        batch = self._pending
        state = batch.state
        records: list[bytes] = []
        if snapshot is not None:
            assert snapshot.index > state.start_index, "a snapshot never takes a log back (chapter 5)"
            records.append(record.encode_snapshot(SnapshotMark(snapshot.index, snapshot.term)))
            state.start_index = state.last_index = snapshot.index
            state.start_term = snapshot.term
            batch.replaced_from = 1
        if hard_state is not None:
            assert hard_state.term >= state.term, "a term never goes back (3.3)"
            assert hard_state.term > state.term or state.vote in (NOBODY, hard_state.vote), "one vote per term (3.4)"
            state.term, state.vote, state.commit = hard_state.term, hard_state.vote, hard_state.commit
            records.append(record.encode_hard_state(state.term, state.vote, state.commit))
        if entries:
            first_index = entries[0].index
            assert first_index > state.start_index, "what is compacted is committed, and is never replaced (3.6)"
            assert first_index <= state.last_index + 1, f"entry {first_index} leaves a gap behind {state.last_index}"
            if first_index <= state.last_index:
                batch.replaced_from = min(first_index, batch.replaced_from or first_index)
            records += record.encode_entries(entries)
            state.last_index = entries[-1].index
        batch.records += records
        batch.size_bytes += sum(map(len, records))

    def sync(self) -> int:
        """Make everything buffered durable; returns the bytes written, 0 when there was nothing.

        Raises NoSpace (nothing is lost, call it again later) and DiskFailure (the process has to end).
        """
        self._check()
        written = self._complete() if self._begun is not None else 0
        batch = self._pending
        if batch.records:
            if self._fits(batch, RESERVE_BYTES):
                self._pending = _Batch(batch.state.copy())
                self._begin(batch)
                written += self._complete()
            else:
                written += self._rotate(batch)
                self._pending = _Batch(batch.state.copy())
            if batch.replaced_from == 1:
                self._delete_obsolete()
            if self._next.file is None:
                self._prepare()
        return written

    def compact(self, index: Index, term: Term) -> None:
        """Entries up to `index`, whose entry has `term`, are not needed any more.

        Records that durably, then deletes the segments that hold nothing else. `index` must have been synced. With the disk so
        full that not even a mark fits, nothing happens, unless it would free a segment. Raises NoSpace, DiskFailure.
        """
        self._check()
        if self._begun is not None:
            self._complete()
        if index > self._pending.state.start_index:
            assert index <= self._synced.last_index, "only what is durable is compacted"
            self._record_start(LogStart(index, term))
        self._delete_obsolete()

    def close(self) -> None:
        """Close the files. What was not synced is dropped, as in a crash.

        Leaves one more frame behind the last, if it can, so that damage to the last one is known from a torn tail.
        """
        try:
            if self._failure is None and self._begun is None and not self._sealed:
                self._seal()
        except (NoSpace, DiskFailure):
            pass  # nothing that anybody waits for was in it
        finally:
            self._failure = self._failure or f"the log in {self._directory} is closed"
            self._file.close()
            self._next.close()

    def _fits(self, batch: _Batch, reserve_bytes: int) -> bool:
        return self._offset + frame.padded(batch.size_bytes) + reserve_bytes <= self._active.size_bytes

    def _begin(self, batch: _Batch) -> None:
        """Lay the frame out. From here on it is completed unchanged, or a rest of it would stay behind as damage."""
        assert self._begun is None, "frames are completed in order"
        header, body, checksum = frame.encode(
            batch.records, batch=self._batch_number + 1, offset=self._offset, seed=self._seed
        )
        self._begun = _Begun(header, body, checksum, batch)

    def _complete(self) -> int:
        """Write and sync the frame that was begun."""
        begun = self._begun
        assert begun is not None, "there is a frame to complete"
        try:
            written = self._file.pwritev((begun.header, begun.body), self._offset)
        except OSError as error:
            self._refuse(error)
        try:
            self._file.fdatasync()
        except OSError as error:
            self._fail(error)
        self._begun = None
        self._offset += written
        self._settle(begun.batch, begun.checksum)
        return written

    def _settle(self, batch: _Batch, checksum: int) -> None:
        """The batch is durable."""
        self._batch_number += 1
        self._seed = checksum
        self._synced = batch.state
        self._refused = self._sealed = False
        if batch.replaced_from is not None:
            for segment in self._closed:
                segment.last_index = min(segment.last_index, batch.replaced_from - 1)

    def _rotate(self, batch: _Batch) -> int:
        """Write the batch as the first frame of the next segment. Until then NoSpace leaves all as it was."""
        assert self._begun is None, "the old segment ends with a whole frame"
        sequence, state = self._active.sequence + 1, self._synced
        header_bytes = len(record.encode_segment(SegmentHeader(self._identity, sequence, 0, state)))
        self._prepare(frame.padded(header_bytes + batch.size_bytes) + RESERVE_BYTES)
        file, size_bytes = self._next.file, self._next.size_bytes
        if file is None:
            self._refused = True
            raise NoSpace(
                f"the disk has no room for the next log file in {self._directory}: writes are refused, reads go on"
            )
        encoded = record.encode_segment(SegmentHeader(self._identity, sequence, size_bytes, state))
        header, body, checksum = frame.encode(
            (encoded, *batch.records), batch=self._batch_number + 1, offset=0, seed=self._seed
        )
        active = Segment(segment_name(sequence, state.last_index + 1), sequence, size_bytes, 0)
        try:
            written = file.pwritev((header, body), 0)
        except OSError as error:
            self._next.close()  # the first frame of a later attempt may be shorter than what this one left in the file
            self._refuse(error)
        try:
            file.fdatasync()
        except OSError as error:
            self._fail(error)
        try:
            self._disk.rename(self._next.path, join(self._directory, active.name))
        except OSError as error:
            self._next.close()
            self._refuse(error)
        try:
            self._disk.sync_directory(self._directory)
        except OSError as error:
            self._fail(error)
        self._next.give_up()
        self._file.close()
        self._active.last_index = state.last_index
        self._closed.append(self._active)
        self._active, self._file, self._offset = active, file, written
        self._settle(batch, checksum)
        return written

    def _prepare(self, size_bytes: int = 0) -> None:
        """Have the next file ready, of the usual size or a larger one that is needed. With a full disk there is none after."""
        try:
            self._next.prepare(max(self._segment_bytes, size_bytes))
        except OSError as error:
            self._fail(error)

    def _record_start(self, mark: LogStart) -> None:
        """Make the mark durable as a frame of its own, in the reserve if need be."""
        state = self._synced.copy()
        state.start_index, state.start_term = mark.index, mark.term
        encoded = record.encode_log_start(mark)
        batch = _Batch(state, [encoded], len(encoded))
        frees = bool(self._closed) and self._closed[0].last_index <= mark.index
        if not self._fits(batch, RESERVE_BYTES):
            self._prepare()
            if self._next.file is not None:
                self._rotate(batch)
                self._set_pending_start(mark)
                self._prepare()
                return
            if not frees or not self._fits(batch, 0):
                return
        self._begin(batch)
        self._set_pending_start(mark)
        self._complete()

    def _set_pending_start(self, mark: LogStart) -> None:
        self._pending.state.start_index, self._pending.state.start_term = mark.index, mark.term

    def _delete_obsolete(self) -> None:
        """Delete the segments up to the first that is still needed, each durably before the next: no holes after a crash."""
        deleted = False
        while self._closed and self._closed[0].last_index <= self._synced.start_index:
            try:
                self._disk.unlink(join(self._directory, self._closed[0].name))
                self._disk.sync_directory(self._directory)
            except OSError as error:
                self._fail(error)
            del self._closed[0]
            deleted = True
        if deleted:
            self._prepare()

    def _seal(self) -> None:
        state = self._synced.copy()
        encoded = record.encode_hard_state(state.term, state.vote, state.commit)
        batch = _Batch(state, [encoded], len(encoded))
        if self._fits(batch, 0):
            self._begin(batch)
            self._complete()
            self._sealed = True

    def _refuse(self, error: OSError) -> NoReturn:
        """A write failed: for now, or for good."""
        if not is_full(error):
            self._fail(error)
        self._refused = True
        raise NoSpace(f"the disk is full, writes are refused, reads go on: {error}") from error

    def _fail(self, error: OSError) -> NoReturn:
        self._failure = f"the log in {self._directory} cannot go on, this process has to end: {error}"
        raise DiskFailure(self._failure) from error

    def _check(self) -> None:
        if self._failure is not None:
            raise DiskFailure(self._failure)


def _startup_error(what: str, error: OSError) -> NoSpace | DiskFailure:
    return (NoSpace if is_full(error) else DiskFailure)(f"{what}: {error}")


__all__ = ["Identity", "Recovered", "Wal"]
