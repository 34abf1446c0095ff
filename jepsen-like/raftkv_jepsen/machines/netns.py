"""Hosts and cables in network namespaces: one namespace per node, one for the clients, a bridge between them.

The bridge lives in the clients' namespace, so the machine's own network never sees any of it, and removing the namespaces
removes everything. The test enters the clients' namespace with its own thread; threads and processes that it starts
afterwards are in it too.
"""

import ctypes
import os
import subprocess
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from raftkv_jepsen.machines.cables import CLIENTS, Cables, NamespacesUnavailable, missing_tool, run_tool
from raftkv_jepsen.machines.cluster import Place

NAMESPACE_PREFIX = "raftkv-test-"
CLONE_NEWNET = 0x40000000
SUBNET = "10.77.0"
CLIENTS_HOST_NUMBER = 254
CLIENT_PORT = 2379
PEER_PORT = 2380

__all__ = ["CLIENTS", "NamespacesUnavailable", "Network"]


class Network(Cables):
    """`hosts_count` nodes named n1.. and the clients. Everything is removed by `close`."""

    def __init__(self, hosts_count: int) -> None:
        reason = missing_tool("ip", "nft", "nsenter")
        if reason:
            raise NamespacesUnavailable(reason)
        _remove_orphans()
        self._tag = f"{NAMESPACE_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:6]}"
        super().__init__([f"n{number}" for number in range(1, hosts_count + 1)])
        self._made: list[str] = []
        try:
            self._build()
        except subprocess.CalledProcessError as error:
            self.close()
            raise NamespacesUnavailable(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error

    def _build(self) -> None:
        self._add_namespace(CLIENTS)
        in_clients = ("ip", "-n", self._namespace(CLIENTS))
        run_tool(*in_clients, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        run_tool(*in_clients, "addr", "add", f"{self.address(CLIENTS)}/24", "dev", "bridge")
        run_tool(*in_clients, "link", "set", "bridge", "up")
        for host in self.hosts:
            self._add_namespace(host)
            in_host = ("ip", "-n", self._namespace(host))
            run_tool(*in_clients, "link", "add", host, "type", "veth", "peer", "eth0", "netns", self._namespace(host))
            run_tool(*in_clients, "link", "set", host, "master", "bridge", "up")
            run_tool(*in_host, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            run_tool(*in_host, "link", "set", "eth0", "up")

    def _add_namespace(self, host: str) -> None:
        run_tool("ip", "netns", "add", self._namespace(host))
        self._made.append(host)
        run_tool("ip", "-n", self._namespace(host), "link", "set", "lo", "up")

    def _namespace(self, host: str) -> str:
        return f"{self._tag}-{host}"

    def address(self, host: str) -> str:
        """The IPv4 address of a host."""
        number = CLIENTS_HOST_NUMBER if host == CLIENTS else int(host.removeprefix("n"))
        return f"{SUBNET}.{number}"

    def inside(self, host: str) -> tuple[str, ...]:
        """The command prefix that enters its network namespace."""
        return ("nsenter", f"--net=/run/netns/{self._namespace(host)}")

    def places(self) -> list[Place]:
        """Where the nodes of a cluster live; every host has the shipped ports to itself."""
        return [
            Place(
                f"{self.address(host)}:{CLIENT_PORT}",
                f"{self.address(host)}:{PEER_PORT}",
                self.inside(host),
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

    def close(self) -> None:
        """Removes the namespaces, and with them the cables and the rules."""
        self._end_queues()
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
