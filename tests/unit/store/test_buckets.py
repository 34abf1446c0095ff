"""Long keys in shared records."""

from raftkv.store.buckets import change_bucket, find_in_bucket, pack_bucket, split_long, unpack_bucket
from raftkv.store.keyspace import SHARED_KEY_BYTES

PREFIX = b"p" * SHARED_KEY_BYTES


def test_a_bucket_gives_back_its_items_in_order() -> None:
    items = [(PREFIX, b"exact"), (PREFIX + b"\0", b""), (PREFIX + b"a" * 3000, b"v" * 70000)]
    assert unpack_bucket(PREFIX, pack_bucket(items)) == items
    assert unpack_bucket(PREFIX, b"") == []


def test_a_key_is_found_only_when_it_is_there() -> None:
    data = pack_bucket([(PREFIX, b"1"), (PREFIX + b"b", b"2")])
    assert find_in_bucket(PREFIX, data, PREFIX) == b"1"
    assert find_in_bucket(PREFIX, data, PREFIX + b"b") == b"2"
    assert find_in_bucket(PREFIX, data, PREFIX + b"a") is None
    assert find_in_bucket(PREFIX, data, PREFIX + b"c") is None


def test_changes_keep_the_order_and_the_last_one_leaves_nothing() -> None:
    data = change_bucket(PREFIX, b"", [(PREFIX + b"b", b"1"), (PREFIX + b"a", b"2")], [])
    assert unpack_bucket(PREFIX, data) == [(PREFIX + b"a", b"2"), (PREFIX + b"b", b"1")]
    data = change_bucket(PREFIX, data, [(PREFIX + b"a", b"3")], [PREFIX + b"b", PREFIX + b"never"])
    assert unpack_bucket(PREFIX, data) == [(PREFIX + b"a", b"3")]
    assert change_bucket(PREFIX, data, [], [PREFIX + b"a"]) == b""


def test_only_long_keys_are_split_off() -> None:
    shorter = PREFIX[:-1]
    split = split_long([(shorter, b"1"), (PREFIX, b"2"), (PREFIX + b"x", b"3")], [shorter, b"q" * 500])
    assert split == {
        PREFIX: ([(PREFIX, b"2"), (PREFIX + b"x", b"3")], []),
        b"q" * SHARED_KEY_BYTES: ([], [b"q" * 500]),
    }
