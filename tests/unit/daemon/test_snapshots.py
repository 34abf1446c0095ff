"""Snapshots on their way: reads that do not hold the loop, and parts that outlive a restart."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from raftkv.daemon.snapshots import IncomingSnapshot, ThreadedReader
from raftkv.errors import DiskFailure
from raftkv.raft.messages import Configuration, SnapshotMeta
from raftkv.store.snapshot import SnapshotFileReader

DATA = bytes(range(200))


def meta_at(index: int, snapshot_id: int = 5) -> SnapshotMeta:
    return SnapshotMeta(index, 1, Configuration(frozenset({1, 2, 3})), len(DATA), 0, snapshot_id)


class SlowReader(SnapshotFileReader):
    """A disk that answers when the test says so."""

    def __init__(self, path: str, meta: SnapshotMeta) -> None:
        super().__init__(path, meta)
        self.asked = threading.Event()
        self.may_answer = threading.Event()

    def read(self, offset: int, size_max: int) -> bytes:
        self.asked.set()
        assert self.may_answer.wait(10), "the loop was held"
        return super().read(offset, size_max)


class Reading:
    """A reader in a thread, and what it delivered."""

    def __init__(self, tmp_path: Path) -> None:
        path = tmp_path / "snapshot"
        path.write_bytes(DATA)
        self.thread = ThreadPoolExecutor(1)
        self.slow = SlowReader(str(path), meta_at(9))
        self.failed: list[BaseException] = []
        self.delivered: list[bytes] = []
        self.reader = ThreadedReader(
            self.slow, loop=asyncio.get_running_loop(), thread=self.thread, on_failed=self.failed.append
        )

    async def settle(self) -> None:
        """Everything that was asked for has come back to the loop."""
        await asyncio.get_running_loop().run_in_executor(self.thread, lambda: None)
        await asyncio.sleep(0)


async def test_the_loop_goes_on_while_the_disk_is_slow(tmp_path: Path) -> None:
    reading = Reading(tmp_path)
    for offset in (0, 100):
        reading.reader.fetch(offset, 100, reading.delivered.append)
    await asyncio.to_thread(reading.slow.asked.wait, 10)
    for _ in range(100):
        await asyncio.sleep(0)  # turns of the loop, all while the read is under way
    assert reading.delivered == []
    reading.slow.may_answer.set()
    await reading.settle()
    assert reading.delivered == [DATA[:100], DATA[100:]]
    reading.thread.shutdown()


async def test_nothing_is_delivered_after_the_end(tmp_path: Path) -> None:
    """And the file is closed behind the read that is under way, not under it."""
    reading = Reading(tmp_path)
    reading.reader.fetch(0, 100, reading.delivered.append)
    reading.reader.close()
    reading.reader.close()
    reading.slow.may_answer.set()
    await reading.settle()
    assert (reading.delivered, reading.failed) == ([], [])
    reading.thread.shutdown()


async def test_a_disk_that_cannot_read_is_reported(tmp_path: Path) -> None:
    reading = Reading(tmp_path)
    reading.slow.may_answer.set()
    reading.slow.close()
    reading.reader.fetch(0, 100, reading.delivered.append)
    await reading.settle()
    assert reading.delivered == []
    assert isinstance(reading.failed[0], DiskFailure)
    reading.thread.shutdown()


class AtOnce(Executor):
    """Does what it is given before it returns, unless it is told to keep it for later."""

    def __init__(self) -> None:
        self.later: list[Callable[[], object]] | None = None

    def submit(self, work, /, *arguments, **settings):  # type: ignore[no-untyped-def]
        if self.later is None:
            work(*arguments, **settings)
        else:
            self.later.append(lambda: work(*arguments, **settings))
        return Future()


def test_a_part_is_gone_on_with_by_the_next_process(tmp_path: Path) -> None:
    first = IncomingSnapshot(tmp_path, 3, thread=AtOnce())
    assert first.receive(meta_at(9), 0, DATA[:50]) == 50
    first.close()
    second = IncomingSnapshot(tmp_path, 3, thread=AtOnce())
    assert second.receive(meta_at(9), 150, DATA[150:]) == 50
    assert second.receive(meta_at(9), 50, DATA[50:]) == len(DATA)
    assert Path(second.take(meta_at(9)).path).read_bytes() == DATA


@pytest.mark.parametrize("applied_index", [8, 9])
def test_a_part_of_what_is_applied_is_removed_at_the_start(tmp_path: Path, applied_index: int) -> None:
    first = IncomingSnapshot(tmp_path, 3, thread=AtOnce())
    first.receive(meta_at(9), 0, DATA[:50])
    first.close()
    IncomingSnapshot(tmp_path, applied_index, thread=AtOnce())
    assert len(list(tmp_path.iterdir())) == (1 if applied_index == 8 else 0)


def test_there_is_one_part_at_a_time(tmp_path: Path) -> None:
    incoming = IncomingSnapshot(tmp_path, 3, thread=AtOnce())
    incoming.receive(meta_at(9), 0, DATA[:50])
    assert incoming.receive(meta_at(12, snapshot_id=6), 0, DATA[:70]) == 70
    (part,) = tmp_path.iterdir()
    assert part.name == "incoming-12-6"
    incoming.drop_outdated(11)
    assert part.exists()
    incoming.drop_outdated(12)
    assert not part.exists()
    assert incoming.receive(meta_at(13, snapshot_id=7), 0, b"") == 0


def test_files_are_removed_off_the_loop_and_no_part_is_gone_on_with_meanwhile(tmp_path: Path) -> None:
    thread = AtOnce()
    thread.later = []
    incoming = IncomingSnapshot(tmp_path, 3, thread=thread)
    incoming.receive(meta_at(9), 0, DATA[:50])
    incoming.drop_outdated(9)
    assert [path.name for path in tmp_path.iterdir()] == ["incoming-9-5.tmp"], "as a crash would leave it"
    assert incoming.receive(meta_at(9), 0, DATA[:20]) == 20
    thread.later.pop()()
    assert [path.name for path in tmp_path.iterdir()] == ["incoming-9-5"]
