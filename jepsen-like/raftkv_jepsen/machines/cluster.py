"""A cluster of real daemons, and the faults of processes.

Every cluster ends with its `with` block: processes killed, directories removed, ports given back. The logs of the nodes
are read before that by the failure report (conftest.py).
"""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Sequence

from raftkv_jepsen.machines.node import READY_DEADLINE_S, Node
from raftkv_jepsen.machines.ports import PortReservations
from raftkv_jepsen.machines.process import log_tail
from raftkv_jepsen.machines.waiting import wait_until

CLUSTER_NAME = "test"

# Small enough that a test fills a segment or meets compaction within a second, large enough for every request.
SMALL_LOG = {
    "RAFTKV_LIMITS_LOG_RETAINED_ENTRIES_MAX": "50",
    "RAFTKV_LIMITS_LOG_RETAINED_BYTES_MAX": str(64 * 1024),
    "RAFTKV_LIMITS_WAL_SEGMENT_BYTES": str(256 * 1024),
    "RAFTKV_LIMITS_COMMIT_INTERVAL_MS": "50",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one node lives on the network."""

    client_endpoint: str
    peer_endpoint: str
    launcher: tuple[str, ...] = ()
    listen: str = ""
    """Where it listens when a proxy stands in front of it."""
    listen_peer: str = ""


@dataclass(slots=True, kw_only=True)
class ClusterOptions:
    """What differs between the clusters of the tests."""

    size: int = 3
    cluster_name: str = CLUSTER_NAME
    environment: dict[str, str] = field(default_factory=dict)
    places: Sequence[Place] | None = None  # loopback unless given
    node_class: Callable[..., Node] = Node


class Cluster:
    """N daemons named n1..nN."""

    def __init__(self, options: ClusterOptions | None = None) -> None:
        options = options or ClusterOptions()
        self.directory = Path(tempfile.mkdtemp(prefix="raftkv-test-"))
        self.cluster_name = options.cluster_name
        self._environment = dict(options.environment)
        self._ports = PortReservations()
        self._at_close: list[Callable[[], None]] = []
        places = options.places or [self._loopback_place() for _ in range(options.size)]
        names = [f"n{number}" for number in range(1, len(places) + 1)]
        initial_cluster = ",".join(f"{name}={place.peer_endpoint}" for name, place in zip(names, places, strict=True))
        self.nodes = [
            options.node_class(
                name=name,
                client_endpoint=place.client_endpoint,
                peer_endpoint=place.peer_endpoint,
                data_directory=self.directory / name,
                log_path=self.directory / f"{name}.log",
                cluster_name=options.cluster_name,
                initial_cluster=initial_cluster,
                environment=dict(options.environment),
                launcher=place.launcher,
                flags=_behind_proxies(place),
            )
            for name, place in zip(names, places, strict=True)
        ]

    def add_node(self, name: str, *, join: str, environment: dict[str, str] | None = None) -> Node:
        """Another node on loopback, not started: it will join through the client address `join`."""
        place = self._loopback_place()
        node = Node(
            name=name,
            client_endpoint=place.client_endpoint,
            peer_endpoint=place.peer_endpoint,
            data_directory=self.directory / name,
            log_path=self.directory / f"{name}.log",
            cluster_name=self.cluster_name,
            initial_cluster="",
            environment=dict(self._environment if environment is None else environment),
            flags={"join": join},
        )
        self.nodes.append(node)
        return node

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _loopback_place(self) -> Place:
        return Place(f"127.0.0.1:{self._ports.take()}", f"127.0.0.1:{self._ports.take()}")

    def at_close(self, action: Callable[[], None]) -> None:
        """Runs `action` after the daemons have ended, before their directories are removed."""
        self._at_close.append(action)

    def close(self) -> None:
        """Ends everything; closing twice is nothing."""
        for node in self.nodes:
            node.kill()
        while self._at_close:
            self._at_close.pop()()
        self._ports.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    @property
    def endpoints(self) -> str:
        """As the client options take them."""
        return ",".join(node.client_endpoint for node in self.nodes)

    def start(self) -> "Cluster":
        """Starts every daemon that is not running and waits until all are ready."""
        for node in self.nodes:
            if not node.running:
                node.start()
        self.wait_ready()
        return self

    def wait_ready(self, deadline_s: float = READY_DEADLINE_S) -> None:
        """Waits for /readyz of all running members."""
        for node in self.nodes:
            if node.running and not node.paused:
                node.wait_ready(deadline_s)

    def statuses(self, among: Sequence[Node] | None = None) -> dict[str, dict[str, Any]]:
        """By name, of those that answer."""
        found = {node.name: node.status() for node in (self.nodes if among is None else among)}
        return {name: status for name, status in found.items() if status is not None}

    def current_leader(self, among: Sequence[Node] | None = None) -> Node | None:
        """The leader with the highest term among `among` (all by default); a deposed one may still think it leads."""
        leading = {name: status for name, status in self.statuses(among).items() if status["role"] == "leader"}
        if not leading:
            return None
        return self[max(leading, key=lambda name: int(leading[name]["term"]))]

    def leader(self, among: Sequence[Node] | None = None, *, deadline_s: float = 15.0) -> Node:
        """Waits for a leader."""
        return wait_until(
            lambda: self.current_leader(among),
            "a leader",
            deadline_s=deadline_s,
            seen=lambda: {name: status["role"] for name, status in self.statuses(among).items()},
        )

    def followers(self) -> list[Node]:
        """Everybody but the leader, running or not."""
        leader = self.leader()
        return [node for node in self.nodes if node is not leader]

    def others(self, *excluded: Node) -> list[Node]:
        """All nodes but these."""
        return [node for node in self.nodes if node not in excluded]

    def wait_applied_equal(self, *, deadline_s: float = 20.0) -> None:
        """Waits until all running members have applied the same, up to what the leader has committed."""

        def equal() -> bool:
            running = [node for node in self.nodes if node.running]
            statuses = self.statuses(running)
            marks = {int(status["applied_index"]) for status in statuses.values()}
            marks |= {int(status["commit_index"]) for status in statuses.values() if status["role"] == "leader"}
            return len(statuses) == len(running) and len(marks) == 1

        wait_until(equal, "all members to have applied the same", deadline_s=deadline_s, seen=self.statuses)

    def owners(self) -> dict[int, str]:
        """The name of the node behind each daemon's process id."""
        return {node.process.pid: node.name for node in self.nodes if node.process is not None}

    def report(self) -> str:
        """The end of every node's log."""
        parts = []
        for node in self.nodes:
            state = "never started" if node.process is None else f"exit code {node.process.exit_code}"
            parts.append(f"--- {node.name} ({node.client_endpoint}, {state})\n{log_tail(node.log_path)}")
        return "\n".join(parts)


def _behind_proxies(place: Place) -> dict[str, str]:
    if not place.listen:
        return {}
    return {
        "listen": place.listen,
        "listen_peer": place.listen_peer,
        "advertise": place.client_endpoint,
        "advertise_peer": place.peer_endpoint,
    }
