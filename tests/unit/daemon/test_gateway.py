"""The JSON gateway on real sockets, in one process: streams, clients that go away, bounds, tokens, WebSockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from raftkv.daemon.api import gateway_streams, gateway_words
from raftkv.daemon.api.gateway import Gateway
from raftkv.daemon.api.http import build_http_server
from raftkv.daemon.etcd.callers import token_of
from raftkv.daemon.etcd.calls import Call, Procedure, Refused
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.identity import ANYBODY, Caller
from raftkv.daemon.etcd.procedures import GATEWAY
from raftkv.daemon.etcd.tasks import answered_by, streamed_by
from raftkv.errors import InvalidAuthToken
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.limits import Limits
from tests.unit.conftest import Run
from tests.unit.daemon.etcd_calls import HandHouse

PUT = '{"key":"Zm9v","value":"YmFy"}'


class Here:
    """A gateway that listens, and what the procedures of the test have seen."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.hand = HandHouse(limits)
        self.house = self.hand.house
        self.canceled = asyncio.Event()
        self.sent = 0
        own = (
            Procedure("/test/Wait", ("/wait",), rpc.PutRequest, rpc.PutResponse, answered_by(self._wait)),
            Procedure(
                "/test/Flood",
                ("/flood",),
                rpc.PutRequest,
                rpc.PutResponse,
                streamed_by(self._flood),
                server_streaming=True,
            ),
        )
        self.table = {**GATEWAY, **{path: procedure for procedure in own for path in procedure.gateway}}
        self.port = 0
        self._server: asyncio.Server | None = None
        self._http: Any = None

    async def _wait(self, house: House, call: Call, request: Any) -> rpc.PutResponse:
        if request.key == b"foo":
            return rpc.PutResponse(prev_kv={"key": (call.caller.user or "").encode()})
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.canceled.set()
            raise
        raise AssertionError("nobody sets it")

    async def _flood(self, house: House, call: Call, request: Any) -> AsyncIterator[rpc.PutResponse]:
        try:
            while True:
                if request.key == b"end" and self.sent == 2:
                    raise Refused(11, "this & <that>")
                self.sent += 1
                yield rpc.PutResponse(prev_kv={"value": bytes(10_000) if request.key == b"many" else b"v"})
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.canceled.set()
            raise

    async def __aenter__(self) -> "Here":
        view: Any = None

        async def change_members(wanted: Any) -> Any:
            raise AssertionError("not asked")

        async def judge(command: Any, authorization: str | None) -> None:
            return None

        self._http = build_http_server(view, change_members, judge, Gateway(self.house, self.table, gateway_streams))
        self._server = await asyncio.get_running_loop().create_server(self._http, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._http.shutdown(0.1)

    async def open(
        self, path: str, body: str | bytes = "", *, method: str = "POST", ends: bool = True, **headers: str
    ) -> "Answer":
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        data = body.encode() if isinstance(body, str) else body
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: here",
            *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
        ]
        lines.append(f"Content-Length: {len(data)}" if ends else "Transfer-Encoding: chunked")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        writer.write(data if ends or not data else b"%x\r\n%s\r\n" % (len(data), data))
        return Answer(reader, writer)

    async def ask(self, path: str, body: str | bytes = "", **options: Any) -> tuple[int, Any]:
        answer = await self.open(path, body, **options)
        status, text = await answer.status(), await answer.rest()
        answer.close()
        return status, json.loads(text) if text.startswith("{") else text


class Answer:
    """What comes back on a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.headers: dict[str, str] = {}
        self._lines: list[bytes] = []

    async def status(self) -> int:
        number = int((await self.reader.readline()).split()[1])
        while (line := await self.reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        return number

    async def rest(self) -> str:
        if "content-length" in self.headers:
            return (await self.reader.readexactly(int(self.headers["content-length"]))).decode()
        text = b""
        while part := await self.part():
            text += part
        return text.decode()

    async def part(self) -> bytes:
        """One chunk: what was sent in one go."""
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def line(self) -> Any:
        if not self._lines:
            self._lines = (await self.part()).splitlines()
        return json.loads(self._lines.pop(0))

    def close(self) -> None:
        self.writer.close()


def here(run: Run, scenario: Callable[[Here], Awaitable[None]], limits: Limits | None = None) -> None:
    async def main() -> None:
        async with Here(limits) as gateway:
            await scenario(gateway)

    run(main())


def test_commands_of_one_turn_share_an_entry(run: Run) -> None:
    async def scenario(gateway: Here) -> None:
        answers = await asyncio.gather(*(gateway.ask("/v3/kv/put", PUT) for _ in range(8)))
        assert sorted(int(body["header"]["revision"]) for _, body in answers) == list(range(2, 10))
        assert gateway.house.calls.of("/etcdserverpb.KV/Put").handled[0] == 8
        status, body = await gateway.ask("/v3/kv/put", '{"key":"Zm9v","lease":5}')
        assert (status, body["code"]) == (404, 5)
        assert gateway.house.calls.of("/etcdserverpb.KV/Put").handled[5] == 1

    here(run, scenario)


def test_who_asks_is_settled_by_the_house(run: Run) -> None:
    async def scenario(gateway: Here) -> None:
        def authenticate(metadata: Any, certificate_name: str, found: Any) -> None:
            token = token_of(metadata) or ""
            answer = InvalidAuthToken() if token == "bad" else Caller(token, 3)
            asyncio.get_running_loop().call_later(0.01, found, answer)

        gateway.house.authenticate = authenticate
        status, body = await gateway.ask("/v3/wait", '{"key":"Zm9v"}', Authorization="ann")
        assert (status, body["prev_kv"]["key"]) == (200, "YW5u")
        for path in ("/v3/wait", "/v3/watch", "/v3/flood"):
            status, body = await gateway.ask(path, "{}", Authorization="bad")
            assert (status, body) == (
                401,
                {"error": body["message"], "code": 16, "message": "etcdserver: invalid auth token"},
            )

    here(run, scenario)


def test_a_call_ends_with_its_client_and_with_its_time(run: Run) -> None:
    async def scenario(gateway: Here) -> None:
        answer = await gateway.open("/v3/wait", "{}")
        while not gateway.house.calls.of("/test/Wait").started:
            await asyncio.sleep(0.001)
        assert not gateway.canceled.is_set()
        answer.close()
        await gateway.canceled.wait()
        gateway.canceled.clear()
        status, body = await gateway.ask("/v3/wait", "{}", Grpc_Timeout="50m")
        assert (status, body["code"], body["message"]) == (504, 4, "context deadline exceeded")
        await gateway.canceled.wait()
        counts = gateway.house.calls.of("/test/Wait")
        assert (counts.started, counts.handled[1], counts.handled[4]) == (2, 1, 1)

    here(run, scenario)


def test_a_stream_that_fails_has_a_last_line(run: Run) -> None:
    async def scenario(gateway: Here) -> None:
        answer = await gateway.open("/v3/flood", '{"key":"ZW5k"}')
        assert await answer.status() == 200
        *results, last = [json.loads(line) for line in (await answer.rest()).splitlines()]
        assert results == [{"result": {"prev_kv": {"value": "dg=="}}}] * 2
        assert last == {
            "error": {"grpc_code": 11, "http_code": 400, "message": "this & <that>", "http_status": "Bad Request"}
        }
        answer.close()
        gateway.sent = 2
        assert await gateway.ask("/v3/flood", '{"key":"ZW5k"}') == (
            400,
            {"error": "this & <that>", "code": 11, "message": "this & <that>"},
        )

    here(run, scenario)


def test_a_stream_waits_for_a_client_that_takes_nothing(run: Run) -> None:
    async def scenario(gateway: Here) -> None:
        answer = await gateway.open("/v3/flood", '{"key":"bWFueQ=="}')
        sent = -1
        while sent != gateway.sent:
            sent = gateway.sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 5_000, "bounded by buffers"
        assert await answer.status() == 200
        for _ in range(sent):
            await answer.part()
        while gateway.sent == sent:
            await asyncio.sleep(0.01)
        answer.close()
        await gateway.canceled.wait()

    here(run, scenario, Limits(watch_buffer_bytes_max=100_000))


def test_a_watch_in_both_directions_and_its_end(run: Run) -> None:
    async def scenario(gateway: Here) -> None:
        watch = '{"create_request":{"key":"Zm9v"}}'
        answer = await gateway.open("/v3/watch", watch, ends=False)
        assert await answer.status() == 200
        assert (await answer.line())["result"]["created"]
        await gateway.ask("/v3/kv/put", PUT)
        assert (await answer.line())["result"]["events"][0]["kv"]["value"] == "YmFy"
        for part in (b'{"progress_', b'request":{}}{"cancel_request":{}}'):
            answer.writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await answer.writer.drain()
        results = [(await answer.line())["result"] for _ in range(2)]
        assert {(result.get("watch_id"), result.get("canceled")) for result in results} == {("-1", None), (None, True)}
        ended = await gateway.open("/v3/watch", watch)
        assert await ended.status() == 200
        assert (await ended.line())["result"]["created"]
        gateway.hand.leader.service.begin_shutdown()
        last = json.loads(await ended.rest())
        assert last["error"]["message"] == "etcdserver: server stopped"
        answer.close()
        ended.close()

    here(run, scenario)


def test_a_client_that_leaves_while_its_answer_begins_is_no_bug(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(gateway: Here) -> None:
        answer = await gateway.open("/v3/leaves")
        assert await answer.status() == 499, "if anybody were there"
        answer.close()

    async def leave(*_: Any) -> None:
        raise ConnectionResetError("Cannot write to closing transport")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gateway, "handle", leave)
        here(run, scenario)
    assert not caplog.records, "it would be looked for"


def test_what_is_too_large_or_broken(run: Run) -> None:
    async def scenario(gateway: Here) -> None:
        large = '{"key":"Zm9v","value":"' + "A" * 2_800_000 + '"}'
        status, body = await gateway.ask("/v3/kv/put", large)
        assert (status, body["code"]) == (429, 8)
        assert body["message"] == "grpc: received message larger than max (2100010 vs. 2097152)"
        answer = await gateway.open("/v3/kv/put", b"x" * 70_000, ends=False)
        for _ in range(100):
            answer.writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        assert await answer.status() == 429
        answer.close()
        answer = await gateway.open("/v3/watch", '{"create_request":{"key":"' + "A" * 5_000_000, ends=False)
        assert await answer.status() == 500
        answer.close()
        status, body = await gateway.ask("/v3/kv/put", "[" * 100_000)
        assert (status, body["code"]) == (400, 3)
        status, body = await gateway.ask("/v3/kv/put", b"\xff\xfe")
        assert (status, body["code"]) == (400, 3)

    here(run, scenario)


def test_a_body_that_does_not_come_is_not_waited_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_words, "SLOWEST_BODY_S", 0.05)

    async def scenario(gateway: Here) -> None:
        for path in ("/v3/kv/put", "/v3/flood"):
            answer = await gateway.open(path, '{"key":', ends=False)
            assert await answer.status() == 408
            answer.close()

    here(run, scenario)


def test_who_waits_for_the_word_is_told_to_send(run: Run) -> None:
    async def scenario(gateway: Here) -> None:
        answer = await gateway.open("/v3/kv/put", "", Expect="100-continue", Content_Length="29", ends=False)
        answer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 29\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert await reader.readline() == b"\r\n"
        writer.write(PUT.encode())
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.close()

    here(run, scenario)


def test_pages_of_other_origins_may_ask_but_not_change_the_members(run: Run) -> None:
    async def scenario(gateway: Here) -> None:
        for path, origin in (("/v3/kv/put", "*"), ("/nowhere", "*"), ("/members", None)):
            answer = await gateway.open(path, method="OPTIONS")
            assert await answer.status() == (405 if origin is None else 200)
            assert answer.headers.get("access-control-allow-origin") == origin
            answer.close()

    here(run, scenario)


def test_a_client_of_http_1_0_has_a_stream_too(run: Run) -> None:
    async def scenario(gateway: Here) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"POST /v3/lease/keepalive HTTP/1.0\r\nContent-Length: 8\r\n\r\n" + b'{"ID":7}')
        text = (await reader.read()).decode()
        assert text.startswith("HTTP/1.0 200 OK\r\n") and '"ID":"7"' in text
        writer.close()

    here(run, scenario)


def test_websockets(run: Run) -> None:
    import aiohttp

    async def scenario(gateway: Here) -> None:
        seen: list[Any] = []

        def authenticate(metadata: Any, certificate_name: str, found: Any) -> None:
            seen.append(token_of(metadata))
            found(ANYBODY)

        gateway.house.authenticate = authenticate
        async with aiohttp.ClientSession() as session:
            base = f"ws://127.0.0.1:{gateway.port}/v3"
            async with session.ws_connect(f"{base}/watch", protocols=("Bearer", "the.token")) as line:
                assert line.protocol == "Bearer"
                await line.send_str('{"create_request":{"key":"Zm9v"}}')
                assert (await line.receive_json())["result"]["created"]
                await gateway.ask("/v3/kv/put", PUT)
                assert (await line.receive_json())["result"]["events"]
                await line.send_str("broken")
                assert (await line.receive_json())["error"]["grpc_code"] == 2
                assert (await line.receive()).type == aiohttp.WSMsgType.CLOSE
            assert seen[0] == "the.token"
            async with session.ws_connect(f"{base}/flood") as line:
                await line.send_str('{"key":"ZW5k"}')
                assert "result" in await line.receive_json()
            async with session.ws_connect(f"{base}/watch") as line:
                await line.send_str('{"create_request":{"key":"Zm9v"}}')
                await line.receive_json()
            while gateway.hand.leader.storage.watches.count:
                await asyncio.sleep(0.01)

    here(run, scenario)
