"""TLS of both clients: when it is spoken, whom it believes, what it shows, and what is said when it does not come about."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import trustme

import raftkv
from raftkv.client.blockingconn import BlockingConnection
from raftkv.client.tls import Tls, TlsConnector
from raftkv.client.wireconn import WireConnection

from .fakeserver import FakeCluster

Open = Callable[..., Any]


class Forge:
    """A CA and certificates of it, in files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = trustme.CA()
        self.ca_file = str(directory / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)

    def issue(self, *names: str, common_name: str | None = None, stem: str = "own") -> tuple[str, str]:
        """Certificate and key, renamed over what was there."""
        issued = self.ca.issue_cert(*names, common_name=common_name)
        paths = tuple(str(self.directory / f"{stem}-{kind}.pem") for kind in ("cert", "key"))
        for path, blob in zip(paths, (issued.cert_chain_pems[0], issued.private_key_pem), strict=True):
            blob.write_to_path(path + ".new")
            os.replace(path + ".new", path)
        return paths[0], paths[1]

    def spoil(self, path: str) -> None:
        Path(path).write_text("broken")


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


class Front:
    """TLS in front of a plain member: what came of each handshake, and the bytes of the good ones passed on."""

    def __init__(self, target: str, context: ssl.SSLContext) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.context = context
        self.shown: list[str] = []
        """The common names that clients have shown; "" for none."""
        self.protocols: list[str | None] = []
        self.endpoint = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> "Front":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda *_: None)  # what clients do to it is not its matter
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        self.endpoint = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        certificate = writer.get_extra_info("peercert") or {}
        names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
        self.shown.append(names[0] if names else "")
        self.protocols.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        try:
            inner_reader, inner_writer = await asyncio.open_connection(*self._target)
            await asyncio.gather(pass_on(reader, inner_writer), pass_on(inner_reader, writer))
        except OSError:
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except OSError:
        pass
    finally:
        writer.transport.abort()


@pytest.fixture
def lone() -> Iterator[FakeCluster]:
    with FakeCluster(1) as running:
        yield running


def server_context(forge: Forge, *names: str, asks: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*forge.issue(*names, stem="server"))
    context.set_alpn_protocols(["raftkv", "h2"])
    if asks:
        context.load_verify_locations(forge.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def complaint(kv: Any) -> str:
    """Why the one member does not answer, after one attempt."""
    (row,) = await kv.status()
    return str(row["errors"][0])


# Both clients.


async def test_calls_and_watches_go_through_tls(forge: Forge, lone: FakeCluster, open_client: Open) -> None:
    with Front(lone.endpoints, server_context(forge, "127.0.0.1")) as front:
        kv = open_client(f"https://{front.endpoint}", tls=Tls(forge.ca_file), timeout=3.0)
        async with kv.watch("k"):
            await kv.put("k", b"x" * 60_000)  # more than one record of TLS
            assert await kv.get("k") == b"x" * 60_000
        assert set(front.protocols) == {"raftkv"}
        assert len(front.protocols) == 2, "calls, and the watch"


async def test_a_certificate_is_shown(forge: Forge, lone: FakeCluster, open_client: Open) -> None:
    cert_file, key_file = forge.issue("somewhere", common_name="ann")
    with Front(lone.endpoints, server_context(forge, "127.0.0.1", asks=True)) as front:
        kv = open_client(front.endpoint, tls=Tls(forge.ca_file, cert_file, key_file), timeout=3.0)
        await kv.put("k", "v")
        assert set(front.shown) == {"ann"}


async def test_who_shows_none_is_told(forge: Forge, lone: FakeCluster, open_client: Open) -> None:
    with Front(lone.endpoints, server_context(forge, "127.0.0.1", asks=True)) as front:
        error = await complaint(open_client(front.endpoint, tls=Tls(forge.ca_file), timeout=2.0))
        assert "certificate" in error, error


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["n1"], {}, "certificate is not valid for '127.0.0.1'"),
        (["127.0.0.1"], {"server_name": "n1"}, "certificate is not valid for 'n1'"),
        (["127.0.0.1"], {"ca_file": None}, "unable to get local issuer certificate"),
    ],
)
async def test_a_member_that_is_not_believed(
    forge: Forge, lone: FakeCluster, open_client: Open, names: list[str], options: dict[str, Any], words: str
) -> None:
    with Front(lone.endpoints, server_context(forge, *names)) as front:
        kv = open_client(f"https://{front.endpoint}", timeout=3.0, tls=Tls(**{"ca_file": forge.ca_file, **options}))
        error = await complaint(kv)
        assert words in error, error
        assert "_ssl.c" not in error
    assert front.shown == [], "nothing was said to it"


@pytest.mark.parametrize("options", [{"server_name": "n1"}, {"verify": False, "ca_file": None}])
async def test_another_name_and_no_questions(
    forge: Forge, lone: FakeCluster, open_client: Open, options: dict[str, Any]
) -> None:
    with Front(lone.endpoints, server_context(forge, "n1")) as front:
        kv = open_client(front.endpoint, timeout=3.0, tls=Tls(**{"ca_file": forge.ca_file, **options}))
        await kv.put("k", "v")
        assert len(front.shown) >= 1


async def test_plainly_to_a_port_with_tls(forge: Forge, lone: FakeCluster, open_client: Open) -> None:
    with Front(lone.endpoints, server_context(forge, "127.0.0.1")) as front:
        error = await complaint(open_client(front.endpoint, timeout=0.5))
        assert "https://" in error, error


async def test_tls_to_a_port_that_does_not_speak_it(forge: Forge, open_client: Open) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.transport.abort(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    error = await complaint(open_client(f"https://127.0.0.1:{port}", tls=Tls(forge.ca_file), timeout=2.0))
    server.close()
    assert "handshake" in error or "reset" in error, error


async def test_new_connections_show_new_certificates(forge: Forge, lone: FakeCluster, open_client: Open) -> None:
    cert_file, key_file = forge.issue("somewhere", common_name="ann")
    with Front(lone.endpoints, server_context(forge, "127.0.0.1", asks=True)) as front:
        kv = open_client(
            front.endpoint,
            tls=Tls(forge.ca_file, cert_file, key_file),
            timeout=3.0,
            connection_lifetime=0.01,
        )
        await kv.put("k", "v")
        forge.issue("somewhere", common_name="bob")
        async with asyncio.timeout(10):
            while front.shown[-1] != "bob":
                await kv.put("k", "v")
        forge.spoil(key_file)
        seen = len(front.shown)
        async with asyncio.timeout(10):
            while len(front.shown) == seen:
                await kv.put("k", "v")
        assert front.shown[-1] == "bob", "what cannot be used takes nothing away"


def test_an_idle_blocking_connection_is_used_again_and_a_dead_one_is_not(forge: Forge, lone: FakeCluster) -> None:
    with (
        Front(lone.endpoints, server_context(forge, "127.0.0.1")) as front,
        raftkv.Client(front.endpoint, tls=Tls(forge.ca_file), timeout=3.0) as kv,
    ):
        for number in range(5):
            kv.put("k", str(number))
        assert len(front.shown) == 1
        lone.members[0].hang_up()
        kv.put("k", "after")
        assert len(front.shown) == 2


def test_the_goodbye_of_tls_is_no_sign_of_life(forge: Forge) -> None:
    """A write without a session that is sent to a member which has said goodbye would end with an outcome that nobody knows."""
    server = server_context(forge, "127.0.0.1")
    server.num_tickets = 0  # as members do: a ticket would be something that came unasked
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        ended = threading.Event()

        def serve() -> None:
            plain, _ = listening.accept()
            with server.wrap_socket(plain, server_side=True) as line:
                line.settimeout(10)
                assert line.recv(1) == b"x"
                with contextlib.suppress(OSError):
                    line.setblocking(False)
                    line.unwrap()  # says goodbye, and would wait for ours
                ended.wait(10)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        plain = socket.create_connection(listening.getsockname(), timeout=10)
        line = TlsConnector(Tls(forge.ca_file)).wrap(plain, "127.0.0.1")
        wire = WireConnection(cluster_name=None, session=None, client_name="test")
        connection = BlockingConnection(address, line, wire)
        try:
            assert connection.is_open()
            line.settimeout(10)
            line.sendall(b"x")
            deadline = time.monotonic() + 10
            while connection.is_open():
                assert time.monotonic() < deadline
        finally:
            ended.set()
            connection.close()
            thread.join(10)
