"""A cluster in memory: real cores on a fake wire, with disks that lose what was not saved and a state machine that is a list.

Nothing happens by itself: a test ticks, delivers, saves, cuts links and crashes members. Every application is compared with what
any member ever applied at that index, every election with the leaders of its term, so each story checks safety on its way.
"""

import copy
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

import msgpack

from raftkv.limits import Limits
from raftkv.raft.config import RaftConfig, SavedState
from raftkv.raft.effects import Effects, ReadReady
from raftkv.raft.membership import decode_configuration
from raftkv.raft.messages import (
    ENTRY_COMMANDS,
    ENTRY_CONFIGURATION,
    Configuration,
    Entry,
    HardState,
    InstallSnapshot,
    Message,
    SnapshotMeta,
)
from raftkv.raft.node import Raft

TIMEOUT = 10  # election timeout in ticks; node n draws TIMEOUT + n - 1 unless told otherwise
HEARTBEAT = 2


def config_of(node_id: int, **settings: object) -> RaftConfig:
    defaults = RaftConfig(
        node_id=node_id, heartbeat_ticks=HEARTBEAT, election_timeout_ticks=TIMEOUT, fast_failover=False
    )
    return replace(defaults, **settings)  # type: ignore[arg-type]


@dataclass
class Save:
    save_id: int
    hard_state: HardState | None
    entries: list[Entry]
    restored: SnapshotMeta | None
    messages: list[Message]


@dataclass
class Disk:
    """What survives a crash."""

    configuration: Configuration
    hard_state: HardState = field(default_factory=HardState)
    start_index: int = 0
    start_term: int = 0
    entries: list[Entry] = field(default_factory=list)
    applied: list[Entry] = field(default_factory=list)  # the state machine's durable part
    installing: Configuration | None = None  # the configuration of the snapshot in the state machine

    def write(self, save: Save) -> None:
        if save.restored is not None:
            self.start_index, self.start_term = save.restored.index, save.restored.term
            self.configuration, self.entries = save.restored.configuration, []
        if save.hard_state is not None:
            self.hard_state = copy.copy(save.hard_state)
        if save.entries:
            first = save.entries[0].index
            assert self.start_index < first <= self.start_index + len(self.entries) + 1, "the journal has no gaps"
            self.entries = self.entries[: first - self.start_index - 1] + save.entries

    def saved_state(self) -> SavedState:
        """What a restart begins with; a snapshot may be in the state machine before the log has heard of it."""
        index, term = (self.applied[-1].index, self.applied[-1].term) if self.applied else (0, 0)
        if index > self.start_index and (index, term) not in [(entry.index, entry.term) for entry in self.entries]:
            self.start_index, self.start_term, self.entries = index, term, []
            assert self.installing is not None, "only a snapshot puts the state machine ahead of the log"
            self.configuration = self.installing
        return SavedState(
            hard_state=copy.copy(self.hard_state),
            log_start_index=self.start_index,
            log_start_term=self.start_term,
            entries=list(self.entries),
            configuration=self.configuration,
            applied_index=len(self.applied),
        )

    def compact(self, index: int, term: int) -> None:
        for entry in self.entries[: index - self.start_index]:
            if entry.kind == ENTRY_CONFIGURATION:
                self.configuration = decode_configuration(entry.data)
        del self.entries[: index - self.start_index]
        self.start_index, self.start_term = index, term


class Node:
    """One member: its core, its disk, its state machine."""

    def __init__(self, cluster: "Cluster", config: RaftConfig, disk: Disk) -> None:
        self.cluster, self.config, self.disk = cluster, config, disk
        self.draw: Callable[[int, int], int] = lambda low, high: min(high, low + config.node_id - 1)
        self.start()

    def start(self) -> None:
        self.raft = Raft(self.config, self.disk.saved_state(), lambda low, high: self.draw(low, high))
        self.alive = True
        self.applied = list(self.disk.applied)
        self.saves: list[Save] = []
        self.reads: list[ReadReady] = []
        self.reads_failed: list[int] = []
        self.roles: list[tuple[str, int, int]] = []
        self.snapshot: tuple[SnapshotMeta, bytes] | None = None
        self.incoming: tuple[int, bytearray] = (0, bytearray())
        self.snapshots_made = 0
        self.refuses = 0  # so many snapshots arrive damaged

    @property
    def data(self) -> list[bytes]:
        """What clients have written, as applied here."""
        return [entry.data for entry in self.applied if entry.kind == ENTRY_COMMANDS]

    def log(self) -> list[tuple[int, int]]:
        """(index, term) of every entry that is held."""
        raft = self.raft
        return [(index, raft.term_of(index)) for index in range(raft.log_start_index + 1, raft.last_index + 1)]

    def pump(self) -> bool:
        """Carry out effects once, in the order of the contract. False when there were none."""
        if not self.alive:
            return False
        promised = self.raft.has_effects
        effects = self.raft.take_effects()
        if not promised:
            assert effects == Effects(), "has_effects was false"
            return False
        self.cluster.sent(self, effects.send_now)
        if effects.needs_save():
            self.saves.append(
                Save(effects.save_id, effects.hard_state, effects.entries, effects.restored, effects.send_after_save)
            )
        installed = self._exchange_snapshots(effects)
        for entry in effects.committed:
            if entry.index <= installed:
                continue  # the snapshot that came with it has it already
            assert entry.index == len(self.applied) + 1, "entries are given out once, in order"
            self.cluster.check_applied(entry)
            self.applied.append(entry)
        self.reads += effects.reads
        self.reads_failed += effects.reads_failed
        if effects.role_change is not None:
            change = effects.role_change
            self.roles.append((change.role, change.term, change.leader))
            if change.role == "leader":
                self.cluster.check_elected(self)
        self.cluster.note(self, effects)
        return True

    def finish_save(self) -> bool:
        """The oldest save becomes durable."""
        if not self.saves:
            return False
        save = self.saves.pop(0)
        self.disk.write(save)
        self.cluster.sent(self, save.messages)
        self.raft.on_saved(save.save_id)
        return True

    def crash(self) -> None:
        """Whatever was not saved is lost; messages that are on the wire stay there."""
        self.alive = False
        self.saves = []

    def _exchange_snapshots(self, effects: Effects) -> int:
        """Make, send and take chunks; returns the index of a snapshot that was installed, or 0."""
        if effects.need_snapshot:
            self.snapshots_made += 1
            if self.cluster.makes_snapshots:
                self.offer_snapshot()
        for chunk in effects.snapshot_chunks:
            if self.snapshot is not None and self.snapshot[0].snapshot_id == chunk.snapshot.snapshot_id:
                meta, image = self.snapshot
                data = image[chunk.offset : chunk.offset + chunk.size_max]
                done = chunk.offset + len(data) >= len(image)
                source = self.raft.node_id
                message = InstallSnapshot(chunk.term, source, chunk.target, meta, chunk.offset, data, done)
                self.cluster.sent(self, [message])
        return max((self._receive_chunk(message) for message in effects.received_chunks), default=0)

    def offer_snapshot(self) -> None:
        """Make a snapshot of everything applied here and offer it."""
        image = msgpack.packb([[entry.index, entry.term, entry.kind, entry.data] for entry in self.applied])
        last = self.applied[-1]
        self.cluster.snapshots_offered += 1
        snapshot_id = self.cluster.snapshots_offered
        changes = [entry for entry in self.applied if entry.kind == ENTRY_CONFIGURATION]
        configuration = decode_configuration(changes[-1].data) if changes else self.cluster.first_configuration
        meta = SnapshotMeta(last.index, last.term, configuration, len(image), 0, snapshot_id)
        self.snapshot = (meta, image)
        self.raft.offer_snapshot(meta)

    def _receive_chunk(self, message: InstallSnapshot) -> int:
        meta = message.snapshot
        if len(self.applied) >= meta.index:
            return 0  # a duplicate of what this batch has installed
        if self.incoming[0] != meta.snapshot_id:
            self.incoming = (meta.snapshot_id, bytearray())
        image = self.incoming[1]
        if message.offset == len(image):
            image += message.data
        self.raft.on_chunk_stored(message, len(image))
        if len(image) < meta.size_bytes:
            return 0
        self.incoming = (0, bytearray())
        if self.refuses or self.raft.node_id in self.cluster.installs_fail:
            self.refuses = max(0, self.refuses - 1)
            self.raft.on_snapshot_installed(meta, False)
            return 0
        self.applied = [Entry(*items) for items in msgpack.unpackb(bytes(image))]
        self.disk.applied, self.disk.installing = list(self.applied), meta.configuration
        self.raft.on_snapshot_installed(meta, True)
        return meta.index

    def compact(self, index: int) -> None:
        """Make the state machine durable up to the compacted index, then let the log go; between two batches only."""
        while self.pump():
            pass
        self.raft.compact(index)
        start_index = self.raft.log_start_index
        self.disk.applied = list(self.applied[: max(start_index, len(self.disk.applied))])
        if not self.saves:  # a journal compacts behind its saves
            self.disk.compact(start_index, self.raft.log_start_term)


class Cluster:
    """Members 1 to `size` (and learners after them), the wire between them, and what must never happen."""

    def __init__(self, size: int = 3, *, learners: int = 0, limits: Limits | None = None, **settings: object) -> None:
        voters = frozenset(range(1, size + 1))
        configuration = Configuration(voters, learners=frozenset(range(size + 1, size + learners + 1)))
        if limits is not None:
            settings["limits"] = limits
        self.first_configuration = configuration
        self.nodes: dict[int, Node] = {}
        self.wire: list[Message] = []
        self.cuts: set[tuple[int, int]] = set()
        self.drop: Callable[[Message], bool] = lambda message: False
        self.history: list[Message] = []  # everything that was ever sent
        self.makes_snapshots = True
        self.snapshots_offered = 0
        self.saves_held: set[int] = set()
        self.installs_fail: set[int] = set()  # members whose state machine cannot take a snapshot
        self.observer: Callable[[Node, Effects], None] | None = None
        self.committed: dict[int, tuple[int, int, bytes]] = {}
        self.leaders: dict[int, int] = {}
        for node_id in sorted(configuration.members()):
            self.nodes[node_id] = Node(self, config_of(node_id, **settings), Disk(configuration))

    def __getitem__(self, node_id: int) -> Raft:
        return self.nodes[node_id].raft

    # The wire.

    def sent(self, node: Node, messages: Iterable[Message]) -> None:
        for message in messages:
            assert message.source == node.raft.node_id, "a member speaks for itself"
            self.history.append(message)
            self.wire.append(message)

    def deliver(self, message: Message) -> None:
        """Hand a message over, unless it is lost on the way."""
        target = self.nodes.get(message.target)
        if target is None or not target.alive or (message.source, message.target) in self.cuts or self.drop(message):
            return
        target.raft.step(message)

    def isolate(self, *node_ids: int) -> None:
        """Cut the links between these members and all others, both ways."""
        inside = set(node_ids)
        for a in self.nodes:
            for b in self.nodes:
                if (a in inside) != (b in inside):
                    self.cuts.add((a, b))

    def heal(self) -> None:
        self.cuts.clear()
        self.drop = lambda message: False

    # Time.

    def settle(self, rounds_max: int = 10_000, *, only: Collection[int] | None = None) -> None:
        """Carry out, save and deliver in order until nothing is left to do.

        With `only`, the other members do nothing, and what is for them stays on the wire.
        """
        active = {name: node for name, node in self.nodes.items() if only is None or name in only}
        for _ in range(rounds_max):
            busy = [node.pump() for node in active.values()].count(True) > 0
            for node_id, node in active.items():
                while node_id not in self.saves_held and node.finish_save():
                    busy = True
            wire, self.wire = self.wire, []
            for message in wire:
                if only is None or message.target in active:
                    self.deliver(message)
                    busy = True
                else:
                    self.wire.append(message)
            if not busy:
                return
        raise AssertionError("the cluster does not come to rest")

    def tick(self, count: int = 1) -> None:
        """Let time pass for everybody, with everything delivered in between."""
        for _ in range(count):
            for node in self.nodes.values():
                if node.alive:
                    node.raft.tick()
            self.settle()

    def tick_until(self, condition: Callable[[], bool], ticks_max: int = 200) -> int:
        """Tick until the condition holds; returns how many ticks it took."""
        for count in range(ticks_max):
            if condition():
                return count
            self.tick()
        raise AssertionError("what was waited for did not happen")

    def elect(self, node_id: int) -> Raft:
        """Make this member leader: by a transfer if somebody leads, else because only its time passes."""
        raft, leader = self[node_id], self.leader()
        if leader is not None:
            leader.transfer_leadership(node_id)
            self.settle()
        for _ in range(2 * TIMEOUT):
            if raft.is_leader:
                break
            raft.tick()
            self.settle()
        assert raft.is_leader, f"{node_id} does not win"
        return raft

    def leader(self) -> Raft | None:
        """The leader of the highest term among those who are up."""
        leaders = [node.raft for node in self.nodes.values() if node.alive and node.raft.is_leader]
        return max(leaders, key=lambda raft: raft.term, default=None)

    def write(self, *data: bytes, leader: int | None = None) -> None:
        """Propose in one batch at the leader and let everything settle."""
        raft = self.leader() if leader is None else self[leader]
        assert raft is not None, "somebody leads"
        for item in data:
            raft.propose(ENTRY_COMMANDS, item)
        self.settle()

    def crash(self, node_id: int) -> None:
        self.nodes[node_id].crash()

    def restart(self, node_id: int) -> None:
        self.nodes[node_id].start()

    # What must never happen.

    def check_applied(self, entry: Entry) -> None:
        """State machine safety (3.6.3)."""
        said = (entry.term, entry.kind, entry.data)
        known = self.committed.setdefault(entry.index, said)
        assert known == said, f"two members applied different entries at {entry.index}"

    def check_elected(self, node: Node) -> None:
        """Election safety (3.2) and leader completeness (3.6.3)."""
        raft = node.raft
        known = self.leaders.setdefault(raft.term, raft.node_id)
        assert known == raft.node_id, f"two leaders in term {raft.term}"
        for index, (term, _, _) in self.committed.items():
            if index > raft.log_start_index:
                assert raft.last_index >= index, "a leader lacks a committed entry"
                assert raft.term_of(index) == term, "a leader has another entry where one is committed"

    def check_logs(self) -> None:
        """Log matching (3.5): where two logs have the same index and term, they agree on everything before."""
        logs = [dict(node.log()) for node in self.nodes.values()]
        for position, log in enumerate(logs):
            for other in logs[position + 1 :]:
                shared = sorted(log.keys() & other.keys())
                agree = [index for index in shared if log[index] == other[index]]
                assert not agree or agree == shared[: len(agree)], "two logs agree again after they differed"

    def note(self, node: Node, effects: Effects) -> None:
        if self.observer is not None:
            self.observer(node, effects)
