"""Bugs of the log on the disk and of restarts: wal/, raft/state.py where it restarts, replica/replica.py where it compacts."""

from collections.abc import Iterator
from dataclasses import replace
from os.path import join
from typing import Any

from raftkv.errors import Corruption
from raftkv.raft.config import SavedState
from raftkv.raft.messages import HardState
from raftkv.raft.state import State
from raftkv.store.store import Store
from raftkv.wal import frame, recovery
from raftkv.wal.disk import Disk, File
from raftkv.wal.frame import Frame
from raftkv.wal.replay import SegmentEnd
from raftkv.wal.segment import NEXT_NAME
from raftkv.wal.wal import Wal

from .registry import bug, swapped

SMALL_LOG = {"log_retained_entries_max": 5, "log_retained_bytes_max": 1024, "wal_segment_bytes": 4096}
CRASHES = {"nemesis_us": 150_000}


@bug(
    "lose hard state",
    "a restart begins with term 0 and no vote",
    "term and vote survive a restart (3.8)",
    knobs={**CRASHES, "disasters": ("kill", "power_loss")},
)
def lose_hard_state() -> Iterator[None]:
    original = State._restart_from

    def restart_from(self: State, saved: SavedState) -> None:
        original(self, replace(saved, hard_state=HardState()))

    with swapped(State, "_restart_from", restart_from):
        yield


@bug(
    "acknowledgement before fsync",
    "the log is written and not synced, as with no_fsync",
    "what was acknowledged survives a power loss (3.8)",
    knobs={**CRASHES, "disasters": ("power_loss",)},
)
def acknowledgement_before_fsync() -> Iterator[None]:
    def complete(self: Wal) -> int:
        begun = self._begun
        assert begun is not None, "there is a frame to complete"
        written = self._file.pwritev((begun.header, begun.body), self._offset)
        self._begun = None
        self._offset += written
        self._settle(begun.batch, begun.checksum)
        return written

    with swapped(Wal, "_complete", complete):
        yield


@bug(
    "failed fsync tried again",
    "after a failed fsync the log syncs once more and believes the second answer",
    "what was acknowledged survives a power loss: the pages are marked clean after the first failure",
    knobs={**CRASHES, "disasters": ("failing_sync", "power_loss")},
)
def failed_fsync_tried_again() -> Iterator[None]:
    original = Wal._complete

    class Stubborn:
        """A file whose failed sync counts as done with the next one."""

        def __init__(self, file: File) -> None:
            self._file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def fdatasync(self) -> None:
            try:
                self._file.fdatasync()
            except OSError:
                pass  # by now the kernel has forgotten the pages: a second call finds nothing to do

    def complete(self: Wal) -> int:
        file, self._file = self._file, Stubborn(self._file)  # type: ignore[assignment]
        try:
            return original(self)
        finally:
            self._file = file

    with swapped(Wal, "_complete", complete):
        yield


@bug(
    "torn tail accepted",
    "the checksum of a frame is not compared, so half a write counts as a whole one",
    "a log comes back with what was written, or without it (3.8)",
    knobs={**CRASHES, "disasters": ("power_loss",), "sync_us": (500, 40_000), "sector_bytes": 64},
)
def torn_tail_accepted() -> Iterator[None]:
    def decode(data: memoryview, offset: int) -> Frame | None:
        if offset + frame.HEADER_BYTES > len(data):
            return None
        magic, length, batch, place, seed = frame._PREFIX.unpack_from(data, offset)
        end = offset + frame.HEADER_BYTES + length
        if magic != frame.MAGIC or place != offset or length == 0 or length % frame.ALIGNMENT or end > len(data):
            return None
        body_start = offset + frame.HEADER_BYTES
        (checksum,) = frame._CHECKSUM.unpack_from(data, body_start - frame._CHECKSUM.size)
        return Frame(batch, seed, checksum, data[body_start:end], end)

    with swapped(frame, "decode", decode):
        yield


@bug(
    "page cache taken for the disk",
    "recovery does not sync what it read, which after a crash of the process may only be cached",
    "what was acknowledged survives a power loss (3.8)",
    knobs={**CRASHES, "disasters": ("kill", "power_loss"), "sync_us": (500, 40_000)},
)
def page_cache_taken_for_the_disk() -> Iterator[None]:
    def settle(disk: Disk, directory: str, file: File, data: bytes, end: SegmentEnd) -> None:
        if end.used_until > end.offset:
            file.pwritev((bytes(end.used_until - end.offset),), end.offset)
        if NEXT_NAME in disk.list(directory):
            disk.unlink(join(directory, NEXT_NAME))
        disk.sync_directory(directory)

    with swapped(recovery, "_settle", settle):
        yield


@bug(
    "damaged log made anew",
    "a log with a bad record in the middle is thrown away, and the member starts with an empty one",
    "a member that has forgotten its votes and entries does not come back (3.8)",
    knobs={**CRASHES, "disasters": ("bit_rot", "kill")},
    limits={"wal_segment_bytes": 4096, "log_retained_entries_max": 10_000, "log_retained_bytes_max": 1 << 20},
)
def damaged_log_made_anew() -> Iterator[None]:
    original = Wal.open

    def open_or_make(cls: type[Wal], disk: Disk, directory: str, limits: Any) -> Any:
        try:
            return original(disk, directory, limits)
        except Corruption:
            name = disk.list(directory)[0]
            file = disk.open(join(directory, name))
            header = recovery.Replay()  # type: ignore[attr-defined]
            data = file.pread(file.size(), 0)
            try:
                header.add_segment(name, name, 1, data, is_last=True)
            except Corruption:
                pass
            identity = header.identity
            if identity is None:
                raise
            for name in disk.list(directory):
                disk.unlink(join(directory, name))
            Wal.create(disk, directory, identity, limits).close()
            return original(disk, directory, limits)

    with swapped(Wal, "open", classmethod(open_or_make)):
        yield


@bug(
    "log compacted before the store has it",
    "the log is compacted up to what is applied, not to what is durable in the store",
    "what was acknowledged survives a restart (5.1)",
    knobs={**CRASHES, "disasters": ("kill", "power_loss"), "commit_us": (10_000, 400_000)},
    limits=SMALL_LOG,
)
def log_compacted_too_early() -> Iterator[None]:
    with swapped(Store, "durable_applied_index", property(lambda self: self._applied_index)):
        yield


@bug(
    "apply twice after restart",
    "the applied index is committed one transaction after the data, so a restart applies entries again",
    "an entry is applied once (3.5, etcd#13766)",
    knobs={**CRASHES, "disasters": ("kill", "power_loss")},
)
def apply_twice_after_restart() -> Iterator[None]:
    original = Store._stored_state
    before: dict[int, Any] = {}

    def stored_state(self: Store) -> Any:
        current = original(self)
        late = before.get(id(self), current)
        before[id(self)] = current
        return late

    with swapped(Store, "_stored_state", stored_state):
        yield
