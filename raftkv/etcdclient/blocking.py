"""Takes calls through an etcd cluster for threads: course.py decides, gRPC carries. What the blocking client has instead of a Caller.

It keeps no thread of its own but those of gRPC. Unlike the native client it does not survive os.fork: gRPC does not.
"""

import threading
from time import monotonic
from typing import Any, Final, Iterator
from weakref import WeakValueDictionary

import grpc

from raftkv.client.decisions import BARE_WRITE, PATIENT_READ
from raftkv.client.options import Options, draw
from raftkv.errors import ClientClosed, DeadlineExceeded, RaftKVError
from raftkv.etcdclient import rpcs
from raftkv.etcdclient.answers import parser
from raftkv.etcdclient.calls import program
from raftkv.etcdclient.channel import credentials, metadata, options, serialize, status_of
from raftkv.etcdclient.course import Course, Done, Send, Sleep
from raftkv.etcdclient.failures import Outcome, judge
from raftkv.etcdclient.marks import Sessions, draw_session_id
from raftkv.etcdclient.places import Places
from raftkv.etcdclient.rpcs import Program, Rpc
from raftkv.etcdclient.waits import Waiting
from raftkv.etcdclient.where import Where, without_scheme
from raftkv.etcdclient.writes import contended_key, is_write_of_keys, no_session, not_our_turn, opened
from raftkv.etcdpb import rpc_pb2
from raftkv.wire.commands import Answer, Command
from raftkv.wire.protocol import DEFRAGMENT, WAIT

CLOSE_S_MAX: Final = 1.0


class Open:
    """The requests of a stream that stays open until `end`."""

    def __init__(self, first: list[Any]) -> None:
        self._first = first
        self._ended = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        yield from self._first
        self._ended.wait()

    def end(self) -> None:
        self._ended.set()


class EtcdCaller:
    """All calls of one blocking client, from any thread."""

    def __init__(self, where: Where, options_: Options) -> None:
        self.places = Places(where.addresses, options_.login)
        self.options = options_
        self._tls = where.tls
        self._credentials = None if where.tls is None else credentials(where.tls)
        self._sessions = Sessions(monotonic, draw_session_id) if options_.session else None
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        self._channels: dict[str, Any] = {}
        self._closed = threading.Event()
        self._turns: WeakValueDictionary[bytes, Any] = WeakValueDictionary()
        """Threads of one client do not race each other for a counter: they would all but one have to begin anew."""

    def call(self, command: Command, kind: int, timeout_s: float | None) -> Answer:
        """Run one call to its end. Raises RaftKVError."""
        timeout_s = self.options.timeout_s if timeout_s is None else timeout_s
        if command[0] == WAIT:
            return self._wait(Waiting(command), timeout_s)
        deadline = monotonic() + timeout_s
        sessions = self._sessions if kind != BARE_WRITE else None
        if sessions is not None and is_write_of_keys(command) and sessions.is_due:
            if not self._opening.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX)):
                raise no_session(timeout_s)
            try:
                if sessions.is_due:
                    self.run(opened(sessions), max(0.0, deadline - monotonic()))
            finally:
                self._opening.release()
        made = program(sessions, command, self.places.current, draw)
        contended = contended_key(command)
        if contended is None:
            return self._run(made, deadline, kind)
        turn = self._turns.setdefault(contended, threading.Lock())
        if not turn.acquire(timeout=min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX)):
            raise not_our_turn(timeout_s)
        try:
            return self._run(made, deadline, kind)
        finally:
            turn.release()

    def _run(self, made: Program, deadline: float, kind: int) -> Answer:
        answer: Answer = self.run(made, max(0.0, deadline - monotonic()), patient=kind == PATIENT_READ)
        return answer

    def ask(self, address: str, command: Command, timeout_s: float | None, kind: int) -> Answer:
        """Like call, but to this address and nowhere else."""
        timeout_s = self.options.timeout_s if timeout_s is None else timeout_s
        address = without_scheme(address)
        if command[0] != DEFRAGMENT:
            timeout_s = min(timeout_s, self.options.attempt_timeout_s)
        answer: Answer = self.run(program(None, command, address, draw), timeout_s, patient=True)
        return answer

    def run(self, made: Program, timeout_s: float, *, patient: bool = False) -> Any:
        """What a program returns. Raises RaftKVError."""
        attempt_s = timeout_s if patient else min(self.options.attempt_timeout_s, timeout_s / 3)
        course = Course(made, self.places, monotonic(), timeout_s, attempt_s, draw)
        try:
            step = course.start(monotonic())
            while not isinstance(step, Done):
                if isinstance(step, Sleep):
                    self._closed.wait(step.seconds)
                    self.check_open(course.uncertain)
                    step = course.on_pause_over(monotonic())
                    continue
                try:
                    response = self._send(step)
                except grpc.RpcError as error:
                    self.check_open(course.uncertain or not step.rpc.safe)
                    step = course.on_failure(monotonic(), *status_of(error))
                else:
                    step = course.on_response(monotonic(), response)
            return step.answer
        finally:
            course.abandon()

    def check_open(self, may_have_happened: bool = False) -> None:
        """Raises ClientClosed."""
        if self._closed.is_set():
            raise ClientClosed(may_have_happened=may_have_happened)

    def close(self) -> None:
        """Hang up. Calls of other threads end with ClientClosed. Twice is harmless."""
        if self._closed.is_set():
            return
        session = None if self._sessions is None else self._sessions.current
        if session is not None and not session.gone and monotonic() < session.valid_until:
            self._end_session(session.lease_id)
        self._closed.set()
        with self._lock:
            channels = list(self._channels.values())
            self._channels.clear()
        for channel in channels:
            channel.close()

    def _end_session(self, lease_id: int) -> None:
        """Its marks go with it; when nobody answers they go by themselves."""
        request = Rpc(rpcs.LEASE_REVOKE, rpc_pb2.LeaseRevokeRequest(ID=lease_id), safe=False)
        try:
            self._send(Send(self.places.current, request, CLOSE_S_MAX, self.places.bearer))
        except (grpc.RpcError, RaftKVError):
            pass

    def _send(self, step: Send) -> Any:
        """Raises grpc.RpcError."""
        rpc = step.rpc
        channel = self.channel(step.address)
        arguments: dict[str, Any] = {"timeout": step.timeout_s, "metadata": metadata(rpc, step.token)}
        try:
            if rpc.streams:
                method = channel.stream_stream(rpc.path, serialize, parser(rpc.path))
                return list(method(iter(rpc.request), **arguments))
            return channel.unary_unary(rpc.path, serialize, parser(rpc.path))(rpc.request, **arguments)
        except ValueError:
            self.check_open(not rpc.safe)  # what gRPC says of a channel that was closed
            raise

    def channel(self, address: str) -> Any:
        """The channel to this address. Raises ClientClosed."""
        with self._lock:
            self.check_open()
            made = self._channels.get(address)
            if made is None:
                if self._credentials is None:
                    made = grpc.insecure_channel(address, options(self._tls))
                else:
                    made = grpc.secure_channel(address, self._credentials, options(self._tls))
                self._channels[address] = made
            return made

    def stream(self, address: str, requests: Open, timeout_s: float | None) -> Any:
        """A stream of watches: to be iterated over, and cancelled. Raises ClientClosed."""
        method = self.channel(address).stream_stream(rpcs.WATCH, serialize, rpc_pb2.WatchResponse.FromString)
        pairs = metadata(Rpc(rpcs.WATCH, None, True), self.places.bearer)
        return method(iter(requests), timeout=timeout_s, metadata=pairs)

    # Waiting.

    def _wait(self, waiting: Waiting, timeout_s: float) -> Answer:
        deadline = monotonic() + timeout_s
        failures = 0
        while True:
            seen: Answer = self.run(waiting.look(), max(0.0, deadline - monotonic()))
            if waiting.is_over(seen):
                return seen
            requests = Open(waiting.requests(seen))
            address = self.places.current
            stream = self.stream(address, requests, max(0.001, deadline - monotonic()))
            try:
                for response in stream:
                    if response.events:
                        failures = 0
                    if response.canceled:
                        failures += 1
                        self._closed.wait(self.places.pause_s(failures, draw()))
                        break
                    answer = self._after(waiting, response, deadline)
                    if answer is not None:
                        return answer
            except grpc.RpcError as error:
                self.check_open()
                failure = judge(*status_of(error))
                if monotonic() < deadline:
                    if failure.outcome is Outcome.FINAL:
                        raise failure.error from None
                    self.places.on_failed(address)
                    self._closed.wait(min(self.places.pause_s(failures, draw()), max(0.0, deadline - monotonic())))
                    failures += 1
            finally:
                requests.end()
                stream.cancel()
            if monotonic() >= deadline:
                raise DeadlineExceeded("what was waited for did not happen in time", may_have_happened=False)

    def _after(self, waiting: Waiting, response: Any, deadline: float) -> Answer | None:
        for event in response.events:
            revision = waiting.on_event(event)
            if not revision:
                continue
            answer = waiting.answer_of(event)
            if answer is None:
                answer = self.run(waiting.look(revision), max(0.0, deadline - monotonic()))
            if waiting.is_over(answer):
                return answer
        return None
