"""Writing through a failover: who acknowledged when, seen by writers that never rest.

The gap is the longest time between two acknowledgements, whoever got them. To give every product its best: a library that knows
the whole cluster gets all endpoints at once (raftkv), the others get one target per endpoint and a new connection after an error.
"""

import asyncio
import time
from typing import Callable, Protocol, Sequence

from drivers.target import Target, connect

SELF_HEALING = frozenset({"raftkv"})
PAUSE_SECONDS = 0.001  # per writer: the gap is to be seen, not the throughput


class Writer(Protocol):
    """What is needed of a target here."""

    async def put(self, key: bytes, value: bytes) -> None: ...

    async def close(self) -> None: ...


class ReconnectingWriter:
    """A writer on one endpoint that connects anew after an error."""

    def __init__(self, driver: str, endpoint: str, target: Target) -> None:
        self._driver = driver
        self._endpoint = endpoint
        self._target: Target | None = target

    async def put(self, key: bytes, value: bytes) -> None:
        if self._target is None:
            self._target = await connect(self._driver, [self._endpoint])
        target = self._target
        try:
            await target.put(key, value)
        except Exception:
            if self._target is target:
                self._target = None
                await target.close()
            raise

    async def close(self) -> None:
        if self._target is not None:
            await self._target.close()


async def open_writers(driver: str, endpoints: Sequence[str]) -> list[Writer]:
    """The writers through which a failover of this product is watched."""
    if driver in SELF_HEALING:
        return [await connect(driver, endpoints)]
    return [ReconnectingWriter(driver, endpoint, await connect(driver, [endpoint])) for endpoint in endpoints]


async def write_until(
    done: asyncio.Event,
    writers: Sequence[Writer],
    in_flight: int,
    attempt_seconds: float,
    key: Callable[[int], bytes],
    value: bytes,
) -> list[float]:
    """Write until `done`; the times (time.monotonic) of all acknowledgements, in order.

    An attempt that takes longer than `attempt_seconds` is given up and the next key is tried, so that a request stuck behind
    a dead leader does not hide that others succeed.
    """
    acknowledged: list[float] = []
    next_number = iter(range(1 << 62)).__next__

    async def write(writer: Writer) -> None:
        while not done.is_set():
            try:
                await asyncio.wait_for(writer.put(key(next_number()), value), attempt_seconds)
            except Exception:  # any library's error: not acknowledged
                await asyncio.sleep(0.005)
                continue
            acknowledged.append(time.monotonic())
            await asyncio.sleep(PAUSE_SECONDS)

    await asyncio.gather(*(write(writers[i % len(writers)]) for i in range(in_flight)))
    return acknowledged
