"""One timer for the deadlines of all calls: it wakes at the earliest one, or a few times a second, and only while something waits.

A timer per call would cost as much as the call. The sweep itself is the owner's.
"""

import asyncio
from typing import Callable, Final

from raftkv.client.connection import Call

NEVER: Final = float("inf")
TICK_S_MIN: Final = 0.001


class Ticker:
    """Calls `sweep(now)`, which returns the earliest deadline that it left (NEVER: none), until `stop`.

    A wake-up that is late by more than a tick says that this loop stood still and has listened to nobody: then `on_stall` is
    called instead, and the sweep that judges comes a tick later.
    """

    __slots__ = ("_loop", "_on_stall", "_stopped", "_sweep", "_tick_s", "_timer", "at")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tick_s: float,
        sweep: Callable[[float], float],
        on_stall: Callable[[], None],
    ) -> None:
        self.at = NEVER
        """When it wakes next."""
        self._loop = loop
        self._tick_s = tick_s
        self._sweep = sweep
        self._on_stall = on_stall
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def arm(self, now: float, deadline: float) -> None:
        """Wake at this deadline at the latest."""
        if deadline >= self.at or self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.at = min(deadline, now + self._tick_s)
        self._timer = self._loop.call_at(self.at, self._tick)

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        now = self._loop.time()
        stood_still = now > self.at + self._tick_s
        self.at = NEVER
        self._timer = None
        if stood_still:
            self.arm(now, now + self._tick_s)
            self._on_stall()
            return
        earliest = now  # should the sweep break, there is a next one
        try:
            earliest = self._sweep(now)
        finally:
            if earliest < NEVER:
                self.arm(now, max(earliest, now + TICK_S_MIN))


def split_late(calls: list[Call], now: float) -> tuple[list[Call], list[Call], float]:
    """Those that go on, those whose deadline passed, and the earliest deadline of the former."""
    if not calls:
        return calls, [], NEVER
    kept = [call for call in calls if call.deadline > now and not call.future.done()]
    late = [call for call in calls if call.deadline <= now or call.future.done()]
    return kept, late, min((call.deadline for call in kept), default=NEVER)
