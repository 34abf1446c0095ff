"""Physical removal of what a compaction has hidden, in rounds of bounded steps beside everything else.

That history below the compacted revision is refused is decided by apply, at once and alike on every member. This here makes room later:
it walks PAST for versions that were superseded at or before that revision, thins the pages of LOG that hold them, and then
drops their pointers. It only plans: the changes travel with the next commits, so what a crash undoes is planned again.
LOG goes first: a pointer to an event that is gone is never followed below the compacted revision, and the next walk drops it.

A plan may be a commit behind: commits only add behind what was planned. But a round begins only after the last one is durable.
Kept besides what is visible: all events of the compacted revision itself, for the watch that starts there.
"""

from bisect import bisect_left
from heapq import merge
from typing import Final, Iterator

import msgpack

from raftkv.store import past
from raftkv.store.keyspace import HEAD, LOG, META, PAST, Item, Keyspace, TableChange
from raftkv.store.pages import repack_page, unpack_page
from raftkv.store.records import DELETE_EVENT, POINTER_BYTES, POSITION, POSITION_BYTES
from raftkv.units import Revision

COMPACTED_KEY: Final = b"compacted"

WALK_ITEMS = 128
WALK_BYTES = 128 * 1024
PAGES_PER_STEP = 16
PAGES_BYTES_PER_STEP = 512 * 1024
ROUND_EVENTS_MAX = 50_000
CHANGES_BYTES_MAX = 4 * 1024 * 1024
_PIECE_ITEMS: Final = 64

_IDLE, _WALKING, _THINNING, _ENDING = "idle", "walking", "thinning", "ending"


class Compaction:
    """What is to be removed from one keyspace. `done`: everything that could go at this revision is gone, durably."""

    __slots__ = (
        "_at_end",
        "_below",
        "_buffer",
        "_buffer_bytes",
        "_doomed",
        "_encoded",
        "_fresh",
        "_held",
        "_key",
        "_keyspace",
        "_order",
        "_past",
        "_phase",
        "_pieces",
        "_position",
        "_resume",
        "_target",
        "_through",
        "_wanted",
        "done",
    )

    def __init__(self, keyspace: Keyspace, wanted: Revision) -> None:
        self.done = load_compacted(keyspace)
        self._keyspace = keyspace
        self._wanted = wanted
        self._phase = _IDLE
        self._past = TableChange(PAST, [], [])
        self._buffer = TableChange(LOG, [], [])
        self._buffer_bytes = 0
        self._doomed: set[bytes] = set()  # positions in LOG
        # The same in order, a piece per step of the walk, merged while they are thinned: sorting 50,000 held the loop for 25 ms.
        self._fresh: list[bytes] = []
        self._pieces: list[list[bytes]] = []
        self._order: Iterator[bytes] = iter(())
        self._position: bytes | None = None  # the next one to be thinned
        self._start_when_wanted()

    def on_durable(self, compact_revision: Revision) -> None:
        """A commit is durable, with everything that was taken: the store was compacted at this revision by then."""
        self._wanted = max(self._wanted, compact_revision)
        if self._phase == _ENDING and not self._buffer_bytes:
            self._phase = _WALKING
            if self._at_end:
                self.done, self._phase = self._target, _IDLE
        if self._phase == _IDLE:
            self._start_when_wanted()

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something."""
        return self._phase in (_WALKING, _THINNING) and self._buffer_bytes < CHANGES_BYTES_MAX

    @property
    def has_changes(self) -> bool:
        """Whether a commit has something to take."""
        return self._buffer_bytes > 0

    @property
    def wants_commit(self) -> bool:
        """Nothing goes on before a commit has taken the changes."""
        return self._buffer_bytes >= CHANGES_BYTES_MAX or (self._phase == _ENDING and self._buffer_bytes > 0)

    def step(self) -> None:
        """Plan some more: a millisecond or two."""
        if not self.has_work:
            return
        if self._phase == _WALKING:
            self._walk()
        else:
            self._thin()

    def take_changes(self) -> list[TableChange]:
        """What the next commit has to do; it must be committed, however often that is tried."""
        buffer, self._buffer, self._buffer_bytes = self._buffer, TableChange(LOG, [], []), 0
        changes = _in_pieces(buffer)
        if self._phase == _ENDING:
            gone, self._past = self._past, TableChange(PAST, [], [])
            changes += _in_pieces(gone)
            if self._at_end:
                changes.append(TableChange(META, [(COMPACTED_KEY, msgpack.packb(self._target))]))
        return changes

    def _start_when_wanted(self) -> None:
        if self._wanted <= max(self.done, 1):  # revision 1 is the empty store: nothing was superseded before it
            return
        self._target = self._wanted
        self._below = POSITION.pack(self._target, 0)
        self._through = POSITION.pack(self._target + 1, 0)
        self._phase, self._at_end = _WALKING, False
        self._resume: bytes | None = b"\0"
        self._encoded = self._key = b""
        # The last record met, not decided yet: its name, the head of its value, its pointers up to the last, and that.
        self._held: tuple[Item, bytes, list[bytes], bytes] | None = None

    # PAST: what was superseded in time.

    def _walk(self) -> None:
        assert self._resume is not None, "the walk is not over"
        window = self._keyspace.window(PAST, self._resume, None, WALK_ITEMS, WALK_BYTES)
        for item in window.items:
            key, encoded = past.decode_item(item)
            if encoded != self._encoded:
                self._end_key()
                self._encoded, self._key = encoded, key
            self._visit(item)
        self._resume = window.resume
        self._at_end = self._resume is None
        if self._resume is None or self._resume[:-POSITION_BYTES] != self._encoded:
            self._end_key()  # now: a commit before the next step may put a newer version into HEAD, and one that it superseded behind us
        if self._fresh:
            self._pieces.append(sorted(self._fresh))
            self._fresh = []
        if self._at_end or len(self._doomed) >= ROUND_EVENTS_MAX:
            self._order, self._pieces = merge(*self._pieces), []
            self._position = next(self._order, None)
            self._phase = _THINNING

    def _visit(self, item: Item) -> None:
        """One record of the current key; records and the pointers in them come oldest first."""
        head, pointers = past.unpack_pointers(item)
        in_time = bisect_left(pointers, self._through)
        if not in_time:
            self._release_held(superseded=False)
            return
        self._release_held(superseded=True)
        kept = [pointer for pointer in pointers[: in_time - 1] if not self._doom(pointer)]
        if in_time == len(pointers):
            self._held = (item, head, kept, pointers[-1])
            return
        visible = pointers[in_time - 1]
        if visible[POSITION_BYTES] != DELETE_EVENT or not self._doom(visible):
            kept.append(visible)
        self._keep(item, head, kept + pointers[in_time:], len(pointers))

    def _end_key(self) -> None:
        """The current key has no further record: what is newest, is in HEAD or a tombstone."""
        if self._held is not None:
            record = self._keyspace.get(HEAD, self._key)
            self._release_held(superseded=record is not None and record[:POSITION_BYTES] < self._through)

    def _release_held(self, *, superseded: bool) -> None:
        """Decide about the last pointer of the record before. A tombstone says nothing once nothing is behind it."""
        if self._held is None:
            return
        (item, head, kept, last), self._held = self._held, None
        count = (len(item[1]) - len(head)) // POINTER_BYTES
        if not ((superseded or last[POSITION_BYTES] == DELETE_EVENT) and self._doom(last)):
            kept = [*kept, last]
        self._keep(item, head, kept, count)

    def _doom(self, pointer: bytes) -> bool:
        """Whether what it leads to goes; events of the compacted revision itself stay."""
        if pointer >= self._below:
            return False
        position = pointer[:POSITION_BYTES]
        if position not in self._doomed:
            self._doomed.add(position)
            self._fresh.append(position)
        return True

    def _keep(self, item: Item, head: bytes, kept: list[bytes], count: int) -> None:
        if len(kept) == count:
            return
        name = item[0]
        puts, deletes = self._past.puts, self._past.deletes
        assert isinstance(puts, list) and isinstance(deletes, list), "they are gathered here"
        if not kept:
            deletes.append(name)
            return
        # A record is found by its oldest pointer.
        new_name = name[:-POSITION_BYTES] + kept[0][:POSITION_BYTES]
        if new_name != name:
            deletes.append(name)
        puts.append((new_name, head + b"".join(kept)))

    # LOG: pages without what is doomed.

    def _thin(self) -> None:
        pages_bytes = 0
        for _ in range(PAGES_PER_STEP):
            if self._position is None:
                self._phase = _ENDING
                self._doomed.clear()
                self._buffer_bytes += 1  # the pointers, and that it is done, are a change too
                return
            pages_bytes += self._thin_page(self._position)
            if pages_bytes >= PAGES_BYTES_PER_STEP or self._buffer_bytes >= CHANGES_BYTES_MAX:
                return

    def _thin_page(self, position: bytes) -> int:
        """The bytes looked at. The page keeps its name, also when its first event goes: it still is the one before its events."""
        order, doomed = self._order, self._doomed
        next_position: bytes | None = position
        page = self._keyspace.floor(LOG, position)
        if page is None:
            self._position = next(order, None)  # a page thinned before a crash that kept the pointers
            return 0
        name, data = page
        events = unpack_page(data)
        last = max(events[-1][:POSITION_BYTES], position)
        while next_position is not None and next_position <= last:
            next_position = next(order, None)
        self._position = next_position
        kept = [event for event in events if event[:POSITION_BYTES] not in doomed]
        if len(kept) < len(events):
            puts, deletes = self._buffer.puts, self._buffer.deletes
            assert isinstance(puts, list) and isinstance(deletes, list), "they are gathered here"
            if kept:
                puts.append((name, repack_page(kept)))
                self._buffer_bytes += len(puts[-1][1])
            else:
                deletes.append(name)
                self._buffer_bytes += len(name)
        return len(data)


def load_compacted(keyspace: Keyspace) -> Revision:
    """Up to where everything has been removed, durably; -1 when nothing ever was."""
    data = keyspace.get(META, COMPACTED_KEY)
    if data is None:
        return -1
    revision: Revision = msgpack.unpackb(data)
    return revision


def _in_pieces(change: TableChange) -> list[TableChange]:
    """Small enough that none of them keeps the interpreter from the loop for long. Of one name, the deletion comes first."""
    puts, deletes = change.puts, change.deletes
    pieces = [
        TableChange(change.table, deletes=deletes[start : start + _PIECE_ITEMS])
        for start in range(0, len(deletes), _PIECE_ITEMS)
    ]
    pieces += [
        TableChange(change.table, puts[start : start + _PIECE_ITEMS]) for start in range(0, len(puts), _PIECE_ITEMS)
    ]
    return pieces
