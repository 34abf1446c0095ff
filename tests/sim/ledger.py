"""What the committed log says: every event by its revision, and every key as of any revision. The judges of the data model ask it.

It hears a replay of the whole log, by a store on which nothing is ever compacted, and answers from lists of its own: neither the hub nor
the history of a member is in the way.
"""

from bisect import bisect_left, bisect_right
from typing import Any, Sequence

from raftkv.limits import Limits
from raftkv.store.records import DELETE_EVENT, POSITION_BYTES, key_of, key_value, revision_of
from raftkv.store.watches import WatchHub
from raftkv.units import Revision

Items = list[Any]
"""A key-value: [key, create_revision, mod_revision, version, lease, value]."""


class Ledger(WatchHub):
    """A hub in its place in the store, which keeps what it is fed."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.events: dict[Revision, list[bytes]] = {}
        self.compact_revision: Revision = -1
        """The last one: below it a member may say that it is gone."""
        self.revision: Revision = 1
        self._versions: dict[bytes, tuple[list[Revision], list[Items | None]]] = {}
        self._keys: list[bytes] | None = None

    @property
    def is_active(self) -> bool:
        return True

    def feed(self, records: Sequence[bytes]) -> None:
        for record in records:
            revision, key = revision_of(record), key_of(record)
            self.events.setdefault(revision, []).append(record)
            revisions, versions = self._versions.setdefault(key, ([], []))
            revisions.append(revision)
            versions.append(None if record[POSITION_BYTES] == DELETE_EVENT else key_value(record))
            self.revision = revision
        self._keys = None

    def at(self, key: bytes, revision: Revision) -> Items | None:
        """A key as it was once everything up to `revision` was done."""
        revisions, versions = self._versions.get(key, ([], []))
        position = bisect_right(revisions, revision)
        return versions[position - 1] if position else None

    def range_at(self, start: bytes, end: bytes | None, revision: Revision) -> list[Items]:
        """All keys of a range (None: to the end) as they were, in order."""
        if self._keys is None:
            self._keys = sorted(self._versions)
        keys = self._keys
        chosen = keys[bisect_left(keys, start) : len(keys) if end is None else bisect_left(keys, end)]
        return [items for items in (self.at(key, revision) for key in chosen) if items is not None]
