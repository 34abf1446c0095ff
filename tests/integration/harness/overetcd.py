"""An etcd cluster where the recipes' tests expect one of raftkv: its endpoints say etcd://, and everything else is the client's business."""

import asyncio

from tests.etcd_clients.servers import EtcdCluster, EtcdOptions


class OverEtcd(EtcdCluster):
    """N members of etcd 3.5.1."""

    def __init__(self, size: int = 3) -> None:
        super().__init__(EtcdOptions(size=size))

    @property
    def endpoints(self) -> str:
        return "etcd://" + super().endpoints


async def kill_leaders(cluster: OverEtcd, *, rounds: int = 2, between_s: float = 1.5) -> None:
    """One leader after the other is killed, and started again when there is another."""
    for _ in range(rounds):
        await asyncio.sleep(between_s)
        leader = await asyncio.to_thread(cluster.leader)
        leader.kill()
        await asyncio.to_thread(cluster.leader, cluster.others(leader))
        leader.start()
        await asyncio.to_thread(leader.wait_ready)
