"""One small HTTP request on a plain socket: is a member alive, is it ready?

http.client would cost more start-up time than the request; the body of a health page is short and its end is the
connection's end.
"""

import contextlib
import socket
import threading
import time
from typing import NamedTuple, Sequence

from raftkv.client.endpoints import split_address
from raftkv.client.tls import TlsConnector

REPLY_BYTES_MAX = 64 * 1024


class ProbeReply(NamedTuple):
    status: int
    """The HTTP status, or 0 when there was no answer."""
    text: str
    """The body, or why there was no answer."""
    seconds: float

    @property
    def ok(self) -> bool:
        return self.status == 200


def probe(endpoint: str, path: str, timeout_seconds: float, tls: TlsConnector | None = None) -> ProbeReply:
    """GET `path` from `endpoint` within `timeout_seconds`. Never raises for a member that is away: the reply says so."""
    host, port = split_address(endpoint)
    began = time.monotonic()
    try:
        status, text = exchange(host, port, path, began + timeout_seconds, tls)
    except TimeoutError:
        status, text = 0, f"no answer within {timeout_seconds:g} s"
    except OSError as error:
        status, text = 0, (error.strerror or str(error)).lower()
    return ProbeReply(status, text, time.monotonic() - began)


def probe_all(
    endpoints: Sequence[str], path: str, timeout_seconds: float, tls: TlsConnector | None = None
) -> list[ProbeReply]:
    """Ask all at once, so that members that hang do not add up; the replies are in the order of the endpoints."""
    replies: dict[str, ProbeReply] = {}

    def ask(endpoint: str) -> None:
        replies[endpoint] = probe(endpoint, path, timeout_seconds, tls)

    threads = [threading.Thread(target=ask, args=(endpoint,), daemon=True) for endpoint in set(endpoints)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [replies[endpoint] for endpoint in endpoints]


def exchange(host: str, port: int, path: str, deadline: float, tls: TlsConnector | None) -> tuple[int, str]:
    remaining = max(0.001, deadline - time.monotonic())
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((host, port), remaining))
        if tls is not None:
            connection = stack.enter_context(tls.wrap(connection, host))
        request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode("ascii"))
        reply = bytearray()
        while len(reply) < REPLY_BYTES_MAX:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            connection.settimeout(remaining)
            data = connection.recv(4096)
            if not data:
                break
            reply += data
    head, _, body = bytes(reply).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not head.startswith(b"HTTP/1.") or len(words) < 3 or not words[1].isdigit():
        return 0, "what listens there does not speak HTTP"
    return int(words[1]), " ".join(body.decode("utf-8", "replace").split())
