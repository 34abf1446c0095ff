"""The repository's docker-compose.yml as a project of its own: other name, ports, volumes and subnet than any cluster that is there already.

What a run needs to be different stands in a second file that is laid over the first: settings, fixed addresses, and no restarts by the engine, which
would hide a crash. Everything is found again by labels, so that a run ends without leaving anything, and one that was killed is cleared away by the next.
"""

import json
import os
import random
import resource
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Callable, Final, Mapping

from raftkv_jepsen.machines.ports import PortReservations
from raftkv_jepsen.machines.process import REPOSITORY

MEMBERS: Final = ("n1", "n2", "n3")
"""Of docker-compose.yml."""
FILE: Final = REPOSITORY / "docker-compose.yml"
IMAGE: Final = "RAFTKV_IMAGE"
"""Names a finished image; without it this checkout is built."""
PREFIX: Final = "raftkv-jepsen-"
PROJECT_LABEL: Final = "com.docker.compose.project"
SERVICE_LABEL: Final = "com.docker.compose.service"
OWNER_LABEL: Final = "raftkv.jepsen.owner"
HOST_LABEL: Final = "raftkv.jepsen.host"
OPEN_FILES: Final = 65_536
COMMAND_S: Final = 120.0
BUILD_S: Final = 1800.0
GATEWAY_HOST_NUMBER: Final = 1
FIRST_HOST_NUMBER: Final = 11


class ComposeUnavailable(ValueError):
    """There is no engine, or it cannot do it; the text says why."""


class Project:
    """Made by `create`, ended by `close`. Every docker command runs in a session of its own: Ctrl-C is for the run, which then clears away."""

    def __init__(self, cluster_name: str, settings: Mapping[str, str]) -> None:
        self._compose_words = find_compose()
        remove_orphans()
        self.name = f"{PREFIX}{uuid.uuid4().hex[:10]}"
        self._settings = dict(settings)
        self._joining: dict[str, str] = {}
        self._subnet = draw_subnet(Path("/proc/net/route").read_text() if Path("/proc/net/route").exists() else "")
        self._reservations = PortReservations()
        self.ports = {member: self._reservations.take() for member in MEMBERS}
        self._directory = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._environment = {
            "RAFTKV_NOFILE": str(min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
            **os.environ,
            "RAFTKV_CLUSTER_NAME": cluster_name,
            "RAFTKV_PUBLISH": "127.0.0.1",
            **{f"RAFTKV_PORT_{member.upper()}": str(port) for member, port in self.ports.items()},
            "PWD": str(REPOSITORY),
        }

    def create(self, say: Callable[[str], None]) -> None:
        """Image, network, volumes and containers; nothing runs yet. Raises ComposeUnavailable."""
        self._write_overlay()
        if not self._environment.get(IMAGE):
            say("building the image of this checkout")
            self._compose("build", seconds_max=BUILD_S)
        self._compose("up", "--no-start")
        missing = [member for member in MEMBERS if not self.container(member)]
        if missing:
            raise ComposeUnavailable(f"docker-compose.yml made no container for {', '.join(missing)}")

    def renew(self, member: str, through: str) -> None:
        """Container and volume of a member are deleted and made anew, to join through another one; as an operator replaces a lost disk."""
        self._joining[member] = f"{through}:2379"
        self._write_overlay()
        docker("rm", "--force", "--volumes", self.container(member))
        docker("volume", "rm", self._volume(member))
        self._compose("up", "--no-start", member)

    def container(self, member: str) -> str:
        """Its id; empty when there is none."""
        filters = (f"label={PROJECT_LABEL}={self.name}", f"label={SERVICE_LABEL}={member}")
        return docker("ps", "--all", "--quiet", "--no-trunc", "--filter", filters[0], "--filter", filters[1])

    def _volume(self, member: str) -> str:
        return f"{self.name}_{member}"

    def data_directory(self, member: str) -> Path | None:
        """Its volume as seen from here; None when the engine keeps it on another machine, or from this user."""
        path = Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", self._volume(member)))
        return path if os.access(path, os.R_OK | os.W_OK | os.X_OK) else None

    def address(self, host: str) -> str:
        """On the project's own network; whatever is not a member comes in through the gateway."""
        number = FIRST_HOST_NUMBER + MEMBERS.index(host) if host in MEMBERS else GATEWAY_HOST_NUMBER
        return f"{self._subnet}.{number}"

    def overlay(self) -> dict[str, object]:
        """What is laid over docker-compose.yml."""
        labels = {OWNER_LABEL: str(os.getpid()), HOST_LABEL: this_host()}
        services = {}
        for member in MEMBERS:
            settings = dict(self._settings)
            if member in self._joining:
                settings |= {"RAFTKV_JOIN": self._joining[member], "RAFTKV_INITIAL_CLUSTER": ""}
            services[member] = {
                "restart": "no",
                "environment": settings,
                "labels": labels,
                "networks": {"cluster": {"ipv4_address": self.address(member)}},
            }
        subnet = {"subnet": f"{self._subnet}.0/24", "gateway": self.address("")}
        return {"services": services, "networks": {"cluster": {"ipam": {"config": [subnet]}}}}

    def _write_overlay(self) -> None:
        # JSON is YAML.
        (self._directory / "overlay.yml").write_text(json.dumps(self.overlay(), indent=1))

    def _compose(self, *arguments: str, seconds_max: float = COMMAND_S) -> None:
        files = ("-f", str(FILE), "-f", str(self._directory / "overlay.yml"))
        try:
            _run([*self._compose_words, *files, "-p", self.name, *arguments], self._environment, seconds_max)
        except subprocess.CalledProcessError as error:
            lines = str(error.stderr or error.stdout).strip().splitlines()
            words = " ".join(lines[-3:])
            raise ComposeUnavailable(f"docker compose {' '.join(arguments)} failed: {words}") from error

    def close(self) -> None:
        """Removes containers, volumes and network; the image stays."""
        remove_project(self.name)
        self._reservations.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def find_compose() -> list[str]:
    """`docker compose` where the plugin is there, else docker-compose. Raises ComposeUnavailable, also when no engine answers."""
    if shutil.which("docker") is None:
        raise ComposeUnavailable("--machines compose needs Docker: there is no docker command here")
    try:
        docker("info")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        words = " ".join(str(error.stderr or "no answer").split())[-200:]
        raise ComposeUnavailable(f"--machines compose needs a Docker engine, and none answers: {words}") from error
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose") is None:
        raise ComposeUnavailable("--machines compose needs `docker compose` or docker-compose, and there is neither")
    return ["docker-compose"]


def draw_subnet(routes: str) -> str:
    """The first three numbers of a network of 256 addresses to which no route of this machine leads (`routes`: /proc/net/route)."""
    taken = []
    for line in routes.splitlines()[1:]:
        words = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(word), "little") for word in (words[1], words[7]))
        if mask:
            taken.append((destination, mask))
    # Not the run's seed: two runs with one seed at a time would meet.
    draw = random.SystemRandom()
    for _ in range(1000):
        second, third = draw.randint(64, 250), draw.randint(0, 255)
        first_address = (10 << 24) + (second << 16) + (third << 8)
        if not any((first_address & mask) == destination & 0xFFFFFF00 for destination, mask in taken):
            return f"10.{second}.{third}"
    raise ComposeUnavailable("every network below 10.64.0.0/10 has a route already")


def this_host() -> str:
    """Where a process id means something: this boot, these processes."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        return f"{boot.read_text().strip()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return os.uname().nodename


def remove_orphans() -> None:
    """Removes what is left of runs on this host that were killed before they could do it."""
    line = "\t".join(f'{{{{.Label "{label}"}}}}' for label in (PROJECT_LABEL, OWNER_LABEL))
    rows = docker("ps", "--all", "--filter", f"label={HOST_LABEL}={this_host()}", "--format", line).splitlines()
    for project, owner in {tuple(row.split("\t")) for row in rows}:
        if not Path("/proc", owner).exists():
            remove_project(project)


def remove_project(name: str) -> None:
    """Containers first, because they hold the others."""
    mine = ("--quiet", "--filter", f"label={PROJECT_LABEL}={name}")
    for listing, removal in (
        (("ps", "--all"), ("rm", "--force", "--volumes")),
        (("network", "ls"), ("network", "rm")),
        (("volume", "ls"), ("volume", "rm", "--force")),
    ):
        found = docker(*listing, *mine).split()
        if found:
            docker(*removal, *found)


def docker(*arguments: str, seconds_max: float = COMMAND_S) -> str:
    """What it printed. Raises CalledProcessError."""
    return _run(["docker", *arguments], None, seconds_max).strip()


def _run(command: list[str], environment: Mapping[str, str] | None, seconds_max: float) -> str:
    return subprocess.run(
        command,
        env=environment,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds_max,
        check=True,
        start_new_session=True,
    ).stdout
