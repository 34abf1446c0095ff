"""Where the nemesis acts: the cluster, its network and disks, the seed, and who is the victim of what at the moment.

It runs on the main thread, because children die with the thread that started them. Faults that run together have different victims: a
kind asks for one here, and is put off when there is none left.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Final, Mapping, NamedTuple

import raftkv
from raftkv_jepsen.machines.cables import Cables
from raftkv_jepsen.machines.cluster import Cluster
from raftkv_jepsen.machines.loopdisk import LoopDisk
from raftkv_jepsen.machines.node import Node
from raftkv_jepsen.machines.proxies import ProxyNetwork
from raftkv_jepsen.machines.waiting import wait_until

NETWORK: Final = "the network"
KEEP_QUORUM: Final = 0.7
"""How often faults that run together leave a majority."""


class FaultUnavailable(Exception):
    """This machine cannot do it; the text says why."""


class Occupied(Exception):
    """Other faults have all that this one needs; another time."""


class Injection(NamedTuple):
    """A fault that is on."""

    detail: str
    heal: Callable[[], None]


class Kind(NamedTuple):
    """A fault that can be drawn. `group` is what the command line calls several of them by."""

    name: str
    group: str
    inject: "Callable[[Arena], Injection]"
    unavailable: "Callable[[Arena], str]" = lambda arena: ""
    """Why this machine cannot do it; empty when it can."""
    forgives: str = ""
    """A pattern of log lines that the fault explains."""
    begins_late: bool = False
    """It takes a second to set up and does nothing before."""
    own: bool = False
    """Only for raftkv: it needs to know the daemon's files, its command line or its protocol."""
    alone: bool = False
    """Never together with another one: it needs the rest of the cluster whole."""


@dataclass(slots=True)
class Arena:
    """One run's. `down` are the members that are not expected to run, or that may end by themselves."""

    cluster: Cluster
    network: Cables | ProxyNetwork
    draw: random.Random
    writes_ok: Callable[[], int]
    say: Callable[[str], None]
    directory: Path
    disks: dict[str, LoopDisk] = field(default_factory=dict)
    clock_files: dict[str, Path] = field(default_factory=dict)
    no_disks: str = ""
    """Why the nodes have no file systems of their own."""
    no_clocks: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """Groups of faults that these machines cannot have at all, and why."""
    is_raftkv: bool = True
    login: tuple[str, str] | None = None
    down: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    crashes: list[str] = field(default_factory=list)

    @property
    def nodes(self) -> list[Node]:
        return self.cluster.nodes

    def take_network(self) -> None:
        """Raises Occupied."""
        if NETWORK in self.busy:
            raise Occupied
        self.busy.add(NETWORK)

    def take_any(self) -> Node:
        """The leader half of the time: that is where the bugs are. Raises Occupied."""
        leader = self.cluster.current_leader(self.free())
        if leader is not None and self.draw.random() < 0.5:
            return self.take(leader)
        return self.take(self._draw_free())

    def take_leader(self) -> Node:
        """The leader, or somebody when there is none. Raises Occupied."""
        leader = self.cluster.current_leader()
        if leader is None:
            return self.take(self._draw_free())
        return self.take(leader)

    def take_follower(self) -> Node:
        """Raises Occupied."""
        leader = self.cluster.current_leader()
        free = [node for node in self.free() if node is not leader]
        if not free:
            raise Occupied
        return self.take(self.draw.choice(free))

    def take_all(self) -> list[Node]:
        """Raises Occupied."""
        if any(node.name in self.busy for node in self.nodes):
            raise Occupied
        self.busy.update(node.name for node in self.nodes)
        return list(self.nodes)

    def take(self, node: Node) -> Node:
        """Raises Occupied, mostly also when no healthy majority would be left: a cluster that serves nobody makes few mistakes."""
        if node.name in self.busy:
            raise Occupied
        victims = len(self.busy - {NETWORK}) + 1
        if victims > (len(self.nodes) - 1) // 2 and victims > 1 and self.draw.random() < KEEP_QUORUM:
            raise Occupied
        self.busy.add(node.name)
        return node

    def free(self) -> list[Node]:
        """Members that no fault has."""
        return [node for node in self.nodes if node.name not in self.busy]

    def _draw_free(self) -> Node:
        free = self.free()
        if not free:
            raise Occupied
        return self.draw.choice(free)

    def others(self, node: Node) -> list[str]:
        """Names of everybody else."""
        return [other.name for other in self.nodes if other is not node]

    def ask(self) -> raftkv.Client:
        """A client for somebody who administers. To be closed."""
        user, password = self.login or (None, "")
        name = self.cluster.cluster_name
        return raftkv.Client(self.cluster.endpoints, cluster_name=name, timeout=3, user=user, password=password)

    # Processes.

    def kill(self, node: Node) -> None:
        """kill -9, and nobody wonders."""
        self.down.add(node.name)
        node.kill()

    def start(self, node: Node) -> None:
        """Start a member that is down; one that ended by itself meanwhile is one that was down."""
        if not node.running:
            node.start()
        self.down.discard(node.name)

    def look_for_crashes(self) -> None:
        """A member that ended although no fault explains it is written down and started again."""
        for node in self.nodes:
            if node.name in self.down or node.process is None or node.running:
                continue
            tail = node.daemon.log_text().strip().splitlines()[-1:]
            self.crashes.append(f"{node.name} ended with exit code {node.daemon.exit_code}: {' '.join(tail)}")
            self.say(f"CRASH {self.crashes[-1]}")
            node.start()

    def wait_writes(self, more: int, *, deadline_s: float = 10.0) -> bool:
        """Whether so many more writes were acknowledged in time."""
        wanted = self.writes_ok() + more
        try:
            wait_until(lambda: self.writes_ok() >= wanted, "writes", deadline_s=deadline_s)
        except AssertionError:
            return False
        return True
