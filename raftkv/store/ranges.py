"""RANGE: filters, sorting, limit and count as etcd's, in steps that never hold the loop for long.

A range is answered at the revision at which it began, however many steps it takes and whatever is written in between. Memory
stays bounded too: when candidates exceed what one answer may carry, they are sorted and cut on the way. `count` is etcd's:
all keys of the range, before limit and filters, so the walk goes on to the end of the range even behind the limit.
"""

from bisect import bisect_right
from itertools import accumulate
from typing import Any, Callable, Final, Sequence

from raftkv.errors import Compacted, FutureRevision
from raftkv.store.mvcc import Mvcc
from raftkv.store.records import HEADER_BYTES, key_of, key_value, unpack_header, value_of
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
    Answer,
)

HEAD_ITEMS_PER_STEP: Final = 2048
PAST_ITEMS_PER_STEP: Final = 256
KEYS_PER_STEP: Final = 4096

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

    A step takes some milliseconds at most. Raises FutureRevision or Compacted, the latter also in the middle when the
    revision is compacted between two steps. `live`: inside a transaction, whose own changes are seen.
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
        self._limit = max(limit, 0)
        self._bounds = bounds if any(bounds) else None
        self._order, self._target = order, target
        self._key_order: bool = target == SORT_KEY and order != SORT_DESCEND
        self._reply_bytes_max = reply_bytes_max
        self._kept: list[bytes] = []
        self._kept_bytes = 0
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
        if self._next is None:
            return True
        mvcc = self._mvcc
        at_head = self._live or (self._revision == mvcc.revision and not mvcc.sub)
        if at_head and self._full:
            counted, self._next = mvcc.scan_keys(self._next, self._end, KEYS_PER_STEP)
            self._count += counted
            return self._next is None
        if not self._live:
            check_revision(mvcc, self._revision)
        items_max = HEAD_ITEMS_PER_STEP if at_head else PAST_ITEMS_PER_STEP
        revision = None if self._live else self._revision
        records, self._next = mvcc.scan(self._next, self._end, revision, items_max)
        self._count += len(records)
        if not self._full:
            self._take(records if self._bounds is None else list(filter(self._within_bounds, records)))
        return self._next is None

    def answer(self) -> Answer:
        """The answer, once `step` has returned True."""
        assert self._next is None, "the range is not done"
        if not self._count_only:
            self._prune()
        key_values = [key_value(record) for record in self._kept]
        if self._keys_only:
            for items in key_values:
                items[5] = b""
        return [OK, self._header, key_values, self._more, self._count]

    def _take(self, records: list[bytes]) -> None:
        if self._fetch_max:
            records = records[: self._fetch_max - self._fetched]
        self._kept += records
        self._kept_bytes += sum(map(self._size, records))
        self._fetched += len(records)
        if self._key_order:
            self._prune()
            self._full = self._more
        else:
            self._full = 0 < self._fetch_max == self._fetched
            if self._kept_bytes > 2 * self._reply_bytes_max:
                self._prune()

    def _prune(self) -> None:
        """Sort and cut to what the answer may carry; what is cut can never come back into it."""
        kept = self._kept
        if not self._key_order:
            # A stable sort also when descending: equal targets stay in key order, as etcd's do.
            kept.sort(key=_SORT_KEYS[self._target], reverse=self._order == SORT_DESCEND)
        cut = min(self._limit, len(kept)) if self._limit else len(kept)
        if self._kept_bytes > self._reply_bytes_max:
            sizes = list(accumulate(map(self._size, kept[:cut])))
            cut = max(1, bisect_right(sizes, self._reply_bytes_max))
        if cut < len(kept):
            self._more = True
            del kept[cut:]
            self._kept_bytes = sum(map(self._size, kept))

    def _size(self, record: bytes) -> int:
        return HEADER_BYTES + unpack_header(record)[6] if self._keys_only else len(record)

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
