"""What the doors decode, fed with anything: read or refused, never another exception, and what was read can be translated or is refused too.

Valid messages are drawn first and then damaged, so that the search gets behind the first byte; `tests/integration/test_fuzz_doors.py` does the same to
whole conversations with real members.
"""

import json
from contextlib import suppress
from typing import Any

import msgpack
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.errors import RaftKVError
from raftkv.etcd.json_in import BadJson, read_message
from raftkv.etcd.json_out import write_message
from raftkv.etcd.methods import METHODS, Method
from raftkv.etcdpb.pool import POOL
from raftkv.limits import DEFAULT_LIMITS
from raftkv.wire import protocol
from raftkv.wire.protocol import KEEP_ALIVE
from raftkv.wire.validate import validate
from tests.differential.stories import Teller

LIMITS = DEFAULT_LIMITS
LOOSE = settings(max_examples=300)
methods = st.sampled_from(METHODS)


def damage(data: bytes, draw: Any) -> bytes:
    """A few bytes changed, left out, put in or doubled."""
    made = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(made)))
        kind = draw(st.integers(0, 3))
        if kind == 0 and at < len(made):
            made[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == 1:
            del made[at : at + draw(st.integers(1, 9))]
        elif kind == 2:
            made[at:at] = draw(st.binary(min_size=1, max_size=9))
        else:
            made[at:at] = made[at : at + draw(st.integers(1, 40))]
    return bytes(made)


def drawn_request(method: Method, draw: Any) -> Any:
    """One of a story, or an empty message where stories have none."""
    told = [request for told, request in Teller(draw(st.integers(0, 10_000))).story(40) if told is method]
    return draw(st.sampled_from(told)) if told else method.request()


def check_translated(method: Method, request: Any) -> None:
    """As a door does with what it has decoded."""
    with suppress(RaftKVError):
        command = method.command(request)
        if command[0] != KEEP_ALIVE:
            validate(command, LIMITS)


@given(st.data())
@LOOSE
def test_messages_of_protobuf(data: st.DataObject) -> None:
    method = data.draw(methods)
    encoded = damage(drawn_request(method, data.draw).SerializeToString(), data.draw)
    try:
        request = method.request.FromString(encoded)
    except DecodeError:
        return
    check_translated(method, request)


@given(st.data())
@LOOSE
def test_bodies_of_json(data: st.DataObject) -> None:
    method = data.draw(methods)
    text = json_format.MessageToJson(
        drawn_request(method, data.draw),
        preserving_proto_field_name=data.draw(st.booleans()),
        use_integers_for_enums=data.draw(st.booleans()),
        descriptor_pool=POOL,
    )
    request = method.request()
    try:
        read_message(damage(text.encode(), data.draw), request)
    except BadJson:
        return
    check_translated(method, request)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["YQ==", "AA==", "5"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["key", "rangeEnd", "limit", "compare", "success", "request_put", "ID", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(methods, VALUES)
@LOOSE
def test_json_of_any_shape(method: Method, value: Any) -> None:
    request = method.request()
    try:
        read_message(json.dumps(value).encode(), request)
    except BadJson:
        return
    check_translated(method, request)


@given(st.data())
@LOOSE
def test_what_was_read_is_written_and_read_again(data: st.DataObject) -> None:
    """The gateway's two halves, with protobuf's own JSON as the third opinion."""
    method = data.draw(methods)
    request = drawn_request(method, data.draw)
    again, third = method.request(), method.request()
    text = write_message(request)
    read_message(text.encode(), again)
    assert again == request
    assert json_format.Parse(text, third, descriptor_pool=POOL) == request


FRAMES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=9)
    | st.text(max_size=9)
    | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.binary(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=20,
)
numbers = st.integers(0, 130)


@given(numbers, st.lists(FRAMES, max_size=8))
@LOOSE
def test_commands_of_the_native_protocol(number: int, items: list[Any]) -> None:
    """Any number of a command with anything behind it: valid, or refused by name."""
    with suppress(RaftKVError):
        validate([number, *items], LIMITS)


@given(st.data())
@LOOSE
def test_frames_of_the_native_protocol(data: st.DataObject) -> None:
    """The unpacker takes bytes in any pieces; whatever it gives has gone through its bounds."""
    frames = data.draw(st.lists(FRAMES, max_size=4))
    encoded = damage(b"".join(msgpack.packb(frame) for frame in frames), data.draw)
    cut = data.draw(st.integers(0, len(encoded)))
    unpacker = protocol.new_unpacker(LIMITS)
    try:
        for part in (encoded[:cut], encoded[cut:]):
            unpacker.feed(part)
            for _ in unpacker:
                pass
    except (ValueError, msgpack.UnpackException, TypeError):
        return
