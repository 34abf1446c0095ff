"""Merge scheduling: 200 training jobs that have to merge on 18 machines, once everyone on their own, once through a raftkv pool.

A cluster of three real members runs on this machine, and its leader is killed in the middle of each run. Merges hang and workers die. Shown
live; at the end a table, a picture (merge_scheduling.svg), and the verdict: no deadlock, never more machines given than there are, the order
of the weights kept, every hung merge stopped. Exit code 1 when one of these does not hold.

    python examples/merge_scheduling.py --hours 30
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Awaitable, Callable

import raftkv
from merge_story import naive, scheduled
from merge_story.books import Books, Clock
from merge_story.picture import draw
from merge_story.platform import JOBS, MACHINES, Merge, plan
from raftkv.errors import RaftKVError
from raftkv_cli.local_cluster import Layout, LocalCluster, free_ports
from raftkv_cli.output import write_table
from raftkv_cli.spec import Failed

CLIENTS = 4
SAMPLE_HOURS = 0.1
KILL_AT_FRACTION = 0.4
STANDSTILL_SECONDS = 30.0
SESSION_SECONDS = 10.0

StartMerge = Callable[[raftkv.AsyncClient, Merge, raftkv.AsyncKeptLease], Awaitable[None]]


def show(books: Books, note: str = "") -> None:
    taken = books.sample()
    line = (
        f"{books.name:<24} hour {taken.hour:5.1f}  waiting {taken.waiting:3}  working {taken.useful:2}/{MACHINES}"
        f"  held {taken.held:2}  done {books.done:4}  stopped {books.stopped:2}  gave up {books.gave_up:3}  {note}"
    )
    if sys.stdout.isatty():
        # A line that wraps would not be overwritten by the next one.
        sys.stdout.write("\x1b[K" + line[: shutil.get_terminal_size().columns - 1] + "\r")
        if note:
            sys.stdout.write("\n")
    elif note or int(taken.hour) != int(taken.hour - SAMPLE_HOURS):
        print(line.rstrip())
    sys.stdout.flush()


async def live(books: Books, cluster: LocalCluster, kv: raftkv.AsyncClient, hours: float) -> None:
    """Samples and shows; kills the leader once, and starts it again."""
    killed = ""
    while True:
        note = ""
        if not killed and books.clock.hour > KILL_AT_FRACTION * hours:
            leaders = [member["name"] for member in await kv.status() if member["role"] == "leader"]
            if leaders:
                killed = str(leaders[0])
                cluster.signal_member(killed, signal.SIGKILL)
                note = f"{killed}, the leader, killed"
        elif killed and not cluster.members[killed].running:
            cluster.start_member(killed)
            note = f"{killed} started again"
        show(books, note)
        await asyncio.sleep(books.clock.seconds(SAMPLE_HOURS))


async def run(books: Books, cluster: LocalCluster, seed: int, hours: float, start: StartMerge) -> bool:
    """All jobs, until their merges have ended. False when nothing began or ended for too long: a deadlock."""
    endpoints = ",".join(cluster.layout.endpoints)
    opened = [raftkv.connect(endpoints, timeout=30) for _ in range(CLIENTS)]

    async def job(number: int) -> None:
        kv = opened[number % CLIENTS]
        async with kv.lease(SESSION_SECONDS) as session:
            for merge in plan(seed, number, hours):
                await asyncio.sleep(books.clock.seconds_until(merge.due_hour))
                await start(kv, merge, session)

    showing = asyncio.create_task(live(books, cluster, opened[0], hours))
    jobs = [asyncio.create_task(job(number)) for number in range(JOBS)]
    try:
        pending, before = set(jobs), -1
        while pending and (before != books.moves or books.clock.hour < hours):
            before = books.moves
            _, pending = await asyncio.wait(pending, timeout=STANDSTILL_SECONDS)
        for task in pending:
            task.cancel()
        for result in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        for kv in opened:
            await kv.close()
    print()
    return not pending


async def both(cluster: LocalCluster, arguments: argparse.Namespace) -> bool:
    hours, seed = arguments.hours, arguments.seed
    alone = Books("everyone on their own", Clock(arguments.second_per_hour))
    await run(alone, cluster, seed, hours, lambda kv, merge, _: naive.merge_alone(kv, merge, alone, hours))
    async with raftkv.connect(",".join(cluster.layout.endpoints), timeout=30) as kv:
        pooled = Books("through a pool", Clock(arguments.second_per_hour))
        heard, ready = scheduled.Audit(arguments.second_per_hour), asyncio.Event()
        listening = asyncio.create_task(scheduled.audit(kv, heard, ready))
        await ready.wait()
        await scheduled.set_up(kv, pooled)
        pooled.clock = Clock(arguments.second_per_hour)
        ended = await run(
            pooled, cluster, seed, hours, lambda kv, merge, session: scheduled.merge_by_pool(kv, merge, pooled, session)
        )
        info = await kv.pool(scheduled.POOL).info()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    draw(arguments.picture, [alone, pooled])
    return report(alone, pooled, heard, ended=ended, left=info.used["machines"], arguments=arguments)


def report(
    alone: Books, pooled: Books, heard: scheduled.Audit, *, ended: bool, left: int, arguments: argparse.Namespace
) -> bool:
    seed, hours, picture = arguments.seed, arguments.hours, arguments.picture
    due = sum(len(plan(seed, number, hours)) for number in range(JOBS))
    rows = [
        (f"merges done, of {due} that fell due", alone.done, pooled.done),
        ("useful work of all machine time", f"{alone.utilisation:.0%}", f"{pooled.utilisation:.0%}"),
        ("delay of those done, median, hours", f"{alone.delay(50):.2f}", f"{pooled.delay(50):.2f}"),
        ("delay of those done, 95 %, hours", f"{alone.delay(95):.2f}", f"{pooled.delay(95):.2f}"),
        ("gave up holding a part (deadlocks)", alone.gave_up, pooled.gave_up),
        ("merges that hung / were stopped in time", f"{alone.hung} / 0", f"{pooled.hung} / {pooled.stopped}"),
        ("late writes of stopped merges refused", "-", pooled.refused_late),
        ("workers that died", alone.crashed, pooled.crashed),
    ]
    write_table(("what happened", "everyone on their own", "through a pool"), rows)
    checks = {
        "every merge began and ended: no deadlock": ended,
        "every hung merge was stopped": pooled.hung == pooled.stopped == pooled.refused_late,
        "never more machines than there are, and the order of weights kept": not heard.faults and heard.grants > 0,
        "nothing is held at the end": left == 0,
        "more was done than by everyone on their own": pooled.done > alone.done,
    }
    for what, holds in checks.items():
        print(f"{'ok  ' if holds else 'FAIL'}  {what}")
    for fault in heard.faults[:5]:
        print(f"      {fault}")
    print(f"picture: {picture}")
    return all(checks.values())


def positive(text: str) -> float:
    """A converter for numbers above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def writable(text: str) -> Path:
    """What cannot be drawn at the end is better said before."""
    path = Path(text)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written")
    return path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=positive, default=30.0, help="hours of the platform (default 30)")
    parser.add_argument("--second-per-hour", type=positive, default=1.0, help="real seconds per hour (default 1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--picture", type=writable, default="merge_scheduling.svg", help="where to draw (default merge_scheduling.svg)"
    )
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    print(
        f"{JOBS} training jobs, {MACHINES} machines, {arguments.hours:g} hours at {arguments.second_per_hour:g} s each\n"
    )
    try:
        with (
            tempfile.TemporaryDirectory(prefix="raftkv-merge-", ignore_cleanup_errors=True) as directory,
            LocalCluster(Layout(Path(directory), "merge-story", free_ports(3))) as cluster,
        ):
            cluster.start()
            if not cluster.wait_ready(60.0):
                raise Failed("the cluster did not become ready")
            return 0 if asyncio.run(both(cluster, arguments)) else 1
    except KeyboardInterrupt:
        print("\ninterrupted; every member was ended", file=sys.stderr)
        return 130
    except (Failed, RaftKVError, OSError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
