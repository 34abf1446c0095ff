"""Loads and a fault, brought together: at work before it, during it and after it; then everybody is judged."""

import asyncio
from contextlib import AsyncExitStack
from typing import Sequence

import raftkv

from ..faults import Fault
from .base import Load, progress, reaches

CLIENTS = 4
BEFORE, DURING, AFTER = 5, 15, 10


async def run_under(loads: Sequence[Load], endpoints: str, fault: Fault) -> None:
    """All loads at once, through one fault. Raises AssertionError when one stands still, or when what it promises does not hold."""
    async with AsyncExitStack() as stack:
        hands = []
        kv = await stack.enter_async_context(raftkv.connect(endpoints, timeout=max(load.timeout_s for load in loads)))
        for load in loads:
            await load.prepare(kv)
        async with asyncio.TaskGroup() as group:
            for load in loads:
                opened = [
                    await stack.enter_async_context(raftkv.connect(endpoints, timeout=load.timeout_s))
                    for _ in range(CLIENTS)
                ]
                hands += [
                    group.create_task(load.hand(opened[number % CLIENTS], number)) for number in range(load.hands_count)
                ]
            await progress(loads, BEFORE, "before the fault")
            await fault.begin()
            await progress(loads, DURING, "during the fault")
            await fault.end()
            await progress(loads, AFTER, "after the fault")
            for load in loads:
                load.ending.set()
            for load in loads:
                await load.settle(kv)
                load.settled.set()
            await reaches(lambda: all(hand.done() for hand in hands), "all hands to end", lambda: hands)
        for load in loads:
            await load.check(kv, load.seen)
