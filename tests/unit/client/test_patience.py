"""Time in which the loop stood still is not held against others."""

import asyncio
import time
from typing import Any

import pytest

import raftkv
from raftkv.client.patience import STANDSTILL_S, STEPS, Patience

from .fakeserver import FakeCluster


class GivenLoop:
    """Timers that are called when the test says so, at the time that the test says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Any) -> "GivenLoop":
        self.timers.append((when, call))
        return self

    def cancel(self) -> None: ...

    def pass_step(self, late_s: float = 0.0) -> None:
        when, call = self.timers.pop()
        self.now = when + late_s
        call()


async def test_it_ends_after_its_time() -> None:
    with pytest.raises(TimeoutError):
        async with Patience(0.05):
            await asyncio.Event().wait()


async def test_it_does_not_hide_who_is_cancelled() -> None:
    async def wait() -> None:
        async with Patience(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_step_that_ends_late_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    over: list[float] = []
    monkeypatch.setattr(asyncio.Timeout, "reschedule", lambda _, when: over.append(when))
    loop: Any = GivenLoop()
    patience = Patience(1)
    patience._loop = loop
    patience.restart(4.0 * STEPS)
    for step in range(STEPS):
        for _ in range(3):
            loop.pass_step(late_s=4.1)
        assert not over
        loop.pass_step(late_s=3.9)
        assert bool(over) == (step == STEPS - 1)
    patience.restart(0.004)
    for _ in range(STEPS):
        loop.pass_step(late_s=STANDSTILL_S * 0.9)  # a timer is never exact: that is no standstill
    assert len(over) == 2


async def test_who_stood_still_while_connecting_blames_nobody(cluster: FakeCluster) -> None:
    """The members have greeted long ago; it is we who did not listen."""
    loop = asyncio.get_running_loop()

    def stand_still_once_it_connects() -> None:
        loop.call_soon(
            lambda: loop.call_soon(time.sleep, 0.5)
        )  # two turns on; longer than the 0.2 s that connecting has

    async with raftkv.connect(cluster.endpoints, timeout=20.0, attempt_timeout=0.4) as kv:
        stand_still_once_it_connects()
        await kv.put("k", "v")
        async with kv.watch("k") as watch:
            stand_still_once_it_connects()
            await watch.started()
        assert not any(kv._directory.is_unreachable(member.address, loop.time()) for member in cluster.members)
        assert cluster.members[0].connections_seen == 2
