"""The index of ranges against asking each of them."""

from random import Random

from raftkv.store import topics
from raftkv.store.topics import Topics
from raftkv.wire.commands import prefix_range_end


def test_every_range_that_has_the_key_is_found_once_and_no_other() -> None:
    random = Random(1)
    letters = [b"\0", b"a", b"b", b"\xff"]

    def name() -> bytes:
        return b"".join(random.choices(letters, k=random.randint(1, 3)))

    for _ in range(300):
        index, ranges = Topics(), {}
        for _ in range(random.randint(0, 12)):
            start = name()
            prefix_end = prefix_range_end(start)
            end = random.choice([start + b"\0", None, name(), None if prefix_end == b"\0" else prefix_end])
            if end is None or start < end:
                ranges[start, end] = index.obtain(start, end)
                assert index.obtain(start, end) is ranges[start, end]
        for gone in random.sample(list(ranges), len(ranges) // 3):
            index.drop(ranges.pop(gone))
        for _ in range(20):
            key = name()
            expected = {
                id(topic) for (start, end), topic in ranges.items() if start <= key and (end is None or key < end)
            }
            found = [id(topic) for topic in index.match(key)]
            assert len(found) == len(set(found))
            assert set(found) == expected


def test_prefixes_of_too_many_lengths_are_found_all_the_same() -> None:
    index = Topics()
    for length in range(1, 3 * topics.PREFIX_LENGTHS_MAX):
        index.obtain(b"k" * length, prefix_range_end(b"k" * length))
    assert len(index.match(b"k" * 100)) == 100
    assert index.match(b"x") == []
