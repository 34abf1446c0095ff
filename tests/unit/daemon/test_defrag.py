"""Defragmentation on real LMDB files: the file shrinks, nothing changes, and every moment at which it can end is a good one."""

import asyncio
import errno
import os
import shutil
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest

from raftkv.daemon import defrag
from raftkv.daemon.datadir import DataDirectory
from raftkv.errors import DiskFailure, NoSpace, Overloaded, RaftKVError, ShuttingDown
from raftkv.limits import KIB
from raftkv.raft.messages import ENTRY_COMMANDS, Entry, SnapshotMeta
from raftkv.store.lmdb_keyspace import LOCK_SUFFIX, LmdbKeyspace, open_keyspace
from raftkv.store.records import revision_of
from raftkv.store.snapshot import replace, write
from raftkv.store.store import Store
from raftkv.store.watcher import Batch
from raftkv.units import Index
from raftkv.wire.commands import LEASE_GRANT, LEASE_REVOKE, OK, Answer, encode_batch
from raftkv.wire.protocol import WATCH_CREATE
from tests.unit.daemon.storage_rig import LIMITS, VALUE, Rig, content_of, files_size, state_of
from tests.unit.store.stores import SESSION, get, increment, meta_of, put, ranged

STEPS = ("copied", "caught up", "named", "swapped")


class Sink:
    """A watcher's end of the line."""

    takes_events = True

    def __init__(self) -> None:
        self.revisions: list[int] = []

    def on_events(self, tag: int, batch: Batch) -> None:
        self.revisions += [revision_of(event.record) for event in batch.events]

    def on_progress(self, tag: int, revision: int) -> None: ...

    def on_canceled(self, tag: int, error: RaftKVError) -> None:
        raise error


async def test_the_file_shrinks_and_nothing_changes(rig: Rig) -> None:
    path = rig.directory.store_file
    before, size = rig.state(), files_size(path)
    code, figures = await rig.run()
    assert code == OK
    assert figures["before_bytes"] > 3 * figures["after_bytes"]
    assert files_size(path) < size / 3
    assert rig.state() == before
    assert rig.leftovers() == []
    assert sorted(os.listdir(path.parent)) == [path.name, path.name + LOCK_SUFFIX]
    assert open_keyspace(str(path)) is rig.storage.store.keyspace
    assert (rig.storage.hold_index, rig.storage.commits_paused) == (None, False)
    # It goes on as a store does: writes, exactly once, commits, and a start from the file.
    assert rig.apply(increment(b"n"), session=SESSION)[0][2] == 2
    assert rig.apply([LEASE_REVOKE, 0, 7])[0][0] == OK
    await rig.commit()
    after = rig.state()
    await rig.close()
    reopened = Store.open(LmdbKeyspace.open(str(path), LIMITS), LIMITS)
    assert state_of(reopened) == after
    reopened.close()


async def test_writes_at_every_step_are_in_the_new_store(rig: Rig) -> None:
    steps: list[str] = []

    def write(step: str) -> None:
        steps.append(step)
        for number in range(20):
            rig.apply(put(b"%s/%d" % (step.encode(), number), VALUE))
        assert rig.storage.durable_applied_index <= rig.storage.store.durable_applied_index

    rig.on_step(write)
    old = rig.storage.store
    assert (await rig.run())[0] == OK
    assert steps == list(STEPS)
    assert rig.storage.store is not old
    for step in STEPS:
        assert rig.storage.read(get(b"%s/19" % step.encode()))[2][5] == VALUE
    await rig.commit()


async def test_commits_go_on_meanwhile_and_the_log_is_held(rig: Rig) -> None:
    """What the store commits during the copy does not let the log go, because the copy needs it."""
    held: list[Index] = []
    first = rig.storage.durable_applied_index

    async def go_on() -> None:
        for number in range(50):
            rig.apply(put(b"on/%d" % number, VALUE))
            await rig.commit()
            held.append(rig.storage.durable_applied_index)

    task = asyncio.create_task(go_on())
    answered = rig.start()
    assert (await asyncio.wait_for(answered, 20))[0] == OK
    await task
    assert held[0] == first
    assert held == sorted(held)
    assert rig.storage.durable_applied_index == rig.storage.applied_index


async def test_a_small_overlay_is_committed_on_the_way(tmp_path: Path) -> None:
    """More is written meanwhile than may wait in memory."""
    rig = Rig(tmp_path / "data", changed(LIMITS, commit_bytes=64 * KIB, overlay_bytes_max=256 * KIB))
    rig.apply(put(b"k", VALUE))
    await rig.commit()
    first = rig.storage.durable_applied_index
    durable: list[Index] = []

    def on_step(step: str) -> None:
        if step == "copied":
            for number in range(200):
                rig.apply(put(b"more/%d" % number, VALUE))
        elif step == "named":
            durable.append(rig.storage.hold_index or 0)

    rig.on_step(on_step)
    assert (await rig.run())[0] == OK
    assert durable[0] > first
    assert rig.storage.read(get(b"more/199"))[2][5] == VALUE
    await rig.commit()
    await rig.close()
    assert not rig.failed


async def test_watchers_waits_ranges_and_books_do_not_notice(rig: Rig) -> None:
    sink, hub = Sink(), rig.storage.watches
    watcher, revision = hub.create([WATCH_CREATE, b"w/", b"w0", 0, 0], sink, 1)
    answers: list[Answer] = []
    hub.waits.add([0, 0, True, [b"w/9"], 0], answers.append, 1 << 60)
    rig.apply(*(put(b"r/%04d" % number, VALUE) for number in range(300)))
    rig.apply(*(put(b"r/%04d" % number) for number in range(300, 5_000)))
    rig.storage.leases.take_news()
    cursor = rig.storage.range_cursor(ranged(b"r/", b"r0"))
    assert not cursor.step()

    def write(step: str) -> None:
        rig.apply(put(b"w/%d" % STEPS.index(step), b""), put(b"r/0000", b"new"))
        rig.apply([LEASE_GRANT, 0, 100 + STEPS.index(step), 60_000])

    rig.on_step(write)
    assert (await rig.run())[0] == OK
    assert not hub.lagging_count
    while hub.has_backlog:
        hub.step()
    assert len(sink.revisions) == 4
    assert sink.revisions == sorted(set(sink.revisions))
    assert watcher.position is None
    assert list(rig.storage.leases.take_news()) == [(100 + step, True) for step in range(4)]
    while not cursor.step():
        pass
    kvs = cursor.answer()[2]
    assert [kv[0] for kv in kvs] == [b"r/%04d" % number for number in range(5_000)]
    assert kvs[0][5] == VALUE, "of the revision at which the range began"
    assert not answers
    rig.apply(put(b"w/9", b"there"))
    assert [answer[2][0][5] for answer in answers] == [b"there"]
    assert revision < sink.revisions[0]


# A crash at any moment.


def crash(rig: Rig, target: Path, *, old_name: Path | None = None) -> Store:
    """What a process finds that starts after this one was killed now: its files, and the log as far as it is held.

    `old_name`: the rename was not durable, and the name leads to the old file (kept there) again.
    """
    start_index = rig.storage.durable_applied_index
    shutil.copytree(rig.directory.path, target, ignore=shutil.ignore_patterns("LOCK"))
    store_file = target / "store" / rig.directory.store_file.name
    if old_name is not None:
        store_file.rename(target / "snapshots" / "defrag-00.tmp")
        shutil.copy(old_name, store_file)
    with DataDirectory(target):
        assert not list((target / "snapshots").iterdir())
        store = Store.open(LmdbKeyspace.open(str(store_file), LIMITS), LIMITS)
    assert store.applied_index >= start_index, "what the store lacks is in the log"
    for entry in rig.log.entries[store.applied_index : rig.storage.applied_index]:
        store.apply(entry)
    return store


async def test_a_crash_at_any_moment_loses_nothing(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every step, and between any two things that the disk is told while the file gets its name, durable or not."""
    moments: list[str] = []
    old_file = tmp_path / "old"

    def die(moment: str) -> None:
        names = [None] if moment not in ("store.lmdb", "store.lmdb-lock", "sync", "named") else [None, old_file]
        for number, old_name in enumerate(names):
            store = crash(rig, tmp_path / f"{moment}-{number}", old_name=old_name)
            assert state_of(store) == rig.state(), moment
            store.close()
        moments.append(moment)

    class Disk:
        def sync_file(self, path: str) -> None:
            raise AssertionError("the copy was synced when it was made")

        def rename(self, source: str, target: str) -> None:
            if not old_file.exists():
                shutil.copy(target, old_file)
                die("before")
            os.rename(source, target)
            die(os.path.basename(target))

        def sync_directory(self, path: str) -> None:
            die("sync")

    def write_and_die(step: str) -> None:
        rig.apply(put(step.encode(), VALUE))
        die(step)

    monkeypatch.setattr(defrag, "replace", lambda copy, path: replace(copy, path, Disk()))
    rig.on_step(write_and_die)
    assert (await rig.run())[0] == OK
    assert moments == ["copied", "caught up", "before", "store.lmdb", "store.lmdb-lock", "sync", "named", "swapped"]


# What ends an attempt.


async def check_unchanged(rig: Rig, old: Store, before: Any) -> None:
    """The member is what it was, goes on, and the next attempt succeeds."""
    assert rig.storage.store is old
    assert rig.state() == before
    assert rig.leftovers() == []
    assert (rig.storage.hold_index, rig.storage.commits_paused) == (None, False)
    rig.apply(put(b"after", b"it"))
    await rig.commit()
    assert (await rig.run())[0] == OK
    assert rig.storage.read(get(b"after"))[2][5] == b"it"


def no_space(*arguments: Any, **named: Any) -> Any:
    raise NoSpace("planted")


async def test_a_disk_without_room_is_refused_with_figures(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    old, before = rig.storage.store, rig.state()
    figures = os.statvfs(rig.directory.path)

    class Small:
        f_bavail, f_frsize = 1000, 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Small)
    _, code, may_have_happened, message, details = await rig.run()
    assert (code, may_have_happened) == ("no_space", False)
    assert "4 MiB free" in message
    assert details["free_bytes"] == 4_096_000
    assert details["needed_bytes"] > details["free_bytes"]
    monkeypatch.setattr(os, "statvfs", lambda path: figures)
    await check_unchanged(rig, old, before)


@pytest.mark.parametrize("where", ["copy", "commit", "rename"])
async def test_a_disk_that_becomes_full_changes_nothing(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path / "data", changed(LIMITS, commit_bytes=1, commit_interval_ms=1_000_000))
    await rig.fill()
    old, before = rig.storage.store, rig.state()
    with monkeypatch.context() as planted:
        if where == "copy":
            planted.setattr(LmdbKeyspace, "copy", no_space)
        elif where == "rename":
            planted.setattr(defrag, "replace", no_space)
        else:

            def write(step: str) -> None:
                if step == "copied":
                    planted.setattr(LmdbKeyspace, "commit", no_space)
                    for number in range(2000):
                        rig.apply(put(b"%d" % number, VALUE))

            rig.on_step(write)
        answer = await rig.run()
    rig.on_step(lambda step: None)
    assert answer[1:4] == ["no_space", False, "planted"]
    if where == "commit":
        await rig.commit()
        before = rig.state()
    await check_unchanged(rig, old, before)
    await rig.close()
    assert not rig.failed


async def test_a_name_that_may_not_be_durable_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the rename the old file is nobody's: not even a full disk lets the member go on with it."""
    rig = Rig(tmp_path / "data")
    await rig.fill()

    class Disk:
        sync_file = rename = staticmethod(os.rename)

        def sync_directory(self, path: str) -> None:
            raise OSError(errno.EIO, "planted")

    monkeypatch.setattr(defrag, "replace", lambda copy, path: replace(copy, path, Disk()))
    answer = await rig.run()
    assert answer[1] == "disk_failure"
    assert [type(error) for error in rig.failed] == [DiskFailure]
    await rig.storage.close(0)
    rig.directory.close()


async def test_an_entry_that_is_gone_ends_it(rig: Rig) -> None:
    old = rig.storage.store

    def lose(step: str) -> None:
        if step == "copied":
            rig.apply(put(b"lost", b""))
            rig.log.start_index = rig.storage.applied_index

    rig.on_step(lose)
    assert (await rig.run())[1:4] == [
        "overloaded",
        False,
        f"the log does not hold entry {rig.log.start_index} any more: try again",
    ]
    rig.on_step(lambda step: None)
    await check_unchanged(rig, old, rig.state())


async def test_a_copy_that_differs_is_not_trusted(rig: Rig) -> None:
    old, before = rig.storage.store, rig.state()
    entries = rig.log.entries

    def forge(step: str) -> None:
        if step == "copied":
            rig.apply(put(b"k", b"one"))
            index = rig.storage.applied_index
            forged = Entry(
                index, 1, ENTRY_COMMANDS, encode_batch(index, [[None, True, 0, None, 0, [put(b"k", b"two")]]])
            )
            held.append(entries[-1])
            entries[-1] = forged

    held: list[Entry] = []
    rig.on_step(forge)
    answer = await rig.run()
    assert answer[1:3] == ["internal", False]
    assert "another state" in answer[3]
    entries[-1] = held[0]
    rig.on_step(lambda step: None)
    assert rig.storage.store is old
    assert rig.storage.applied_index == before[0] + 1
    await check_unchanged(rig, old, rig.state())


async def test_a_log_that_grows_too_long_ends_it(rig: Rig) -> None:
    old, before = rig.storage.store, rig.state()
    rig.log.log_bytes = LIMITS.log_held_bytes_max + 1
    _, code, _, message, *_ = await rig.run()
    assert code == "overloaded"
    assert "writes came faster than the copy was made" in message
    rig.log.log_bytes = 0
    await check_unchanged(rig, old, before)


async def test_who_asks_meanwhile_shares_the_answer(rig: Rig) -> None:
    first, second = rig.start(), rig.start()
    assert (await asyncio.wait_for(first, 20))[0] == OK
    assert second.result() is first.result()


@pytest.mark.parametrize("step", STEPS)
async def test_stopped_at_any_step_it_ends_or_is_finished(rig: Rig, step: str) -> None:
    """As by a snapshot that is put in place: before the new file has the name it is given up, then it is finished."""
    old, before = rig.storage.store, rig.state()
    stopping: list[asyncio.Task[None]] = []

    def stop(reached: str) -> None:
        if reached == step:
            for number in range(2_000 if step == "copied" else 1):  # more than is applied in one turn
                rig.apply(put(b"late", b"%d" % number))
            stopping.append(asyncio.create_task(rig.defrag.stop(Overloaded("planted"))))

    rig.on_step(stop)
    answer = await rig.run()
    await stopping[0]
    rig.on_step(lambda step: None)
    if step == "copied":
        assert answer[1:4] == ["overloaded", False, "planted"]
        assert rig.storage.applied_index == before[0] + 2_000
        await check_unchanged(rig, old, rig.state())
    else:
        assert answer[0] == OK
        assert rig.storage.store is not old
        assert rig.storage.read(get(b"late"))[2] is not None


async def test_after_the_end_none_is_begun(rig: Rig) -> None:
    answered = rig.start()
    await rig.defrag.close(ShuttingDown())
    assert answered.result()[1] == "shutting_down"
    assert rig.leftovers() == []
    assert (await rig.run())[1] == "shutting_down"


async def test_the_log_must_be_durable_before_the_copy_commits(tmp_path: Path) -> None:
    """As with every commit: LMDB never holds what the log may lose."""
    rig = Rig(tmp_path / "data", changed(LIMITS, commit_bytes=1))
    await rig.fill()
    commits: list[Index] = []

    def on_step(step: str) -> None:
        if step == "copied":
            rig.journal_durable = False
            for number in range(1000):
                rig.apply(put(b"%d" % number, VALUE))
            rig.loop.call_later(0.1, let_go)

    def let_go() -> None:
        commits.append(rig.storage.hold_index or 0)
        rig.journal_durable = True

    before = rig.storage.durable_applied_index
    rig.on_step(on_step)
    assert (await rig.run())[0] == OK
    assert commits == [before]
    await rig.close()


@pytest.mark.parametrize("step", ["copied", "named"])
async def test_a_snapshot_that_is_taken_in_goes_first(rig: Rig, tmp_path: Path, step: str) -> None:
    """It ends the attempt, or waits for the one turn that is left of it; what was received is the store then."""
    await rig.commit()
    made = write(rig.storage.store.keyspace, str(tmp_path / "snapshot"))
    meta = meta_of(made)
    assert rig.storage.receive_chunk(meta, 0, content_of(made.path)) == meta.size_bytes
    before, installed = rig.state(), asyncio.Event()

    def on_installed(meta: SnapshotMeta, ok: bool) -> None:
        assert ok
        installed.set()

    def install(reached: str) -> None:
        if reached == step:
            if step == "copied":
                for number in range(2_000):  # more than is applied in one turn
                    rig.apply(put(b"late", b"%d" % number))
            rig.storage.begin_install(meta)

    rig.storage.on_snapshot_installed = on_installed
    rig.on_step(install)
    answer = await rig.run()
    assert answer[:2] == ([1, "overloaded"] if step == "copied" else [OK, answer[1]])
    refused: list[Answer] = []
    if rig.storage.is_replacing:
        rig.defrag.start(refused.append)
        assert refused[0][1] == "overloaded"
    await asyncio.wait_for(installed.wait(), 20)
    del rig.log.entries[before[0] :]
    assert rig.state() == before
    assert rig.leftovers() == []
    assert (rig.storage.hold_index, rig.storage.commits_paused) == (None, False)
    rig.on_step(lambda step: None)
    rig.apply(put(b"after", b"it"))
    await rig.commit()
    assert (await rig.run())[0] == OK
