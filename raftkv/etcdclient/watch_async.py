"""Watches of the asyncio client on etcd: the client's own AsyncWatch, each served by a task with a stream of its own.

It goes on at another member when one fails, from the first revision that it has not heard. A slow consumer is not read for: gRPC holds etcd back.
"""

import asyncio

import grpc

from raftkv.client.options import draw
from raftkv.client.watch_async import AsyncWatch
from raftkv.client.watchstate import is_passing
from raftkv.errors import ClientClosed, RaftKVError, Unreachable
from raftkv.etcdclient.answers import watch_answer, watch_request
from raftkv.etcdclient.calls import program
from raftkv.etcdclient.channel import status_of
from raftkv.etcdclient.dispatch import EtcdDispatcher
from raftkv.etcdclient.failures import Failure, Outcome, judge
from raftkv.wire.commands import OK
from raftkv.wire.protocol import PING


class EtcdWatches:
    """All watches of one client; what an AsyncWatch has for its owner."""

    def __init__(self, dispatcher: EtcdDispatcher) -> None:
        self._dispatcher = dispatcher
        self._tasks: dict[AsyncWatch, asyncio.Task[None]] = {}
        self._caught_up: dict[AsyncWatch, asyncio.Event] = {}
        self._last_error: RaftKVError | None = None
        self._closed = False

    def add(self, watch: AsyncWatch) -> None:
        """Serve it from now on."""
        if self._closed:
            watch.fail(ClientClosed())
            return
        self._caught_up[watch] = asyncio.Event()
        self._tasks[watch] = self._dispatcher.loop.create_task(self._serve(watch))

    def remove(self, watch: AsyncWatch) -> None:
        """It is over."""
        self._caught_up.pop(watch, None)
        task = self._tasks.pop(watch, None)
        if task is not None:
            task.cancel()

    def resume(self, watch: AsyncWatch) -> None:
        """Its consumer has caught up."""
        watch.suspended = False
        if watch in self._caught_up:
            self._caught_up[watch].set()

    def why_not(self, timeout_s: float) -> RaftKVError:
        """Why no member served a watch in time."""
        error = self._last_error or Unreachable("no answer in time")
        return type(error)(
            f"no member served the watch within {timeout_s:.3g} s: {error.message}", details=error.details
        )

    async def close(self) -> None:
        """End all of them."""
        self._closed = True
        tasks = list(self._tasks.values())
        for watch in list(self._tasks):
            watch.fail(ClientClosed())
            self.remove(watch)
        if tasks:
            await asyncio.wait(tasks)

    async def _serve(self, watch: AsyncWatch) -> None:
        loop, places = self._dispatcher.loop, self._dispatcher.places
        failures = 0
        watch.lost_at = loop.time()
        while True:
            address = places.current
            try:
                failure = await self._stream(watch, address)
            except RaftKVError as error:  # what a member refused the watch with
                passes = is_passing(error, self._dispatcher.options.login)
                failure = Failure(error, Outcome.PASSING if passes else Outcome.FINAL)
            self._last_error = failure.error
            lost_at: float | None = watch.lost_at
            if lost_at is None:
                watch.lost_at, failures = loop.time(), 0
            if failure.outcome is Outcome.LOGIN:
                places.token = ""
            if failure.outcome is Outcome.FINAL or loop.time() - watch.lost_at > watch.patience_s:
                self._tasks.pop(watch, None)
                watch.fail(failure.error)
                return
            places.on_failed(address)
            failures += 1
            await asyncio.sleep(places.pause_s(failures, draw()))

    async def _stream(self, watch: AsyncWatch, address: str) -> Failure:
        """Until it breaks. Raises what etcd, or the client's WatchState, ends the watch with."""
        dispatcher = self._dispatcher
        if dispatcher.places.needs_login:
            await dispatcher.run(program(None, [PING], address, draw), dispatcher.timeout_s)
        stream = dispatcher.stream(address, [watch_request(watch.command())])
        try:
            async with asyncio.timeout(dispatcher.options.attempt_timeout_s) as patience:
                async for response in stream:
                    patience.reschedule(None)
                    answer = watch_answer(response)
                    watch.receive(answer)
                    if answer[0] == OK:
                        watch.lost_at = None
                    if watch.is_full:
                        await self._let_it_catch_up(watch)
        except grpc.RpcError as error:
            return judge(*status_of(error))
        except TimeoutError:
            return Failure(Unreachable("no answer in time"), Outcome.UNCERTAIN)
        finally:
            stream.cancel()
        return Failure(Unreachable("the watch was ended by the member"), Outcome.PASSING)

    async def _let_it_catch_up(self, watch: AsyncWatch) -> None:
        event = self._caught_up[watch]
        event.clear()
        watch.suspended = True
        await event.wait()
