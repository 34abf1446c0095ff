"""What is refused without looking at any state."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.errors import RaftKVError
from raftkv.limits import Limits
from raftkv.wire.commands import (
    APPEND,
    DELETE_RANGE,
    GET,
    GUARDED,
    IGNORE_LEASE,
    IGNORE_VALUE,
    INCREMENT,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASE_TTL,
    LEASES,
    PREV_KV,
    PUT,
    RANGE,
    READ_TXN,
    SERIALIZABLE,
    SYSTEM_WRITES,
    TXN,
)
from raftkv.wire.intervals import Intervals
from raftkv.wire.settings import settings_of
from raftkv.wire.validate import validate

LIMITS = Limits(key_bytes_max=10, value_bytes_max=20, request_bytes_max=40, txn_operations_max=4)
OPEN = b"\0"


def verdict(command: Any) -> str:
    codes = []
    for bounds in (LIMITS, settings_of(LIMITS)):
        try:
            validate(command, bounds)
            codes.append("ok")
        except RaftKVError as error:
            codes.append(error.code if not error.may_have_happened else "unsure")
    assert codes[0] == codes[1]
    return codes[0]


def put(key: bytes, **changes: Any) -> list[Any]:
    return [PUT, 0, key, changes.get("value", b""), changes.get("lease", 0), changes.get("flags", 0)]


def delete(key: bytes, range_end: bytes = b"") -> list[Any]:
    return [DELETE_RANGE, 0, key, range_end, 0]


def ranged(key: bytes, *changes: tuple[int, Any]) -> list[Any]:
    command: list[Any] = [RANGE, 0, key, b"", 0, 0, 0, 0, 0, 0, 0, 0]
    for position, value in changes:
        command[position] = value
    return command


def txn(success: list[Any], failure: list[Any] | None = None, compares: list[Any] | None = None) -> list[Any]:
    return [TXN, 0, compares or [], success, failure or []]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (put(b"k" * 10, value=b"v" * 20), "ok"),
        (put(b""), "key_empty"),
        (put(b"k" * 11), "key_too_large"),
        (put(b"k", value=b"v" * 21), "value_too_large"),
        (put(b"k", value=b"v", flags=IGNORE_VALUE), "value_provided"),
        (put(b"k", lease=1, flags=IGNORE_LEASE), "lease_provided"),
        (put(b"k", flags=IGNORE_VALUE | IGNORE_LEASE | PREV_KV), "ok"),
        (put(b"k", lease=-(2**63)), "ok"),
        (put(b"k", lease=2**63), "invalid_request"),
        (put(b"k", flags=8), "invalid_request"),
        (delete(b"k", b"\0"), "ok"),
        (delete(b""), "key_empty"),
        ([GET, 0, b"k"], "ok"),
        ([GET, 8, b"k"], "invalid_request"),
        ([GET, 0, b""], "key_empty"),
        ([INCREMENT, 5, b"k", -(2**63)], "ok"),
        ([INCREMENT, 5, b"k", "1"], "invalid_request"),
        ([INCREMENT, 5, b"k", 1, 7], "ok"),
        ([INCREMENT, 5, b"k", 1, "7"], "invalid_request"),
        ([INCREMENT, 5, b"k", 1, 7, 7], "invalid_request"),
        ([APPEND, 5, b"k", b"v", -(2**63)], "ok"),
        ([APPEND, 5, b"k", b"v", 2**63], "invalid_request"),
        ([APPEND, 5, b"k", b"v" * 21], "value_too_large"),
        (ranged(b"k" * 11), "ok"),
        (ranged(b"k" * 12), "key_too_large"),
        (ranged(b"k", (3, b"k" * 12)), "key_too_large"),
        (ranged(b"k", (6, 3)), "invalid_request"),
        (ranged(b"k", (7, 5)), "invalid_request"),
        (ranged(b"k", (4, None)), "invalid_request"),
        (ranged(b"k", (4, -1), (5, -1)), "ok"),
        (ranged(b""), "key_empty"),
        ([LEASE_GRANT, 5, -(2**63), 0], "ok"),
        ([LEASE_GRANT, 5, 0, 9_000_000_000_000], "ok"),
        ([LEASE_GRANT, 5, 0, 9_000_000_000_001], "lease_ttl_too_large"),
        ([LEASE_GRANT, 5, 2**63, 1], "invalid_request"),
        ([LEASE_GRANT, 5, 0], "invalid_request"),
        ([LEASE_REVOKE, 5, "7"], "invalid_request"),
        ([LEASE_TTL, 8, 7], "ok"),
        ([LEASE_TTL, 1, 7], "invalid_request"),
        ([LEASES, 1], "ok"),
        ([LEASES, 2], "invalid_request"),
        ([GUARDED, 5, [[b"g", 2]], put(b"k", value=b"v" * 20)], "ok"),
        ([GUARDED, 5, [[b"g" * 10, 2], [b"h" * 10, 2]], put(b"k", value=b"v" * 20)], "request_too_large"),
        ([GUARDED, 5, [[b"g" * 11, 2]], put(b"k")], "key_too_large"),
    ],
)
def test_shapes_and_sizes(command: Any, expected: str) -> None:
    assert verdict(command) == expected


def test_only_commands_of_clients_pass() -> None:
    for command in ([], [1], 5, None, {}, [None, 0], [True, 0, b"k"], *([op, 0] for op in SYSTEM_WRITES)):
        assert verdict(command) == "invalid_request"


def test_a_transaction_counts_its_widest_list_and_a_nested_one_has_what_is_left() -> None:
    assert verdict(txn([delete(b"a")] * 4)) == "ok"
    assert verdict(txn([], [delete(b"a")] * 5)) == "too_many_operations"
    assert verdict(txn([], [], [[0, 0, b"a", 0, b""]] * 5)) == "too_many_operations"
    assert verdict(txn([txn([delete(b"a")] * 3)])) == "ok"
    assert verdict(txn([txn([delete(b"a")] * 4)])) == "too_many_operations"
    nested = txn([])
    for _ in range(300):
        nested = txn([nested])
    assert verdict(nested) == "too_many_operations"


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ([], "key_not_found"),
        (None, "invalid_request"),
        ([GET, 0, b"k"], "invalid_request"),
        ([INCREMENT, 0, b"k", 1], "invalid_request"),
        ([PUT, 1, b"k", b"", 0, 0], "invalid_request"),
        ([PUT], "invalid_request"),
        ([[], 0], "invalid_request"),
        (put(b""), "key_empty"),
        (ranged(b"k", (1, 1)), "ok"),
    ],
)
def test_operations_of_a_transaction(operation: Any, expected: str) -> None:
    assert verdict(txn([operation])) == expected
    assert verdict(txn([], [operation])) == expected
    assert verdict(txn([txn([operation])])) == expected


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        ([0, 3, b"k", b"v", b""], "ok"),
        ([0, 3, b"k", None, b"\0"], "ok"),
        ([3, 4, b"k", None, b""], "ok"),
        ([0, 3, b"k", 1, b""], "invalid_request"),
        ([0, 0, b"k", b"v", b""], "invalid_request"),
        ([4, 0, b"k", 0, b""], "invalid_request"),
        ([0, 5, b"k", 0, b""], "invalid_request"),
        ([0, 0, b"", 0, b""], "key_empty"),
        ([0, 0, b"k", 0], "invalid_request"),
        ("text", "invalid_request"),
    ],
)
def test_compares(compare: Any, expected: str) -> None:
    assert verdict(txn([], [], [compare])) == expected


@pytest.mark.parametrize(
    ("flags", "operation", "expected"),
    [
        (0, ranged(b"k", (1, 1)), "ok"),
        (SERIALIZABLE, ranged(b"k", (1, 1)), "ok"),
        (2, ranged(b"k", (1, 1)), "invalid_request"),
        (0, txn([ranged(b"k", (1, 1))], [ranged(b"k", (1, 1))]), "ok"),
        (0, txn([], [put(b"k")]), "invalid_request"),
        (0, put(b"k"), "invalid_request"),
        (0, ranged(b"", (1, 1)), "key_empty"),
    ],
)
def test_nothing_but_ranges_stands_in_a_transaction_that_reads(flags: int, operation: Any, expected: str) -> None:
    for branches in ([operation], []), ([], [operation]):
        assert verdict([READ_TXN, flags, [], *branches]) == expected


def test_all_keys_and_values_of_a_transaction_count_for_its_size() -> None:
    assert verdict(txn([put(b"a", value=b"v" * 19)], [put(b"b", value=b"v" * 19)])) == "ok"
    assert verdict(txn([put(b"a", value=b"v" * 19)], [put(b"b", value=b"v" * 20)])) == "request_too_large"
    assert verdict(txn([put(b"a", value=b"v" * 19)], [txn([put(b"b", value=b"v" * 20)])])) == "request_too_large"


@pytest.mark.parametrize(
    ("operations", "accepted"),
    [
        ([put(b"a"), put(b"a")], False),
        ([put(b"a"), put(b"b")], True),
        ([put(b"b"), delete(b"a", b"c")], False),
        ([delete(b"b"), put(b"b")], False),
        ([put(b"c"), delete(b"a", b"c")], True),
        ([delete(b"a", b"c"), delete(b"b", b"d")], True),
        # A delete up to the end, or of nothing, counts as empty.
        ([delete(b"a", OPEN), put(b"b")], True),
        ([delete(b"c", b"a"), put(b"b")], True),
        # Then and else of one nested transaction exclude each other.
        ([txn([put(b"a")], [put(b"a")])], True),
        ([txn([put(b"a")]), txn([put(b"a")])], False),
        ([txn([put(b"a")], [put(b"b")]), txn([], [put(b"b")])], False),
        # Order-dependent between nested siblings.
        ([txn([put(b"a")]), txn([delete(b"a")])], True),
        ([txn([delete(b"a")]), txn([put(b"a")])], False),
        ([txn([], [delete(b"a")]), txn([put(b"a")])], False),
        # A put of this level conflicts with anything nested, wherever it stands.
        ([put(b"a"), txn([delete(b"a")])], False),
        ([txn([put(b"a")]), put(b"a")], False),
        ([txn([put(b"a")]), delete(b"a")], False),
        ([txn([txn([put(b"a")])]), put(b"a")], False),
    ],
)
def test_duplicate_keys(operations: list[Any], accepted: bool) -> None:
    expected = "ok" if accepted else "duplicate_key"
    assert verdict(txn(operations)) == expected
    assert verdict(txn([], operations)) == expected


def test_branches_do_not_conflict() -> None:
    assert verdict(txn([put(b"a")], [put(b"a")])) == "ok"


edges = st.binary(min_size=1, max_size=2)


@given(st.lists(st.tuples(edges, edges), max_size=12), edges)
def test_intervals_are_the_union(intervals: list[tuple[bytes, bytes]], key: bytes) -> None:
    held = Intervals()
    for start, end in intervals:
        held.add(start, end)
    assert (key in held) == any(start <= key < end for start, end in intervals)
    assert held.starts == sorted(held.starts)
    assert all(end < start for end, start in zip(held.ends, held.starts[1:], strict=False))


items = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.binary(max_size=12)
    | st.text(max_size=3)
    | st.floats(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)


@given(st.sampled_from([PUT, DELETE_RANGE, TXN, INCREMENT, APPEND, GET, RANGE]), st.lists(items, max_size=12))
def test_nothing_but_an_error_of_ours_comes_out(operation: int, rest: list[Any]) -> None:
    verdict([operation, *rest])
    verdict([operation, 0, *rest])
    verdict([TXN, 0, [], [[operation, 0, *rest]], []])
