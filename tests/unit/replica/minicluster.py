"""Three members in one process: the real Raft, Replica, Service and Store on a journal, a network and a clock that the test turns by hand."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Callable

from raftkv.errors import Diverged
from raftkv.limits import Limits
from raftkv.raft.config import RaftConfig, SavedState
from raftkv.raft.messages import Configuration, Entry, HardState, Message, SnapshotMeta
from raftkv.raft.node import Raft
from raftkv.replica.ports import ReadCursor, SnapshotReader
from raftkv.replica.replica import Replica
from raftkv.replica.service import Service
from raftkv.replica.upkeep import Founding
from raftkv.store.access import Access
from raftkv.store.leases import Leases
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.snapshot import SnapshotBytesReader, SnapshotBytesReceiver, dump_memory
from raftkv.store.store import Store
from raftkv.store.watches import WatchHub
from raftkv.wire.commands import Answer
from raftkv.wire.settings import settings_of

TICK_MS = 25


class HandJournal:
    """Saves become durable when the test says so (or at once)."""

    def __init__(self) -> None:
        self.automatic = True
        self.saves: list[tuple[HardState | None, list[Entry], SnapshotMeta | None]] = []
        self.compacted_to = 0
        self.reported = 0

    def save(self, hard_state: HardState | None, entries: Sequence[Entry], snapshot: SnapshotMeta | None) -> int:
        self.saves.append((hard_state, list(entries), snapshot))
        return len(self.saves)

    def compact(self, index: int, term: int) -> None:
        self.compacted_to = index


class MemoryStorage:
    """The state machine port on the in-memory store; snapshots are made and installed at the next turn."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._watches = WatchHub(limits)
        self.store = Store.open(MemoryKeyspace(), limits)
        self.store.tell(self._watches)
        self.member: Member | None = None
        self._receiver: SnapshotBytesReceiver | None = None
        self.later: deque[Any] = deque()

    @property
    def access(self) -> Access:
        return self.store.access

    @property
    def applied_index(self) -> int:
        return self.store.applied_index

    @property
    def durable_applied_index(self) -> int:
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
    def has_room(self) -> bool:
        return self.store.has_room

    @property
    def cluster_id(self) -> int:
        return self.store.cluster_id

    @property
    def earliest_deadline_ms(self) -> int | None:
        return self.store.earliest_deadline_ms

    @property
    def pool_deadline_ms(self) -> int | None:
        return self.store.pool_deadline_ms

    def members(self) -> list[dict[str, Any]]:
        return self.store.members()

    def apply(self, entry: Entry) -> list[list[Answer]]:
        return self.store.apply(entry)

    def read(self, command: Sequence[Any]) -> Answer:
        return self.store.read(command)

    def range_cursor(self, command: Sequence[Any]) -> ReadCursor:
        return self.store.range_cursor(command)

    def commit(self) -> None:
        job = self.store.freeze()
        if job is not None:
            job.run()
            self.store.thaw(job)

    def begin_snapshot(self, configuration: Configuration) -> None:
        self.later.append(lambda: self._made(configuration))

    def _made(self, configuration: Configuration) -> None:
        assert self.member is not None
        self.commit()
        keyspace = self.store.keyspace
        assert isinstance(keyspace, MemoryKeyspace)
        data, made = dump_memory(keyspace)
        meta = SnapshotMeta(
            made.index, made.term, configuration, made.size_bytes, made.checksum, snapshot_id=made.index
        )
        reader: SnapshotReader = SnapshotBytesReader(data, meta)
        self.member.replica.on_snapshot_made(reader)

    def receive_chunk(self, meta: SnapshotMeta, offset: int, data: bytes) -> int:
        if self._receiver is None or self._receiver.meta.snapshot_id != meta.snapshot_id:
            self._receiver = SnapshotBytesReceiver(meta)
        return self._receiver.write(offset, data)

    def begin_install(self, meta: SnapshotMeta) -> None:
        self.later.append(lambda: self._installed(meta))

    def _installed(self, meta: SnapshotMeta) -> None:
        assert self._receiver is not None
        assert self.member is not None
        self.store.close()
        self.store = Store.open(self._receiver.finish(), self._limits)
        self.store.tell(self._watches)
        self.member.replica.on_snapshot_installed(meta, ok=True)


class Member:
    """One of the three; also its Network and Forwarder."""

    def __init__(self, cluster: "MiniCluster", node_id: int, limits: Limits) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.diverged: Diverged | None = None
        self.journal = HandJournal()
        self.storage = MemoryStorage(limits)
        self.storage.member = self
        members = frozenset(cluster.ids)
        config = RaftConfig(node_id=node_id, limits=limits, tick_ms=TICK_MS)
        self.raft = Raft(config, SavedState(configuration=Configuration(members)), lambda low, high: low + node_id % 3)
        self.service = Service(
            raft=self.raft,
            state_machine=self.storage,
            directory=self.storage,
            forwarder=self,
            limits=limits,
            founding=Founding(9, "mini", [(i, f"n{i}", f"n{i}:2380") for i in cluster.ids], settings_of(limits)),
            own_record=lambda: [node_id, f"n{node_id}", node_id, f"n{node_id}:2379", f"n{node_id}:2380", "1", 0],
            first_read_context=node_id * 1_000_000,
            draw_id=iter(range(100 + node_id, 10_000, 10)).__next__,
        )
        self.replica = Replica(
            raft=self.raft,
            journal=self.journal,
            network=self,
            state_machine=self.storage,
            limits=limits,
            listener=self.service,
        )

    def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.cluster.post(self.node_id, message.target, lambda member, m=message: member.replica.receive([m]))

    def forward(self, request_id: int, target: int, payload: bytes) -> bool:
        source = self.node_id
        self.cluster.post(source, target, lambda member: member.service.on_forward(request_id, source, payload))
        return True

    def answer(self, request_id: int, target: int, payload: bytes) -> None:
        self.cluster.post(self.node_id, target, lambda member: member.service.on_forward_answer(request_id, payload))

    def tick(self) -> None:
        """What the loop does once per tick; a member that has diverged is gone."""
        try:
            self.replica.compare_digests()
        except Diverged as error:
            self.diverged = error
            del self.cluster.members[self.node_id]
            return
        self.raft.tick()
        self.service.tick(self.cluster.now_ms)

    def turn(self) -> None:
        """What the loop does once per turn."""
        while self.storage.later:
            self.storage.later.popleft()()
        if self.journal.automatic and len(self.journal.saves) > self.journal.reported:
            self.journal.reported = len(self.journal.saves)
            self.replica.on_journal_saved(self.journal.reported)
        self.service.flush(self.cluster.now_ms)
        self.replica.pump()
        if self.service.wants_flush:
            self.service.flush(self.cluster.now_ms)
            self.replica.pump()


class MiniCluster:
    """Members, a wire with cuts, and time."""

    def __init__(self, limits: Limits | None = None, size: int = 3) -> None:
        self.ids = list(range(1, size + 1))
        self.now_ms = 1_000
        self.cut: set[int] = set()
        self._wire: deque[tuple[int, int, Any]] = deque()
        self.members = {node_id: Member(self, node_id, limits or Limits()) for node_id in self.ids}

    def post(self, source: int, target: int, deliver: Any) -> None:
        if source not in self.cut and target not in self.cut and target in self.members:
            self._wire.append((source, target, deliver))

    def settle(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Turn until nothing is on the way, or until `stop` right after a message, within the turn that it came in."""
        for _ in range(10_000):
            for _ in range(len(self._wire)):
                _, target, deliver = self._wire.popleft()
                deliver(self.members[target])
                if stop():
                    return
            for member in self.members.values():
                member.turn()
            if not self._wire and not any(self._is_busy(member) for member in self.members.values()):
                return
        raise AssertionError("the cluster does not come to rest")

    @staticmethod
    def _is_busy(member: Member) -> bool:
        unreported = member.journal.automatic and len(member.journal.saves) > member.journal.reported
        return bool(
            unreported
            or member.storage.later
            or member.replica.has_backlog
            or member.service.has_backlog
            or member.raft.has_effects
        )

    def pass_time(self, milliseconds: int) -> None:
        for _ in range(milliseconds // TICK_MS):
            self.now_ms += TICK_MS
            for member in list(self.members.values()):
                member.tick()
            self.settle()

    def elect(self) -> Member:
        for _ in range(400):
            self.pass_time(TICK_MS)
            leaders = [m for m in self.members.values() if m.raft.role == "leader" and m.node_id not in self.cut]
            if leaders and leaders[-1].raft.last_committed_in_term:
                return leaders[-1]
        raise AssertionError("no leader within ten seconds")

    def followers(self) -> list[Member]:
        return [member for member in self.members.values() if member.raft.role != "leader"]
