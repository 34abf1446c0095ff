"""Cables on plain loopback, for machines and users that cannot make network namespaces: a TCP proxy in front of every port.

Members advertise their proxies' addresses, so peers and clients go through them. Who a connection comes from is found out by its source port:
the kernel says which socket that is, and /proc whose it is. A cut holds back what one side sends, as packets that get lost do: connections stay open and silent,
new ones are accepted and never answered. Delay works, loss and duplication are below TCP and cannot be had here.
"""

import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Final, Iterable, Iterator, Mapping

from raftkv_jepsen.machines.cluster import Place
from raftkv_jepsen.machines.netns import CLIENTS, NamespacesUnavailable
from raftkv_jepsen.machines.ports import PortReservations

RECEIVE_BYTES: Final = 65_536
POLL_S: Final = 0.02
NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
REQUEST: Final = 1
NO_COOKIE: Final = 0xFFFFFFFF
NETLINK_HEADER_BYTES: Final = 16
INODE_OFFSET_BYTES: Final = NETLINK_HEADER_BYTES + 4 + 48 + 16
HELD_BYTES_MAX: Final = 4 << 20


@dataclass(eq=False, slots=True)
class _Pipe:
    """One direction of a proxied connection."""

    source: socket.socket
    target: socket.socket
    sender: str
    receiver: str
    held: deque[tuple[float, bytes]] = field(default_factory=deque)
    held_bytes: int = 0
    ended: bool = False
    twin: "_Pipe | None" = None


class ProxyNetwork:
    """The same words as netns.Network. Runs on a thread of its own."""

    def __init__(self, hosts_count: int) -> None:
        self.hosts = [f"n{number}" for number in range(1, hosts_count + 1)]
        self._reservations = PortReservations()
        self._cuts: set[tuple[str, str]] = set()
        self._delay_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._pipes: dict[socket.socket, _Pipe] = {}
        self._holding: set[_Pipe] = set()
        """Those with something to say or to end; all others cost nothing."""
        self._targets: dict[socket.socket, tuple[str, int]] = {}
        self._owners: Callable[[], Mapping[int, str]] = dict
        self._places = [self._place(host) for host in self.hosts]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxies", daemon=True)
        self._thread.start()

    def _place(self, host: str) -> Place:
        ports = [self._reservations.take() for _ in range(4)]
        for listen_port, target_port in ((ports[0], ports[1]), (ports[2], ports[3])):
            listener = socket.create_server(("127.0.0.1", listen_port))
            listener.setblocking(False)
            self._targets[listener] = (host, target_port)
            self._selector.register(listener, selectors.EVENT_READ)
        client, client_behind, peer, peer_behind = (f"127.0.0.1:{port}" for port in ports)
        return Place(client, peer, listen=client_behind, listen_peer=peer_behind)

    def places(self) -> list[Place]:
        """Where the nodes of a cluster live."""
        return self._places

    def tell_owners(self, owners: Callable[[], Mapping[int, str]]) -> None:
        """`owners` says which node each daemon is of, by process id; everybody else is a client."""
        self._owners = owners

    @contextmanager
    def entered(self) -> Iterator[None]:
        """There is nothing to enter."""
        yield

    def cut(self, sender: str, receiver: str) -> None:
        """Nothing that `sender` says reaches `receiver`."""
        with self._lock:
            self._cuts.add((sender, receiver))

    def mend(self, sender: str, receiver: str) -> None:
        """Undoes one cut; what was held back arrives."""
        with self._lock:
            self._cuts.discard((sender, receiver))

    def isolate(self, host: str, others: Iterable[str]) -> None:
        """Cuts `host` off from `others` in both directions."""
        for other in others:
            self.cut(host, other)
            self.cut(other, host)

    def heal(self) -> None:
        """Undoes every cut."""
        with self._lock:
            self._cuts.clear()

    def shape(self, host: str, directory: Path, **link: float) -> None:
        """Delay is all that a proxy can do. Raises NamespacesUnavailable for the rest."""
        if link.keys() - {"delay_ms", "seed"}:
            raise NamespacesUnavailable("loss, duplication and reordering are below TCP: they need network namespaces")
        with self._lock:
            self._delay_s[host] = link["delay_ms"] / 1000

    def unshape(self) -> None:
        """All links are as they were."""
        with self._lock:
            self._delay_s.clear()

    def close(self) -> None:
        """Ends everything, the thread included."""
        self._ended.set()
        self._thread.join(10)
        for end in [*self._pipes, *self._targets]:
            end.close()
        self._selector.close()
        self._reservations.close()

    # The thread.

    def _run(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(POLL_S):
                end = key.fileobj
                assert isinstance(end, socket.socket)
                if end in self._targets:
                    self._accept(end)
                elif end in self._pipes:
                    self._receive(self._pipes[end])
            now = time.monotonic()
            for pipe in list(self._holding):
                self._let_go(pipe, now)

    def _accept(self, listener: socket.socket) -> None:
        host, port = self._targets[listener]
        try:
            source, address = listener.accept()
        except OSError:
            return
        try:
            target = socket.create_connection(("127.0.0.1", port), timeout=1)
        except OSError:
            source.close()
            return
        owner = owner_of_port(address[1], listener.getsockname()[1], self._owners()) or CLIENTS
        there, back = _Pipe(source, target, owner, host), _Pipe(target, source, host, owner)
        there.twin, back.twin = back, there
        for pipe in (there, back):
            pipe.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pipe.source.settimeout(1)
            self._pipes[pipe.source] = pipe
            self._selector.register(pipe.source, selectors.EVENT_READ)

    def _receive(self, pipe: _Pipe) -> None:
        try:
            data = pipe.source.recv(RECEIVE_BYTES)
        except OSError:
            data = b""
        with self._lock:
            due = time.monotonic() + self._delay_s.get(pipe.sender, 0.0)
        self._holding.add(pipe)
        if data:
            pipe.held.append((due, data))
            pipe.held_bytes += len(data)
        if not data or pipe.held_bytes > HELD_BYTES_MAX:
            pipe.ended = True
            self._selector.unregister(pipe.source)

    def _let_go(self, pipe: _Pipe, now: float) -> None:
        with self._lock:
            is_cut = (pipe.sender, pipe.receiver) in self._cuts
        if self._pipes.get(pipe.source) is not pipe:
            self._holding.discard(pipe)
            return
        if is_cut:
            return
        try:
            while pipe.held and pipe.held[0][0] <= now:
                pipe.target.sendall(pipe.held[0][1])
                pipe.held_bytes -= len(pipe.held.popleft()[1])
        except OSError:
            pipe.held.clear()
            pipe.ended = True
        if not pipe.held:
            self._holding.discard(pipe)
            if pipe.ended:
                self._end(pipe)

    def _end(self, pipe: _Pipe) -> None:
        for one in (pipe, pipe.twin):
            if one is not None and self._pipes.pop(one.source, None) is not None:
                if one.source.fileno() in self._selector.get_map():
                    self._selector.unregister(one.source)
                one.source.close()


def owner_of_port(port: int, peer_port: int, owners: Mapping[int, str]) -> str:
    """Which of these processes has the loopback connection from `port` to `peer_port`; empty: none of them, so it is a client."""
    wanted = f"socket:[{inode_of(port, peer_port)}]"
    for pid, name in owners.items():
        folder = f"/proc/{pid}/fd"
        try:
            if any(_target(f"{folder}/{descriptor}") == wanted for descriptor in os.listdir(folder)):
                return name
        except OSError:
            continue  # it has ended
    return ""


def inode_of(port: int, peer_port: int) -> int:
    """Of the socket at the first end, 0 when it is gone; asked of the kernel (sock_diag), whose table of all of them takes long to read."""
    loopback = socket.inet_aton("127.0.0.1") + bytes(12)
    question = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
    question += struct.pack(">HH", port, peer_port) + loopback + loopback + struct.pack("=III", 0, NO_COOKIE, NO_COOKIE)
    header = struct.pack("=IHHII", NETLINK_HEADER_BYTES + len(question), SOCK_DIAG_BY_FAMILY, REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(header + question)
        answer = kernel.recv(4096)
    if struct.unpack_from("=IH", answer)[1] != SOCK_DIAG_BY_FAMILY:
        return 0
    return int(struct.unpack_from("=I", answer, INODE_OFFSET_BYTES)[0])


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""  # closed between the listing and the look
