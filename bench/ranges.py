"""What reading ranges costs: 100,000 keys with values of 128 bytes on three durable members, raftkv and etcd in turn.

    python bench/ranges.py [--keys 100000] [--rounds 3] [--seconds 2] [--output bench/results/ranges.json]

Each kind of read is repeated by one client with one request in flight, on the leader; a *read* is the whole of it, all pages included. CPU
of the leader per read says most on a machine that others use too. Both clients check that every key came, and neither takes
the key-values apart: raftkv's frames are unpacked, etcd's messages are counted by a parser in C. `beside` is the slowest of the puts that
another client makes meanwhile: a server that answers a long range in one go lets them wait.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc.aio  # type: ignore[import-untyped]
from drivers.target import connect
from drivers.worker import Spec, key_of
from etcd_cluster import EtcdKind
from generator import measure, percentile
from machine import machine
from processes import Cluster
from raftkv_cluster import RaftkvKind

import raftkv
from raftkv.etcdpb import rpc_pb2
from raftkv.wire.commands import COUNT_ONLY, KEYS_ONLY, prefix_range_end

Row = dict[str, Any]
KEY_BYTES = 16
PAGE_KEYS = 1_000
PREFIX = b"bench/"
END = prefix_range_end(PREFIX)
PUTS_PER_SECOND = 50


class Reader(Protocol):
    """A client of one product."""

    async def range(
        self, key: bytes, end: bytes, limit: int, flags: int, revision: int
    ) -> tuple[int, bytes, bool, int]:
        """How many keys came, the last one, whether there are more, and the store's revision."""
        ...

    async def paged(self) -> int:
        """Everything by pages at one revision, as this product's client would do it; how many keys came."""
        ...

    async def close(self) -> None: ...


class RaftkvReader:
    """The library, and for single ranges its way below the verbs, which would join cut answers."""

    def __init__(self, endpoint: str) -> None:
        self._kv = raftkv.connect(endpoint, timeout=60)

    async def range(
        self, key: bytes, end: bytes, limit: int, flags: int, revision: int
    ) -> tuple[int, bytes, bool, int]:
        found = await self._kv.range(
            key,
            end,
            limit=limit,
            revision=revision,
            keys_only=bool(flags & KEYS_ONLY),
            count_only=bool(flags & COUNT_ONLY),
        )
        last = found.kvs[-1].key if found.kvs else b""
        return found.count if flags & COUNT_ONLY else len(found.kvs), last, found.more, found.revision

    async def paged(self) -> int:
        count = 0
        async for _ in self._kv.scan(PREFIX, page_keys=PAGE_KEYS):
            count += 1
        return count

    async def close(self) -> None:
        await self._kv.close()


class EtcdReader:
    """gRPC as it comes; messages are parsed by protobuf's C code."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint, [("grpc.max_receive_message_length", -1)])
        self._range = self._channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=rpc_pb2.RangeResponse.FromString,
        )

    async def range(
        self, key: bytes, end: bytes, limit: int, flags: int, revision: int
    ) -> tuple[int, bytes, bool, int]:
        request = rpc_pb2.RangeRequest(
            key=key,
            range_end=end,
            limit=limit,
            revision=revision,
            keys_only=bool(flags & KEYS_ONLY),
            count_only=bool(flags & COUNT_ONLY),
        )
        found = await self._range(request)
        last = found.kvs[-1].key if found.kvs else b""
        return found.count if flags & COUNT_ONLY else len(found.kvs), last, found.more, found.header.revision

    async def paged(self) -> int:
        count, last, more, revision = await self.range(PREFIX, END, PAGE_KEYS, 0, 0)
        while more:
            page, last, more, _ = await self.range(last + b"\0", END, PAGE_KEYS, 0, revision)
            count += page
        return count

    async def close(self) -> None:
        await self._channel.close()


async def kinds(reader: Reader, keys: int) -> dict[str, tuple[int, Callable[[], Awaitable[int]]]]:
    """Each kind of read: how many keys it has to bring, and how to do it once."""
    # The first key of the last thousand in the order of keys: nothing behind it has to be counted.
    names = sorted(key_of(number, KEY_BYTES) for number in range(keys))
    tail = names[-PAGE_KEYS]
    _, _, _, now = await reader.range(PREFIX, b"", 0, 0, 0)

    def single(key: bytes, limit: int, flags: int = 0, revision: int = 0) -> Callable[[], Awaitable[int]]:
        async def read() -> int:
            return (await reader.range(key, END, limit, flags, revision))[0]

        return read

    return {
        "the last 1,000": (PAGE_KEYS, single(tail, 0)),
        "the last 1,000, keys only": (PAGE_KEYS, single(tail, 0, KEYS_ONLY)),
        "the last 1,000, older revision": (PAGE_KEYS, single(tail, 0, 0, now - keys // 2)),
        "the first 1,000 (limit, all are counted)": (PAGE_KEYS, single(PREFIX, PAGE_KEYS)),
        "count all": (keys, single(PREFIX, 0, COUNT_ONLY)),
        "all, keys only": (keys, single(PREFIX, 0, KEYS_ONLY)),
        "all": (keys, single(PREFIX, 0)),
        "all, pages of 1,000": (keys, reader.paged),
    }


class Beside:
    """Puts at an even pace by another client, and the slowest of them."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self._task: asyncio.Task[None] | None = None
        self.slowest_ms = 0.0

    async def _put(self) -> None:
        number = 0
        while True:
            began = time.monotonic()
            await self._target.put(b"beside/%d" % (number % 100), b"v" * 128)
            self.slowest_ms = max(self.slowest_ms, 1e3 * (time.monotonic() - began))
            number += 1
            await asyncio.sleep(1 / PUTS_PER_SECOND)

    async def __aenter__(self) -> "Beside":
        self._task = asyncio.create_task(self._put())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._task is not None, "entered"
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._target.close()


async def run(cluster: Cluster, keys: int, seconds: float, with_puts: bool) -> list[Row]:
    """All kinds of reads on one running cluster."""
    system, leader = cluster.kind.name, cluster.leader()
    reader: Reader = RaftkvReader(leader.endpoint) if system == "raftkv" else EtcdReader(leader.endpoint)
    rows = []
    for name, (wanted, read) in (await kinds(reader, keys)).items():
        assert await read() == wanted, f"{system}, {name}: every key comes"
        cluster.kind.stall_ms(leader)
        async with contextlib.AsyncExitStack() as stack:
            beside = None
            if with_puts:
                target = await connect("raftkv-raw" if system == "raftkv" else "etcd-h2", [leader.endpoint])
                beside = await stack.enter_async_context(Beside(target))
            took: list[float] = []
            cpu, began = leader.cpu_seconds(), time.monotonic()
            while time.monotonic() < began + seconds or len(took) < 3:
                started = time.monotonic()
                assert await read() == wanted, f"{system}, {name}: every key comes"
                took.append(time.monotonic() - started)
            cpu = leader.cpu_seconds() - cpu
        row = {
            "system": system,
            "read": name,
            "with_puts": with_puts,
            "reads": len(took),
            "median_ms": 1e3 * percentile(sorted(took), 0.5),
            "leader_cpu_ms_per_read": 1e3 * cpu / len(took),
            "leader_stall_ms": cluster.kind.stall_ms(leader),
            "slowest_put_beside_ms": beside.slowest_ms if beside else 0.0,
        }
        print(
            f"{system:<7} {name:<42} {row['median_ms']:8.1f} ms  leader {row['leader_cpu_ms_per_read']:7.2f} ms of CPU  "
            f"held {row['leader_stall_ms']:4.0f} ms  put beside {row['slowest_put_beside_ms']:5.0f} ms",
            flush=True,
        )
        rows.append(row)
    await reader.close()
    return rows


def load(cluster: Cluster, keys: int) -> None:
    """Two versions of every key, so that there is an older revision to read."""
    driver = "raftkv" if cluster.kind.name == "raftkv" else "etcd-h2"
    spec = Spec(
        driver=driver,
        endpoints=[],
        shape="count",
        in_flight=256,
        count=2 * keys,
        distinct_keys=keys,
        key_bytes=KEY_BYTES,
        value_bytes=128,
    )
    measure(cluster, spec, seconds_max=60.0 + keys / 200)


def summary(rows: list[Row]) -> str:
    """Medians over the rounds, and etcd's CPU over raftkv's."""
    lines = []
    for name in dict.fromkeys(row["read"] for row in rows):
        cells = [name]
        cpu = {}
        for system in ("raftkv", "etcd"):
            for with_puts in (False, True):
                group = [
                    row for row in rows if (row["read"], row["system"], row["with_puts"]) == (name, system, with_puts)
                ]
                if not group:
                    continue
                middle = {
                    what: statistics.median(row[what] for row in group)
                    for what in ("median_ms", "leader_cpu_ms_per_read", "leader_stall_ms", "slowest_put_beside_ms")
                }
                if with_puts:
                    cells.append(
                        f"put beside {middle['slowest_put_beside_ms']:.0f} ms, held {middle['leader_stall_ms']:.0f} ms"
                    )
                else:
                    cpu[system] = middle["leader_cpu_ms_per_read"]
                    cells.append(f"{middle['median_ms']:.1f} ms, {cpu[system]:.2f} ms of CPU")
        if len(cpu) == 2:
            cells.append(f"{cpu['etcd'] / max(cpu['raftkv'], 1e-6):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    facts, rows = machine(), list[Row]()
    for number in range(arguments.rounds):
        for kind in (RaftkvKind(), EtcdKind()):
            with Cluster(kind) as cluster:
                load(cluster, arguments.keys)
                for with_puts in (False, True):
                    found = await run(cluster, arguments.keys, arguments.seconds, with_puts)
                    rows += [{**row, "round": number} for row in found]
    print(summary(rows))
    if arguments.output:
        arguments.output.write_text(json.dumps({"machine": facts, "arguments": sys.argv[1:], "rows": rows}, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
