"""Cables on plain loopback, for machines and users that cannot make network namespaces: a TCP proxy in front of every port.

Members advertise their proxies' addresses, so peers and clients go through them. Who a connection comes from is found out by its source port:
/proc says which process owns the socket. A cut holds back what one side sends, as packets that get lost do: connections stay open and silent,
new ones are accepted and never answered. Delay works, loss and duplication are below TCP and cannot be had here.
"""

import os
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Final, Iterable, Iterator

from raftkv_jepsen.machines.cluster import Place
from raftkv_jepsen.machines.netns import CLIENTS, NamespacesUnavailable
from raftkv_jepsen.machines.ports import PortReservations

RECEIVE_BYTES: Final = 65_536
POLL_S: Final = 0.02
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
        self._targets: dict[socket.socket, tuple[str, int]] = {}
        self._owner_of: Callable[[int], str] = lambda pid: ""
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

    def tell_owners(self, owner_of: Callable[[int], str]) -> None:
        """`owner_of` says which node a process is of; empty: none, so it is a client."""
        self._owner_of = owner_of

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
            for pipe in list(self._pipes.values()):
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
        owner = self._owner_of(owner_of_port(address[1])) or CLIENTS
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
        if data:
            pipe.held.append((due, data))
            pipe.held_bytes += len(data)
        if not data or pipe.held_bytes > HELD_BYTES_MAX:
            pipe.ended = True
            self._selector.unregister(pipe.source)

    def _let_go(self, pipe: _Pipe, now: float) -> None:
        with self._lock:
            is_cut = (pipe.sender, pipe.receiver) in self._cuts
        if is_cut or self._pipes.get(pipe.source) is not pipe:
            return
        try:
            while pipe.held and pipe.held[0][0] <= now:
                pipe.target.sendall(pipe.held[0][1])
                pipe.held_bytes -= len(pipe.held.popleft()[1])
        except OSError:
            pipe.held.clear()
            pipe.ended = True
        if pipe.ended and not pipe.held:
            self._end(pipe)

    def _end(self, pipe: _Pipe) -> None:
        for one in (pipe, pipe.twin):
            if one is not None and self._pipes.pop(one.source, None) is not None:
                if one.source.fileno() in self._selector.get_map():
                    self._selector.unregister(one.source)
                one.source.close()


def owner_of_port(port: int) -> int:
    """The process whose socket has this local port on loopback; 0 when it is gone or somebody else's."""
    wanted = f"0100007F:{port:04X}"
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == wanted:
            inode = f"socket:[{fields[9]}]"
            break
    if not inode:
        return 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            for descriptor in os.scandir(process / "fd"):
                if os.readlink(descriptor.path) == inode:
                    return int(process.name)
        except OSError:
            continue  # not ours, or gone
    return 0
