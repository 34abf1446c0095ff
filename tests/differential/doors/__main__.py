"""`python -m tests.differential.doors DOOR`: stories through the doors of a real etcd and a real raftkv. Exit 1 when they disagreed.

DOOR is grpc, gateway, either, streams, auth or all. Prints progress; a story that differs is shrunk.
"""

import argparse
import random
import sys
import time
from typing import Callable

from tests.differential.doors.auth_stories import run_auth_seed
from tests.differential.doors.ends import GatewayEnd, GrpcEnd
from tests.differential.doors.judge import DOORS, run_door_seed
from tests.differential.doors.streams import run_stream_seed
from tests.differential.judge import LENGTH, Difference
from tests.etcd_clients.servers import ETCD, make_servers, servers_under_test

SEEDS_PER_PROCESS_MAX = 500
"""New processes after so many: what was compacted stays in etcd's file."""

Run = Callable[[str, str, int, int], None]


def _streams(real: str, ours: str, seed: int, _length: int) -> None:
    ends = GrpcEnd(real), GrpcEnd(ours)
    try:
        run_stream_seed(*ends, seed)
    finally:
        for end in ends:
            end.close()


def _auth(real: str, ours: str, seed: int, _length: int) -> None:
    kind = GatewayEnd if seed % 2 else GrpcEnd
    ends = kind(real), kind(ours)
    try:
        run_auth_seed(*ends, seed)
    finally:
        for end in ends:
            end.close()


def _stories(door: str) -> Run:
    return lambda real, ours, seed, length: run_door_seed(real, ours, door, seed, length)


KINDS: dict[str, Run] = {**{door: _stories(door) for door in DOORS}, "streams": _streams, "auth": _auth}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential.doors", description=__doc__)
    parser.add_argument("kind", choices=[*KINDS, "all"])
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="how many seeds to run (default 1)")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="the first seed (default: drawn)")
    parser.add_argument("--length", type=int, default=LENGTH, metavar="N", help=f"steps of a story (default {LENGTH})")
    arguments = parser.parse_args()
    first = random.SystemRandom().randrange(1_000_000_000) if arguments.seed is None else arguments.seed
    differences = 0
    for kind in KINDS if arguments.kind == "all" else [arguments.kind]:
        found = run(kind, range(first, first + arguments.seeds), arguments.length)
        print(f"{kind}: {arguments.seeds} seeds, {found} differences", flush=True)
        differences += found
    return 1 if differences else 0


def run(kind: str, seeds: range, length: int) -> int:
    """How many seeds showed a difference."""
    began = said = time.monotonic()
    differences = 0
    for start in range(seeds.start, seeds.stop, SEEDS_PER_PROCESS_MAX):
        with make_servers(ETCD) as real, make_servers(servers_under_test()[0]) as ours:
            real.start()
            ours.start()
            for seed in range(start, min(start + SEEDS_PER_PROCESS_MAX, seeds.stop)):
                try:
                    KINDS[kind](real.endpoints, ours.endpoints, seed, length)
                except Difference as error:
                    differences += 1
                    print(f"seed {seed}: {error}", flush=True)
                if time.monotonic() - said > 10:
                    said = time.monotonic()
                    done = seed + 1 - seeds.start
                    print(
                        f"  {kind}: {done} seeds, {done / (said - began):.1f}/s, {differences} differences", flush=True
                    )
    return differences


if __name__ == "__main__":
    sys.exit(main())
