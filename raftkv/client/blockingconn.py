"""One connection on a blocking socket, for one borrower at a time. Used by the pool and by the blocking client's calls.

Every wait has an end given by the caller, as a reading of time.monotonic(). Only socket and time are imported: the command line pays for
every import before it can answer.
"""

import socket
from time import monotonic
from typing import Final

from raftkv.client import verdict
from raftkv.client.endpoints import split_address
from raftkv.client.session import Session
from raftkv.client.tls import TlsConnector
from raftkv.client.wireconn import LOGIN_TIMEOUT_S, WireConnection
from raftkv.errors import RaftKVError
from raftkv.wire.commands import Answer, Command

READ_BYTES: Final = 256 * 1024


class Lost(Exception):
    """The connection ended under a request; never leaves the client."""

    def __init__(self, reason: RaftKVError) -> None:
        super().__init__(reason.message)
        self.reason = reason


class BlockingConnection:
    """A greeted connection to one member."""

    __slots__ = ("_is_encrypted", "_socket", "address", "heard_at", "retire_at", "wire")

    def __init__(self, address: str, sock: socket.socket, wire: WireConnection) -> None:
        self.address = address
        self.wire = wire
        self.heard_at = monotonic()
        self.retire_at = float("inf")
        self._socket = sock
        self._is_encrypted = hasattr(sock, "getpeercert")  # a class that is not to be loaded for a look at it

    @classmethod
    def open(
        cls,
        address: str,
        wire: WireConnection,
        deadline: float,
        login_deadline: float = float("inf"),
        *,
        tls: TlsConnector | None = None,
    ) -> "BlockingConnection":
        """Connect, greet, and log in, which takes longer. Raises Unreachable, ClusterMismatch, ProtocolError, or why the login is refused."""
        try:
            connection = cls(address, open_socket(address, deadline, tls), wire)
        except (OSError, UnicodeError) as error:
            raise verdict.not_connected(error) from None
        try:
            connection._send(wire.greeting(deadline - monotonic()), deadline)
            while wire.handshake is None:
                connection._receive(deadline)
                reply = wire.take_reply()
                if reply:
                    deadline = max(deadline, min(login_deadline, monotonic() + LOGIN_TIMEOUT_S))
                    connection._send(reply, deadline)
                if wire.broken is not None:
                    raise wire.broken
        except Lost as error:
            connection.close()
            raise error.reason from None
        except OSError as error:
            connection.close()
            raise verdict.not_connected(error) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def send(self, command: Command, timeout_s: float, deadline: float) -> int:
        """Send a request and return its id. Raises OSError when the socket is broken, TimeoutError when nobody reads it."""
        request_id, frame = self.wire.request(command, timeout_s)
        self._send(self.wire.notice() + frame, deadline)
        return request_id

    def receive(self, request_id: int, deadline: float) -> Answer | None:
        """The answer to a request; None when it did not come in time. Raises OSError or Lost when the connection broke."""
        while True:
            try:
                answers = self._receive(deadline)
            except TimeoutError:
                return None
            for answered_id, answer in answers:
                if answered_id == request_id:
                    return answer
            if self.wire.broken is not None:
                raise Lost(self.wire.broken)

    def receive_all(self, deadline: float) -> list[tuple[int, Answer]]:
        """Whatever comes next. Raises TimeoutError when nothing does in time, another OSError or Lost when the connection broke."""
        return self._receive(deadline)

    def probe(self, deadline: float) -> None:
        """Ask for a sign of life, which `receive` notes in `heard_at`. Raises OSError."""
        self._send(self.wire.ping(max(0.0, deadline - monotonic())), deadline)

    def is_open(self) -> bool:
        """Nothing speaks against it: the member has not hung up. Costs two system calls and waits for nothing."""
        try:
            self._socket.settimeout(0.0)
            # Below TLS, which cannot look ahead. There the goodbye of the other side is data like any other: what came unasked speaks against it.
            seen = socket.socket.recv(self._socket, 1, socket.MSG_PEEK)
            return bool(seen) and not self._is_encrypted
        except BlockingIOError:
            return True
        except OSError:
            return False

    def is_alive(self, deadline: float) -> bool:
        """It answers a PING in time: what lay idle for long may be half open."""
        try:
            self.probe(deadline)
            self._receive(deadline)
        except (OSError, Lost):
            return False
        return self.wire.broken is None

    def serves(self, session: Session | None) -> bool:
        """It was greeted under this session."""
        return self.wire.session is session

    def interrupt(self) -> None:
        """Wake whoever waits on it in another thread: the connection is over."""
        try:
            # Past TLS, whose own way would take the encryption from under the thread that waits.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed by the other side first

    def close(self) -> None:
        self._socket.close()

    def _send(self, data: bytes, deadline: float) -> None:
        self._socket.settimeout(_remaining_s(deadline))
        self._socket.sendall(data)

    def _receive(self, deadline: float) -> list[tuple[int, Answer]]:
        self._socket.settimeout(_remaining_s(deadline))
        data = self._socket.recv(READ_BYTES)
        if not data:
            if self.wire.handshake is None:
                raise Lost(verdict.not_greeted(None, self._is_encrypted))
            raise Lost(verdict.lost(None))
        self.heard_at = monotonic()
        return self.wire.receive(data)


def open_socket(address: str, deadline: float, tls: TlsConnector | None = None) -> socket.socket:
    """A connected socket, encrypted with `tls`; names are resolved anew every time. Raises OSError."""
    host, port = split_address(address)
    # As bytes: the interpreter loads its tables for international names (2 ms) for text only.
    name: str | bytes = host.encode("ascii") if host.isascii() else host
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, target in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_remaining_s(deadline))
            sock.connect(target)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                sock.settimeout(_remaining_s(deadline))
                sock = tls.wrap(sock, host)
        except OSError as error:
            sock.close()
            failure = error
            continue
        except BaseException:
            sock.close()
            raise
        return sock
    raise failure


def _remaining_s(deadline: float) -> float | None:
    """For settimeout, where 0 means something else and None means for ever. Raises TimeoutError."""
    remaining_s = deadline - monotonic()
    if remaining_s <= 0:
        raise TimeoutError
    return remaining_s if remaining_s < 1e6 else None
