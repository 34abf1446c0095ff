"""Sorted windows over keys that come in any order."""

from hypothesis import given
from hypothesis import strategies as st

from raftkv.store.overlay import Overlay
from raftkv.store.records import HEADER

keys = st.binary(min_size=1, max_size=3)


def fill(overlay: Overlay, key: bytes, position: int) -> None:
    record = HEADER.pack(position, 0, 0, 1, 1, 0, len(key)) + key
    overlay.add(key, record, record)


@given(st.lists(keys | st.none(), max_size=80), keys, keys | st.none(), st.integers(1, 10))
def test_a_window_is_the_start_of_the_sorted_keys(
    story: list[bytes | None], start: bytes, end: bytes | None, items_max: int
) -> None:
    overlay = Overlay()
    for position, key in enumerate(story):
        if key is None:
            overlay.settle()
        else:
            fill(overlay, key, position)
    inside = [key for key in sorted({key for key in story if key}) if key >= start and (end is None or key < end)]
    left_out = inside[items_max] if len(inside) > items_max else None
    assert overlay.window(start, end, items_max) == (inside[:items_max], left_out)


def test_runs_stay_few_and_hold_each_key_once() -> None:
    overlay = Overlay()
    for position in range(3000):
        fill(overlay, b"%d" % (position * 7919 % 2000), position)
        overlay.settle()
    assert len(overlay.runs) <= 12
    assert sorted(key for run in overlay.runs for key in run) == sorted(overlay.head)
    assert all(run == sorted(run) for run in overlay.runs)


def test_its_size_grows_with_every_event() -> None:
    overlay = Overlay()
    fill(overlay, b"key", 1)
    before = overlay.size_bytes
    overlay.add(b"key", b"x" * 1000, None)
    assert overlay.size_bytes - before > 1000
    assert overlay.head == {b"key": None}
    assert len(overlay.log) == 2
