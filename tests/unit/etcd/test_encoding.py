"""Responses as bytes are those of their messages, and a read of one key as it is now is what a range of it would be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.etcd.encoding import Headers, encoded_put, encoded_read, varint
from raftkv.etcd.requests import range_command, read_command
from raftkv.etcd.responses import Origin, put_response, range_response, read_response
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import GET, OK, RANGE, SERIALIZABLE

UINT64 = st.integers(0, 2**64 - 1)
INT63 = st.integers(0, 2**63 - 1)
ITEMS = st.none() | st.tuples(st.binary(min_size=1), INT63, INT63, INT63, st.integers(-(2**63), 2**63 - 1), st.binary())


@given(st.tuples(UINT64, UINT64, INT63), st.lists(st.tuples(INT63, ITEMS), max_size=5))
def test_bytes_are_those_of_the_message(ids: tuple[int, int, int], answers: list[tuple[int, Any]]) -> None:
    origin = Origin(*ids)
    headers = Headers(origin)
    for revision, items in answers:
        put = put_response(rpc.PutRequest(), [OK, revision, items], origin)
        assert encoded_put([OK, revision, items], headers) == put.SerializeToString()
        ranged = [OK, revision, [] if items is None else [items], False, int(items is not None)]
        message = range_response(rpc.RangeRequest(), ranged, origin)
        assert encoded_read([OK, revision, items], headers) == message.SerializeToString()
        assert read_response(rpc.RangeRequest(), [OK, revision, items], origin) == message
        assert read_response(rpc.RangeRequest(), ranged, origin) == message
        assert encoded_read(ranged, headers) is None


@given(UINT64)
def test_varints(number: int) -> None:
    encoded = rpc.ResponseHeader(cluster_id=number).SerializeToString()
    assert b"\x08" + varint(number) == encoded or (not number and not encoded)


def test_one_key_as_it_is_now_is_a_get() -> None:
    assert read_command(rpc.RangeRequest(key=b"k")) == [GET, 0, b"k"]
    assert read_command(rpc.RangeRequest(key=b"k", limit=3, serializable=True)) == [GET, SERIALIZABLE, b"k"]


@pytest.mark.parametrize(
    "fields",
    [
        {name: 1}
        for name in rpc.RangeRequest.DESCRIPTOR.fields_by_name
        if name not in ("key", "limit", "serializable", "range_end")
    ]
    + [{"range_end": b"l"}, {"range_end": b"\0"}, {"revision": -1}, {"sort_order": 7}],
    ids=str,
)
def test_everything_else_is_a_range(fields: dict[str, Any]) -> None:
    request = rpc.RangeRequest(key=b"k", **fields)
    assert read_command(request) == range_command(request)
    assert read_command(request)[0] == RANGE
