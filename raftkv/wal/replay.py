"""Replay: from the bytes of the segments, oldest first, to the log that they describe. Sans-IO.

Later records win: entries replace the suffix that they overlap, a snapshot replaces everything. Whatever does not fit
together raises Corruption: a bad frame anywhere but at the very end (see frame.py for the rule), a broken chain, a gap in the
entries, a segment that does not continue the one before. Only the last segment may end in a torn frame.
"""

from dataclasses import dataclass
from typing import Final

from raftkv.raft.messages import Entry, HardState
from raftkv.units import Index
from raftkv.wal import frame
from raftkv.wal.record import Identity, LogStart, LogState, Record, SegmentHeader, SnapshotMark, decode_records
from raftkv.wal.segment import Segment, corruption

_FIRST_BATCH: Final = 1


@dataclass(slots=True)
class SegmentEnd:
    """Where the frames of a segment end. Between `offset` and `used_until` lies a torn frame, if these differ."""

    last_frame_offset: int
    offset: int
    used_until: int


class Replay:
    """Feed it every segment in order, then call `finish`."""

    def __init__(self) -> None:
        self.identity: Identity | None = None
        self.state = LogState()
        self.entries: list[Entry] = []
        self.segments: list[Segment] = []
        self.batch = 0
        self.seed = 0
        self._end = ("", 0)  # of the segment before: path and offset
        self._base: Index = 0  # the index before entries[0]; above the log start while older segments are missing

    def add_segment(self, path: str, name: str, sequence: int, data: bytes, *, is_last: bool) -> SegmentEnd:
        """Replay one segment. Raises Corruption."""
        assert not self.segments or sequence == self.segments[-1].sequence + 1, (
            "a missing segment is noticed by its name"
        )
        view = memoryview(data)
        first = frame.decode(view, 0)
        if first is None:
            raise corruption(path, 0, "its first frame is bad, and that was durable before the file got its name")
        self._begin_segment(path, name, sequence, first)
        view = view[: self.segments[-1].size_bytes]
        if len(view) < self.segments[-1].size_bytes:
            raise corruption(path, len(view), f"it was cut: it had {self.segments[-1].size_bytes} bytes")

        last_frame_offset, offset = 0, first.end
        while (found := frame.decode(view, offset)) is not None:
            if found.batch != self.batch + 1 or found.seed != self.seed:
                raise corruption(path, offset, f"batch {found.batch} does not follow batch {self.batch}")
            self._apply_frame(path, offset, found)
            last_frame_offset, offset = offset, found.end
        end = SegmentEnd(last_frame_offset, offset, frame.used_until(data[: len(view)], offset))
        self._check_end(path, data, end, is_last)
        self.segments[-1].last_index = self.state.last_index
        self._end = (path, offset)
        return end

    def finish(self, path: str) -> None:
        """All segments are in. Raises Corruption when entries behind the log start are missing."""
        if self._base > self.state.start_index:
            raise corruption(
                path,
                0,
                f"the entries {self.state.start_index + 1} to {self._base} are in no file: older segments are missing",
            )
        assert self._base == self.state.start_index, "entries up to the log start are gone"
        assert self.state.last_index == self._base + len(self.entries), "the log has no gaps"

    def _begin_segment(self, path: str, name: str, sequence: int, first: frame.Frame) -> None:
        try:
            header = next(decode_records(first.body))
        except (ValueError, StopIteration) as error:
            raise corruption(path, 0, f"unreadable header: {error}") from error
        if type(header) is not SegmentHeader or header.sequence != sequence:
            raise corruption(path, 0, f"its header does not belong to segment {sequence}")
        if self.identity is None:
            self.identity = header.identity
            self.state = header.state.copy()
            self._base = self.state.last_index
            if sequence == 1 and (first.batch != _FIRST_BATCH or self.state != LogState()):
                raise corruption(path, 0, "the first segment does not begin an empty log")
        else:
            before = self.segments[-1].name
            before_path, before_end = self._end
            if header.identity != self.identity:
                raise corruption(path, 0, f"it belongs to {header.identity}, {before} to {self.identity}")
            if first.batch != self.batch + 1 or first.seed != self.seed or header.state != self.state:
                raise corruption(before_path, before_end, f"frames are missing: {name} goes on from a later one")
        self.segments.append(Segment(name, sequence, header.size_bytes, 0))
        self._apply_frame(path, 0, first)

    def _check_end(self, path: str, data: bytes, end: SegmentEnd, is_last: bool) -> None:
        """Torn tail, clean end, or corruption: the rule of frame.py."""
        if end.used_until == end.offset:
            return
        if not is_last:
            raise corruption(path, end.offset, "a bad frame in a segment that others follow")
        # The bad frame would be batch + 1, so what proves that it had been acknowledged is batch + 2 or later.
        later = frame.find_later(data, end.offset + frame.ALIGNMENT, self.batch + 2)
        if later is not None:
            raise corruption(path, end.offset, f"a bad frame, with a later one behind it at byte {later}")

    def _apply_frame(self, path: str, offset: int, found: frame.Frame) -> None:
        self.batch, self.seed = found.batch, found.checksum
        try:
            for record in decode_records(found.body):
                self._apply(record)
        except ValueError as error:
            raise corruption(path, offset, str(error)) from error

    def _apply(self, record: Record) -> None:
        """One record. Raises ValueError when it does not fit to those before."""
        state = self.state
        if type(record) is list:
            self._apply_entries(record)
        elif type(record) is HardState:
            state.term, state.vote, state.commit = record.term, record.vote, record.commit
        elif type(record) is LogStart:
            self._apply_log_start(record)
        elif type(record) is SnapshotMark:
            self.entries.clear()
            self._base = state.last_index = state.start_index = record.index
            state.start_term = record.term
            self._forget_from(1)

    def _apply_entries(self, entries: list[Entry]) -> None:
        state = self.state
        first_index = entries[0].index
        if not state.start_index < first_index <= state.last_index + 1:
            raise ValueError(
                f"entry {first_index} does not fit to a log from {state.start_index + 1} to {state.last_index}"
            )
        if first_index <= self._base:
            self.entries.clear()
            self._base = first_index - 1
        if first_index <= state.last_index:
            del self.entries[first_index - self._base - 1 :]
            self._forget_from(first_index)
        self.entries.extend(entries)
        state.last_index = entries[-1].index

    def _apply_log_start(self, mark: LogStart) -> None:
        state = self.state
        if not state.start_index <= mark.index <= state.last_index:
            raise ValueError(f"log start {mark.index} is outside of the log")
        if mark.index > self._base:
            gone = mark.index - self._base
            if self.entries[gone - 1].term != mark.term:
                raise ValueError(
                    f"log start {mark.index} has term {mark.term}, its entry {self.entries[gone - 1].term}"
                )
            del self.entries[:gone]
            self._base = mark.index
        state.start_index, state.start_term = mark.index, mark.term

    def _forget_from(self, index: Index) -> None:
        """Older segments are not needed for entries from `index` on: they were replaced."""
        for segment in self.segments:
            segment.last_index = min(segment.last_index, index - 1)
