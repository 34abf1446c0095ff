"""What has been applied but not committed yet: one layer of dicts in front of the keyspace.

Written by apply alone. Once frozen for a commit it never changes again, so the committing thread may read it beside the
loop. Sorted keys are kept as a few sorted runs of growing length: a put costs one list append, and a range pays for the
keys that came since the last one, never for sorting all of them.
"""

from bisect import bisect_left
from typing import Final

from raftkv.store.records import POSITION_BYTES, revision_of
from raftkv.units import Revision

_FRESH_MAX: Final = 4096  # sorting these takes about a millisecond
RECORD_OVERHEAD_BYTES: Final = 300  # dict slots and object headers of one event, measured

MISSING: Final = b"\0missing"
"""Says that a layer knows nothing about a key; shorter than any record and compared by identity. None says: deleted."""


class Overlay:
    """One layer. `head`: newest record per key, None when deleted. `log`: events by position. `past`: pointers per key."""

    __slots__ = ("deleted_revision", "fresh", "head", "log", "past", "runs", "size_bytes")

    def __init__(self) -> None:
        self.head: dict[bytes, bytes | None] = {}
        self.log: dict[bytes, bytes] = {}
        self.past: dict[bytes, bytes | list[bytes]] = {}  # a list only from the second pointer on: most have one
        self.fresh: list[bytes] = []  # keys of head that are in no run yet
        self.runs: list[list[bytes]] = []  # disjoint, each sorted, each more than twice as long as the next
        self.size_bytes = 0
        self.deleted_revision: Revision = 0  # of the last delete in it

    def add(self, key: bytes, record: bytes, newest: bytes | None) -> None:
        """Take in one event; `newest` is the record of the key from now on, None after a delete."""
        head = self.head
        if key not in head:
            self.fresh.append(key)
        head[key] = newest
        if newest is None:
            self.deleted_revision = revision_of(record)
        self.log[record[:POSITION_BYTES]] = record
        self.size_bytes += len(record) + RECORD_OVERHEAD_BYTES

    def supersede(self, key: bytes, pointer: bytes) -> None:
        """Remember where an older version, or a tombstone, of the key is. Pointers of a key come in ascending order."""
        held = self.past.get(key)
        if held is None:
            self.past[key] = pointer
        elif type(held) is list:
            held.append(pointer)
        else:
            self.past[key] = [held, pointer]  # type: ignore[list-item]

    def pointers(self, key: bytes) -> list[bytes]:
        """The pointers of a key, ascending."""
        held = self.past.get(key)
        if held is None:
            return []
        return held if isinstance(held, list) else [held]

    def release(self, events_max: int) -> bool:
        """Let go of some events of a layer that nobody reads any more; True when none are left.

        Freeing a whole layer at once would hold the loop for tens of milliseconds.
        """
        if self.runs:
            self.runs.pop()
        for table in (self.head, self.log, self.past):
            for _ in range(min(events_max, len(table))):
                table.popitem()
        return not (self.runs or self.log or self.head or self.past)

    def settle(self, keys_min: int = 1) -> None:
        """Sort the fresh keys into the runs, if there are that many."""
        if len(self.fresh) < keys_min:
            return
        merged, self.fresh = self.fresh, []
        length = len(merged)
        while self.runs and len(self.runs[-1]) <= 2 * length:
            length += len(self.runs[-1])
            merged += self.runs.pop()
        merged.sort()
        self.runs.append(merged)

    def settle_many(self) -> None:
        """Keep the unsorted part short, so that no later range has to sort much at once."""
        self.settle(_FRESH_MAX)

    def window(self, start: bytes, end: bytes | None, items_max: int) -> tuple[list[bytes], bytes | None]:
        """Keys, deleted ones included, with start <= key < end, in order, and the first one left out."""
        self.settle()
        found: list[bytes] = []
        for run in self.runs:
            low = bisect_left(run, start)
            high = len(run) if end is None else bisect_left(run, end, low)
            found += run[low : min(high, low + items_max + 1)]
        found.sort()
        if len(found) <= items_max:
            return found, None
        return found[:items_max], found[items_max]
