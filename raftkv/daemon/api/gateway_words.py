"""How etcd's gateway says things in HTTP: status codes, error bodies, headers, the bounds of a body."""

import asyncio
import re
from http import HTTPStatus
from typing import Final, Mapping

from aiohttp import web

from raftkv.daemon.etcd.calls import Refused
from raftkv.etcd.json_out import write_string
from raftkv.etcd.statuses import INVALID_ARGUMENT, RESOURCE_EXHAUSTED, Status
from raftkv.limits import KIB, Limits
from raftkv.units import Milliseconds

OVERHEAD_BYTES: Final = 512 * KIB  # etcd takes so much more than its bound of a request
SLOWEST_BODY_S: Final = 30.0  # a client that needs longer for its question is let go of
JSON_HEADERS: Final = {"Content-Type": "application/json", "Grpc-Metadata-Content-Type": "application/grpc"}
_METADATA_PREFIX: Final = "grpc-metadata-"
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS_MS: Final = {"H": 3_600_000, "M": 60_000, "S": 1_000, "m": 1, "u": 1e-3, "n": 1e-6}

# By gRPC's number; what is not here is 500.
_HTTP: Final = {
    0: 200,
    1: 408,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    14: 503,
    16: 401,
}


def http_status(status: Status) -> int:
    return _HTTP.get(status.number, 500)


def error_response(status: Status) -> web.Response:
    """A call that failed before anything of its answer was sent."""
    text = write_string(status.text)
    return web.Response(
        body=f'{{"error":{text},"code":{status.number},"message":{text}}}'.encode(),
        status=http_status(status),
        headers={"Content-Type": "application/json"},
    )


def error_line(status: Status) -> str:
    """The last line of a stream that failed after its first message."""
    number = http_status(status)
    return (
        f'{{"error":{{"grpc_code":{status.number},"http_code":{number},"message":{write_string(status.text)},'
        f'"http_status":"{HTTPStatus(number).phrase}"}}}}'
    )


def plain_response(status_code: int, text: str) -> web.Response:
    """As Go's http.Error."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=f"{text}\n".encode(), status=status_code, headers=headers)


def metadata_of(headers: Mapping[str, str]) -> dict[str, str]:
    """What a call through gRPC would have beside its message: the token, and what has the gateway's prefix."""
    metadata = {}
    for name, value in headers.items():
        lowered = name.lower()
        if lowered == "authorization":
            metadata[lowered] = value
        elif lowered.startswith(_METADATA_PREFIX):
            metadata[lowered.removeprefix(_METADATA_PREFIX)] = value
    return metadata


def timeout_of(headers: Mapping[str, str]) -> Milliseconds:
    """The header Grpc-Timeout; 0: none. Raises Refused."""
    text = headers.get("Grpc-Timeout")
    if text is None:
        return 0
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise Refused(INVALID_ARGUMENT, f"invalid grpc-timeout: {text}")
    return max(1, int(int(match[1]) * _UNITS_MS[match[2]]))


def bytes_max(limits: Limits) -> int:
    """Of one request message, as protobuf."""
    return limits.request_bytes_max + OVERHEAD_BYTES


def body_bytes_max(limits: Limits) -> int:
    """Of one request message, as JSON: base64 makes four bytes of three."""
    return 2 * bytes_max(limits)


def too_large(size_bytes: int, limits: Limits) -> Refused:
    return Refused(RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size_bytes} vs. {bytes_max(limits)})")


async def read_body(request: web.BaseRequest, limits: Limits) -> bytes:
    """All of it. Raises Refused when it is too large, TimeoutError when it does not come."""
    limit = body_bytes_max(limits)
    if (request.content_length or 0) > limit:
        raise too_large(request.content_length or 0, limits)
    if request.content.is_eof():  # it is there, and no larger than a read of the socket
        return request.content.read_nowait()
    await expect_body(request)
    async with asyncio.timeout(SLOWEST_BODY_S):
        return await _read_slowly(request, limits, limit)


async def _read_slowly(request: web.BaseRequest, limits: Limits, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await request.content.readany():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise too_large(size, limits)
    return b"".join(parts)


async def expect_body(request: web.BaseRequest) -> None:
    """Tell a client that waits for the word that it may send the body."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0)
