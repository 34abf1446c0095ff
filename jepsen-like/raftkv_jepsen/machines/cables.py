"""Cables between hosts that have network namespaces, whoever made those: cuts, and links that are slow or lose packets.

A cut is a drop rule in the receiver's namespace: a one-way cut is one rule, and the sender gets no error, as with a real broken cable. A bad link is a
queue of packets in the sender's namespace (linkqueue.py). Nothing is written into the machine's own namespace.
"""

import os
import shutil
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Final, Iterable, Sequence

from raftkv_jepsen.machines.linkqueue import MARK, QUEUE_NUMBER, READY
from raftkv_jepsen.machines.process import HARNESS_PATH, Process
from raftkv_jepsen.machines.waiting import wait_until

CLIENTS: Final = "clients"
QUEUE_TARGET: Final = ("-j", "NFQUEUE", "--queue-num", str(QUEUE_NUMBER), "--queue-bypass")


class NamespacesUnavailable(Exception):
    """This machine or user cannot do that with network namespaces; the text says why."""


class Cables(ABC):
    """Whoever knows the hosts' addresses and how their namespaces are entered can cut and shape."""

    outside: ClassVar[frozenset[str]] = frozenset()
    """Hosts whose namespace is the machine's own: what must not reach them is dropped where it is sent."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = list(hosts)
        # (receiver, sender) of every cut; the rules of a receiver are always written as a whole.
        self._cuts: set[tuple[str, str]] = set()
        self._shaped: dict[str, Process] = {}
        # A loose plug is a thread of its own, and containers that start meanwhile have their rules written by the main one.
        self._lock = threading.RLock()

    @abstractmethod
    def address(self, host: str) -> str:
        """The IPv4 address of a host."""

    @abstractmethod
    def inside(self, host: str) -> tuple[str, ...]:
        """The command prefix that enters its network namespace."""

    def cut(self, sender: str, receiver: str) -> None:
        """Drops everything from `sender` at `receiver`, and nothing the other way round."""
        assert sender != receiver
        with self._lock:
            self._cuts.add((receiver, sender))
            self._write_rules(receiver)

    def mend(self, sender: str, receiver: str) -> None:
        """Undoes one cut."""
        with self._lock:
            self._cuts.discard((receiver, sender))
            self._write_rules(receiver)

    def isolate(self, host: str, others: Iterable[str]) -> None:
        """Cuts `host` off from `others` in both directions."""
        for other in others:
            self.cut(host, other)
            self.cut(other, host)

    def heal(self) -> None:
        """Undoes every cut."""
        with self._lock:
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
        words = [f"--{name.replace('_', '-')}={value}" for name, value in link.items()]
        program = (sys.executable, "-m", "raftkv_jepsen.machines.linkqueue")
        environment = {**os.environ, "PYTHONPATH": str(HARNESS_PATH)}
        command = [*self.inside(host), *program, *words]
        queue = Process(command, directory / f"links-{host}.log", environment=environment)
        self._shaped[host] = queue
        wait_until(lambda: READY in queue.log_text(), "the queue of packets", seen=queue.log_text)
        peers = ",".join(self.address(other) for other in self.hosts if other != host)
        rules = (("-m", "mark", "--mark", str(MARK), "-j", "ACCEPT"), ("-d", peers, *QUEUE_TARGET))
        try:
            for rule in rules:
                run_tool(*self.inside(host), "iptables", "-A", "OUTPUT", *rule)
        except subprocess.CalledProcessError as error:
            self.unshape()
            raise NamespacesUnavailable(f"iptables: {error.stderr.strip()}") from error

    def unshape(self) -> None:
        """All links are as they were."""
        while self._shaped:
            host, queue = self._shaped.popitem()
            run_tool(*self.inside(host), "iptables", "-F", "OUTPUT")
            queue.kill()

    def _write_rules(self, receiver: str) -> None:
        for host in self.hosts if receiver in self.outside else [receiver]:
            run_tool(*self.inside(host), "nft", "-f", "-", standard_input=self._rules(host))

    def _rules(self, host: str) -> str:
        senders = [sender for receiver, sender in self._cuts if receiver == host]
        receivers = [receiver for receiver, sender in self._cuts if sender == host and receiver in self.outside]
        # One transaction: there is no moment without the rules that stay.
        lines = ["add table inet raftkv", "delete table inet raftkv", "table inet raftkv {"]
        for hook, field, hosts in (("input", "saddr", senders), ("output", "daddr", receivers)):
            addresses = ", ".join(sorted(map(self.address, hosts)))
            rule = f"ip {field} {{ {addresses} }} drop;" if addresses else ""
            lines.append(f"chain {hook}_cuts {{ type filter hook {hook} priority -10; {rule} }}")
        return "\n".join([*lines, "}", ""])

    def _end_queues(self) -> None:
        while self._shaped:
            self._shaped.popitem()[1].kill()


def missing_tool(*tools: str) -> str:
    """Why namespaces cannot be entered and written to here; empty when they can."""
    for tool in tools:
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return "" if os.geteuid() == 0 else "network namespaces need root"


def run_tool(*command: str, standard_input: str | None = None) -> str:
    """What it printed. Raises CalledProcessError."""
    return subprocess.run(command, check=True, capture_output=True, text=True, input=standard_input, timeout=20).stdout
