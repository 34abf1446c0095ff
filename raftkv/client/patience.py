"""A deadline for what others have to say, which leaves out the time in which this process has listened to nobody."""

import asyncio
from types import TracebackType
from typing import Final, Self

STEPS: Final = 4
STANDSTILL_S: Final = 0.05
"""A timer that is later than this, and than a step, was held up by its own loop."""


class Patience:
    """`async with Patience(seconds):` raises TimeoutError after so many seconds, as asyncio.timeout does, in which the loop ran.

    A loop stands still when its process is stopped, or when something computes in it. The time is taken in a few steps, and one
    whose end comes late is taken again: whoever has answered meanwhile is heard before he is given up.
    """

    __slots__ = ("_ends_at", "_loop", "_seconds", "_step_s", "_steps_left", "_timeout", "_timer")

    def __init__(self, seconds: float) -> None:
        assert seconds > 0, "patience for some time"
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self.restart(self._seconds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        await self._timeout.__aexit__(kind, error, trace)

    def restart(self, seconds: float) -> None:
        """So much time from now on instead."""
        self._stop()
        self._steps_left, self._step_s = STEPS, seconds / STEPS
        self._begin_step()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _begin_step(self) -> None:
        self._ends_at = self._loop.time() + self._step_s
        self._timer = self._loop.call_at(self._ends_at, self._end_step)

    def _end_step(self) -> None:
        now = self._loop.time()
        if now <= self._ends_at + max(self._step_s, STANDSTILL_S):
            self._steps_left -= 1
        if self._steps_left:
            self._begin_step()
        else:
            self._timeout.reschedule(now)
