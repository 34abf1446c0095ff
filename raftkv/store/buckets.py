"""Long keys: all keys with the same first 480 bytes share one record, a bucket, which holds them sorted.

Pure functions on the bucket's bytes, used by both keyspace twins so that they behave alike. A bucket is read and written as
a whole: fine for the few long keys that real systems have, and never a limit on key length.
"""

import struct
from bisect import bisect_left
from typing import Final, Iterable

from raftkv.store.keyspace import SHARED_KEY_BYTES, Item

_LENGTHS: Final = struct.Struct(">II")


def unpack_bucket(prefix: bytes, data: bytes) -> list[Item]:
    """The (whole key, value) items of a bucket, in key order."""
    assert len(prefix) == SHARED_KEY_BYTES, "only shared records are buckets"
    items: list[Item] = []
    offset = 0
    while offset < len(data):
        suffix_bytes, value_bytes = _LENGTHS.unpack_from(data, offset)
        value_start = offset + _LENGTHS.size + suffix_bytes
        items.append(
            (prefix + data[offset + _LENGTHS.size : value_start], data[value_start : value_start + value_bytes])
        )
        offset = value_start + value_bytes
    assert offset == len(data), "a bucket ends with its last item"
    return items


def pack_bucket(items: Iterable[Item]) -> bytes:
    """Undo unpack_bucket; the items must be sorted and share their first bytes."""
    parts: list[bytes] = []
    for key, value in items:
        parts += (_LENGTHS.pack(len(key) - SHARED_KEY_BYTES, len(value)), key[SHARED_KEY_BYTES:], value)
    return b"".join(parts)


def find_in_bucket(prefix: bytes, data: bytes, key: bytes) -> bytes | None:
    """The value of `key`, or None."""
    items = unpack_bucket(prefix, data)
    position = bisect_left(items, key, key=_key_of)
    if position < len(items) and items[position][0] == key:
        return items[position][1]
    return None


def change_bucket(prefix: bytes, data: bytes, puts: Iterable[Item], deletes: Iterable[bytes]) -> bytes:
    """The bucket after the changes; empty when nothing is left in it."""
    held = dict(unpack_bucket(prefix, data))
    for key in deletes:
        held.pop(key, None)
    held.update(puts)
    return pack_bucket(sorted(held.items()))


def split_long(puts: Iterable[Item], deletes: Iterable[bytes]) -> dict[bytes, tuple[list[Item], list[bytes]]]:
    """The changes of long keys, by the record that they share."""
    shared: dict[bytes, tuple[list[Item], list[bytes]]] = {}
    for item in puts:
        if len(item[0]) >= SHARED_KEY_BYTES:
            shared.setdefault(item[0][:SHARED_KEY_BYTES], ([], []))[0].append(item)
    for key in deletes:
        if len(key) >= SHARED_KEY_BYTES:
            shared.setdefault(key[:SHARED_KEY_BYTES], ([], []))[1].append(key)
    return shared


def _key_of(item: Item) -> bytes:
    return item[0]
