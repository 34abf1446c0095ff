"""Watches of the blocking client on etcd: each has a stream of its own, read by whoever iterates. A slow consumer is held back by gRPC."""

import threading
from collections import deque
from time import monotonic
from typing import Any, Callable, Final, Iterator

import grpc

from raftkv.client.options import draw
from raftkv.client.watchstate import Event, WatchBatch, WatchState, is_passing
from raftkv.errors import ClientClosed, RaftKVError, Unreachable
from raftkv.etcdclient.answers import watch_answer, watch_request
from raftkv.etcdclient.blocking import EtcdCaller, Open
from raftkv.etcdclient.calls import program
from raftkv.etcdclient.channel import status_of
from raftkv.etcdclient.failures import Failure, Outcome, judge
from raftkv.units import Revision
from raftkv.wire.protocol import PING

FOR_EVER_S: Final = 1e9


class EtcdWatch:
    """What the blocking client's Watch is, in the same words. For one thread; any thread may close it."""

    def __init__(
        self,
        caller: EtcdCaller,
        state: WatchState,
        timeout_s: float,
        patience_s: float | None,
        on_closed: "Callable[[Any], None]",
    ) -> None:
        self._caller = caller
        self._state = state
        self._timeout_s = timeout_s
        self._patience_s = FOR_EVER_S if patience_s is None else patience_s
        self._on_closed = on_closed
        self._batches: deque[WatchBatch] = deque()
        self._events: deque[Event] = deque()
        self._lock = threading.Lock()
        self._stream: Any = None
        self._requests: Open | None = None
        self._address = ""
        self._too_late: threading.Timer | None = None
        self._lost_at = 0.0
        self._failures = 0
        self._closed: RaftKVError | None = None
        self._ended = threading.Event()
        self._quietly = False

    @property
    def next_revision(self) -> Revision:
        """Everything before it has been received; a watch that starts there hears the rest."""
        return self._state.next_revision

    def __enter__(self) -> "EtcdWatch":
        self.started()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def started(self) -> None:
        """Wait until a member serves it: from then on nothing is missed. Raises RaftKVError when none does within the timeout."""
        self._lost_at = self._lost_at or monotonic()
        self._read_until(lambda: self._state.began)

    def __iter__(self) -> "EtcdWatch":
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

    def _end(self, error: RaftKVError, *, quietly: bool) -> None:
        with self._lock:
            if self._closed is None:
                self._closed, self._quietly = error, quietly
        self._ended.set()
        self._hang_up()
        self._on_closed(self)

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

    def _read_until(self, done: Callable[[], bool]) -> None:
        while not done():
            if self._closed is not None:
                raise self._closed
            try:
                if self._stream is None:
                    self._open()
                else:
                    self._read()
            except grpc.RpcError as error:
                self._on_failed(judge(*status_of(error)))
            except ClientClosed:
                raise
            except RaftKVError as error:
                passes = is_passing(error, self._caller.options.login)
                self._on_failed(Failure(error, Outcome.PASSING if passes else Outcome.FINAL))

    def _open(self) -> None:
        caller = self._caller
        self._address = caller.places.current
        if caller.places.needs_login:
            caller.run(program(None, [PING], self._address, draw), caller.options.timeout_s)
        requests = Open([watch_request(self._state.command())])
        stream = caller.stream(self._address, requests, None)
        self._too_late = threading.Timer(caller.options.attempt_timeout_s, stream.cancel)
        self._too_late.daemon = True
        self._too_late.start()
        with self._lock:
            self._requests, self._stream = requests, stream
        if self._closed is not None:
            self._hang_up()

    def _read(self) -> None:
        """One response. Raises grpc.RpcError, and what ends the watch."""
        stream = self._stream
        try:
            response = None if stream is None else next(stream)
        except StopIteration:
            raise Unreachable("the watch was ended by the member") from None
        if response is None:
            return
        self._in_time()
        self._batches.extend(self._state.receive(watch_answer(response)))
        self._lost_at = 0.0
        self._failures = 0

    def _in_time(self) -> None:
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None

    def _hang_up(self) -> None:
        self._in_time()
        with self._lock:
            stream, requests = self._stream, self._requests
            self._stream = self._requests = None
        if requests is not None:
            requests.end()
        if stream is not None:
            stream.cancel()

    def _on_failed(self, failure: Failure) -> None:
        self._hang_up()
        if self._closed is not None:
            return
        now = monotonic()
        places = self._caller.places
        self._lost_at = self._lost_at or now
        if failure.outcome is Outcome.LOGIN:
            places.token = ""
        if failure.outcome is Outcome.FINAL:
            self._end(failure.error, quietly=False)
            return
        limit_s = self._patience_s if self._state.began else self._timeout_s
        if now - self._lost_at > limit_s:
            text = f"no member served the watch within {limit_s:.3g} s: {failure.error.message}"
            self._end(type(failure.error)(text, details=failure.error.details), quietly=False)
            return
        places.on_failed(self._address)
        self._failures += 1
        self._ended.wait(places.pause_s(self._failures, draw()))
