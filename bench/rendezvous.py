"""How long a rendezvous takes and what it costs the servers, beside torch's TCPStore: ranks that find each other, and many waiters on one key.

    PYTHONPATH=.venv/torch python bench/rendezvous.py --rounds 3 --output bench/results/rendezvous.json      (make .venv/torch/.installed)

`meet`: every rank draws its number, writes its address, reads the addresses of all in one request (which waits for them), and passes a barrier:
N^2 values in all. `peers`: the same, address by address, as backends without that request do it. `wake`: so many wait for one key, which is then
written; timed from before the write until the last one has its answer.

The sides take turns, each with fresh servers. TCPStore (libuv) is one process without anything else in it; raftkv is three members that write to
disk; torch-proxy has one proxy per client process in front of them. Ranks are bare clients with a connection each (drivers/ranks.py), in a few
processes on the same cores: their share of the time is told by its CPU. `raftkv-library` is raftkv's own client, one connection per process.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Iterator

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from drivers.rank_worker import GO, GO_VALUE, Job
from drivers.ranks import RaftkvRank, TcpStoreRank
from machine import machine
from processes import BenchError, Cluster, cpu_seconds_of, die_with_parent, raise_open_files, wait_until
from raftkv_cluster import RaftkvKind

Row = dict[str, Any]

HERE = Path(__file__).resolve().parent
SIDES = ("tcpstore", "raftkv", "raftkv-library", "torch-proxy")
CONNECTIONS_MAX = "19000"
REST_SECONDS, REST_CPU_SECONDS = 1.0, 0.03
SECONDS_MAX = 600
# TCPStore asks the resolver for the name of each client before it serves it; where no DNS server answers that takes a tenth of a second per
# connection. It is asked not to try, and connections are no part of a measured time.
NO_DNS = {"RES_OPTIONS": "attempts:0"}


class Side:
    """Fresh servers of one kind: where each client process goes, and which processes are the server."""

    def __init__(self, name: str, clients: int, run: str) -> None:
        self.name, self.run = name, run
        self.kind = {"raftkv": "raw", "raftkv-library": "library"}.get(name, "tcpstore")
        self.endpoints: list[str] = []
        self.pids: list[int] = []
        self.leader_pid = 0
        self._clients = clients
        self._stack = ExitStack()

    def __enter__(self) -> "Side":
        try:
            if self.name == "tcpstore":
                line, pid = self._start(sys.executable, str(HERE / "tcpstore_server.py"))
                self.endpoints, self.pids = [f"127.0.0.1:{line}"] * self._clients, [pid]
                self.leader_pid = pid
            else:
                self._start_members()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _start_members(self) -> None:
        cluster = self._stack.enter_context(Cluster(RaftkvKind()))
        leader = cluster.leader()
        self.pids, self.leader_pid = [member.pid for member in cluster.running()], leader.pid
        everybody = ",".join(member.endpoint for member in cluster.running())
        if self.name == "torch-proxy":
            for _ in range(self._clients):
                words = ("torch-proxy", "--endpoints", everybody, "--run-id", self.run, "--listen", "127.0.0.1:0")
                line, pid = self._start(sys.executable, "-m", "raftkv_cli", *words, "--ttl=600", "--timeout=120")
                self.endpoints.append("127.0.0.1:" + line.rpartition("=")[2])
                self.pids.append(pid)
        else:
            self.endpoints = [leader.endpoint if self.kind == "raw" else everybody] * self._clients
        if self.kind == "raw":
            asyncio.run(self._begin(leader.endpoint))

    async def _begin(self, endpoint: str) -> None:
        rank = await RaftkvRank.connect(endpoint, self.run)
        await rank.begin()
        rank.close()

    def _start(self, *words: str) -> tuple[str, int]:
        process = subprocess.Popen(
            words,
            env={**os.environ, **NO_DNS},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL
            if self.name == "tcpstore"
            else None,  # a warning for each name that it cannot find
            text=True,
            preexec_fn=die_with_parent,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        assert process.stdout is not None, "it is a pipe"
        line = process.stdout.readline().strip()
        if not line:
            raise BenchError(f"{words} ended without a word")
        return line, process.pid

    def cpu_seconds(self) -> float:
        return sum(map(cpu_seconds_of, self.pids))

    def rest(self) -> None:
        """Until the servers have nothing to do: whatever was sent to them is done."""
        before = [self.cpu_seconds(), time.monotonic()]

        def rests() -> bool:
            time.sleep(REST_SECONDS)
            now = self.cpu_seconds()
            before[0], spent = now, now - before[0]
            return spent <= REST_CPU_SECONDS * len(self.pids)

        wait_until(rests, "the servers at rest", SECONDS_MAX)

    async def _write(self) -> None:
        if self.kind == "raw":
            raw = await RaftkvRank.connect(self.endpoints[0], self.run)
            await raw.set(GO, GO_VALUE)
        elif self.kind == "tcpstore":
            rank = await TcpStoreRank.connect(self.endpoints[0])
            await rank.set(GO, GO_VALUE)
            await rank.get(GO, GO_VALUE)
        else:
            import raftkv

            async with raftkv.connect(self.endpoints[0]) as kv:
                await kv.rendezvous(self.run, 0, ttl=600).set(GO, GO_VALUE)

    def write(self) -> None:
        """The key that everybody waits for."""
        asyncio.run(self._write())


def measure(side: Side, what: str, count: int, clients: int) -> Row:
    """One kind of work by so many ranks."""
    shares = [count // clients + (place < count % clients) for place in range(clients)]
    workers: list[subprocess.Popen[str]] = []
    signal.alarm(SECONDS_MAX)  # ends us, and with us all that we started
    with ExitStack() as stack:
        for share, endpoint in zip(shares, side.endpoints, strict=True):
            job = json.dumps(asdict(Job(what, side.kind, endpoint, side.run, share, count)))
            worker = subprocess.Popen(
                [sys.executable, str(HERE / "drivers" / "rank_worker.py"), job],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=die_with_parent,
            )
            stack.callback(worker.wait)
            stack.callback(worker.kill)
            workers.append(worker)
        hear(workers, "ready")
        side.rest()
        cpu_s, leader_cpu_s, began_s = side.cpu_seconds(), cpu_seconds_of(side.leader_pid), time.monotonic()
        if what == "wake":
            side.write()
        else:
            tell(workers)
        said = [json.loads(line) for line in hear(workers, "{")]
        took_s = time.monotonic() - began_s
        row = {
            "side": side.name,
            "what": what,
            "count": count,
            "seconds": took_s,
            "server_cpu_seconds": side.cpu_seconds() - cpu_s,
            "leader_cpu_seconds": cpu_seconds_of(side.leader_pid) - leader_cpu_s,
            "clients_cpu_seconds": sum(one["cpu_seconds"] for one in said) if what != "wake" else None,
        }
    print(
        f"{side.name:<15} {what:<6} {count:6}  {took_s:7.2f} s   servers' CPU {row['server_cpu_seconds']:6.2f} s",
        flush=True,
    )
    return row


def tell(workers: "list[subprocess.Popen[str]]") -> None:
    for worker in workers:
        assert worker.stdin is not None, "it is a pipe"
        worker.stdin.write("go\n")
        worker.stdin.flush()


def hear(workers: "list[subprocess.Popen[str]]", start: str) -> list[str]:
    """A line of each. Raises BenchError as soon as one says something else, or ends."""
    with ThreadPoolExecutor(len(workers)) as readers:
        lines = [readers.submit(expect, worker, start) for worker in workers]
        for line in as_completed(lines):
            if line.exception() is not None:
                for worker in workers:
                    worker.kill()
        return [line.result() for line in lines]


def expect(worker: "subprocess.Popen[str]", start: str) -> str:
    assert worker.stdout is not None, "it is a pipe"
    line = worker.stdout.readline()
    if not line.startswith(start):
        raise BenchError(f"a process of ranks said {line!r} and not {start}")
    return line


def plan(arguments: argparse.Namespace) -> Iterator[tuple[str, int]]:
    for what, counts in (("meet", arguments.meet), ("peers", arguments.peers), ("wake", arguments.wake)):
        for count in counts:
            yield what, count


def table(rows: list[Row], sides: list[str]) -> str:
    """Medians over the rounds, and how much of TCPStore's time and CPU the others take, round by round."""
    lines = [
        "| | side | time | ratio | servers' CPU | ratio | leader's CPU | clients' CPU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for what, count in dict.fromkeys((row["what"], row["count"]) for row in rows):
        mine = {side: [r for r in rows if (r["what"], r["count"], r["side"]) == (what, count, side)] for side in sides}
        for side in sides:
            cells = [f"{count:,} {what}", side]
            for name in ("seconds", "server_cpu_seconds"):
                cells.append(f"{statistics.median(row[name] for row in mine[side]):.2f} s")
                pairs = zip(mine[side], mine.get("tcpstore", []), strict=False)
                found = [ours[name] / theirs[name] for ours, theirs in pairs if theirs[name]]
                cells.append(f"{statistics.median(found):.1f}" if found and side != "tcpstore" else "")
            cells.append(f"{statistics.median(row['leader_cpu_seconds'] for row in mine[side]):.2f} s")
            told = [row["clients_cpu_seconds"] for row in mine[side] if row["clients_cpu_seconds"] is not None]
            cells.append(f"{statistics.median(told):.2f} s" if told else "")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--meet", type=int, nargs="*", default=[100, 1_000])
    parser.add_argument("--peers", type=int, nargs="*", default=[200])
    parser.add_argument("--wake", type=int, nargs="*", default=[10_000])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--clients", type=int, default=4, help="processes that share the ranks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    raise_open_files()
    os.environ["RAFTKV_LIMITS_CLIENT_CONNECTIONS_MAX"] = CONNECTIONS_MAX  # waiters have a connection each
    facts = machine()
    rows: list[Row] = []
    for round_number in range(arguments.rounds):
        for place, (what, count) in enumerate(plan(arguments)):
            for name in arguments.sides:
                with Side(name, arguments.clients, f"bench-{round_number}-{place}") as side:
                    rows.append({**measure(side, what, count, arguments.clients), "round": round_number})
    print(table(rows, arguments.sides))
    if arguments.output:
        arguments.output.write_text(json.dumps({"machine": facts, "arguments": sys.argv[1:], "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
