"""Puts and linearizable gets through the JSON gateway, raftkv beside etcd: three durable members each, the same client, one after the other.

    python bench/gateway.py [CONNECTIONS ...]        default 1 64

Each connection to the leader has one request in flight, for 5 s after a second to warm up. CPU is the leader's.
"""

import asyncio
import sys
import time

import uvloop
from etcd_cluster import EtcdKind
from processes import HOST, Cluster, ClusterKind
from raftkv_cluster import RaftkvKind

WARM_UP_SECONDS = 1.0
SECONDS = 5.0
VALUE = "eHh4" * 43


class Asker(asyncio.Protocol):
    """One connection: asks again as soon as it is answered."""

    def __init__(self, request: bytes, latencies: list[float]) -> None:
        self._request = request
        self._latencies = latencies
        self._transport: asyncio.Transport | None = None
        self._asked_at = 0.0
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None, "connected"
        self._asked_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, separator, body = self._seen.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        assert b" 200 " in head[:16], self._seen
        self._seen = b""
        self._latencies.append(time.perf_counter() - self._asked_at)
        self._ask()


def request(path: str, body: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()


async def measure(cluster: Cluster, name: str, data: bytes, connections: int) -> None:
    leader = cluster.leader()
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    transports = [
        (await loop.create_connection(lambda: Asker(data, latencies), HOST, leader.client_port))[0]
        for _ in range(connections)
    ]
    await asyncio.sleep(WARM_UP_SECONDS)
    latencies.clear()
    cpu_seconds, began = leader.cpu_seconds(), time.perf_counter()
    await asyncio.sleep(SECONDS)
    elapsed, used = time.perf_counter() - began, leader.cpu_seconds() - cpu_seconds
    found = sorted(latencies)
    for transport in transports:
        transport.close()
    print(
        f"{cluster.kind.name:<7} {name} {connections:>4} connections: {len(found) / elapsed:8.0f}/s,"
        f" p50 {found[len(found) // 2] * 1000:5.1f} p99 {found[len(found) * 99 // 100] * 1000:5.1f} ms,"
        f" leader {used / len(found) * 1e6:5.0f} us CPU each",
        flush=True,
    )


def main() -> None:
    kinds: list[ClusterKind] = [RaftkvKind(), EtcdKind()]
    for connections in [int(argument) for argument in sys.argv[1:]] or [1, 64]:
        for kind in kinds:
            with Cluster(kind) as cluster, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                put = request("/v3/kv/put", '{"key":"a2V5","value":"' + VALUE + '"}')
                runner.run(measure(cluster, "put", put, connections))
                runner.run(measure(cluster, "get", request("/v3/kv/range", '{"key":"a2V5"}'), connections))


if __name__ == "__main__":
    main()
