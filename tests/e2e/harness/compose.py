"""The cluster of docker-compose.yml as a whole: up, down, its containers, its members as the command line sees them."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from integration.harness.waiting import wait_until

from .engine import Engine, run
from .images import WHEELS

MEMBERS = ("n1", "n2", "n3")
PORTS = {"n1": 2379, "n2": 2381, "n3": 2383}
HEALTHY_SECONDS_MAX = 60.0
GRACE_SECONDS = 15.0


class ComposeCluster:
    """One compose project on one engine. `down(volumes=True)` leaves nothing of it."""

    def __init__(self, engine: Engine, context: Path, base_image: str, image: str) -> None:
        self.engine = engine
        self.image = image
        self.project = f"raftkv-e2e-{os.getpid()}"
        self.network = f"{self.project}_cluster"
        self._context = context
        engine.environment |= {"RAFTKV_IMAGE": image, "RAFTKV_BASE_IMAGE": base_image, "RAFTKV_WHEELS": WHEELS}

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

    def down(self, volumes: bool = False) -> None:
        self.compose("down", "--timeout", str(int(GRACE_SECONDS)), *(["--volumes"] if volumes else []))

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
        return ",".join(f"127.0.0.1:{PORTS[member]}" for member in members or MEMBERS)

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

    def exit_codes_since(self, since: float) -> dict[str, int]:
        """Exit codes of this project's containers that ended since then (time.time), by service."""
        lines = self.engine.docker(
            "events", "--since", str(int(since)), "--until", str(int(time.time()) + 1),
            "--filter", "event=die", "--filter", f"label=com.docker.compose.project={self.project}",
            "--format", "{{json .Actor.Attributes}}",
        ).splitlines()  # fmt: skip
        attributes = [json.loads(line) for line in lines]
        return {each["com.docker.compose.service"]: int(each["exitCode"]) for each in attributes}
