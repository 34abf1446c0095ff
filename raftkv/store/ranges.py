"""RANGE: filters, sorting, limit and count as etcd's, in steps that never hold the loop for long.

A range is answered at the revision at which it began, however many steps it takes and whatever is written in between. Memory
stays bounded too: when candidates exceed what one answer may carry, they are sorted and cut on the way (store/sorting.py). `count`
is etcd's: all keys of the range, before limit and filters, so the walk goes on to the end of the range even behind the limit,
unless the reader says that it wants no count (UNCOUNTED: one that pages through a range would pay for its rest at every page).
"""

from typing import Any, Callable, Final, Sequence

from raftkv.errors import Compacted, FutureRevision
from raftkv.store.mvcc import Mvcc
from raftkv.store.records import key_of, key_value, unpack_header, value_of, without_value
from raftkv.store.sorting import Cut, Sorter
from raftkv.units import Revision
from raftkv.wire.commands import (
    COUNT_ONLY,
    KEYS_ONLY,
    OK,
    SORT_CREATE,
    SORT_DESCEND,
    SORT_KEY,
    SORT_MOD,
    SORT_NONE,
    SORT_VALUE,
    SORT_VERSION,
    UNCOUNTED,
    Answer,
    KeyValueItems,
)

HEAD_ITEMS_PER_STEP: Final = 2048
RECENT_ITEMS_PER_STEP: Final = 512
PAST_ITEMS_PER_STEP: Final = 256
KEYS_PER_STEP: Final = 2048

_SORT_KEYS: Final[dict[int, Callable[[bytes], Any]]] = {
    SORT_KEY: key_of,
    SORT_VERSION: lambda record: unpack_header(record)[4],
    SORT_CREATE: lambda record: unpack_header(record)[3],
    SORT_MOD: lambda record: unpack_header(record)[0],
    SORT_VALUE: value_of,
}


def check_revision(mvcc: Mvcc, revision: Revision) -> None:
    """Whether a revision above 0 can be read. Raises FutureRevision or Compacted."""
    if revision > mvcc.revision:
        raise FutureRevision(f"revision {revision} has not been reached, the store is at {mvcc.revision}")
    if revision < mvcc.compact_revision:
        raise compacted(revision, mvcc.compact_revision)


def compacted(revision: Revision, compact_revision: Revision) -> Compacted:
    """The refusal of history that is gone; it says where history begins."""
    return Compacted(
        f"revision {revision} has been compacted, up to {compact_revision}",
        details={"compact_revision": compact_revision},
    )


def range_bound(key: bytes, range_end: bytes) -> bytes | None:
    """The exclusive end of a range of the protocol; None to the end of all keys."""
    if not range_end:
        return key + b"\0"
    return None if range_end == b"\0" else range_end


class RangeCursor:
    """One range on its way. Call `step` until it returns True, then take `answer()`.

    A step takes some milliseconds at most, and `answer` takes none: it was built on the way. Raises FutureRevision or
    Compacted, the latter also in the middle when the revision is compacted between two steps. `live`: inside a transaction,
    whose own changes are seen.
    """

    def __init__(self, mvcc: Mvcc, command: Sequence[Any], reply_bytes_max: int, *, live: bool = False) -> None:
        _, flags, key, range_end, limit, revision, order, target, *bounds = command
        if revision > 0:
            check_revision(mvcc, revision)
        self._mvcc = mvcc
        self._live = live and revision <= 0
        self._revision: Revision = revision if revision > 0 else mvcc.revision
        self._header: Revision = mvcc.revision_in_progress()
        self._next: bytes | None = key
        self._end = range_bound(key, range_end)
        self._keys_only, self._count_only = bool(flags & KEYS_ONLY), bool(flags & COUNT_ONLY)
        self._counted = self._count_only or not flags & UNCOUNTED
        self._limit, self._reply_bytes_max = max(limit, 0), reply_bytes_max
        self._bounds = bounds if any(bounds) else None
        self._sorter: Sorter | None = None
        if not self._count_only and (target != SORT_KEY or order == SORT_DESCEND):
            self._sorter = Sorter(_SORT_KEYS[target], order == SORT_DESCEND)
        # A value that is sorted by has to be kept until then, and counts; others are let go of at once where only keys are wanted.
        self._trimmed = self._keys_only and (self._sorter is None or target != SORT_VALUE)
        self._cut = Cut(self._limit, reply_bytes_max)
        self._key_values: list[KeyValueItems] = []
        self._merging = False
        self._merged: list[bytes] = []
        self._full = self._count_only  # nothing that comes later can be in the answer
        self._more = False
        self._count = 0
        # etcd's quirk: an unsorted limit is applied before the sort by another target (its range.go fetches limit + 1).
        self._fetched = 0
        self._fetch_max = 0
        if order == SORT_NONE and target != SORT_KEY and self._limit and self._bounds is None:
            self._fetch_max = self._limit + 1

    def move(self, mvcc: Mvcc) -> None:
        """Go on in another store of the same state: what it holds is keys and records, and no places in the old one."""
        assert mvcc.revision == self._mvcc.revision, "not a revision between them"
        self._mvcc = mvcc

    def step(self) -> bool:
        """Do some more of it; True when it is done."""
        if self._merging:
            self._merge()
        elif self._next is not None:
            self._walk()
            sorter = self._sorter
            if sorter is not None and (self._next is None or sorter.held_bytes > 2 * self._reply_bytes_max):
                self._merging = True
                self._merged, self._cut = [], Cut(self._limit, self._reply_bytes_max)
                sorter.start()
                if sorter.count <= HEAD_ITEMS_PER_STEP:
                    self._merge()
        return self._next is None and not self._merging

    def answer(self) -> Answer:
        """The answer, once `step` has returned True."""
        assert self._next is None and not self._merging, "the range is not done"
        return [OK, self._header, self._key_values, self._more, self._count]

    def _walk(self) -> None:
        """Look at some more keys of the range."""
        assert self._next is not None, "asked only when there is more"
        mvcc = self._mvcc
        at_head = self._live or (self._revision == mvcc.revision and not mvcc.sub)
        if self._full and not self._counted:
            self._next = None
            return
        if at_head and self._full:
            counted, self._next = mvcc.scan_keys(self._next, self._end, KEYS_PER_STEP)
            self._count += counted
            return
        if not self._live:
            check_revision(mvcc, self._revision)
        if at_head:
            items_max = HEAD_ITEMS_PER_STEP
        else:
            items_max = RECENT_ITEMS_PER_STEP if mvcc.is_recent(self._revision) else PAST_ITEMS_PER_STEP
        if self._limit and self._sorter is None and self._bounds is None and not self._counted:
            items_max = min(items_max, self._limit + 1 - self._cut.count)
        revision = None if self._live else self._revision
        records, self._next = mvcc.scan(self._next, self._end, revision, items_max)
        self._count += len(records)
        if not self._full:
            self._take(records if self._bounds is None else list(filter(self._within_bounds, records)))

    def _take(self, records: list[bytes]) -> None:
        if self._fetch_max:
            records = records[: self._fetch_max - self._fetched]
        if self._trimmed:
            records = list(map(without_value, records))
        self._fetched += len(records)
        if self._sorter is None:
            self._key_values += map(key_value, self._cut.take(records))
            self._full = self._more = self._cut.more
        else:
            self._sorter.add(records)
            self._full = 0 < self._fetch_max == self._fetched

    def _merge(self) -> None:
        """Go on with putting in order: for the answer at the end, before it only to find what can never be in it."""
        assert self._sorter is not None, "only what is sorted is merged"
        records = self._sorter.take()
        fit = self._cut.take(records)
        self._merged += fit
        if self._next is None:
            self._key_values += map(key_value, map(without_value, fit) if self._keys_only else fit)
        if self._cut.more or self._sorter.exhausted:
            if self._cut.more and self._next is not None:
                self._merged.append(records[len(fit)])  # stays as a stop: what sorts behind it must not take its room
            self._merging = False
            self._more = self._more or self._cut.more
            if self._next is not None:
                self._sorter.restart(self._merged)

    def _within_bounds(self, record: bytes) -> bool:
        assert self._bounds is not None, "asked only when there are some"
        modified, _, _, created, _, _, _ = unpack_header(record)
        min_mod, max_mod, min_create, max_create = self._bounds
        modified_ok = (not min_mod or modified >= min_mod) and (not max_mod or modified <= max_mod)
        created_ok = (not min_create or created >= min_create) and (not max_create or created <= max_create)
        return bool(modified_ok and created_ok)


def read_range(mvcc: Mvcc, command: Sequence[Any], reply_bytes_max: int, *, live: bool = False) -> Answer:
    """A whole range in one go: for transactions, tests and ranges known to be small."""
    cursor = RangeCursor(mvcc, command, reply_bytes_max, live=live)
    while not cursor.step():
        pass
    return cursor.answer()
