"""One watch, and what it is handed: events in batches, to the sink of a front door.

A batch may be shared by many watchers, so it never changes once it was made. When the watcher gets which events is the hub's business
(watches.py).
"""

from typing import Any, Protocol, Sequence

from raftkv.errors import RaftKVError
from raftkv.store.access import Access
from raftkv.store.records import DELETE_EVENT, POSITION_BYTES, PUT_EVENT, key_of, key_value, revision_of
from raftkv.store.topics import Topic
from raftkv.units import Milliseconds, Revision
from raftkv.wire.protocol import WATCH_CREATE
from raftkv.wire.watching import NO_DELETE, NO_PUT, WATCH_PREV_KV


class Event:
    """One change. `prev` is the record before it, filled in when somebody wants it."""

    __slots__ = ("position", "prev", "record")

    def __init__(self, record: bytes) -> None:
        self.record = record
        self.position = record[:POSITION_BYTES]
        self.prev: bytes | None = None

    def items(self, with_prev: bool) -> list[Any]:
        """As in wire/protocol.py: a delete has only key and mod_revision.

        A put that creates its key has nothing before it, also when its own transaction has just deleted the key.
        """
        record = self.record
        prev = key_value(self.prev) if with_prev and self.prev is not None else None
        if record[POSITION_BYTES] == DELETE_EVENT:
            return [DELETE_EVENT, [key_of(record), 0, revision_of(record), 0, 0, b""], prev]
        items = key_value(record)
        return [PUT_EVENT, items, None if items[1] == items[2] else prev]


class Batch:
    """Events to be handed over together, shared by watchers: a door may keep what it makes of them in `encoded`, by its name.

    `more`: further events of the last revision follow. `live`: they are no history. `revision` is that of the last event, or of the store.
    """

    __slots__ = ("encoded", "events", "live", "more", "revision", "size_bytes", "with_prev")

    def __init__(
        self,
        events: Sequence[Event],
        *,
        more: bool,
        with_prev: bool,
        revision: Revision,
        size_bytes: int = 0,
        live: bool = False,
    ) -> None:
        self.events = events
        self.more = more
        self.live = live
        self.with_prev = with_prev
        self.revision = revision
        self.size_bytes = size_bytes
        self.encoded: dict[str, Any] = {}

    def items(self) -> list[list[Any]]:
        """[kind, key-value, previous key-value or None] per event, as in wire/protocol.py."""
        return [event.items(self.with_prev) for event in self.events]


class WatchSink(Protocol):
    """Where a watcher's events go: a connection of a front door."""

    @property
    def takes_events(self) -> bool:
        """False while they would only pile up."""
        ...

    def on_events(self, tag: int, batch: Batch) -> None: ...

    def on_progress(self, tag: int, revision: Revision) -> None:
        """All events up to this revision were handed over."""
        ...

    def on_canceled(self, tag: int, error: RaftKVError) -> None:
        """The end: nothing follows."""
        ...


class Watcher:
    """One watch. `position`: where it reads history; None while it is live, and `cursor` counts what it had of its topic."""

    __slots__ = (
        "auth_revision",
        "cursor",
        "first_revision",
        "flags",
        "judged_at",
        "open_revision",
        "position",
        "queued",
        "quiet_since_ms",
        "sink",
        "tag",
        "topic",
        "user",
    )

    def __init__(
        self,
        topic: Topic,
        sink: WatchSink,
        tag: int,
        flags: int,
        user: str | None = None,
        auth_revision: int = 0,
        judged_at: int = 0,
    ) -> None:
        self.user = user
        self.auth_revision = auth_revision
        self.judged_at = judged_at  # the state of users and roles by which it may read its range
        self.topic = topic
        self.sink = sink
        self.tag = tag
        self.flags = flags
        self.position: bytes | None = None
        self.cursor = 0
        self.first_revision: Revision = 0  # nothing before it is wanted
        self.open_revision: Revision = 0  # of which more was promised
        self.queued = False
        self.quiet_since_ms: Milliseconds = 0

    def judge(self, access: Access) -> RaftKVError | None:
        """Look again whether its user may read its range, by users and roles as they are now; why not, if not."""
        start, end = self.topic.start, self.topic.end
        try:
            access.check([WATCH_CREATE, start, b"\0" if end is None else end, 0, 0], self.user, self.auth_revision)
        except RaftKVError as error:
            return error
        self.judged_at = access.generation
        return None

    @property
    def place(self) -> bytes:
        """Where a lagging one is in history."""
        assert self.position is not None, "who lags has a place in history"
        return self.position

    def wanted(self, events: Sequence[Event]) -> Sequence[Event]:
        """Those that pass its filters."""
        flags = self.flags
        if self.first_revision:
            events = [event for event in events if revision_of(event.record) >= self.first_revision]
        if flags & (NO_PUT | NO_DELETE):
            events = [
                event
                for event in events
                if not flags & (NO_DELETE if event.record[POSITION_BYTES] == DELETE_EVENT else NO_PUT)
            ]
        return events


def cut(
    watcher: Watcher, events: Sequence[Event], fragment_bytes: int, *, more: bool, live: bool = False
) -> list[Batch]:
    """Batches of a bounded size, of what the watcher wants. `more`: the last revision goes on behind the last event."""
    events = watcher.wanted(events)
    with_prev = bool(watcher.flags & WATCH_PREV_KV)
    batches: list[Batch] = []
    start = size = 0
    for number, event in enumerate(events):
        size += len(event.record) + (len(event.prev) if with_prev and event.prev is not None else 0)
        last = number + 1 == len(events)
        if not last and size < fragment_bytes:
            continue
        revision = revision_of(event.record)
        goes_on = more if last else revision_of(events[number + 1].record) == revision
        batches.append(
            Batch(
                events[start : number + 1],
                more=goes_on,
                with_prev=with_prev,
                revision=revision,
                size_bytes=size,
                live=live,
            )
        )
        start, size = number + 1, 0
    return batches
