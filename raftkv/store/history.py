"""The events of the store in order, from any position that is not compacted: out of the overlays and the pages of LOG.

A step reads a few hundred events, so that whoever catches up does it between other work.
"""

from bisect import bisect_left
from typing import Final

from raftkv.store.keyspace import LOG
from raftkv.store.mvcc import Mvcc
from raftkv.store.overlay import Overlay
from raftkv.store.pages import unpack_page
from raftkv.store.records import POSITION, POSITION_BYTES, revision_of
from raftkv.units import Revision

_PAGES_PER_READ: Final = 4
_unpack_position = POSITION.unpack_from


def position_of(revision: Revision, sub: int = 0) -> bytes:
    """The place of an event in the order of all: 12 bytes that sort."""
    return POSITION.pack(revision, sub)


def read_events(mvcc: Mvcc, position: bytes, events_max: int, bytes_max: int) -> tuple[list[bytes], bytes | None]:
    """Events from `position` on, at least one if there is any, and where to go on; None when there are no more.

    Where to go on is within a revision only if that revision has more events, as far as can be told.
    """
    assert events_max > 0 and not mvcc.sub, "read between commands"
    revision, sub = _unpack_position(position)
    found: list[bytes] = []
    size = 0
    while revision <= mvcc.revision and len(found) < events_max and size < bytes_max:
        layer = _layer_at(mvcc, revision)
        if layer is None:
            records, revision, sub = _read_pages(mvcc, revision, sub, events_max - len(found), bytes_max - size)
            found += records
            size += sum(map(len, records))
            continue
        record = layer.log.get(POSITION.pack(revision, sub))
        if record is None:
            revision, sub = revision + 1, 0
            continue
        found.append(record)
        size += len(record)
        sub += 1
    if sub and revision <= mvcc.revision:
        layer = _layer_at(mvcc, revision)
        if layer is not None and POSITION.pack(revision, sub) not in layer.log:
            revision, sub = revision + 1, 0
    return found, None if revision > mvcc.revision else POSITION.pack(revision, sub)


def _layer_at(mvcc: Mvcc, revision: Revision) -> Overlay | None:
    """The overlay that has this revision and all later ones up to the next layer; None when it is in the keyspace."""
    for layer in (mvcc.active, mvcc.frozen):
        if layer is not None and layer.log and revision_of(next(iter(layer.log))) <= revision:
            return layer
    return None


def _first_in_overlays(mvcc: Mvcc) -> Revision:
    for layer in (mvcc.frozen, mvcc.active):
        if layer is not None and layer.log:
            return revision_of(next(iter(layer.log)))
    return mvcc.revision + 1


def _read_pages(
    mvcc: Mvcc, revision: Revision, sub: int, events_max: int, bytes_max: int
) -> tuple[list[bytes], Revision, int]:
    """Events of the keyspace, and revision and sub to go on at; behind its last event it goes on in the overlays."""
    keyspace = mvcc.keyspace
    position = POSITION.pack(revision, sub)
    page = keyspace.floor(LOG, position)
    start = position if page is None else page[0]
    window = keyspace.window(LOG, start, None, _PAGES_PER_READ, bytes_max)
    events = [event for _, data in window.items for event in unpack_page(data)]
    low = bisect_left(events, position, key=_position_in)
    found: list[bytes] = []
    size = 0
    for number in range(low, len(events)):
        if len(found) >= events_max or size >= bytes_max:
            following: tuple[Revision, int] = _unpack_position(events[number])
            return found, *following
        found.append(events[number])
        size += len(found[-1])
    if window.resume is not None:
        at: tuple[Revision, int] = _unpack_position(window.resume)
        if found:
            last, last_sub = _unpack_position(found[-1])
            at = max(at, (last, last_sub + 1))  # a thinned page is named by an event that may be gone
        return found, *at
    return found, _first_in_overlays(mvcc), 0


def _position_in(event: bytes) -> bytes:
    return event[:POSITION_BYTES]
