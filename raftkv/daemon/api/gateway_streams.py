"""Streams through etcd's JSON gateway: a line per response, flushed at once; any number of JSON objects in the body of the request.

The end of the body is the end of what the client sends, no more: a watch goes on until the client goes away. What is wrong in the body before the first message is
an error of the call; later it ends what the client sends, as in etcd. The same streams are there as WebSockets, one message per frame.
"""

import asyncio
from typing import Any, Final, Mapping

from aiohttp import HttpVersion11, WSMsgType, web
from google.protobuf.message import Message

from raftkv.daemon.api.cors import CORS_HEADERS, SERVER
from raftkv.daemon.api.gateway import CANCELED, LATE, Gateway
from raftkv.daemon.api.gateway_words import (
    JSON_HEADERS,
    body_bytes_max,
    error_line,
    error_response,
    expect_body,
    metadata_of,
    plain_response,
    read_body,
    timeout_of,
)
from raftkv.daemon.etcd.calls import Procedure, Receiver, Refused, Reply
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.identity import Caller
from raftkv.errors import RaftKVError
from raftkv.etcd.json_in import BadJson, MessageStream, read_message
from raftkv.etcd.json_out import write_message
from raftkv.etcd.methods import Method
from raftkv.etcd.statuses import INVALID_ARGUMENT, UNKNOWN, Status, status_of
from raftkv.units import Milliseconds

BEARER: Final = "Bearer"
GONE: Final = Status(CANCELED, "context canceled")


class StreamCall:
    """A Call whose responses gather until whoever serves it sends them on."""

    def __init__(
        self,
        house: House,
        procedure: Procedure,
        metadata: Mapping[str, str],
        caller: Caller,
        timeout_ms: Milliseconds,
    ) -> None:
        self.metadata = metadata
        self.caller = caller
        self.timeout_ms = timeout_ms
        self._procedure = procedure
        self._counts = house.calls.of(procedure.path)
        self._counts.started += 1
        house.calls.note_request(metadata.get("client-api-version"), is_stream=True)
        self._gathered: list[str] = []
        self._gathered_bytes = 0
        self._gathered_bytes_max = house.limits.watch_buffer_bytes_max
        self._news = asyncio.Event()
        self.status: Status | None = None
        self.is_over = False
        self._house = house
        self.receiver: Receiver = procedure.open(house, self)

    # Call.

    @property
    def takes_messages(self) -> bool:
        return self._gathered_bytes <= self._gathered_bytes_max

    def reply(self, message: Reply) -> None:
        if self.is_over:
            return
        if isinstance(message, bytes):
            message = self._procedure.answered_by.FromString(message)
        line = f'{{"result":{write_message(message)}}}'
        self._gathered.append(line)
        self._gathered_bytes += len(line)
        self._counts.sent += 1
        self._news.set()

    def end(self, status: Status | None = None) -> None:
        if not self.is_over:
            self.is_over = True
            self.status = status
            self._counts.handled[status.number if status is not None else 0] += 1
            self._news.set()

    # Whoever serves it.

    def receive(self, message: Message) -> None:
        """The client sent one message."""
        self._counts.received += 1
        if self.is_over:
            return
        try:
            self.receiver.on_message(message)
        except Refused as refused:
            self._break(refused.status)
        except RaftKVError as error:
            self._break(status_of(error))
        self._house.member.schedule_pump()

    def half_close(self) -> None:
        if not self.is_over:
            self.receiver.on_half_close()

    def abandon(self, status: Status = GONE) -> None:
        """The client is gone, or its time is up."""
        if not self.is_over:
            self._break(status)

    def _break(self, status: Status) -> None:
        self.receiver.on_gone()
        self.end(status)

    async def wait(self) -> list[str]:
        """The next responses; none when the call has ended and all of them are taken."""
        while not self._gathered and not self.is_over:
            self._news.clear()
            await self._news.wait()
        lines, self._gathered = self._gathered, []
        return lines

    def on_sent(self) -> None:
        """What `wait` gave has gone out."""
        had_room = self.takes_messages
        self._gathered_bytes = sum(map(len, self._gathered))
        if not had_room and self.takes_messages and not self.is_over:
            self.receiver.on_room()


async def serve(gateway: Gateway, procedure: Procedure, request: web.BaseRequest) -> web.StreamResponse:
    """A stream over plain HTTP."""
    metadata = metadata_of(request.headers)
    try:
        timeout_ms = timeout_of(request.headers)
        whole = None
        if not procedure.client_streaming:
            whole = procedure.request()
            read_message(await read_body(request, gateway.house.limits), whole)
        caller = await gateway.begin(whole, metadata)
    except BadJson as error:
        return error_response(Status(INVALID_ARGUMENT, str(error)))
    except TimeoutError:
        return plain_response(408, "Request Timeout")
    except Refused as refused:
        return error_response(refused.status)
    except RaftKVError as error:
        return error_response(status_of(error))
    call = StreamCall(gateway.house, procedure, metadata, caller, timeout_ms)
    reader: asyncio.Task[None] | None = None
    if whole is not None:
        call.receive(whole)
        call.half_close()
    else:
        reader = asyncio.ensure_future(_read(request, call, procedure, body_bytes_max(gateway.house.limits)))
    timer = asyncio.get_running_loop().call_later(timeout_ms / 1000, call.abandon, LATE) if timeout_ms else None
    try:
        return await _write(request, call)
    finally:
        call.abandon()
        if timer is not None:
            timer.cancel()
        if reader is not None:
            reader.cancel()


async def _write(request: web.BaseRequest, call: StreamCall) -> web.StreamResponse:
    response: web.StreamResponse | None = None
    while lines := await call.wait():
        if response is None:
            response = await _begin(request)
        await response.write(("\n".join(lines) + "\n").encode())
        call.on_sent()
    if response is None:
        if call.status is not None:
            return error_response(call.status)
        response = await _begin(request, is_empty=True)
    elif call.status is not None:
        await response.write(f"{error_line(call.status)}\n".encode())
    await response.write_eof()
    return response


async def _begin(request: web.BaseRequest, *, is_empty: bool = False) -> web.StreamResponse:
    headers = {"Content-Type": JSON_HEADERS["Content-Type"]} if is_empty else JSON_HEADERS
    response = web.StreamResponse(headers={**headers, **CORS_HEADERS, **SERVER})
    if request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    await response.prepare(request)
    return response


async def _read(request: web.BaseRequest, call: StreamCall, procedure: Procedure, bytes_max: int) -> None:
    """What the client sends, as it comes."""
    stream, count = MessageStream(bytes_max), 0
    try:
        await expect_body(request)
        while part := await request.content.readany():
            for body in stream.feed(part):
                message = procedure.request()
                read_message(body, message)
                call.receive(message)
                count += 1
        if not stream.is_empty:
            raise BadJson("unexpected EOF")
    except BadJson as error:
        if not count:
            call.abandon(Status(UNKNOWN, str(error)))
            return
    except ConnectionError:
        return  # the handler is canceled too
    call.half_close()


async def serve_websocket(
    gateway: Gateway, procedure: Method | Procedure, request: web.BaseRequest
) -> web.StreamResponse:
    """A stream over a WebSocket: a frame of text is a message. The token comes as a second subprotocol."""
    metadata = metadata_of(request.headers)
    protocols = request.headers.get("Sec-WebSocket-Protocol", "")
    offered, _, token = protocols.partition(",")
    if offered.strip() == BEARER and token.strip():
        metadata["authorization"] = f"{BEARER} {token.strip()}"
    if isinstance(procedure, Method):
        return plain_response(501, "Not Implemented")
    try:
        caller = await gateway.begin(None, metadata)
    except Refused as refused:
        return error_response(refused.status)
    except RaftKVError as error:
        return error_response(status_of(error))
    socket = web.WebSocketResponse(
        protocols=(BEARER,), max_msg_size=body_bytes_max(gateway.house.limits), compress=False
    )
    socket.headers.update(SERVER)
    await socket.prepare(request)
    call = StreamCall(gateway.house, procedure, metadata, caller, 0)
    writer = asyncio.ensure_future(_write_frames(socket, call))
    try:
        await _read_frames(socket, call, procedure)
    finally:
        call.abandon()
        await asyncio.wait([writer])
    return socket


async def _read_frames(socket: web.WebSocketResponse, call: StreamCall, procedure: Procedure) -> None:
    async for frame in socket:
        data: Any = frame.data
        if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            continue
        message = procedure.request()
        try:
            read_message(data.encode() if isinstance(data, str) else data, message)
        except BadJson as error:
            call.abandon(Status(UNKNOWN, str(error)))
            return
        call.receive(message)
        if not procedure.client_streaming:
            call.half_close()


async def _write_frames(socket: web.WebSocketResponse, call: StreamCall) -> None:
    try:
        while lines := await call.wait():
            for line in lines:
                await socket.send_str(line)
            call.on_sent()
        if call.status is not None:
            await socket.send_str(error_line(call.status))
        await socket.close()
    except ConnectionError:
        call.abandon()
