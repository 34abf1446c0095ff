"""The cluster of docker-compose.yml as a whole: up, down, its containers, its members as the command line sees them."""

import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.harness.ports import PortReservations
from integration.harness.waiting import wait_until

from .engine import Engine, run
from .images import WHEELS

MEMBERS = ("n1", "n2", "n3")
PORTS = {"n1": 2379, "n2": 2381, "n3": 2383}  # as the file publishes them when nobody says otherwise
OPEN_FILES = 65_536
HEALTHY_SECONDS_MAX = 60.0


class ComposeCluster:
    """One compose project on one engine. `remove` leaves nothing of it."""

    def __init__(self, engine: Engine, context: Path, base_image: str, image: str) -> None:
        self.engine = engine
        self.image = image
        self.project = f"raftkv-e2e-{os.getpid()}"
        self.network = f"{self.project}_cluster"
        self._context = context
        self._reservations = PortReservations()
        self._ports = PORTS if engine.is_private else {member: self._reservations.take() for member in MEMBERS}
        engine.environment |= {"RAFTKV_IMAGE": image, "RAFTKV_BASE_IMAGE": base_image, "RAFTKV_WHEELS": WHEELS}
        # An engine in a container or a small virtual machine may not raise its own hard limit.
        self.open_files_max = min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        engine.environment["RAFTKV_NOFILE"] = str(self.open_files_max)
        if not engine.is_private:
            engine.environment |= {f"RAFTKV_PORT_{member.upper()}": str(port) for member, port in self._ports.items()}

    def compose(self, *arguments: str, seconds_max: float = 600.0) -> str:
        command = [*self.engine.compose_command(), "-p", self.project, *arguments]
        environment = {**self.engine.environment, "PWD": str(self._context)}
        file = ["-f", str(self._context / "docker-compose.yml")]
        at = len(self.engine.compose_command())
        return run([*command[:at], *file, *command[at:]], environment, seconds_max)

    def up(self) -> None:
        """`docker compose up`, then wait until the engine calls all three healthy."""
        self.compose("up", "-d")
        self.wait_healthy()

    def down(self) -> None:
        """`docker compose down`, which waits for the file's stop_grace_period before it kills."""
        self.compose("down")

    def remove(self) -> None:
        """End it and delete its volumes and network."""
        self.compose("down", "--volumes")
        self._reservations.close()

    def container(self, member: str) -> str:
        return self.compose("ps", "-q", member).strip()

    def health(self, member: str) -> str:
        return self.engine.docker("inspect", "--format", "{{.State.Health.Status}}", self.container(member))

    def wait_healthy(self, *members: str) -> None:
        for member in members or MEMBERS:
            wait_until(
                lambda member=member: self.health(member) == "healthy",
                f"{member} healthy",
                deadline_s=HEALTHY_SECONDS_MAX,
                seen=lambda member=member: self.engine.docker("logs", "--tail", "20", self.container(member)),
            )

    def endpoints(self, *members: str) -> str:
        """The published ports of the members, as --endpoints wants them."""
        return ",".join(f"127.0.0.1:{self._ports[member]}" for member in members or MEMBERS)

    def cli(self, *arguments: str, members: tuple[str, ...] = MEMBERS) -> str:
        """The command line, outside of the containers, through the published ports of `members`."""
        command = [sys.executable, "-m", "raftkv_cli", "--endpoints", self.endpoints(*members), *arguments]
        return run(self.engine.on_its_network(command), seconds_max=30.0)

    def status(self) -> dict[str, dict[str, Any]]:
        """What each member says about itself; members that do not answer are left out."""
        rows = json.loads(self.cli("status", "-o", "json"))
        return {row["name"]: row for row in rows if row["role"] != "unreachable"}

    def leader(self) -> str:
        def one_leader() -> str | None:
            leaders = [name for name, row in self.status().items() if row["role"] == "leader"]
            return leaders[0] if len(leaders) == 1 else None

        return wait_until(one_leader, "one leader")

    def wait_caught_up(self, member: str) -> None:
        """Until `member` has applied everything that the leader had committed when this was called."""
        target = self.status()[self.leader()]["commit_index"]
        wait_until(
            lambda: self.status().get(member, {"applied_index": 0})["applied_index"] >= target,
            f"{member} applied {target}",
            deadline_s=30.0,
            seen=self.status,
        )

    def disconnect(self, member: str) -> None:
        """Pull the cable: nobody is told."""
        self.engine.docker("network", "disconnect", self.network, self.container(member))

    def connect(self, member: str) -> None:
        """Plug it in again. Compose's alias is lost by a disconnect; without it the others cannot resolve the name."""
        self.engine.docker("network", "connect", "--alias", member, self.network, self.container(member))

    def endings_since(self, since: float) -> dict[str, "Ending"]:
        """How this project's containers ended since then (time.time), by service, as the engine saw it."""
        lines = self.engine.docker(
            "events", "--since", str(int(since)), "--until", str(int(time.time()) + 1),
            "--filter", "event=kill", "--filter", "event=die",
            "--filter", f"label=com.docker.compose.project={self.project}",
            "--format", "{{json .}}",
        ).splitlines()  # fmt: skip
        asked_ns: dict[str, int] = {}
        endings = {}
        for event in map(json.loads, lines):
            attributes = event["Actor"]["Attributes"]
            service = attributes["com.docker.compose.service"]
            if event["Action"].startswith("kill"):
                asked_ns.setdefault(service, event["timeNano"])
            else:
                seconds = (event["timeNano"] - asked_ns[service]) / 1e9
                endings[service] = Ending(int(attributes["exitCode"]), seconds)
        return endings


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a container that was asked to stop."""

    exit_code: int
    seconds: float  # from the first signal
