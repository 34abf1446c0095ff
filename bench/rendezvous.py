"""How long a rendezvous takes, and what it costs the members: ranks that find each other, and many waiters on one key.

    python bench/rendezvous.py [--ranks 100 1000] [--waiters 10000] [--clients 4] [--output bench/results/rendezvous.json]

`meet`: every rank draws its number, writes its address, reads the addresses of all others (which waits for them) and passes a barrier: N^2 values in
all. `wake`: so many tasks wait for one key, which is then written; timed from before the write until the last one has its answer. The ranks are
tasks of this process on a few connections, beside three members on the same cores, so the clients' part is in the time as well; the members' CPU is
told by itself.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from machine import machine
from processes import Cluster
from raftkv_cluster import RaftkvKind

import raftkv

Row = dict[str, Any]


class Meter:
    """Wall time, and CPU of the members, between two moments."""

    def __init__(self, cluster: Cluster) -> None:
        self._members = cluster.running()
        self._cpu_s = sum(member.cpu_seconds() for member in self._members)
        self._began_s = time.monotonic()

    def row(self, what: str, count: int) -> Row:
        took_s = time.monotonic() - self._began_s
        cpu_s = sum(member.cpu_seconds() for member in self._members) - self._cpu_s
        print(f"{what:<6} {count:6}  {took_s:7.2f} s   members' CPU {cpu_s:6.2f} s", flush=True)
        return {"what": what, "count": count, "seconds": took_s, "members_cpu_seconds": cpu_s}


async def meet(opened: list[raftkv.AsyncClient], cluster: Cluster, ranks: int) -> Row:
    """One round of so many ranks."""
    numbers: set[int] = set()
    names = [f"address/{rank}" for rank in range(ranks)]

    async def take_part(place: int) -> None:
        store = opened[place % len(opened)].rendezvous("bench", ranks, timeout=600)
        rank = await store.add("ranks", 1) - 1
        numbers.add(rank)
        await store.set(f"address/{rank}", f"10.0.{rank >> 8}.{rank & 255}:29500")
        assert len(await store.multi_get(names)) == ranks
        await store.barrier("all here", ranks)

    meter = Meter(cluster)
    await asyncio.gather(*(take_part(place) for place in range(ranks)))
    assert len(numbers) == ranks, "each has a number of its own"
    return meter.row("meet", ranks)


async def wake(opened: list[raftkv.AsyncClient], cluster: Cluster, waiters: int) -> Row:
    """So many waiters on one key."""
    stores = [kv.rendezvous("bench", 1_000_000 + waiters, timeout=600) for kv in opened]
    waiting = [asyncio.ensure_future(stores[place % len(stores)].get("go")) for place in range(waiters)]
    for kv in opened:  # behind the waits on each connection
        await kv.get("go")
    await asyncio.sleep(1.0)
    meter = Meter(cluster)
    await stores[0].set("go", "now")
    assert set(await asyncio.gather(*waiting)) == {b"now"}
    return meter.row("wake", waiters)


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[100, 1_000])
    parser.add_argument("--waiters", type=int, nargs="+", default=[10_000])
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    facts = machine()
    rows: list[Row] = []
    with Cluster(RaftkvKind()) as cluster:
        endpoints = ",".join(member.endpoint for member in cluster.running())
        for round_number in range(arguments.rounds):
            opened = [raftkv.connect(endpoints, timeout=60) for _ in range(arguments.clients)]
            for count in arguments.ranks:
                rows.append({**await meet(opened, cluster, count), "round": round_number})
                await opened[0].delete_prefix("rdzv/")
            for count in arguments.waiters:
                rows.append({**await wake(opened, cluster, count), "round": round_number})
                await opened[0].delete_prefix("rdzv/")
            for kv in opened:
                await kv.close()
    if arguments.output:
        arguments.output.write_text(json.dumps({"machine": facts, "arguments": sys.argv[1:], "rows": rows}, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
