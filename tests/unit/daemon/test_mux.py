"""The client port: who gets which connection, HTTP on every path through it, and everything that is closed."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any, Callable, Coroutine

import pytest

import raftkv
from raftkv.daemon.api.http import PAGES, build_http_server
from raftkv.daemon.facts import Facts
from raftkv.daemon.mux import ClientPort, recognize
from raftkv.daemon.probing import Looks
from raftkv.errors import (
    Diverged,
    MembershipRefused,
    NoQuorum,
    Overloaded,
    PermissionDenied,
    RaftKVError,
    UserEmpty,
)
from raftkv.limits import DEFAULT_LIMITS, Limits
from raftkv.replica.membership import read_request
from raftkv.wire.alarms import CORRUPT, NOSPACE
from raftkv.wire.commands import OK, failure
from raftkv.wire.protocol import CHANGE_MEMBERS, MEMBERS, STATUS

Run = Callable[[Coroutine[Any, Any, None]], None]


class View:
    """A member as the HTTP door sees it."""

    def __init__(self) -> None:
        self.ready = (True, "ok")
        self.looks = Looks()
        self.told: dict[str, Any] = {"leader": 7, "takes_writes": True, "cluster_id": 5}
        self.unreadable: dict[bool, RaftKVError] = {}  # by whether a read is serializable

    def status(self) -> dict[str, Any]:
        return {"name": "<n1>", "id": 7, "role": "leader", "errors": ["a & b"]}

    def readiness(self) -> tuple[bool, str]:
        return self.ready

    def facts(self) -> Facts:
        return Facts(**{**dict.fromkeys(Facts._fields, 0), "alarms": [], **self.told})

    async def read(self, *, serializable: bool) -> None:
        if serializable in self.unreadable:
            raise self.unreadable[serializable]

    def members(self) -> list[dict[str, Any]]:
        return [{"id": 7, "name": "n1"}]

    @property
    def metrics_text(self) -> Callable[[], bytes]:
        return lambda: b"# TYPE up gauge\nup 1\n"


class Native(asyncio.Protocol):
    """Stands in for the native door: remembers what it got and echoes it."""

    def __init__(self, made: "list[Native]") -> None:
        made.append(self)
        self.received = b""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Door:
    def __init__(self, limits: Limits = DEFAULT_LIMITS, **options: Any) -> None:
        self.natives: list[Native] = []
        self.changes: list[Any] = []
        self.judged: list[Any] = []
        self.refusal: RaftKVError | None = None
        self.view = View()
        http = build_http_server(self.view, self.change_members, self.judge)
        self.port = ClientPort(lambda: Native(self.natives), http, limits, **options)
        self.address: tuple[str, int] = ("", 0)

    async def change_members(self, wanted: Any) -> list[Any]:
        read_request(wanted)
        self.changes.append(wanted)
        return failure(MembershipRefused("no")) if wanted.get("force") else [OK, {"ids": {}}]

    async def judge(self, command: list[Any], authorization: str | None, certificate_name: str) -> RaftKVError | None:
        self.judged.append((command, authorization))
        return self.refusal

    async def connect(self, first_bytes: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        if first_bytes:
            writer.write(first_bytes)
        return reader, writer

    async def ask(self, first_bytes: bytes) -> bytes:
        """Everything that comes back until the end of the connection."""
        reader, writer = await self.connect(first_bytes)
        try:
            return await read_to_end(reader)
        finally:
            writer.close()


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            received += chunk
    return received


@contextlib.asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[Door]:
    door = Door(**options)
    host, _, port = (await door.port.start("127.0.0.1:0")).rpartition(":")
    door.address = (host, int(port))
    try:
        yield door
    finally:
        await door.port.close()


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition; the deadline is that of the test (conftest.run)."""
    while not condition():
        await asyncio.sleep(0.002)


def request(path: str, method: str = "GET", headers: str = "Connection: close\r\n", body: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: n1\r\n{headers}\r\n{body}".encode()


def parts(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status_line, *header_lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in header_lines)}
    return int(status_line.split()[1]), headers, body


# Recognition.


@pytest.mark.parametrize(
    ("first_bytes", "protocol"),
    [
        (b"", ""),
        (b"R", ""),
        (b"RKV", ""),
        (b"RKV1", "native"),
        (b"RKV1\x93\x01", "native"),
        (b"RKV2", None),
        (b"P", ""),
        (b"PRI * HT", ""),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http/2"),
        (b"PUT /", "http/1.1"),
        (b"PATCH", ""),
        (b"G", ""),
        (b"GET / HTTP", "http/1.1"),
        (b"TRACE /", "http/1.1"),
        (b"get /", None),
        (b"\x16\x03\x01", None),
        (b"\x00", None),
    ],
)
def test_recognition(first_bytes: bytes, protocol: str | None) -> None:
    assert recognize(first_bytes) == protocol


def test_the_native_door_gets_every_byte(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            reader, writer = await door.connect(b"RKV1hello")
            assert await reader.readexactly(9) == b"RKV1hello"
            writer.write(b" again")
            assert await reader.readexactly(6) == b" again"
            assert door.natives[0].received == b"RKV1hello again"
            writer.close()
            await until(lambda: door.natives[0].lost)
            assert door.port.connections_open == 0

    run(scenario())


def test_first_bytes_that_come_one_by_one(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            reader, writer = await door.connect()
            for byte in b"RKV1":
                assert door.natives == []
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(0)
            assert await reader.readexactly(4) == b"RKV1"
            writer.close()
            answer = b""
            reader, writer = await door.connect()
            for byte in request("/livez"):
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(0)
            answer = await read_to_end(reader)
            writer.close()
            assert parts(answer)[0] == 200

    run(scenario())


# HTTP on a real socket.


@pytest.mark.parametrize(
    ("path", "method", "command"),
    [
        ("/", "GET", [STATUS]),
        ("/status", "GET", [STATUS]),
        ("/members", "GET", [MEMBERS]),
        ("/members", "POST", [CHANGE_MEMBERS, {}]),
    ],
)
def test_pages_that_say_more_than_health_are_for_users(run: Run, path: str, method: str, command: list[Any]) -> None:
    async def scenario() -> None:
        async with opened() as door:
            extra = "Connection: close\r\nAuthorization: Basic YQ==\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
            for refusal, expected in ((UserEmpty(), 401), (PermissionDenied(), 403)):
                door.refusal = refusal
                status, headers, body = parts(await door.ask(request(path, method, extra, "{}")))
                assert status == expected
                assert ("www-authenticate" in headers) == (expected == 401), "browsers ask for a name"
                assert json.loads(body)["code"] == refusal.code
            assert door.judged == [(command, "Basic YQ==")] * 2
            assert door.changes == []
            for open_path in ("/livez", "/readyz", "/health", "/metrics", "/version"):
                assert parts(await door.ask(request(open_path)))[0] == 200

    run(scenario())


def test_pages(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            expected = {
                "/livez": ("text/plain; charset=utf-8", b"ok\n"),
                "/readyz": ("text/plain; charset=utf-8", b"ok\n"),
                "/health": ("text/plain; charset=utf-8", b'{"health":"true","reason":""}'),
                "/metrics": ("text/plain; version=1.0.0; charset=utf-8", b"# TYPE up gauge\nup 1\n"),
            }
            for path, (content_type, body) in expected.items():
                status, headers, got = parts(await door.ask(request(path)))
                assert (status, got) == (200, body), path
                assert headers["content-type"].split(";")[0] == content_type.split(";")[0], path
                assert headers["server"] == "raftkv", "no versions of what it is made of"
            status, _, body = parts(await door.ask(request("/status")))
            assert (status, json.loads(body)) == (200, door.view.status())
            _, headers, body = parts(await door.ask(request("/version")))
            assert (headers["content-type"], body[-1:]) == ("application/json", b"}"), "as etcd's"
            told = json.loads(body)
            assert (told["etcdserver"][:4], told["etcdcluster"], told["raftkv"]) == (
                "3.5.",
                "3.5.0",
                raftkv.__version__,
            )
            door.view.told["cluster_id"] = 0
            assert json.loads(parts(await door.ask(request("/version")))[2])["etcdcluster"] == "not_decided"

    run(scenario())


def test_the_index_is_escaped_and_points_everywhere(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            status, headers, body = parts(await door.ask(request("/")))
            assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert b"<h1>raftkv member &lt;n1&gt;</h1>" in body
            assert b"a &amp; b" in body
            for path in PAGES:
                assert path == "/" or f'href="{path}"'.encode() in body

    run(scenario())


def test_the_membership_is_changed_by_json_that_says_so(run: Run) -> None:
    def post(body: bytes, kind: str = "application/json") -> bytes:
        head = f"POST /members HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {kind}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def scenario() -> None:
        async with opened() as door:
            status, _, body = parts(await door.ask(post(b'{"remove": ["n3"]}')))
            assert (status, json.loads(body)) == (200, {"ids": {}})
            assert door.changes == [{"remove": ["n3"]}]
            for sent, kind, expected in (
                (b'{"remove": ["n3"]}', "text/plain", (415, "unsupported")),
                (b'{"remove": ', "application/json", (400, "invalid_request")),
                (b'{"other": 1}', "application/json", (400, "invalid_request")),
                (b'["' + b"x" * 70_000 + b'"]', "application/json", (400, "invalid_request")),
                (b'{"force": true}', "application/json", (409, "membership_refused")),
            ):
                status, _, body = parts(await door.ask(post(sent, kind)))
                assert (status, json.loads(body)["code"]) == expected, sent[:40]

    run(scenario())


def test_checks_are_listed_alone_or_left_out(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            good, bad = "[+]{} ok\n", "[-]{} failed: {}\n"
            livez = good.format("serializable_read")
            readyz = [
                good.format(name) for name in ("data_corruption", "serializable_read", "linearizable_read", "ready")
            ]
            learner = good.format("non_learner")
            unknown = "warn: some health checks cannot be excluded: no matches for 'x'\n"
            not_linearizable = bad.format("linearizable_read", "no quorum")
            door.view.unreadable = {}
            for path, status, body in (
                ("/livez?verbose", 200, livez + "ok\n"),
                ("/livez/serializable_read?verbose", 200, livez + "ok\n"),
                ("/readyz?verbose", 200, "".join(readyz) + "ok\n"),
                ("/readyz/non_learner?verbose", 200, learner + "ok\n"),
                (
                    "/readyz?verbose&exclude=ready&exclude=x",
                    200,
                    "".join(readyz[:3]) + "[+]ready excluded: ok\n" + unknown + "ok\n",
                ),
            ):
                answer = parts(await door.ask(request(path)))
                assert (answer[0], answer[2].decode()) == (status, body), path
            door.view.unreadable = {False: NoQuorum("no quorum")}
            door.view.ready = (False, "no <leader>")
            door.view.told |= {"is_learner": True, "alarms": [(9, CORRUPT)]}
            for path, status, body in (
                ("/livez", 200, "ok\n"),
                (
                    "/readyz",
                    503,
                    bad.format("data_corruption", "alarm activated: CORRUPT")
                    + readyz[1]
                    + not_linearizable
                    + bad.format("ready", "no <leader>"),
                ),
                ("/readyz/linearizable_read", 503, not_linearizable),
                ("/readyz/non_learner", 503, bad.format("non_learner", "this member has no vote")),
                ("/readyz?exclude=data_corruption&exclude=linearizable_read&exclude=ready", 200, "ok\n"),
            ):
                answer = parts(await door.ask(request(path)))
                assert (answer[0], answer[2].decode()) == (status, body), path
            for path in ("/livez/", "/livez/x", "/livez/linearizable_read", "/readyz/ready/x", "/readyz/non_learner/"):
                assert parts(await door.ask(request(path)))[0] == 404, path
            assert door.view.looks.results["readyz", "ready"] is False
            assert door.view.looks.counts["readyz", "linearizable_read", False] == 2
            assert b"not ready: no &lt;leader&gt;" in await door.ask(request("/"))

    run(scenario())


def test_a_member_that_takes_in_a_snapshot_lives_and_one_whose_store_is_refused_does_not(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            door.view.unreadable = {True: Overloaded("this member is taking in a snapshot")}
            assert parts(await door.ask(request("/livez")))[0] == 200
            assert parts(await door.ask(request("/readyz")))[0] == 503
            door.view.unreadable = {True: Diverged("another store")}
            assert parts(await door.ask(request("/livez")))[2] == b"[-]serializable_read failed: another store\n"

    run(scenario())


def test_health_as_etcd_means_it(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            view = door.view

            async def ask(query: str = "") -> str:
                status, _, body = parts(await door.ask(request(f"/health{query}")))
                told = json.loads(body)
                assert told["health"] == ("true" if status == 200 else "false")
                assert (status == 200) == (told["reason"] == "")
                return str(told["reason"])

            assert await ask() == ""
            view.told["alarms"] = [(9, NOSPACE), (8, CORRUPT)]
            assert await ask() == "ALARM NOSPACE"
            assert await ask("?exclude=NOSPACE") == "ALARM CORRUPT"
            assert await ask("?exclude=NOSPACE&exclude=CORRUPT") == ""
            view.told |= {"alarms": [], "takes_writes": False}
            assert await ask() == "ALARM NOSPACE", "its disk is full"
            view.told |= {"takes_writes": True, "leader": 0}
            view.unreadable = {False: NoQuorum("no quorum")}
            assert await ask() == "RAFT NO LEADER"
            assert await ask("?serializable=true") == ""
            view.told["leader"] = 7
            assert await ask() == "RANGE ERROR:no quorum"
            view.unreadable = {True: Overloaded("busy")}
            assert await ask("?serializable=true") == "RANGE ERROR:busy"
            assert (view.looks.healthy, view.looks.unhealthy) == (3, 6)

    run(scenario())


def test_head_other_methods_and_unknown_paths(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            for path in PAGES:
                status, headers, body = parts(await door.ask(request(path, "HEAD")))
                assert (status, body) == (200, b""), path
                assert int(headers["content-length"]) > 0
                methods = ("PUT", "DELETE", "PATCH", "POST" if path != "/members" else "OPTIONS")
                for method in methods:
                    status, headers, body = parts(await door.ask(request(path, method)))
                    assert status == 405
                    assert headers["allow"] == "GET, HEAD" + ("" if "POST" in methods else ", POST")
                    assert json.loads(body)["code"] == "method_not_allowed"
            status, _, body = parts(await door.ask(request("/nothing/here?x=1")))
            assert (status, json.loads(body)["code"]) == (404, "not_found")

    run(scenario())


def test_a_page_that_breaks_shows_no_traceback(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with opened() as door:
            door.view.ready = None  # type: ignore[assignment]
            status, _, body = parts(await door.ask(request("/readyz")))
            assert (status, json.loads(body)["code"]) == (500, "internal")
            assert b"Traceback" not in body
            assert "cannot answer /readyz" in caplog.text
            assert parts(await door.ask(request("/livez")))[0] == 200

    run(scenario())


def test_keep_alive_and_pipelining(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            answer = await door.ask(request("/livez", headers="") + request("/version", headers="") + request("/livez"))
            assert answer.count(b"HTTP/1.1 200 OK") == 3

    run(scenario())


@pytest.mark.parametrize(
    "broken",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nbroken header\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 70_000,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    ],
    ids=range(6),
)
def test_broken_http_is_answered_in_json_without_a_traceback(
    run: Run, caplog: pytest.LogCaptureFixture, broken: bytes
) -> None:
    async def scenario() -> None:
        async with opened() as door:
            status, headers, body = parts(await door.ask(broken))
            assert status == 400
            assert headers["content-type"].startswith("application/json")
            assert json.loads(body)["code"] == "bad_request"
            assert "Traceback" not in caplog.text

    run(scenario())


def test_an_unwanted_body_is_bounded(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            reader, writer = await door.connect(request("/livez", "POST", headers="Content-Length: 100000000000\r\n"))
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof() and not writer.is_closing():
                    writer.write(b"x" * 65536)
                    await writer.drain()
                    if b"405" in await reader.read(65536):
                        break
            await read_to_end(reader)
            writer.close()
            await until(lambda: door.port.connections_open == 0)

    run(scenario())


# What is closed.


def test_http2_is_refused_in_its_own_words(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            answer = await door.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            assert answer.startswith(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            goaway = answer[9:]
            assert goaway[3] == 7
            assert goaway[13:17] == (13).to_bytes(4, "big")
            assert b"not served" in goaway
            assert len(goaway) == 9 + int.from_bytes(goaway[:3], "big")

    run(scenario())


def test_another_door_for_http2(run: Run) -> None:
    async def scenario() -> None:
        made: list[Native] = []

        class Door:
            def __call__(self) -> Native:
                return Native(made)

            def __len__(self) -> int:
                return 0  # a door without connections is a door

            async def begin_shutdown(self) -> None: ...

        async with opened(http2_door=Door()) as door:
            reader, writer = await door.connect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert await reader.readexactly(24) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            writer.close()
            await until(lambda: made[0].lost)

    run(scenario())


def test_random_bytes_end_their_connection_and_nothing_else(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            garbage = [
                b"\x16\x03\x01\x02\x00\x01",
                b"\x00" * 9,
                b"RKV9",
                b"SSH-2.0-x\r\n",
                *(b"\xfe" + os.urandom(99),) * 5,
            ]
            for first_bytes in garbage:
                assert await door.ask(first_bytes) == b""
            assert door.port.connections_unrecognized == len(garbage)
            assert parts(await door.ask(request("/livez")))[0] == 200
            assert door.natives == []

    run(scenario())


def test_half_open_and_slow_connections_end_at_the_deadline(run: Run) -> None:
    async def scenario() -> None:
        async with opened(first_bytes_deadline_ms=200) as door:
            started = asyncio.get_running_loop().time()
            for first_bytes in (b"", b"RK", b"GET / HTTP/1.1\r\nHost: n1\r\nX: "):
                reader, writer = await door.connect(first_bytes)
                assert await read_to_end(reader) == b""
                writer.close()
            assert asyncio.get_running_loop().time() - started >= 0.55
            assert door.port.connections_unrecognized == 3
            reader, writer = await door.connect(b"RKV1")
            await reader.readexactly(4)
            loop = asyncio.get_running_loop()
            after_deadline = loop.create_future()
            loop.call_later(0.3, after_deadline.set_result, None)
            await after_deadline
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            writer.close()

    run(scenario())


def test_connections_are_bounded(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with opened(limits=Limits(client_connections_max=3)) as door:
            ends = [await door.connect(b"RKV1") for _ in range(3)]
            for reader, _ in ends:
                await reader.readexactly(4)
            for _ in range(5):
                assert await door.ask(b"RKV1") == b""
            assert (door.port.connections_open, door.port.connections_refused) == (3, 5)
            assert caplog.text.count("limit client_connections_max") == 1
            ends[0][1].close()
            await until(lambda: door.natives[0].lost)
            reader, writer = await door.connect(b"RKV1")
            assert await reader.readexactly(4) == b"RKV1", "a closed connection makes room"
            for _, open_writer in (*ends, (reader, writer)):
                open_writer.close()
            await until(lambda: all(native.lost for native in door.natives))

    run(scenario())


def test_ended_connections_are_not_kept(run: Run) -> None:
    async def scenario() -> None:
        async with opened() as door:
            for _ in range(300):
                await door.ask(b"\x00")
            assert len(door.port._transports) <= 64
            assert door.port.connections_open == 0
            assert door.port.connections_accepted == 300

    run(scenario())


def test_close_ends_every_connection(run: Run) -> None:
    async def scenario() -> None:
        door = Door()
        host, _, port = (await door.port.start("127.0.0.1:0")).rpartition(":")
        door.address = (host, int(port))
        native = await door.connect(b"RKV1")
        await native[0].readexactly(4)
        idle_http = await door.connect(request("/livez", headers=""))
        assert b"200 OK" in await idle_http[0].readuntil(b"ok\n")
        silent = await door.connect()
        half = await door.connect(b"GET / HT")
        await until(lambda: door.port.connections_open == 4)
        started = asyncio.get_running_loop().time()
        await door.port.close()
        assert asyncio.get_running_loop().time() - started < 1
        for reader, writer in (native, idle_http, silent, half):
            assert await read_to_end(reader) == b""
            writer.close()
        with pytest.raises(OSError, match=r"refused|failed"):
            await door.connect()
        assert door.natives[0].lost

    run(scenario())
