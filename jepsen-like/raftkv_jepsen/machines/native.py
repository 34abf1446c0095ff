"""One raw connection of the native protocol, pinned to one member: no retry, no redirect, no session unless asked for.

Tests use it to see what a member answers to one request at one moment, and to break the protocol on purpose. It shares
wire/protocol.py and wire/commands.py with the daemon, nothing with the client library.
"""

import socket
import time
from types import TracebackType
from typing import Any

from raftkv.errors import RaftKVError
from raftkv.limits import DEFAULT_LIMITS
from raftkv.wire import commands, protocol

RECEIVE_BYTES = 65_536


class ConnectionEnded(Exception):
    """The member closed or reset the connection."""


class NativeConnection:
    """A blocking connection. Timeouts are in seconds; an answer that does not come in time raises TimeoutError."""

    def __init__(
        self,
        endpoint: str,
        *,
        timeout_s: float = 5.0,
        cluster_name: str | None = None,
        session: bytes | None = None,
        hello: bool = True,
        login: tuple[str, str] | None = None,
    ) -> None:
        host, _, port = endpoint.rpartition(":")
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pack = protocol.new_packer().pack
        self._unpacker = protocol.new_unpacker(DEFAULT_LIMITS)
        self._answers: dict[int, list[Any]] = {}
        self._last_id = 0
        self.hello_answer: dict[str, Any] = {}
        if hello:
            try:
                self.hello_answer = self.hello(cluster_name=cluster_name, session=session)
                if login is not None:
                    self.call([protocol.AUTHENTICATE, *login])
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> "NativeConnection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket; closing twice is nothing."""
        self.socket.close()

    def hello(self, *, cluster_name: str | None = None, session: bytes | None = None) -> dict[str, Any]:
        """Sends preface and HELLO. Raises the member's refusal, or ConnectionEnded."""
        options = protocol.hello_options(cluster_name=cluster_name, session=session, client="test")
        self.send_bytes(protocol.PREFACE)
        answer = self.call([protocol.HELLO, options])
        assert isinstance(answer[1], dict), answer
        return answer[1]

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes as they are. Raises ConnectionEnded when the member has closed."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ConnectionEnded(str(error)) from error

    def send(self, *requests: list[Any], timeout_ms: int = 0) -> list[int]:
        """Sends requests in one burst and returns their ids; the answers are fetched by `answer`."""
        ids = list(range(self._last_id + 1, self._last_id + 1 + len(requests)))
        self._last_id += len(requests)
        self.send_bytes(
            b"".join(
                self._pack([request_id, timeout_ms, command]) for request_id, command in zip(ids, requests, strict=True)
            )
        )
        return ids

    def acknowledge(self, ack_below: int, *, register: bool) -> None:
        """The notice that precedes the writes of a session."""
        self.send_bytes(self._pack([0, 0, [protocol.ACK, ack_below, register]]))

    def answer(self, request_id: int, *, timeout_s: float | None = None) -> list[Any]:
        """The answer to one request, failures included. Raises TimeoutError or ConnectionEnded."""
        ends_s = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while request_id not in self._answers:
            self._receive_more(ends_s)
        return self._answers.pop(request_id)

    def call(self, command: list[Any], *, timeout_ms: int = 0, timeout_s: float | None = None) -> list[Any]:
        """One request and its answer. Raises the RaftKVError that the member answered with."""
        (request_id,) = self.send(command, timeout_ms=timeout_ms)
        answer = self.answer(request_id, timeout_s=timeout_s)
        if answer[0] != commands.OK:
            raise commands.error_of(answer)
        return answer

    def outcome(
        self, command: list[Any], *, timeout_ms: int = 0, timeout_s: float | None = None
    ) -> list[Any] | RaftKVError:
        """As `call`, with the error as a value."""
        try:
            return self.call(command, timeout_ms=timeout_ms, timeout_s=timeout_s)
        except RaftKVError as error:
            return error

    def put(self, key: bytes, value: bytes, *, sequence: int = 0) -> int:
        """The revision of the put."""
        return int(self.call([commands.PUT, sequence, key, value, 0, 0])[1])

    def get(self, key: bytes, *, serializable: bool = False) -> bytes | None:
        """The value, linearizable unless asked otherwise."""
        items = self.call([commands.GET, commands.SERIALIZABLE if serializable else 0, key])[2]
        return None if items is None else bytes(items[5])

    def increment(self, key: bytes, delta: int = 1, *, sequence: int = 0) -> int:
        """The new value."""
        return int(self.call([commands.INCREMENT, sequence, key, delta])[2])

    def dump(self, *, serializable: bool) -> list[list[Any]]:
        """All key-values of the member, in order, paged as the member cuts them."""
        flags = commands.SERIALIZABLE if serializable else 0
        found: list[list[Any]] = []
        start = b"\0"
        while True:
            answer = self.call([commands.RANGE, flags, start, b"\0", 0, 0, 0, 0, 0, 0, 0, 0], timeout_s=20)
            found.extend(answer[2])
            if not answer[3]:
                return found
            start = bytes(found[-1][0]) + b"\0"

    def status(self) -> dict[str, Any]:
        """The member's own status."""
        answer = self.call([protocol.STATUS])
        assert isinstance(answer[1], dict), answer
        return answer[1]

    def finish(self, *, timeout_s: float = 5.0) -> bytes:
        """Sends nothing more and returns what the member still says before it closes."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return b""  # the member has closed already
        return self.wait_closed(timeout_s=timeout_s)

    def wait_closed(self, *, timeout_s: float = 5.0) -> bytes:
        """What the member still sent before it closed. Raises TimeoutError when it does not close."""
        ends_s = time.monotonic() + timeout_s
        received = b""
        while True:
            self.socket.settimeout(max(0.001, ends_s - time.monotonic()))
            try:
                data = self.socket.recv(RECEIVE_BYTES)
            except ConnectionResetError:
                return received
            if not data:
                return received
            received += data

    def _receive_more(self, ends_s: float) -> None:
        left_s = ends_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"{self.endpoint} did not answer in time")
        self.socket.settimeout(left_s)
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except ConnectionResetError as error:
            raise ConnectionEnded(str(error)) from error
        if not data:
            raise ConnectionEnded(f"{self.endpoint} closed the connection")
        self._unpacker.feed(data)
        for request_id, answer in self._unpacker:
            self._answers[request_id] = answer
