"""Compaction: what is refused, what is kept, that the room comes back, and that a crash in the middle only costs another walk."""

from pathlib import Path

import pytest

from raftkv.errors import Compacted
from raftkv.store import compaction
from raftkv.store.keyspace import LOG, PAST, Keyspace
from raftkv.store.pages import unpack_page
from raftkv.store.records import revision_of
from raftkv.store.store import Store
from raftkv.wire.commands import COMPACT
from tests.unit.store.stores import LIMITS, TWINS, Driver, delete, get, keyspace_of, put, ranged, txn


def remove_all(driver: Driver) -> int:
    """Until nothing is left to do; how many commits it took."""
    commits = 0
    while driver.store.compaction.has_work or driver.store.compaction.has_changes:
        driver.store.compaction.step()
        if driver.store.compaction.wants_commit:
            driver.commit()
            commits += 1
    return commits


def revisions_kept(keyspace: Keyspace) -> list[int]:
    pages = keyspace.window(LOG, b"\0", None, 10**6, 10**9).items
    return [revision_of(event) for _, page in pages for event in unpack_page(page)]


@pytest.fixture(params=TWINS)
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Driver:
    return Driver(keyspace_of(request.param, tmp_path))


def test_what_is_refused_and_what_is_not(driver: Driver) -> None:
    for number in range(4):
        driver.apply(put(b"k", b"%d" % number))  # revisions 2 to 5
    assert driver.apply([COMPACT, 0, 6])[0][1] == "future_revision"
    assert driver.apply([COMPACT, 0, 4]) == [[0, 5]]
    assert driver.store.compact_revision == 4
    for revision in (4, 3, -1):
        answer = driver.apply([COMPACT, 0, revision])[0]
        assert (answer[1], answer[4]) == ("compacted", {"compact_revision": 4})
    with pytest.raises(Compacted, match="revision 3 has been compacted, up to 4"):
        driver.store.read(ranged(b"k", revision=3))
    assert driver.store.read(ranged(b"k", revision=4))[2][0][5] == b"2"
    assert driver.apply([COMPACT, 0, 5]) == [[0, 5]], "the newest revision may be compacted at"
    assert driver.apply([COMPACT, 0, "5"])[0][1] == "invalid_request"


def test_a_fresh_store_is_compacted_at_0_once(driver: Driver) -> None:
    assert driver.apply([COMPACT, 0, 0]) == [[0, 1]]
    assert driver.apply([COMPACT, 0, 0])[0][1] == "compacted"


def test_superseded_versions_and_tombstones_go_and_nothing_else(driver: Driver) -> None:
    driver.apply(put(b"live", b"1"), put(b"twice", b"1"), put(b"twice", b"2"), put(b"gone"), delete(b"gone"))  # 2 to 6
    driver.apply(put(b"late", b"1"), delete(b"late"), put(b"late", b"2"))  # 7 to 9
    driver.commit()
    driver.apply([COMPACT, 0, 8])
    driver.commit()
    remove_all(driver)
    assert revisions_kept(driver.store.keyspace) == [2, 4, 8, 9], (
        "8 is the delete at the compacted revision: a watch may start there"
    )
    assert [items[0] for items in driver.store.read(ranged(revision=8))[2]] == [b"live", b"twice"]
    assert driver.store.read(get(b"late"))[2][2] == 9
    driver.apply([COMPACT, 0, 9])
    driver.commit()
    remove_all(driver)
    assert revisions_kept(driver.store.keyspace) == [2, 4, 9]
    assert driver.store.keyspace.window(PAST, b"\0", None, 10, 10**6).items == []


def test_all_events_of_the_compacted_revision_stay(driver: Driver) -> None:
    driver.apply(put(b"a", b"1"), put(b"b", b"1"))
    driver.apply(txn([], [put(b"a", b"2"), delete(b"b")], []))  # 4
    driver.apply(put(b"a", b"3"))
    driver.apply([COMPACT, 0, 4])
    driver.commit()
    remove_all(driver)
    assert revisions_kept(driver.store.keyspace) == [4, 4, 5]
    assert [items[5] for items in driver.store.read(ranged(revision=4))[2]] == [b"2"]


def test_the_plan_survives_writes_and_the_removal_a_restart(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "ROUND_EVENTS_MAX", 10)
    monkeypatch.setattr(compaction, "WALK_ITEMS", 5)
    for number in range(30):
        driver.apply(*(put(b"key %d" % key, b"%d" % number) for key in range(7)))
        if number % 5 == 0:
            driver.commit()
    driver.apply([COMPACT, 0, driver.store.revision - 3])
    driver.commit()
    for _ in range(4):
        driver.store.compaction.step()
    driver.apply(*(put(b"key %d" % key, b"last") for key in range(7)))  # supersedes what the plan has seen as newest
    driver.commit()
    assert driver.store.compaction.done < 0, "in the middle of it"
    driver.store = Store.open(driver.store.keyspace, LIMITS)
    assert remove_all(driver) > 1
    assert driver.store.compaction.done == driver.store.compact_revision
    revision = driver.store.compact_revision
    assert [items[5] for items in driver.store.read(ranged(revision=revision))[2]] == [b"29"] * 4 + [b"28"] * 3
    assert {items[5] for items in driver.store.read(ranged())[2]} == {b"last"}
    assert len(revisions_kept(driver.store.keyspace)) == 7 + 3 + 7


def test_nothing_is_removed_before_the_compaction_itself_is_durable(driver: Driver) -> None:
    driver.apply(put(b"k", b"1"), put(b"k", b"2"))
    driver.commit()
    driver.apply([COMPACT, 0, 3])
    assert not driver.store.compaction.has_work
    driver.commit()
    assert driver.store.compaction.has_work


def test_room_is_used_again(tmp_path: Path) -> None:
    """Ten times the same keys: with compaction the file stays at a size, without it would be ten times as large."""
    driver = Driver(keyspace_of("lmdb", tmp_path))
    sizes = []
    for _ in range(10):
        for start in range(0, 400, 50):
            driver.apply(*(put(b"key %d" % key, b"v" * 1000) for key in range(start, start + 50)))
        driver.apply([COMPACT, 0, driver.store.revision])
        driver.commit()
        remove_all(driver)
        sizes.append(driver.store.db_size_bytes)
    assert sizes[-1] <= 2 * sizes[1]
