"""Seeds that are run every time: a fixed row, those that ever failed, and one of them twice, because a seed is a whole history."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv.wire.commands import RANGE, TXN

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


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_ten_seeds_with_the_whole_data_model(first: int) -> None:
    """And that there is something to judge: events, answers, and watches that were overtaken by a compaction."""
    heard = gone = transactions = past = waits = 0
    for seed in range(first, first + 10):
        data = run(seed, data=True).data
        assert data is not None, "it was asked for"
        watches = [watch for client in data.watching for watch in (*client.over, *client.watches)]
        heard += sum(len(watch.heard) for watch in watches)
        gone += sum(watch.gone is not None and bool(watch.heard) for watch in watches)
        attempts = [attempt for transactor in data.transactors for attempt in transactor.attempts if attempt.answer]
        transactions += sum(attempt.command[0] == TXN for attempt in attempts)
        past += sum(attempt.command[0] == RANGE for attempt in attempts)
        waits += sum(len(waiter.waited) for waiter in data.waiters)
    assert heard > 1_000 and gone > 5 and transactions > 200 and past > 50 and waits > 50


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_ten_seeds_with_pools(first: int) -> None:
    granted = 0
    for seed in range(first, first + 10):
        granted += len(run(seed, pools=True).pool_checks.granted)
    assert granted > 100, "shares were given"


@pytest.mark.parametrize("first", range(0, 20, 10))
def test_ten_seeds_with_users(first: int) -> None:
    """And that eve was told no, often, and the administrator did something."""
    managed = refused = enabled = 0
    for seed in range(first, first + 10):
        users = run(seed, users=True).users
        assert users is not None, "it was asked for"
        managed, refused, enabled = managed + users.managed, refused + users.refused, enabled + users.is_on
    assert enabled >= 8 and managed > 100 and refused > 200, (enabled, managed, refused)


def test_a_seed_with_everything() -> None:
    for seed in range(5):
        run(seed, leases=True, data=True, pools=True, users=True)


def failed_seeds() -> list[tuple[int, list[str]]]:
    """Each with what its world has besides."""
    lines = (Path(__file__).parent / "failed_seeds.txt").read_text().splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    return [(int(line[0]), [word.removeprefix("--") for word in line[1:] if word.startswith("--")]) for line in words]


@pytest.mark.parametrize(("seed", "extras"), failed_seeds())
def test_seeds_that_failed_once(seed: int, extras: list[str]) -> None:
    run(seed, **dict.fromkeys(extras, True))


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


def run(seed: int, **extras: bool) -> World:
    world = World(seed, **extras)
    try:
        world.run()
    except Exception as error:
        error.add_note(f"replay: {replay_line(seed, **extras)}")
        raise
    return world
