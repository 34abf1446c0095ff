"""Whatever JSON a client sends to the gateway: it is a message or it is refused, and a message survives the way out and back in."""

import json
from typing import Any

from google.protobuf.message import Message
from hypothesis import example, given
from hypothesis import strategies as st

from raftkv.daemon.etcd.procedures import GATEWAY
from raftkv.etcd.json_in import BadJson, MessageStream, read_message
from raftkv.etcd.json_out import write_message

KINDS = sorted({kind for procedure in GATEWAY.values() for kind in (procedure.request, procedure.answered_by)}, key=str)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "AA==", "YQ==", "Zm9v", "NOPUT", "DESCEND", "0", "-1", "9223372036854775807", "null"])
    | st.text(max_size=8)
)


def names_of(descriptor: Any, depth: int) -> list[str]:
    """Both names of all fields, of the messages inside too."""
    names = []
    for field in descriptor.fields:
        names += [field.name, field.json_name]
        if depth and field.message_type is not None:
            names += names_of(field.message_type, depth - 1)
    return names


def values(kind: type[Message]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(sorted({*names_of(kind.DESCRIPTOR, 2), "unknown"}))
    return st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12
    )


@given(st.data())
def test_any_value_is_a_message_or_is_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    text = json.dumps(data.draw(st.dictionaries(st.sampled_from([*names_of(kind.DESCRIPTOR, 0), "x"]), values(kind))))
    message = kind()
    try:
        read_message(text.encode(), message)
    except BadJson:
        return
    assert kind.FromString(message.SerializeToString()) == message
    back = kind()
    read_message(write_message(message).encode(), back)
    assert back == message


@given(st.binary(max_size=60), st.lists(st.integers(1, 7)))
@example(b" ", [1, 1, 1, 7])
def test_any_bytes_are_cut_alike_however_they_come(noise: bytes, sizes: list[int]) -> None:
    """Objects with anything between them: what comes in parts is cut like what comes at once, or refused like it."""
    body = b'{"a":"}"}' + noise + b'{"b":[{}]}'

    def cut(parts: list[bytes]) -> tuple[list[bytes], bool]:
        stream, found = MessageStream(1000), []
        try:
            for part in parts:
                found += stream.feed(part)
        except BadJson:
            return found, True
        return found, False

    parts, at = [], 0
    for size in sizes:
        parts.append(body[at : at + size])
        at += size
    parts.append(body[at:])
    in_parts, refused = cut(parts)
    at_once, refused_at_once = cut([body])
    assert (in_parts, refused) == (at_once, refused_at_once)
