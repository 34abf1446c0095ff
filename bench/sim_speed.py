"""How fast the simulator is, in events a second with all checks on, over a row of seeds.

    python bench/sim_speed.py [--seeds 100] [--seed 1] [--data] [--output bench/results/sim.json]

One process on one core. A rate per second of CPU tells what the code costs, the one per second of wall time what a neighbour left of it.
Exit code 1 when a seed fails or when the rate is below what is demanded (20,000 events a second).
"""

import argparse
import json
import logging
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from machine import machine

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.sim.world import World

DEMANDED = 20_000


def run(first: int, count: int, *, data: bool) -> list[dict[str, Any]]:
    """One row per seed."""
    rows = []
    for seed in range(first, first + count):
        world = World(seed, data=data)
        cpu, wall = time.process_time(), time.perf_counter()
        world.run()
        row = {
            "seed": seed,
            "members": world.knobs.members,
            "virtual_seconds": world.now_us / 1e6,
            "events": world.events,
            "cpu_seconds": time.process_time() - cpu,
            "wall_seconds": time.perf_counter() - wall,
        }
        rows.append(row)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Over all seeds, and how single ones differ."""
    events = sum(row["events"] for row in rows)
    single = sorted(row["events"] / row["cpu_seconds"] for row in rows)
    return {
        "seeds": len(rows),
        "events": events,
        "virtual_seconds": sum(row["virtual_seconds"] for row in rows),
        "events_per_second": events / sum(row["wall_seconds"] for row in rows),
        "events_per_cpu_second": events / sum(row["cpu_seconds"] for row in rows),
        "slowest_seed": single[0],
        "median_seed": statistics.median(single),
        "fastest_seed": single[-1],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--seed", type=int, default=1, help="the first (default 1)")
    parser.add_argument("--data", action="store_true", help="worlds with the whole data model")
    parser.add_argument("--output", type=Path, help="also write a JSON file")
    options = parser.parse_args()
    logging.disable()  # the members' own log lines
    facts = machine()
    rows = run(options.seed, options.seeds, data=options.data)
    result = summary(rows)
    for name, value in result.items():
        print(f"  {name}: {value:,.0f}")
    if options.output is not None:
        report = {"machine": facts, "arguments": sys.argv[1:], "summary": result, "rows": rows}
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if result["events_per_cpu_second"] >= DEMANDED else 1  # a busy neighbour is not the simulator


if __name__ == "__main__":
    sys.exit(main())
