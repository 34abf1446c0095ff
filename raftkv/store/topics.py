"""Which watchers an event concerns: found by dictionaries and a search tree, not by asking every watcher.

Watchers of one range share a Topic. A single key is one look-up, prefixes are one look-up per length in use, and whatever else
there is, an interval tree in an array, built anew when it was changed. Ten thousand watchers cost an event a few microseconds.
"""

from typing import TYPE_CHECKING, Final

from raftkv.wire.commands import prefix_range_end

if TYPE_CHECKING:
    from raftkv.store.watcher import Batch, Event, Watcher

PREFIX_LENGTHS_MAX: Final = 64

_Range = tuple[bytes, bytes | None]


class Topic:
    """One range and its watchers. `events` wait to be handed to the live ones; `base` counts those that came before them."""

    __slots__ = ("base", "batches", "dirty", "end", "events", "live", "prev_wanted", "size_bytes", "start", "watchers")

    def __init__(self, start: bytes, end: bytes | None) -> None:
        self.start = start
        self.end = end
        self.watchers: dict[Watcher, None] = {}
        self.live = 0
        self.prev_wanted = 0
        self.events: list[Event] = []
        self.base = 0
        self.size_bytes = 0
        self.dirty = False
        self.batches: dict[tuple[int, int], list[Batch]] = {}  # what several watchers are handed alike

    @property
    def next_cursor(self) -> int:
        return self.base + len(self.events)

    def clear(self) -> None:
        """Everybody has what there was."""
        self.base += len(self.events)
        self.events = []
        self.size_bytes = 0
        self.batches.clear()


class Topics:
    """All topics, to be found by an event's key."""

    __slots__ = ("_ends_max", "_exact", "_prefixes", "_ranges", "_sorted", "_stale")

    def __init__(self) -> None:
        self._exact: dict[bytes, Topic] = {}
        self._prefixes: dict[int, dict[bytes, Topic]] = {}
        self._ranges: dict[_Range, Topic] = {}
        self._sorted: list[Topic] = []  # the tree: a node is the middle of its slice
        self._ends_max: list[bytes | None] = []
        self._stale = False

    def obtain(self, start: bytes, end: bytes | None) -> Topic:
        """The topic of a range; None as `end` means to the end of all keys."""
        kind, name = _kind_of(start, end)
        if kind == _EXACT:
            return self._exact.setdefault(name, Topic(start, end))
        length = len(name)
        if kind == _PREFIX and (length in self._prefixes or len(self._prefixes) < PREFIX_LENGTHS_MAX):
            return self._prefixes.setdefault(length, {}).setdefault(name, Topic(start, end))
        topic = self._ranges.get((start, end))
        if topic is None:
            topic = self._ranges[start, end] = Topic(start, end)
            self._stale = True
        return topic

    def drop(self, topic: Topic) -> None:
        """It has no watchers any more."""
        assert not topic.watchers, "nobody watches it"
        kind, name = _kind_of(topic.start, topic.end)
        if self._ranges.get((topic.start, topic.end)) is topic:
            del self._ranges[topic.start, topic.end]
            self._stale = True
        elif kind == _EXACT:
            del self._exact[name]
        else:
            table = self._prefixes[len(name)]
            del table[name]
            if not table:
                del self._prefixes[len(name)]

    def match(self, key: bytes) -> list[Topic]:
        """The topics that the key is in."""
        found: list[Topic] = []
        topic = self._exact.get(key)
        if topic is not None:
            found.append(topic)
        for length, table in self._prefixes.items():
            topic = table.get(key[:length])
            if topic is not None and length <= len(key):
                found.append(topic)
        if self._ranges:
            self._stab(key, found)
        return found

    def _stab(self, key: bytes, found: list[Topic]) -> None:
        if self._stale:
            self._build()
        tree, ends_max = self._sorted, self._ends_max
        slices = [(0, len(tree))]
        while slices:
            low, high = slices.pop()
            if low >= high:
                continue
            middle = (low + high) // 2
            latest = ends_max[middle]
            if latest is not None and latest <= key:
                continue  # everything here ends before the key
            slices.append((low, middle))
            topic = tree[middle]
            if topic.start <= key:
                if topic.end is None or key < topic.end:
                    found.append(topic)
                slices.append((middle + 1, high))

    def _build(self) -> None:
        self._stale = False
        self._sorted = [self._ranges[name] for name in sorted(self._ranges, key=_sort_key)]
        self._ends_max = [None] * len(self._sorted)
        self._fill(0, len(self._sorted))

    def _fill(self, low: int, high: int) -> bytes | None:
        """The latest end within a slice; as deep as the logarithm of all."""
        middle = (low + high) // 2
        latest = self._sorted[middle].end
        for part in ((low, middle), (middle + 1, high)):
            if part[0] < part[1]:
                end = self._fill(*part)
                latest = None if latest is None or end is None else max(latest, end)
        self._ends_max[middle] = latest
        return latest


_EXACT, _PREFIX, _OTHER = 0, 1, 2


def _kind_of(start: bytes, end: bytes | None) -> tuple[int, bytes]:
    if end == start + b"\0":
        return _EXACT, start
    if end is None and start == b"\0":
        return _PREFIX, b""  # every key
    prefix_end = prefix_range_end(start)
    if end == (None if prefix_end == b"\0" else prefix_end):
        return _PREFIX, start
    return _OTHER, b""


def _sort_key(name: _Range) -> tuple[bytes, bool, bytes]:
    return name[0], name[1] is None, name[1] or b""
