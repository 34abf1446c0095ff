"""The network between machines and clients: it loses, delays, doubles, reorders and cuts, in one direction at a time.

Peers send messages that may take any order. Clients talk over connections (door.py): those deliver in order or not at all,
as TCP does, so a cut under one leaves it silent until somebody gives up.
"""

from typing import TYPE_CHECKING, Any, Callable, Sequence

from raftkv.raft.messages import Message
from raftkv.units import NodeId

from . import telling

if TYPE_CHECKING:
    from .machine import Machine
    from .world import World

Place = int
"""A machine's node id, or a client's number (clients count from CLIENT_PLACES)."""

CLIENT_PLACES = 1000
CLIENT_RETRANSMISSION_US = 200_000


class Network:
    """Who reaches whom, and when."""

    def __init__(self, world: "World") -> None:
        knobs = world.knobs
        self._world = world
        self._random = world.stream("network")
        self.latency_us = knobs.latency_us
        self.loss = knobs.loss
        self.duplication = knobs.duplication
        self.reordering = knobs.reordering
        self.cuts: set[tuple[Place, Place]] = set()
        self.slow: dict[tuple[Place, Place], int] = {}  # what a link takes longer, in us
        self._last_arrival: dict[tuple[Place, Place], int] = {}
        self.delivered = 0
        self.is_lost: Callable[[Message], bool] | None = None  # a script's word on a single message

    def heal(self) -> None:
        """Every way is open and quick again, and nothing is lost any more."""
        self.cuts.clear()
        self.slow.clear()
        self.loss = self.duplication = 0.0

    def cut(self, sources: Sequence[Place], targets: Sequence[Place]) -> None:
        """Nothing gets from any of `sources` to any of `targets`."""
        self.cuts.update((source, target) for source in sources for target in targets if source != target)

    def is_cut(self, source: Place, target: Place) -> bool:
        return (source, target) in self.cuts

    def send(self, source: NodeId, messages: Sequence[Message]) -> None:
        """Peer messages, each on its own way."""
        world, random = self._world, self._random.random
        checks = world.checks
        for message in messages:
            checks.on_sent(message)
            way = (source, message.target)
            if (
                way in self.cuts
                or (self.loss and random() < self.loss)
                or (self.is_lost is not None and self.is_lost(message))
            ):
                if world.story is not None:
                    world.tell(f"{telling.message(message)} LOST")
                continue
            machine = world.machines.get(message.target)
            if machine is None:
                continue
            world.push(self._arrival_us(way), self._deliver, (machine, message))
            if self.duplication and random() < self.duplication:
                world.push(self._arrival_us(way), self._deliver, (machine, message))

    def post(self, source: NodeId, target: NodeId, callback: Callable[..., None], *arguments: Any) -> None:
        """Something else between two machines (a forwarded write, a reset connection); lost like a message."""
        way = (source, target)
        if way in self.cuts or (self.loss and self._random.random() < self.loss):
            return
        self._world.push(self._arrival_us(way), callback, arguments)

    def latency(self, source: Place, target: Place) -> int:
        """One way's time, in us, drawn anew."""
        low, high = self.latency_us
        return low + int(self._random.random() * (high - low + 1)) + self.slow.get((source, target), 0)

    def stream_latency(self, source: Place, target: Place) -> int:
        """The same on a connection, where a lost packet is only a late one."""
        late = CLIENT_RETRANSMISSION_US if self.loss and self._random.random() < self.loss else 0
        return self.latency(source, target) + late

    def _arrival_us(self, way: tuple[Place, Place]) -> int:
        arrival_us = self._world.now_us + self.latency(*way)
        if self.reordering and self._random.random() < self.reordering:
            return arrival_us
        arrival_us = max(arrival_us, self._last_arrival.get(way, 0))
        self._last_arrival[way] = arrival_us
        return arrival_us

    def _deliver(self, machine: "Machine", message: Message) -> None:
        process = machine.process
        if process is None:
            return
        if process.storage.store.is_removed(message.source):
            self._world.machines[message.source].retire()  # refused in words that make it stop
            return
        self.delivered += 1
        if self._world.story is not None:
            self._world.tell(telling.message(message))
        if machine.paused:
            machine.inbox.append((process.on_message, (message,)))
        else:
            process.on_message(message)
