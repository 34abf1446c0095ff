"""The asyncio client on uvloop, whose transports are no asyncio.Transport and whose clock stands still within a turn."""

import asyncio

import pytest
import uvloop

import raftkv
from raftkv.errors import ClientClosed, DeadlineExceeded, Unreachable

from .fakeserver import FakeCluster


def test_the_client_on_uvloop(cluster: FakeCluster) -> None:
    async def story() -> None:
        async with raftkv.connect(cluster.endpoints, timeout=5.0, idle_check_after=0.01) as kv:
            assert await asyncio.gather(*(kv.increment("n") for _ in range(300)))
            cluster.members[0].script.extend(["serve"] * 30 + ["lose"])
            await asyncio.gather(*(kv.increment("n") for _ in range(100)))
            assert await kv.get("n") == b"400"
            await asyncio.sleep(0.02)
            assert await kv.get("n") == b"400"
            cluster.members[0].stop()
            cluster.leader = cluster.members[1]
            assert await kv.increment("n") == 401
            async with raftkv.connect(
                cluster.endpoints, timeout=5.0
            ) as patient:  # asks for no sign of life before it sends
                assert await patient.get("n") == b"401"
                for member in cluster.members:
                    member.mode = "hang"
                with pytest.raises(DeadlineExceeded):
                    await patient.get("n", timeout=0.1)
            pending = asyncio.ensure_future(kv.put("k", "v"))
            await asyncio.sleep(0)
        with pytest.raises(ClientClosed):
            await pending
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


def test_nobody_there_on_uvloop(cluster: FakeCluster) -> None:
    for member in cluster.members:
        member.stop()

    async def story() -> None:
        async with raftkv.connect(cluster.endpoints, timeout=0.2) as kv:
            with pytest.raises(Unreachable, match="connection refused"):
                await kv.get("k")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())
