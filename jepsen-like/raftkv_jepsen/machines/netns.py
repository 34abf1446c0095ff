"""Hosts and cables in network namespaces: one namespace per node, one for the clients, a bridge between them.

The bridge lives in the clients' namespace, so the machine's own network never sees any of it, and removing the namespaces
removes everything. The test enters the clients' namespace with its own thread; threads and processes that it starts
afterwards are in it too. A cut is a drop rule in the receiver's namespace: a one-way cut is one rule, and the sender gets no
error, as with a real broken cable.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator

from raftkv_jepsen.machines.cluster import Place
from raftkv_jepsen.machines.linkqueue import MARK, QUEUE_NUMBER, READY
from raftkv_jepsen.machines.process import HARNESS_PATH, Process
from raftkv_jepsen.machines.waiting import wait_until

NAMESPACE_PREFIX = "raftkv-test-"
CLONE_NEWNET = 0x40000000
SUBNET = "10.77.0"
CLIENTS = "clients"
CLIENTS_HOST_NUMBER = 254
QUEUE_TARGET = ("-j", "NFQUEUE", "--queue-num", str(QUEUE_NUMBER), "--queue-bypass")
CLIENT_PORT = 2379
PEER_PORT = 2380


class NamespacesUnavailable(Exception):
    """This machine or user cannot make network namespaces; the text says why."""


class Network:
    """`hosts_count` nodes named n1.. and the clients. Everything is removed by `close`."""

    def __init__(self, hosts_count: int) -> None:
        for tool in ("ip", "nft", "nsenter"):
            if shutil.which(tool) is None:
                raise NamespacesUnavailable(f"{tool} is not installed")
        if os.geteuid() != 0:
            raise NamespacesUnavailable("network namespaces need root")
        _remove_orphans()
        self._tag = f"{NAMESPACE_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.hosts = [f"n{number}" for number in range(1, hosts_count + 1)]
        self._made: list[str] = []
        # (receiver, sender) of every cut; the rules of a receiver are always written as a whole.
        self._cuts: set[tuple[str, str]] = set()
        self._shaped: dict[str, Process] = {}
        try:
            self._build()
        except subprocess.CalledProcessError as error:
            self.close()
            raise NamespacesUnavailable(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error

    def _build(self) -> None:
        self._add_namespace(CLIENTS)
        in_clients = ("ip", "-n", self._namespace(CLIENTS))
        _run(*in_clients, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        _run(*in_clients, "addr", "add", f"{self.address(CLIENTS)}/24", "dev", "bridge")
        _run(*in_clients, "link", "set", "bridge", "up")
        for host in self.hosts:
            self._add_namespace(host)
            in_host = ("ip", "-n", self._namespace(host))
            _run(*in_clients, "link", "add", host, "type", "veth", "peer", "eth0", "netns", self._namespace(host))
            _run(*in_clients, "link", "set", host, "master", "bridge", "up")
            _run(*in_host, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            _run(*in_host, "link", "set", "eth0", "up")

    def _add_namespace(self, host: str) -> None:
        _run("ip", "netns", "add", self._namespace(host))
        self._made.append(host)
        _run("ip", "-n", self._namespace(host), "link", "set", "lo", "up")

    def _namespace(self, host: str) -> str:
        return f"{self._tag}-{host}"

    def address(self, host: str) -> str:
        """The IPv4 address of a host."""
        number = CLIENTS_HOST_NUMBER if host == CLIENTS else int(host.removeprefix("n"))
        return f"{SUBNET}.{number}"

    def places(self) -> list[Place]:
        """Where the nodes of a cluster live; every host has the shipped ports to itself."""
        return [
            Place(
                f"{self.address(host)}:{CLIENT_PORT}",
                f"{self.address(host)}:{PEER_PORT}",
                ("nsenter", f"--net=/run/netns/{self._namespace(host)}"),
            )
            for host in self.hosts
        ]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Moves the calling thread into the clients' namespace and back."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        clients = os.open(Path("/run/netns") / self._namespace(CLIENTS), os.O_RDONLY)
        try:
            _set_namespace(clients)
            yield
        finally:
            _set_namespace(home)
            os.close(clients)
            os.close(home)

    def cut(self, sender: str, receiver: str) -> None:
        """Drops everything from `sender` at `receiver`, and nothing the other way round."""
        assert sender != receiver
        self._cuts.add((receiver, sender))
        self._write_rules(receiver)

    def mend(self, sender: str, receiver: str) -> None:
        """Undoes one cut."""
        self._cuts.discard((receiver, sender))
        self._write_rules(receiver)

    def isolate(self, host: str, others: Iterable[str]) -> None:
        """Cuts `host` off from `others` in both directions."""
        for other in others:
            self.cut(host, other)
            self.cut(other, host)

    def heal(self) -> None:
        """Undoes every cut."""
        receivers = {receiver for receiver, _ in self._cuts}
        self._cuts.clear()
        for receiver in receivers:
            self._write_rules(receiver)

    def shape(self, host: str, directory: Path, **link: float) -> None:
        """What leaves `host` for other nodes is delayed, lost, doubled or reordered, as linkqueue.py's options say.

        Raises NamespacesUnavailable when this machine cannot.
        """
        if shutil.which("iptables") is None:
            raise NamespacesUnavailable("iptables is not installed")
        inside = ("nsenter", f"--net=/run/netns/{self._namespace(host)}")
        words = [f"--{name.replace('_', '-')}={value}" for name, value in link.items()]
        program = (sys.executable, "-m", "raftkv_jepsen.machines.linkqueue")
        environment = {**os.environ, "PYTHONPATH": str(HARNESS_PATH)}
        queue = Process([*inside, *program, *words], directory / f"links-{host}.log", environment=environment)
        self._shaped[host] = queue
        wait_until(lambda: READY in queue.log_text(), "the queue of packets", seen=queue.log_text)
        peers = ",".join(self.address(other) for other in self.hosts if other != host)
        rules = (("-m", "mark", "--mark", str(MARK), "-j", "ACCEPT"), ("-d", peers, *QUEUE_TARGET))
        try:
            for rule in rules:
                _run(*inside, "iptables", "-A", "OUTPUT", *rule)
        except subprocess.CalledProcessError as error:
            self.unshape()
            raise NamespacesUnavailable(f"iptables: {error.stderr.strip()}") from error

    def unshape(self) -> None:
        """All links are as they were."""
        while self._shaped:
            host, queue = self._shaped.popitem()
            _run("nsenter", f"--net=/run/netns/{self._namespace(host)}", "iptables", "-F", "OUTPUT")
            queue.kill()

    def _write_rules(self, receiver: str) -> None:
        senders = sorted(self.address(sender) for cut_receiver, sender in self._cuts if cut_receiver == receiver)
        rule = f"ip saddr {{ {', '.join(senders)} }} drop;" if senders else ""
        # One transaction: there is no moment without the rules that stay.
        script = (
            "add table inet raftkv\n"
            "delete table inet raftkv\n"
            f"table inet raftkv {{\nchain cuts {{\ntype filter hook input priority -10;\n{rule}\n}}\n}}\n"
        )
        _run("nsenter", f"--net=/run/netns/{self._namespace(receiver)}", "nft", "-f", "-", standard_input=script)

    def close(self) -> None:
        """Removes the namespaces, and with them the cables and the rules."""
        while self._shaped:
            self._shaped.popitem()[1].kill()
        while self._made:
            subprocess.run(["ip", "netns", "del", self._namespace(self._made.pop())], check=False, capture_output=True)


def _remove_orphans() -> None:
    """Removes the namespaces of test processes that were killed before they could do it."""
    for path in Path("/run/netns").glob(f"{NAMESPACE_PREFIX}*"):
        owner = path.name.removeprefix(NAMESPACE_PREFIX).split("-")[0]
        if not Path("/proc", owner).exists():
            subprocess.run(["ip", "netns", "del", path.name], check=False, capture_output=True)


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns failed")


def _run(*command: str, standard_input: str | None = None) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, input=standard_input, timeout=20)
