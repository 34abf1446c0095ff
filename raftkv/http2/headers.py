"""Header blocks (HPACK, RFC 7541): decoded with a memory, and written without one.

A client of gRPC sends the same fields with each request, so its blocks are the same few bytes, each an index into the table. What such a
block means is remembered as long as the table is as it was. The decoder is ours because `hpack` takes 40 us for a block that is not
remembered (a deadline that differs with each request makes all of them such); its static table and its Huffman decoder are used.

Blocks that are written never use the dynamic table: they are constants, and no state of the peer can go wrong.
"""

from collections import deque
from typing import Callable, Final, Generic, TypeAlias, TypeVar

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

Field: TypeAlias = tuple[bytes, bytes]
Meaning = TypeVar("Meaning")

TABLE_BYTES_MAX: Final = 4096  # of the dynamic table, as agreed by default
FIELD_OVERHEAD_BYTES: Final = 32
REMEMBERED_BYTES_MAX: Final = 64 * 1024  # blocks and the fields that they mean, per connection
_STRINGS_REMEMBERED_MAX: Final = 1024
_STATIC: Final[tuple[Field, ...]] = tuple(HeaderTable.STATIC_TABLE)


class HeaderError(Exception):
    """The block cannot be decoded, and with it none that follows on this connection."""


class HeaderListTooLarge(HeaderError):
    """The fields of a block have more bytes than is allowed."""


class HeaderDecoder(Generic[Meaning]):
    """The header blocks of one connection. `interpret` makes of the fields what the listener needs; the result is shared, so do not change it."""

    def __init__(self, interpret: Callable[[list[Field]], Meaning], list_bytes_max: int) -> None:
        self._interpret = interpret
        self._list_bytes_max = list_bytes_max
        self._table: deque[Field] = deque()  # newest first
        self._table_bytes = 0
        self._table_bytes_max = TABLE_BYTES_MAX
        self._remembered: dict[bytes, Meaning] = {}
        self._remembered_bytes = 0

    def decode(self, block: bytes) -> Meaning:
        """What the block means. Raises HeaderError."""
        known = self._remembered.get(block)
        if known is not None:
            return known
        fields, list_bytes, changed = self._decode(block)
        meaning = self._interpret(fields)
        if not changed:
            self._remember(block, meaning, len(block) + list_bytes)
        return meaning

    def _remember(self, block: bytes, meaning: Meaning, size_bytes: int) -> None:
        if size_bytes > REMEMBERED_BYTES_MAX // 8:
            return
        if self._remembered_bytes + size_bytes > REMEMBERED_BYTES_MAX:
            self._forget()  # what is still in use is soon back; what was there once must not fill it for ever
        self._remembered[block] = meaning
        self._remembered_bytes += size_bytes

    def _forget(self) -> None:
        self._remembered.clear()
        self._remembered_bytes = 0

    def _decode(self, block: bytes) -> tuple[list[Field], int, bool]:
        fields: list[Field] = []
        position, end = 0, len(block)
        left_bytes = self._list_bytes_max
        changed = False
        try:
            while position < end:
                first = block[position]
                if first & 0x80:  # a whole field of the table
                    index, position = (first & 0x7F, position + 1) if first != 0xFF else _integer(block, position, 0x7F)
                    field = self._field(index)
                elif first & 0xE0 == 0x20:  # a new size of the table
                    if fields:
                        raise HeaderError("a size of the table behind a field")
                    size_bytes, position = _integer(block, position, 0x1F)
                    changed = True
                    self._resize(size_bytes)
                    continue
                else:
                    mask = 0x3F if first & 0x40 else 0x0F
                    field, position = self._literal(block, position, mask)
                    if mask == 0x3F:
                        changed = True
                        self._insert(field)
                fields.append(field)
                left_bytes -= len(field[0]) + len(field[1]) + FIELD_OVERHEAD_BYTES
                if left_bytes < 0:
                    raise HeaderListTooLarge(f"the header fields have more than {self._list_bytes_max} bytes")
        except IndexError as error:
            raise HeaderError("a header block that is cut off") from error
        return fields, self._list_bytes_max - left_bytes, changed

    def _field(self, index: int) -> Field:
        if 0 < index <= 61:
            return _STATIC[index - 1]
        if not 0 < index <= 61 + len(self._table):
            raise HeaderError(f"there is no field {index} in the table")
        return self._table[index - 62]

    def _literal(self, block: bytes, position: int, mask: int) -> tuple[Field, int]:
        index, position = _integer(block, position, mask)
        if index:
            name = self._field(index)[0]
        else:
            name, position = _string(block, position)
        value, position = _string(block, position)
        return (name, value), position

    def _insert(self, field: Field) -> None:
        self._forget()  # all indexes have another meaning now
        size_bytes = len(field[0]) + len(field[1]) + FIELD_OVERHEAD_BYTES
        self._shrink(self._table_bytes_max - size_bytes)
        if size_bytes <= self._table_bytes_max:
            self._table.appendleft(field)
            self._table_bytes += size_bytes

    def _resize(self, size_bytes: int) -> None:
        if size_bytes > TABLE_BYTES_MAX:
            raise HeaderError("a table larger than agreed")
        self._forget()
        self._table_bytes_max = size_bytes
        self._shrink(size_bytes)

    def _shrink(self, size_bytes: int) -> None:
        while self._table and self._table_bytes > size_bytes:
            name, value = self._table.pop()
            self._table_bytes -= len(name) + len(value) + FIELD_OVERHEAD_BYTES


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    shift = 0
    while True:
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 28:
            raise HeaderError("an integer that is too large")


_strings: dict[bytes, bytes] = {}


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    is_huffman = block[position] & 0x80
    length, position = _integer(block, position, 0x7F)
    raw = block[position : position + length]
    if len(raw) != length:
        raise HeaderError("a header block that is cut off")
    position += length
    if not is_huffman:
        return raw, position
    text = _strings.get(raw)
    if text is None:
        try:
            text = bytes(decode_huffman(raw))
        except HPACKDecodingError as error:
            raise HeaderError("a string that is no Huffman code") from error
        if length < 64:  # names and the like
            if len(_strings) >= _STRINGS_REMEMBERED_MAX:
                _strings.clear()  # one client's nonsense must not keep out what the others say
            _strings[raw] = text
    return text, position


def literal(name: bytes, value: bytes) -> bytes:
    """A field for a block of ours (RFC 7541, 6.2.2): spelled out, never put into the table."""
    return b"\x00" + _prefixed(name) + _prefixed(value)


def _prefixed(text: bytes) -> bytes:
    length = len(text)
    if length < 127:
        return bytes((length,)) + text
    encoded = bytearray((127,))
    length -= 127
    while length >= 128:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded) + text


STATUS_200: Final = b"\x88"  # field 8 of the static table

__all__ = ["STATUS_200", "Field", "HeaderDecoder", "HeaderError", "HeaderListTooLarge", "literal"]
