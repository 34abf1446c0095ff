"""gRPC in HTTP/2: heads, messages in any pieces, and blocks that a standard decoder reads back."""

import gzip

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.http2.grpc import (
    OK_TRAILERS,
    RESPONSE_HEADERS,
    Failure,
    MessageError,
    MessageReader,
    failure_trailers,
    prefixed,
    read_head,
    trailers_only,
    unknown_method,
)
from raftkv.http2.headers import Field, HeaderDecoder, literal

BASE = [(b":method", b"POST"), (b":path", b"/a.B/C"), (b"content-type", b"application/grpc")]


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 40))
def test_messages_come_whole_from_any_pieces(messages: list[bytes], size: int) -> None:
    body = b"".join(map(prefixed, messages))
    reader = MessageReader(300)
    read: list[bytes] = []
    for position in range(0, len(body), size):
        read += reader.feed(body[position : position + size])
    assert read == messages
    assert reader.waiting_bytes == 0


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (prefixed(b"x" * 11), (8, "grpc: received message larger than max (11 vs. 10)")),
        (b"\1\0\0\0\1x", (13, "grpc: compressed flag set with identity or empty encoding")),
        (b"\7\0\0\0\1x", (13, "grpc: received unexpected payload format 7")),
    ],
)
def test_messages_that_are_refused(body: bytes, failure: tuple[int, str]) -> None:
    with pytest.raises(MessageError) as refused:
        MessageReader(10).feed(body)
    assert refused.value.failure == failure


@pytest.mark.parametrize(
    ("timeout", "timeout_ms"),
    [(b"5S", 5000), (b"1H", 3_600_000), (b"2M", 120_000), (b"70m", 70), (b"4999928u", 5000), (b"1n", 1), (b"0m", 1)],
)
def test_deadlines(timeout: bytes, timeout_ms: int) -> None:
    head = read_head([*BASE, (b"grpc-timeout", timeout)])
    assert (head.timeout_ms, head.refusal, head.is_grpc) == (timeout_ms, None, True)


@pytest.mark.parametrize("timeout", [b"", b"5", b"S", b"123456789S", b"5x", b"-1S", b"5S "])
def test_deadlines_that_are_none(timeout: bytes) -> None:
    head = read_head([*BASE, (b"grpc-timeout", timeout)])
    assert head.refusal is not None
    assert head.refusal.number == 13


@pytest.mark.parametrize(
    "fields",
    [
        [(b":method", b"GET"), *BASE[1:]],
        [*BASE[:2], (b"content-type", b"application/json")],
        [*BASE[:2], (b"content-type", b"application/grpc-web")],
        BASE[:2],
    ],
)
def test_what_is_not_grpc(fields: list[Field]) -> None:
    assert not read_head(fields).is_grpc


def test_compressed_requests_are_refused_as_a_server_without_a_decompressor_does() -> None:
    refusal = read_head([*BASE, (b"grpc-encoding", b"deflate")]).refusal
    assert refusal == (12, 'grpc: Decompressor is not installed for grpc-encoding "deflate"')
    assert read_head([*BASE, (b"grpc-encoding", b"gzip")]).is_gzip


def compressed(message: bytes) -> bytes:
    return b"\1" + prefixed(message)[1:]


@given(st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=6), st.integers(1, 40))
def test_compressed_messages_beside_others(messages: list[tuple[bytes, bool]], size: int) -> None:
    body = b"".join(compressed(gzip.compress(data)) if packed else prefixed(data) for data, packed in messages)
    reader = MessageReader(1_000, may_inflate=lambda size: True)
    read: list[bytes] = []
    for position in range(0, len(body), size):
        read += reader.feed(body[position : position + size])
    assert read == [data for data, _ in messages]


def test_what_does_not_unpack_is_refused() -> None:
    whole = gzip.compress(b"x" * 50)
    liar = gzip.compress(b"x" * 5_000)[:-4] + (50).to_bytes(4, "little")
    for data, number in (
        (b"", 13),
        (b"nonsense", 8),
        (whole[:-8] + b"\0\0\0\0", 13),
        (whole[:-1] + b"\1", 8),
        (liar, 13),
        (gzip.compress(b"x" * 101), 8),
    ):
        charged: list[int] = []
        with pytest.raises(MessageError) as error:
            MessageReader(100, may_inflate=lambda size: charged.append(size) is None).feed(compressed(data))  # noqa: B023
        assert error.value.failure.number == number, data
        assert sum(charged) <= 50


def test_unpacking_is_charged_before_it_is_done() -> None:
    asked: list[int] = []
    reader = MessageReader(100, may_inflate=asked.append)  # type: ignore[arg-type]  # None: it may not
    with pytest.raises(MessageError) as error:
        reader.feed(compressed(gzip.compress(b"x" * 60)))
    assert error.value.failure == (8, "etcdserver: too many requests")
    assert asked == [60]


@given(st.text(max_size=200), st.integers(1, 16))
def test_blocks_of_ours_are_read_back_by_a_standard_decoder(text: str, number: int) -> None:
    decoder = hpack.Decoder()
    assert dict(decoder.decode(RESPONSE_HEADERS))[":status"] == "200"
    assert dict(decoder.decode(OK_TRAILERS)) == {"grpc-status": "0"}
    fields = dict(decoder.decode(failure_trailers(Failure(number, text))))
    assert fields["grpc-status"] == str(number)
    assert all(0x20 <= ord(character) < 0x7F for character in fields["grpc-message"])
    assert dict(decoder.decode(trailers_only(Failure(5, "100 % no")))) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "5",
        "grpc-message": "100 %25 no",
    }


def test_paths_that_are_not_served() -> None:
    services = frozenset({"etcdserverpb.KV"})
    assert unknown_method("/etcdserverpb.KV/Nope", services).text == "unknown method Nope for service etcdserverpb.KV"
    assert unknown_method("/x.Y/Z", services).text == "unknown service x.Y"
    assert unknown_method("nothing", services).text == 'malformed method name: "nothing"'


_names = st.sampled_from([b":path", b"te", b"user-agent", b"x", b"long-" + b"n" * 200])
_values = st.binary(max_size=40) | st.sampled_from([b"trailers", b"v" * 300])


@given(
    st.lists(st.lists(st.tuples(_names, _values), max_size=6), max_size=25),
    st.booleans(),
    st.sampled_from([0, 64, 4096]),
)
def test_our_decoder_reads_what_a_standard_encoder_writes(
    blocks: list[list[Field]], huffman: bool, table_bytes: int
) -> None:
    encoder = hpack.Encoder()
    encoder.header_table_size = table_bytes
    decoder: HeaderDecoder[list[Field]] = HeaderDecoder(list, 100_000)
    for fields in blocks:
        for _ in range(2):  # the second time from memory, if nothing was changed by the first
            assert decoder.decode(encoder.encode(fields, huffman=huffman)) == fields


@given(st.binary(max_size=60))
def test_any_block_is_decoded_or_refused(block: bytes) -> None:
    from raftkv.http2.headers import HeaderError

    decoder: HeaderDecoder[list[Field]] = HeaderDecoder(list, 1000)
    for _ in range(2):
        try:
            fields = decoder.decode(block)
        except HeaderError:
            return
        assert sum(len(name) + len(value) for name, value in fields) <= 1000


def test_long_literals() -> None:
    for length in (0, 126, 127, 128, 254, 255, 256, 5000):
        assert list(hpack.Decoder().decode(literal(b"a", b"x" * length))) == [("a", "x" * length)]
