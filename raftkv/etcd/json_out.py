"""Response messages as the JSON of etcd's gateway: names as in the .proto files, 64-bit integers as strings, bytes in base64, enums by name.

What has its default value is left out, except a member of a oneof that is set. Key-values and headers, which come in thousands, are written out by hand.
"""

import binascii
import json
from typing import Any, Callable, Final, Sequence

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from raftkv.etcd.long_ranges import LongRange
from raftkv.etcdpb import kv_pb2 as kv
from raftkv.etcdpb import rpc_pb2 as rpc

Writer = Callable[[Any], str]

_tables: dict[type[Message], dict[int, tuple[str, Writer]]] = {}


def write_message(message: Message) -> str:
    """Compact, without an end of line."""
    by_hand = _BY_HAND.get(type(message))
    if by_hand is not None:
        return by_hand(message)
    table = _tables.get(type(message)) or _table(message)
    return "{" + ",".join([_field(table, field.number, value) for field, value in message.ListFields()]) + "}"


def _field(table: dict[int, tuple[str, Writer]], number: int, value: Any) -> str:
    name, write = table[number]
    return name + write(value)


def _table(message: Message) -> dict[int, tuple[str, Writer]]:
    made = {}
    for field in message.DESCRIPTOR.fields:
        write = _WRITERS.get(field.type, str)
        if field.type == FieldDescriptor.TYPE_ENUM:
            write = _enum_writer(field)
        made[field.number] = (f'"{field.name}":', _list_writer(write) if field.is_repeated else write)
    _tables[type(message)] = made
    return made


def _list_writer(write: Writer) -> Writer:
    return lambda values: "[" + ",".join([write(value) for value in values]) + "]"


def _enum_writer(field: Any) -> Writer:
    names = {number: f'"{value.name}"' for number, value in field.enum_type.values_by_number.items()}
    return lambda number: names.get(number, str(number))


def _quoted(number: int) -> str:
    return f'"{number}"'


def _bytes(value: bytes) -> str:
    return '"' + binascii.b2a_base64(value, newline=False).decode("ascii") + '"'


def write_string(text: str) -> str:
    """As Go's encoder writes it: safe inside HTML."""
    made = json.dumps(text, ensure_ascii=False)
    for sign, escaped in _ESCAPED:
        if sign in made:
            made = made.replace(sign, escaped)
    return made


_ESCAPED: Final = (
    ("<", "\\u003c"),
    (">", "\\u003e"),
    ("&", "\\u0026"),
    ("\u2028", "\\u2028"),
    ("\u2029", "\\u2029"),
)


def _bool(value: bool) -> str:
    return "true" if value else "false"


_WRITERS: Final[dict[int, Writer]] = {
    FieldDescriptor.TYPE_INT64: _quoted,
    FieldDescriptor.TYPE_UINT64: _quoted,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_STRING: write_string,
    FieldDescriptor.TYPE_BYTES: _bytes,
    FieldDescriptor.TYPE_MESSAGE: write_message,
}


def _key_value(message: kv.KeyValue) -> str:
    parts = []
    if message.key:
        parts.append(f'"key":{_bytes(message.key)}')
    if message.create_revision:
        parts.append(f'"create_revision":"{message.create_revision}"')
    if message.mod_revision:
        parts.append(f'"mod_revision":"{message.mod_revision}"')
    if message.version:
        parts.append(f'"version":"{message.version}"')
    if message.value:
        parts.append(f'"value":{_bytes(message.value)}')
    if message.lease:
        parts.append(f'"lease":"{message.lease}"')
    return "{" + ",".join(parts) + "}"


def _header(message: rpc.ResponseHeader) -> str:
    parts = []
    if message.cluster_id:
        parts.append(f'"cluster_id":"{message.cluster_id}"')
    if message.member_id:
        parts.append(f'"member_id":"{message.member_id}"')
    if message.revision:
        parts.append(f'"revision":"{message.revision}"')
    if message.raft_term:
        parts.append(f'"raft_term":"{message.raft_term}"')
    return "{" + ",".join(parts) + "}"


def range_part(key_values: Sequence[Any]) -> bytes:
    """Key-values of answers, as they stand in the JSON of a RangeResponse."""
    return ",".join([_items(*items) for items in key_values]).encode()


def _items(key: bytes, create_revision: int, mod_revision: int, version: int, lease: int, value: bytes) -> str:
    """A key-value that exists: its key, revisions and version are no defaults."""
    text = f'{{"key":{_bytes(key)},"create_revision":"{create_revision}","mod_revision":"{mod_revision}","version":"{version}"'
    if value:
        text += f',"value":{_bytes(value)}'
    return f'{text},"lease":"{lease}"}}' if lease else text + "}"


def write_range(long_range: LongRange) -> bytes:
    """The RangeResponse of parts of JSON."""
    head = long_range.head
    parts = [f'{{"header":{_header(head.header)},"kvs":['.encode()]
    for part in long_range.parts:  # copied once: they are long
        parts += (part, b",")
    parts[-1] = b"]"
    if head.more:
        parts.append(b',"more":true')
    if head.count:
        parts.append(f',"count":"{head.count}"'.encode())
    return b"".join((*parts, b"}"))


_BY_HAND: Final[dict[type[Message], Callable[[Any], str]]] = {kv.KeyValue: _key_value, rpc.ResponseHeader: _header}
