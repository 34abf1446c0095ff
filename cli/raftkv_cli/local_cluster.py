"""A whole cluster as child processes of this one: where it lives, and how to start, kill, restart and end its members.

`raftkv dev` and the main job run on it. The members are real `raftkv serve` processes with nothing special but that they end
with their parent (see lifeline.py). They lead process groups of their own, so that Ctrl-C reaches them through us, in order.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence

from raftkv.client.endpoints import split_address
from raftkv_cli import lifeline
from raftkv_cli.probe import probe
from raftkv_cli.spec import Failed

LAYOUT_FILE = "cluster.json"
HOST = "127.0.0.1"
LOG_TAIL_LINES = 12
LOG_TAIL_BYTES = 16 * 1024
GRACE_SECONDS = 10.0
OF_ONE_MEMBER = frozenset(
    f"RAFTKV_{name}"
    for name in ("NAME", "DATA_DIR", "LISTEN", "LISTEN_PEER", "ADVERTISE", "ADVERTISE_PEER", "INITIAL_CLUSTER", "JOIN")
)


class Place(NamedTuple):
    """Where one member listens and lives."""

    name: str
    client: str
    peer: str
    data_dir: Path
    log: Path


class Layout(NamedTuple):
    """Everything that a cluster needs to be started again: written to `cluster.json` in its directory."""

    directory: Path
    cluster_name: str
    ports: tuple[tuple[int, int], ...]
    """(client port, peer port) of n1, n2, ..."""

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple(
            Place(
                f"n{number}",
                f"{HOST}:{client_port}",
                f"{HOST}:{peer_port}",
                self.directory / f"n{number}" / "data",
                self.directory / f"n{number}" / "log",
            )
            for number, (client_port, peer_port) in enumerate(self.ports, 1)
        )

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(place.client for place in self.places)

    def save(self) -> None:
        """Written whole or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        document = {"cluster_name": self.cluster_name, "ports": self.ports}
        temporary = self.directory / f"{LAYOUT_FILE}.new"
        temporary.write_text(json.dumps(document) + "\n", encoding="utf-8")
        temporary.replace(self.directory / LAYOUT_FILE)


def load_layout(directory: Path) -> Layout | None:
    """The layout of the cluster in `directory`, None when there is nothing yet. Raises Failed for a directory of something else."""
    try:
        document = json.loads((directory / LAYOUT_FILE).read_text(encoding="utf-8"))
        ports = tuple((int(client_port), int(peer_port)) for client_port, peer_port in document["ports"])
        return Layout(directory, str(document["cluster_name"]), ports)
    except FileNotFoundError:
        if directory.exists() and any(directory.iterdir()):
            raise Failed(f"{directory} is not empty and has no {LAYOUT_FILE}: not a directory of raftkv dev") from None
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(f"{directory / LAYOUT_FILE} is damaged: {error}") from None


def consecutive_ports(first_port: int, member_count: int) -> tuple[tuple[int, int], ...]:
    """Client port P+2(i-1), peer port one above."""
    return tuple((first_port + 2 * number, first_port + 2 * number + 1) for number in range(member_count))


def free_ports(member_count: int) -> tuple[tuple[int, int], ...]:
    """Ports that nobody uses now; held together while they are drawn, so that they differ."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(2 * member_count)]
    numbers = [int(bound.getsockname()[1]) for bound in sockets]
    for bound in sockets:
        bound.close()
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def check_ports_free(layout: Layout) -> None:
    """Raises Failed with the first port that is taken: the member's own message would be hidden in its log."""
    for place in layout.places:
        for role, endpoint in (("client", place.client), ("peer", place.peer)):
            try:
                socket.create_server(split_address(endpoint)).close()
            except OSError as error:
                text = (error.strerror or str(error)).lower()
                raise Failed(f"{endpoint}, the {role} port of {place.name}: {text}; give another --port") from None


class Member:
    """One member and its current process, if any."""

    __slots__ = ("expected_to_run", "place", "process")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.process: subprocess.Popen[bytes] | None = None
        self.expected_to_run = False

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log_tail(self) -> list[str]:
        """The last lines that the member wrote."""
        try:
            with self.place.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                return log.read().decode("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
        except OSError:
            return []


class LocalCluster:
    """The members as processes. Use it in a `with` block: leaving it ends them all."""

    def __init__(self, layout: Layout, *, verbose: bool = False, serve_options: Sequence[str] = ()) -> None:
        self.layout = layout
        self.members = {place.name: Member(place) for place in layout.places}
        self._verbose = verbose
        self._serve_options = tuple(serve_options)

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every member that does not run. Raises Failed when a port is taken."""
        if not any(member.running for member in self.members.values()):
            check_ports_free(self.layout)
        self.layout.save()
        for name in self.members:
            self.start_member(name)

    def start_member(self, name: str) -> Member:
        """Start one member; it finds its data again if it ran before."""
        member = self.members[name]
        assert not member.running, f"{name} runs already"
        member.place.data_dir.mkdir(parents=True, exist_ok=True)
        environment = {**clean_environment(), **lifeline.environment()}
        with member.place.log.open("ab") as log:
            member.process = subprocess.Popen(
                self.serve_command(member.place),
                stdin=subprocess.DEVNULL,
                stdout=None if self._verbose else log,
                stderr=None if self._verbose else log,
                env=environment,
                process_group=0,
            )
        member.expected_to_run = True
        return member

    def serve_command(self, place: Place) -> list[str]:
        initial_cluster = ",".join(f"{other.name}={other.peer}" for other in self.layout.places)
        return [
            *(sys.executable, "-m", "raftkv_cli", "serve"),
            *("--name", place.name),
            *("--data-dir", str(place.data_dir)),
            *("--listen", place.client),
            *("--listen-peer", place.peer),
            *("--initial-cluster", initial_cluster),
            *("--cluster-name", self.layout.cluster_name),
            "--allow-insecure-peers",  # all on the loopback address
            *self._serve_options,
        ]

    def signal_member(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a running member; after SIGKILL it is gone when this returns."""
        member = self.members[name]
        assert member.process is not None, f"{name} was never started"
        if number in (signal.SIGKILL, signal.SIGTERM):
            member.expected_to_run = False
        member.process.send_signal(number)
        if number == signal.SIGKILL:
            member.process.wait()

    def take_deaths(self) -> list[Member]:
        """Members that ended though nobody asked them to; each is reported once."""
        dead = [member for member in self.members.values() if member.expected_to_run and not member.running]
        for member in dead:
            member.expected_to_run = False
        return dead

    def ready_names(self, timeout_seconds: float = 0.5) -> list[str]:
        """The members whose /readyz says yes."""
        running = [member.place for member in self.members.values() if member.running]
        return [place.name for place in running if probe(place.client, "/readyz", timeout_seconds).ok]

    def wait_ready(self, timeout_seconds: float, pause: Callable[[float], Any] = time.sleep) -> bool:
        """Wait until every member is ready; False when one died, time ran out or `pause` returned something true."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if not all(member.running for member in self.members.values()):
                return False
            if len(self.ready_names()) == len(self.members):
                return True
            if pause(0.05):
                return False
        return False

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """SIGTERM to all, SIGKILL to whoever is still there after the grace period; nobody is left when this returns."""
        running = [member for member in self.members.values() if member.running]
        for member in running:
            member.expected_to_run = False
            assert member.process is not None
            member.process.send_signal(signal.SIGTERM)
            member.process.send_signal(signal.SIGCONT)  # a member that was stopped could not see the SIGTERM
        deadline = time.monotonic() + grace_seconds
        for member in running:
            assert member.process is not None
            try:
                member.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
        assert not any(member.running for member in self.members.values()), "no process is left behind"


def clean_environment() -> dict[str, str]:
    """Ours without what would tell every member the same about itself; limits and log level are passed on."""
    return {name: value for name, value in os.environ.items() if name not in OF_ONE_MEMBER}
