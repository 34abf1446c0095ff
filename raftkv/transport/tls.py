"""TLS of both ports: certificates that are re-read when their files change, and connections that are encrypted before anybody hears of them.

Contexts are made anew when a file
changes; connections that are open keep theirs. A file that cannot be used is said once, and what was there before stays in use.
"""

import asyncio
import logging
import os
import socket
import ssl
import time
from datetime import UTC, datetime
from typing import Any, Callable, Final, NamedTuple, Sequence

from raftkv.errors import ConfigError
from raftkv.transport.certificate import not_after

logger = logging.getLogger(__name__)

HANDSHAKE_DEADLINE_S: Final = 5.0
SHUTDOWN_DEADLINE_S: Final = 1.0
LOOK_INTERVAL_S: Final = 1.0
ACCEPT_PAUSE_S: Final = 1.0
END_WARNING_S: Final = 14 * 24 * 3600.0


class TlsFiles(NamedTuple):
    """Paths of PEM files. `ca_file`: whose certificates are believed; `asks_certificate`: the other side has to show one of those."""

    cert_file: str
    key_file: str
    ca_file: str | None
    asks_certificate: bool


class TlsContexts:
    """The contexts of one port and of the connections that this member makes in its name. Raises ConfigError for files that cannot be used."""

    def __init__(
        self,
        files: TlsFiles,
        protocols: Sequence[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.files = files
        self._protocols = list(protocols)
        self._clock, self._wall_clock = clock, wall_clock
        self._stamp = self._stamp_now()
        self._looked_at = clock()
        self.reloads = self.reloads_failed = 0
        self.not_after: float | None = None
        """When the first of our own certificates ends, in seconds since 1970; None: that cannot be read."""
        self._server, self._client = self._load()
        self._note_end()

    def server(self) -> ssl.SSLContext:
        """For a connection that came in."""
        self.look()
        return self._server

    def client(self) -> ssl.SSLContext:
        """For a connection that is made: the same certificate, and the other side has to show one that is believed."""
        self.look()
        return self._client

    def look(self) -> None:
        """Take what has been put there since, looking once a second at most."""
        now = self._clock()
        if now - self._looked_at < LOOK_INTERVAL_S:
            return
        self._looked_at = now
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._server, self._client = self._load()
        except ConfigError as error:
            # Files change one after the other: a certificate whose key is still the old one is no reason to stop.
            self.reloads_failed += 1
            logger.warning("the new certificates are not used: %s", error.message)
        else:
            self.reloads += 1
            logger.info("certificates were read anew from %s", self.files.cert_file)
            self._note_end()

    def _note_end(self) -> None:
        """Say it while there is time to do something; that nobody can connect any more is said by everybody then."""
        try:
            with open(self.files.cert_file, encoding="utf-8", errors="replace") as file:
                self.not_after = not_after(file.read())
        except OSError:
            self.not_after = None  # it is being replaced: the next look finds another one
        if self.not_after is None or self.not_after - self._wall_clock() > END_WARNING_S:
            return
        text = datetime.fromtimestamp(self.not_after, UTC).strftime("%Y-%m-%d %H:%M UTC")
        logger.warning(
            "the certificate in %s ends on %s: renew it, nothing needs a restart", self.files.cert_file, text
        )

    def _stamp_now(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in (self.files.cert_file, self.files.key_file, self.files.ca_file) if path]

    def _load(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.num_tickets = 0
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        files = self.files
        for context in (server, client):
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            # A session that is resumed is not looked at again: a certificate whose time is over would go on counting for hours.
            context.options |= ssl.OP_NO_TICKET
            _load_own(context, files)
            if files.ca_file is not None:
                _load_ca(context, files.ca_file)
        if files.ca_file is None:
            client.load_default_certs()
        if files.asks_certificate:
            server.verify_mode = ssl.CERT_REQUIRED
        if self._protocols:
            server.set_alpn_protocols(self._protocols)
        return server, client


def _load_own(context: ssl.SSLContext, files: TlsFiles) -> None:
    for path in (files.cert_file, files.key_file):
        _check_readable(path)
    try:
        # An encrypted key is refused: OpenSSL would ask the terminal for its password, and the loop would wait.
        context.load_cert_chain(files.cert_file, files.key_file, password="")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"{files.cert_file} and {files.key_file} are no certificate with its key: {describe(error)}"
        ) from error


def _load_ca(context: ssl.SSLContext, path: str) -> None:
    _check_readable(path)
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"{path} holds no certificates: {describe(error)}") from error


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def describe(error: Exception) -> str:
    """What OpenSSL says, without its numbers and its source line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message or "the certificate is not believed"
    reason = getattr(error, "reason", None)
    if isinstance(reason, str) and reason:
        return reason.replace("_", " ").lower()
    text = str(error).partition("] ")[2].partition(" (_ssl.c")[0] if str(error).startswith("[") else str(error)
    return text or type(error).__name__


# Who the other side is.


def names_of(transport: asyncio.BaseTransport) -> tuple[str, list[str]]:
    """The common name in the certificate of the other side, and the names and addresses that it is for; ("", []) when it has shown none."""
    certificate: dict[str, Any] = transport.get_extra_info("peercert") or {}
    common_name = ""
    for part in certificate.get("subject", ()):
        for name, value in part:
            if name == "commonName":
                common_name = value
    return common_name, [
        value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")
    ]


def is_for(host: str, names: Sequence[str]) -> bool:
    """Whether a certificate with these names is one of that host; `*.` stands for one label of a name (RFC 6125, 6.4.3)."""
    wanted = host.lower().rstrip(".")
    is_address = wanted.replace(".", "").isdigit() or ":" in wanted
    for name in names:
        pattern = name.lower().rstrip(".")
        if pattern == wanted or (
            not is_address and pattern.startswith("*.") and wanted.partition(".")[2] == pattern[2:] != ""
        ):
            return True
    return False


def hang_up(sock: socket.socket) -> None:
    """End a handshake that is under way: it fails at once. asyncio forgets to close the transport of one that is cancelled in its first turn."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other side was faster


# Connections that come in.


class TlsServer:
    """A listening socket whose connections are encrypted before their protocol is made. What of asyncio.Server is needed here.

    Connections are taken by hand: so handshakes that are under way can be counted, each is made with the certificates of now, and whoever
    fails can be told apart.
    """

    def __init__(
        self,
        contexts: TlsContexts,
        make: Callable[[], asyncio.Protocol],
        *,
        handshakes_max: Callable[[], int],
        on_refused: Callable[[str, str], None],
    ) -> None:
        self._contexts = contexts
        self._make = make
        self._handshakes_max = handshakes_max
        self._on_refused = on_refused  # with the reason, and where it came from
        self._loop = asyncio.get_running_loop()
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}  # the oldest first
        self._hung_up: set[asyncio.Task[None]] = set()  # whose end is our own doing, and nobody else's failure
        self.sockets: list[socket.socket] = []

    @property
    def handshakes(self) -> int:
        """That are under way."""
        return len(self._handshakes)

    async def start(self, host: str, port: int, backlog: int) -> None:
        """Listen. Raises OSError."""
        infos = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            sock = socket.socket(family, kind, protocol)
            self.sockets.append(sock)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setblocking(False)
                sock.bind(address)
                sock.listen(backlog)
            except OSError:
                self.close()
                raise
        for sock in self.sockets:
            self._loop.add_reader(sock, self._accept, sock, backlog)

    def close(self) -> None:
        """Take no more; handshakes under way end."""
        for sock in self.sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self.sockets = []
        while self._handshakes:
            self._hang_up_oldest()

    async def wait_closed(self) -> None:
        """Until the handshakes that were under way have ended."""
        if self._hung_up:
            await asyncio.wait(tuple(self._hung_up))

    def _hang_up_oldest(self) -> None:
        task = next(iter(self._handshakes))
        self._hung_up.add(task)
        hang_up(self._handshakes.pop(task))

    def _accept(self, listening: socket.socket, count: int) -> None:
        for _ in range(count):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor is left: the others go on, and this one is asked again in a while
                self._on_refused(f"cannot take a connection: {error.strerror}", "anywhere")
                self._loop.remove_reader(listening)
                self._loop.call_later(ACCEPT_PAUSE_S, self._listen_again, listening, count)
                return
            if len(self._handshakes) >= max(1, self._handshakes_max()):
                # The oldest has had the most time. Refusing the newest would let a few that never end keep everybody out.
                self._on_refused("too many connections that are being encrypted", str(address[0]))
                self._hang_up_oldest()
            sock.setblocking(False)
            task = self._loop.create_task(self._encrypt(sock, str(address[0])))
            self._handshakes[task] = sock
            task.add_done_callback(self._on_ended)

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)
        self._hung_up.discard(task)

    def _listen_again(self, listening: socket.socket, count: int) -> None:
        if listening in self.sockets:
            self._loop.add_reader(listening, self._accept, listening, count)

    async def _encrypt(self, sock: socket.socket, host: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make,
                sock,
                ssl=self._contexts.server(),
                ssl_handshake_timeout=HANDSHAKE_DEADLINE_S,
                ssl_shutdown_timeout=SHUTDOWN_DEADLINE_S,
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            if asyncio.current_task() not in self._hung_up:
                self._on_refused(f"no TLS: {describe(error)}", host)
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise


__all__ = ["TlsContexts", "TlsFiles", "TlsServer", "describe", "hang_up", "is_for", "names_of"]
