"""Both keyspaces, side by side: an ordered map with atomic groups."""

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkv.errors import Corruption, DiskFailure, NoSpace
from raftkv.limits import MIB, Limits
from raftkv.store.keyspace import HEAD, LOG, META, PAST, Keyspace, TableChange
from raftkv.store.lmdb_keyspace import LmdbKeyspace, disk_error, open_keyspace
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.snapshot import replace
from tests.unit.store.stores import LIMITS, TWINS, keyspace_of

LONG = b"p" * 478
KEYS = [b"a", b"b", b"\xff", *(LONG + tail for tail in (b"1", b"12", b"123", b"12" + b"\0", b"12" + b"x" * 33, b"13"))]
KEYS += [b"\0" * 480, b"\0" * 600, LONG + b"12" + b"y" * 1600]
BIG = 2**40

keys = st.integers(0, len(KEYS) - 1).map(lambda position: KEYS[position])
groups = st.lists(
    st.tuples(st.dictionaries(keys, st.binary(max_size=5), max_size=4), st.lists(keys, max_size=3)), max_size=3
)


def changes(group: list[tuple[dict[bytes, bytes], list[bytes]]]) -> list[TableChange]:
    made = []
    for puts, deletes in group:
        made.append(TableChange(HEAD, deletes=[key for key in deletes if key not in puts]))
        made.append(TableChange(HEAD, sorted(puts.items())))
    return made


def everything(keyspace: Keyspace, table: int = HEAD) -> list[tuple[bytes, bytes]]:
    return keyspace.window(table, b"\0", None, 1000, BIG).items


@pytest.fixture(params=TWINS)
def keyspace(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    opened = keyspace_of(request.param, tmp_path)
    yield opened
    opened.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(story=st.lists(groups, max_size=5), start=keys, end=keys | st.none(), items_max=st.integers(1, 5))
def test_the_twins_are_one_map(
    story: list[Any], start: bytes, end: bytes | None, items_max: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    twins = [keyspace_of("lmdb", tmp_path_factory.mktemp("twin")), MemoryKeyspace()]
    model: dict[bytes, bytes] = {}
    for group in story:
        for twin in twins:
            twin.commit(changes(group))
            assert everything(twin) == sorted(model.items()), "not visible before renew"
            twin.renew()
        for puts, deletes in group:
            for key in deletes:
                model.pop(key, None)
            model.update(puts)
    inside = [item for item in sorted(model.items()) if item[0] >= start and (end is None or item[0] < end)]
    resume = inside[items_max][0] if len(inside) > items_max else None
    for twin in twins:
        assert everything(twin) == sorted(model.items())
        assert [twin.get(HEAD, key) for key in KEYS] == [model.get(key) for key in KEYS]
        window = twin.window(HEAD, start, end, items_max, BIG)
        assert (window.items, window.resume) == (inside[:items_max], resume)
        assert twin.keys(HEAD, start, end, items_max) == ([key for key, _ in inside[:items_max]], resume)
        twin.close()


def test_a_window_ends_at_its_bytes_but_holds_an_item(keyspace: Keyspace) -> None:
    keyspace.commit([TableChange(HEAD, [(b"a", b"x" * 100), (b"b", b"y" * 100), (b"c", b"z")])])
    keyspace.renew()
    window = keyspace.window(HEAD, b"a", None, 10, 1)
    assert (window.items, window.resume) == ([(b"a", b"x" * 100)], b"b")
    window = keyspace.window(HEAD, b"a", None, 10, 101)
    assert (len(window.items), window.resume) == (2, b"c")


def test_floor_finds_the_greatest_key_that_is_not_above(keyspace: Keyspace) -> None:
    assert keyspace.floor(PAST, b"a") is None
    keyspace.commit([TableChange(PAST, [(b"b", b"1"), (b"d", b"2")])])
    keyspace.renew()
    found = [keyspace.floor(PAST, key) for key in (b"a", b"b", b"c", b"d", b"e")]
    assert found == [None, (b"b", b"1"), (b"b", b"1"), (b"d", b"2"), (b"d", b"2")]


def test_tables_are_apart_and_appended_ones_grow_at_their_end(keyspace: Keyspace) -> None:
    keyspace.commit([TableChange(LOG, [(b"1", b"x"), (b"2", b"y")], append=True), TableChange(META, [(b"1", b"z")])])
    keyspace.commit([TableChange(LOG, [(b"3", b"z")], append=True)])
    keyspace.renew()
    assert [key for key, _ in everything(keyspace, LOG)] == [b"1", b"2", b"3"]
    assert keyspace.get(META, b"1") == b"z"
    assert keyspace.get(HEAD, b"1") is None


def test_sizes_grow_with_the_data(keyspace: Keyspace) -> None:
    before = keyspace.used_bytes()
    keyspace.commit([TableChange(HEAD, [(b"a", b"x" * 100_000)])])
    keyspace.renew()
    assert before + 100_000 < keyspace.used_bytes() <= keyspace.allocated_bytes()


def test_a_memory_keyspace_is_its_dump() -> None:
    keyspace = MemoryKeyspace()
    keyspace.commit([TableChange(HEAD, [(LONG + b"123", b"x"), (b"a", b"y")])])
    dumped = keyspace.dump()
    keyspace.renew()
    assert keyspace.dump() == dumped, "what is committed is in it, visible or not"
    assert everything(MemoryKeyspace(dumped)) == everything(keyspace)
    for bad in (b"", b"\x93\1\2\3", dumped[:-1]):
        with pytest.raises(Corruption):
            MemoryKeyspace(bad)


def test_what_is_committed_survives_and_a_second_opening_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "store.mdb")
    keyspace = LmdbKeyspace.open(path, LIMITS)
    keyspace.commit([TableChange(HEAD, [(b"a", b"1"), (LONG + b"123", b"2")])])
    assert open_keyspace(path) is keyspace
    with pytest.raises(DiskFailure, match="already open"):
        LmdbKeyspace.open(path, LIMITS)
    keyspace.close()
    assert open_keyspace(path) is None
    again = LmdbKeyspace.open(path, LIMITS)
    assert everything(again) == [(b"a", b"1"), (LONG + b"123", b"2")]
    again.close()


def test_a_full_map_refuses_the_whole_group(tmp_path: Path) -> None:
    keyspace = LmdbKeyspace.open(str(tmp_path / "store.mdb"), Limits(map_bytes=1 * MIB))
    keyspace.commit([TableChange(HEAD, [(b"a", b"1")])])
    with pytest.raises(NoSpace):
        keyspace.commit(TableChange(HEAD, [(b"%d" % number, b"x" * 10_000)]) for number in range(1000))
    keyspace.renew()
    assert everything(keyspace) == [(b"a", b"1")]
    keyspace.commit([TableChange(HEAD, [(b"b", b"2")])])
    keyspace.renew()
    assert everything(keyspace) == [(b"a", b"1"), (b"b", b"2")]
    keyspace.close()


def test_a_group_that_breaks_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    keyspace = LmdbKeyspace.open(str(tmp_path / "store.mdb"), LIMITS)

    def broken() -> Any:
        yield TableChange(HEAD, [(b"a", b"1")])
        raise KeyError

    with pytest.raises(KeyError):
        keyspace.commit(broken())
    keyspace.renew()
    assert everything(keyspace) == []
    keyspace.close()


def test_a_damaged_file_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "store.mdb"
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(Corruption, match="add it anew") as caught:
        LmdbKeyspace.open(str(path), LIMITS)
    assert caught.value.details == {"file": str(path)}


def test_errors_of_the_disk_are_told_apart() -> None:
    assert isinstance(disk_error(lmdb.DiskError("x"), "f"), NoSpace)
    assert isinstance(disk_error(lmdb.MapFullError("x"), "f"), NoSpace)
    assert isinstance(disk_error(OSError(28, "x"), "f"), NoSpace)
    assert isinstance(disk_error(OSError(5, "x"), "f"), DiskFailure)
    assert isinstance(disk_error(lmdb.Error("x"), "f"), DiskFailure)


@pytest.mark.parametrize(("free_blocks", "kind"), [(3, NoSpace), (1000, DiskFailure)])
def test_half_a_write_means_a_full_disk_if_it_is_full(
    free_blocks: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB says EIO when a write was cut short; on a disk with room it is what it says."""

    class Figures:
        f_bavail, f_frsize = free_blocks, 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Figures)
    error = lmdb.Error("mdb_txn_commit: Input/output error")
    assert type(disk_error(error, "d/f")) is kind
    assert type(disk_error(OSError(errno.EIO, "Input/output error"), "d/f")) is DiskFailure


def test_a_copy_is_made_of_what_is_committed_and_not_after_the_end(tmp_path: Path) -> None:
    keyspace = LmdbKeyspace.open(str(tmp_path / "store.mdb"), LIMITS)
    keyspace.commit([TableChange(HEAD, [(b"a", b"1")])])
    keyspace.copy(str(tmp_path / "copy"))
    copied = LmdbKeyspace(str(tmp_path / "copy"), 1 * MIB, read_only=True)
    assert everything(copied) == [(b"a", b"1")]
    copied.close()
    with pytest.raises(DiskFailure):
        keyspace.copy(str(tmp_path / "no such directory" / "copy"))
    keyspace.close()
    with pytest.raises(OSError, match="closed"):
        keyspace.copy(str(tmp_path / "copy2"))


def test_a_copy_can_be_given_up(tmp_path: Path) -> None:
    """Gigabytes take minutes; nobody has to wait for what nobody wants any more."""
    keyspace = LmdbKeyspace.open(str(tmp_path / "store.mdb"), Limits(map_bytes=256 * MIB))
    keyspace.commit([TableChange(HEAD, [(b"%08d" % number, b"v" * 16_000) for number in range(4_000)])])
    keyspace.stop_copying()  # of none: nothing
    errors: list[int | None] = []

    def copy(path: Path) -> None:
        try:
            keyspace.copy(str(path))
        except OSError as error:
            errors.append(error.errno)

    for attempt in range(10):  # a machine that stood still may have copied it all before it was told
        path = tmp_path / f"copy{attempt}"
        thread = threading.Thread(target=copy, args=(path,))
        thread.start()
        while not (path.exists() and path.stat().st_size) and thread.is_alive():
            time.sleep(0.0001)
        keyspace.stop_copying()
        thread.join()
        if errors:
            break
    assert errors == [errno.ECANCELED]
    assert path.stat().st_size < 4_000 * 16_000
    keyspace.copy(str(tmp_path / "whole"))
    assert (tmp_path / "whole").stat().st_size > 4_000 * 16_000
    keyspace.close()


def test_an_open_file_takes_the_place_of_another_open_one(tmp_path: Path) -> None:
    old = LmdbKeyspace.open(str(tmp_path / "store.mdb"), LIMITS)
    old.commit([TableChange(HEAD, [(b"a", b"1")])])
    old.copy(str(tmp_path / "copy"))
    new = LmdbKeyspace.open(str(tmp_path / "copy"), LIMITS)
    replace(new, str(tmp_path / "store.mdb"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store.mdb", "store.mdb-lock"]
    assert open_keyspace(str(tmp_path / "store.mdb")) is new
    assert open_keyspace(str(tmp_path / "copy")) is None
    old.commit([TableChange(HEAD, [(b"a", b"old")])])
    new.commit([TableChange(HEAD, [(b"b", b"2")])])
    old.close()
    assert open_keyspace(str(tmp_path / "store.mdb")) is new
    new.close()
    assert open_keyspace(str(tmp_path / "store.mdb")) is None
    again = LmdbKeyspace.open(str(tmp_path / "store.mdb"), LIMITS)
    assert everything(again) == [(b"a", b"1"), (b"b", b"2")]
    again.close()


def test_a_closed_one_still_says_how_large_it_was(tmp_path: Path) -> None:
    """The quota and the metrics ask at any time, also while a snapshot is put in the store's place."""
    keyspace = LmdbKeyspace.open(str(tmp_path / "store.mdb"), LIMITS)
    keyspace.commit([TableChange(HEAD, [(b"a", b"1" * 10_000)])])
    keyspace.renew()
    sizes = keyspace.allocated_bytes(), keyspace.used_bytes()
    assert min(sizes) > 10_000
    keyspace.close()
    keyspace.close()
    assert (keyspace.allocated_bytes(), keyspace.used_bytes()) == sizes
