"""What a run can be told, on one page. main.py makes it from the command line, the self-test and the tests make their own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

NATIVE: Final = "native"
"""raftkv, by clients of its own library."""
DOOR: Final = "door"
"""raftkv, by etcd's clients through its gRPC door."""
ETCD: Final = "etcd"
"""A real etcd, by the same clients."""
ROOT: Final = ("root", "jepsen")
WITH_USERS: Final = frozenset({"all", "auth"})
"""Choices of workloads for which authentication is switched on."""
ENGINES: Final = (NATIVE, DOOR, ETCD)

NAMESPACES: Final = "namespaces"
"""Network namespaces where they can be made, else as below."""
PROXIES: Final = "proxies"
"""Loopback, behind TCP proxies."""
COMPOSE: Final = "compose"
"""The containers of docker-compose.yml."""
MACHINES: Final = (NAMESPACES, PROXIES, COMPOSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One run."""

    time_s: float = 60.0
    """How long clients and faults go on; healing, last reads and checks come on top."""
    nodes: int = 3
    seed: int = 1
    nemesis: tuple[str, ...] = ("all",)
    """Names of faults or of their groups; "all", or "none"."""
    workloads: tuple[str, ...] = ("all",)
    out: Path
    rate: float = 150.0
    """Operations per second, of all clients together."""
    clients: int = 30
    engine: str = NATIVE
    machines: str = NAMESPACES
    bug: str = ""
    """A planted bug of bugs.py; the self-test's."""
    small_log: bool = True
    """Logs so short that compaction, rotation and snapshots happen all the time."""
    recovery_s: float = 30.0
    """From healing to a cluster that is ready and takes writes; more is a broken promise."""
    environment: dict[str, str] = field(default_factory=dict)
    """More settings for every daemon."""

    @property
    def login(self) -> tuple[str, str] | None:
        """As whom everybody logs in, where a workload needs users; None: nobody is asked who it is."""
        return ROOT if WITH_USERS & {*self.workloads} else None
