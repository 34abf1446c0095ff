"""Snapshots: what they say about themselves, transfers that are damaged, and an installation that crashes at every step."""

from pathlib import Path

import pytest

from raftkv.errors import Corruption, DiskFailure
from raftkv.raft.membership import encode_configuration
from raftkv.raft.messages import ENTRY_CONFIGURATION, Configuration, SnapshotMeta
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.snapshot import (
    SnapshotBytesReader,
    SnapshotBytesReceiver,
    SnapshotFile,
    SnapshotFileReader,
    SnapshotReceiver,
    dump_memory,
    install,
    write,
)
from raftkv.store.store import Store
from tests.unit.store.stores import LIMITS, SESSION, TWINS, Driver, keyspace_of, meta_of, put, ranged

CONFIGURATION = encode_configuration(Configuration(frozenset({1})))


def store_path(directory: Path) -> str:
    return str(directory / "store.mdb")


def made_snapshot(directory: Path) -> tuple[SnapshotFile, Driver]:
    """A snapshot at index 3, of a store that has gone on since."""
    driver = Driver(keyspace_of("lmdb", directory))
    driver.apply(put(b"a", b"1"), put(b"b" * 700, b"2"))
    driver.apply(put(b"a", b"3", seq=1), session=SESSION)
    driver.apply_entry(ENTRY_CONFIGURATION, CONFIGURATION)
    driver.commit()
    driver.apply(put(b"a", b"too late"))
    return write(store_path(directory), str(directory / "snapshot")), driver


def receive(directory: Path, made: SnapshotFile, meta: SnapshotMeta | None = None) -> SnapshotReceiver:
    receiver = SnapshotReceiver(str(directory), meta or meta_of(made))
    reader = SnapshotFileReader(made.path, meta_of(made))
    offset = 0
    while data := reader.read(offset, 4096):
        offset = receiver.write(offset, data)
    reader.close()
    return receiver


def test_a_snapshot_says_where_it_was_taken(tmp_path: Path) -> None:
    made, driver = made_snapshot(tmp_path)
    assert (made.index, made.term, made.configuration) == (3, 1, CONFIGURATION)
    assert made.size_bytes == Path(made.path).stat().st_size
    assert driver.store.applied_index == 4
    driver.store.close()
    again = write(store_path(tmp_path), str(tmp_path / "snapshot"))
    assert again.index == 3, "of a store that is not open, and over what a crash left behind"


def test_it_can_be_read_while_the_name_is_gone(tmp_path: Path) -> None:
    made, driver = made_snapshot(tmp_path)
    data = Path(made.path).read_bytes()
    reader = SnapshotFileReader(made.path, meta_of(made))
    Path(made.path).unlink()
    assert reader.read(0, 100) + reader.read(100, len(data)) == data
    assert reader.read(len(data), 100) == b""
    reader.close()
    reader.close()
    driver.store.close()


def test_an_installed_snapshot_is_the_store_of_its_index(tmp_path: Path) -> None:
    made, driver = made_snapshot(tmp_path)
    target = tmp_path / "other"
    target.mkdir()
    other = Driver(keyspace_of("lmdb", target))
    other.apply(put(b"z", b"old"))
    other.commit()
    other.store.close()
    received = receive(target, made).finish()
    install(received, store_path(target))
    assert sorted(path.name for path in target.iterdir()) == ["store.mdb", "store.mdb-lock"]
    store = Store.open(LmdbKeyspace.open(store_path(target), LIMITS), LIMITS)
    assert (store.applied_index, store.applied_term, store.configuration) == (3, 1, CONFIGURATION)
    assert [items[5] for items in store.read(ranged())[2]] == [b"3", b"2"]
    assert store.read(ranged(revision=3))[2][0][5] == b"1"
    digest = Store.digest.fget(store)  # type: ignore[attr-defined]
    entry = driver.log[3]
    assert store.apply(entry)[0][0][0] == 0
    assert store.digest == driver.store.digest != digest
    assert store.sessions_count == 1
    store.close()
    driver.store.close()


class Crash(BaseException):
    """Not an Exception: nothing may catch it."""


class CrashingDisk:
    """Stops at the given step; the steps before it are done for real."""

    def __init__(self, stop_at: int) -> None:
        self.stop_at = stop_at
        self.steps: list[str] = []

    def _step(self, name: str) -> None:
        if len(self.steps) == self.stop_at:
            raise Crash
        self.steps.append(name)

    def sync_file(self, path: str) -> None:
        self._step("sync file")

    def rename(self, source: str, target: str) -> None:
        self._step("rename")
        Path(source).rename(target)

    def sync_directory(self, path: str) -> None:
        self._step("sync directory")


@pytest.mark.parametrize("stop_at", range(4))
def test_a_crash_leaves_the_old_or_the_new_store(tmp_path: Path, stop_at: int) -> None:
    made, driver = made_snapshot(tmp_path)
    driver.store.close()
    target = tmp_path / "other"
    target.mkdir()
    other = Driver(keyspace_of("lmdb", target))
    other.apply(put(b"old"))
    other.commit()
    other.store.close()
    disk = CrashingDisk(stop_at)
    received = receive(target, made).finish()
    try:
        install(received, store_path(target), disk)
        assert stop_at == 3
    except Crash:
        assert stop_at < 3
    assert disk.steps == ["sync file", "rename", "sync directory"][:stop_at]
    store = Store.open(LmdbKeyspace.open(store_path(target), LIMITS), LIMITS)
    assert store.applied_index == (3 if stop_at >= 2 else 1)
    assert len(store.read(ranged())[2]) == (2 if stop_at >= 2 else 1)
    store.close()


def test_an_open_store_is_not_replaced(tmp_path: Path) -> None:
    made, driver = made_snapshot(tmp_path)
    with pytest.raises(AssertionError, match="closed before"):
        install(receive(tmp_path, made).finish(), store_path(tmp_path))
    driver.store.close()


def test_chunks_that_do_not_fit_are_ignored(tmp_path: Path) -> None:
    made, driver = made_snapshot(tmp_path)
    receiver = SnapshotReceiver(str(tmp_path), meta_of(made))
    assert receiver.write(5, b"gap") == 0
    assert receiver.write(0, b"12345") == 5
    assert receiver.write(0, b"12345") == 5
    assert receiver.write(3, b"overlap") == 5
    assert receiver.write(5, b"x" * made.size_bytes) == 5, "more than was announced"
    receiver.discard()
    assert not Path(receiver.path).exists()
    driver.store.close()


def test_a_transfer_that_was_damaged_is_refused_and_removed(tmp_path: Path) -> None:
    made, driver = made_snapshot(tmp_path)
    good = meta_of(made)
    short = SnapshotReceiver(str(tmp_path), good)
    short.write(0, b"x")
    flipped = SnapshotReceiver(str(tmp_path), meta_of(made, 8))
    data = bytearray(Path(made.path).read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write(0, bytes(data))
    other_index = receive(tmp_path, made, SnapshotMeta(9, 1, good.configuration, good.size_bytes, good.checksum, 9))
    nonsense = b"no database" * 100
    garbage = SnapshotReceiver(
        str(tmp_path), SnapshotMeta(3, 1, good.configuration, len(nonsense), __import__("zlib").crc32(nonsense), 10)
    )
    garbage.write(0, nonsense)
    for receiver, reason in (
        (short, "bytes"),
        (flipped, "checksum"),
        (other_index, "announced"),
        (garbage, "damaged"),
    ):
        with pytest.raises(Corruption, match=reason):
            receiver.finish()
        assert not Path(receiver.path).exists()
    driver.store.close()


def test_a_directory_that_is_gone_is_a_failure_of_the_disk(tmp_path: Path) -> None:
    made, driver = made_snapshot(tmp_path)
    with pytest.raises(DiskFailure):
        SnapshotReceiver(str(tmp_path / "gone"), meta_of(made))
    with pytest.raises(DiskFailure):
        install(str(tmp_path / "gone"), str(tmp_path / "store2.mdb"))
    driver.store.close()


def test_the_memory_keyspace_travels_as_bytes() -> None:
    keyspace = MemoryKeyspace()
    driver = Driver(keyspace)
    driver.apply(put(b"a", b"1"), put(b"b" * 700, b"2"))
    driver.commit()
    driver.apply(put(b"a", b"too late"))
    data, made = dump_memory(keyspace)
    assert made.index == 1
    receiver = SnapshotBytesReceiver(meta_of(made))
    reader = SnapshotBytesReader(data, meta_of(made))
    receiver.write(0, reader.read(0, 10))
    receiver.write(3, b"no")
    receiver.write(10, reader.read(10, made.size_bytes))
    store = Store.open(receiver.finish(), LIMITS)
    assert (store.applied_index, len(store.read(ranged())[2])) == (1, 2)
    bad = SnapshotBytesReceiver(meta_of(made))
    bad.write(0, b"\0" * made.size_bytes)
    with pytest.raises(Corruption, match="checksum"):
        bad.finish()


@pytest.mark.parametrize("twin", TWINS)
def test_a_store_of_either_kind_can_be_written_to_a_file(twin: str, tmp_path: Path) -> None:
    driver = Driver(keyspace_of(twin, tmp_path))
    driver.apply(put(b"a"))
    driver.commit()
    made = write(driver.store.keyspace, str(tmp_path / "snapshot"))
    assert (made.index, made.size_bytes) == (1, (tmp_path / "snapshot").stat().st_size)
    driver.store.close()


def test_a_transfer_goes_on_after_the_receiver_died(tmp_path: Path) -> None:
    """What it had received is in its file, and is not asked for again."""
    made, driver = made_snapshot(tmp_path)
    data = Path(made.path).read_bytes()
    first = SnapshotReceiver(str(tmp_path), meta_of(made))
    assert first.write(0, data[:5000]) == 5000
    first.close()
    second = SnapshotReceiver(str(tmp_path), meta_of(made))
    assert second.next_offset == 5000
    assert second.write(0, data[:4096]) == 5000, "the leader does not know yet"
    assert second.write(5000, data[5000:]) == len(data)
    assert Path(second.finish()).read_bytes() == data
    driver.store.close()


@pytest.mark.parametrize("damage", ["flipped", "zeroed", "too long", "of another length"])
def test_a_part_that_did_not_survive_whole_is_found_out(tmp_path: Path, damage: str) -> None:
    """Nobody synced it: after a power loss it may hold anything. The checksum is of the file, not of what passed by."""
    made, driver = made_snapshot(tmp_path)
    data = Path(made.path).read_bytes()
    first = SnapshotReceiver(str(tmp_path), meta_of(made))
    first.write(0, data[:5000])
    first.close()
    part = Path(first.path)
    if damage == "flipped":
        part.write_bytes(data[:4000] + bytes([data[4000] ^ 1]) + data[4001:5000])
    elif damage == "zeroed":
        part.write_bytes(bytes(5000))
    elif damage == "too long":
        part.write_bytes(data + b"x")
    else:
        part.write_bytes(data[:4999])
    second = SnapshotReceiver(str(tmp_path), meta_of(made))
    assert second.next_offset == {"too long": 0, "of another length": 4999}.get(damage, 5000)
    second.write(second.next_offset, data[second.next_offset :])
    if damage in ("flipped", "zeroed"):
        with pytest.raises(Corruption, match="has checksum"):
            second.finish()
        assert not part.exists(), "the next try begins anew"
    else:
        assert Path(second.finish()).read_bytes() == data
    driver.store.close()
