"""Recovery: read a directory of segments, cut a torn tail, and make sure that what was read is really on the disk.

What a process reads after a crash of the process may only be in the page cache, and after a failed fsync the cache calls
clean what never reached the disk. So the last frame, the only one whose sync may not have returned, is written again from
what was read, together with the zeros over the torn tail, and synced before anybody hears of it.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from os.path import join

from raftkv.raft.messages import Entry, HardState
from raftkv.units import Index, Term
from raftkv.wal.disk import Disk, File
from raftkv.wal.record import Identity, LogState
from raftkv.wal.replay import Replay, SegmentEnd
from raftkv.wal.segment import NEXT_NAME, Segment, corruption, parse_name

_ZEROS_BYTES = 1024 * 1024


@dataclass(slots=True)
class Recovered:
    """What the log holds. `entries` are log_start_index + 1 and on, without gaps."""

    identity: Identity
    hard_state: HardState
    log_start_index: Index
    log_start_term: Term
    entries: list[Entry] = field(repr=False)
    cut_bytes: int  # the torn tail that was cut: an unfinished sync that nobody was told about
    segments: int  # files


@dataclass(slots=True)
class Tail:
    """Where writing goes on."""

    closed: list[Segment]
    active: Segment
    file: File
    offset: int
    batch: int
    seed: int
    state: LogState


def list_segments(disk: Disk, directory: str) -> list[tuple[int, str]]:
    """Sequence and name of every segment, oldest first. Raises Corruption when one is missing in between, OSError."""
    found: list[tuple[int, str]] = []
    for name in disk.list(directory):
        parsed = parse_name(name)
        if parsed is not None:
            found.append((parsed[0], name))
    found.sort()
    for (before, _), (sequence, name) in pairwise(found):
        if sequence != before + 1:
            what = "two files have this number" if sequence == before else f"segment {before + 1} before it is missing"
            raise corruption(join(directory, name), 0, what)
    return found


def recover(disk: Disk, directory: str) -> tuple[Recovered, Tail]:
    """Read everything, repair the tail. Raises Corruption, OSError."""
    names = list_segments(disk, directory)
    if not names:
        raise corruption(directory, 0, "it holds no log file")
    replay = Replay()
    for sequence, name in names[:-1]:
        path = join(directory, name)
        replay.add_segment(path, name, sequence, _read(disk, path), is_last=False)
    sequence, name = names[-1]
    path = join(directory, name)
    file = disk.open(path)
    try:
        data = file.pread(file.size(), 0)
        end = replay.add_segment(path, name, sequence, data, is_last=True)
        replay.finish(join(directory, names[0][1]))
        _settle(disk, directory, file, data, end)
    except BaseException:
        file.close()
        raise
    return _result(replay, file, end)


def _result(replay: Replay, file: File, end: SegmentEnd) -> tuple[Recovered, Tail]:
    state = replay.state
    assert replay.identity is not None, "every segment begins with an identity"
    recovered = Recovered(
        identity=replay.identity,
        hard_state=HardState(state.term, state.vote, state.commit),
        log_start_index=state.start_index,
        log_start_term=state.start_term,
        entries=replay.entries,
        cut_bytes=end.used_until - end.offset,
        segments=len(replay.segments),
    )
    *closed, active = replay.segments
    return recovered, Tail(closed, active, file, end.offset, replay.batch, replay.seed, state.copy())


def _settle(disk: Disk, directory: str, file: File, data: bytes, end: SegmentEnd) -> None:
    """Make the end of the log durable as it was read, and the names of the files too."""
    # The frame at 0 was durable before its file had a name, see segment.py.
    if end.last_frame_offset > 0:
        file.pwritev((data[end.last_frame_offset : end.offset],), end.last_frame_offset)
    for offset in range(end.offset, end.used_until, _ZEROS_BYTES):
        file.pwritev((bytes(min(_ZEROS_BYTES, end.used_until - offset)),), offset)
    file.fdatasync()
    if NEXT_NAME in disk.list(directory):
        disk.unlink(join(directory, NEXT_NAME))
    disk.sync_directory(directory)


def _read(disk: Disk, path: str) -> bytes:
    file = disk.open(path)
    try:
        return file.pread(file.size(), 0)
    finally:
        file.close()
