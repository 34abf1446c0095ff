"""An etcd cluster where the recipes' tests expect one of raftkv: its endpoints say etcd://, and everything else is the client's business."""

from typing import Sequence

from tests.etcd_clients.servers import EtcdCluster, EtcdNode, EtcdOptions


class OverEtcd(EtcdCluster):
    """N members of etcd 3.5.1."""

    def __init__(self, size: int = 3) -> None:
        super().__init__(EtcdOptions(size=size))

    def leader(self, among: Sequence[EtcdNode] | None = None, *, deadline_s: float = 60.0) -> EtcdNode:
        return super().leader(among, deadline_s=deadline_s)

    @property
    def endpoints(self) -> str:
        return "etcd://" + super().endpoints
