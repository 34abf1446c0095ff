"""Watches and waits of one native connection: requests in, events out.

A watch goes by the id of its WATCH_CREATE; everything that it hears is an answer to that id. Events that go to many watchers are packed
once. A client that does not take what it was sent gets no events pushed behind them: the hub reads them from history later.
"""

import asyncio
from typing import Any, Callable, Final

from raftkv.errors import InvalidRequest, Overloaded, RaftKVError
from raftkv.limits import Limits
from raftkv.replica.service import Service
from raftkv.replica.watching import Batch, Waiter
from raftkv.units import Milliseconds, Revision
from raftkv.wire.commands import OK, Answer, Command, failure
from raftkv.wire.identity import ANYBODY
from raftkv.wire.protocol import WAIT, WATCH_CANCEL, WATCH_CREATE, WATCH_EVENTS, WATCH_PROGRESS, new_packer
from raftkv.wire.watching import check_wait, check_watch

WATCHING: Final = frozenset({WATCH_CREATE, WATCH_CANCEL, WATCH_PROGRESS, WAIT})
DOOR: Final = "native"
OPENING_TIMEOUT_MS: Final = 5_000

_pack: Callable[[Any], bytes] = new_packer().pack


class WatchDoor:
    """What one connection watches and waits for. A sink of the hub."""

    def __init__(
        self,
        service: Service,
        transport: asyncio.Transport,
        answer: Callable[[int, Answer], None],
        limits: Limits,
    ) -> None:
        self._watching = service.watching
        self._deadline = service.deadline
        self._transport: asyncio.Transport | None = transport
        self._answer = answer
        self._limits = limits
        self._opening: set[int] = set()
        self._watchers: dict[int, Any] = {}
        self._waiters: dict[int, Waiter] = {}
        self._questions = 0
        self.caller = ANYBODY  # whose requests these are

    def receive(self, request_id: int, timeout_ms: Milliseconds, command: Command) -> None:
        """One request of `WATCHING`."""
        try:
            _HANDLERS[command[0]](self, request_id, timeout_ms, command)
        except RaftKVError as error:
            self._answer(request_id, failure(error))

    def close(self) -> None:
        """The connection is gone."""
        self._transport = None
        self._opening.clear()
        for watcher in self._watchers.values():
            self._watching.close(watcher)
        self._watchers.clear()
        for waiter in self._waiters.values():
            self._watching.give_up(waiter)
        self._waiters.clear()
        self._watching.forget(self)

    # Requests.

    def _create(self, request_id: int, timeout_ms: Milliseconds, command: Command) -> None:
        check_watch(command, self._limits)
        self._check_room(request_id)
        self._opening.add(request_id)
        self._watching.open(command, self, request_id, self._deadline(timeout_ms or OPENING_TIMEOUT_MS), self.caller)

    def _cancel(self, request_id: int, timeout_ms: Milliseconds, command: Command) -> None:
        if len(command) != 2 or type(command[1]) is not int:
            raise InvalidRequest("WATCH_CANCEL takes the id of a watch")
        watcher = self._watchers.pop(command[1], None)
        was_opening = command[1] in self._opening
        self._opening.discard(command[1])
        if watcher is not None:
            self._watching.close(watcher)
        self._answer(request_id, [OK, watcher is not None or was_opening])

    def _progress(self, request_id: int, timeout_ms: Milliseconds, command: Command) -> None:
        if self._questions >= self._limits.connection_in_flight_requests_max:
            raise Overloaded("too many questions about progress wait on this connection")
        self._questions += 1

        def done(revision: Revision) -> None:
            self._questions -= 1
            self._answer(request_id, [OK, revision])

        self._watching.request_progress(self, done)

    def _wait(self, request_id: int, timeout_ms: Milliseconds, command: Command) -> None:
        check_wait(command, self._limits)
        self._check_room(request_id)

        def done(answer: Answer) -> None:
            if self._waiters.pop(request_id, None) is not None:
                self._answer(request_id, answer)

        waiter = self._waiters[request_id] = Waiter(done)
        self._watching.wait(command, waiter, self._deadline(timeout_ms), self.caller)

    def _check_room(self, request_id: int) -> None:
        if request_id in self._opening or request_id in self._watchers or request_id in self._waiters:
            raise InvalidRequest(f"request id {request_id} is in use on this connection")
        if len(self._waiters) + len(self._opening) >= self._limits.connection_in_flight_requests_max:
            raise Overloaded("too many waits on this connection")

    # WatchSink.

    @property
    def takes_events(self) -> bool:
        """Whether the client takes what it is sent; one that is gone loses its watches anyway."""
        transport = self._transport
        return transport is None or transport.get_write_buffer_size() <= self._limits.watch_buffer_bytes_max

    def on_created(self, tag: int, watcher: Any, revision: Revision) -> None:
        if tag not in self._opening:
            self._watching.close(watcher)  # canceled, or the connection is gone
            return
        self._opening.discard(tag)
        self._watchers[tag] = watcher
        self._answer(tag, [OK, WATCH_CREATE, revision])

    def on_events(self, tag: int, batch: Batch) -> None:
        """Packed once for all watchers that are handed the same batch."""
        transport = self._transport
        if transport is None:
            return
        packed = batch.encoded.get(DOOR)
        if packed is None:
            packed = batch.encoded[DOOR] = _pack([OK, WATCH_EVENTS, batch.revision, batch.more, batch.items()])
        transport.write(b"\x92" + _pack(tag) + packed)  # an array of two: the id and what is shared

    def on_progress(self, tag: int, revision: Revision) -> None:
        self._answer(tag, [OK, WATCH_EVENTS, revision, False, []])

    def on_canceled(self, tag: int, error: RaftKVError) -> None:
        if self._watchers.pop(tag, None) is not None or tag in self._opening:
            self._opening.discard(tag)
            self._answer(tag, failure(error))


_HANDLERS: Final[dict[int, Callable[[WatchDoor, int, Milliseconds, Command], None]]] = {
    WATCH_CREATE: WatchDoor._create,
    WATCH_CANCEL: WatchDoor._cancel,
    WATCH_PROGRESS: WatchDoor._progress,
    WAIT: WatchDoor._wait,
}
