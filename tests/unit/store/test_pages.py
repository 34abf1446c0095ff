"""Pages of events."""

from raftkv.store.pages import PAGE_BYTES, PAGE_EVENTS_MAX, find_event, pack_pages, unpack_page
from raftkv.store.records import HEADER, POSITION


def event(revision: int, sub: int, value_bytes: int = 10) -> bytes:
    return HEADER.pack(revision, sub, 0, 1, 1, 0, 1) + b"k" + b"v" * value_bytes


def test_pages_hold_all_events_in_order_under_the_position_of_the_first() -> None:
    events = [event(2 + number // 3, number % 3, value_bytes=number) for number in range(1200)]
    pages = list(pack_pages(events))
    assert len(pages) > 10
    assert [stored for _, page in pages for stored in unpack_page(page)] == events
    for key, page in pages:
        assert key == unpack_page(page)[0][: POSITION.size]
        assert sum(map(len, unpack_page(page))) <= PAGE_BYTES


def test_every_event_is_found_and_no_other() -> None:
    events = [event(revision, sub) for revision in range(2, 60, 2) for sub in (0, 1, 7)]
    for _, page in pack_pages(events):
        held = unpack_page(page)
        for stored in events:
            assert find_event(page, stored[: POSITION.size]) == (stored if stored in held else None)
        assert find_event(page, POSITION.pack(3, 0)) is None
        assert find_event(page, POSITION.pack(0, 0)) is None
        assert find_event(page, POSITION.pack(2**63, 0)) is None


def test_a_large_event_has_a_page_to_itself_and_tiny_ones_are_counted() -> None:
    large = event(3, 0, 2 * PAGE_BYTES)
    assert [unpack_page(page) for _, page in pack_pages([event(2, 0), large, event(4, 0)])] == [
        [event(2, 0)],
        [large],
        [event(4, 0)],
    ]
    many = [HEADER.pack(2, sub, 1, 0, 0, 0, 0)[:12] for sub in range(PAGE_EVENTS_MAX + 1)]
    assert [len(unpack_page(page)) for _, page in pack_pages(many)] == [PAGE_EVENTS_MAX, 1]
    assert list(pack_pages([])) == []
