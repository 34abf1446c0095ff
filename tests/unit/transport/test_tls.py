"""TLS of connections that come in, the certificates behind it, and whose certificate is whose."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from raftkv.errors import ConfigError
from raftkv.transport.peer_tls import PeerTls
from raftkv.transport.tls import TlsContexts, TlsFiles, TlsServer, is_for
from tests.unit.conftest import Run


class Shop:
    """A CA, and certificates of it in files."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        self.ca_file = str(directory / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)
        self._directory = directory

    def spoil(self, path: str) -> None:
        """What a copy that broke off leaves."""
        Path(path).write_text("nothing")

    def files(self, *names: str, common_name: str | None = None, asks: bool = True, stem: str = "own") -> TlsFiles:
        """A certificate and its key, written over what was there under this stem."""
        issued = self.ca.issue_cert(*names, common_name=common_name)
        paths = [str(self._directory / f"{stem}-{kind}.pem") for kind in ("cert", "key")]
        for path, blob in zip(paths, (issued.cert_chain_pems[0], issued.private_key_pem), strict=True):
            blob.write_to_path(path + ".new")
            os.replace(path + ".new", path)
        return TlsFiles(paths[0], paths[1], self.ca_file, asks)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


class Echo(asyncio.Protocol):
    """Says back what it hears."""

    def __init__(self, made: list["Echo"]) -> None:
        self._made = made
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._made.append(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Port:
    """A listener that encrypts what comes in."""

    def __init__(self, contexts: TlsContexts, handshakes_max: int = 100) -> None:
        self.contexts = contexts
        self.handshakes_max = handshakes_max
        self.made: list[Echo] = []
        self.refused: list[str] = []
        self.port = 0

    async def __aenter__(self) -> "Port":
        self.server = TlsServer(
            self.contexts,
            lambda: Echo(self.made),
            handshakes_max=lambda: self.handshakes_max,
            on_refused=lambda reason, host: self.refused.append(f"{host}: {reason}"),
        )
        await self.server.start("127.0.0.1", 0, 10)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.server.close()
        for echo in self.made:
            echo.transport.abort()
        await self.server.wait_closed()
        assert self.server.handshakes == 0

    async def ask(self, context: ssl.SSLContext, name: str = "localhost") -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name)
        try:
            writer.write(b"hello")
            return await reader.readexactly(5)
        finally:
            writer.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_connection_is_encrypted_and_its_protocol_hears_all_of_it(run: Run, shop: Shop) -> None:
    async def scenario() -> None:
        contexts = TlsContexts(shop.files("localhost", common_name="ann"), ("raftkv", "h2"))
        async with Port(contexts) as port:
            client = contexts.client()
            client.set_alpn_protocols(["h2"])
            assert await port.ask(client) == b"hello"
            (echo,) = port.made
            assert echo.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"

    run(scenario())


def test_data_in_one_packet_with_the_end_of_the_handshake_is_not_lost(run: Run, shop: Shop) -> None:
    async def scenario() -> None:
        contexts = TlsContexts(shop.files("localhost"))
        async with Port(contexts) as port:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = contexts.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
            reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65536))
                else:
                    break
            tls.write(b"early")
            writer.write(outgoing.read())  # Finished and data at once
            answer = b""
            async with asyncio.timeout(10):
                while len(answer) < 5:
                    incoming.write(await reader.read(65536))
                    try:
                        answer += tls.read(100)
                    except ssl.SSLWantReadError:
                        continue
            assert answer == b"early"
            writer.transport.abort()

    run(scenario())


def test_who_shows_no_certificate_speaks_plainly_or_hangs_is_told_apart(run: Run, shop: Shop) -> None:
    async def scenario() -> None:
        contexts = TlsContexts(shop.files("localhost"))
        async with Port(contexts, handshakes_max=1) as port:
            stranger = ssl.create_default_context(cafile=shop.ca_file)
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await port.ask(stranger)
            await until(lambda: len(port.refused) == 1)
            assert "certificate" in port.refused[0]
            assert await plainly(port.port, b"GET / HTTP/1.1\r\n\r\n") == b""
            await until(lambda: len(port.refused) == 2)
            assert "http request" in port.refused[1]
            reader, hanging = await asyncio.open_connection("127.0.0.1", port.port)
            await until(lambda: port.server.handshakes == 1)
            assert await port.ask(contexts.client()) == b"hello", "who comes later is not kept out"
            assert "too many" in port.refused[2]
            assert await read_to_end(reader) == b"", "the one that was under way for longest has to go"
            hanging.transport.abort()
            await port.server.wait_closed()
            assert (port.server.handshakes, len(port.made), len(port.refused)) == (0, 1, 3), "it is counted once"

    run(scenario())


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def test_a_session_is_not_resumed_for_the_certificate_would_not_be_looked_at(run: Run, shop: Shop) -> None:
    async def scenario() -> None:
        contexts = TlsContexts(shop.files("localhost"))
        async with Port(contexts) as port:
            assert await asyncio.to_thread(resumed, contexts.client(), port.port) is False

    run(scenario())


def resumed(context: ssl.SSLContext, port: int) -> bool | None:
    """Whether a second connection can go on with the session of the first."""
    assert context.maximum_version != ssl.TLSVersion.TLSv1_2, "which resumes by an id that Python cannot turn off"
    session: Any = None
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as line,
            context.wrap_socket(line, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(b"hello")
            assert tls.recv(5) == b"hello"
            session, reused = tls.session, tls.session_reused
    return reused


async def plainly(port: int, data: bytes) -> bytes:
    """What comes back until the other side closes, without the alert that TLS says it with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = b""
    try:
        while part := await reader.read(100):
            answer += part
    except ConnectionError:
        pass
    writer.transport.abort()
    return b"" if answer.startswith(b"\x15\x03") else answer


def test_new_files_count_for_new_connections_and_broken_ones_for_none(run: Run, shop: Shop) -> None:
    async def scenario() -> None:
        now = [0.0]
        files = shop.files("localhost", asks=False)
        contexts = TlsContexts(files, clock=lambda: now[0])
        async with Port(contexts) as port:
            client = ssl.create_default_context(cafile=shop.ca_file)
            assert await port.ask(client) == b"hello"
            shop.files("other.example", asks=False)
            assert await port.ask(client) == b"hello", "it is not looked for at every connection"
            now[0] += 2
            with pytest.raises(ssl.SSLCertVerificationError):
                await port.ask(client)
            assert await port.ask(client, "other.example") == b"hello"
            shop.spoil(files.cert_file)
            now[0] += 2
            assert await port.ask(client, "other.example") == b"hello"
            assert (contexts.reloads, contexts.reloads_failed) == (1, 1)
            shop.files("localhost", asks=False)
            now[0] += 2
            assert await port.ask(client) == b"hello"

    run(scenario())


@pytest.mark.parametrize(("days_before", "warns"), [(15, False), (13, True), (-1, True)])
def test_its_end_is_known_and_said_in_time(
    shop: Shop, caplog: pytest.LogCaptureFixture, days_before: int, warns: bool
) -> None:
    files = shop.files("localhost")
    certificate = x509.load_pem_x509_certificate(Path(files.cert_file).read_bytes())
    end = certificate.not_valid_after_utc.timestamp()
    contexts = TlsContexts(files, wall_clock=lambda: end - days_before * 24 * 3600)
    assert contexts.not_after == end
    assert ("renew it" in caplog.text) is warns


def test_files_that_cannot_be_used_are_named(shop: Shop, tmp_path: Path) -> None:
    good = shop.files("localhost")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    other = shop.files("localhost", stem="other")
    locked = tmp_path / "locked.pem"
    key = serialization.load_pem_private_key(Path(good.key_file).read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    for files, told in (
        (good._replace(cert_file="/nowhere/cert.pem"), "cannot read /nowhere/cert.pem"),
        (good._replace(key_file=str(empty)), "no certificate with its key"),
        (good._replace(key_file=other.key_file), "key values mismatch"),
        (good._replace(ca_file=str(empty)), "holds no certificates"),
        (good._replace(key_file=str(locked)), "no certificate with its key"),
    ):
        with pytest.raises(ConfigError, match=told):
            TlsContexts(files)


class Shown:
    """A transport whose other side has shown a certificate."""

    def __init__(self, common_name: str, *names: tuple[str, str]) -> None:
        self._certificate = {"subject": ((("commonName", common_name),),), "subjectAltName": names}

    def get_extra_info(self, name: str) -> Any:
        return self._certificate if name == "peercert" else None


@pytest.mark.parametrize(
    ("shown", "good"),
    [
        (Shown("x", ("DNS", "n1.example")), True),
        (Shown("x", ("DNS", "*.example")), True),
        (Shown("x", ("DNS", "N1.Example")), True),
        (Shown("x", ("DNS", "n1")), True),  # the member's own name
        (Shown("n1", ("DNS", "elsewhere")), True),
        (Shown("x", ("DNS", "n2.example"), ("DNS", "n2")), False),
        (Shown("x", ("DNS", "*.n1.example")), False),
        (Shown("x", ("DNS", "example")), False),
        (Shown("n2"), False),
        (Shown(""), False),
    ],
)
def test_a_member_shows_a_certificate_of_its_own(shop: Shop, shown: Any, good: bool) -> None:
    tls = PeerTls(shop.files("n9.example"))
    reason = tls.judge(shown, 1, "n1", "n1.example:2380")
    assert (reason is None) is good, reason
    assert good or "n1" in str(reason)


def test_one_common_name_can_stand_for_all_members(shop: Shop) -> None:
    tls = PeerTls(shop.files("any"), "raftkv-member")
    member: Any = Shown("raftkv-member", ("DNS", "elsewhere"))
    stranger: Any = Shown("client", ("DNS", "n1.example"))
    assert tls.judge(member, 1, "n1", "n1.example:2380") is None
    assert "raftkv-member" in str(tls.judge(stranger, 1, "n1", "n1.example:2380"))


KNOWN = {1: ("n1", "n1.example:2380"), 2: ("n2", "n2.example:2380"), 3: ("n3", "n3.example:2380")}


@pytest.mark.parametrize(
    ("shown", "node_id", "name", "address", "told"),
    [
        (Shown("x", ("DNS", "n1.example")), 1, "n1", "n1.example:2380", ""),
        (
            Shown("x", ("DNS", "n1.new")),
            1,
            "n1",
            "n1.new:2380",
            "",
        ),  # it has moved, with a certificate for where it is now
        (Shown("x", ("DNS", "n1.example")), 1, "n1", "n1.new:2380", ""),  # or before it got one
        (Shown("x", ("DNS", "n4.example")), 4, "n4", "n4.example:2380", ""),  # nobody here has heard of it yet
        (Shown("x", ("DNS", "*.example")), 1, "n1", "n1.example:2380", ""),  # one certificate for all of them
        # The key of n2 in the hands of somebody who says that n1 lives at the host of n2.
        (Shown("x", ("DNS", "n2.example")), 1, "n1", "n2.example:2380", "that of 'n2'"),
        (Shown("n2"), 1, "n1", "n2:2380", "that of 'n2'"),
        (Shown("x", ("DNS", "n2.example")), 4, "n4", "n2.example:2380", "that of 'n2'"),
        (Shown("x", ("DNS", "n2.example")), 1, "n2", "n2.example:2380", "that of 'n2'"),
        (Shown("x", ("DNS", "elsewhere")), 1, "n1", "n1.example:2380", "is for elsewhere"),
        (Shown("x", ("DNS", "elsewhere")), 1, "elsewhere", "n1.example:2380", "is for elsewhere"),
    ],
)
def test_the_key_of_one_member_does_not_open_the_place_of_another(
    shop: Shop, shown: Any, node_id: int, name: str, address: str, told: str
) -> None:
    tls = PeerTls(shop.files("n9.example"))
    tls.known = lambda: KNOWN
    reason = tls.judge(shown, node_id, name, address)
    assert (told in str(reason)) if told else reason is None, reason


def test_addresses_in_certificates() -> None:
    assert is_for("10.0.0.1", ["10.0.0.1"])
    assert not is_for("10.0.0.1", ["*.0.0.1"])
    assert not is_for("10.0.0.1", ["10.0.0.2"])
