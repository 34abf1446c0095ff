"""Events of a few keys for a coroutine that waits for them: a sink of the hub (store/watches.py) inside the house.

async with Listener(house, caller) as listener:
    listener.listen(key, range_end, start_revision)
    events = await listener.events()
"""

import asyncio
from typing import Any, Final

from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.identity import Caller
from raftkv.errors import RaftKVError
from raftkv.replica.watching import Batch
from raftkv.units import Revision
from raftkv.wire.protocol import WATCH_CREATE

BATCHES_MAX: Final = 64  # that wait for the coroutine; more stay in the store's history


class Interrupted(Exception):
    """A watch has ended; whoever still wants to know looks again and begins another one."""

    def __init__(self, error: RaftKVError) -> None:
        super().__init__(error.message)
        self.error: Final = error


class Listener:
    """Watches that end with the block. Everything happens in the loop's thread."""

    def __init__(self, house: House, caller: Caller) -> None:
        self._house = house
        self._caller = caller
        self._watching = house.service.watching
        self._watchers: list[Any] = []
        self._batches: list[list[Any]] = []
        self._error: RaftKVError | None = None
        self._is_closed = False
        self._news = asyncio.Event()

    async def __aenter__(self) -> "Listener":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_closed = True
        for watcher in self._watchers:
            self._watching.close(watcher)
        self._watchers.clear()

    def listen(self, key: bytes, range_end: bytes, start_revision: Revision, flags: int = 0) -> None:
        """Hear of a key or a range, also of what has happened since the revision."""
        deadline_ms = self._house.service.deadline(self._house.request_timeout_ms)
        self._watching.open([WATCH_CREATE, key, range_end, start_revision, flags], self, 0, deadline_ms, self._caller)
        self._house.member.schedule_pump()

    async def events(self) -> list[list[Any]]:
        """[kind, key-value, None] of each event since the last time, at least one. Raises Interrupted."""
        while not self._batches:
            if self._error is not None:
                raise Interrupted(self._error)
            self._news.clear()
            await self._news.wait()
        batches, self._batches = self._batches, []
        self._house.member.schedule_pump()  # there is room again
        return [event for batch in batches for event in batch]

    # Sink.

    @property
    def takes_events(self) -> bool:
        return len(self._batches) < BATCHES_MAX

    def on_created(self, tag: int, watcher: Any, revision: Revision) -> None:
        if self._is_closed:
            self._watching.close(watcher)
        else:
            self._watchers.append(watcher)

    def on_events(self, tag: int, batch: Batch) -> None:
        self._batches.append(batch.items())
        self._news.set()

    def on_progress(self, tag: int, revision: Revision) -> None:
        """Nobody asked for it."""

    def on_canceled(self, tag: int, error: RaftKVError) -> None:
        """What has ended need not be closed; what was heard before is told first."""
        self._error = error
        self._news.set()
