"""What a load generator needs from a client library, and the table of those there are.

Two are libraries that an application would use (raftkv, etcd-rust; etcd-grpcio for comparison), two are hand-written and as thin as
Python allows (raftkv-raw, etcd-h2): those compare the servers, where the libraries' own cost would blur the picture.

Targets never retry by themselves unless their library does so by design (raftkv's sessions make a retry exactly-once).
"""

from typing import Awaitable, Callable, Protocol, Sequence


class Target(Protocol):
    """A connected client. Any exception of put or get means: not acknowledged."""

    async def put(self, key: bytes, value: bytes) -> None: ...

    async def get(self, key: bytes) -> None:
        """A linearizable read."""
        ...

    async def txn(self, key: bytes, value: bytes) -> None:
        """One comparison, which holds, and one put."""
        ...

    async def close(self) -> None: ...


async def connect(driver: str, endpoints: Sequence[str]) -> Target:
    """Connect `driver` to `endpoints` (HOST:PORT); libraries that know a leader by themselves find it, others use the first."""
    return await _CONNECT[driver](endpoints)


async def _connect_raftkv(endpoints: Sequence[str]) -> Target:
    from drivers.raftkv_target import RaftkvTarget

    return await RaftkvTarget.connect(endpoints)


async def _connect_raftkv_raw(endpoints: Sequence[str]) -> Target:
    from drivers.raftkv_raw import RaftkvRawTarget

    return await RaftkvRawTarget.connect(endpoints)


async def _connect_etcd_rust(endpoints: Sequence[str]) -> Target:
    from drivers.etcd_rust import EtcdRustTarget

    return await EtcdRustTarget.connect(endpoints)


async def _connect_etcd_grpcio(endpoints: Sequence[str]) -> Target:
    from drivers.etcd_grpcio import EtcdGrpcioTarget

    return await EtcdGrpcioTarget.connect(endpoints)


async def _connect_etcd_h2(endpoints: Sequence[str]) -> Target:
    from drivers.etcd_h2 import EtcdH2Target

    return await EtcdH2Target.connect(endpoints)


async def _connect_etcd_gateway(endpoints: Sequence[str]) -> Target:
    from drivers.etcd_gateway import EtcdGatewayTarget

    return await EtcdGatewayTarget.connect(endpoints)


_CONNECT: dict[str, Callable[[Sequence[str]], Awaitable[Target]]] = {
    "raftkv": _connect_raftkv,
    "raftkv-raw": _connect_raftkv_raw,
    "etcd-rust": _connect_etcd_rust,
    "etcd-grpcio": _connect_etcd_grpcio,
    "etcd-h2": _connect_etcd_h2,
    "etcd-gateway": _connect_etcd_gateway,
}
DRIVERS = tuple(_CONNECT)
"""The names of all drivers; what stands before the first hyphen is the product."""
