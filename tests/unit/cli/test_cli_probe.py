"""The light HTTP request and `raftkv health`, against a server that says what the test wants."""

import socket
import threading
import time
from typing import Iterator

import pytest

from raftkv_cli.probe import probe

from .conftest import RunCli

TIMEOUT_SECONDS = 10.0


class Server:
    """Answers every connection with the same bytes, in pieces of one byte when `slowly`."""

    def __init__(self, answer: bytes, *, slowly: bool = False) -> None:
        self._answer = answer
        self._slowly = slowly
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                request = connection.recv(4096)
                if not request:
                    return
                self.requests.append(request)
                step = 1 if self._slowly else len(self._answer) or 1
                for start in range(0, len(self._answer), step):
                    connection.sendall(self._answer[start : start + step])

    def close(self) -> None:
        host, _, port = self.endpoint.rpartition(":")
        socket.create_connection((host, int(port))).close()  # a connection without a request ends the thread
        self._thread.join()
        self._listener.close()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made: list[Server] = []
    yield made
    for server in made:
        server.close()


def test_the_request_and_the_reply(servers: list[Server]) -> None:
    servers.append(
        Server(b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\nno\nleader\n", slowly=True)
    )
    reply = probe(servers[0].endpoint, "/readyz", TIMEOUT_SECONDS)
    assert (reply.status, reply.text, reply.ok) == (503, "no leader", False)
    assert servers[0].requests[0].startswith(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Connection: close" in servers[0].requests[0]


@pytest.mark.parametrize(
    "answer", [b"", b"RKV1 is not http", b"HTTP/1.1", b"HTTP/1.1 yes\r\n\r\n", b"HTTP/1.1 xyz OK\r\n\r\n"]
)
def test_what_is_no_http_is_said(servers: list[Server], answer: bytes) -> None:
    servers.append(Server(answer))
    reply = probe(servers[0].endpoint, "/readyz", TIMEOUT_SECONDS)
    assert (reply.status, reply.ok) == (0, False)
    assert "does not speak HTTP" in reply.text


def test_a_server_that_says_nothing_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reply = probe(f"127.0.0.1:{silent.getsockname()[1]}", "/readyz", 0.05)
    assert (reply.status, reply.text) == (0, "no answer within 0.05 s")


def test_members_that_hang_do_not_add_up(cli: RunCli) -> None:
    """Ten that say nothing for half a second each: one after the other would take five."""
    hanging = [socket.create_server(("127.0.0.1", 0)) for _ in range(10)]
    endpoints = ",".join(f"127.0.0.1:{server.getsockname()[1]}" for server in hanging)
    began = time.monotonic()
    result = cli("health", "--endpoints", endpoints, "--timeout", "0.5")
    assert time.monotonic() - began < 4
    assert result.code == 4
    assert len(result.stdout.splitlines()) == 10
    for server in hanging:
        server.close()


def test_health(cli: RunCli, servers: list[Server]) -> None:
    servers += [
        Server(b"HTTP/1.1 200 OK\r\n\r\nok"),
        Server(b"HTTP/1.1 503 Service Unavailable\r\n\r\nno leader"),
    ]
    ready, unready = (server.endpoint for server in servers)
    with socket.create_server(("127.0.0.1", 0)) as closing:
        nobody = f"127.0.0.1:{closing.getsockname()[1]}"
    healthy = cli("health", "--endpoints", ready)
    assert healthy.code == 0
    assert healthy.stdout.startswith(f"{ready} healthy (".encode())
    some = cli("health", "--endpoints", f"{ready},{unready},{nobody}", "-o", "json")
    assert some.code == 1
    assert [row["health"] for row in some.document] == ["healthy", "not ready", "unreachable"]
    assert [row["reason"] for row in some.document] == [None, "no leader", "connection refused"]
    assert cli("health", "--endpoints", unready).code == 1
    assert cli("health", "--endpoints", nobody).code == 4
    assert len(cli("health", "--endpoints", f"{ready},{nobody}", "-o", "table").stdout.splitlines()) == 3
