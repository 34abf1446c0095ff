"""The watch hub: who wants to hear of which events, what they have heard, and who gets what next.

Apply feeds it with the events of an entry; they wait in their topics, shared by all watchers of one range, until `step` hands them to the
sinks. A watcher whose sink takes nothing, or that falls behind by more than a topic keeps, lags: it reads history from where it is,
in slices, together with others that are at the same place, until it has caught up. Nobody waits for it, and it costs no memory.

Each watcher hears each event of its range once, in order, all events of one revision before any of the next. Pure: no clock, no sockets.
"""

from collections import deque
from itertools import islice
from typing import Any, Callable, Sequence

from raftkv.errors import InvalidRequest, Overloaded, RaftKVError
from raftkv.limits import Limits
from raftkv.store.access import Access
from raftkv.store.history import position_of, read_events
from raftkv.store.mvcc import Mvcc
from raftkv.store.ranges import compacted, range_bound
from raftkv.store.records import key_of, revision_of
from raftkv.store.tally import Tally
from raftkv.store.topics import Topic, Topics
from raftkv.store.waits import Waits
from raftkv.store.watcher import Batch, Event, Watcher, WatchSink, cut
from raftkv.units import Milliseconds, Revision
from raftkv.wire.watching import NO_DELETE, NO_PUT, WATCH_PREV_KV, WATCH_PROGRESS_NOTIFY

DELIVERIES_PER_STEP = 256
LAGGING_PER_STEP = 256
LAGGING_EXAMINED_PER_STEP = 1024
HISTORY_EVENTS_PER_STEP = 512
HISTORY_BYTES_PER_STEP = 256 * 1024
PROGRESS_PER_TICK = 256
BYTES_PER_STEP = 4 * 1024 * 1024  # handed out, however many share them


class WatchHub:
    """All watches and waits of one member."""

    def __init__(self, limits: Limits, *, history_events_per_step: int = HISTORY_EVENTS_PER_STEP) -> None:
        self.waits = Waits()
        self.tally = Tally()  # here because the hub outlives stores
        self._limits = limits
        self._history_events_per_step = history_events_per_step
        self._mvcc: Mvcc | None = None
        self._access: Access  # with the store
        self._topics = Topics()
        self._watchers: dict[Watcher, None] = {}
        self._lagging: dict[Watcher, None] = {}
        self._dirty: list[Topic] = []
        self._ready: deque[Watcher] = deque()
        self._touched: dict[Topic, None] = {}  # topics with events that somebody may not have yet
        self._notified: deque[Watcher] = deque()  # those that want progress, in turns
        self._questions: list[tuple[WatchSink, Callable[[Revision], None]]] = []
        self._fed_revision: Revision = 0
        self._now_ms: Milliseconds = 0
        self._handed_bytes = 0  # by the step under way
        self.events_delivered = 0

    # The store.

    def attach(self, mvcc: Mvcc, access: Access) -> None:
        """The store is there, or another one came with a snapshot: what was missed meanwhile is in its history."""
        assert self._mvcc is None, "one store at a time"
        for watcher in self._watchers:
            self._lag(watcher)
        for topic in self._touched:
            topic.clear()
        self._touched.clear()
        self._mvcc, self._access, mvcc.tally = mvcc, access, self.tally
        self._fed_revision = mvcc.revision
        self.waits.attach(mvcc, access)

    def detach(self) -> None:
        """The store is going away."""
        self._mvcc = None
        self.waits.detach()

    def move(self, mvcc: Mvcc, access: Access) -> None:
        """The same state at another place: whatever anybody has heard, or waits for, stays as it is."""
        assert self._mvcc is not None and mvcc.revision == self._mvcc.revision, "not a revision between them"
        self._mvcc, self._access, mvcc.tally = mvcc, access, self.tally
        self.waits.move(mvcc, access)

    @property
    def is_active(self) -> bool:
        """Whether anybody has to be fed."""
        return bool(self._watchers) or self.waits.is_active

    def feed(self, records: Sequence[bytes]) -> None:
        """The events of one entry, in order, once it is applied."""
        mvcc = self._mvcc
        assert mvcc is not None, "fed by the store that is attached"
        if self._watchers:
            match = self._topics.match
            for record in records:
                event: Event | None = None
                for topic in match(key_of(record)):
                    if topic.live:
                        event = event or Event(record)
                        self._add(mvcc, topic, event)
        self._fed_revision = mvcc.revision
        if self.waits.is_active:
            self.waits.feed(records)

    def _add(self, mvcc: Mvcc, topic: Topic, event: Event) -> None:
        limits = self._limits
        if len(topic.events) >= limits.watch_queue_events_max or topic.size_bytes >= limits.watch_queue_bytes_max:
            # Who has not taken what there was is too slow: it gets the rest, and this, from history.
            for watcher in topic.watchers:
                if watcher.position is None:
                    if watcher.cursor == topic.next_cursor:
                        watcher.position = event.position
                    self._lag(watcher)
            topic.clear()
            return
        if topic.prev_wanted and event.prev is None:
            event.prev = mvcc.get_at(key_of(event.record), revision_of(event.record) - 1)
        topic.events.append(event)
        topic.size_bytes += len(event.record) + (len(event.prev) if event.prev is not None else 0)
        if not topic.dirty:
            topic.dirty = True
            self._dirty.append(topic)
            self._touched[topic] = None

    # Watches come and go.

    def create(
        self, command: Sequence[Any], sink: WatchSink, tag: int, user: str | None = None, auth_revision: int = 0
    ) -> tuple[Watcher, Revision]:
        """Begin a watch (a valid WATCH_CREATE); the store's revision. Raises Compacted, InvalidRequest, Overloaded, or as Access.check."""
        _, key, range_end, start_revision, flags = command
        mvcc = self._mvcc
        if mvcc is None:
            raise Overloaded("this member is taking in a snapshot")
        self._access.check(command, user, auth_revision)
        if start_revision and start_revision < max(mvcc.compact_revision, 0):
            raise compacted(start_revision, mvcc.compact_revision)
        key = key or b"\0"
        end = range_bound(key, range_end)
        if end is not None and key >= end:
            raise InvalidRequest("the range of the watch is empty")
        if len(self._watchers) >= self._limits.watchers_max:
            raise Overloaded(f"this member serves at most {self._limits.watchers_max} watches")
        topic = self._topics.obtain(key, end)
        watcher = Watcher(topic, sink, tag, flags, user, auth_revision, self._access.generation)
        self._fed_revision = mvcc.revision
        watcher.quiet_since_ms = self._now_ms
        watcher.cursor = topic.next_cursor
        topic.watchers[watcher] = None
        topic.prev_wanted += bool(flags & WATCH_PREV_KV)
        topic.live += 1
        self._watchers[watcher] = None
        if flags & WATCH_PROGRESS_NOTIFY:
            self._notified.append(watcher)
        if 0 < start_revision <= mvcc.revision:
            watcher.position = position_of(start_revision)
            self._lag(watcher)
        elif start_revision:
            watcher.first_revision = start_revision
        return watcher, mvcc.revision

    def cancel(self, watcher: Watcher) -> None:
        """It hears nothing any more. Once is enough, twice is harmless."""
        if watcher not in self._watchers:
            return
        del self._watchers[watcher]
        topic = watcher.topic
        del topic.watchers[watcher]
        topic.prev_wanted -= bool(watcher.flags & WATCH_PREV_KV)
        if watcher not in self._lagging:
            topic.live -= 1
        self._lagging.pop(watcher, None)
        if not topic.watchers:
            topic.clear()
            self._topics.drop(topic)

    def cancel_all(self, error: RaftKVError) -> None:
        """Everybody has to go elsewhere."""
        for watcher in list(self._watchers):
            self._end(watcher, error)

    def request_progress(self, sink: WatchSink, done: Callable[[Revision], None]) -> None:
        """Call `done` with the revision once all watches of the sink have had everything up to it."""
        self._questions.append((sink, done))

    def forget(self, sink: WatchSink) -> None:
        """Its questions need no answers."""
        self._questions = [question for question in self._questions if question[0] is not sink]

    @property
    def count(self) -> int:
        return len(self._watchers)

    @property
    def lagging_count(self) -> int:
        """Watches that read history."""
        return len(self._lagging)

    # Events go out.

    @property
    def has_backlog(self) -> bool:
        """`step` has something to do now."""
        if not self._watchers or self._mvcc is None:
            return False
        if self._ready or self._dirty:
            return True
        # A look at some is enough: a tick steps too, and what stands still is moved to the back then.
        return any(watcher.sink.takes_events for watcher in islice(self._lagging, LAGGING_PER_STEP))

    def step(self) -> None:
        """Hand out what there is, a few milliseconds' worth."""
        if not (self._watchers or self._questions) or self._mvcc is None:
            return  # the usual case by far, once per turn of the loop
        if self._dirty:
            self._queue_ready()
        ready = self._ready
        self._handed_bytes = 0
        for _ in range(min(DELIVERIES_PER_STEP, len(ready))):
            if self._handed_bytes >= BYTES_PER_STEP:
                break
            watcher = ready.popleft()
            watcher.queued = False
            if watcher in self._watchers and watcher not in self._lagging:
                self._deliver_live(watcher)
        if self._touched and not ready and not self._dirty:
            for topic in self._touched:
                topic.clear()
            self._touched.clear()
        if self._lagging:
            self._catch_up(self._mvcc)
        if self._questions:
            self._answer_questions()

    def tick(self, now_ms: Milliseconds) -> None:
        """Tell those that want to know, and have long heard nothing, that there was nothing."""
        self._now_ms = now_ms
        if self._lagging:
            self.step()
        notified, every_ms = self._notified, self._limits.watch_progress_interval_ms
        for _ in range(min(PROGRESS_PER_TICK, len(notified))):
            watcher = notified.popleft()
            if watcher not in self._watchers:
                continue
            notified.append(watcher)
            if self._mvcc is not None and now_ms - watcher.quiet_since_ms >= every_ms and self._has_all(watcher):
                watcher.quiet_since_ms = now_ms
                if watcher.sink.takes_events:
                    watcher.sink.on_progress(watcher.tag, self._mvcc.revision)

    def _queue_ready(self) -> None:
        for topic in self._dirty:
            topic.dirty = False
            topic.batches.clear()
            for watcher in topic.watchers:
                if not watcher.queued and watcher.position is None:
                    watcher.queued = True
                    self._ready.append(watcher)
        self._dirty.clear()

    def _deliver_live(self, watcher: Watcher) -> None:
        topic = watcher.topic
        if watcher.cursor == topic.next_cursor:
            return
        if not watcher.sink.takes_events:
            self._lag(watcher)
            return
        shared = (watcher.cursor, watcher.flags & (NO_PUT | NO_DELETE | WATCH_PREV_KV))
        batches = None if watcher.first_revision else topic.batches.get(shared)
        if batches is None:
            events, size_bytes = topic.events[watcher.cursor - topic.base :], self._limits.watch_fragment_bytes
            batches = cut(watcher, events, size_bytes, more=False, live=True)
            if not watcher.first_revision:
                topic.batches[shared] = batches
        watcher.cursor = topic.next_cursor
        self._hand_over(watcher, batches)

    def _hand_over(self, watcher: Watcher, batches: Sequence[Batch]) -> None:
        if batches and watcher.judged_at != self._access.generation:
            refusal = watcher.judge(self._access)
            if refusal is not None:
                self._end(watcher, refusal)
                return
        if batches:
            watcher.quiet_since_ms = self._now_ms
        for batch in batches:
            self.events_delivered += len(batch.events)
            self._handed_bytes += batch.size_bytes
            watcher.sink.on_events(watcher.tag, batch)

    # Those that lag.

    def _lag(self, watcher: Watcher) -> None:
        """From here on it reads history, from the first event that it has not had."""
        if watcher in self._lagging:
            return
        topic = watcher.topic
        if watcher.position is None:
            if watcher.cursor < topic.next_cursor:
                watcher.position = topic.events[watcher.cursor - topic.base].position
            else:
                watcher.position = position_of(self._fed_revision + 1)
        watcher.position = max(watcher.position, position_of(watcher.first_revision))  # what is before may be compacted
        topic.live -= 1
        self._lagging[watcher] = None

    def _catch_up(self, mvcc: Mvcc) -> None:
        """One slice of history for the one that is furthest behind, and for all others whose place is in it."""
        examined = list(islice(self._lagging, LAGGING_EXAMINED_PER_STEP))
        for watcher in examined:  # those behind them have their turn next
            del self._lagging[watcher]
            self._lagging[watcher] = None
        self._cancel_compacted(mvcc, examined)
        takers = [watcher for watcher in examined if watcher in self._lagging and watcher.sink.takes_events]
        if not takers:
            return
        start = min(watcher.place for watcher in takers)
        records, following = read_events(mvcc, start, self._history_events_per_step, HISTORY_BYTES_PER_STEP)
        chosen = [watcher for watcher in takers if following is None or watcher.place < following]
        del chosen[LAGGING_PER_STEP:]
        by_topic: dict[Topic, list[Event]] = {watcher.topic: [] for watcher in chosen}
        for record in records:
            event: Event | None = None
            for topic in self._topics.match(key_of(record)):
                events = by_topic.get(topic)
                if events is not None:
                    event = event or Event(record)
                    if topic.prev_wanted and event.prev is None:
                        before = revision_of(record) - 1
                        event.prev = mvcc.get_at(key_of(record), before) if before >= mvcc.compact_revision else None
                    events.append(event)
        within = 0  # the revision in whose middle the slice ends
        if following is not None and records and revision_of(records[-1]) == revision_of(following):
            within = revision_of(following)
        shared: dict[tuple[Topic, int, Revision, bytes], list[Batch]] = {}
        for watcher in chosen:
            if self._handed_bytes >= BYTES_PER_STEP:
                break
            if watcher in self._watchers:
                self._deliver_history(watcher, by_topic[watcher.topic], following, within, shared)

    def _deliver_history(
        self,
        watcher: Watcher,
        events: Sequence[Event],
        following: bytes | None,
        within: Revision,
        shared: dict[tuple[Topic, int, Revision, bytes], list[Batch]],
    ) -> None:
        """What is its own of a slice; those of one range at one place are handed the same."""
        position = watcher.place
        name = (watcher.topic, watcher.flags & (NO_PUT | NO_DELETE | WATCH_PREV_KV), watcher.first_revision, position)
        own = shared.get(name)
        if own is None:
            wanted = watcher.wanted([event for event in events if event.position >= position])
            more = bool(wanted) and revision_of(wanted[-1].record) == within
            own = shared[name] = cut(watcher, wanted, self._limits.watch_fragment_bytes, more=more)
        continued = bool(own) and revision_of(own[0].events[0].record) == watcher.open_revision
        batches = own
        if watcher.open_revision and not continued and within != watcher.open_revision:
            # More was promised, and none of it was for this one after all.
            batches = [Batch((), more=False, with_prev=False, revision=watcher.open_revision), *own]
            watcher.open_revision = 0
        if own:
            watcher.open_revision = within if own[-1].more else 0
        watcher.position = following
        if following is None:
            watcher.cursor = watcher.topic.next_cursor
            watcher.topic.live += 1
            del self._lagging[watcher]
        self._hand_over(watcher, batches)

    def _cancel_compacted(self, mvcc: Mvcc, examined: Sequence[Watcher]) -> None:
        oldest = position_of(max(mvcc.compact_revision, 0))
        for watcher in [watcher for watcher in examined if watcher.place < oldest]:
            self._end(watcher, compacted(revision_of(watcher.place), mvcc.compact_revision))

    def _end(self, watcher: Watcher, error: RaftKVError) -> None:
        self.cancel(watcher)
        watcher.sink.on_canceled(watcher.tag, error)

    # What was asked.

    def _has_all(self, watcher: Watcher) -> bool:
        return watcher not in self._lagging and watcher.cursor == watcher.topic.next_cursor

    def _answer_questions(self) -> None:
        assert self._mvcc is not None, "asked while there is a store"
        questions, self._questions = self._questions, []
        behind = {watcher.sink for watcher in self._lagging}
        behind.update(watcher.sink for watcher in self._ready)
        for sink, done in questions:
            if sink in behind:
                self._questions.append((sink, done))
            else:
                done(self._mvcc.revision)
