"""Records: what a frame holds. Sans-IO; numbers and layouts here are on disk, so never change or reuse one.

A record is a kind byte and fixed fields, then what they announce; all little-endian. It has no checksum of its own: the frame
around it has one, and a frame is good as a whole or not at all. Kind 0 is padding and ends the frame.
"""

import struct
from dataclasses import dataclass, field
from typing import Callable, Final, Iterator, Sequence, TypeAlias

from raftkv.raft.messages import Entry, HardState
from raftkv.units import Index, NodeId, Term

FORMAT_VERSION: Final = 1

PADDING: Final = 0
SEGMENT: Final = 1
HARD_STATE: Final = 2
ENTRIES: Final = 3
LOG_START: Final = 4
SNAPSHOT: Final = 5

_KIND_AND_VERSION = struct.Struct("<BB")
_SEGMENT = struct.Struct("<BBQQQQHHQQQQQQ")
_HARD_STATE = struct.Struct("<BQQQ")
_ENTRIES = struct.Struct("<BIQ")
_ENTRY = struct.Struct("<QIB")
_ONE_ENTRY = struct.Struct("<BIQQIB")  # _ENTRIES and one _ENTRY
_MARK = struct.Struct("<BQQ")

MARK_BYTES: Final = _MARK.size


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose log this is. `incarnation`: 63 random bits, drawn when the data directory was made."""

    cluster_name: str
    node_id: NodeId
    name: str
    incarnation: int


@dataclass(slots=True)
class LogState:
    """What a log comes to, entries aside: the hard state, and the indexes between which entries are."""

    term: Term = 0
    vote: NodeId = 0
    commit: Index = 0
    start_index: Index = 0  # entries up to here are gone
    start_term: Term = 0
    last_index: Index = 0

    def copy(self) -> "LogState":
        return LogState(self.term, self.vote, self.commit, self.start_index, self.start_term, self.last_index)


@dataclass(slots=True)
class SegmentHeader:
    """The first record of a segment. `state` is that of the log before this segment's own records."""

    identity: Identity
    sequence: int
    size_bytes: int  # preallocated: a shorter file was cut by somebody
    state: LogState = field(default_factory=LogState)


@dataclass(slots=True)
class LogStart:
    """Entries up to `index` are not needed any more."""

    index: Index
    term: Term


@dataclass(slots=True)
class SnapshotMark:
    """The whole log was replaced by a snapshot up to and including `index`."""

    index: Index
    term: Term


Record: TypeAlias = SegmentHeader | HardState | list[Entry] | LogStart | SnapshotMark


def encode_segment(header: SegmentHeader) -> bytes:
    identity, state = header.identity, header.state
    cluster_name, name = identity.cluster_name.encode(), identity.name.encode()
    fixed = _SEGMENT.pack(
        SEGMENT,
        FORMAT_VERSION,
        header.sequence,
        header.size_bytes,
        identity.node_id,
        identity.incarnation,
        len(cluster_name),
        len(name),
        state.term,
        state.vote,
        state.commit,
        state.start_index,
        state.start_term,
        state.last_index,
    )
    return fixed + cluster_name + name


def encode_hard_state(term: Term, vote: NodeId, commit: Index) -> bytes:
    return _HARD_STATE.pack(HARD_STATE, term, vote, commit)


def encode_entries(entries: Sequence[Entry]) -> list[bytes]:
    """The pieces of one record. Asserts that the indexes have no gap: a hole in a log is found when written, not when read."""
    if len(entries) == 1:
        entry = entries[0]
        data = entry.data
        return [_ONE_ENTRY.pack(ENTRIES, 1, entry.index, entry.term, len(data), entry.kind), data]
    assert entries, "an empty record would say nothing"
    index = first_index = entries[0].index
    pieces = [_ENTRIES.pack(ENTRIES, len(entries), first_index)]
    for entry in entries:
        assert entry.index == index, f"entry {entry.index} where {index} was due: the log has no gaps (3.5)"
        pieces.append(_ENTRY.pack(entry.term, len(entry.data), entry.kind))
        index += 1
    pieces.extend(entry.data for entry in entries)
    return pieces


def encode_log_start(mark: LogStart) -> bytes:
    return _MARK.pack(LOG_START, mark.index, mark.term)


def encode_snapshot(mark: SnapshotMark) -> bytes:
    return _MARK.pack(SNAPSHOT, mark.index, mark.term)


def decode_records(body: memoryview) -> Iterator[Record]:
    """The records of a good frame. Raises ValueError for what this version does not know."""
    offset = 0
    while offset < len(body):
        kind = body[offset]
        if kind == PADDING:
            if any(body[offset:]):
                raise ValueError("padding is not zero")
            return
        decoder = _DECODERS.get(kind)
        if decoder is None:
            raise ValueError(f"record kind {kind} is not known to this version")
        try:
            record, offset = decoder(body, offset)
        except struct.error as error:
            raise ValueError(f"a record of kind {kind} ends early") from error
        yield record


def _decode_segment(body: memoryview, offset: int) -> tuple[SegmentHeader, int]:
    _, version = _KIND_AND_VERSION.unpack_from(body, offset)
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}, this raftkv knows {FORMAT_VERSION}")
    fields = _SEGMENT.unpack_from(body, offset)
    _, _, sequence, size_bytes, node_id, incarnation, cluster_name_bytes, name_bytes = fields[:8]
    cluster_name_at = offset + _SEGMENT.size
    name_at = cluster_name_at + cluster_name_bytes
    end = name_at + name_bytes
    identity = Identity(
        cluster_name=_take(body, cluster_name_at, name_at).decode(),
        node_id=node_id,
        name=_take(body, name_at, end).decode(),
        incarnation=incarnation,
    )
    return SegmentHeader(identity, sequence, size_bytes, LogState(*fields[8:])), end


def _decode_hard_state(body: memoryview, offset: int) -> tuple[HardState, int]:
    _, term, vote, commit = _HARD_STATE.unpack_from(body, offset)
    return HardState(term, vote, commit), offset + _HARD_STATE.size


def _decode_entries(body: memoryview, offset: int) -> tuple[list[Entry], int]:
    _, count, first_index = _ENTRIES.unpack_from(body, offset)
    table_at = offset + _ENTRIES.size
    data_at = table_at + count * _ENTRY.size
    entries = []
    for number, (term, size_bytes, kind) in enumerate(_ENTRY.iter_unpack(_take(body, table_at, data_at))):
        entries.append(Entry(first_index + number, term, kind, _take(body, data_at, data_at + size_bytes)))
        data_at += size_bytes
    return entries, data_at


def _decode_log_start(body: memoryview, offset: int) -> tuple[LogStart, int]:
    _, index, term = _MARK.unpack_from(body, offset)
    return LogStart(index, term), offset + _MARK.size


def _decode_snapshot(body: memoryview, offset: int) -> tuple[SnapshotMark, int]:
    _, index, term = _MARK.unpack_from(body, offset)
    return SnapshotMark(index, term), offset + _MARK.size


def _take(body: memoryview, start: int, end: int) -> bytes:
    if end > len(body):
        raise ValueError("a record is longer than its frame")
    return bytes(body[start:end])


_DECODERS: Final[dict[int, Callable[[memoryview, int], tuple[Record, int]]]] = {
    SEGMENT: _decode_segment,
    HARD_STATE: _decode_hard_state,
    ENTRIES: _decode_entries,
    LOG_START: _decode_log_start,
    SNAPSHOT: _decode_snapshot,
}
