"""Watches of the blocking client on etcd: each has a stream of its own, read by whoever iterates. A slow consumer is held back by gRPC."""

import threading
from time import monotonic
from typing import Any, Callable

import grpc

from raftkv.client.options import draw
from raftkv.client.watchface import BlockingWatch
from raftkv.client.watchstate import WatchState, is_passing
from raftkv.errors import ClientClosed, RaftKVError, Unreachable
from raftkv.etcdclient.answers import watch_answer, watch_request
from raftkv.etcdclient.blocking import EtcdCaller, Open
from raftkv.etcdclient.calls import program
from raftkv.etcdclient.channel import status_of
from raftkv.etcdclient.failures import Failure, Outcome, judge
from raftkv.wire.protocol import PING


class EtcdWatch(BlockingWatch):
    """A watch on etcd: a stream, and the next one at another member when it breaks."""

    def __init__(
        self,
        caller: EtcdCaller,
        state: WatchState,
        timeout_s: float,
        patience_s: float | None,
        on_closed: "Callable[[EtcdWatch], None]",
    ) -> None:
        super().__init__(state, timeout_s, patience_s, on_closed)
        self._caller = caller
        self._stream: Any = None
        self._requests: Open | None = None
        self._address = ""
        self._too_late: threading.Timer | None = None
        self._failures = 0
        self._ended = threading.Event()

    def _let_go(self) -> None:
        self._ended.set()
        self._hang_up()

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
        places = self._caller.places
        self._lost_at = self._lost_at or monotonic()
        if failure.outcome is Outcome.LOGIN:
            places.token = ""
        if failure.outcome is Outcome.FINAL:
            self._end(failure.error, quietly=False)
            return
        if self._end_if_too_late(failure.error):
            return
        places.on_failed(self._address)
        self._failures += 1
        self._ended.wait(places.pause_s(self._failures, draw()))
