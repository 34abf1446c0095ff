"""Puts and linearizable gets through each front door, raftkv beside etcd: three durable members each, the same client for both.

    python bench/doors.py                                  about ten minutes
    python bench/doors.py --rounds 1 --only grpc           a quick look

Both clusters are up all the time, one of them idle, so that a pair of measurements lies seconds apart and not minutes: on a machine with
neighbours that matters more than anything else. Who comes first changes with each round. Requests go to the leader, 128 in flight: over one connection, and over 128 (what 128 processes with a client each are). The native door has no
counterpart in etcd, its gRPC stands beside it. Prints the medians of the rounds and of the ratios within pairs, and writes every measurement to a file.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import etcd_cluster
from drivers.worker import Spec
from etcd_cluster import EtcdKind
from generator import measure
from machine import machine
from processes import BenchError, Cluster, ClusterKind
from raftkv_cluster import RaftkvKind
from speed import GET_KEYS

IN_FLIGHT = 128
KINDS: dict[str, ClusterKind] = {"raftkv": RaftkvKind(), "etcd": EtcdKind()}


class Way(NamedTuple):
    """One door, as one client uses it."""

    door: str
    client: str
    driver: str
    connections: int = 1
    processes: int = 1
    systems: tuple[str, ...] = ("raftkv", "etcd")


WAYS = (
    Way("native", "thin, 1 connection", "raftkv-raw", systems=("raftkv",)),
    Way("native", "thin, 128 connections", "raftkv-raw", IN_FLIGHT, systems=("raftkv",)),
    Way("grpc", "thin, 1 connection", "etcd-h2"),
    Way("grpc", "thin, 128 connections", "etcd-h2", IN_FLIGHT),
    Way("grpc", "etcd-client-py (Rust), 2 processes", "etcd-rust", processes=2),
    Way("grpc", "grpcio (grpc.aio), 2 processes", "etcd-grpcio", processes=2),
    Way("gateway", "thin, 128 connections", "etcd-gateway"),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="counted time of each measurement (default 2)")
    parser.add_argument("--only", choices=sorted({way.door for way in WAYS}), help="one door")
    parser.add_argument("--output", type=Path, help="the JSON file (default bench/results/doors.json)")
    return parser.parse_args()


def note(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def one(cluster: Cluster, way: Way, op: str, seconds: float) -> dict[str, Any]:
    """One measurement. Raises BenchError when a request failed: a figure of refusals is none."""
    keys = 100_000 if op == "put" else GET_KEYS
    spec = Spec(driver=way.driver, endpoints=[], shape="closed", op=op, in_flight=IN_FLIGHT, keys=keys)
    spec.seconds, spec.connections = seconds, way.connections
    figures = measure(cluster, spec, way.processes)
    system = cluster.kind.name
    if figures.errors:
        raise BenchError(f"{system} {way.door} {op}: {figures.errors} failed: {figures.error_example}")
    note(
        f"{system} {way.door} {op} {way.client}: {figures.ops_per_second:.0f}/s, p50 {figures.p50_ms:.1f} ms,"
        f" leader {figures.cpu_us_per_op.get('leader', 0):.1f} us"
    )
    return {"system": system, "door": way.door, "client": way.client, "op": op} | asdict(figures)


def run_rounds(ways: list[Way], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Every way, puts and gets, on both clusters."""
    rows = []
    with Cluster(KINDS["raftkv"]) as ours, Cluster(KINDS["etcd"]) as etcd:
        for cluster in (ours, etcd):
            loading = Spec(driver="etcd-h2", endpoints=[], shape="count", in_flight=64, count=GET_KEYS)
            measure(cluster, loading, seconds_max=120.0)
        for number in range(rounds):
            for way in ways:
                for op in ("put", "get"):
                    pair = [cluster for cluster in (ours, etcd) if cluster.kind.name in way.systems]
                    rows += [
                        one(cluster, way, op, seconds) | {"round": number} for cluster in pair[:: 1 - number % 2 * 2]
                    ]
    return rows


def median(rows: list[dict[str, Any]], read: Any) -> float:
    return statistics.median([read(row) for row in rows])


def table(rows: list[dict[str, Any]], ways: list[Way]) -> str:
    """Medians of the rounds, and how they stand to etcd's of the same round."""
    lines = ["| op | door | client | raftkv | etcd | ratio of ops/s |", "|---|---|---|---|---|---|"]
    for op in ("put", "get"):
        for way in ways:
            cells, by_system = [], {}
            for system in KINDS:
                found = [
                    row
                    for row in rows
                    if (row["system"], row["op"], row["door"], row["client"]) == (system, op, way.door, way.client)
                ]
                by_system[system] = {row["round"]: row["ops_per_second"] for row in found}
                cells.append(
                    "–"
                    if not found
                    else f"{median(found, lambda row: row['ops_per_second']) / 1e3:.1f}k/s,"
                    f" p50 {median(found, lambda row: row['p50_ms']):.1f} ms, p99 {median(found, lambda row: row['p99_ms']):.0f} ms,"
                    f" leader {median(found, lambda row: row['cpu_us_per_op']['leader']):.0f} us"
                )
            ratios = [ops / by_system["etcd"][n] for n, ops in by_system["raftkv"].items() if n in by_system["etcd"]]
            shown = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})" if ratios else ""
            lines.append(f"| {op} | {way.door} | {way.client} | {cells[0]} | {cells[1]} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    chosen = arguments()
    ways = [way for way in WAYS if chosen.only in (None, way.door)]
    facts = {**machine(), "etcd": etcd_cluster.version()}
    rows = run_rounds(ways, chosen.rounds, chosen.seconds)
    output = chosen.output or Path(__file__).parent / "results" / "doors.json"
    output.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    print(table(rows, ways))


if __name__ == "__main__":
    main()
