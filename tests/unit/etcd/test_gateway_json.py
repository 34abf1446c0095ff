"""The JSON of etcd's gateway: what is taken, what is refused, and what is written."""

import base64
import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from raftkv.etcd.json_in import BadJson, MessageStream, read_message
from raftkv.etcd.json_out import range_part, write_message, write_range, write_string
from raftkv.etcd.long_ranges import LongRange, protobuf_part, protobuf_whole
from raftkv.etcd.responses import Origin, range_response
from raftkv.etcdpb import kv_pb2 as kv
from raftkv.etcdpb import rpc_pb2 as rpc


def read(text: str, message: Any) -> Any:
    read_message(text.encode(), message)
    return message


@pytest.mark.parametrize(
    ("text", "request_message"),
    [
        ("", rpc.RangeRequest()),
        ("  \n", rpc.RangeRequest()),
        ("null", rpc.RangeRequest()),
        ("{}", rpc.RangeRequest()),
        ('{"key":"Zm9v"} trailing {', rpc.RangeRequest(key=b"foo")),
        ('{"key":"Zm9v","unknown":{"a":[1]}}', rpc.RangeRequest(key=b"foo")),
        ('{"range_end":"YQ==","limit":5}', rpc.RangeRequest(range_end=b"a", limit=5)),
        ('{"rangeEnd":"YQ==","limit":"-5"}', rpc.RangeRequest(range_end=b"a", limit=-5)),
        ('{"range_end":"YQ==","rangeEnd":"Yg=="}', rpc.RangeRequest(range_end=b"b")),
        ('{"rangeEnd":"Yg==","range_end":"YQ=="}', rpc.RangeRequest(range_end=b"b")),
        ('{"limit":" 7 ","revision":"null"}', rpc.RangeRequest(limit=7)),
        ('{"limit":-0}', rpc.RangeRequest()),
        ('{"key":null,"limit":null,"serializable":null}', rpc.RangeRequest()),
        (
            '{"serializable":true,"sort_order":"DESCEND","sortTarget":1}',
            rpc.RangeRequest(serializable=True, sort_order=2, sort_target=1),
        ),  # type: ignore[arg-type]
        ('{"key":"Zm\\n9v"}', rpc.RangeRequest(key=b"foo")),
        ('{"key":"Zm9v","key":"YQ=="}', rpc.RangeRequest(key=b"a")),
    ],
)
def test_what_is_taken(text: str, request_message: rpc.RangeRequest) -> None:
    assert read(text, rpc.RangeRequest()) == request_message


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "5",
        '"text"',
        "nul",
        '{"key":5}',
        '{"key":"Zm9"}',
        '{"key":"Zm9v="}',
        '{"key":"Zm-_"}',
        '{"key":["Zm9v"]}',
        '{"limit":1.0}',
        '{"limit":1e3}',
        '{"limit":"x"}',
        '{"limit":""}',
        '{"limit":"1.0"}',
        '{"limit":"007"}',
        '{"limit":9223372036854775808}',
        '{"limit":"-9223372036854775809"}',
        '{"limit":true}',
        '{"limit":NaN}',
        '{"serializable":"true"}',
        '{"serializable":1}',
        '{"sort_order":"NOPE"}',
        '{"sort_order":"1"}',
        '{"sort_order":4294967296}',
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(BadJson):
        read(text, rpc.RangeRequest())


def test_inner_messages_lists_and_oneofs() -> None:
    request = read(
        '{"compare":[{"key":"YQ==","target":"VERSION","version":"0"},null],'
        '"success":[{"request_range":{"key":"YQ=="},"requestPut":{"key":"Yg=="}},{"request_txn":{}},null]}',
        rpc.TxnRequest(),
    )
    assert request.compare[0].HasField("version") and request.compare[0].version == 0
    assert request.compare[1] == rpc.Compare()
    assert [operation.WhichOneof("request") for operation in request.success] == ["request_put", "request_txn", None]
    with pytest.raises(BadJson):
        read('{"success":{}}', rpc.TxnRequest())
    with pytest.raises(BadJson):
        read('{"success":[5]}', rpc.TxnRequest())
    assert read('{"filters":["NOPUT",1,null,7]}', rpc.WatchCreateRequest()).filters == [0, 1, 0, 7]
    assert read('{"peerURLs":["http://a","\\ud800",null]}', rpc.MemberAddRequest()).peerURLs == [
        "http://a",
        "\ufffd",
        "",
    ]


def test_nesting_has_an_end() -> None:
    for depth, good in ((45, True), (60, False), (100_000, False)):
        text = '{"success":[{"request_txn":' * depth + "{}" + "}]}" * depth
        if good:
            read(text, rpc.TxnRequest())
        else:
            with pytest.raises(BadJson):
                read(text, rpc.TxnRequest())


@given(st.text(max_size=200))
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        read_message(text.encode("utf-8", "surrogatepass"), rpc.TxnRequest())
    except BadJson:
        pass


MESSAGES = [
    rpc.RangeResponse(
        header=rpc.ResponseHeader(cluster_id=2**64 - 1, member_id=2**63, revision=7, raft_term=2),
        kvs=[
            kv.KeyValue(key=b"\0\xff", create_revision=1, mod_revision=2, version=3, value=b"v", lease=-4),
            kv.KeyValue(),
        ],
        more=True,
        count=2,
    ),
    rpc.RangeResponse(),
    rpc.TxnResponse(
        succeeded=True,
        responses=[
            rpc.ResponseOp(response_delete_range=rpc.DeleteRangeResponse(header=rpc.ResponseHeader(revision=7))),
            rpc.ResponseOp(response_txn=rpc.TxnResponse(header=rpc.ResponseHeader())),
            rpc.ResponseOp(),
        ],
    ),
    rpc.WatchResponse(
        watch_id=-1, created=True, events=[kv.Event(type=kv.Event.DELETE, kv=kv.KeyValue(key=b"k")), kv.Event()]
    ),
    rpc.Compare(version=0, range_end=b"z"),
    rpc.HashKVResponse(hash=2**32 - 1),
    rpc.StatusResponse(version="3.5.1", errors=["a\nb", "ü"]),
    rpc.LeaseTimeToLiveResponse(ID=2**63 - 1, TTL=-1, keys=[b"", b"a"]),
    rpc.SnapshotResponse(remaining_bytes=5, blob=b"x" * 10),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_is_written_is_what_protobuf_writes(message: Any) -> None:
    text = write_message(message)
    assert json.loads(text) == json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert "\n" not in text and ": " not in text and ", " not in text
    back = type(message)()
    read_message(text.encode(), back)
    assert back == message


def test_the_order_and_the_form() -> None:
    message = rpc.RangeResponse(
        header=rpc.ResponseHeader(cluster_id=1), kvs=[kv.KeyValue(key=b"foo", version=1)], count=1
    )
    assert write_message(message) == '{"header":{"cluster_id":"1"},"kvs":[{"key":"Zm9v","version":"1"}],"count":"1"}'
    unknown = kv.Event()
    unknown.ParseFromString(b"\x08\x09")
    assert write_message(unknown) == '{"type":9}'
    assert write_string('<a&b>"') == '"\\u003ca\\u0026b\\u003e\\""'


def test_objects_are_cut_out_of_a_stream_however_it_comes() -> None:
    objects = ['{"a":"}{\\"\\\\"}', "{}", '{"b":[{"c":[1,2]},"x"]}', '{"d":"\\u007b"}']
    body = (" " + "\n".join(objects) + " ").encode()
    for size in (1, 2, 3, 7, len(body)):
        stream, found = MessageStream(1 << 20), []
        for start in range(0, len(body), size):
            found += stream.feed(body[start : start + size])
        assert [item.strip().decode() for item in found] == objects
        assert stream.is_empty
    stream = MessageStream(1 << 20)
    assert list(stream.feed(b'{"a":')) == []
    assert not stream.is_empty


def test_a_stream_of_something_else_and_too_large_a_message() -> None:
    for body in (b"[]", b'"a"', b"null", b"x"):
        with pytest.raises(BadJson):
            list(MessageStream(1 << 20).feed(body))
    stream = MessageStream(100).feed(b'{"a":1} x')
    assert next(stream) == b'{"a":1}', "what came before counts, also in the same piece"
    with pytest.raises(BadJson):
        next(stream)
    with pytest.raises(BadJson):
        list(MessageStream(100).feed(b'{"a":"' + base64.b64encode(b"x" * 100)))


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("count", [0, 3])
def test_a_long_range_is_written_in_parts_like_a_short_one(more: bool, count: int) -> None:
    found = [[b"k%d" % n, n, n + 1, n, n % 3, b"v" * (n % 2)] for n in range(1, 1_200)]
    pages = [[0, 7, found[:700], True, count], [0, 9, found[700:], more, 0]]
    origin = Origin(cluster_id=2**63, member_id=5, raft_term=3)
    written = []
    for encode in (protobuf_part, range_part):
        long_range = LongRange(pages[0], origin, encode)
        for page in pages:
            long_range.take(page)
            while long_range.step():
                pass
        assert len(long_range.parts) == 3, "some keys per turn"
        written.append(long_range)
    whole = range_response(rpc.RangeRequest(), [0, 7, found, more, count], origin)
    assert rpc.RangeResponse.FromString(protobuf_whole(written[0])) == whole
    assert write_range(written[1]).decode() == write_message(whole)
