"""Watch: a stream with any number of watches. A Receiver of its call, and a sink of the hub (store/watches.py).

Watches begin in the order in which they were asked for, as clients take the answers in that order. A watch that is live is told each
revision in one response; one that reads history, many revisions at once. No revision is split over responses, unless the client
takes fragments. What is encoded for one watcher is sent to all that are handed the same (watch_encoding.py).

When the member cannot say any more what happens, because it lost the majority, falls behind or leaves, the stream ends with
`Unavailable`: clients open it anew elsewhere, from where they were.
"""

import asyncio
import random
from collections import deque
from typing import Any, Final

from raftkv.daemon.etcd.calls import Call, Procedure
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.watch_encoding import FRAGMENT_BYTES_MAX, Encoded, encoded
from raftkv.errors import Compacted, InvalidRequest, Overloaded, RaftKVError
from raftkv.etcd.responses import header
from raftkv.etcd.statuses import UNAVAILABLE, Status, status_of
from raftkv.etcd.watching import NO_WATCH, compacted, is_empty, refusal, watch_command
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.replica.watching import Batch
from raftkv.units import Milliseconds, Revision
from raftkv.wire.commands import Command
from raftkv.wire.watching import check_watch

DUPLICATE_ID: Final = "mvcc: duplicate watch ID provided on the WatchStream"
QUESTIONS_MAX: Final = (
    128  # about progress, that wait at one stream; more are not answered, as in etcd while it is behind
)


class _Watch:
    """One watch. `refusals`: the responses to one that did not begin, until it is their turn."""

    __slots__ = (
        "asks_progress",
        "cancel_wanted",
        "command",
        "deadline_ms",
        "fragment",
        "gathered",
        "gathered_bytes",
        "is_parked",
        "prefix",
        "quiet",
        "refusals",
        "request",
        "revision",
        "tag",
        "watch_id",
        "watcher",
    )

    def __init__(self, tag: int, watch_id: int, request: rpc.WatchCreateRequest) -> None:
        self.tag = tag
        self.watch_id = watch_id
        self.request = request
        self.command: Command = []
        self.prefix = rpc.WatchResponse(watch_id=watch_id).SerializeToString()
        self.fragment = request.fragment
        self.asks_progress = request.progress_notify
        self.quiet = True  # no event since the last look
        self.deadline_ms: Milliseconds = 0
        self.is_parked = False
        self.cancel_wanted = False
        self.refusals: list[rpc.WatchResponse] | None = None
        self.watcher: Any = None
        self.gathered: list[bytes] = []  # of a revision of which more is to come
        self.gathered_bytes = 0
        self.revision: Revision = 0


class WatchStream:
    """The receiver of one call."""

    def __init__(self, house: House, call: Call) -> None:
        self._house = house
        self._call = call
        self._watching = house.service.watching
        self._watches: dict[int, _Watch] = {}  # by tag
        self._ids: dict[int, _Watch] = {}
        self._compacted_ids: set[int] = set()  # in use until the client cancels them, as in etcd
        self._opening: deque[_Watch] = deque()
        self._next_tag = 0
        self._next_id = 0
        self._is_parked = False
        self._questions = 0
        self._is_over = False
        self._progress_timer: asyncio.TimerHandle | None = None

    # Receiver.

    def on_message(self, message: rpc.WatchRequest) -> None:
        if self._is_over:
            return
        kind = message.WhichOneof("request_union")
        if kind == "create_request":
            self._create(message.create_request)
        elif kind == "cancel_request":
            self._cancel(message.cancel_request.watch_id)
        elif kind == "progress_request":
            self._questions = min(self._questions + 1, QUESTIONS_MAX)
            self._ask_progress()
        self._house.member.schedule_pump()

    def on_half_close(self) -> None:
        """Events go on."""

    def on_room(self) -> None:
        self._house.member.schedule_pump()

    def on_gone(self) -> None:
        self._is_over = True
        for watch in self._watches.values():
            if watch.watcher is not None:
                self._watching.close(watch.watcher)
        self._watches.clear()
        self._ids.clear()
        self._opening.clear()
        self._watching.forget(self)
        if self._progress_timer is not None:
            self._progress_timer.cancel()
            self._progress_timer = None

    # Watches begin.

    def _create(self, request: rpc.WatchCreateRequest) -> None:
        watch = _Watch(self._next_tag, NO_WATCH, request)
        self._next_tag += 1
        self._opening.append(watch)
        watch.command = watch_command(request)
        try:
            self._check(watch)
        except RaftKVError as error:
            self._refuse(watch, error)
            return
        if request.watch_id and self._is_in_use(request.watch_id):
            watch.refusals = [self._response(NO_WATCH, created=True, canceled=True, cancel_reason=DUPLICATE_ID)]
            self._begin_refused()
            return
        self._name(watch)
        watch.deadline_ms = self._house.service.deadline(self._house.request_timeout_ms)
        self._watches[watch.tag] = watch
        if self._is_parked:
            watch.is_parked = True
        else:
            self._open(watch)

    def _check(self, watch: _Watch) -> None:
        """What needs no look at the store is refused before it has an id, as in etcd."""
        if is_empty(watch.request):
            raise InvalidRequest("the range of the watch is empty")
        if watch.request.start_revision < 0:
            raise Compacted()
        check_watch(watch.command, self._house.limits)
        if len(self._opening) > self._house.limits.connection_in_flight_requests_max:
            raise Overloaded("too many watches begin on this stream")

    def _name(self, watch: _Watch) -> None:
        """The id that the client gave, or the smallest that was never given."""
        watch_id = watch.request.watch_id
        if not watch_id:
            while self._is_in_use(self._next_id):
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        watch.watch_id = watch_id
        watch.prefix = rpc.WatchResponse(watch_id=watch_id).SerializeToString()
        self._ids[watch_id] = watch

    def _is_in_use(self, watch_id: int) -> bool:
        return watch_id in self._ids or watch_id in self._compacted_ids

    def _open(self, watch: _Watch) -> None:
        self._watching.open(watch.command, self, watch.tag, watch.deadline_ms, self._call.caller)

    def on_created(self, tag: int, watcher: Any, revision: Revision) -> None:
        watch = self._watches.get(tag)
        if watch is None:
            self._watching.close(watcher)  # the call is over
        elif self._opening[0] is not watch:
            self._watching.close(watcher)  # one before it waits for a leader: after that one
            if not self._park(watch):
                self._end(status_of(Overloaded()))
        else:
            self._opening.popleft()
            watch.watcher = watcher
            self._call.reply(
                rpc.WatchResponse(header=header(self._house.origin(), revision), watch_id=watch.watch_id, created=True)
            )
            if watch.asks_progress and self._progress_timer is None:
                self._set_progress_timer()
            if watch.cancel_wanted:
                self._end_watch(watch)
            self._begin_refused()

    def _refuse(self, watch: _Watch, error: RaftKVError) -> None:
        self._drop(watch, error)
        watch.refusals = refusal(watch.request, watch.watch_id, error, self._house.origin(), self._house.view.revision)
        if watch.cancel_wanted and isinstance(error, Compacted):
            watch.refusals[1:] = [self._response(watch.watch_id, canceled=True)]  # it began, and the client was quicker
        self._begin_refused()

    def _begin_refused(self) -> None:
        """Say of those that never begin that it is so, once it is their turn."""
        while self._opening and self._opening[0].refusals is not None:
            for response in self._opening.popleft().refusals or ():
                self._call.reply(response)
        if self._questions:
            self._ask_progress()

    def _park(self, watch: _Watch) -> bool:
        """Wait for a leader with it, and with all that begin after it."""
        watch.is_parked = True
        if not self._is_parked:
            self._is_parked = self._house.parking.park(watch.deadline_ms, self._again, self._give_up)
        return self._is_parked

    def _again(self) -> None:
        self._is_parked = False
        for watch in [watch for watch in self._opening if watch.is_parked]:
            watch.is_parked = False
            if not self._is_over:
                self._open(watch)

    def _give_up(self, error: RaftKVError) -> None:
        self._end(status_of(error))

    # Watches end.

    def _cancel(self, watch_id: int) -> None:
        watch = self._ids.get(watch_id)
        if watch is None:
            if watch_id in self._compacted_ids:
                self._compacted_ids.discard(watch_id)
                self._call.reply(self._response(watch_id, canceled=True))
            return
        if watch.watcher is None:
            watch.cancel_wanted = True
            del self._ids[watch_id]
        else:
            self._end_watch(watch)

    def _end_watch(self, watch: _Watch) -> None:
        """At the client's wish."""
        self._watching.close(watch.watcher)
        self._drop(watch)
        self._call.reply(self._response(watch.watch_id, canceled=True))

    def on_canceled(self, tag: int, error: RaftKVError) -> None:
        watch = self._watches.get(tag)
        if watch is None:
            return
        status = status_of(error)
        begins = watch.watcher is None
        if begins and self._house.parking.takes(error) and self._park(watch):
            return
        if status.number == UNAVAILABLE:
            self._end(status)
        elif begins:
            self._refuse(watch, error)
        else:
            self._drop(watch, error)
            if isinstance(error, Compacted):
                self._call.reply(compacted(watch.watch_id, error, self._house.origin()))
            else:
                self._call.reply(self._response(watch.watch_id, canceled=True, cancel_reason=status.text))

    def _drop(self, watch: _Watch, error: RaftKVError | None = None) -> None:
        self._watches.pop(watch.tag, None)
        if self._ids.get(watch.watch_id) is watch:
            del self._ids[watch.watch_id]
            if isinstance(error, Compacted) and len(self._compacted_ids) < self._house.limits.watchers_max:
                self._compacted_ids.add(watch.watch_id)

    def _end(self, status: Status) -> None:
        if not self._is_over:
            self.on_gone()
            self._call.end(status)

    # Events.

    @property
    def takes_events(self) -> bool:
        return self._is_over or self._call.takes_messages

    def on_events(self, tag: int, batch: Batch) -> None:
        watch = self._watches.get(tag)
        if watch is None:
            return
        made = encoded(batch, self._house)
        watch.quiet = False
        if watch.gathered or batch.more or (watch.fragment and made.bytes_max >= FRAGMENT_BYTES_MAX):
            self._gather(watch, batch, made)
            return
        reply, prefix = self._call.reply, watch.prefix
        for response in made.responses:
            reply(prefix + response)

    def _gather(self, watch: _Watch, batch: Batch, made: Encoded) -> None:
        """The slow path: revisions that come in parts, or have to go out in parts."""
        for revision, events in made.revisions:
            if watch.gathered and watch.revision != revision:
                self._tell_gathered(watch, batch.live)
            watch.revision = revision
            for event in events:
                if watch.fragment and watch.gathered and watch.gathered_bytes + len(event) >= FRAGMENT_BYTES_MAX:
                    self._tell_gathered(watch, batch.live, fragment=True)
                watch.gathered.append(event)
                watch.gathered_bytes += len(event)
        if watch.gathered and not batch.more:
            self._tell_gathered(watch, batch.live)

    def _tell_gathered(self, watch: _Watch, live: bool, *, fragment: bool = False) -> None:
        revision = watch.revision if live else self._house.view.revision
        head = self._response(watch.watch_id, revision, fragment=fragment).SerializeToString()
        self._call.reply(b"".join((head, *watch.gathered)))
        watch.gathered, watch.gathered_bytes = [], 0

    # Progress.

    def on_progress(self, tag: int, revision: Revision) -> None:
        raise AssertionError("the hub is not asked for signs of progress: their time is another one here")

    def _ask_progress(self) -> None:
        """Once all watches that were asked for before have begun, and were told all; a stream without watches is not answered."""
        if self._opening or not self._questions:
            return
        count, self._questions = self._questions, 0
        if not self._watches:
            return

        def done(revision: Revision) -> None:
            for _ in range(count):
                self._call.reply(self._response(NO_WATCH, revision))

        self._watching.request_progress(self, done)

    def _set_progress_timer(self) -> None:
        interval_ms = self._house.limits.etcd_watch_progress_interval_ms
        seconds = interval_ms / 1000 * (1 + random.random() / 10)  # not all streams at once
        self._progress_timer = asyncio.get_running_loop().call_later(seconds, self._tell_progress)

    def _tell_progress(self) -> None:
        """To the watches that want it and had no event since the last time."""
        self._set_progress_timer()
        asking = [watch for watch in self._watches.values() if watch.asks_progress and watch.watcher is not None]
        quiet = [watch for watch in asking if watch.quiet]
        for watch in asking:
            watch.quiet = True

        def done(revision: Revision) -> None:
            for watch in quiet:
                if watch.tag in self._watches:
                    self._call.reply(self._response(watch.watch_id, revision))

        if quiet:
            self._watching.request_progress(self, done)
            self._house.member.schedule_pump()

    def _response(self, watch_id: int, revision: Revision | None = None, **fields: Any) -> rpc.WatchResponse:
        if revision is None:
            revision = self._house.view.revision
        return rpc.WatchResponse(header=header(self._house.origin(), revision), watch_id=watch_id, **fields)


PROCEDURES: Final = (
    Procedure(
        "/etcdserverpb.Watch/Watch",
        ("/watch",),
        rpc.WatchRequest,
        rpc.WatchResponse,
        WatchStream,
        client_streaming=True,
        server_streaming=True,
    ),
)
