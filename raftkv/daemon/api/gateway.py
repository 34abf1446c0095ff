"""etcd's JSON gateway: every remote procedure of the etcd API as a POST of JSON, on the HTTP side of the client port.

It answers as the gateway of etcd 3.5 does, letter by letter (docs/etcd-compat.md). Calls that are one command go over one Desk for all connections, so what comes
in one turn of the loop shares an entry; the others are opened like by the gRPC door. Streams are in gateway_streams.py.
"""

import asyncio
from typing import Any, Final, Mapping, Protocol, TypeAlias

from aiohttp import web
from google.protobuf.message import Message

from raftkv.daemon.api.gateway_words import (
    JSON_HEADERS,
    bytes_max,
    error_response,
    metadata_of,
    plain_response,
    read_body,
    timeout_of,
    too_large,
)
from raftkv.daemon.etcd.calls import Procedure, Refused, Reply
from raftkv.daemon.etcd.desk import Desk
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.identity import Caller
from raftkv.errors import RaftKVError
from raftkv.etcd.json_in import BadJson, read_message
from raftkv.etcd.json_out import range_part, write_message, write_range
from raftkv.etcd.long_ranges import LongRange
from raftkv.etcd.methods import Method
from raftkv.etcd.statuses import DEADLINE_EXCEEDED, INTERNAL, INVALID_ARGUMENT, Status, status_of
from raftkv.units import Milliseconds

PREFIXES: Final = ("/v3/", "/v3beta/", "/v3alpha/")
LATE: Final = Status(DEADLINE_EXCEEDED, "context deadline exceeded")
CANCELED: Final = 1

Answer: TypeAlias = Message | LongRange | Status


class Streams(Protocol):
    """Whoever serves procedures that are streams, and WebSockets."""

    async def serve(self, gateway: "Gateway", procedure: Procedure, request: web.BaseRequest) -> web.StreamResponse: ...

    async def serve_websocket(
        self, gateway: "Gateway", procedure: "Method | Procedure", request: web.BaseRequest
    ) -> web.StreamResponse: ...


class Gateway:
    """All calls that come as JSON to one member."""

    def __init__(self, house: House, table: Mapping[str, Method | Procedure], streams: Streams) -> None:
        self.house = house
        self._table = table
        self._streams = streams
        self._desk = Desk(house, self, encode_part=range_part)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._next_tag = 0
        self._is_scheduled = False

    def serves(self, path: str) -> bool:
        """Whether the path is one of its own, known or not."""
        return path.startswith(PREFIXES)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request of `serves`."""
        procedure = self._table.get(request.path[request.path.index("/", 1) :])
        if procedure is None:
            return plain_response(404, "Not Found")
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._streams.serve_websocket(self, procedure, request)
        if request.method != "POST":
            return plain_response(405, "Method Not Allowed")
        if isinstance(procedure, Procedure) and (procedure.client_streaming or procedure.server_streaming):
            return await self._streams.serve(self, procedure, request)
        message = procedure.request()
        try:
            metadata, timeout_ms = metadata_of(request.headers), timeout_of(request.headers)
            read_message(await read_body(request, self.house.limits), message)
        except BadJson as error:
            return error_response(Status(INVALID_ARGUMENT, str(error)))
        except Refused as refused:
            return error_response(refused.status)
        except TimeoutError:
            return plain_response(408, "Request Timeout")
        answer = await self.call(procedure, message, metadata, timeout_ms)
        if isinstance(answer, Status):
            return error_response(answer)
        body = write_range(answer) if isinstance(answer, LongRange) else write_message(answer).encode()
        return web.Response(body=body, headers=JSON_HEADERS)

    async def call(
        self, procedure: Method | Procedure, message: Message, metadata: Mapping[str, str], timeout_ms: Milliseconds
    ) -> Answer:
        """One question and its answer."""
        counts = self.house.calls.of(procedure.path)
        self.house.calls.note_request(metadata.get("client-api-version"), is_stream=False)
        counts.started += 1
        counts.received += 1
        answer: Answer = Status(CANCELED, "context canceled")
        try:
            if timeout_ms:
                async with asyncio.timeout(timeout_ms / 1000):
                    answer = await self._answer(procedure, message, metadata, timeout_ms)
            else:
                answer = await self._answer(procedure, message, metadata, timeout_ms)
        except TimeoutError:
            answer = LATE
        finally:
            if isinstance(answer, Status):
                counts.handled[answer.number] += 1
            else:
                counts.sent += 1
                counts.handled[0] += 1
        return answer

    async def _answer(
        self, procedure: Method | Procedure, message: Message, metadata: Mapping[str, str], timeout_ms: Milliseconds
    ) -> Answer:
        try:
            caller = await self.begin(message, metadata)
            if isinstance(procedure, Method):
                return await self._command(procedure, message, caller, timeout_ms)
            call = _Once(metadata, caller, timeout_ms)
            return await call.answer(self.house, procedure, message)
        except Refused as refused:
            return refused.status
        except RaftKVError as error:
            return status_of(error)

    async def begin(self, message: Message | None, metadata: Mapping[str, str]) -> Caller:
        """Who calls. Raises Refused or RaftKVError for a call that is not to be begun."""
        if message is not None and message.ByteSize() > bytes_max(self.house.limits):
            raise too_large(message.ByteSize(), self.house.limits)
        refusal = self.house.refusal(metadata)
        if refusal is not None:
            raise Refused(*refusal)
        return await self.house.caller_of(metadata)

    # Commands.

    async def _command(self, method: Method, message: Message, caller: Caller, timeout_ms: Milliseconds) -> Answer:
        tag = self._next_tag
        self._next_tag += 1
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        self._waiting[tag] = answered
        self._desk.submit(tag, method, message, caller, timeout_ms)
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._flush)
        try:
            return await answered
        finally:
            del self._waiting[tag]
            self._desk.forget(tag)

    def _flush(self) -> None:
        self._is_scheduled = False
        self._desk.flush()
        self.house.member.schedule_pump()

    takes_answers = True

    def on_response(self, tag: int, response: Reply) -> None:
        assert isinstance(response, Message), "bytes were not asked for"
        self._resolve(tag, response)

    def on_long_range(self, tag: int, long_range: LongRange) -> None:
        self._resolve(tag, long_range)

    def on_failure(self, tag: int, status: Status) -> None:
        self._resolve(tag, status)

    def _resolve(self, tag: int, answer: Answer) -> None:
        answered = self._waiting.get(tag)
        if answered is not None and not answered.done():
            answered.set_result(answer)

    def on_batch_end(self) -> None:
        """Each connection writes for itself."""


class _Once:
    """The Call of a procedure with one request and one answer."""

    takes_messages = True

    def __init__(self, metadata: Mapping[str, str], caller: Caller, timeout_ms: Milliseconds) -> None:
        self.metadata = metadata
        self.caller = caller
        self.timeout_ms = timeout_ms
        self._reply: Reply | None = None
        self._ended: asyncio.Future[Status | None] = asyncio.get_running_loop().create_future()

    def reply(self, message: Reply) -> None:
        self._reply = message

    def end(self, status: Status | None = None) -> None:
        if not self._ended.done():
            self._ended.set_result(status)

    async def answer(self, house: House, procedure: Procedure, message: Any) -> Answer:
        receiver = procedure.open(house, self)
        try:
            receiver.on_message(message)
            receiver.on_half_close()
            house.member.schedule_pump()
            status = await self._ended
        except BaseException:
            receiver.on_gone()
            raise
        if status is not None:
            return status
        if self._reply is None:
            return Status(INTERNAL, "there was no answer")
        if isinstance(self._reply, bytes):
            made: Message = procedure.answered_by.FromString(self._reply)
            return made
        message_back: Message = self._reply
        return message_back
