"""gRPC on HTTP/2: what a request's header block says, messages in its body, and the header blocks of answers.

The texts and numbers of refusals are those of grpc-go, which etcd's clients know.
"""

import re
import zlib
from typing import Callable, Final, NamedTuple, Sequence
from urllib.parse import quote_from_bytes

from raftkv.http2.headers import STATUS_200, Field, literal
from raftkv.units import Milliseconds

INVALID_ARGUMENT: Final = 3
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13

MESSAGE_PREFIX_BYTES: Final = 5
_CONTENT_TYPE: Final = literal(b"content-type", b"application/grpc")
_STATUS_NAME: Final = b"grpc-status"

RESPONSE_HEADERS: Final = STATUS_200 + _CONTENT_TYPE
OK_TRAILERS: Final = literal(_STATUS_NAME, b"0")
_ACCEPTED_ENCODINGS: Final = literal(b"grpc-accept-encoding", b"identity,gzip")
UNSUPPORTED_MEDIA_TYPE: Final = literal(b":status", b"415")
_MS_PER_UNIT: Final = {"H": 3_600_000.0, "M": 60_000.0, "S": 1_000.0, "m": 1.0, "u": 0.001, "n": 0.000001}
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])\Z")
_UNRESERVED: Final = bytes(range(0x20, 0x25)) + bytes(range(0x26, 0x7F))  # all that is printable but %


class Failure(NamedTuple):
    """A status that is not OK."""

    number: int
    text: str


class RequestHead(NamedTuple):
    """What the header block of a request says. `refusal`: why it is not served, in gRPC's words; `is_grpc`: whether it is gRPC at all."""

    path: str
    metadata: dict[str, str]
    timeout_ms: Milliseconds  # 0: none
    is_grpc: bool
    is_gzip: bool  # messages may be compressed: etcd takes this one encoding, and no other
    refusal: Failure | None


def read_head(fields: Sequence[Field]) -> RequestHead:
    """Understand a request's fields. Never raises: what cannot be understood is refused."""
    metadata: dict[str, str] = {}
    path = method = ""
    for name, value in fields:
        text = value.decode("latin-1")
        if name == b":path":
            path = text
        elif name == b":method":
            method = text
        elif not name.startswith(b":"):
            metadata[name.decode("latin-1")] = text
    content_type = metadata.get("content-type", "")
    is_grpc = method == "POST" and (
        content_type == "application/grpc" or content_type.startswith(("application/grpc+", "application/grpc;"))
    )
    refusal: Failure | None = None
    timeout_ms = 0
    if (timeout := metadata.get("grpc-timeout")) is not None:
        match = _TIMEOUT.match(timeout)
        if match is None:
            refusal = Failure(INTERNAL, f"malformed grpc-timeout: {timeout[:32]!r}")
        else:
            timeout_ms = max(1, round(int(match[1]) * _MS_PER_UNIT[match[2]]))
    encoding = metadata.get("grpc-encoding", "identity")
    if encoding not in ("identity", "gzip"):
        refusal = Failure(UNIMPLEMENTED, f'grpc: Decompressor is not installed for grpc-encoding "{encoding[:32]}"')
    return RequestHead(path, metadata, timeout_ms, is_grpc, encoding == "gzip", refusal)


class MessageError(Exception):
    """The body of a request is no sequence of messages, or has one that is too large."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class MessageReader:
    """The messages in the body of one request, from the parts that arrive."""

    __slots__ = ("_bytes_max", "_may_inflate", "_rest")

    def __init__(self, bytes_max: int, *, may_inflate: Callable[[int], bool] | None = None) -> None:
        """`may_inflate`: whether so many bytes may come out of a compressed message; None if there are none."""
        self._bytes_max = bytes_max
        self._may_inflate = may_inflate
        self._rest = bytearray()

    @property
    def waiting_bytes(self) -> int:
        """Of a message that is not whole yet."""
        return len(self._rest)

    def clear(self) -> None:
        """Nothing more is wanted of it."""
        self._rest.clear()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises MessageError."""
        size = len(data)
        if not self._rest and size >= MESSAGE_PREFIX_BYTES and not data[0]:
            # Nearly always: one message in one frame.
            if int.from_bytes(data[1:5], "big") == size - MESSAGE_PREFIX_BYTES <= self._bytes_max:
                return [data[MESSAGE_PREFIX_BYTES:]]
        elif not size:
            return []
        rest = self._rest
        rest += data
        messages: list[bytes] = []
        position = 0
        while len(rest) - position >= MESSAGE_PREFIX_BYTES:
            length = int.from_bytes(rest[position + 1 : position + MESSAGE_PREFIX_BYTES], "big")
            flag = rest[position]
            if flag > 1:
                raise MessageError(Failure(INTERNAL, f"grpc: received unexpected payload format {flag}"))
            if flag and self._may_inflate is None:
                raise MessageError(Failure(INTERNAL, "grpc: compressed flag set with identity or empty encoding"))
            self._check_size(length)
            end = position + MESSAGE_PREFIX_BYTES + length
            if end > len(rest):
                break
            message = bytes(rest[position + MESSAGE_PREFIX_BYTES : end])
            messages.append(self._inflated(message) if flag else message)
            position = end
        del rest[:position]
        return messages

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._bytes_max:
            text = f"grpc: received message larger than max ({size_bytes} vs. {self._bytes_max})"
            raise MessageError(Failure(RESOURCE_EXHAUSTED, text))

    def _inflated(self, data: bytes) -> bytes:
        """Never larger than it says of itself (RFC 1952), and charged before the work: a kilobyte can be made of a gigabyte."""
        claimed_bytes = int.from_bytes(data[-4:], "little")
        self._check_size(claimed_bytes)
        if self._may_inflate is None or not self._may_inflate(claimed_bytes):
            raise MessageError(Failure(RESOURCE_EXHAUSTED, "etcdserver: too many requests"))
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            message = inflater.decompress(data, claimed_bytes + 1)
        except zlib.error as error:
            raise MessageError(Failure(INTERNAL, f"grpc: failed to decompress the received message {error}")) from error
        if len(message) != claimed_bytes or not inflater.eof:
            raise MessageError(Failure(INTERNAL, "grpc: failed to decompress the received message unexpected EOF"))
        return message


def prefixed(message: bytes) -> bytes:
    """A message as it stands in a body."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def failure_trailers(failure: Failure) -> bytes:
    """The last header block of an answer that failed."""
    text = quote_from_bytes(failure.text.encode()[:2048], safe=_UNRESERVED)
    return literal(_STATUS_NAME, b"%d" % failure.number) + literal(b"grpc-message", text.encode())


def trailers_only(failure: Failure) -> bytes:
    """An answer that is nothing but a failure: one header block."""
    block = RESPONSE_HEADERS + failure_trailers(failure)
    # Who sent an encoding that we do not have is told which we do; it does no harm beside an unknown method.
    return block + _ACCEPTED_ENCODINGS if failure.number == UNIMPLEMENTED else block


def unknown_method(path: str, services: frozenset[str]) -> Failure:
    """What grpc-go says of a path that is not served."""
    service, slash, method = path.removeprefix("/").rpartition("/")
    if not path.startswith("/") or not slash:
        return Failure(UNIMPLEMENTED, f'malformed method name: "{path[:128]}"')
    if service not in services:
        return Failure(UNIMPLEMENTED, f"unknown service {service[:128]}")
    return Failure(UNIMPLEMENTED, f"unknown method {method[:128]} for service {service[:128]}")
