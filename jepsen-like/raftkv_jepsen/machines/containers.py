"""Members in the containers of docker-compose.yml, as Nodes: the same signals reach them, and the same cuts, in the namespaces that the engine made.

A container that starts again has another network namespace, so what is cut or shaped at that time is written anew. Clients use the published
ports, which the engine forwards from the gateway of the project's network: a cut from the clients drops what comes from there.
"""

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Iterator, Mapping

from raftkv_jepsen.machines.cables import CLIENTS, Cables, missing_tool, run_tool
from raftkv_jepsen.machines.cluster import Place
from raftkv_jepsen.machines.compose import MEMBERS, Project, docker
from raftkv_jepsen.machines.node import Node
from raftkv_jepsen.machines.process import Process
from raftkv_jepsen.machines.waiting import wait_until

ENDED_S: Final = 30.0
NOT_HERE: Final = "not available with compose: "


class Container(Process):
    """The child is `docker start --attach`: it prints what the member prints and ends as the member ends."""

    def __init__(self, project: Project, member: str, log_path: Path) -> None:
        self._id = project.container(member)
        command = ["docker", "start", "--attach", self._id]
        super().__init__(command, log_path, environment=os.environ)
        wait_until(self._has_begun, f"the container of {member} to start", deadline_s=ENDED_S)

    def _has_begun(self) -> bool:
        words = docker("inspect", "--format", "{{.State.Running}} {{.State.Pid}}", self._id).split()
        self._member_pid = int(words[1])
        return words[0] == "true" or self.exit_code is not None

    @property
    def pid(self) -> int:
        """Of the member, as its host sees it; 0 when it ended before it could be asked."""
        return self._member_pid

    def send(self, signal_number: int) -> None:
        """By the engine, to process 1 of the container; to an ended one it is nothing."""
        try:
            docker("kill", "--signal", str(int(signal_number)), self._id)
        except subprocess.CalledProcessError as error:
            if "is not running" not in error.stderr and "No such container" not in error.stderr:
                raise

    def kill(self) -> None:
        """SIGKILL, and its end."""
        if self.exit_code is None:
            super().kill()

    def wait_exit(self, deadline_s: float = ENDED_S) -> int:
        """The engine's own time comes on top of the member's."""
        return super().wait_exit(max(deadline_s, ENDED_S))


class ContainerNetwork(Cables):
    """The project's network. `unavailable` says why nothing can be cut, once the containers run; empty when it can."""

    outside = frozenset({CLIENTS})

    def __init__(self, project: Project) -> None:
        super().__init__(MEMBERS)
        self._project = project
        self._namespaces: dict[str, int] = {}
        self._links: dict[str, tuple[Path, dict[str, float]]] = {}
        self.unavailable = missing_tool("nft", "nsenter", "ip")

    def address(self, host: str) -> str:
        """On the project's network."""
        return self._project.address(host)

    def inside(self, host: str) -> tuple[str, ...]:
        """An open descriptor, not a process id: that one may be somebody else's by now, and the namespace the machine's own."""
        return ("nsenter", f"--net=/proc/{os.getpid()}/fd/{self._namespaces[host]}")

    def places(self) -> list[Place]:
        """Published ports for the clients, names of the compose file for the members."""
        return [Place(f"127.0.0.1:{self._project.ports[member]}", f"{member}:2380") for member in MEMBERS]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Published ports are where the harness is."""
        yield

    def moved(self, host: str, pid: int) -> None:
        """A container has started: it lives in another namespace now, and what is cut is cut there too."""
        if self.unavailable or not pid:
            return
        with self._lock:
            try:
                descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            except OSError as error:
                if host not in self._namespaces:
                    self.unavailable = f"the engine's processes are not on this machine ({error.strerror})"
                return  # it has ended already
            if host in self._namespaces:
                os.close(self._namespaces[host])
            self._namespaces[host] = descriptor
            if any(host in cut for cut in self._cuts):
                self._write_rules(host)
        if host in self._shaped:
            self._shaped.pop(host).kill()
            directory, link = self._links[host]
            self.shape(host, directory, **link)

    def look(self) -> None:
        """Whether these are the containers' namespaces: an engine on another machine has processes of the same numbers."""
        for host in self.hosts:
            if self.unavailable:
                return
            try:
                seen = run_tool(*self.inside(host), "ip", "-o", "-4", "addr")
            except (KeyError, subprocess.CalledProcessError) as error:
                self.unavailable = f"the network of {host} cannot be entered ({error})"
                return
            if f" {self.address(host)}/" not in seen:
                self.unavailable = "the engine's processes are not on this machine"

    def shape(self, host: str, directory: Path, **link: float) -> None:
        """As its base, and remembered for a container that starts meanwhile."""
        self._links[host] = (directory, link)
        super().shape(host, directory, **link)

    def close(self) -> None:
        """The rules vanish with the containers."""
        self._end_queues()
        while self._namespaces:
            os.close(self._namespaces.popitem()[1])


@dataclass
class ComposeNode(Node):
    """A member in its container; settings and flags are the project's."""

    project: Project = field(kw_only=True)
    network: ContainerNetwork = field(kw_only=True)

    def start(self, *, environment: Mapping[str, str] | None = None) -> Process:
        """Starts the container; the member is not ready yet."""
        assert not self.running, f"{self.name} runs already"
        assert not environment, "the environment of a container is given when it is made"
        self.process = Container(self.project, self.name, self.log_path)
        self.paused = False
        self.network.moved(self.name, self.process.pid)
        return self.process

    def begin_anew(self, through: Node) -> None:
        """A new container with a new volume."""
        self.project.renew(self.name, through.name)


def lacks(project: Project, network: ContainerNetwork) -> dict[str, str]:
    """Groups of faults that containers cannot have, and why; asked when they run."""
    network.look()
    missing = {"crash": f"{NOT_HERE}the image holds no test build"}
    if network.unavailable:
        reason = f"{NOT_HERE}containers' networks cannot be entered: {network.unavailable}"
        missing |= {"partition": reason, "links": reason}
    if any(project.data_directory(member) is None for member in MEMBERS):
        missing["damage"] = f"{NOT_HERE}this user cannot reach the engine's volumes"
    return missing


NO_DISKS: Final = f"{NOT_HERE}volumes are the engine's, not small file systems of their own"
NO_CLOCKS: Final = f"{NOT_HERE}the image holds neither libfaketime nor the test build"
