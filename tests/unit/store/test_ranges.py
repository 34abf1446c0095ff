"""RANGE: one test per rule of etcd, and the bounds of an answer."""

import random
from pathlib import Path
from typing import Any, Callable

import pytest

from raftkv.errors import Compacted, FutureRevision, KeyEmpty
from raftkv.limits import MIB, Limits
from raftkv.store import ranges, records, sorting
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.mvcc import Mvcc
from raftkv.wire.commands import (
    COUNT_ONLY,
    KEYS_ONLY,
    SORT_ASCEND,
    SORT_DESCEND,
    SORT_KEY,
    SORT_MOD,
    SORT_NONE,
    SORT_VALUE,
    SORT_VERSION,
    UNCOUNTED,
)
from tests.unit.store.stores import TWINS, Driver, delete, keyspace_of, put, ranged


@pytest.fixture
def driver() -> Driver:
    """Keys a to f; values fall as keys rise, mods are 2 to 7 in the order c, a, b, f, e, d; a second version of b is at 8."""
    made = Driver(MemoryKeyspace())
    for key in b"cabfed":
        made.apply(put(bytes((key,)), bytes((200 - key,))))
    made.apply(put(b"b", bytes((200 - ord("b"),))))
    return made


def answer(driver: Driver, **options: object) -> tuple[bytes, bool, int]:
    _, _, key_values, more, count = driver.store.read(ranged(**options))  # type: ignore[arg-type]
    return b"".join(items[0] for items in key_values), more, count


def test_ranges_of_keys(driver: Driver) -> None:
    for key, end, expected in (
        (b"b", b"", b"b"),
        (b"bb", b"", b""),
        (b"b", b"d", b"bc"),
        (b"b", b"b", b""),
        (b"d", b"b", b""),
        (b"d", b"\0", b"def"),
        (b"\0", b"\0", b"abcdef"),
    ):
        found = answer(driver, key=key, range_end=end)
        assert found == (expected, False, len(expected))
    with pytest.raises(KeyEmpty):
        driver.store.read(ranged(b""))


def test_limit_cuts_and_count_does_not(driver: Driver) -> None:
    assert answer(driver, limit=2) == (b"ab", True, 6)
    assert answer(driver, limit=6) == (b"abcdef", False, 6)
    assert answer(driver, limit=-1) == (b"abcdef", False, 6)


def test_bounds_are_inclusive_and_come_before_the_limit(driver: Driver) -> None:
    assert answer(driver, bounds=(3, 6, 0, 0)) == (b"aef", False, 6)
    assert answer(driver, bounds=(0, 0, 3, 4)) == (b"ab", False, 6)
    assert answer(driver, bounds=(3, 6, 0, 0), limit=2) == (b"ae", True, 6)
    assert answer(driver, bounds=(3, 6, 0, 0), limit=3) == (b"aef", False, 6)


def test_count_only_and_keys_only(driver: Driver) -> None:
    assert answer(driver, flags=COUNT_ONLY, limit=1) == (b"", False, 6)
    key_values = driver.store.read(ranged(flags=KEYS_ONLY))[2]
    assert [items[5] for items in key_values] == [b""] * 6
    assert key_values[1][:5] == [b"b", 4, 8, 2, 0]
    by_value = answer(driver, flags=KEYS_ONLY, target=SORT_VALUE, order=SORT_ASCEND)
    assert by_value == (b"fedcba", False, 6), "sorted by the real values"


def test_sorting(driver: Driver) -> None:
    assert answer(driver, order=SORT_DESCEND, target=SORT_KEY)[0] == b"fedcba"
    assert answer(driver, order=SORT_DESCEND, target=SORT_KEY, limit=2) == (b"fe", True, 6)
    assert answer(driver, order=SORT_ASCEND, target=SORT_MOD)[0] == b"cafedb"
    assert answer(driver, order=SORT_ASCEND, target=SORT_MOD, limit=1) == (b"c", True, 6)
    assert answer(driver, order=SORT_DESCEND, target=SORT_MOD)[0] == b"bdefac"


def test_equal_targets_stay_in_key_order_also_when_descending(driver: Driver) -> None:
    assert answer(driver, order=SORT_ASCEND, target=SORT_VERSION)[0] == b"acdefb"
    assert answer(driver, order=SORT_DESCEND, target=SORT_VERSION)[0] == b"bacdef"


def test_a_target_without_an_order_sorts_only_the_first_keys_of_a_limit(driver: Driver) -> None:
    assert answer(driver, target=SORT_MOD)[0] == b"cafedb"
    assert answer(driver, target=SORT_MOD, limit=2) == (b"ca", True, 6), "of a, b and c"
    assert answer(driver, target=SORT_VALUE, limit=2) == (b"cb", True, 6)
    assert answer(driver, target=SORT_VALUE, limit=2, bounds=(1, 0, 0, 0)) == (b"fe", True, 6)


def test_old_revisions(driver: Driver) -> None:
    driver.apply(delete(b"a", b"c"))
    assert answer(driver) == (b"cdef", False, 4)
    assert answer(driver, revision=8) == (b"abcdef", False, 6)
    assert answer(driver, revision=3) == (b"ac", False, 2)
    assert answer(driver, revision=1) == (b"", False, 0)
    assert answer(driver, revision=-5) == (b"cdef", False, 4)
    assert driver.store.read(ranged(revision=3))[1] == 9, "the header has the revision of now"
    with pytest.raises(FutureRevision):
        driver.store.read(ranged(revision=10))


def test_reading_at_the_compacted_revision_is_allowed_and_below_is_not(driver: Driver) -> None:
    driver.store._mvcc.compact_revision = 4  # no command compacts yet
    assert answer(driver, revision=4)[0] == b"abc"
    with pytest.raises(Compacted):
        driver.store.read(ranged(revision=3))


def test_a_range_on_its_way_is_refused_when_its_revision_is_compacted(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "HEAD_ITEMS_PER_STEP", 1)
    cursor = driver.store.range_cursor(ranged())
    assert not cursor.step()
    driver.apply(put(b"z"))
    driver.store._mvcc.compact_revision = 9
    with pytest.raises(Compacted):
        cursor.step()


@pytest.mark.parametrize("twin", TWINS)
def test_an_answer_is_cut_at_its_bytes_and_a_client_can_page_on(twin: str, tmp_path: Path) -> None:
    limits = Limits(map_bytes=64 * MIB, range_reply_bytes_max=1000)
    driver = Driver(keyspace_of(twin, tmp_path, limits), limits)
    names = [b"%03d" % number for number in range(50)]
    for name in names:
        driver.apply(put(name, b"x" * 92))
    driver.commit()
    driver.apply(put(b"050", b"y" * 5000), put(b"051"))
    seen: list[bytes] = []
    more = True
    while more:
        _, _, key_values, more, count = driver.store.read(ranged(seen[-1] + b"\0" if seen else b"\0"))
        assert count == 52 - len(seen)
        assert len(key_values) == 5 or key_values[0][0] >= b"050"
        seen += [items[0] for items in key_values]
    assert seen == [*names, b"050", b"051"]
    _, _, key_values, more, _ = driver.store.read(ranged(order=SORT_DESCEND, target=SORT_MOD))
    assert ([items[0] for items in key_values], more) == ([b"051"], True), "5,000 bytes do not fit behind it"
    _, _, key_values, more, _ = driver.store.read(ranged(order=SORT_ASCEND, target=SORT_MOD))
    assert ([items[0] for items in key_values], more) == (names[:5], True)
    assert len(driver.store.read(ranged(flags=KEYS_ONLY))[2]) == 9, "values that are not sent do not count"
    driver.store.close()


def test_a_cursor_answers_at_the_revision_at_which_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "HEAD_ITEMS_PER_STEP", 2)
    monkeypatch.setattr(ranges, "PAST_ITEMS_PER_STEP", 2)
    monkeypatch.setattr(ranges, "RECENT_ITEMS_PER_STEP", 2)
    driver = Driver(MemoryKeyspace())
    for number in range(20):
        driver.apply(put(b"%02d" % number, b"old"))
    cursor = driver.store.range_cursor(ranged())
    expected = driver.store.read(ranged())
    steps = 0
    while not cursor.step():
        steps += 1
        driver.apply(delete(b"%02d" % (19 - steps)), put(b"%02d" % steps, b"new"), put(b"%02d0" % steps, b"new"))
        if steps % 3 == 0:
            driver.commit()
    assert steps > 5
    assert cursor.answer() == expected


COST_BYTES = 41 + 64  # of a record besides its key and value


def expected(driver: Driver, flags: int, limit: int, order: int, target: int, bytes_max: int) -> list[Any]:
    """A range over everything, the plain way: all at once, with the sizes that count."""
    _, revision, all_items, _, count = driver.store.read(ranged())
    candidates = list(all_items)
    if target != SORT_KEY and order == SORT_NONE and limit:
        candidates = candidates[: limit + 1]
    by: Callable[[list[Any]], Any] = lambda items: items[{0: 0, 1: 3, 3: 2, 4: 5}[target]]  # noqa: E731
    candidates.sort(key=by, reverse=order == SORT_DESCEND)
    counts_value = not flags & KEYS_ONLY or target == SORT_VALUE
    found, size = list[Any](), 0
    for items in candidates:
        size += COST_BYTES + len(items[0]) + (len(items[5]) if counts_value else 0)
        if (limit and len(found) == limit) or (found and size > bytes_max):
            break
        found.append([*items[:5], b""] if flags & KEYS_ONLY else items)
    return [0, revision, found, len(found) < len(candidates), count]


@pytest.mark.parametrize("seed", range(4))
def test_steps_of_any_size_find_the_same_answer(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    driver = Driver(MemoryKeyspace())
    for number in draw.choices(range(60), k=150):
        driver.apply(put(b"%02d" % number, b"%d" % draw.randrange(5) + b"x" * draw.choice((0, 0, 30, 400))))
        if draw.random() < 0.02:
            driver.commit()
    for _ in range(300):
        flags, limit = draw.choice((0, KEYS_ONLY)), draw.choice((0, 0, 1, 2, 7, 40, 1000))
        order = draw.choice((SORT_NONE, SORT_ASCEND, SORT_DESCEND))
        target = draw.choice((SORT_KEY, SORT_VERSION, SORT_MOD, SORT_VALUE))
        bytes_max = draw.choice((1, 300, 1000, 3000, 1_000_000))
        wanted = expected(driver, flags, limit, order, target, bytes_max)
        monkeypatch.setattr(ranges, "HEAD_ITEMS_PER_STEP", draw.choice((1, 3, 10, 1000)))
        monkeypatch.setattr(sorting, "MERGED_PER_STEP", draw.choice((1, 4, 1000)))
        command = ranged(flags=flags, limit=limit, order=order, target=target)
        cursor = ranges.RangeCursor(driver.store._mvcc, command, bytes_max)
        while not cursor.step():
            pass
        assert cursor.answer() == wanted, command


def test_what_sorts_behind_a_record_that_did_not_fit_is_left_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It came later in the walk and was small: it took the room of the larger one that belongs in front of it."""
    monkeypatch.setattr(ranges, "HEAD_ITEMS_PER_STEP", 3)
    driver = Driver(MemoryKeyspace())
    driver.apply(put(b"a", b"1"), put(b"b", b"2" + b"x" * 500), put(b"c", b"3" + b"x" * 500), put(b"d", b"4"))
    cursor = ranges.RangeCursor(driver.store._mvcc, ranged(order=SORT_ASCEND, target=SORT_VALUE), 400)
    while not cursor.step():
        pass
    _, _, key_values, more, count = cursor.answer()
    assert ([items[0] for items in key_values], more, count) == ([b"a"], True, 4)


@pytest.mark.parametrize("options", [{}, {"flags": KEYS_ONLY}, {"order": SORT_DESCEND}, {"target": SORT_MOD}])
def test_no_step_builds_the_whole_answer(options: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand keys without values, built in one go at the end, held the loop for 85 ms."""
    monkeypatch.setattr(ranges, "HEAD_ITEMS_PER_STEP", 10)
    monkeypatch.setattr(sorting, "MERGED_PER_STEP", 10)
    driver = Driver(MemoryKeyspace())
    driver.apply(*(put(b"%03d" % number) for number in range(100)))
    built = 0

    def counted(record: bytes) -> list[Any]:
        nonlocal built
        built += 1
        return records.key_value(record)

    monkeypatch.setattr(ranges, "key_value", counted)
    cursor = driver.store.range_cursor(ranged(**options))  # type: ignore[arg-type]
    done = False
    while not done:
        before = built
        done = cursor.step()
        assert built - before <= 10
    assert len(cursor.answer()[2]) == built == 100


@pytest.mark.parametrize("revision", [0, 61])
@pytest.mark.parametrize("flags", [0, KEYS_ONLY])
def test_uncounted_pages_look_at_no_more_than_they_answer(
    revision: int, flags: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(MemoryKeyspace())
    driver.apply(*(put(b"%02d" % number, b"old") for number in range(60)))
    driver.commit()
    if revision:
        driver.apply(put(b"30", b"new"), delete(b"31"), put(b"300", b"new"))
    whole = driver.store.read(ranged(revision=revision, flags=flags))[2]
    monkeypatch.setattr(ranges, "PAST_ITEMS_PER_STEP", 12)
    monkeypatch.setattr(ranges, "RECENT_ITEMS_PER_STEP", 12)
    seen, more, start = list[Any](), True, b"\0"
    while more:
        command = ranged(start, revision=revision, flags=flags | UNCOUNTED, limit=10)
        _, _, page, more, count = driver.store.read(command)
        assert len(page) <= count <= len(page) + 1, "one more than the page, to know whether there is more"
        seen += page
        start = page[-1][0] + b"\0"
    assert seen == whole
    assert len(seen) == 60
    assert driver.store.read(ranged(flags=UNCOUNTED | COUNT_ONLY))[4] == len(driver.store.read(ranged())[2])


@pytest.mark.parametrize("twin", TWINS)
def test_keys_are_looked_for_in_the_past_only_when_one_was_deleted(
    twin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long range beside writes is always one at an old revision: six times the price of one at head, when it looked there."""
    driver = Driver(keyspace_of(twin, tmp_path, Limits(map_bytes=64 * MIB)))
    asked = 0
    real = Mvcc._past_keys

    def counted(self: Mvcc, *arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return real(self, *arguments)

    monkeypatch.setattr(Mvcc, "_past_keys", counted)
    driver.apply(put(b"a"), put(b"b"), put(b"c"))
    driver.commit()
    began = driver.store.revision
    for _ in range(2):
        driver.apply(put(b"b", b"new"), put(b"bb"))
        assert answer(driver, revision=began) == (b"abc", False, 3)
        driver.commit()
        assert answer(driver, revision=began) == (b"abc", False, 3)
    assert asked == 0
    driver.apply(delete(b"c"), put(b"d"))
    deleted = driver.store.revision - 1
    assert answer(driver, revision=began) == (b"abc", False, 3)
    assert asked == 0, "the deletion is in the overlay"
    driver.commit()
    assert answer(driver, revision=began) == (b"abc", False, 3)
    assert asked == 1
    assert answer(driver, revision=deleted) == (b"abbb", False, 3)
    assert answer(driver, revision=deleted - 1) == (b"abbbc", False, 4)
    assert asked == 2
    driver.store.close()
    if twin == "lmdb":
        again = Driver(keyspace_of(twin, tmp_path, Limits(map_bytes=64 * MIB)))
        assert answer(again, revision=began) == (b"abc", False, 3)
        assert asked == 3, "after a start nothing is known about deletions before it"
        again.store.close()
