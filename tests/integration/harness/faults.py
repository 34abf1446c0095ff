"""What happens to a cluster while a recipe is at work: leaders killed, stopped and cut off, clients cut off from them, and all brought back."""

import asyncio
from typing import Protocol, Sequence

from raftkv_jepsen.machines.cluster import Cluster
from raftkv_jepsen.machines.netns import CLIENTS, Network
from raftkv_jepsen.machines.node import Node

BUSY_DEADLINE_S = 60.0  # hundreds of clients share the machine with the cluster


class Fault(Protocol):
    """One fault of a cluster: `begin` returns once it is felt, `end` once it is over."""

    async def begin(self) -> None: ...

    async def end(self) -> None: ...


class LeaderFault:
    """The base: it is the leader that it happens to, and there is another one soon."""

    needs_network = False

    def __init__(self, cluster: Cluster, network: Network | None = None) -> None:
        self.cluster = cluster
        self.network = network
        self.leader: Node | None = None

    async def begin(self) -> None:
        self.leader = leader = await self.find()
        self.strike(leader)
        await self.find(self.cluster.others(leader))

    async def end(self) -> None:
        self.undo(self.struck)
        await asyncio.to_thread(self.struck.wait_ready, BUSY_DEADLINE_S)

    async def find(self, among: Sequence[Node] | None = None) -> Node:
        return await asyncio.to_thread(self.cluster.leader, among, deadline_s=BUSY_DEADLINE_S)

    @property
    def struck(self) -> Node:
        assert self.leader is not None, "it has begun"
        return self.leader

    def strike(self, leader: Node) -> None:
        raise NotImplementedError

    def undo(self, leader: Node) -> None:
        raise NotImplementedError


class LeaderKilled(LeaderFault):
    """SIGKILL; it comes back with its disk."""

    def strike(self, leader: Node) -> None:
        leader.kill()

    def undo(self, leader: Node) -> None:
        leader.start()


class LeaderStopped(LeaderFault):
    """SIGSTOP: it holds its connections and thinks that it leads when it goes on."""

    def strike(self, leader: Node) -> None:
        leader.pause()

    def undo(self, leader: Node) -> None:
        leader.resume()


class LeaderCutOff(LeaderFault):
    """The leader has lost its peers; all clients still reach it, and at first it believes that it leads."""

    needs_network = True

    def strike(self, leader: Node) -> None:
        assert self.network is not None
        self.network.isolate(leader.name, [node.name for node in self.cluster.others(leader)])

    def undo(self, leader: Node) -> None:
        assert self.network is not None
        self.network.heal()


class ClientsCutOff(LeaderCutOff):
    """The members see each other, the clients do not see the leader: what they send vanishes, and others have to pass it on."""

    async def begin(self) -> None:
        self.leader = await self.find()
        self.strike(self.leader)

    def strike(self, leader: Node) -> None:
        assert self.network is not None
        self.network.isolate(CLIENTS, [leader.name])


FAULTS: dict[str, type[LeaderFault]] = {
    "leader killed": LeaderKilled,
    "leader stopped": LeaderStopped,
    "leader cut off": LeaderCutOff,
    "clients cut off": ClientsCutOff,
}


async def kill_and_pause_leaders(cluster: Cluster, *, rounds: int = 2, between_s: float = 1.5) -> None:
    """One leader after the other: stopped until there is another, or killed and started again."""
    for round_ in range(rounds):
        await asyncio.sleep(between_s)
        fault = LeaderKilled(cluster) if round_ % 2 else LeaderStopped(cluster)
        await fault.begin()
        fault.undo(fault.struck)
    await asyncio.to_thread(cluster.leader)
