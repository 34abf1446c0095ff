"""Procedures written as coroutines: one answer (`answered_by`), or a stream of them (`streamed_by`). For all that is not the hot path.

A coroutine is canceled when its call is over, and ends the call when it returns or raises: a RaftKVError with its status, a Refused
with the one it carries, anything else as an internal error with a line in the log.
"""

import asyncio
import logging
from contextlib import aclosing
from typing import Any, AsyncGenerator, Awaitable, Callable, TypeAlias

from raftkv.daemon.etcd.calls import Call, Receiver, Refused, Reply
from raftkv.daemon.etcd.house import House
from raftkv.errors import RaftKVError
from raftkv.etcd.statuses import INTERNAL, Status, status_of

logger = logging.getLogger(__name__)

Answering: TypeAlias = Callable[[House, Call, Any], Awaitable[Reply]]
Streaming: TypeAlias = Callable[[House, Call, Any], AsyncGenerator[Reply, None]]


def answered_by(answer: Answering) -> Callable[[House, Call], Receiver]:
    """The `open` of a procedure with one request and one answer."""

    async def run(house: House, call: Call, request: Any, room: asyncio.Event) -> None:
        call.reply(await answer(house, call, request))

    return lambda house, call: _Task(house, call, run)


def streamed_by(stream: Streaming) -> Callable[[House, Call], Receiver]:
    """The `open` of a procedure with one request and any number of answers; it is held while the client takes nothing."""

    async def run(house: House, call: Call, request: Any, room: asyncio.Event) -> None:
        async with aclosing(stream(house, call, request)) as messages:  # what it holds is let go of with the call
            async for message in messages:
                call.reply(message)
                while not call.takes_messages:
                    room.clear()
                    await room.wait()

    return lambda house, call: _Task(house, call, run)


class _Task:
    """The receiver of such a procedure: it begins with the request."""

    def __init__(
        self, house: House, call: Call, run: Callable[[House, Call, Any, asyncio.Event], Awaitable[None]]
    ) -> None:
        self._house = house
        self._call = call
        self._run = run
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def on_message(self, message: Any) -> None:
        if self._task is not None:
            raise Refused(INTERNAL, "one request message is expected")
        self._task = asyncio.get_running_loop().create_task(self._live(message))

    def on_half_close(self) -> None:
        if self._task is None:
            self._call.end(Status(INTERNAL, "a request message is expected"))

    def on_room(self) -> None:
        self._room.set()

    def on_gone(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _live(self, request: Any) -> None:
        try:
            await self._run(self._house, self._call, request, self._room)
        except Refused as refused:
            self._call.end(refused.status)
        except RaftKVError as error:
            self._call.end(status_of(error))
        except Exception:
            logger.exception("a procedure of the etcd API broke")
            self._call.end(Status(INTERNAL, "this is a bug in raftkv; the log has the details"))
        else:
            self._call.end()
