"""HashKV: one number for all that can be read at a revision, the same on every member that has the same data.

Not of what lies in the file: compaction removes superseded versions in steps, each member at its own pace. It is over what is there by
the rules: the keys as they stood at the compacted revision, in their order, and then every event behind it up to the revision, in
theirs. Computed in steps between other work. Not the number that etcd has: that one is over etcd's own encoding.
"""

import struct
import zlib
from typing import Final

from raftkv.store.history import position_of, read_events
from raftkv.store.mvcc import Mvcc
from raftkv.store.ranges import RangeCursor, check_revision
from raftkv.store.records import revision_of
from raftkv.units import Revision
from raftkv.wire.commands import RANGE, SORT_KEY, SORT_NONE, UNCOUNTED, KeyValueItems

EVENTS_PER_STEP: Final = 512
BYTES_PER_STEP: Final = 512 * 1024
PAGE_BYTES: Final = 512 * 1024
_KEY_VALUE: Final = struct.Struct(">QQQqI")


class ContentHash:
    """One hash on its way: call `step` until it returns True, then `checksum` is the hash as of `revision`.

    When history is compacted in between, it begins anew behind the new end of history.
    """

    def __init__(self, mvcc: Mvcc, revision: Revision) -> None:
        """`revision` 0 or less: the current one. Raises FutureRevision, Compacted."""
        if revision > 0:
            check_revision(mvcc, revision)
        self._mvcc = mvcc
        self.revision: Revision = revision if revision > 0 else mvcc.revision
        self._begin()

    def _begin(self) -> None:
        self.compact_revision: Revision = self._mvcc.compact_revision
        self.checksum = 0
        self._range: RangeCursor | None = None
        self._position: bytes | None = position_of(max(self.compact_revision, 0) + 1)
        if self.compact_revision > 0:
            self._range = self._page(b"\0")

    def _page(self, key: bytes) -> RangeCursor:
        command = [RANGE, UNCOUNTED, key, b"\0", 0, self.compact_revision, SORT_NONE, SORT_KEY, 0, 0, 0, 0]
        return RangeCursor(self._mvcc, command, PAGE_BYTES)

    def step(self) -> bool:
        """Do some more of it, some milliseconds at most; True when it is done. Raises Compacted when the revision has been."""
        if self._mvcc.compact_revision != self.compact_revision:
            check_revision(self._mvcc, self.revision)
            self._begin()
        if self._range is not None:
            self._take_page(self._range)
        elif self._position is not None:
            self._take_events(self._position)
        return self._range is None and self._position is None

    def _take_page(self, cursor: RangeCursor) -> None:
        if not cursor.step():
            return
        _, _, key_values, more, _ = cursor.answer()
        self.checksum = zlib.crc32(b"".join(map(_packed, key_values)), self.checksum)
        self._range = self._page(key_values[-1][0] + b"\0") if more else None

    def _take_events(self, position: bytes) -> None:
        records, following = read_events(self._mvcc, position, EVENTS_PER_STEP, BYTES_PER_STEP)
        within = [record for record in records if revision_of(record) <= self.revision]
        self.checksum = zlib.crc32(b"".join(within), self.checksum)
        self._position = following if len(within) == len(records) else None


def _packed(items: KeyValueItems) -> bytes:
    key, create_revision, mod_revision, version, lease, value = items
    packed: bytes = _KEY_VALUE.pack(create_revision, mod_revision, version, lease, len(key)) + key + value
    return packed
