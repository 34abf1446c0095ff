"""Random walks: a cluster under drops, duplicates, reordering, crashes that lose unsaved state, and restarts.

On every step: election safety, leader completeness, state machine safety, linearizable reads; now and then log matching. Then all
faults end and progress is demanded: every member must apply a new write and hold the same log. A failing seed replays
with `pytest tests/properties/test_raft_safety.py -k "walk and SEED"`.
"""

import random

import pytest

from raftkv.errors import InvalidRequest, NotLeader, TransferRefused
from raftkv.limits import Limits
from raftkv.raft.membership import encode_configuration
from raftkv.raft.messages import ENTRY_COMMANDS, ENTRY_CONFIGURATION, Configuration
from tests.unit.raft.cluster import TIMEOUT, Cluster, Node

TINY = Limits(
    append_messages_in_flight_max=3,
    append_bytes_in_flight_max=400,
    append_message_bytes_max=120,
    request_bytes_max=100,
    value_bytes_max=100,
    peer_frame_bytes_max=1000,
    snapshot_chunk_bytes=64,
    snapshot_chunks_in_flight_max=2,
)
SEEDS = 240
STEPS = 4000
TICK_MS = 25


class Walk:
    """One seed: a cluster and everything that chance does to it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.size = self.random.choice((1, 3, 3, 3, 5, 5))
        self.changes_members = self.size == 5 and seed % 3 == 0
        self.has_leases = seed % 4 == 1  # promises are kept in time, so members then tick together
        self.now_ticks = 0
        self.cluster = Cluster(
            self.size,
            limits=TINY,
            pre_vote=seed % 5 != 2,
            check_quorum=self.has_leases or seed % 7 != 3,
            fast_failover=not self.has_leases and seed % 2 == 0,
            lease_reads=self.has_leases,
            clock_ms=lambda: self.now_ticks * TICK_MS,
        )
        for node in self.cluster.nodes.values():
            node.draw = self.random.randint
        self.writes = 0
        self.contexts = 0
        self.read_floors: dict[int, int] = {}
        self.reads_served = 0
        self.trouble = self.random.choice((0.005, 0.015, 0.04))
        self.lossy = self.random.choice((0.0, 0.02, 0.1))

    @property
    def nodes(self) -> list[Node]:
        return list(self.cluster.nodes.values())

    def any_alive(self) -> Node | None:
        alive = [node for node in self.nodes if node.alive]
        return self.random.choice(alive) if alive else None

    def step(self) -> None:
        node = self.any_alive()
        dice = self.random.random()
        if dice < 0.45:
            self.deliver_any()
        elif dice < 0.63 and node is not None:
            node.pump()
        elif dice < 0.75 and node is not None:
            node.finish_save()
        elif dice < 0.85:
            self.tick(node)
        elif dice < 0.85 + self.trouble:
            self.disturb(node)
        elif node is not None:
            self.ask(node)
        for served in self.nodes:
            self.check_reads(served)

    def deliver_any(self) -> None:
        wire = self.cluster.wire
        if not wire:
            return
        # Mostly in order: a wire that only reorders never gets anywhere.
        position = 0 if self.random.random() < 0.9 else self.random.randrange(len(wire))
        message = wire[position] if self.random.random() < 0.03 else wire.pop(position)
        if self.random.random() >= self.lossy:
            self.cluster.deliver(message)

    def tick(self, node: Node | None) -> None:
        self.now_ticks += 1
        for ticking in self.nodes if self.has_leases else [node]:
            if ticking is not None and ticking.alive:
                ticking.raft.tick()

    def ask(self, node: Node) -> None:
        dice = self.random.random()
        if dice < 0.5:
            self.propose(node)
        elif dice < 0.9:
            self.contexts += 1
            # Whatever anybody has applied may have been acknowledged to a client: a later read must see it.
            self.read_floors[self.contexts] = max(self.cluster.committed, default=0)
            node.raft.read_index(self.contexts)
        elif dice < 0.95 and self.changes_members:
            self.change_members(node)
        else:
            try:
                node.raft.transfer_leadership(self.random.choice((None, *self.cluster.nodes)))
            except TransferRefused:
                pass

    def propose(self, node: Node) -> None:
        try:
            for _ in range(self.random.randint(1, 3)):
                self.writes += 1
                node.raft.propose(ENTRY_COMMANDS, b"w%d" % self.writes + b"." * self.random.randrange(60))
        except NotLeader:
            pass

    def change_members(self, node: Node) -> None:
        old = node.raft.configuration
        if old.voters_outgoing:
            return
        voters = frozenset(self.random.sample(sorted(self.cluster.nodes), self.random.randint(3, 5)))
        learners = frozenset(self.cluster.nodes) - voters - old.voters
        leaving = old.voters - voters
        joint = Configuration(voters, old.voters, learners, leaving, auto_leave=True)
        try:
            node.raft.propose(ENTRY_CONFIGURATION, encode_configuration(joint))
        except (NotLeader, InvalidRequest):
            pass

    def disturb(self, node: Node | None) -> None:
        dice = self.random.random()
        cluster, ids = self.cluster, list(self.cluster.nodes)
        if dice < 0.4 or node is None:
            self.repair()
        elif dice < 0.55:
            cluster.crash(node.config.node_id)
            if self.random.random() < 0.6:
                cluster.restart(node.config.node_id)
        elif dice < 0.63:
            cluster.isolate(*self.random.sample(ids, self.random.randint(1, len(ids))))
        elif dice < 0.68:
            cluster.cuts.add((self.random.choice(ids), self.random.choice(ids)))
        elif dice < 0.92:
            node.compact(self.random.randint(0, node.raft.handed_index))
        else:
            peer = self.random.choice(ids)
            self.random.choice((node.raft.on_peer_reset, node.raft.on_peer_unreachable))(peer)

    def repair(self) -> None:
        self.cluster.cuts.clear()
        for dead in self.nodes:
            if not dead.alive:
                self.cluster.restart(dead.config.node_id)

    def check_reads(self, node: Node) -> None:
        for ready in node.reads:
            self.reads_served += 1
            assert ready.index >= self.read_floors[ready.context], "a read would miss an acknowledged write"
        node.reads.clear()

    def heal_and_demand_progress(self) -> None:
        cluster = self.cluster
        cluster.heal()
        for node in self.nodes:
            if not node.alive:
                cluster.restart(node.config.node_id)
        cluster.settle()

        def tick_together() -> None:
            self.now_ticks += 1
            cluster.tick()

        for _ in range(20 * TIMEOUT):
            tick_together()
            leader = cluster.leader()
            if leader is not None and leader.last_committed_in_term and not leader.is_transferring:
                break
        else:
            raise AssertionError("nobody leads although all faults are over")
        cluster.write(b"the end")
        for _ in range(10 * TIMEOUT):
            tick_together()
        leader = cluster.leader()
        assert leader is not None, "the leader stays"
        for node_id in leader.configuration.members():
            node = cluster.nodes[node_id]
            assert node.data[-1:] == [b"the end"], f"member {node_id} did not catch up"
            assert node.raft.commit_index == leader.commit_index, "all know what is committed"
            assert [(e.index, e.term) for e in node.applied] == [
                (e.index, e.term) for e in cluster.nodes[leader.node_id].applied
            ], "all applied the same"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_random_walk_is_safe_and_makes_progress_afterwards(seed: int) -> None:
    walk = Walk(seed)
    for number in range(STEPS):
        walk.step()
        if number % 100 == 0:
            walk.cluster.check_logs()
    walk.heal_and_demand_progress()
    for node in walk.nodes:
        walk.check_reads(node)
    assert walk.cluster.nodes[walk.cluster.leader().node_id].data, "something was written"  # type: ignore[union-attr]


def test_a_walk_replays_identically() -> None:
    stories = []
    for _ in range(2):
        walk = Walk(7)
        for _ in range(STEPS):
            walk.step()
        stories.append([repr(message) for message in walk.cluster.history])
    assert stories[0] == stories[1]


def test_the_walks_reach_what_they_are_meant_to_reach() -> None:
    """Reads, snapshots, lost leaders: a walk that never meets them proves nothing about them."""
    reads = snapshots = terms = 0
    for seed in range(12):
        walk = Walk(seed)
        for _ in range(STEPS):
            walk.step()
        reads += walk.reads_served
        snapshots += sum(node.snapshots_made for node in walk.nodes)
        terms += len(walk.cluster.leaders)
    assert reads > 50
    assert terms > 24
    assert snapshots > 0
