"""What of a range goes into its answer, and in which order: cut to a limit and a size, sorted piece by piece.

Sorting a hundred thousand records at once would hold the loop for a tenth of a second. So each step of a range sorts what it has
found, and the pieces are merged, some thousand records at a time, once all are there or once they take more memory than they may.
"""

from bisect import bisect_right
from heapq import merge
from itertools import accumulate, islice
from typing import Any, Callable, Final, Iterator

MERGED_PER_STEP: Final = 1024
RECORD_COST_BYTES: Final = 64
"""Counted besides the bytes of a record: an answer of 4 MiB in the smallest records would take too long to be packed."""


class Cut:
    """Takes records in their final order for as long as there is room. `more`: something was left out."""

    __slots__ = ("_bytes_left", "_limit", "count", "more")

    def __init__(self, limit: int, bytes_max: int) -> None:
        self._limit = limit
        self._bytes_left = bytes_max
        self.count = 0
        self.more = False

    def take(self, records: list[bytes]) -> list[bytes]:
        """The first ones of `records` that fit; the very first of all always does."""
        fit = records[: self._limit - self.count] if self._limit else records
        size = sum(map(len, fit)) + RECORD_COST_BYTES * len(fit)
        if size > self._bytes_left:
            sizes = list(accumulate(len(record) + RECORD_COST_BYTES for record in fit))
            fit = fit[: max(bisect_right(sizes, self._bytes_left), 0 if self.count else 1)]
            size = sum(map(len, fit)) + RECORD_COST_BYTES * len(fit)
        self._bytes_left -= size
        self.count += len(fit)
        self.more = self.more or len(fit) < len(records)
        return fit


class Sorter:
    """Records in the order of a key function. Equal ones stay in the order in which they came, also when descending."""

    __slots__ = ("_descending", "_key", "_merge", "_pieces", "count", "exhausted", "held_bytes")

    def __init__(self, key: Callable[[bytes], Any], descending: bool) -> None:
        self._key = key
        self._descending = descending
        self._pieces: list[list[bytes]] = []
        self._merge: Iterator[bytes] = iter(())
        self.count = 0
        self.exhausted = False
        self.held_bytes = 0

    def add(self, records: list[bytes]) -> None:
        """Records that come after all others so far, in key order."""
        self._pieces.append(sorted(records, key=self._key, reverse=self._descending))
        self.count += len(records)
        self.held_bytes += sum(map(len, records))

    def start(self) -> None:
        """Begin to hand out everything in order."""
        self.exhausted = False
        self._merge = merge(*self._pieces, key=self._key, reverse=self._descending)

    def take(self) -> list[bytes]:
        """Some more; `exhausted` says when that was all."""
        records = list(islice(self._merge, MERGED_PER_STEP))
        self.exhausted = len(records) < MERGED_PER_STEP
        return records

    def restart(self, records: list[bytes]) -> None:
        """Go on with these alone: what was handed out and is wanted."""
        self._pieces, self.count, self.held_bytes = [], 0, 0
        self._merge = iter(())
        if records:
            self._pieces.append(records)
            self.count, self.held_bytes = len(records), sum(map(len, records))
