"""Fan-out of watches: how soon every watcher hears of a change, and what watchers cost those who write. raftkv, and etcd where it can be fed.

    python bench/watch.py [--watchers 1 1000 10000] [--seconds 8] [--rounds 2] [--no-etcd] [--output bench/results/watch.json]

`one key`: all watchers watch one key, which is written `--rate` times a second; each delivery is timed, from before the put. `as fast as heard`: the next
put follows when all have heard of the last one. `own keys`: every watcher has its own key, keys are written at random with 64 in flight, next to the
same without watchers. Watchers share 50 connections, as watchers of one process do. Readers are one Python process beside three members on the same cores.
"""

import argparse
import asyncio
import json
import random
import struct
import sys
import time
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Protocol, cast

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc.aio  # type: ignore[import-untyped]
import msgpack
from etcd_cluster import EtcdKind
from machine import machine
from processes import Cluster
from raftkv_cluster import RaftkvKind

import raftkv
from raftkv.etcdpb import rpc_pb2
from raftkv.wire.protocol import HELLO, PREFACE, WATCH_CREATE, WATCH_EVENTS, hello_options

CONNECTIONS = 50
IN_FLIGHT = 64
NOW = struct.Struct("<d")
Row = dict[str, Any]


class Listeners(Protocol):
    """All watchers of a run: `heard` counts deliveries, `delays_s` times them."""

    heard: int
    delays_s: list[float]

    async def watch(self, keys: list[bytes]) -> None: ...

    async def put(self, key: bytes) -> None: ...

    async def close(self) -> None: ...


class _RaftkvLine(asyncio.Protocol):
    def __init__(self, owner: "RaftkvListeners") -> None:
        self.owner = owner
        self.created = 0
        self._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=1 << 28)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        hello = [1, 0, [HELLO, hello_options(cluster_name=None, session=None, client="bench")]]
        self.transport.write(PREFACE + msgpack.packb(hello))

    def watch(self, keys: list[bytes]) -> None:
        frames = [msgpack.packb([2 + n, 0, [WATCH_CREATE, key, b"", 0, 0]]) for n, key in enumerate(keys)]
        self.transport.write(b"".join(frames))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self._unpacker.feed(data)
        for _, answer in self._unpacker:
            if answer[1] == WATCH_EVENTS:
                self.owner.take(now, [event[1][5] for event in answer[4]])
            elif answer[1] == WATCH_CREATE:
                self.created += 1


class RaftkvListeners:
    """Bare connections for the watchers, the library for the writers."""

    def __init__(self, endpoint: str) -> None:
        self.heard, self.delays_s = 0, list[float]()
        self._endpoint = endpoint
        self._lines: list[_RaftkvLine] = []
        self._kv = raftkv.connect(endpoint, timeout=30)

    def take(self, now: float, values: list[bytes]) -> None:
        self.heard += len(values)
        self.delays_s += [now - NOW.unpack(value)[0] for value in values]

    async def watch(self, keys: list[bytes]) -> None:
        host, port = self._endpoint.split(":")
        loop = asyncio.get_running_loop()
        for number in range(min(CONNECTIONS, len(keys))):
            _, line = await loop.create_connection(lambda: _RaftkvLine(self), host, int(port))
            self._lines.append(line)
            line.watch(keys[number::CONNECTIONS])
        while sum(line.created for line in self._lines) < len(keys):
            await asyncio.sleep(0.01)

    async def put(self, key: bytes) -> None:
        await self._kv.put(key, NOW.pack(time.monotonic()))

    async def close(self) -> None:
        for line in self._lines:
            line.transport.abort()
        await self._kv.close()


class EtcdListeners:
    """One gRPC stream per connection, many watches on each."""

    def __init__(self, endpoint: str) -> None:
        self.heard, self.delays_s = 0, list[float]()
        self._endpoint = endpoint
        self._channels: list[Any] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._created = 0
        self._put = self._channel().unary_unary(
            "/etcdserverpb.KV/Put", request_serializer=lambda message: message.SerializeToString()
        )

    def _channel(self) -> Any:
        channel = grpc.aio.insecure_channel(self._endpoint, [("grpc.use_local_subchannel_pool", 1)])
        self._channels.append(channel)
        return channel

    async def watch(self, keys: list[bytes]) -> None:
        for number in range(min(CONNECTIONS, len(keys))):
            self._tasks.append(asyncio.create_task(self._listen(keys[number::CONNECTIONS])))
        while self._created < len(keys):
            await asyncio.sleep(0.01)

    async def _listen(self, keys: list[bytes]) -> None:
        async def requests() -> AsyncIterator[bytes]:
            for key in keys:
                request = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=key))
                yield request.SerializeToString()
            await asyncio.Event().wait()

        stream = self._channel().stream_stream("/etcdserverpb.Watch/Watch")(requests())
        while True:
            answer = rpc_pb2.WatchResponse.FromString(await stream.read())
            self._created += answer.created
            now = time.monotonic()
            self.heard += len(answer.events)
            self.delays_s += [now - NOW.unpack(event.kv.value)[0] for event in answer.events]

    async def put(self, key: bytes) -> None:
        await self._put(rpc_pb2.PutRequest(key=key, value=NOW.pack(time.monotonic())))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close()


async def all_heard(listeners: Listeners, wanted: int) -> None:
    deadline = time.monotonic() + 60
    while listeners.heard < wanted:
        assert time.monotonic() < deadline, f"{listeners.heard} of {wanted} were delivered"
        await asyncio.sleep(0.001)


async def one_key(listeners: Listeners, watchers: int, rate: float, seconds: float) -> Row:
    """Paced puts of the key that everybody watches."""
    began, puts = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        await listeners.put(b"crowd")
        puts += 1
        await asyncio.sleep(max(0.0, began + puts / rate - time.monotonic()))
    await all_heard(listeners, puts * watchers)
    return {"puts_per_second": puts / seconds, **delays(listeners)}


async def as_fast_as_heard(listeners: Listeners, watchers: int, seconds: float) -> Row:
    began, puts = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        await listeners.put(b"crowd")
        puts += 1
        await all_heard(listeners, puts * watchers)
    took = time.monotonic() - began
    return {"deliveries_per_second": puts * watchers / took, **delays(listeners)}


async def own_keys(listeners: Listeners, watchers: int, seconds: float) -> Row:
    """Random keys, so that each put concerns one watcher of all."""
    began, puts = time.monotonic(), 0
    keys = [b"own/%d" % number for number in range(max(watchers, 1000))]

    async def writer() -> None:
        nonlocal puts
        while time.monotonic() < began + seconds:
            await listeners.put(random.choice(keys))
            puts += 1

    await asyncio.gather(*(writer() for _ in range(IN_FLIGHT)))
    took = time.monotonic() - began
    if watchers == len(keys):
        await all_heard(listeners, puts)
    return {"puts_per_second": puts / took, **delays(listeners)}


def delays(listeners: Listeners) -> Row:
    found = sorted(listeners.delays_s)
    if not found:
        return {}
    return {f"p{share}_ms": found[len(found) * share // 100] * 1000 for share in (50, 99)} | {
        "max_ms": found[-1] * 1000
    }


async def measure(
    system: str, leader: Any, make: Callable[[str], Listeners], mode: str, watchers: int, arguments: Any
) -> Row:
    """One run on connections of its own."""
    listeners = make(leader.endpoint)
    try:
        if mode == "own keys":
            await listeners.watch([b"own/%d" % number for number in range(watchers)])
            work = own_keys(listeners, watchers, arguments.seconds)
        else:
            await listeners.watch([b"crowd"] * watchers)
            if mode == "one key":
                work = one_key(listeners, watchers, arguments.rate, arguments.seconds)
            else:
                work = as_fast_as_heard(listeners, watchers, arguments.seconds)
        cpu, began = leader.cpu_seconds(), time.monotonic()
        row = {"system": system, "mode": mode, "watchers": watchers, **await work}
        row["leader_cpu_percent"] = (leader.cpu_seconds() - cpu) / (time.monotonic() - began) * 100
    finally:
        await listeners.close()
    print(
        "  ".join(f"{name} {value:.1f}" if isinstance(value, float) else str(value) for name, value in row.items()),
        flush=True,
    )
    return row


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--watchers", type=int, nargs="+", default=[1, 1000, 10_000])
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--no-etcd", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    facts, rows = machine(), list[Row]()
    kinds: list[tuple[str, Any, Callable[[str], Listeners]]] = [("raftkv", RaftkvKind, RaftkvListeners)]
    if not arguments.no_etcd:
        kinds.append(("etcd", EtcdKind, EtcdListeners))
    for round_number in range(arguments.rounds):
        for system, kind, make in kinds:
            with Cluster(kind()) as cluster:
                leader = cluster.leader()
                for mode in ("one key", "as fast as heard"):
                    for watchers in arguments.watchers:
                        rows.append(await measure(system, leader, make, mode, watchers, arguments))
                for watchers in (0, max(arguments.watchers)):
                    rows.append(await measure(system, leader, make, "own keys", watchers, arguments))
                for row in rows:
                    row.setdefault("round", round_number)
    if arguments.output:
        arguments.output.write_text(json.dumps({"machine": facts, "arguments": sys.argv[1:], "rows": rows}, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
