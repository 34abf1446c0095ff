"""A storage as in the daemon, on real LMDB files, with what it needs around it."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raftkv.daemon.datadir import DataDirectory
from raftkv.daemon.defrag import Defragmentation
from raftkv.daemon.storage import Storage
from raftkv.daemon.timings import Timings
from raftkv.errors import ShuttingDown
from raftkv.limits import KIB, MIB, Limits
from raftkv.raft.messages import ENTRY_COMMANDS, Entry
from raftkv.store.store import Store
from raftkv.units import Index
from raftkv.wire.commands import COMPACT, LEASE_GRANT, Answer, encode_batch
from tests.unit.store.stores import SESSION, delete, increment, put, ranged

LIMITS = Limits(map_bytes=256 * MIB, wal_segment_bytes=1 * MIB)
VALUE = b"v" * 8 * KIB


class FakeLog:
    """All entries so far, as the core holds them; `start_index`: what is compacted."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.start_index = self.log_bytes = 0

    def held_entries(self, first: Index, last: Index, bytes_max: int) -> Sequence[Entry]:
        return self.entries[first - 1 : last][:7] if first > self.start_index else []


class Rig:
    """A storage as in the daemon, with a log beside it, and its defragmentation."""

    def __init__(self, path: Path, limits: Limits = LIMITS) -> None:
        self.loop = asyncio.get_running_loop()
        self.directory = DataDirectory(path)
        self.limits = limits
        self.log = FakeLog()
        self.failed: list[BaseException] = []
        self.storage = Storage(
            loop=self.loop,
            store_file=self.directory.store_file,
            snapshots_path=self.directory.snapshots_path,
            limits=limits,
            timings=Timings(),
        )
        self.storage.on_failed = self.failed.append
        self.journal_durable = True
        self.closed = False
        self.defrag = Defragmentation(
            self.storage,
            self.directory,
            loop=self.loop,
            limits=limits,
            held_log=self.log,
            journal_durable_index=lambda: self.storage.applied_index if self.journal_durable else 0,
        )

    def apply(self, *commands: Any, session: Any = None) -> list[Answer]:
        groups = [[session, True, 0, None, 0, list(commands)]]
        index = self.storage.applied_index + 1
        self.log.entries.append(Entry(index, 1, ENTRY_COMMANDS, encode_batch(index, groups)))
        return self.storage.apply(self.log.entries[-1])[0]

    async def commit(self) -> None:
        while self.storage.store.durable_applied_index < self.storage.applied_index or self.storage.is_committing:
            self.storage.commit_soon(self.storage.applied_index)
            await asyncio.sleep(0.001)

    async def fill(self) -> None:
        """Much is written, and most of it deleted and compacted, so that the file is mostly free pages."""
        for number in range(200):
            self.apply(put(b"fill/%d" % number, VALUE))
        self.apply([LEASE_GRANT, 0, 7, 60_000], put(b"leased", b"x", lease=7), increment(b"n"), session=SESSION)
        await self.commit()
        for number in range(190):
            self.apply(delete(b"fill/%d" % number))
        self.apply([COMPACT, 0, self.storage.revision])
        while self.storage.store.compaction.done < self.storage.compact_revision:
            self.storage.store.compaction.step()
            self.apply(put(b"tick", b""))
            await self.commit()

    def start(self) -> "asyncio.Future[Answer]":
        answered: asyncio.Future[Answer] = self.loop.create_future()
        self.defrag.start(answered.set_result)
        return answered

    async def run(self) -> Answer:
        return await asyncio.wait_for(self.start(), 20)

    def on_step(self, act: Callable[[str], Any]) -> None:
        self.defrag.on_step = act

    def state(self) -> Any:
        return state_of(self.storage.store)

    def leftovers(self) -> list[str]:
        return [path.name for path in self.directory.snapshots_path.iterdir()]

    async def close(self) -> None:
        if self.closed:
            return
        await self.defrag.close(ShuttingDown())
        await self.storage.close(self.storage.applied_index)
        self.directory.close()
        self.closed = True


def state_of(store: Store) -> Any:
    """All that can be asked of a store."""
    kvs = store.read(ranged())[2]
    leases = {
        lease_id: (lease.remaining_ms, sorted(lease.keys))
        for lease_id in store.leases
        if (lease := store.leases.get(lease_id))
    }
    return store.applied_index, store.revision, store.compact_revision, store.digest, store.sessions_count, leases, kvs


def content_of(path: str) -> bytes:
    return Path(path).read_bytes()


def files_size(path: Path) -> int:
    return path.stat().st_size
