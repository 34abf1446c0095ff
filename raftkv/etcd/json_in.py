"""The JSON of etcd's gateway as request messages, by the rules of the Go library that etcd 3.5 uses; protobuf's own differ in what they take.

Fields go by their name in the .proto file or in camel case, those that are not known are ignored, null is nothing. 64-bit integers are numbers or
strings, bytes are base64 with padding, enums names or numbers. Of two members of a oneof the later one counts.
"""

import binascii
import json
import re
from typing import Any, Callable, Final, Iterator, NamedTuple, NoReturn

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

DEPTH_MAX: Final = 100  # as protobuf's own parser has it
_INTEGER: Final = re.compile(r"[ \t\r\n]*(-?(?:0|[1-9][0-9]*))[ \t\r\n]*")
_SPACE: Final = " \t\r\n"
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_GO_NAMES: Final = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
_OBJECT: Final = "map[string]json.RawMessage"


class BadJson(ValueError):
    """What cannot be a request message; the text is for people."""


def _no_constant(name: str) -> NoReturn:
    raise BadJson(f"invalid character {name[0]!r} looking for beginning of value")


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)


def read_message(body: bytes, message: Message) -> None:
    """Fill `message` with the first value of the body; what follows is not looked at, and no body is an empty message. Raises BadJson."""
    text = body.decode("utf-8", "replace").lstrip(_SPACE)
    if not text:
        return
    try:
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise BadJson(str(error) or "the JSON is nested too deeply") from None
    if value is not None:
        _fill(message, value, DEPTH_MAX)


class _Field(NamedTuple):
    """`order`: in which two of them are set."""

    order: tuple[int, bool]
    name: str
    is_list: bool
    is_message: bool
    read: Callable[[Any], Any]


_tables: dict[str, dict[str, _Field]] = {}


def _table(descriptor: Any) -> dict[str, _Field]:
    """The fields of a message by both of their names."""
    table = _tables.get(descriptor.full_name)
    if table is None:
        table = _tables[descriptor.full_name] = {}
        for field in descriptor.fields:
            is_message = field.type == FieldDescriptor.TYPE_MESSAGE
            for spelling in (field.json_name, field.name):
                table[spelling] = _Field(
                    (field.number, spelling != field.name),
                    field.name,
                    field.is_repeated,
                    is_message,
                    _read_object if is_message else _reader(field),
                )
    return table


def _fill(message: Message, value: Any, depth: int) -> None:
    if type(value) is not dict:
        _mismatch(value, _OBJECT)
    if depth == 0:
        raise BadJson("the JSON is nested too deeply")
    table = _table(message.DESCRIPTOR)
    found = [(table[key], item) for key, item in value.items() if key in table and item is not None]
    if len(found) > 1:
        found.sort(key=_order)
    for field, item in found:
        if field.is_list:
            _fill_list(getattr(message, field.name), field, item, depth)
        elif field.is_message:
            inner = getattr(message, field.name)
            inner.Clear()  # a second spelling takes its place
            inner.SetInParent()
            _fill(inner, item, depth - 1)
        else:
            setattr(message, field.name, field.read(item))


def _order(pair: tuple[_Field, Any]) -> tuple[int, bool]:
    return pair[0].order


def _fill_list(target: Any, field: _Field, value: Any, depth: int) -> None:
    if type(value) is not list:
        _mismatch(value, "[]json.RawMessage")
    del target[:]
    for item in value:
        if field.is_message:
            _fill(target.add(), {} if item is None else item, depth - 1)
        else:
            target.append(field.read(item))


def _reader(field: Any) -> Callable[[Any], Any]:
    """How one value of a field is read."""
    kind = field.type
    if kind == FieldDescriptor.TYPE_BYTES:
        return _read_bytes
    if kind == FieldDescriptor.TYPE_STRING:
        return _read_string
    if kind == FieldDescriptor.TYPE_BOOL:
        return _read_bool
    if kind == FieldDescriptor.TYPE_ENUM:
        enum: Any = field.enum_type
        numbers = {name: value.number for name, value in enum.values_by_name.items()}
        return lambda value: _read_enum(value, numbers, enum.full_name)
    low, high, name = _RANGES[kind]
    return lambda value: _read_integer(value, low, high, name)


_RANGES: Final = {
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1, "int64"),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1, "uint64"),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1, "int32"),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1, "uint32"),
}


def _read_object(value: Any) -> NoReturn:
    raise AssertionError("messages are filled")


def _read_integer(value: Any, low: int, high: int, name: str) -> int:
    if value is None or value == "null":
        return 0  # in a list, or in quotes: nothing is set
    if type(value) is str:
        match = _INTEGER.fullmatch(value)
        if match is None or len(match[1]) > 20:
            raise BadJson(f"invalid character in {value[:40]!r}: a number of type {name} is expected")
        value = int(match[1])
    if type(value) is not int:
        _mismatch(value, name)
    if not low <= value <= high:
        raise BadJson(f"json: cannot unmarshal number {value} into Go value of type {name}")
    return value


def _read_bool(value: Any) -> bool:
    if value is not None and type(value) is not bool:
        _mismatch(value, "bool")
    return bool(value)


def _read_string(value: Any) -> str:
    if value is not None and type(value) is not str:
        _mismatch(value, "string")
    return _SURROGATES.sub("\ufffd", value or "")


def _read_bytes(value: Any) -> bytes:
    if value is None:
        return b""
    if type(value) is not str:
        _mismatch(value, "[]uint8")
    if "\n" in value or "\r" in value:
        value = value.replace("\n", "").replace("\r", "")
    try:
        if len(value) % 4:
            raise ValueError("padding is missing, or too much of it")
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        # The place is Go's for what it refuses most often, a cut end: where the last group begins.
        raise BadJson(f"illegal base64 data at input byte {max(0, len(value) - 1) // 4 * 4}") from None


def _read_enum(value: Any, numbers: dict[str, int], name: str) -> int:
    if type(value) is str:
        if value not in numbers:
            raise BadJson(f'unknown value "\\"{value[:40]}\\"" for enum {name}')
        return numbers[value]
    return _read_integer(value, -(2**31), 2**31 - 1, "protoreflect.EnumNumber")


def _mismatch(value: Any, wanted: str) -> NoReturn:
    what = _GO_NAMES.get(type(value), "null")
    if type(value) is float:
        what = f"number {value}"
    raise BadJson(f"json: cannot unmarshal {what} into Go value of type {wanted}")


class MessageStream:
    """Objects that follow each other in one body, cut out as they come."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._scanned = 0
        self._depth = 0
        self._in_string = False

    @property
    def is_empty(self) -> bool:
        """No object has begun that has not ended."""
        return not self._buffer.strip()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The objects that are whole now, then BadJson for what is no object, or too large: what came before it counts, in however many parts it came."""
        self._buffer += data
        while (end := self._find_end()) is not None:
            found = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._scanned = 0
            yield found
        if len(self._buffer) > self._bytes_max:
            raise BadJson(f"a message has more than {self._bytes_max} bytes")

    def _find_end(self) -> int | None:
        """Where the first object ends, if it is all there."""
        buffer, at = self._buffer, self._scanned
        if not self._depth:
            del buffer[: len(buffer) - len(buffer.lstrip())]
            if not buffer:
                return None
            if buffer[0] != ord("{"):
                raise BadJson(f"invalid character {chr(buffer[0])!r} looking for beginning of value")
            self._depth = at = 1
        while at < len(buffer):
            match = (_IN_STRING if self._in_string else _OUTSIDE).search(buffer, at)
            if match is None:
                at = len(buffer)
                break
            at = match.end()
            sign = match[0]
            if sign == b"\\":
                at += 1  # perhaps beyond what has come
            elif sign == b'"':
                self._in_string = not self._in_string
            elif sign in b"{[":
                self._depth += 1
            else:
                self._depth -= 1
                if not self._depth:
                    return at
        self._scanned = at
        return None


_IN_STRING: Final = re.compile(rb'["\\]')
_OUTSIDE: Final = re.compile(rb'["{}\[\]]')
