"""What it costs a leader to keep many leases alive: CPU of its process, in raftkv and in etcd, on three durable members each.

    python bench/leases.py [--leases 10000] [--ttl 10] [--seconds 20] [--output bench/results/leases.json]

Every lease is renewed three times per TTL. `batched` is raftkv's library, which puts the leases of one client into one request;
`single` sends one request per lease, spread evenly over the time, as clients of etcd do (there over one stream, so etcd pays no
connection per lease either). `idle` is the same cluster without leases; what a renewal costs is the difference.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc.aio  # type: ignore[import-untyped]
from compare import machine
from drivers.raftkv_raw import RaftkvRawTarget
from etcd_cluster import EtcdKind
from processes import Cluster, Member
from raftkv_cluster import RaftkvKind

import raftkv
from raftkv.client.renewal import Renewal
from raftkv.etcdpb import rpc_pb2
from raftkv.wire.protocol import KEEP_ALIVE

RENEWALS_PER_TTL = 3
SLICE_S = 0.02

Row = dict[str, Any]
Keep = Callable[[float], Awaitable[int]]
"""Keeps all leases alive for so many seconds; how many renewals were answered."""


async def measure(system: str, mode: str, leader: Member, keep: Keep, seconds: float) -> Row:
    """One row: renewals a second, and the CPU of the leader."""
    cpu, began = leader.cpu_seconds(), time.monotonic()
    renewals = await keep(seconds)
    took = time.monotonic() - began
    share = (leader.cpu_seconds() - cpu) / took
    row = {"system": system, "mode": mode, "renewals_per_second": renewals / took, "leader_cpu_percent": share * 100}
    print(f"{system:<7} {mode:<8} {renewals / took:8.0f} renewals/s  leader {share * 100:5.1f} % of a core", flush=True)
    return row


async def idle(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return 0


async def evenly(leases: list[int], per_second: float, seconds: float, send: Callable[[int], Awaitable[Any]]) -> int:
    """One request per lease, at an even pace; an answer that is late does not hold up the others."""
    pending: set[asyncio.Task[Any]] = set()
    sent, began = 0, time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        due = int((now - began) * per_second)
        for number in range(sent, due):
            pending.add(asyncio.ensure_future(send(leases[number % len(leases)])))  # type: ignore[arg-type]
        sent = max(sent, due)
        pending = {task for task in pending if not task.done() or task.result() is False}
        await asyncio.sleep(SLICE_S)
    await asyncio.gather(*pending)
    return sent


async def run_raftkv(count: int, ttl: float, seconds: float) -> list[Row]:
    with Cluster(RaftkvKind()) as cluster:
        leader = cluster.leader()
        rows = [await measure("raftkv", "idle", leader, idle, seconds)]
        async with raftkv.connect(leader.endpoint, timeout=30) as kv:
            sent_at = asyncio.get_running_loop().time()
            granted = await asyncio.gather(*(kv.lease_grant(ttl) for _ in range(count)))
            leases = [lease.id for lease in granted]
            raw = await RaftkvRawTarget.connect([leader.endpoint])

            async def single(duration: float) -> int:
                pace = count * RENEWALS_PER_TTL / ttl
                return await evenly(
                    leases, pace, duration, lambda lease: raw._connection.request([KEEP_ALIVE, [lease]])
                )

            async def batched(duration: float) -> int:
                keeper, lost, answered = kv._lease_keeper(), [], 0

                class Counted(Renewal):
                    def renewed(self, sent_at: float, ttl_s: float) -> None:
                        nonlocal answered
                        answered += 1
                        super().renewed(sent_at, ttl_s)

                for lease in leases:
                    sent_at = asyncio.get_running_loop().time()
                    keeper.add(Counted(lease, ttl, sent_at, _draw, lambda: lost.append(1)))
                answered = 0
                await asyncio.sleep(duration)
                assert not lost, f"{len(lost)} leases came into doubt"
                return answered

            await single(ttl / RENEWALS_PER_TTL)
            assert asyncio.get_running_loop().time() < sent_at + ttl, "granted and renewed in time"
            rows.append(await measure("raftkv", "single", leader, single, seconds))
            rows.append(await measure("raftkv", "batched", leader, batched, seconds))
            assert len(await kv.leases()) == count, "none was lost"
            await raw.close()
        return rows


def _draw() -> float:
    return (time.perf_counter_ns() // 100 % 1000) / 1000


async def run_etcd(count: int, ttl: float, seconds: float) -> list[Row]:
    with Cluster(EtcdKind()) as cluster:
        leader = cluster.leader()
        rows = [await measure("etcd", "idle", leader, idle, seconds)]
        channel = grpc.aio.insecure_channel(leader.endpoint)
        grant = channel.unary_unary(
            "/etcdserverpb.Lease/LeaseGrant",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=rpc_pb2.LeaseGrantResponse.FromString,
        )
        leases: list[int] = []
        for start in range(0, count, 500):
            size = min(500, count - start)
            answers = await asyncio.gather(*(grant(rpc_pb2.LeaseGrantRequest(TTL=int(ttl))) for _ in range(size)))
            leases += [answer.ID for answer in answers]
        keep_alive = channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive")
        outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        frames = {lease: rpc_pb2.LeaseKeepAliveRequest(ID=lease).SerializeToString() for lease in leases}

        async def requests() -> AsyncIterator[bytes]:
            while True:
                yield await outgoing.get()

        stream = keep_alive(requests())

        async def single(duration: float) -> int:
            total = int(count * RENEWALS_PER_TTL / ttl * duration)

            async def take() -> None:
                for _ in range(total):
                    assert rpc_pb2.LeaseKeepAliveResponse.FromString(await stream.read()).TTL > 0, "a lease was lost"

            taker = asyncio.ensure_future(take())
            sent, began = 0, time.monotonic()
            while sent < total:
                due = min(total, int((time.monotonic() - began) / duration * total) + 1)
                for number in range(sent, due):
                    outgoing.put_nowait(frames[leases[number % count]])
                sent = due
                await asyncio.sleep(SLICE_S)
            await taker
            return total

        await single(ttl / RENEWALS_PER_TTL)
        rows.append(await measure("etcd", "single", leader, single, seconds))
        stream.cancel()
        await channel.close()
        return rows


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--leases", type=int, default=10_000)
    parser.add_argument("--ttl", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    facts = machine()
    rows: list[Row] = []
    for round_number in range(arguments.rounds):
        for run in (run_raftkv, run_etcd):
            found = await run(arguments.leases, arguments.ttl, arguments.seconds)
            rows += [{**row, "round": round_number} for row in found]
    if arguments.output:
        arguments.output.write_text(json.dumps({"machine": facts, "arguments": sys.argv[1:], "rows": rows}, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
