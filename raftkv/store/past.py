"""Keys and values of the table PAST: where the superseded versions and the tombstones of a key are found in LOG.

A range at an old revision then costs one look-up per key that has changed since, not a walk over the history. Pointers of one
key that became durable together share a record: key = encoded user key + position of the oldest of them, value = their
pointers (records.py), ascending. So the version of a key at revision R is found by one floor look-up and one bisection.

The encoding keeps the order of user keys although a position follows: a zero byte becomes 00 ff, and 00 01 ends the key. A
key that is encoded to more than PLAIN_KEY_BYTES is cut there and followed by a digest of it, and its value begins with the
whole key: versions of one key stay together, while keys that share such a prefix are ordered by digest and have to be sorted.
"""

import struct
from bisect import bisect_left
from hashlib import blake2b
from typing import Final, Iterator, Sequence

from raftkv.store.keyspace import SHARED_KEY_BYTES, Item
from raftkv.store.records import POINTER_BYTES, POSITION, POSITION_BYTES

PLAIN_KEY_BYTES: Final = 448
_DIGEST_BYTES: Final = 16
_LONG_KEY_BYTES: Final = PLAIN_KEY_BYTES + _DIGEST_BYTES
_POINTERS_MAX: Final = 100  # of one record: about 1.3 KB, below the size at which LMDB starts overflow pages
_U32: Final = struct.Struct(">I")

assert _LONG_KEY_BYTES + POSITION_BYTES < SHARED_KEY_BYTES, "records of PAST are never shared"

LAST_POSITION: Final = b"\xff" * POSITION_BYTES


def encode_key(key: bytes) -> bytes:
    """The part of a PAST key before the position."""
    encoded = key.replace(b"\0", b"\0\xff") + b"\0\1"
    if len(encoded) <= PLAIN_KEY_BYTES:
        return encoded
    return encoded[:PLAIN_KEY_BYTES] + blake2b(key, digest_size=_DIGEST_BYTES).digest()


def seek_key(key: bytes) -> bytes:
    """Where to start looking for `key` and the ones behind it. Of keys that share a long prefix, lesser ones are met too."""
    return (key.replace(b"\0", b"\0\xff") + b"\0\1")[:PLAIN_KEY_BYTES]


def is_long(encoded: bytes) -> bool:
    return len(encoded) == _LONG_KEY_BYTES


def decode_item(item: Item) -> tuple[bytes, bytes]:
    """The user key of a record and its encoded form."""
    encoded = item[0][:-POSITION_BYTES]
    if is_long(encoded):
        (key_bytes,) = _U32.unpack_from(item[1])
        return item[1][_U32.size : _U32.size + key_bytes], encoded
    assert encoded.endswith(b"\0\1"), "a short key is stored whole"
    return encoded[:-2].replace(b"\0\xff", b"\0"), encoded


def pack_pointers(key: bytes, pointers: Sequence[bytes]) -> Iterator[Item]:
    """The records for pointers of one key, oldest first."""
    encoded = encode_key(key)
    head = _U32.pack(len(key)) + key if is_long(encoded) else b""
    for start in range(0, len(pointers), _POINTERS_MAX):
        chosen = pointers[start : start + _POINTERS_MAX]
        yield encoded + chosen[0][:POSITION_BYTES], head + b"".join(chosen)


def unpack_pointers(item: Item) -> tuple[bytes, list[bytes]]:
    """What stands in front of the pointers of a record, and the pointers."""
    value = item[1]
    start = _U32.size + _U32.unpack_from(value)[0] if is_long(item[0][:-POSITION_BYTES]) else 0
    return value[:start], [value[offset : offset + POINTER_BYTES] for offset in range(start, len(value), POINTER_BYTES)]


def newest_pointer(item: Item, revision: int) -> bytes:
    """The newest pointer of a record at or before `revision`; the record's first one is."""
    found = newest_of(unpack_pointers(item)[1], revision)
    assert found is not None, "the record was found by its oldest pointer"
    return found


def newest_of(pointers: Sequence[bytes], revision: int) -> bytes | None:
    """The newest of ascending pointers at or before `revision`, or None."""
    position = bisect_left(pointers, POSITION.pack(revision + 1, 0))
    return pointers[position - 1] if position else None
