"""The twin of daemon/storage.py: the real Store on the keyspace in memory, commits and snapshots taking virtual time.

The keyspace belongs to the machine and plays the disk: what was committed there is what a restart finds. A commit under way when
the power goes is there or not, whole (LMDB's promise); an installation ends with the whole old or the whole new store.
"""

from typing import TYPE_CHECKING, Any, Sequence

from raftkv.errors import Corruption, NoSpace, Overloaded
from raftkv.raft.membership import decode_configuration
from raftkv.raft.messages import Configuration, Entry, SnapshotMeta
from raftkv.replica.ports import ReadCursor
from raftkv.store.access import Access
from raftkv.store.keyspace import TableChange
from raftkv.store.leases import Leases
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.snapshot import SnapshotBytesReader, SnapshotBytesReceiver, dump_memory
from raftkv.store.store import CommitJob, Store
from raftkv.store.watches import WatchHub
from raftkv.units import Index
from raftkv.wire.commands import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .machine import Machine
    from .process import Process

COMMIT_RETRY_US = 1_000_000
COMPACTION_STEPS = 4


class SimKeyspace(MemoryKeyspace):
    """A keyspace on a machine's disk, which may be full."""

    def __init__(self, machine: "Machine") -> None:
        super().__init__()
        self._machine = machine

    @classmethod
    def adopt(cls, machine: "Machine", received: MemoryKeyspace) -> "SimKeyspace":
        """A received keyspace takes its place on the disk."""
        keyspace = cls(machine)
        keyspace._tables = received._tables
        return keyspace

    def commit(self, changes: "Iterable[TableChange]") -> None:
        if self._machine.disk_is_full:
            raise NoSpace("the simulated disk is full")
        super().commit(changes)


class SimStorage:
    """Implements replica.ports.StateMachine and replica.upkeep.Directory."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self._world = process.world
        self._machine = process.machine
        self._limits = process.world.knobs.limits
        self._random = self._world.stream(f"storage {self._machine.node_id}")
        self._ids = self._world.stream(f"snapshots {self._machine.node_id} {self._machine.lives}")
        self._job: CommitJob | None = None
        self._next_commit_us = 0
        self._receiver: SnapshotBytesReceiver | None = None
        self._replacing = False
        self.full: NoSpace | None = None
        self.snapshots_made = 0
        self.snapshots_installed = 0
        self._watches = WatchHub(self._limits, history_events_per_step=self._world.knobs.history_events_per_step)
        self.store = Store.open(self._machine.keyspace, self._limits)
        self.store.tell(self._watches)
        self._books = self._machine.books
        self._on_applied = self._world.checks.on_applied

    # replica.ports.StateMachine.

    @property
    def access(self) -> Access:
        return self.store.access

    @property
    def applied_index(self) -> Index:
        return self.store.applied_index

    @property
    def durable_applied_index(self) -> Index:
        return self.store.durable_applied_index

    @property
    def clock_ms(self) -> int:
        return self.store.clock_ms

    @property
    def revision(self) -> int:
        return self.store.revision

    @property
    def digest(self) -> int:
        return self.store.digest

    @property
    def leases(self) -> Leases:
        return self.store.leases

    @property
    def db_size_in_use_bytes(self) -> int:
        return self.store.db_size_in_use_bytes

    @property
    def full_members(self) -> frozenset[int]:
        return self.store.full_members

    @property
    def compact_revision(self) -> int:
        return self.store.compact_revision

    @property
    def watches(self) -> WatchHub:
        """Who wants to hear of events."""
        return self._watches

    @property
    def is_replacing(self) -> bool:
        """A received snapshot takes the store's place just now."""
        return self._replacing

    @property
    def has_room(self) -> bool:
        return self.store.has_room and not self._replacing

    def apply(self, entry: Entry) -> list[list[Answer]]:
        known = len(self.store.leases.news)
        answers = self.store.apply(entry)
        self._world.promises.on_news(self.store.leases.news[known:])
        self._world.pool_checks.look(self.store)
        self._on_applied(self._books, entry, self.store.digest)
        return answers

    def read(self, command: Sequence[Any]) -> Answer:
        if self._replacing:
            raise Overloaded("this member is taking in a snapshot")
        return self.store.read(command)

    def range_cursor(self, command: Sequence[Any]) -> ReadCursor:
        if self._replacing:
            raise Overloaded("this member is taking in a snapshot")
        return self.store.range_cursor(command)

    # replica.upkeep.Directory.

    @property
    def cluster_id(self) -> int:
        return self.store.cluster_id

    @property
    def earliest_deadline_ms(self) -> int | None:
        return self.store.earliest_deadline_ms

    @property
    def pool_deadline_ms(self) -> int | None:
        return self.store.pool_deadline_ms

    def members(self) -> Sequence[dict[str, Any]]:
        return self.store.members()

    # Commits.

    @property
    def wants_commit(self) -> bool:
        return self._job is None and self.store.overlay_bytes >= self._limits.commit_bytes

    def commit_if_due(self, journal_durable_index: Index) -> None:
        """Start a commit when it is time. The log must be durable to what is applied."""
        if self._job is not None or self._replacing or journal_durable_index < self.store.applied_index:
            return
        now_us = self._world.now_us
        if now_us < self._next_commit_us and self.store.overlay_bytes < self._limits.commit_bytes:
            return
        for _ in range(COMPACTION_STEPS):
            self.store.compaction.step()
        job = self.store.freeze()
        if job is None:
            return
        self._next_commit_us = now_us + self._limits.commit_interval_ms * 1000
        self._job = job
        self._world.checks.on_commit_begun(self._books, job.applied_index)
        self._world.after(self._commit_us(), self._machine.input, (self._process, self._on_committed))

    def _commit_us(self) -> int:
        low, high = self._world.knobs.commit_us
        return low + int(self._random.random() * (high - low + 1))

    def run_job(self) -> None:
        """The disk's part of the commit under way: also after a power loss, if it was quick enough."""
        if self._job is not None:
            self._job.run()

    def _on_committed(self) -> None:
        job = self._job
        assert job is not None, "a commit was begun"
        try:
            job.run()
        except NoSpace as error:
            self.full = error
            self._next_commit_us = self._world.now_us + COMMIT_RETRY_US
        else:
            self.full = None
        self._job = None
        self.store.thaw(job)
        self._process.turn()

    # Snapshots.

    def begin_snapshot(self, configuration: Configuration) -> None:
        self._world.after(self._commit_us(), self._machine.input, (self._process, self._on_made, configuration))

    def _on_made(self, configuration: Configuration) -> None:
        if self._machine.disk_is_full or self._replacing:
            self._process.on_snapshot_made(None)
            return
        keyspace = self.store.keyspace
        assert isinstance(keyspace, MemoryKeyspace), "the simulator's store lives in memory"
        data, made = dump_memory(keyspace)
        meta = SnapshotMeta(
            made.index,
            made.term,
            decode_configuration(made.configuration) if made.configuration else configuration,
            made.size_bytes,
            made.checksum,
            snapshot_id=self._ids.getrandbits(62) or 1,
        )
        self.snapshots_made += 1
        self._process.on_snapshot_made(SnapshotBytesReader(data, meta))

    def receive_chunk(self, meta: SnapshotMeta, offset: int, data: bytes) -> int:
        is_other = self._receiver is None or self._receiver.meta.snapshot_id != meta.snapshot_id
        if self._machine.disk_is_full:
            return 0 if self._receiver is None or is_other else self._receiver.write(meta.size_bytes + 1, b"")
        if self._receiver is None or is_other:
            self._receiver = SnapshotBytesReceiver(meta)
        return self._receiver.write(offset, data)

    def begin_install(self, meta: SnapshotMeta) -> None:
        self._replacing = True
        self._world.after(self._commit_us(), self._machine.input, (self._process, self._install, meta))

    def _install(self, meta: SnapshotMeta) -> None:
        if self._job is not None:
            self._world.after(1_000, self._machine.input, (self._process, self._install, meta))
            return
        receiver, self._receiver = self._receiver, None
        assert receiver is not None and receiver.meta.snapshot_id == meta.snapshot_id, "it was received"
        try:
            received = receiver.finish()
        except Corruption:
            self._replacing = False
            self._process.on_snapshot_installed(meta, ok=False)
            return
        self._process.service.on_store_replaced()
        self.store.close()
        self._machine.keyspace = SimKeyspace.adopt(self._machine, received)  # the rename: a restart finds this one
        self._world.after(self._commit_us() // 4, self._machine.input, (self._process, self._on_installed, meta))

    def _on_installed(self, meta: SnapshotMeta) -> None:
        self.store = Store.open(self._machine.keyspace, self._limits)
        self.store.tell(self._watches)
        self._replacing = False
        self.snapshots_installed += 1
        self._world.checks.on_installed(self._books, meta, self.store.digest)
        self._process.on_snapshot_installed(meta, ok=True)
