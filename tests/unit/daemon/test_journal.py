"""The journal's thread: saves become durable in order, together, or not at all."""

import asyncio
import errno
import threading
from collections.abc import Callable

from raftkv.daemon.journal import JournalThread
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
        self.journal = JournalThread(wal, loop, durable_index=0, observe_sync_seconds=lambda seconds: None)
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
        assert bench.journal.oldest_save_seconds > 0
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
