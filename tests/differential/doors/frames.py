"""Calls whose frames are wrong, by an HTTP/2 that lets one do that: what the server says in the trailers."""

import socket
from typing import Any

import h2.config
import h2.connection
import h2.events

SECONDS_MAX = 20.0


def message(payload: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """One message of gRPC behind its five bytes."""
    return bytes([flag]) + (len(payload) if length is None else length).to_bytes(4, "big") + payload


def call(endpoint: str, path: str, body: bytes, headers: dict[str, str] | None = None, *, method: str = "POST") -> Any:
    """HTTP status, and number and text of the trailers; or the error that the stream or the connection was ended with."""
    host, _, port = endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS_MAX) as connection:
        http2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        http2.initiate_connection()
        fields = {
            ":method": method,
            ":scheme": "http",
            ":path": path,
            ":authority": endpoint,
            "content-type": "application/grpc",
            "te": "trailers",
            **(headers or {}),
        }
        http2.send_headers(1, [(name, value) for name, value in fields.items() if value], end_stream=not body)
        if body:
            http2.send_data(1, body, end_stream=True)
        connection.sendall(http2.data_to_send())
        return _answer(connection, http2)


def _answer(connection: socket.socket, http2: Any) -> Any:
    seen: dict[str, str] = {}
    while True:
        data = connection.recv(65_536)
        if not data:
            return "closed"
        for event in http2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                seen.update(event.headers)
            elif isinstance(event, h2.events.StreamReset):
                return ("reset", int(event.error_code))
            elif isinstance(event, h2.events.ConnectionTerminated) and event.error_code:
                return ("goaway", int(event.error_code))
            elif isinstance(event, h2.events.StreamEnded):
                return (seen.get(":status"), seen.get("grpc-status"), seen.get("grpc-message") or "")
        connection.sendall(http2.data_to_send())


RANGE, KEEP_ALIVE = "/etcdserverpb.KV/Range", "/etcdserverpb.Lease/LeaseKeepAlive"
KEY = b"\x0a\x01a"
CALLS: dict[str, tuple[Any, ...]] = {
    "right": (RANGE, message(KEY)),
    "half of the five bytes": (RANGE, message(KEY)[:3]),
    "five bytes and no message": (RANGE, message(KEY)[:5]),
    "half of a message": (RANGE, message(KEY)[:-1]),
    "a length that goes on": (RANGE, message(KEY, length=100)),
    "a length of 4 GiB": (RANGE, message(KEY, length=2**32 - 1)),
    "a length over what is taken": (RANGE, message(KEY, length=2_097_153)),
    "two messages": (RANGE, message(KEY) * 2),
    "compressed, says nobody how": (RANGE, message(KEY, flag=1)),
    "compressed in a way that nobody knows": (RANGE, message(KEY, flag=1), {"grpc-encoding": "zstd"}),
    "a flag that is none": (RANGE, message(KEY, flag=2)),
    "half of a message in a stream": (KEEP_ALIVE, message(b"\x08\x01")[:-1]),
    "a bad message in a stream": (KEEP_ALIVE, message(b"\xff")),
    "gRPC of another coding": (RANGE, message(KEY), {"content-type": "application/grpc+proto"}),
    "metadata that is not base64": (RANGE, message(KEY), {"some-bin": "!"}),
}
