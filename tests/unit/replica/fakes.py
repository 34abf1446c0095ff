"""Stand-ins for what the service sees of the core, the store and the other members; scripted, without behaviour of their own."""

from collections.abc import Sequence
from typing import Any

from raftkv.errors import KeyNotFound, NotLeader
from raftkv.limits import Limits
from raftkv.raft.messages import ENTRY_COMMANDS, Configuration, Entry, SnapshotMeta
from raftkv.replica.service import Service
from raftkv.replica.upkeep import Founding
from raftkv.store.access import Access
from raftkv.store.auth import Auth
from raftkv.store.leases import Leases
from raftkv.store.watches import WatchHub
from raftkv.wire.commands import Answer
from raftkv.wire.settings import Settings


class FakeRaft:
    def __init__(self) -> None:
        self.node_id = 1
        self.role = "leader"
        self.is_leader = True
        self.configuration = Configuration(frozenset({1, 2}))
        self.leader = 1
        self.term = 1
        self.quorum_contact = True
        self.is_transferring = False
        self.election_timeout_ms = 1_000
        self.proposed: list[Entry] = []
        self.contexts: list[int] = []

    def propose(self, kind: int, data: bytes) -> tuple[int, int]:
        if self.role != "leader":
            raise NotLeader
        self.proposed.append(Entry(len(self.proposed) + 1, self.term, kind, data))
        return len(self.proposed), self.term

    def read_index(self, context: int) -> None:
        self.contexts.append(context)

    def follow(self, leader: int, *, quorum_contact: bool = True) -> None:
        self.role, self.leader, self.quorum_contact = "follower", leader, quorum_contact
        self.is_leader = False


class FakeStateMachine:
    def __init__(self) -> None:
        self.applied_index = 0
        self.durable_applied_index = 0
        self.clock_ms = 0
        self.revision = 1
        self.compact_revision = -1
        self.db_size_in_use_bytes = 0
        self.full_members: frozenset[int] = frozenset()
        self.watches = WatchHub(Limits())
        self.digest = 0
        self.has_room = True
        self.cluster_id = 7
        self.earliest_deadline_ms: int | None = None
        self.pool_deadline_ms: int | None = None
        self.leases = Leases()
        self.auth = Auth()
        self.access = Access(self.auth, self.leases)
        self.own_record = [1, "n1", 11, "n1:2379", "n1:2380", "1", 0]

    def apply(self, entry: Entry) -> list[list[Answer]]:
        raise AssertionError("the service applies nothing")

    def read(self, command: Sequence[Any]) -> Answer:
        if command[2] == b"missing":
            raise KeyNotFound
        if command[2] == b"big":
            return [0, self.revision, [b"big", 2, 2, 1, 0, b"v" * 600_000]]
        return [0, self.revision, None]

    def range_cursor(self, command: Sequence[Any]) -> "FakeCursor":
        return FakeCursor(steps=command[4])

    def members(self) -> list[dict[str, Any]]:
        keys = ("id", "name", "incarnation", "address", "peer_address", "version", "priority")
        other = dict(zip(keys, (2, "n2", 22, "n2:2379", "n2:2380", "1", 0), strict=True))
        return [dict(zip(keys, self.own_record, strict=True)), other]

    def begin_snapshot(self, configuration: Configuration) -> None: ...

    def receive_chunk(self, meta: SnapshotMeta, offset: int, data: bytes) -> int:
        return 0

    def begin_install(self, meta: SnapshotMeta) -> None: ...


class FakeCursor:
    """A range that takes as many steps as its limit says."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self) -> bool:
        self.left -= 1
        return self.left <= 0

    def answer(self) -> Answer:
        return [0, 1, [], False, 0]


class FakeForwarder:
    def __init__(self) -> None:
        self.forwarded: list[tuple[int, int, bytes]] = []
        self.answered: list[tuple[int, int, bytes]] = []
        self.has_way = True

    def forward(self, request_id: int, target: int, payload: bytes) -> bool:
        if self.has_way:
            self.forwarded.append((request_id, target, payload))
        return self.has_way

    def answer(self, request_id: int, target: int, payload: bytes) -> None:
        self.answered.append((request_id, target, payload))


class Bench:
    """A service among its fakes."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.raft = FakeRaft()
        self.state_machine = FakeStateMachine()
        self.forwarder = FakeForwarder()
        self.service = Service(
            raft=self.raft,  # type: ignore[arg-type]
            state_machine=self.state_machine,
            directory=self.state_machine,
            forwarder=self.forwarder,
            limits=limits or Limits(),
            founding=Founding(7, "test", [(1, "n1", "n1:2380"), (2, "n2", "n2:2380")], Settings()),
            own_record=lambda: [1, "n1", 11, "n1:2379", "n1:2380", "1", 0],
            first_read_context=100,
            draw_id=lambda: 77,
        )

    def apply_all(self, answers: list[list[Answer]]) -> None:
        """The last proposed entry takes effect."""
        entry = self.raft.proposed[-1]
        assert entry.kind == ENTRY_COMMANDS
        self.state_machine.applied_index = entry.index
        self.service.on_applied(entry, answers)
