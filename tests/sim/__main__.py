"""`python -m tests.sim`: many seeds, one seed, or a seed's story. Prints progress; exit 1 when a promise was broken."""

import argparse
import random
import subprocess
import sys
import time

from . import telling
from .bugs import FIRST_SEED, run_all
from .scale import table
from .world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Simulated clusters, one per seed.")
    parser.add_argument(
        "--seeds", type=int, default=None, metavar="N", help="how many seeds to run (default 1, or as many as fit)"
    )
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="the first seed (default: drawn)")
    parser.add_argument("--minutes", type=float, default=None, metavar="M", help="stop after so long")
    parser.add_argument("--leases", action="store_true", help="worlds with owners of leases, whose promises are kept")
    parser.add_argument(
        "--data", action="store_true", help="worlds with watches, transactions, waits and compactions of history"
    )
    parser.add_argument("--pools", action="store_true", help="worlds with workers that share pools")
    parser.add_argument("--users", action="store_true", help="worlds in which everybody has to log in")
    parser.add_argument("--trace", action="store_true", help="tell the story of each seed (or planted bug)")
    parser.add_argument(
        "--bugs",
        nargs="*",
        metavar="WORD",
        help="plant every bug (or those whose names hold a word) and see it caught",
    )
    parser.add_argument("--scale", action="store_true", help="what distance and loss cost, on paper and simulated")
    arguments = parser.parse_args()
    if arguments.scale:
        for line in table():
            print(line, flush=True)
        return 0
    if arguments.bugs is not None:
        return run_all(arguments.bugs, FIRST_SEED if arguments.seed is None else arguments.seed, trace=arguments.trace)
    first = random.SystemRandom().randrange(1_000_000_000) if arguments.seed is None else arguments.seed
    seeds = arguments.seeds if arguments.seeds is not None else (1 << 40 if arguments.minutes else 1)
    ends_at = time.monotonic() + arguments.minutes * 60 if arguments.minutes else float("inf")
    extras = {name: getattr(arguments, name) for name in ("leases", "data", "pools", "users")}
    return run_seeds(first, seeds, ends_at, trace=arguments.trace, **extras)


def run_seeds(first: int, count: int, ends_at: float, *, trace: bool, **extras: bool) -> int:
    """`extras`: what the worlds have on top of others, by the name of the option."""
    started = said = time.monotonic()
    events = violations = done = 0
    for seed in range(first, first + count):
        if time.monotonic() >= ends_at:
            break
        world = World(seed, tell=print if trace else None, **extras)
        if trace:
            print(f"seed {seed}: {telling.knobs(world.knobs)}")
        try:
            world.run()
        except Exception as error:
            violations += 1
            print(f"seed {seed}: {type(error).__name__} at {world.now_us / 1e6:.6f} s: {error}")
            print(f"replay: {replay_line(seed, **extras)}", flush=True)
        events += world.events
        done += 1
        if time.monotonic() - said > 5:
            said = time.monotonic()
            print(
                f"  {done} seeds, {events} events, {events / (said - started):.0f}/s, {violations} violations",
                flush=True,
            )
    print(f"{done} seeds, {events} events, {violations} violations")
    return 1 if violations else 0


def replay_line(seed: int, **extras: bool) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    flags = " ".join(["--trace", *(f"--{name}" for name, wanted in extras.items() if wanted)])
    return f"git checkout {commit.stdout.strip() or '?'} && python -m tests.sim --seed {seed} --seeds 1 {flags}"


if __name__ == "__main__":
    sys.exit(main())
