"""The commands behind the verbs, and paging."""

import pytest

from raftkv.client import requests
from raftkv.client.requests import Pager
from raftkv.client.txn import (
    CreateRevision,
    Delete,
    Get,
    Lease,
    ModRevision,
    Put,
    Range,
    Txn,
    Value,
    Version,
    exists,
    missing,
)
from raftkv.errors import InvalidRequest
from raftkv.wire.commands import (
    COUNT_ONLY,
    DELETE_RANGE,
    KEYS_ONLY,
    OK,
    PREV_KV,
    PUT,
    RANGE,
    SERIALIZABLE,
    TXN,
    UNCOUNTED,
    Command,
)


def test_keys_and_values_are_bytes_or_text() -> None:
    for value in ("ü", "ü".encode(), bytearray("ü".encode()), memoryview("ü".encode())):
        assert requests.as_bytes(value) == "ü".encode()  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not NoneType"):
        requests.as_bytes(None)  # type: ignore[arg-type]


def test_ranges() -> None:
    assert requests.range_("a") == [RANGE, 0, b"a", b"", 0, 0, 0, 0, 0, 0, 0, 0]
    assert requests.range_("a", "b", stale=True, keys_only=True, count_only=True)[:4] == [
        RANGE,
        SERIALIZABLE | KEYS_ONLY | COUNT_ONLY,
        b"a",
        b"b",
    ]
    assert requests.range_(prefix="ab")[2:4] == [b"ab", b"ac"]
    assert requests.range_(prefix=b"a\xff")[2:4] == [b"a\xff", b"b"]
    assert requests.range_(prefix="")[2:4] == [b"\0", b"\0"]
    assert requests.range_("a", descending=True)[6:8] == [2, 0]
    assert requests.range_("a", sort_by="mod")[6:8] == [1, 3]
    for bad in ({"limit": -1}, {"revision": -1}, {"sort_by": "x"}, {"prefix": "p"}):
        with pytest.raises(InvalidRequest):
            requests.range_("a", **bad)  # type: ignore[arg-type]


def test_deleting_by_prefix() -> None:
    assert requests.delete_prefix("a") == [DELETE_RANGE, 0, b"a", b"b", 0]
    assert requests.delete_prefix("") == [DELETE_RANGE, 0, b"\0", b"\0", 0]
    assert requests.delete("a", prev_kv=True) == [DELETE_RANGE, 0, b"a", b"", PREV_KV]


def answer(keys: list[bytes], more: bool, count: int, revision: int = 9) -> list[object]:
    return [OK, revision, [[key, 1, 1, 1, 0, b""] for key in keys], more, count]


def test_pages_go_on_after_the_last_key_at_the_first_revision() -> None:
    pager = Pager(requests.range_(prefix="k"))
    kvs = pager.feed(answer([b"k1", b"k2"], True, 5))
    assert [kv.key for kv in kvs] == [b"k1", b"k2"]
    assert pager.command is not None
    assert pager.command[1:6] == [UNCOUNTED, b"k2\0", b"l", 0, 9]
    kvs += pager.feed(answer([b"k3"], False, 1, revision=12))
    assert pager.command is None
    assert pager.result(kvs).count == 5, "as the first page counted, the others do not"


def test_a_limit_counts_over_all_pages() -> None:
    pager = Pager(requests.range_(prefix="k", limit=3))
    pager.feed(answer([b"k1", b"k2"], True, 9))
    assert pager.command is not None
    assert pager.command[4] == 1
    pager.feed(answer([b"k3"], True, 7))
    assert pager.command is None
    pager = Pager(requests.range_(prefix="k", limit=150), page_keys=100)
    assert pager.command is not None
    assert pager.command[4] == 100
    pager.feed(answer([b"%03d" % n for n in range(100)], True, 900))
    assert pager.command is not None
    assert pager.command[4] == 50


def test_ranges_in_another_order_are_not_paged() -> None:
    for arguments in ({"descending": True}, {"sort_by": "mod"}):
        pager = Pager(requests.range_(prefix="k", **arguments))  # type: ignore[arg-type]
        kvs = pager.feed(answer([b"k1"], True, 5))
        assert pager.command is None
        assert pager.result(kvs).more is True


def test_comparisons() -> None:
    assert (Value("k") == "x").items == [0, 3, b"k", b"x", b""]
    assert (Value("k") != b"x").items == [3, 3, b"k", b"x", b""]
    assert (Value("k", prefix=True) > "x").items == [1, 3, b"k", b"x", b"l"]
    assert (Value("k") < "x").items[0] == 2
    assert (Version("k") == 0).items == missing("k").items == [0, 0, b"k", 0, b""]
    assert exists("k").items == [1, 0, b"k", 0, b""]
    assert (CreateRevision("k") != 5).items == [3, 1, b"k", 5, b""]
    assert (ModRevision("k") < 5).items == [2, 2, b"k", 5, b""]
    assert (Lease("k") > 5).items == [1, 4, b"k", 5, b""]
    assert repr(Version("k") == 0) == "<compare b'k' == 0>"


def test_a_comparison_is_not_a_truth_value() -> None:
    with pytest.raises(TypeError, match="several as several arguments"):
        bool(Value("a") == "1" and Version("b") == 0)


def test_a_transaction_as_a_command() -> None:
    sent: list[Command] = []
    txn: Txn[None] = Txn(lambda command, timeout: sent.append(command))
    inner: Txn[None] = Txn(lambda command, timeout: None)
    txn.if_(Version("a") == 1).then(Put("a", "b", prev_kv=True), inner.then(Delete("x", "y")))
    txn.else_(Get("a"), Range(prefix="p", limit=2, keys_only=True))
    txn.commit()
    assert sent == [
        [
            TXN,
            0,
            [[0, 0, b"a", 1, b""]],
            [
                [PUT, 0, b"a", b"b", 0, PREV_KV],
                [TXN, 0, [], [[DELETE_RANGE, 0, b"x", b"y", 0]], []],
            ],
            [
                [RANGE, 0, b"a", b"", 0, 0, 0, 0, 0, 0, 0, 0],
                [RANGE, KEYS_ONLY, b"p", b"q", 2, 0, 0, 0, 0, 0, 0, 0],
            ],
        ]
    ]
