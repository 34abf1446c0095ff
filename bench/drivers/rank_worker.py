"""A process with many ranks: connects, says `ready`, waits for a line, does the work, and says what CPU it took as one line of JSON.

Started by bench/rendezvous.py as `python rank_worker.py JOB`, where JOB is the JSON of a Job. Waiters (`wake`) begin to wait before they are ready.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from processes import raise_open_files

from drivers.ranks import Rank, connect

GO = b"go"
GO_VALUE = b"now"


@dataclass(frozen=True, slots=True)
class Job:
    """`what`: meet (all addresses in one request), peers (address by address) or wake. `count` ranks of `world` are in this process."""

    what: str
    kind: str
    endpoint: str
    run: str
    count: int
    world: int


def address(rank: int) -> bytes:
    return b"10.%03d.%03d.%03d:29500" % (rank >> 16, rank >> 8 & 255, rank & 255)


async def meet(rank: Rank, world: int, names: Sequence[bytes], values: Sequence[bytes], at_once: bool) -> None:
    """One round, as seen by one rank."""
    number = await rank.add(b"ranks", 1) - 1
    await rank.set(names[number], values[number])
    if at_once:
        await rank.multi_get(names, values)
    else:
        for place in range(world):  # each begins with the one behind it, as those who connect to each other do
            peer = (number + 1 + place) % world
            await rank.get(names[peer], values[peer])
    await rank.barrier(b"all here", world)


async def work(job: Job) -> None:
    ranks, client = await connect(job.kind, job.endpoint, job.run, job.count)
    waiting = [asyncio.ensure_future(rank.get(GO, GO_VALUE)) for rank in ranks] if job.what == "wake" else []
    await asyncio.sleep(0)  # the requests are on their way
    names = [b"address/%d" % rank for rank in range(job.world)]
    values = [address(rank) for rank in range(job.world)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    go = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    began_s = 0.0
    if not waiting:
        await go
        began_s = time.process_time()
        waiting = [asyncio.ensure_future(meet(rank, job.world, names, values, job.what == "meet")) for rank in ranks]
    await asyncio.gather(*waiting)
    sys.stdout.write(json.dumps({"cpu_seconds": time.process_time() - began_s}) + "\n")
    sys.stdout.flush()
    await go
    for rank in ranks:
        rank.close()
    if client is not None:
        await client.close()


if __name__ == "__main__":
    raise_open_files()
    uvloop.run(work(Job(**json.loads(sys.argv[1]))))
