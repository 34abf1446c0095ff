"""Watches on asyncio: all watches of a client on one connection of their own, which goes where they are served.

A watch whose consumer is slow is ended at the member and begun again when its queue is empty: nobody else on the connection waits for
it, and its memory is bounded. A member that keeps silent is asked for a sign of life, and left when it gives none.
"""

import asyncio
from collections import deque
from typing import AsyncIterator, Callable, Final, cast

from raftkv.client import verdict
from raftkv.client.endpoints import Directory, split_address
from raftkv.client.options import Options, draw
from raftkv.client.patience import Patience
from raftkv.client.watchstate import Event, Places, WatchBatch, WatchState, is_passing
from raftkv.client.wireconn import LOGIN_TIMEOUT_S, WireConnection
from raftkv.errors import ClientClosed, RaftKVError
from raftkv.units import Revision
from raftkv.wire.commands import Answer, Command
from raftkv.wire.protocol import WATCH_CANCEL

QUEUE_EVENTS_MAX: Final = 10_000
QUEUE_BYTES_MAX: Final = 16 * 1024 * 1024
SILENCE_ATTEMPTS: Final = 3  # so many attempts' time without a sign of life, and the member is left
FOR_EVER_S: Final = 1e9
CLOSE_TIMEOUT_S: Final = 1.0


class AsyncWatch:
    """A watch: `async with kv.watch("k") as watch: async for event in watch:`. For one consumer."""

    def __init__(self, owner: "AsyncWatches", state: WatchState, timeout_s: float, patience_s: float | None) -> None:
        self._owner = owner
        self._state = state
        self._timeout_s = timeout_s
        self._batches: deque[WatchBatch] = deque()
        self._events: deque[Event] = deque()
        self._queued_events = self._queued_bytes = 0
        self._error: RaftKVError | None = None
        self._closed = False
        self._wake: asyncio.Future[None] | None = None
        self._began: asyncio.Future[None] | None = None
        # The owner's.
        self.patience_s = FOR_EVER_S if patience_s is None else patience_s
        self.request_id = 0
        self.lost_at: float | None = None
        self.suspended = False

    @property
    def next_revision(self) -> Revision:
        """Everything before it has been received; a watch that starts there hears the rest."""
        return self._state.next_revision

    async def __aenter__(self) -> "AsyncWatch":
        try:
            await self.started()
        except BaseException:
            await self.close()  # who was cancelled here never leaves the block
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def started(self) -> None:
        """Wait until a member serves it: from then on nothing is missed. Raises RaftKVError when none does within the timeout."""
        if self._closed:
            raise ClientClosed("the watch was closed")
        if self._began is None:
            self._began = asyncio.get_running_loop().create_future()
            self._owner.add(self)
        if self._state.began:
            return
        try:
            # Not wait_for: before Python 3.12 it forgets that its task was cancelled when what it waits for came in the same turn.
            async with asyncio.timeout(self._timeout_s):
                await asyncio.shield(self._began)
        except TimeoutError:
            error = self._owner.why_not(self._timeout_s)
            await self.close()
            raise error from None

    def __aiter__(self) -> "AsyncWatch":
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if (batch := await self._next_batch()) is None:
                raise StopAsyncIteration
            self._events.extend(batch.events)
        return self._events.popleft()

    async def batches(self) -> AsyncIterator[WatchBatch]:
        """The same by revision: each batch holds all events of one."""
        while (batch := await self._next_batch()) is not None:
            yield batch

    async def close(self) -> None:
        """End it; the iteration ends. Twice is harmless."""
        if not self._closed:
            self._closed = True
            self._owner.remove(self)
            self._rouse()

    async def _next_batch(self) -> WatchBatch | None:
        if self._began is None and not self._closed:
            await self.started()
        while not self._batches:
            if self._error is not None:
                raise self._error
            if self._closed:
                return None
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        batch = self._batches.popleft()
        self._queued_events -= len(batch.events)
        self._queued_bytes -= _bytes_of(batch)
        if not self._batches and self.suspended:
            self._owner.resume(self)
        return batch

    # The owner's.

    def command(self) -> Command:
        """What to ask the next member."""
        return self._state.command()

    def receive(self, answer: Answer) -> None:
        """Raises what ends the watch, or sends it elsewhere."""
        batches = self._state.receive(answer)
        if self._state.began and self._began is not None and not self._began.done():
            self._began.set_result(None)
        for batch in batches:
            self._batches.append(batch)
            self._queued_events += len(batch.events)
            self._queued_bytes += _bytes_of(batch)
        if batches:
            self._rouse()

    @property
    def is_full(self) -> bool:
        return self._queued_events > QUEUE_EVENTS_MAX or self._queued_bytes > QUEUE_BYTES_MAX

    def fail(self, error: RaftKVError) -> None:
        """Its end, behind what was received."""
        self._error = error
        if self._began is not None and not self._began.done():
            self._began.set_exception(error)
            self._began.exception()  # taken: nobody may be waiting for it
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def _bytes_of(batch: WatchBatch) -> int:
    return sum(len(event.kv.key) + len(event.kv.value) + 100 for event in batch.events)


class _Line(asyncio.Protocol):
    """The connection of the watches to one member."""

    def __init__(self, owner: "AsyncWatches", wire: WireConnection, greeting_timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.wire = wire
        self.watches: dict[int, AsyncWatch] = {}
        self.heard_at = loop.time()
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[RaftKVError] = loop.create_future()
        self.on_login: Callable[[], None] = lambda: None
        self._owner = owner
        self._time = loop.time
        self._greeting_timeout_s = greeting_timeout_s
        self._transport: asyncio.Transport | None = None
        self._reason: RaftKVError | None = None

    def send(self, command: Command) -> int:
        """The id of the request. Raises RaftKVError for one that is too large."""
        request_id, frame = self.wire.request(command, 0)
        if self._transport is not None:
            self._transport.write(frame)
        return request_id

    def ping(self) -> None:
        if self._transport is not None:
            self._transport.write(self.wire.ping(self._greeting_timeout_s))

    def abort(self, reason: RaftKVError) -> None:
        """Hang up at once."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()
        elif not self.closed.done():
            self.closed.set_result(self._reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self.wire.greeting(self._greeting_timeout_s))

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._time()
        answers = self.wire.receive(data)
        reply = self.wire.take_reply()
        if reply and self._transport is not None:
            self._transport.write(reply)
            self.on_login()
        for request_id, answer in answers:
            watch = self.watches.get(request_id)
            if watch is not None:
                self._owner.on_answer(self, watch, answer)
        if self.wire.broken is not None:
            self.abort(self.wire.broken)
        elif self.wire.handshake is not None and not self.greeted.done():
            self.greeted.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        error = self._reason or self.wire.broken or verdict.lost(exc)
        if not self.greeted.done():
            self.greeted.set_exception(error)
            self.greeted.exception()  # taken: whoever waited may have given up
        if not self.closed.done():
            self.closed.set_result(error)


class AsyncWatches:
    """All watches of one client. A task of its own keeps a connection for as long as there are any."""

    def __init__(self, directory: Directory, options: Options) -> None:
        self._directory = directory
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._watches: dict[AsyncWatch, None] = {}
        self._line: _Line | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_error: RaftKVError | None = None
        self._closed = False

    def add(self, watch: AsyncWatch) -> None:
        """Serve it from now on."""
        if self._closed:
            watch.fail(ClientClosed())
            return
        self._watches[watch] = None
        watch.lost_at = self._loop.time()
        if self._line is not None:
            self._create(self._line, watch)
        elif self._task is None:
            self._task = self._loop.create_task(self._run())
            self._task.add_done_callback(self._on_task_done)

    def remove(self, watch: AsyncWatch) -> None:
        """It is over."""
        if watch in self._watches:
            del self._watches[watch]
            self._cancel(watch)
            if not self._watches and self._line is not None:
                self._line.abort(ClientClosed())

    def resume(self, watch: AsyncWatch) -> None:
        """Its consumer has caught up: go on with what it has not had."""
        watch.suspended = False
        if watch in self._watches and self._line is not None:
            self._create(self._line, watch)

    def why_not(self, timeout_s: float) -> RaftKVError:
        """Why no member served a watch in time."""
        error = self._last_error or verdict.silence(False)
        return type(error)(
            f"no member served the watch within {timeout_s:.3g} s: {error.message}", details=error.details
        )

    async def close(self) -> None:
        """End all of them."""
        self._closed = True
        for watch in list(self._watches):
            watch.fail(ClientClosed())
        self._watches.clear()
        line = self._line
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if line is not None:
            await asyncio.wait([line.closed], timeout=CLOSE_TIMEOUT_S)

    # The connection.

    async def _run(self) -> None:
        places = Places(self._directory, draw)
        while self._watches:
            address, pause_s = places.choose(self._loop.time())
            if pause_s:
                await asyncio.sleep(pause_s)
            try:
                line = await self._open(address)
            except RaftKVError as error:
                self._on_failed(places, address, error)
                continue
            self._line = line
            try:
                for watch in [each for each in self._watches if not each.suspended]:
                    self._create(line, watch)
                ended = await self._attend(line, places)
            finally:
                self._line = None
                line.abort(ClientClosed())
                for watch in self._watches:
                    watch.request_id = 0
            if not isinstance(ended, ClientClosed):  # our own goodbye speaks against no member
                self._on_failed(places, address, ended)

    async def _open(self, address: str) -> _Line:
        options = self._options
        wire = options.new_wire(None)
        line = _Line(self, wire, options.connect_timeout_s)
        try:
            async with Patience(options.connect_timeout_s) as patience:
                line.on_login = lambda: patience.restart(LOGIN_TIMEOUT_S)
                host, port = split_address(address)
                await self._loop.create_connection(lambda: line, host, port, **options.arguments(host))
                await line.greeted
            assert wire.handshake is not None, "a line that is greeted has met somebody"
            self._directory.on_handshake(address, wire.handshake)
        except BaseException as error:
            line.abort(ClientClosed())
            if isinstance(error, (OSError, UnicodeError)):
                raise verdict.not_connected(error) from None
            raise
        return line

    async def _attend(self, line: _Line, places: Places) -> RaftKVError:
        """Until it ends, with signs of life on the way."""
        every_s = self._options.attempt_timeout_s
        while not line.closed.done():
            looked_at = self._loop.time()
            await asyncio.wait([line.closed], timeout=every_s)
            now = self._loop.time()
            if any(watch.lost_at is None for watch in self._watches):
                places.on_served()
            if now - looked_at > 2 * every_s:
                line.heard_at = max(line.heard_at, looked_at)  # we stood still: the member gets its time all the same
                line.ping()
            elif now - line.heard_at > SILENCE_ATTEMPTS * every_s:
                line.abort(verdict.silence(False))
            elif now - line.heard_at >= every_s:
                line.ping()
        return line.closed.result()

    def _on_failed(self, places: Places, address: str, error: RaftKVError) -> None:
        now = self._loop.time()
        self._last_error = error
        fatal = places.on_failed(address, now, error)
        for watch in list(self._watches):
            watch.lost_at = now if watch.lost_at is None else watch.lost_at
            if fatal is not None or now - watch.lost_at > watch.patience_s:
                del self._watches[watch]
                watch.fail(fatal or error)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "raftkv client: the watches failed", "exception": error})
        elif self._watches and not self._closed:
            self.add(next(iter(self._watches)))  # it came while the task was ending

    # One watch.

    def _create(self, line: _Line, watch: AsyncWatch) -> None:
        try:
            watch.request_id = line.send(watch.command())
        except RaftKVError as error:
            self._end(watch, error)
        else:
            line.watches[watch.request_id] = watch

    def _cancel(self, watch: AsyncWatch) -> None:
        line = self._line
        if line is not None and line.watches.pop(watch.request_id, None) is not None:
            line.send([WATCH_CANCEL, watch.request_id])

    def _end(self, watch: AsyncWatch, error: RaftKVError) -> None:
        self._watches.pop(watch, None)
        watch.fail(error)

    def on_answer(self, line: _Line, watch: AsyncWatch, answer: Answer) -> None:
        """Something for one of them."""
        try:
            watch.receive(answer)
        except RaftKVError as error:
            del line.watches[watch.request_id]
            if is_passing(error, self._options.login):
                line.abort(error)
            else:
                self._end(watch, error)
            return
        watch.lost_at = None
        if watch.is_full:
            self._cancel(watch)
            watch.suspended = True
