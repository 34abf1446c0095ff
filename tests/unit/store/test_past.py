"""Encoded keys keep their order, and pointers are found by revision."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from raftkv.store.keyspace import SHARED_KEY_BYTES
from raftkv.store.past import (
    PLAIN_KEY_BYTES,
    decode_item,
    encode_key,
    is_long,
    newest_of,
    newest_pointer,
    pack_pointers,
    seek_key,
)
from raftkv.store.records import POSITION

short_keys = st.binary(min_size=1, max_size=12) | st.text("\0\1\xff", min_size=1, max_size=12).map(str.encode)
long_keys = st.builds(lambda size, tail: b"p" * size + tail, st.integers(430, 460), st.binary(max_size=40))


def pointer(revision: int, sub: int = 0, kind: int = 0) -> bytes:
    return POSITION.pack(revision, sub) + bytes((kind,))


@given(short_keys, short_keys, st.integers(0, 2**40), st.integers(0, 2**40))
def test_short_keys_keep_their_order_whatever_position_follows(one: bytes, other: bytes, a: int, b: int) -> None:
    if one != other:
        assert (one < other) == (encode_key(one) + POSITION.pack(a, 0) < encode_key(other) + POSITION.pack(b, 0))


@given(long_keys | short_keys, long_keys | short_keys)
def test_a_search_that_starts_at_a_key_meets_it_and_all_behind_it(start: bytes, other: bytes) -> None:
    if other >= start:
        assert encode_key(other) + POSITION.pack(2, 0) >= seek_key(start)


@given(long_keys | short_keys, st.integers(1, 300))
def test_records_give_back_the_key_and_every_pointer(key: bytes, count: int) -> None:
    pointers = [pointer(2 * revision, 1) for revision in range(1, count + 1)]
    items = list(pack_pointers(key, pointers))
    assert all(decode_item(item) == (key, encode_key(key)) for item in items)
    assert all(len(item[0]) < SHARED_KEY_BYTES for item in items)
    assert all(one[0] < two[0] for one, two in pairwise(items))
    for revision in range(2, 2 * count + 3):
        # The floor look-up of the store, done on a list.
        bound = encode_key(key) + POSITION.pack(revision, 2**32 - 1)
        item = max(item for item in items if item[0] <= bound)
        assert newest_pointer(item, revision) == pointer(min(revision // 2, count) * 2, 1)


def test_where_plain_keys_end() -> None:
    assert not is_long(encode_key(b"k" * (PLAIN_KEY_BYTES - 2)))
    assert is_long(encode_key(b"k" * (PLAIN_KEY_BYTES - 1)))
    assert is_long(encode_key(b"\0" * (PLAIN_KEY_BYTES // 2)))
    assert len({encode_key(b"k" * PLAIN_KEY_BYTES + tail) for tail in (b"", b"a", b"b")}) == 3


def test_the_newest_pointer_at_a_revision() -> None:
    pointers = [pointer(3), pointer(5, 0), pointer(5, 1, 1), pointer(9)]
    found = [newest_of(pointers, revision) for revision in (2, 3, 4, 5, 8, 9, 10)]
    assert found == [None, pointer(3), pointer(3), pointer(5, 1, 1), pointer(5, 1, 1), pointer(9), pointer(9)]
