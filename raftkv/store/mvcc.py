"""Keys with revisions: put, delete, look-up and scan, at head and at an older revision, over overlay and keyspace.

etcd's data model (its mvcc package): one revision for everything that one command changes, with a sub revision that orders
the events inside it. The newest layer that knows a key decides: active overlay, frozen overlay, keyspace. The same order
holds for superseded versions, because a layer only supersedes what is newer than everything in the layers behind it.
"""

from bisect import bisect_left
from operator import itemgetter
from typing import Final, Mapping

from raftkv.store import past
from raftkv.store.keyspace import HEAD, LOG, PAST, Keyspace
from raftkv.store.leases import Leases
from raftkv.store.overlay import MISSING, RECORD_OVERHEAD_BYTES, Overlay
from raftkv.store.pages import find_event
from raftkv.store.records import (
    DELETE_EVENT,
    GENERATION,
    HEADER,
    POINTER_BYTES,
    POSITION,
    POSITION_BYTES,
    PUT_EVENT,
    lease_of,
    revision_of,
)
from raftkv.store.tally import Tally
from raftkv.units import Revision

_SLICE_BYTES_MAX: Final = 1024 * 1024  # copied out of the keyspace by one step of a scan
_SUB_MAX: Final = 0xFFFF_FFFF

assert (PUT_EVENT, DELETE_EVENT) == (0, 1), "the sum of kinds is the number of deletes"
_kind_of: Final = itemgetter(POSITION_BYTES)
_pack_header = HEADER.pack
_unpack_generation = GENERATION.unpack_from


class Mvcc:
    """The versioned map. `revision` is that of the last finished command; changes of the one in progress have the next."""

    __slots__ = (
        "_deleted_revision",
        "active",
        "compact_revision",
        "events",
        "frozen",
        "keyspace",
        "leases",
        "revision",
        "sub",
        "tally",
    )

    def __init__(self, keyspace: Keyspace, revision: Revision, compact_revision: Revision, leases: Leases) -> None:
        assert revision >= 1, "an empty store has revision 1"
        assert compact_revision <= revision, "only what exists can have been compacted"
        self.keyspace = keyspace
        self.leases = leases  # follows every put and delete: which keys hang on which lease
        self.active = Overlay()
        self.frozen: Overlay | None = None
        self.revision = revision
        self.compact_revision = compact_revision
        self._deleted_revision = (
            revision  # no key is missing in HEAD of the keyspace that lived at this revision or later
        )
        self.sub = 0
        self.events: list[bytes] = []  # of the entry in progress, for the digest
        self.tally = Tally()  # the hub's, once there is one

    def forget_events(self) -> None:
        """The entry in progress is done."""
        events, tally = self.events, self.tally
        if events:
            deletes = sum(map(_kind_of, events))
            tally.deletes += deletes
            tally.puts += len(events) - deletes
            events.clear()

    def drop_frozen(self) -> None:
        """The frozen overlay is in the keyspace now."""
        assert self.frozen is not None, "one was committed"
        self._deleted_revision = max(self._deleted_revision, self.frozen.deleted_revision)
        self.frozen = None

    def is_recent(self, revision: Revision) -> bool:
        """Whether a scan at `revision` is about as quick as one at head: no key of that time has to be looked for in PAST."""
        return revision >= self._deleted_revision

    def get(self, key: bytes) -> bytes | None:
        """The newest record of a key; None when it does not exist."""
        record = self.active.head.get(key, MISSING)
        if record is MISSING:
            if self.frozen is not None:
                record = self.frozen.head.get(key, MISSING)
            if record is MISSING:
                return self.keyspace.get(HEAD, key)
        return record

    def put(self, key: bytes, value: bytes) -> None:
        """A whole command: put one key without a lease, at a revision of its own. put_over and finish, unrolled for speed."""
        assert not self.sub, "no other command is in progress"
        active = self.active
        head = active.head
        revision = self.revision + 1
        old = head.get(key, MISSING)
        if old is MISSING:
            active.fresh.append(key)
            if self.frozen is not None:
                old = self.frozen.head.get(key, MISSING)
            if old is MISSING:
                old = self.keyspace.get(HEAD, key)
        if old is None:
            record = _pack_header(revision, 0, PUT_EVENT, revision, 1, 0, len(key)) + key + value
        else:
            create_revision, version, lease = _unpack_generation(old, POINTER_BYTES)
            if lease:
                self.leases.detach(lease, key)
            record = _pack_header(revision, 0, PUT_EVENT, create_revision, version + 1, 0, len(key)) + key + value
            active.supersede(key, old[:POINTER_BYTES])
        head[key] = record
        active.log[record[:POSITION_BYTES]] = record
        active.size_bytes += len(record) + RECORD_OVERHEAD_BYTES
        self.events.append(record)
        self.revision = revision

    def put_over(self, old: bytes | None, key: bytes, value: bytes, lease: int) -> None:
        """As put, for a caller that has just looked up the record before."""
        active = self.active
        revision = self.revision + 1
        held_by = 0
        if old is None:
            header = _pack_header(revision, self.sub, PUT_EVENT, revision, 1, lease, len(key))
        else:
            create_revision, version, held_by = _unpack_generation(old, POINTER_BYTES)
            header = _pack_header(revision, self.sub, PUT_EVENT, create_revision, version + 1, lease, len(key))
            active.supersede(key, old[:POINTER_BYTES])
        record = header + key + value
        active.add(key, record, record)
        self.events.append(record)
        self.sub += 1
        if lease != held_by:
            if held_by:
                self.leases.detach(held_by, key)
            if lease:
                self.leases.attach(lease, key)

    def delete(self, old: bytes, key: bytes) -> None:
        """Delete a key that exists; `old` is its record."""
        tombstone = _pack_header(self.revision + 1, self.sub, DELETE_EVENT, 0, 0, 0, len(key)) + key
        self.active.supersede(key, old[:POINTER_BYTES])
        self.active.supersede(key, tombstone[:POINTER_BYTES])
        self.active.add(key, tombstone, None)
        self.events.append(tombstone)
        self.sub += 1
        if lease := lease_of(old):
            self.leases.detach(lease, key)

    def finish(self) -> Revision:
        """End the command in progress; the revision after it, one more if it changed anything."""
        if self.sub:
            self.revision += 1
            self.sub = 0
        return self.revision

    def revision_in_progress(self) -> Revision:
        """What a range inside of a transaction sees as the revision: already the next one after a change."""
        return self.revision + 1 if self.sub else self.revision

    def get_at(self, key: bytes, revision: Revision) -> bytes | None:
        """The record of a key as of `revision`, which must not have been compacted."""
        record = self.get(key)
        if record is not None and revision_of(record) <= revision:
            return record
        return self._superseded(key, revision)

    def scan(
        self, start: bytes, end: bytes | None, revision: Revision | None, items_max: int
    ) -> tuple[list[bytes], bytes | None]:
        """One step of a walk over the keys that live at `revision` (None: now, changes in progress included).

        Returns their records in key order and where to go on, None at the end. A step looks at about `items_max` keys.
        """
        if end is not None and start >= end:
            return [], None
        window = self.keyspace.window(HEAD, start, end, items_max, _SLICE_BYTES_MAX)
        stop = end if window.resume is None else window.resume
        if revision is None or (revision == self.revision and not self.sub):
            newest, cut = self._overlaid(dict(window.items), start, stop, items_max)
            records = [record for _, record in newest if record is not None]
        else:
            older, cut = ([], None) if self.is_recent(revision) else self._past_keys(start, stop, items_max)
            newest, cut = self._overlaid(
                {**dict.fromkeys(older), **dict(window.items)}, start, stop if cut is None else cut, items_max, cut
            )
            records = []
            for key, record in newest:
                if record is None or revision_of(record) > revision:
                    record = self._superseded(key, revision)
                if record is not None:
                    records.append(record)
        return records, window.resume if cut is None else cut

    def scan_keys(self, start: bytes, end: bytes | None, items_max: int) -> tuple[int, bytes | None]:
        """As scan at head, but only counts: no values are read."""
        if end is not None and start >= end:
            return 0, None
        keys, resume = self.keyspace.keys(HEAD, start, end, items_max)
        newest, cut = self._overlaid(dict.fromkeys(keys, MISSING), start, end if resume is None else resume, items_max)
        return sum(record is not None for _, record in newest), resume if cut is None else cut

    def _overlaid(
        self,
        held: Mapping[bytes, bytes | None],
        start: bytes,
        stop: bytes | None,
        items_max: int,
        cut: bytes | None = None,
    ) -> tuple[list[tuple[bytes, bytes | None]], bytes | None]:
        """`held` with both overlays laid over it, in key order, and the first key left out if there was one."""
        merged: dict[bytes, bytes | None] = dict(held)
        for layer in (self.frozen, self.active):
            if layer is not None and layer.head:
                keys, left_out = layer.window(start, stop, items_max)
                if left_out is not None:
                    stop = cut = left_out
                head = layer.head
                for key in keys:
                    merged[key] = head[key]
        ordered = sorted(merged)
        if cut is not None:
            del ordered[bisect_left(ordered, cut) :]
        return [(key, merged[key]) for key in ordered], cut

    def _superseded(self, key: bytes, revision: Revision) -> bytes | None:
        """The version of a key at `revision` for a key whose newest one came later or is gone."""
        for layer in (self.active, self.frozen):
            pointer = past.newest_of(layer.pointers(key), revision) if layer is not None else None
            if pointer is not None:
                return self._event_at(pointer)
        encoded = past.encode_key(key)
        item = self.keyspace.floor(PAST, encoded + POSITION.pack(revision, _SUB_MAX))
        if item is None or item[0][:-POSITION_BYTES] != encoded:
            return None
        return self._event_at(past.newest_pointer(item, revision))

    def _event_at(self, pointer: bytes) -> bytes | None:
        """The record that a pointer leads to; None for a tombstone."""
        if pointer[POSITION_BYTES] == DELETE_EVENT:
            return None
        position = pointer[:POSITION_BYTES]
        for layer in (self.active, self.frozen):
            record = layer.log.get(position) if layer is not None else None
            if record is not None:
                return record
        page = self.keyspace.floor(LOG, position)
        record = find_event(page[1], position) if page is not None else None
        assert record is not None, "what PAST points to is in LOG until both are compacted"
        return record

    def _past_keys(self, start: bytes, end: bytes | None, keys_max: int) -> tuple[list[bytes], bytes | None]:
        """Keys in the keyspace with superseded versions, in order, and the first one left out."""
        found: list[bytes] = []
        position = past.seek_key(start)
        while True:
            window = self.keyspace.window(PAST, position, None, 1, 1)
            if not window.items:
                return found, None
            key, encoded = past.decode_item(window.items[0])
            position = encoded + past.LAST_POSITION
            if past.is_long(encoded):
                # Keys with one long prefix are stored by digest: only the whole group can be put in order.
                group, position = self._past_group(encoded[: past.PLAIN_KEY_BYTES])
            else:
                group = [key]
            for member in group:
                if end is not None and member >= end:
                    return found, None
                if member >= start:
                    if len(found) >= keys_max:
                        return found, member
                    found.append(member)

    def _past_group(self, prefix: bytes) -> tuple[list[bytes], bytes]:
        """All keys that are stored under a cut prefix, sorted, and the place behind them."""
        group: list[bytes] = []
        position = prefix
        while True:
            window = self.keyspace.window(PAST, position, None, 1, 1)
            if not window.items or not window.items[0][0].startswith(prefix):
                return sorted(group), position
            key, encoded = past.decode_item(window.items[0])
            assert past.is_long(encoded), "a key that ends within the prefix is not stored under it"
            group.append(key)
            position = encoded + past.LAST_POSITION
