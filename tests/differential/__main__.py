"""`python -m tests.differential`: one seed, or many. Prints progress; exit 1 when raftkv and etcd disagreed."""

import argparse
import random
import sys
import time
from functools import partial

from .judge import LENGTH, Difference, Pair, run_seed
from .real import Etcd

ETCD_SEEDS_MAX = 2_000
"""A new process after so many: etcd keeps what was compacted in its file."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description="raftkv beside a real etcd.")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="how many seeds to run (default 1)")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="the first seed (default: drawn)")
    parser.add_argument("--length", type=int, default=LENGTH, metavar="N", help=f"steps of a story (default {LENGTH})")
    arguments = parser.parse_args()
    first = random.SystemRandom().randrange(1_000_000_000) if arguments.seed is None else arguments.seed
    began = said = time.monotonic()
    differences = 0
    for start in range(first, first + arguments.seeds, ETCD_SEEDS_MAX):
        with Etcd() as etcd:
            for seed in range(start, min(start + ETCD_SEEDS_MAX, first + arguments.seeds)):
                try:
                    run_seed(partial(Pair, etcd), seed, arguments.length)
                except Difference as error:
                    differences += 1
                    print(f"seed {seed}: {error}", flush=True)
                if time.monotonic() - said > 10:
                    said = time.monotonic()
                    done = seed + 1 - first
                    print(f"  {done} seeds, {done / (said - began):.1f}/s, {differences} differences", flush=True)
    print(f"{arguments.seeds} seeds of {arguments.length} steps, {differences} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
