"""What a blocking watch is for whoever reads it, the same words on every engine.

How it is served is the engine's: one class reads raftkv's own protocol (watch.py), another etcd's streams (etcdclient/watch.py). They fill
`_batches` and say when they have nothing more. It imports nothing that the command line would have to wait for.
"""

import threading
from abc import ABC, abstractmethod
from collections import deque
from time import monotonic
from typing import Any, Callable, Final, Iterator, Self

from raftkv.client.watchstate import Event, WatchBatch, WatchState
from raftkv.errors import ClientClosed, RaftKVError
from raftkv.units import Revision

FOR_EVER_S: Final = 1e9


class BlockingWatch(ABC):
    """A watch: `with kv.watch("k") as watch: for event in watch:`. For one thread; any thread may close it."""

    def __init__(
        self, state: WatchState, timeout_s: float, patience_s: float | None, on_closed: "Callable[[Any], None]"
    ) -> None:
        self._state = state
        self._timeout_s = timeout_s
        self._patience_s = FOR_EVER_S if patience_s is None else patience_s
        self._on_closed = on_closed
        self._batches: deque[WatchBatch] = deque()
        self._events: deque[Event] = deque()
        self._lock = threading.Lock()
        self._lost_at = 0.0  # since when nobody serves it; 0: somebody does
        self._closed: RaftKVError | None = None
        self._quietly = False

    @property
    def next_revision(self) -> Revision:
        """Everything before it has been received; a watch that starts there hears the rest."""
        return self._state.next_revision

    def __enter__(self) -> Self:
        self.started()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def started(self) -> None:
        """Wait until a member serves it: from then on nothing is missed. Raises RaftKVError when none does within the timeout."""
        self._lost_at = self._lost_at or monotonic()
        self._read_until(lambda: self._state.began)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while not self._events:
            batch = self._next_batch()
            if batch is None:
                raise StopIteration
            self._events.extend(batch.events)
        return self._events.popleft()

    def batches(self) -> Iterator[WatchBatch]:
        """The same by revision: each batch holds all events of one."""
        while (batch := self._next_batch()) is not None:
            yield batch

    def close(self) -> None:
        """End it; the iteration ends. Twice is harmless, and so is another thread."""
        self._end(ClientClosed("the watch was closed"), quietly=True)

    def abandon(self, error: RaftKVError) -> None:
        """The client is closed."""
        self._end(error, quietly=False)

    def _next_batch(self) -> WatchBatch | None:
        if not self._batches:
            if not self._state.began:
                self.started()
            try:
                self._read_until(lambda: bool(self._batches))
            except ClientClosed:
                if self._quietly:
                    return None
                raise
        return self._batches.popleft()

    def _end(self, error: RaftKVError, *, quietly: bool) -> None:
        """The first word counts."""
        with self._lock:
            if self._closed is None:
                self._closed, self._quietly = error, quietly
        self._let_go()
        self._on_closed(self)

    def _end_if_too_late(self, error: RaftKVError) -> bool:
        """Once nobody has served it for longer than its reader wants to wait: `error` is the last reason."""
        limit_s = self._patience_s if self._state.began else self._timeout_s
        if monotonic() - self._lost_at <= limit_s:
            return False
        text = f"no member served the watch within {limit_s:.3g} s: {error.message}"
        self._end(type(error)(text, details=error.details), quietly=False)
        return True

    @abstractmethod
    def _read_until(self, done: Callable[[], bool]) -> None:
        """Receive until then, from whatever member serves it. Raises what it was ended with."""

    @abstractmethod
    def _let_go(self) -> None:
        """It has an end: wake the reading thread, if there is one, and free what it reads from."""
