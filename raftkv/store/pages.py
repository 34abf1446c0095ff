"""Pages of the table LOG: many events in one LMDB record, because a put costs the same for 100 bytes and for 16 KiB.

A page is a count, the offset of each event, and the events (records.py) in order of their position; its key is the position
of its first event, also when compaction has taken that one out. Which events share a page depends on when a member commits, so nothing logical may depend on it.
"""

import struct
from itertools import accumulate
from typing import Final, Iterator, Sequence

from raftkv.store.keyspace import Item
from raftkv.store.records import POSITION_BYTES

PAGE_BYTES: Final = 16 * 1024
PAGE_EVENTS_MAX: Final = 1024

_U32: Final = struct.Struct(">I")


def pack_pages(events: Sequence[bytes]) -> Iterator[Item]:
    """The pages, each as (key, value), that hold the events; an event that is larger than a page has one to itself."""
    start = size = 0
    for position, event in enumerate(events):
        if position > start and (size + len(event) > PAGE_BYTES or position - start >= PAGE_EVENTS_MAX):
            yield _pack_page(events[start:position])
            start, size = position, 0
        size += len(event)
    if start < len(events):
        yield _pack_page(events[start:])


def unpack_page(page: bytes) -> list[bytes]:
    """All events of a page."""
    (count,) = _U32.unpack_from(page)
    offsets = struct.unpack_from(f">{count}I", page, _U32.size)
    return [page[start:end] for start, end in zip(offsets, (*offsets[1:], len(page)), strict=True)]


def find_event(page: bytes, position: bytes) -> bytes | None:
    """The event at a position (12 bytes), by bisection, or None."""
    assert len(position) == POSITION_BYTES, "a position is revision and sub"
    (count,) = _U32.unpack_from(page)
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        (offset,) = _U32.unpack_from(page, _U32.size * (1 + middle))
        here = page[offset : offset + POSITION_BYTES]
        if here == position:
            end = _U32.unpack_from(page, _U32.size * (2 + middle))[0] if middle + 1 < count else len(page)
            return page[offset:end]
        if here < position:
            low = middle + 1
        else:
            high = middle
    return None


def repack_page(events: Sequence[bytes]) -> bytes:
    """A page of what is left of one."""
    count = len(events)
    first = _U32.size * (1 + count)
    offsets = accumulate(map(len, events[:-1]), initial=first)
    return b"".join((struct.pack(f">{1 + count}I", count, *offsets), *events))


def _pack_page(events: Sequence[bytes]) -> Item:
    return events[0][:POSITION_BYTES], repack_page(events)
