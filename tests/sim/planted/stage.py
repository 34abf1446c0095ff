"""A world that follows a script: for bugs that chance practically never shows, such as figure 3.7.

Nobody stands for election unless the script says so, nothing is lost unless it says so. The machines, the checks and the code are
those of every other world. A script that does not get where it wants to be is no catch: it ends with StoryFailed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from raftkv.errors import InvalidRequest, RaftKVError
from raftkv.limits import Limits
from raftkv.raft import election
from raftkv.raft.membership import encode_configuration
from raftkv.raft.messages import ENTRY_CONFIGURATION, Configuration, Message
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.service import LEADER
from raftkv.units import NodeId
from raftkv.wire.commands import GET, PUT, Answer, encode_batch
from raftkv.wire.commands import INCREMENT as COUNT
from raftkv_jepsen.checkers.models import INCREMENT

from ..knobs import Knobs
from ..machine import Machine
from ..network import CLIENT_PLACES
from ..process import Process
from ..world import World

STEP_US = 20_000
WAIT_US_MAX = 20_000_000

QUIET = Knobs(
    clients=0,
    nemesis_us=0,
    election_timeout_ticks=100_000,
    check_quorum=False,
    pre_vote=False,
    fast_failover=False,
    latency_us=(100, 200),
    sync_us=(100, 200),
    commit_us=(500, 1_000),
    limits=Limits(wal_segment_bytes=131_072),
)
"""Nobody's patience ends by itself, and all is quick."""


class StoryFailed(Exception):
    """The script could not be played: a mistake of the script, never the catch of a bug."""


class Stage:
    """A scripted world."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell
        self.world = World(1, knobs=QUIET)

    def open(self, members: int, *, spares: int = 0, limits: dict[str, Any] | None = None, **knobs: Any) -> None:
        """Start `members` machines; `spares` more are there and do not run."""
        bounds = replace(QUIET.limits, **limits) if limits else QUIET.limits
        self.world = World(
            1, knobs=replace(QUIET, members=members, spares=spares, limits=bounds, **knobs), tell=self._tell
        )
        self.world.begin()

    def machine(self, node_id: NodeId) -> Machine:
        return self.world.machines[node_id]

    def process(self, node_id: NodeId) -> Process:
        process = self.world.machines[node_id].process
        if process is None:
            raise StoryFailed(f"n{node_id} is down")
        return process

    # Time.

    def rest(self, rest_us: int = 200_000) -> None:
        """Let things happen for a while."""
        self.world.run_until(self.world.now_us + rest_us)

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Let things happen until it is so."""
        ends_us = self.world.now_us + WAIT_US_MAX
        while not condition():
            if self.world.now_us >= ends_us:
                raise StoryFailed(f"waited in vain: {what}; {self.world.state()}")
            self.rest(STEP_US)

    def expect(self, what: str, holds: bool) -> None:
        if not holds:
            raise StoryFailed(f"it is not so: {what}; {self.world.state()}")

    # What members do.

    def stand(self, node_id: NodeId) -> None:
        """This member stands for election once, whatever comes of it."""
        process = self.process(node_id)
        election.campaign(process.state, transfer=True)  # nobody is asked for his patience
        process.turn()
        self.rest()

    def elect(self, node_id: NodeId) -> None:
        """This member stands for election until it wins; somebody may have voted in its first term already."""
        process = self.process(node_id)

        def leads() -> bool:
            if process.raft.role != LEADER:
                self.stand(node_id)
            return process.raft.role == LEADER

        self.wait(f"n{node_id} leads", leads)

    def stop(self, node_id: NodeId) -> None:
        """It is killed and stays down."""
        machine = self.machine(node_id)
        machine.held_down = True
        machine.kill()

    def start(self, node_id: NodeId) -> None:
        machine = self.machine(node_id)
        machine.held_down = False
        if machine.process is None:
            machine.start()

    def write(self, node_id: NodeId, *values: bytes) -> int:
        """The leader proposes one entry per value; returns the last one's index."""
        process, index = self.process(node_id), 0
        for value in values:
            batch = encode_batch(0, [[None, False, 0, None, 0, [[PUT, 0, b"key", value, 0, 0]]]])
            index, _ = process.raft.propose(1, batch)
            process.turn()
        return index

    def increment(self, node_id: NodeId, *, sequence: int, register: bool, answered: bool | None) -> None:
        """A client's session adds one to a counter; it hears of it, does not, or (None) sends once more what it sent already."""
        process, history = self.process(node_id), self.world.history
        if answered is not None:
            operation, floor = history.invoke(CLIENT_PLACES, INCREMENT, "n0.0", 1, self.world.now_us)
        group = [b"the one session ", register, sequence, None, 0, [[COUNT, sequence, b"n0.0", 1]]]
        index, _ = process.raft.propose(1, encode_batch(process.service._clock_ms(), [group]))
        process.turn()
        self.wait("it is applied", lambda: process.storage.applied_index >= index)
        if answered:
            history.complete(operation, sequence, process.storage.revision, floor, self.world.now_us)
        elif answered is not None:
            history.refuse(operation, "connection_lost", may_have_happened=True, now_us=self.world.now_us)

    def read(self, node_id: NodeId) -> bool:
        """Ask the member for the key. True when it was answered by the end of the turn: then the checks have seen it."""
        process = self.process(node_id)
        asker = _Asker(self.world, process)
        process.service.submit_reads(ReadGroup(asker, [1], [[GET, 0, b"key"]], deadline_ms=1 << 60))
        process.turn()
        return asker.answered

    def change(self, node_id: NodeId, configuration: Configuration) -> int:
        """The leader proposes another configuration; returns its index, 0 when that is refused."""
        process = self.process(node_id)
        try:
            index, _ = process.raft.propose(ENTRY_CONFIGURATION, encode_configuration(configuration))
        except InvalidRequest:
            return 0
        process.turn()
        return index

    def holds(self, node_id: NodeId, index: int, term: int) -> bool:
        """Whether the member's disk holds this entry."""
        return self.machine(node_id).books.durable.term_of(index) == term

    # The network.

    def lose(self, is_lost: Callable[[Message], bool]) -> None:
        """From now on these messages between members are lost."""
        self.world.network.is_lost = is_lost

    def cut_off(self, *node_ids: NodeId) -> None:
        """These and the others do not hear each other."""
        others = [node_id for node_id in self.world.machines if node_id not in node_ids]
        self.world.network.cut(node_ids, others)
        self.world.network.cut(others, node_ids)

    def heal(self) -> None:
        self.world.network.is_lost = None
        self.world.network.heal()


class _Asker:
    """Who asked, when everybody could know of what was acknowledged until then."""

    takes_answers = True

    def __init__(self, world: World, process: Process) -> None:
        self.answered = False
        self._checks = world.checks
        self._process = process
        self._floor = world.checks.acknowledged_index

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        self._checks.on_answered(self._process, self._floor)
        self.answered = True

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        pass


__all__ = ["Stage", "StoryFailed"]
