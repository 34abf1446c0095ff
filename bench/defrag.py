"""What a defragmentation costs those who use the member meanwhile, in raftkv and in etcd: three durable members each.

    python bench/defrag.py [--megabytes 300] [--rounds 2] [--output bench/results/defrag.json]

The store is filled with values of 16 KiB, every second one deleted, and compacted. Then the leader is defragmented while one client
puts small values, one at a time, and another asks that same member for a key out of its own store (a serializable read), one at a
time: the slowest of each is how long the member stood still for them. The same is measured for a while without a defragmentation.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any, Awaitable, Callable

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc.aio  # type: ignore[import-untyped]
from compare import machine
from etcd_cluster import EtcdKind
from processes import Cluster, Member, http_get
from raftkv_cluster import RaftkvKind

import raftkv
from raftkv.etcdpb import rpc_pb2

VALUE = b"v" * 16 * 1024
BATCH = 32
QUIET_S = 5.0
COMPACTED_RATIO = 0.8

Row = dict[str, Any]
Act = Callable[[], Awaitable[Any]]


class Probe:
    """One request after the other, and how long the slowest took."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self.slowest_s = 0.0
        self.count = 0
        self._began = time.perf_counter()
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            self._began = time.perf_counter()
            await self._act()
            self.slowest_s = max(self.slowest_s, time.perf_counter() - self._began)
            self.count += 1

    def take(self, seconds: float) -> tuple[float, float]:
        """Milliseconds of the slowest since the last call, and requests a second."""
        # One that is not answered yet counts as well: nothing may be answered at all.
        slowest_s = max(self.slowest_s, time.perf_counter() - self._began)
        taken = slowest_s * 1000, self.count / seconds
        self.slowest_s, self.count = 0.0, 0
        return taken

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def store_bytes(member: Member) -> int:
    names = ("store.lmdb", "db")
    return sum(path.stat().st_size for path in Path(member.data_dir).rglob("*") if path.name in names)


def gauge(member: Member, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", http_get(member.client_port, "/metrics", 30.0)[1].decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


async def measure(
    system: str, leader: Member, put: Act, get: Act, defragment: Act, stall: Callable[[], float]
) -> list[Row]:
    """Two rows: without, and with."""
    rows: list[Row] = []
    probes = {"put": Probe(put), "read": Probe(get)}
    for mode, act in (("quiet", lambda: asyncio.sleep(QUIET_S)), ("defragmenting", defragment)):
        for probe in probes.values():
            probe.take(1)
        await asyncio.to_thread(stall)
        before, began = store_bytes(leader), time.perf_counter()
        await act()
        took = time.perf_counter() - began
        row: Row = {"system": system, "mode": mode, "seconds": took, "store_bytes_before": before}
        row["store_bytes_after"] = store_bytes(leader)
        for name, probe in probes.items():
            row[f"{name}_slowest_ms"], row[f"{name}s_per_second"] = probe.take(took)
        row["loop_stall_ms"] = await asyncio.to_thread(stall) * 1000
        rows.append(row)
        print({key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    for probe in probes.values():
        await probe.stop()
    return rows


async def fill(keys: int, put: Callable[[bytes], Awaitable[Any]], delete: Callable[[bytes], Awaitable[Any]]) -> None:
    for act, step in ((put, 1), (delete, 2)):
        names = [b"fill/%08d" % number for number in range(0, keys, step)]
        for start in range(0, len(names), BATCH):
            await asyncio.gather(*map(act, names[start : start + BATCH]))


async def until_compacted(size_in_use: Callable[[], float], full: float) -> None:
    ends = time.monotonic() + 120
    while await asyncio.to_thread(size_in_use) > full * COMPACTED_RATIO:
        assert time.monotonic() < ends, "compaction makes room"
        await asyncio.sleep(0.5)


async def run_raftkv(keys: int) -> list[Row]:
    with Cluster(RaftkvKind()) as cluster:
        leader = cluster.leader()
        async with (
            raftkv.connect(leader.endpoint, timeout=30) as kv,
            raftkv.connect(leader.endpoint, timeout=30) as reader,
        ):
            await fill(keys, lambda key: kv.put(key, VALUE), kv.delete)
            full = gauge(leader, "raftkv_db_size_in_use_bytes")
            await kv.compact((await kv.put("probe", "x")).revision)
            await until_compacted(lambda: gauge(leader, "raftkv_db_size_in_use_bytes"), full)
            return await measure(
                "raftkv",
                leader,
                lambda: kv.put("probe", "y"),
                lambda: reader.get("probe", stale=True),
                lambda: kv.defragment(leader.endpoint),
                lambda: gauge(leader, "raftkv_loop_stall_seconds"),
            )


async def run_etcd(keys: int) -> list[Row]:
    with Cluster(EtcdKind()) as cluster:
        leader = cluster.leader()
        async with grpc.aio.insecure_channel(leader.endpoint) as channel:

            def call(name: str) -> Any:
                return channel.unary_unary(
                    f"/etcdserverpb.{name}", request_serializer=lambda message: message.SerializeToString()
                )

            put, delete, get = call("KV/Put"), call("KV/DeleteRange"), call("KV/Range")
            compact, defragment = call("KV/Compact"), call("Maintenance/Defragment")

            def put_value(key: bytes) -> Awaitable[Any]:
                return put(rpc_pb2.PutRequest(key=key, value=VALUE))  # type: ignore[no-any-return]

            await fill(keys, put_value, lambda key: delete(rpc_pb2.DeleteRangeRequest(key=key)))
            full = gauge(leader, "etcd_mvcc_db_total_size_in_use_in_bytes")
            answer = rpc_pb2.PutResponse.FromString(await put(rpc_pb2.PutRequest(key=b"probe", value=b"x")))
            await compact(rpc_pb2.CompactionRequest(revision=answer.header.revision, physical=True))
            await until_compacted(lambda: gauge(leader, "etcd_mvcc_db_total_size_in_use_in_bytes"), full)
            return await measure(
                "etcd",
                leader,
                lambda: put(rpc_pb2.PutRequest(key=b"probe", value=b"y")),
                lambda: get(rpc_pb2.RangeRequest(key=b"probe", serializable=True)),
                lambda: defragment(rpc_pb2.DefragmentRequest()),
                lambda: 0.0,
            )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    facts, rows = machine(), []
    for number in range(arguments.rounds):
        for run in (run_raftkv, run_etcd):
            rows += [{**row, "round": number} for row in await run(arguments.megabytes * 64)]
    if arguments.output:
        arguments.output.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
