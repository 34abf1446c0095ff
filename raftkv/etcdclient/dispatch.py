"""Takes calls through an etcd cluster on asyncio: course.py decides, grpc.aio carries. What the asyncio client has instead of a Dispatcher."""

import asyncio
from typing import Any, Final
from weakref import WeakValueDictionary

import grpc.aio

from raftkv.client.decisions import BARE_WRITE, PATIENT_READ
from raftkv.client.options import Options, draw
from raftkv.errors import ClientClosed, DeadlineExceeded
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


class EtcdDispatcher:
    """All calls of one asyncio client, in one event loop."""

    def __init__(self, where: Where, options_: Options) -> None:
        self.loop = asyncio.get_running_loop()
        self.timeout_s = options_.timeout_s
        self.options = options_
        self.places = Places(where.addresses, options_.login)
        self._tls = where.tls
        self._credentials = None if where.tls is None else credentials(where.tls)
        self._sessions = Sessions(self.loop.time, draw_session_id) if options_.session else None
        self._opening = asyncio.Lock()
        self._channels: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[Answer]] = set()
        self._closed = False
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        """Tasks of one client do not race each other for a counter: they would all but one have to begin anew."""

    def submit(self, command: Command, kind: int, timeout_s: float | None) -> "asyncio.Future[Answer]":
        """Start a call. The future ends with the answer or with a RaftKVError; cancelling it disturbs nobody else."""
        self.check_open()
        task = self.loop.create_task(self._call(command, kind, self.timeout_s if timeout_s is None else timeout_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def ask(self, address: str, command: Command, timeout_s: float | None, kind: int) -> Answer:
        """Like submit, but to this address and nowhere else."""
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        address = without_scheme(address)
        if command[0] != DEFRAGMENT:
            timeout_s = min(timeout_s, self.options.attempt_timeout_s)
        answer: Answer = await self.run(program(None, command, address, draw), timeout_s, patient=True)
        return answer

    async def close(self) -> None:
        """Fail what is outstanding and hang up. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        session = None if self._sessions is None else self._sessions.current
        if session is not None and not session.gone and self.loop.time() < session.valid_until:
            await self._end_session(session.lease_id)
        for channel in self._channels.values():
            await channel.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S_MAX)

    async def _end_session(self, lease_id: int) -> None:
        """Its marks go with it; when nobody answers they go by themselves."""
        request = Rpc(rpcs.LEASE_REVOKE, rpc_pb2.LeaseRevokeRequest(ID=lease_id), safe=False)
        try:
            await self._send(Send(self.places.current, request, CLOSE_S_MAX, self.places.bearer))
        except grpc.RpcError:
            pass

    def check_open(self, may_have_happened: bool = False) -> None:
        """Raises ClientClosed."""
        if self._closed:
            raise ClientClosed(may_have_happened=may_have_happened)

    async def _call(self, command: Command, kind: int, timeout_s: float) -> Answer:
        if command[0] == WAIT:
            return await self._wait(Waiting(command), timeout_s)
        deadline = self.loop.time() + timeout_s
        sessions = self._sessions if kind != BARE_WRITE else None
        if sessions is not None and is_write_of_keys(command) and sessions.is_due:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._opening.acquire()
            except TimeoutError:
                raise no_session(timeout_s) from None
            try:
                if sessions.is_due:
                    await self.run(opened(sessions), max(0.0, deadline - self.loop.time()))
            finally:
                self._opening.release()
        made = program(sessions, command, self.places.current, draw)
        contended = contended_key(command)
        if contended is None:
            return await self._run(made, deadline, kind)
        turn = self._turns.setdefault(contended, asyncio.Lock())
        try:
            async with asyncio.timeout_at(deadline):
                await turn.acquire()
        except TimeoutError:
            raise not_our_turn(timeout_s) from None
        try:
            return await self._run(made, deadline, kind)
        finally:
            turn.release()

    async def _run(self, made: Program, deadline: float, kind: int) -> Answer:
        remaining_s = max(0.0, deadline - self.loop.time())
        answer: Answer = await self.run(made, remaining_s, patient=kind == PATIENT_READ)
        return answer

    async def run(self, made: Program, timeout_s: float, *, patient: bool = False) -> Any:
        """What a program returns. Raises RaftKVError."""
        attempt_s = timeout_s if patient else min(self.options.attempt_timeout_s, timeout_s / 3)
        now = self.loop.time
        course = Course(made, self.places, now(), timeout_s, attempt_s, draw)
        try:
            step = course.start(now())
            while not isinstance(step, Done):
                if isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                    self.check_open(course.uncertain)
                    step = course.on_pause_over(now())
                    continue
                self.check_open(course.uncertain)  # what gRPC says of a closed channel is no RpcError
                try:
                    response = await self._send(step)
                except grpc.RpcError as error:
                    self.check_open(course.uncertain or not step.rpc.safe)
                    step = course.on_failure(now(), *status_of(error))
                except asyncio.CancelledError:
                    self.check_open(course.uncertain or not step.rpc.safe)  # so a closed channel ends its calls
                    raise
                else:
                    step = course.on_response(now(), response)
            return step.answer
        finally:
            course.abandon()

    async def _send(self, step: Send) -> Any:
        """Raises grpc.RpcError."""
        rpc = step.rpc
        channel = self.channel(step.address)
        arguments: dict[str, Any] = {"timeout": step.timeout_s, "metadata": metadata(rpc, step.token)}
        if rpc.streams:
            method = channel.stream_stream(rpc.path, serialize, parser(rpc.path))
            return [response async for response in method(iter(rpc.request), **arguments)]
        return await channel.unary_unary(rpc.path, serialize, parser(rpc.path))(rpc.request, **arguments)

    def channel(self, address: str) -> Any:
        """The channel to this address."""
        made = self._channels.get(address)
        if made is None:
            if self._credentials is None:
                made = grpc.aio.insecure_channel(address, options(self._tls))
            else:
                made = grpc.aio.secure_channel(address, self._credentials, options(self._tls))
            self._channels[address] = made
        return made

    def stream(self, address: str, requests: list[Any]) -> Any:
        """A stream of watches: to be iterated over, and cancelled."""
        method = self.channel(address).stream_stream(rpcs.WATCH, serialize, rpc_pb2.WatchResponse.FromString)
        pairs = metadata(Rpc(rpcs.WATCH, None, True), self.places.bearer)
        return method(_open(requests), metadata=pairs)

    # Waiting.

    async def _wait(self, waiting: Waiting, timeout_s: float) -> Answer:
        deadline = self.loop.time() + timeout_s
        seen: Answer = await self.run(waiting.look(), timeout_s)
        try:
            async with asyncio.timeout_at(deadline):
                return await self._wait_on(waiting, seen, deadline)
        except TimeoutError:
            raise DeadlineExceeded("what was waited for did not happen in time", may_have_happened=False) from None

    async def _wait_on(self, waiting: Waiting, seen: Answer, deadline: float) -> Answer:
        failures = 0
        while not waiting.is_over(seen):
            self.check_open()
            address = self.places.current
            stream = self.stream(address, waiting.requests(seen))
            try:
                async for response in stream:
                    if response.events:
                        failures = 0
                    if response.canceled:
                        failures += 1
                        await asyncio.sleep(self.places.pause_s(failures, draw()))
                        break
                    answer = await self._after(waiting, response, deadline)
                    if answer is not None:
                        return answer
            except grpc.RpcError as error:
                self.check_open()
                failure = judge(*status_of(error))
                if failure.outcome is Outcome.FINAL:
                    raise failure.error from None
                self.places.on_failed(address)
                await asyncio.sleep(self.places.pause_s(failures, draw()))
                failures += 1
            except asyncio.CancelledError:
                self.check_open()
                raise
            finally:
                stream.cancel()
            seen = await self.run(waiting.look(), max(0.0, deadline - self.loop.time()))
        return seen

    async def _after(self, waiting: Waiting, response: Any, deadline: float) -> Answer | None:
        for event in response.events:
            revision = waiting.on_event(event)
            if not revision:
                continue
            answer: Answer | None = waiting.answer_of(event)
            if answer is None:
                answer = await self.run(waiting.look(revision), max(0.0, deadline - self.loop.time()))
            if waiting.is_over(answer):
                return answer
        return None


async def _open(requests: list[Any]) -> Any:
    """Requests of a stream that stays open: it is cancelled by its reader."""
    for request in requests:
        yield request
    await asyncio.get_running_loop().create_future()
