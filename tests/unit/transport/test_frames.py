"""Frames: every message there and back, split everywhere, and no bytes that raise anything but ProtocolError."""

import itertools
import struct
import typing
import zlib
from dataclasses import fields
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.errors import ProtocolError
from raftkv.raft import messages as raft
from raftkv.transport.frames import (
    LAYOUTS,
    Forward,
    ForwardAnswer,
    FrameReader,
    Goodbye,
    Hello,
    PackedEntries,
    Refusal,
    encode_frame,
    encode_frames,
)

FRAME_MAX = 1 << 20
ENTRIES = [raft.Entry(8, 3, 1, b"a" * 300), raft.Entry(9, 3, 0, b""), raft.Entry(10, 4, 2, b"\x00\xff")]
META = raft.SnapshotMeta(
    7,
    3,
    raft.Configuration(frozenset({1, 2**63}), frozenset({2}), frozenset({3}), frozenset({4}), True),
    size_bytes=2**40,
    checksum=2**32 - 1,
    snapshot_id=2**63,
)
ONE_OF_EACH: list[Any] = [
    raft.RequestVote(5, 1, 2, 10, 4, True, False),
    raft.RequestVoteResponse(5, 1, 2, True, True),
    raft.AppendEntries(5, 1, 2, 7, 3, 6, ENTRIES),
    raft.AppendEntries(5, 1, 2, 7, 3, 6),
    raft.AppendEntriesResponse(5, 1, 2, 10, True, 4, 2, 900),
    raft.Heartbeat(5, 1, 2, 6, 99, 6, 2**64 - 1),
    raft.HeartbeatResponse(5, 1, 2, 99, 900, 41, 0xFFFFFFFF, True),
    raft.InstallSnapshot(5, 1, 2, META, 512, b"chunk", True),
    raft.InstallSnapshotResponse(5, 1, 2, 77, 1024, False),
    raft.TimeoutNow(5, 1, 2),
    raft.ReadIndex(5, 1, 2, 2**63),
    raft.ReadIndexResponse(5, 1, 2, 2**63, 10),
    Forward(1, 1, 2, b"request"),
    ForwardAnswer(1, 2, 1, b"answer"),
    Hello(1, 2**64 - 1, "default", 2**63 - 1, "n1", 2**64 - 1, "0.1.0", "n1:2380"),
    Refusal("wrong cluster: überall"),
    Goodbye(1),
]


def framed(body: Any) -> bytes:
    packed = body if isinstance(body, bytes) else msgpack.packb(body)
    return struct.pack(">II", len(packed), zlib.crc32(packed)) + packed


def test_every_message_of_the_core_has_a_layout() -> None:
    known = {layout.cls for layout in LAYOUTS}
    assert set(typing.get_args(raft.Message)) <= known
    assert {type(message) for message in ONE_OF_EACH} == known


def test_layouts_list_the_fields_in_their_order() -> None:
    for layout in LAYOUTS:
        assert layout.fields == tuple(field.name for field in fields(layout.cls)), layout.cls


def test_there_and_back() -> None:
    assert FrameReader(FRAME_MAX).feed(encode_frame(ONE_OF_EACH)) == ONE_OF_EACH


def test_the_bytes_of_a_frame_are_a_contract() -> None:
    frame = encode_frame([raft.AppendEntries(5, 1, 2, 7, 3, 6, [raft.Entry(8, 3, 1, b"x")]), raft.TimeoutNow(5, 1, 2)])
    assert frame == framed([[3, 5, 1, 2, 7, 3, 6, [[8, 3, 1, b"x"]]], [9, 5, 1, 2]])


def test_split_at_every_byte() -> None:
    stream = encode_frame(ONE_OF_EACH[:4]) + encode_frame(ONE_OF_EACH[4:]) + encode_frame(ONE_OF_EACH[:1])
    expected = [*ONE_OF_EACH, ONE_OF_EACH[0]]
    for cut in range(len(stream) + 1):
        reader = FrameReader(FRAME_MAX)
        assert reader.feed(stream[:cut]) + reader.feed(stream[cut:]) == expected
        assert reader.buffered_bytes == 0


def test_byte_by_byte() -> None:
    reader = FrameReader(FRAME_MAX)
    stream = encode_frame(ONE_OF_EACH) * 2
    received = [message for position in range(len(stream)) for message in reader.feed(stream[position : position + 1])]
    assert received == ONE_OF_EACH * 2


@given(st.lists(st.integers(0, 5000), max_size=8))
def test_split_anywhere(cuts: list[int]) -> None:
    stream = encode_frame(ONE_OF_EACH) * 3
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    reader = FrameReader(FRAME_MAX)
    received: list[Any] = []
    for start, end in itertools.pairwise(edges):
        received += reader.feed(stream[start:end])
    assert received == ONE_OF_EACH * 3


def test_the_same_entries_are_packed_once() -> None:
    cache = PackedEntries()
    assert cache.pack(ENTRIES) is cache.pack(list(ENTRIES))
    assert cache.pack(ENTRIES[1:]) is not cache.pack(ENTRIES)
    assert msgpack.unpackb(cache.pack([])) == []


def test_frames_stay_below_the_bound_and_oversize_messages_are_handed_back() -> None:
    large = Forward(9, 1, 2, b"x" * 1000)
    small = [Forward(number, 1, 2, b"y" * 100) for number in range(20)]
    frames, oversize = encode_frames([*small[:10], large, *small[10:]], 512, PackedEntries())
    assert oversize == [large]
    assert len(frames) > 4
    assert all(len(frame) <= 512 + 8 for frame in frames)
    assert FrameReader(512).feed(b"".join(frames)) == small


def test_a_large_frame_is_refused_before_it_is_buffered() -> None:
    reader = FrameReader(4096)
    with pytest.raises(ProtocolError, match="over the bound of 4096"):
        reader.feed(struct.pack(">II", 4097, 0))
    assert reader.buffered_bytes == 0


def test_every_flipped_bit_is_noticed() -> None:
    frame = encode_frame(ONE_OF_EACH)
    for position in range(8, len(frame)):
        broken = frame[:position] + bytes((frame[position] ^ 0x10,)) + frame[position + 1 :]
        with pytest.raises(ProtocolError, match="checksum"):
            FrameReader(FRAME_MAX).feed(broken)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91\xa1\xff",
        7,
        {},
        [7],
        [[]],
        [["a"]],
        [[True, 1, 2, 3]],
        [[200, 1, 2, 3]],
        [[9, 5, 1]],
        [[9, 5, 1, 2, 3]],
        [[9, 5, 1, -2]],
        [[9, 5, 1, None]],
        [[9, 5, 1, True]],
        [[9, 5, 1, 2.0]],
        [[1, 5, 1, 2, 3, 4, 1, False]],
        [[3, 5, 1, 2, 7, 3, 6, [[9, 3, 1, b"gap"]]]],
        [[3, 5, 1, 2, 7, 3, 6, [[8, 3, 1, "text"]]]],
        [[3, 5, 1, 2, 7, 3, 6, [[8, 3, 1]]]],
        [[3, 5, 1, 2, 7, 3, 6, [[8, -3, 1, b""]]]],
        [[3, 5, 1, 2, 7, 3, 6, [8]]],
        [[3, 5, 1, 2, 7, 3, 6, None]],
        [[7, 5, 1, 2, [7, 3, 1, 1, 1, True, [1], [], []], 0, b"", True]],
        [[7, 5, 1, 2, [7, 3, 1, 1, 1, True, [1], [], [], ["n1"]], 0, b"", True]],
        [[7, 5, 1, 2, [7, 3, 1, 1, 1, True, [0], [], [], []], 0, b"", True]],
        [[7, 5, 1, 2, [-7, 3, 1, 1, 1, True, [1], [], [], []], 0, b"", True]],
        [msgpack.ExtType(1, b"")],
        [[9, 5, 1, msgpack.Timestamp(1)]],
    ],
    ids=repr,
)
def test_refused_bodies(body: Any) -> None:
    with pytest.raises(ProtocolError):
        FrameReader(FRAME_MAX).feed(framed(body))


def test_an_array_that_promises_more_than_the_frame_holds() -> None:
    nested = b"\xdd\x00\x00\xff\xff" * 900
    with pytest.raises(ProtocolError, match="no msgpack"):
        FrameReader(FRAME_MAX).feed(framed(nested))


@given(st.binary(max_size=200))
def test_random_bodies(body: bytes) -> None:
    try:
        FrameReader(FRAME_MAX).feed(framed(body))
    except ProtocolError:
        return
    assert body[:1] in (b"\x90", b"\xdc", b"\xdd") or body[0] & 0xF0 == 0x90


@given(st.lists(st.binary(max_size=64), max_size=5))
def test_random_streams(chunks: list[bytes]) -> None:
    reader = FrameReader(4096)
    try:
        for chunk in chunks:
            reader.feed(chunk)
    except ProtocolError:
        return
    assert reader.buffered_bytes == sum(map(len, chunks)) or b"\x00" in b"".join(chunks)


ITEM = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=8) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=11),
    max_leaves=14,
)


@given(st.sampled_from([layout.code for layout in LAYOUTS]), st.lists(ITEM, max_size=10))
def test_random_items(code: int, items: list[Any]) -> None:
    try:
        decoded = FrameReader(FRAME_MAX).feed(framed([[code, *items]]))
    except ProtocolError:
        return
    assert FrameReader(FRAME_MAX).feed(encode_frame(decoded)) == decoded
