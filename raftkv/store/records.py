"""One event of the store as bytes: packed once by the put or delete, then shared by the tables HEAD and LOG and the digest.

    revision u64, sub u32, kind u8, create_revision u64, version u64, lease i64, key length u32, key, value

Big-endian, so the first 12 bytes order the events (the position in LOG), and the first 13 point to one and tell its kind
without a look at it. A tombstone has zeros and no value. The format is on disk and in snapshots.
"""

import struct
from typing import Any, Final

from raftkv.units import Revision

PUT_EVENT: Final = 0
DELETE_EVENT: Final = 1

HEADER: Final = struct.Struct(">QIBQQqI")
HEADER_BYTES: Final = HEADER.size
POSITION: Final = struct.Struct(">QI")
POSITION_BYTES: Final = POSITION.size
POINTER_BYTES: Final = POSITION_BYTES + 1
GENERATION: Final = struct.Struct(">QQq")
"""create_revision, version and lease, right behind the pointer."""

assert (HEADER_BYTES, POSITION_BYTES) == (41, 12), "the format on disk is fixed"

unpack_header = HEADER.unpack_from

_REVISION: Final = struct.Struct(">Q")


def revision_of(record: bytes) -> int:
    """The mod_revision of a record."""
    revision: int = _REVISION.unpack_from(record)[0]
    return revision


def create_revision_of(record: bytes) -> Revision:
    create_revision: int = GENERATION.unpack_from(record, POINTER_BYTES)[0]
    return create_revision


def lease_of(record: bytes) -> int:
    lease: int = unpack_header(record)[5]
    return lease


def key_of(record: bytes) -> bytes:
    return record[HEADER_BYTES : HEADER_BYTES + unpack_header(record)[6]]


def value_of(record: bytes) -> bytes:
    return record[HEADER_BYTES + unpack_header(record)[6] :]


def without_value(record: bytes) -> bytes:
    """The record of the same event with an empty value."""
    return record[: HEADER_BYTES + unpack_header(record)[6]]


def key_value(record: bytes) -> list[Any]:
    """As in answers: [key, create_revision, mod_revision, version, lease, value]."""
    revision, _, kind, create_revision, version, lease, key_bytes = unpack_header(record)
    assert kind == PUT_EVENT, "a tombstone is no key-value"
    value_start = HEADER_BYTES + key_bytes
    return [record[HEADER_BYTES:value_start], create_revision, revision, version, lease, record[value_start:]]
