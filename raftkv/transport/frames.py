"""Peer frames: bytes on a connection between two members and back, sans-IO.

    frame   u32 length of the body, u32 CRC-32 (zlib) of the body, body; both numbers big-endian
    body    msgpack array of messages; a message is a flat array that starts with its type code

The batch is the unit: a frame carries whatever one loop turn had for one peer. Nothing but ProtocolError leaves the
decoder, whatever the bytes: what comes out is typed as raftkv/raft/messages.py says, so the core may assert. Codes and the
order of items are a contract between versions: never reuse a code; a changed message is a new code, offered to a peer
whose handshake said that it knows it.
"""

import struct
import zlib
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, Callable, Final, Iterable, Sequence, TypeAlias

import msgpack

from raftkv.errors import ProtocolError
from raftkv.raft import messages as raft
from raftkv.units import Index, NodeId, Term

PROTOCOL_VERSION: Final = 1
HELLO_FRAME_BYTES_MAX: Final = 4096

_HEADER: Final = struct.Struct(">II")
_MESSAGE_BYTES_MIN: Final = 5  # an array header, a code and three small integers
_ARRAY_ITEMS_FLOOR: Final = 64  # the longest flat message has fewer items
_CONFIGURATION_MEMBERS_MAX: Final = 1024


@dataclass(slots=True)
class Hello:
    """The first message of both sides. `cluster_id` 0: not known yet, which fits every cluster of that name.

    `address` is where the sender listens for peers: it may have moved, and the receiver may never have heard of it.
    """

    protocol_version: int
    cluster_id: int
    cluster_name: str
    node_id: NodeId
    name: str
    incarnation: int
    version: str
    address: str = ""


@dataclass(slots=True)
class Refusal:
    """Instead of the acceptor's Hello: why this connection is not wanted. The connection ends after it."""

    reason: str


@dataclass(slots=True)
class Goodbye:
    """The connection ends on purpose: the receiver must not take it for the death of the sender."""

    source: NodeId


@dataclass(slots=True)
class Forward:
    """A request that `source` passes on to `target`; the payload is the service's own."""

    request_id: int
    source: NodeId
    target: NodeId
    payload: bytes


@dataclass(slots=True)
class ForwardAnswer:
    """The answer to the Forward with this `request_id`; source and target are those of this message."""

    request_id: int
    source: NodeId
    target: NodeId
    payload: bytes


RoutedMessage: TypeAlias = raft.Message | Forward | ForwardAnswer
"""What owners send and receive: it knows its source and its target."""

PeerMessage: TypeAlias = RoutedMessage | Hello | Refusal | Goodbye

_Items: TypeAlias = list[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """How one message type lies in a frame: `fields` in order, then their types; integers are never negative."""

    code: int
    cls: type[Any]
    fields: tuple[str, ...]
    types: tuple[type[Any], ...]  # of the whole array, the code first
    values: Callable[[Any], tuple[Any, ...]]
    integers: Callable[[_Items], tuple[int, ...]]


def _layout(code: int, cls: type[Any], **fields: type[Any]) -> Layout:
    types = (int, *fields.values())
    integers = [position for position, kind in enumerate(types) if kind is int]
    # A getter of one name returns no tuple: a single field is wrapped, and the code's own position is listed twice.
    getter = attrgetter(*fields)
    values = getter if len(fields) > 1 else lambda message: (getter(message),)
    return Layout(code, cls, tuple(fields), types, values, itemgetter(0, *integers))


_TO = {"term": int, "source": int, "target": int}

LAYOUTS: Final[tuple[Layout, ...]] = (
    _layout(1, raft.RequestVote, **_TO, last_index=int, last_term=int, pre_vote=bool, transfer=bool),
    _layout(2, raft.RequestVoteResponse, **_TO, granted=bool, pre_vote=bool),
    _layout(3, raft.AppendEntries, **_TO, previous_index=int, previous_term=int, commit_index=int, entries=list),
    _layout(
        4,
        raft.AppendEntriesResponse,
        **_TO,
        match_index=int,
        rejected=bool,
        hint_index=int,
        hint_term=int,
        promise_ms=int,
    ),
    _layout(5, raft.Heartbeat, **_TO, commit_index=int, read_round=int, digest_index=int, digest=int),
    _layout(6, raft.HeartbeatResponse, **_TO, read_round=int, promise_ms=int, digest_index=int, digest=int, unfit=bool),
    _layout(7, raft.InstallSnapshot, **_TO, snapshot=list, offset=int, data=bytes, done=bool),
    _layout(8, raft.InstallSnapshotResponse, **_TO, snapshot_id=int, next_offset=int, installed=bool),
    _layout(9, raft.TimeoutNow, **_TO),
    _layout(10, raft.ReadIndex, **_TO, context=int),
    _layout(11, raft.ReadIndexResponse, **_TO, context=int, index=int),
    _layout(32, Forward, request_id=int, source=int, target=int, payload=bytes),
    _layout(33, ForwardAnswer, request_id=int, source=int, target=int, payload=bytes),
    _layout(
        64,
        Hello,
        protocol_version=int,
        cluster_id=int,
        cluster_name=str,
        node_id=int,
        name=str,
        incarnation=int,
        version=str,
        address=str,
    ),
    _layout(65, Refusal, reason=str),
    _layout(66, Goodbye, source=int),
)

_BY_CODE: Final = {layout.code: layout for layout in LAYOUTS}
_BY_TYPE: Final = {layout.cls: layout for layout in LAYOUTS}
assert len(_BY_CODE) == len(LAYOUTS) == len(_BY_TYPE), "a code or a type is listed twice"

_ENTRY_TYPES: Final = (int, int, int, bytes)
_MEMBER_SETS: Final = attrgetter("voters", "voters_outgoing", "learners", "learners_next")
_SNAPSHOT_TYPES: Final = (int, int, int, int, int, bool, list, list, list, list)
_APPEND_PREFIX: Final = b"\x98"  # an array of eight: the seven integers of an AppendEntries, then its entries

_pack: Final[Callable[[Any], bytes]] = msgpack.Packer(autoreset=True, use_bin_type=True).pack
_pack_array_header: Final[Callable[[int], bytes]] = msgpack.Packer(autoreset=True).pack_array_header


class PackedEntries:
    """Packed entry lists of one loop turn, so that the same entries are encoded once for all followers.

    By the Log Matching property (3.5) first index, last index and last term name a list of entries within one cluster.
    """

    __slots__ = ("_packed",)

    def __init__(self) -> None:
        self._packed: dict[tuple[Index, Index, Term], bytes] = {}

    def pack(self, entries: Sequence[raft.Entry]) -> bytes:
        if not entries:
            return b"\x90"
        last = entries[-1]
        key = (entries[0].index, last.index, last.term)
        packed = self._packed.get(key)
        if packed is None:
            packed = self._packed[key] = _pack([(entry.index, entry.term, entry.kind, entry.data) for entry in entries])
        return packed


def encode_message(message: PeerMessage, entries: PackedEntries) -> bytes:
    """One message as msgpack, without a frame."""
    layout = _BY_TYPE[type(message)]
    values = layout.values(message)
    if layout.code == 3:
        packed = _pack((3, *values[:-1]))
        return b"".join((_APPEND_PREFIX, packed[1:], entries.pack(values[-1])))
    if layout.code == 7:
        values = tuple(_snapshot_items(value) if type(value) is raft.SnapshotMeta else value for value in values)
    return _pack((layout.code, *values))


def encode_frame(messages: Sequence[PeerMessage], entries: PackedEntries | None = None) -> bytes:
    """All of `messages` in one frame; the caller knows that they fit into the receiver's bound."""
    cache = entries or PackedEntries()
    return _frame([encode_message(message, cache) for message in messages])


def encode_frames(
    messages: Iterable[PeerMessage], frame_bytes_max: int, entries: PackedEntries
) -> tuple[list[bytes], list[PeerMessage]]:
    """As few frames as the bound allows, in order, and the messages that do not fit into any frame."""
    frames: list[bytes] = []
    oversize: list[PeerMessage] = []
    room_max = frame_bytes_max - 5  # the longest array header
    parts: list[bytes] = []
    part_bytes = 0
    for message in messages:
        packed = encode_message(message, entries)
        if len(packed) > room_max:
            oversize.append(message)
            continue
        if part_bytes + len(packed) > room_max:
            frames.append(_frame(parts))
            parts, part_bytes = [], 0
        parts.append(packed)
        part_bytes += len(packed)
    if parts:
        frames.append(_frame(parts))
    return frames, oversize


def _frame(parts: list[bytes]) -> bytes:
    head = _pack_array_header(len(parts))
    length, crc = len(head), zlib.crc32(head)
    for part in parts:
        length += len(part)
        crc = zlib.crc32(part, crc)
    return b"".join((_HEADER.pack(length, crc), head, *parts))


class FrameReader:
    """Frames out of a stream of bytes, however it is cut. After a ProtocolError the connection is of no more use."""

    __slots__ = ("_buffer", "frame_bytes_max")

    def __init__(self, frame_bytes_max: int) -> None:
        assert frame_bytes_max > 0, "a frame needs room"
        self.frame_bytes_max = frame_bytes_max  # raised by the owner once the handshake is over
        self._buffer = bytearray()

    @property
    def buffered_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[PeerMessage]:
        """The messages of all frames that `data` completes. Raises ProtocolError."""
        buffer = self._buffer
        if buffer:
            buffer += data
        chunk: bytes | bytearray = buffer or data
        messages: list[PeerMessage] = []
        position = self._decode_frames(chunk, messages)
        if chunk is buffer:
            del buffer[:position]
        elif position < len(data):
            buffer += data[position:] if position else data
        assert len(buffer) <= self.frame_bytes_max + _HEADER.size + len(data), "only one incomplete frame is kept"
        return messages

    def _decode_frames(self, chunk: bytes | bytearray, messages: list[PeerMessage]) -> int:
        """Append the messages of the whole frames in `chunk`; returns how many bytes they took."""
        position, end = 0, len(chunk)
        with memoryview(chunk) as view:
            while end - position >= _HEADER.size:
                length, crc = _HEADER.unpack_from(chunk, position)
                if length > self.frame_bytes_max:
                    raise ProtocolError(f"a frame of {length} bytes is over the bound of {self.frame_bytes_max}")
                body_start = position + _HEADER.size
                if body_start + length > end:
                    break
                with view[body_start : body_start + length] as body:
                    if zlib.crc32(body) != crc:
                        raise ProtocolError("a frame's checksum is wrong")
                    messages.extend(_decode_body(body))
                position = body_start + length
        return position


def _decode_body(body: memoryview) -> list[PeerMessage]:
    try:
        raw = msgpack.unpackb(
            body,
            raw=False,
            use_list=True,
            # An array header alone may ask for gigabytes of list: no honest array has more items than the frame has room for.
            max_array_len=max(_ARRAY_ITEMS_FLOOR, len(body) // _MESSAGE_BYTES_MIN),
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"a frame is no msgpack: {error}") from None
    if type(raw) is not list:
        raise ProtocolError("a frame is an array of messages")
    return [_decode_message(items) for items in raw]


def _decode_message(items: Any) -> PeerMessage:
    layout = _BY_CODE.get(items[0]) if type(items) is list and items and type(items[0]) is int else None
    if layout is None:
        raise ProtocolError("a message is an array that starts with a known type code")
    if tuple(map(type, items)) != layout.types or min(layout.integers(items)) < 0:
        raise ProtocolError(f"the items of a {layout.cls.__name__} have wrong types, number or signs")
    if layout.code == 3:
        items[7] = _decode_entries(items[7], items[4])
    elif layout.code == 7:
        items[4] = _decode_snapshot(items[4])
    message: PeerMessage = layout.cls(*items[1:])
    return message


def _decode_entries(raw: _Items, previous_index: Index) -> list[raft.Entry]:
    entries: list[raft.Entry] = []
    index = previous_index
    for items in raw:
        index += 1
        if type(items) is not list or tuple(map(type, items)) != _ENTRY_TYPES:
            raise ProtocolError("an entry is an array of index, term, kind and data")
        if items[0] != index or items[1] < 0 or items[2] < 0:
            raise ProtocolError("the entries of an AppendEntries follow its previous_index without gaps")
        entries.append(raft.Entry(items[0], items[1], items[2], items[3]))
    return entries


def _snapshot_items(meta: raft.SnapshotMeta) -> _Items:
    configuration = meta.configuration
    return [
        meta.index,
        meta.term,
        meta.size_bytes,
        meta.checksum,
        meta.snapshot_id,
        configuration.auto_leave,
        *map(sorted, _MEMBER_SETS(configuration)),
    ]


def _decode_snapshot(items: _Items) -> raft.SnapshotMeta:
    if tuple(map(type, items)) != _SNAPSHOT_TYPES or min(items[:5]) < 0:
        raise ProtocolError("the items of a snapshot's description have wrong types, number or signs")
    index, term, size_bytes, checksum, snapshot_id, auto_leave, *member_lists = items
    for members in member_lists:
        if len(members) > _CONFIGURATION_MEMBERS_MAX or any(type(m) is not int or m <= 0 for m in members):
            raise ProtocolError("a configuration lists members by their positive ids")
    voters, voters_outgoing, learners, learners_next = map(frozenset, member_lists)
    configuration = raft.Configuration(voters, voters_outgoing, learners, learners_next, auto_leave)
    return raft.SnapshotMeta(index, term, configuration, size_bytes, checksum, snapshot_id)


__all__ = [
    "Forward",
    "ForwardAnswer",
    "FrameReader",
    "Goodbye",
    "Hello",
    "PackedEntries",
    "PeerMessage",
    "Refusal",
    "RoutedMessage",
    "encode_frame",
    "encode_frames",
]
