"""Clients that die by SIGKILL: what they held is free when the time that the cluster has given them is over, and not before."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

import raftkv

from .harness.cluster import Cluster
from .harness.crew import child
from .harness.holder import PAIRS
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

TTL_S = 5.0
FREE_DEADLINE_S = 30.0


async def test_what_the_killed_held_is_free_in_its_time_and_not_before(healthy: Cluster, tmp_path: Path) -> None:
    """One holder of every recipe, and one who waits for each. What counts is the last renewal that the cluster has seen."""
    holders = {
        recipe: child("holder", recipe, healthy.endpoints, str(TTL_S), log=tmp_path / recipe) for recipe in PAIRS
    }
    try:
        for recipe, process in holders.items():
            wait_until(lambda process=process: process.log_text().startswith("held "), f"{recipe} to be held")  # type: ignore[misc]
        leases = {recipe: int(process.log_text().split()[1]) for recipe, process in holders.items()}
        async with raftkv.connect(healthy.endpoints, timeout=20) as kv, asyncio.timeout(FREE_DEADLINE_S + TTL_S):
            freed_at: dict[str, float] = {}

            async def wait_for(recipe: str) -> None:
                await PAIRS[recipe].await_free(kv, f"killed.{recipe}")
                freed_at[recipe] = time.monotonic()

            async with asyncio.TaskGroup() as group:
                for recipe in PAIRS:
                    group.create_task(wait_for(recipe))
                await outlive(kv, leases)
                assert not freed_at, "freed under a living holder"
                earliest_at = {}
                for recipe, process in holders.items():
                    process.send(signal.SIGKILL)
                    process.wait_exit()
                    asked_at = time.monotonic()
                    earliest_at[recipe] = asked_at + (await kv.lease_ttl(leases[recipe])).remaining
    finally:
        for process in holders.values():
            process.kill()
    early = {recipe: at - earliest_at[recipe] for recipe, at in freed_at.items() if at < earliest_at[recipe] - 0.1}
    assert not early, f"freed so many seconds too early: {early}"
    assert freed_at.keys() == PAIRS.keys()


async def outlive(kv: raftkv.AsyncClient, leases: dict[str, int]) -> None:
    """Until all have been renewed: each has more time left than nobody could have without."""
    ends_at = time.monotonic() + TTL_S
    while time.monotonic() < ends_at:
        left = [(await kv.lease_ttl(lease)).remaining for lease in leases.values()]
        assert min(left) > 0
        await asyncio.sleep(0.1)
