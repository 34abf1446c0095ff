"""Compares three durable raftkv members with three durable etcd members on this machine, in turn: A B A B.

    python bench/compare.py                                    everything, about half an hour
    python bench/compare.py --only puts,gets --rounds 1 --seconds 1    a quick look

Prints tables and writes a JSON file with every single measurement. Requests go to the leader. Everything listens on loopback and is
ended, and its data deleted, when this ends, however that happens. Absolute figures depend on the machine and its
neighbours: trust ratios of one run, and CPU-us per operation.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import etcd_cluster
from drivers.target import DRIVERS
from etcd_cluster import EtcdKind
from failover import run_failover
from machine import machine
from processes import BenchError, Cluster, ClusterKind
from raftkv_cluster import RaftkvKind
from resources import Load, run_idle, run_memory
from speed import XL_SECONDS, Driver, Row, SpeedPlan, prepare_gets, run_speed
from table import SPEED_SECTIONS, ratios, render, summarize

SECTIONS = (*SPEED_SECTIONS, "memory", "idle", "startup", "failover")
KINDS: dict[str, ClusterKind] = {"raftkv": RaftkvKind(), "etcd": EtcdKind()}
RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_names(SECTIONS), default=SECTIONS, help=f"sections: {','.join(SECTIONS)}")
    parser.add_argument("--systems", type=_names(tuple(KINDS)), default=tuple(KINDS), help="raftkv,etcd")
    parser.add_argument("--seconds", type=float, default=3.0, help="counted time of each measurement (default 3)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of puts, gets, txns and open (default 3)")
    parser.add_argument("--in-flight", type=_numbers, default=(1, 16, 128, 512), help="default 1,16,128,512")
    parser.add_argument(
        "--rates", type=_numbers, default=(500, 2000, 5000), help="arrivals/s of open (default 500,2000,5000)"
    )
    parser.add_argument("--xl-rounds", type=int, default=1, help="rounds of xl, a minute per driver each (default 1)")
    parser.add_argument("--xl-seconds", type=float, default=XL_SECONDS, help="for the drivers; etcdctl always takes 60")
    parser.add_argument(
        "--loads",
        type=lambda text: tuple(map(Load.parse, text.split(","))),
        default=(Load(1_000_000), Load(100_000, 10)),
        help="of memory and startup: KEYS or KEYSxVERSIONS (default 1000000,100000x10)",
    )
    parser.add_argument("--memory-rounds", type=int, default=1, help="rounds of memory and startup (default 1)")
    parser.add_argument("--kills", type=int, default=20, help="of failover (default 20)")
    parser.add_argument(
        "--drivers",
        type=lambda text: tuple(Driver.parse(part) for part in text.split(",")),
        default=tuple(map(Driver.parse, ("raftkv", "raftkv-raw", "etcd-h2", "etcd-rust"))),
        help=f"NAME or NAME:PROCESSES of {','.join(DRIVERS)}; the first of each product also loads data and fails over",
    )
    parser.add_argument("--output", type=Path, help="the JSON file (default bench/results/TIME.json)")
    chosen = parser.parse_args()
    for driver in chosen.drivers:
        if driver.name not in DRIVERS:
            parser.error(f"no driver {driver.name}: there are {', '.join(DRIVERS)}")
    for system in chosen.systems:
        if not any(driver.system == system for driver in chosen.drivers):
            parser.error(f"--drivers names none for {system}")
    return chosen


def _names(known: tuple[str, ...]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        wanted = text.split(",")
        for name in wanted:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return tuple(name for name in known if name in wanted)

    return parse


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def note(text: str) -> None:
    """Progress, on stderr: stdout is for the tables."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def rounds_of_speed(chosen: argparse.Namespace) -> Iterator[Row]:
    """Rounds on fresh clusters, the systems in turn; the xl load grows the store and so comes in rounds of its own."""
    quick = tuple(section for section in chosen.only if section in SPEED_SECTIONS and section != "xl")
    plans = [(quick, chosen.rounds), (("xl",) if "xl" in chosen.only else (), chosen.xl_rounds)]
    for sections, rounds in plans:
        plan = SpeedPlan(
            sections=sections,
            seconds=chosen.seconds,
            in_flight=chosen.in_flight,
            rates=chosen.rates,
            xl_seconds=chosen.xl_seconds,
            drivers=chosen.drivers,
        )
        for number in range(rounds if sections else 0):
            for system in chosen.systems:
                note(f"round {number + 1} of {rounds}: {system}, {', '.join(sections)}")
                with Cluster(KINDS[system]) as cluster:
                    if "gets" in sections:
                        prepare_gets(cluster, plan.drivers_of(system)[0])
                    for row in run_speed(cluster, plan, note):
                        yield {**row, "round": number}


def rest_and_trouble(chosen: argparse.Namespace) -> Iterator[Row]:
    """The sections on clusters of their own, the systems in turn."""
    if "memory" in chosen.only or "startup" in chosen.only:
        for number in range(chosen.memory_rounds):
            for load in chosen.loads:
                for system in chosen.systems:
                    driver = next(driver for driver in chosen.drivers if driver.system == system)
                    with Cluster(KINDS[system]) as cluster:
                        for row in run_memory(cluster, driver, load, "startup" in chosen.only, note):
                            yield {**row, "round": number}
    for system in chosen.systems:
        driver = next(driver for driver in chosen.drivers if driver.system == system)
        if "idle" in chosen.only:
            with Cluster(KINDS[system]) as cluster:
                yield run_idle(cluster, note)
        if "failover" in chosen.only:
            with Cluster(KINDS[system]) as cluster:
                yield run_failover(cluster, driver, chosen.kills, note)


def main() -> int:
    chosen = arguments()
    # SIGTERM unwinds like Ctrl-C, so that the clusters are closed by their context managers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    facts = {**machine(), "etcd": etcd_cluster.version()}
    note(f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}, etcd {facts['etcd']}")
    rows: list[Row] = []
    code = 0
    try:
        # Row by row, so that an interrupted run keeps what it has.
        rows.extend(rounds_of_speed(chosen))
        rows.extend(rest_and_trouble(chosen))
    except BenchError as error:
        note(f"stopped: {error}")
        code = 1
    except KeyboardInterrupt:
        note("interrupted; what was measured so far:")
        code = 130
    facts["load_average_after"] = os.getloadavg()
    if rows:
        print(render(rows))
        path = chosen.output or RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "machine": facts,
            "arguments": sys.argv[1:],
            "summary": summarize(rows),
            "ratios": ratios(rows),
            "rows": rows,
        }
        path.write_text(json.dumps(report, indent=1) + "\n")
        note(f"written to {path}")
    return code


if __name__ == "__main__":
    sys.exit(main())
