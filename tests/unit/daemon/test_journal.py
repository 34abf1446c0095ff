"""The journal's thread: saves become durable in order, together, or not at all."""

import asyncio
import errno
import threading
from collections.abc import Callable

import pytest

from raftkv.daemon import journal
from raftkv.daemon.journal import WalJournal
from raftkv.errors import DiskFailure, NoSpace
from raftkv.limits import KIB, Limits
from raftkv.raft.messages import Configuration, Entry, HardState, SnapshotMeta
from raftkv.wal.disk import Disk
from raftkv.wal.fakedisk import FakeDisk
from raftkv.wal.record import Identity
from raftkv.wal.wal import Wal
from tests.unit.conftest import Run

LIMITS = Limits(wal_segment_bytes=64 * KIB)


class Bench:
    """A journal on a disk in memory, with what it reported."""

    def __init__(self, disk: Disk) -> None:
        Wal.create(disk, "/wal", Identity("test", 1, "n1", 7), LIMITS).close()
        wal, _ = Wal.open(disk, "/wal", LIMITS)
        self.saved: list[int] = []
        self.space: list[NoSpace | None] = []
        self.failures: list[BaseException] = []
        self.changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.journal = WalJournal(wal, loop, durable_index=0, observe_sync_seconds=lambda seconds: None)
        self.journal.on_saved = self._note(self.saved)
        self.journal.on_space = self._note(self.space)
        self.journal.on_failed = self._note(self.failures)
        self.journal.start()

    def _note(self, into: list) -> Callable[[object], None]:  # type: ignore[type-arg]
        def note(what: object) -> None:
            into.append(what)
            self.changed.set()

        return note

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


def entry(index: int, size_bytes: int = 10) -> Entry:
    return Entry(index, 1, 1, b"x" * size_bytes)


def test_saves_are_reported_in_order_and_survive(run: Run) -> None:
    async def scenario() -> None:
        disk = FakeDisk()
        bench = Bench(disk)
        tickets = [bench.journal.save(HardState(1, 1, 0), [entry(index)], None) for index in (1, 2, 3)]
        await bench.until(lambda: tickets[-1] in bench.saved)
        assert bench.saved == sorted(bench.saved)
        assert bench.journal.durable_index == 3
        assert bench.journal.pending_bytes == 0
        await bench.journal.stop()
        _, recovered = Wal.open(disk, "/wal", LIMITS)
        assert [found.index for found in recovered.entries] == [1, 2, 3]
        assert recovered.hard_state.vote == 1

    run(scenario())


def test_what_queues_up_while_the_disk_works_is_synced_together(run: Run) -> None:
    async def scenario() -> None:
        free, busy = threading.Event(), threading.Event()
        syncs: list[str] = []

        def fault(operation: str, path: str) -> None:
            if operation == "fdatasync" and threading.current_thread() is not threading.main_thread():
                syncs.append(path)
                busy.set()
                free.wait(10)

        disk = FakeDisk()
        bench = Bench(disk)
        disk.fault = fault
        bench.journal.save(None, [entry(1)], None)
        await asyncio.get_running_loop().run_in_executor(None, busy.wait, 10)
        tickets = [bench.journal.save(None, [entry(index)], None) for index in range(2, 50)]
        assert bench.journal.look_at_oldest_save() > 0
        free.set()
        await bench.until(lambda: tickets[-1] in bench.saved)
        assert len(syncs) == 2
        await bench.journal.stop()

    run(scenario())


def test_a_full_disk_keeps_the_saves_and_goes_on_when_there_is_room(run: Run) -> None:
    async def scenario() -> None:
        full = threading.Event()

        def fault(operation: str, path: str) -> None:
            if full.is_set() and operation == "pwritev":
                raise OSError(errno.ENOSPC, "No space left on device")

        disk = FakeDisk()
        bench = Bench(disk)
        disk.fault = fault
        full.set()
        ticket = bench.journal.save(None, [entry(1, 1000)], None)
        await bench.until(lambda: bool(bench.space))
        assert isinstance(bench.space[0], NoSpace)
        assert bench.saved == []
        full.clear()
        await bench.until(lambda: ticket in bench.saved)
        assert bench.space[-1] is None
        await bench.journal.stop()
        _, recovered = Wal.open(disk, "/wal", LIMITS)
        assert len(recovered.entries) == 1

    run(scenario())


def test_a_failed_fsync_is_fatal_and_nothing_is_reported_saved(run: Run) -> None:
    async def scenario() -> None:
        def fault(operation: str, path: str) -> None:
            if operation == "fdatasync":
                raise OSError(errno.EIO, "Input/output error")

        disk = FakeDisk()
        bench = Bench(disk)
        disk.fault = fault
        bench.journal.save(None, [entry(1)], None)
        await bench.until(lambda: bool(bench.failures))
        assert isinstance(bench.failures[0], DiskFailure)
        assert bench.saved == []

    run(scenario())


def test_a_snapshot_replaces_the_log(run: Run) -> None:
    async def scenario() -> None:
        disk = FakeDisk()
        bench = Bench(disk)
        bench.journal.save(None, [entry(1)], None)
        meta = SnapshotMeta(50, 1, Configuration(frozenset({1})))
        ticket = bench.journal.save(HardState(1, 0, 50), [], meta)
        await bench.until(lambda: ticket in bench.saved)
        assert bench.journal.durable_index == 50
        await bench.journal.stop()
        _, recovered = Wal.open(disk, "/wal", LIMITS)
        assert (recovered.log_start_index, recovered.entries) == (50, [])

    run(scenario())


class Syncs:
    """Where the fdatasyncs of a disk happen."""

    def __init__(self, disk: FakeDisk) -> None:
        self.threads: list[bool] = []
        self.refuse_writes = False
        disk.fault = self._note

    def _note(self, operation: str, path: str) -> None:
        if operation == "fdatasync":
            self.threads.append(threading.current_thread() is not threading.main_thread())
        if operation == "pwritev" and self.refuse_writes:
            raise OSError(errno.ENOSPC, "No space left on device")


async def earn_the_loop(bench: Bench, first_index: int = 1) -> int:
    """As many quick syncs as it takes; returns the next index."""
    for index in range(first_index, first_index + journal.QUICK_SYNCS_MIN):
        ticket = bench.journal.save(None, [entry(index)], None)
        await bench.until(lambda ticket=ticket: bench.saved[-1:] == [ticket])  # type: ignore[misc]
    return first_index + journal.QUICK_SYNCS_MIN


def test_a_quick_disk_is_synced_in_the_loop_and_a_slow_one_in_the_thread_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(journal, "QUICK_SYNC_SECONDS", 10.0)
        disk = FakeDisk()
        bench = Bench(disk)
        syncs = Syncs(disk)
        index = await earn_the_loop(bench)
        assert all(syncs.threads), "a disk has to earn it"
        syncs.threads.clear()
        tickets = [bench.journal.save(None, [entry(index + number)], None) for number in range(5)]
        assert bench.saved[-1] < tickets[0], "nothing is reported from inside save"
        await bench.until(lambda: bench.saved[-1] == tickets[-1])
        assert syncs.threads == [False], "one sync for all that gathered in the turn"
        monkeypatch.setattr(journal, "QUICK_SYNC_SECONDS", -1.0)
        monkeypatch.setattr(journal, "SLOW_SYNC_SECONDS", 0.0)
        for number in (5, 6):
            ticket = bench.journal.save(None, [entry(index + number)], None)
            await bench.until(lambda ticket=ticket: bench.saved[-1] == ticket)  # type: ignore[misc]
        assert syncs.threads[-1], "one slow sync and the thread has it again"
        await bench.journal.stop()
        _, recovered = Wal.open(disk, "/wal", LIMITS)
        assert [found.index for found in recovered.entries] == list(range(1, index + 7))

    run(scenario())


def test_a_disk_that_fills_up_under_the_loop_is_waited_for_in_the_thread(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(journal, "QUICK_SYNC_SECONDS", 10.0)
        disk = FakeDisk()
        bench = Bench(disk)
        syncs = Syncs(disk)
        index = await earn_the_loop(bench)
        syncs.refuse_writes = True
        first = bench.journal.save(None, [entry(index)], None)
        await bench.until(lambda: bool(bench.space))
        second = bench.journal.save(None, [entry(index + 1)], None)
        assert bench.saved[-1] < first
        syncs.refuse_writes = False
        await bench.until(lambda: bench.saved[-1] == second)
        assert bench.space[-1] is None
        await bench.journal.stop()
        _, recovered = Wal.open(disk, "/wal", LIMITS)
        assert len(recovered.entries) == index + 1

    run(scenario())


def test_compaction_keeps_its_place_among_saves_of_the_loop(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(journal, "QUICK_SYNC_SECONDS", 10.0)
        disk = FakeDisk()
        bench = Bench(disk)
        index = await earn_the_loop(bench)
        bench.journal.save(None, [entry(index)], None)
        bench.journal.compact(index - 1, 1)
        ticket = bench.journal.save(None, [entry(index + 1)], None)
        await bench.until(lambda: bench.saved[-1] == ticket)
        await bench.journal.stop()
        _, recovered = Wal.open(disk, "/wal", LIMITS)
        assert [found.index for found in recovered.entries][-2:] == [index, index + 1]
        assert recovered.log_start_index == index - 1

    run(scenario())


def test_a_failed_fsync_in_the_loop_is_as_fatal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(journal, "QUICK_SYNC_SECONDS", 10.0)
        disk = FakeDisk()
        bench = Bench(disk)
        index = await earn_the_loop(bench)

        def fault(operation: str, path: str) -> None:
            if operation == "fdatasync":
                raise OSError(errno.EIO, "Input/output error")

        disk.fault = fault
        reported = len(bench.saved)
        bench.journal.save(None, [entry(index)], None)
        await bench.until(lambda: bool(bench.failures))
        assert isinstance(bench.failures[0], DiskFailure)
        assert len(bench.saved) == reported

    run(scenario())


def test_a_sync_that_holds_the_loop_is_reported_by_the_thread_and_makes_the_loop_harder_to_earn(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(journal, "QUICK_SYNC_SECONDS", 10.0)
        monkeypatch.setattr(journal, "WATCH_SECONDS", 0.01)
        disk = FakeDisk()
        bench = Bench(disk)
        next_index = await earn_the_loop(bench)
        said = threading.Event()
        monkeypatch.setattr(
            journal.log, "error", lambda text, *values: said.set() if "holds this member" in text else None
        )
        monkeypatch.setattr(bench.journal, "_stall_seconds_max", 0.0)
        for name in ("QUICK_SYNC_SECONDS", "SLOW_SYNC_SECONDS", "STALLED_SYNC_SECONDS"):
            monkeypatch.setattr(journal, name, 0.0)
        heard: list[bool] = []

        def fault(operation: str, path: str) -> None:
            if operation == "fdatasync" and threading.current_thread() is threading.main_thread():
                heard.append(said.wait(10))

        disk.fault = fault
        ticket = bench.journal.save(None, [entry(next_index)], None)
        await bench.until(lambda: ticket in bench.saved)
        assert heard == [True], "the loop can say nothing while it waits; the thread did"
        assert bench.journal._quick_syncs == 0
        assert bench.journal._quick_syncs_needed == 2 * journal.QUICK_SYNCS_MIN
        await bench.journal.stop()

    run(scenario())


def test_who_was_stopped_does_not_blame_the_disk() -> None:
    """A save that waits since 100 s, with a look every half second, and one that comes three seconds later."""
    looks = journal.Onlooker()
    assert looks.look(0.0, 99.9) == 0
    assert [looks.look(100.0, 100.2 + number / 2) for number in range(3)] == pytest.approx([0.2, 0.7, 1.2])
    assert looks.look(100.0, 104.2) == pytest.approx(1.2 + 2 * journal.WATCH_SECONDS)
    assert looks.look(104.3, 107.3) == pytest.approx(2 * journal.WATCH_SECONDS), "stopped right behind its beginning"
    assert looks.look(0.0, 107.4) == 0
    assert looks.look(108.0, 108.4) == pytest.approx(0.4)
