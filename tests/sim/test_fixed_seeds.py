"""Seeds that are run every time: a fixed row, those that ever failed, and one of them twice, because a seed is a whole history."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .__main__ import replay_line
from .world import World

FIXED = range(120)


@pytest.mark.parametrize("first", FIXED[::10])
def test_ten_seeds(first: int) -> None:
    for seed in range(first, first + 10):
        run(seed)


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_ten_seeds_with_leases(first: int) -> None:
    ended = 0
    for seed in range(first, first + 10):
        ended += run(seed, leases=True).promises.expired
    assert ended > 20, "leases came to their end"


def failed_seeds() -> list[int]:
    lines = (Path(__file__).parent / "failed_seeds.txt").read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("seed", failed_seeds())
def test_seeds_that_failed_once(seed: int) -> None:
    run(seed)


def test_a_seed_replays_alike_whatever_the_hashes(project: Path) -> None:
    stories = [
        subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", "11", "--seeds", "1", "--trace"],
            cwd=project,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert len(stories[0]) > 10_000, "a story was told"
    assert stories[0] == stories[1]


def run(seed: int, *, leases: bool = False) -> World:
    world = World(seed, leases=leases)
    try:
        world.run()
    except Exception as error:
        error.add_note(f"replay: {replay_line(seed, leases=leases)}")
        raise
    return world
