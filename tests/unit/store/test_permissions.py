"""Unions of key ranges, against a set of keys that is small enough to look at each."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.store.permissions import Coverage, Grants, is_valid_range
from raftkv.wire.users import READ, READWRITE, WRITE

LETTERS = [b"", b"\0", b"a", b"b", b"c"]
KEYS = sorted({b"".join(parts) for parts in product(LETTERS, repeat=3)} - {b""})
ENDS = [b"", *KEYS]
ranges = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(ENDS)), max_size=5)


def is_in(key: bytes, start: bytes, end: bytes) -> bool:
    if not end:
        return key == start
    return start <= key and (end == b"\0" or key < end)


@given(ranges, st.sampled_from(KEYS))
def test_a_key_is_covered_when_one_range_has_it(granted: list[tuple[bytes, bytes]], key: bytes) -> None:
    assert Coverage(granted).covers_key(key) == any(is_in(key, *pair) for pair in granted)


@given(ranges, st.sampled_from(KEYS), st.sampled_from(ENDS))
def test_a_range_is_covered_only_when_all_of_its_keys_are(
    granted: list[tuple[bytes, bytes]], start: bytes, end: bytes
) -> None:
    """The keys of the sample stand for all: whatever lies between two of them, and behind them, is looked at, too."""
    if Coverage(granted).covers(start, end):
        inside = [key for key in KEYS if is_in(key, start, end)]
        assert inside, "an empty range is not permitted"
        for key in inside:
            for near in (key, key + b"\0", key + b"\xff"):
                if is_in(near, start, end):
                    assert any(is_in(near, *pair) for pair in granted)
        if end == b"\0":
            assert any(is_in(b"\xff" * 9, *pair) for pair in granted)
    elif end not in (b"", b"\0") and start < end:
        coverage = Coverage(granted)
        edges = {start, *(edge for pair in granted for edge in (pair[0], pair[0] + b"\0", pair[1]) if edge)}
        gaps = [edge for edge in edges if is_in(edge, start, end) and not coverage.covers_key(edge)]
        assert gaps, "what is not covered has a first key that is not, and it is an edge"


def test_two_grants_that_adjoin_permit_what_spans_them() -> None:
    coverage = Coverage([(b"a", b"b"), (b"b", b"c")])
    assert coverage.covers(b"a", b"c")
    assert not coverage.covers(b"a", b"c\0")
    assert not Coverage([(b"a", b"b"), (b"b\0", b"c")]).covers(b"a", b"c")
    assert Coverage([(b"a", b"b"), (b"b", b""), (b"b\0", b"c")]).covers(b"a", b"c"), "a single key closes the gap"


def test_the_end_of_the_keys_is_open() -> None:
    coverage = Coverage([(b"m", b"\0")])
    assert coverage.covers(b"m", b"\0")
    assert coverage.covers(b"\xff" * 40, b"")
    assert not coverage.covers(b"a", b"\0")
    assert not Coverage([(b"m", b"\xff")]).covers(b"m", b"\0")


@pytest.mark.parametrize(("start", "end"), [(b"b", b"a"), (b"b", b"b")])
def test_ranges_without_keys_are_permitted_to_nobody(start: bytes, end: bytes) -> None:
    assert not Coverage([(b"\0", b"\0")]).covers(start, end)
    assert not Coverage([(start, end)]).covers_key(b"b")
    assert not is_valid_range(start, end)


def test_a_permission_has_a_key() -> None:
    assert not is_valid_range(b"", b"")
    assert not is_valid_range(b"", b"\0")
    assert is_valid_range(b"a", b"")
    assert is_valid_range(b"a", b"\0")


def test_many_keys_at_once() -> None:
    assert Coverage([(b"\0", b"\0")]).covers_all([b"a", b"z"])
    assert not Coverage([(b"a", b"c")]).covers_all([b"a", b"z"])
    assert Coverage([]).covers_all([]), "no key needs no permission"


def test_kinds() -> None:
    grants = Grants("ann", ["r"], [(READ, b"r", b""), (WRITE, b"w", b""), (READWRITE, b"x", b"")], is_root=False)
    assert [grants.read.covers_key(key) for key in (b"r", b"w", b"x")] == [True, False, True]
    assert [grants.write.covers_key(key) for key in (b"r", b"w", b"x")] == [False, True, True]
