"""A frame: what one sync writes, with one checksum, chained to the frame before it. Sans-IO.

The frame is the unit of recovery because the sync is the unit of durability: a disk may persist the sectors of an unfinished
sync in any order, and a frame is only begun once the sync of the one before it has returned. Hence the rule for a bad frame:

- something that begins like a later frame stands behind it: the bad one had been acknowledged: corruption;
- nothing of the kind: it is the unfinished last sync, which nobody was told about: cut it. (Damage to the very last
  acknowledged frame looks the same, therefore `Wal.close` leaves one more behind it.)

So that later frames are found whatever the bad one's length says, or if it is all zeros, each says its place and its number.
"""

import struct
from dataclasses import dataclass
from typing import Final, Sequence
from zlib import crc32

MAGIC: Final = b"\xf1Wal"
ALIGNMENT: Final = 8
HEADER_BYTES: Final = 32
BODY_BYTES_MAX: Final = 2**32 - ALIGNMENT

# Frames start at multiples of 8 bytes. Magic, length of the body, batch (one more than the frame before), offset in the file,
# seed (the checksum of the frame before); then the checksum: CRC-32 of these 28 bytes and the body, started from the seed.
_PREFIX = struct.Struct("<4sIQQI")
_CHECKSUM = struct.Struct("<I")
_PLACE = struct.Struct("<QQ")  # batch and offset, 8 bytes behind the start
_PADDING = tuple(bytes(-size % ALIGNMENT) for size in range(ALIGNMENT))
_ZEROS = bytes(64 * 1024)
_pack_prefix = _PREFIX.pack
_pack_checksum = _CHECKSUM.pack


@dataclass(slots=True)
class Frame:
    """A good frame of a file: `body` is padded with zeros, `end` is where the next one starts."""

    batch: int
    seed: int
    checksum: int
    body: memoryview
    end: int


def padded(size_bytes: int) -> int:
    """The size of a whole frame with a body of `size_bytes`."""
    return HEADER_BYTES + size_bytes + -size_bytes % ALIGNMENT


def encode(records: Sequence[bytes], *, batch: int, offset: int, seed: int) -> tuple[bytes, bytes, int]:
    """Header, padded body and checksum of a frame of these records, to be written at `offset`."""
    body = b"".join(records)
    if len(body) % ALIGNMENT:
        body += _PADDING[len(body) % ALIGNMENT]
    assert 0 < len(body) <= BODY_BYTES_MAX, "a frame has a body, and its length fits into 32 bits"
    assert offset % ALIGNMENT == 0, "frames are aligned, or the search behind a bad one would miss them"
    prefix = _pack_prefix(MAGIC, len(body), batch, offset, seed)
    checksum = crc32(body, crc32(prefix, seed))
    return prefix + _pack_checksum(checksum), body, checksum


def decode(data: memoryview, offset: int) -> Frame | None:
    """The frame at `offset`, or None when there is no good one. Whether it continues a chain is for the caller to check."""
    if offset + HEADER_BYTES > len(data):
        return None
    magic, length, batch, place, seed = _PREFIX.unpack_from(data, offset)
    end = offset + HEADER_BYTES + length
    if magic != MAGIC or place != offset or length == 0 or length % ALIGNMENT or end > len(data):
        return None
    body_start = offset + HEADER_BYTES
    (checksum,) = _CHECKSUM.unpack_from(data, body_start - _CHECKSUM.size)
    body = data[body_start:end]
    if crc32(body, crc32(data[offset : offset + _PREFIX.size], seed)) != checksum:
        return None
    return Frame(batch, seed, checksum, body, end)


def find_later(data: bytes, offset: int, batch_min: int) -> int | None:
    """Where, at or behind `offset`, a frame of batch `batch_min` or later begins.

    Its start is evidence enough, its checksum is not asked for: a frame that is bad too was still begun after the sync of the
    one before it had returned. An old frame that a client stored as a value has another place or an earlier batch.
    """
    start = offset
    while (start := data.find(MAGIC, start)) >= 0:
        if start % ALIGNMENT == 0 and start + HEADER_BYTES <= len(data):
            batch, place = _PLACE.unpack_from(data, start + ALIGNMENT)
            if place == start and batch >= batch_min:
                return start
        start += 1
    return None


def used_until(data: bytes, offset: int) -> int:
    """The end of what is not zero at or behind `offset`; `offset` itself when all of it is zero."""
    end = len(data)
    # Comparing blocks is ten times as fast as stripping bytes, and most of a segment is zeros.
    while end - offset >= len(_ZEROS) and data[end - len(_ZEROS) : end] == _ZEROS:
        end -= len(_ZEROS)
    start = max(offset, end - len(_ZEROS))
    return start + len(data[start:end].rstrip(b"\0"))


__all__ = [
    "ALIGNMENT",
    "BODY_BYTES_MAX",
    "HEADER_BYTES",
    "MAGIC",
    "Frame",
    "decode",
    "encode",
    "find_later",
    "padded",
    "used_until",
]
