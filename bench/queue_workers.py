"""What a queue costs when many workers wait for its items: time for all of them, and the members' CPU.

    python bench/queue_workers.py --workers 100 --items 200 --rounds 3 [--beside DIRECTORY] [--output bench/results/queue.json]

Three members with raftkv's own defaults; the workers are tasks of one asyncio client, each with a claim of its own. Items are put one after the other while
everybody waits, so that each wakes all; timed from the first put to the last acknowledgement. `--beside`: another checkout of raftkv, which takes turns with
this one, members and client both.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from machine import machine
from processes import Cluster, cpu_seconds_of
from raftkv_cluster import RaftkvKind

HERE = Path(__file__).resolve().parent
SETTLE_SECONDS = 1.5
SECONDS_MAX = 120


async def run(endpoints: str, pids: list[int], workers: int, items: int) -> dict[str, float]:
    """One round on a cluster that nobody else uses."""
    import raftkv

    async with raftkv.connect(endpoints, timeout=60) as kv:
        await kv.put("ready", "1")
        done, ended = 0, asyncio.Event()

        async def work() -> None:
            nonlocal done
            async with kv.queue("items") as queue:
                while True:
                    claim = await queue.claim()
                    await claim.ack()
                    done += 1
                    if done == items:
                        ended.set()

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        await asyncio.sleep(SETTLE_SECONDS)  # everybody waits
        cpu_before, began = sum(map(cpu_seconds_of, pids)), time.perf_counter()
        queue = kv.queue("items")
        for number in range(items):
            await queue.put(str(number))
        await asyncio.wait_for(ended.wait(), SECONDS_MAX)
        seconds, cpu = time.perf_counter() - began, sum(map(cpu_seconds_of, pids)) - cpu_before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {"seconds": seconds, "cpu_seconds": cpu}


def one_round(workers: int, items: int) -> dict[str, float]:
    with Cluster(RaftkvKind()) as cluster:
        cluster.leader()
        members = cluster.running()
        return asyncio.run(
            run(",".join(member.endpoint for member in members), [member.pid for member in members], workers, items)
        )


def in_checkout(directory: Path, workers: int, items: int) -> dict[str, float]:
    """A round of a process of its own, which finds raftkv, and its command line, in that checkout."""
    environment = {**os.environ, "PYTHONPATH": f"{directory}:{directory / 'cli'}"}
    words = [sys.executable, __file__, "--workers", str(workers), "--items", str(items), "--once"]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    if not str(answer.pop("raftkv")).startswith(str(directory)):
        raise SystemExit(f"raftkv was not taken from {directory}")
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        import raftkv

        print(json.dumps({**one_round(given.workers, given.items), "raftkv": raftkv.__file__}))
        return
    sides = {"here": HERE.parent, **({"beside": given.beside.resolve()} if given.beside else {})}
    rows: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(given.rounds):
        for side, directory in sides.items():
            rows[side].append(in_checkout(directory, given.workers, given.items))
            print(
                f"{side:6} {rows[side][-1]['seconds']:.2f} s, members' CPU {rows[side][-1]['cpu_seconds']:.2f} s",
                flush=True,
            )
    medians = {
        side: {name: statistics.median(row[name] for row in found) for name in found[0]} for side, found in rows.items()
    }
    for side, row in medians.items():
        print(f"{side:6} median {row['seconds']:.2f} s, members' CPU {row['cpu_seconds']:.2f} s")
    if given.output:
        text = {
            "machine": machine(),
            "workers": given.workers,
            "items": given.items,
            "rounds": rows,
            "medians": medians,
        }
        given.output.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
