"""The only place that polls: every wait has a deadline and says what it was waiting for.

A test that sleeps is either slow or flaky. `wait_until` returns as soon as the condition holds, and when it never does the
failure names the condition and the last thing that was seen.
"""

import time
from typing import Callable, TypeVar

T = TypeVar("T")

DEADLINE_S = 20.0
POLL_INTERVAL_S = 0.02


class DeadlinePassed(AssertionError):
    """A condition did not come true in time."""


def wait_until(
    condition: Callable[[], T | None],
    what: str,
    *,
    deadline_s: float = DEADLINE_S,
    seen: Callable[[], object] | None = None,
    interval_s: float = POLL_INTERVAL_S,
) -> T:
    """The first true value of `condition`. Raises DeadlinePassed after `deadline_s`, with what `seen` shows by then."""
    ends_s = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= ends_s:
            last = f"; last seen: {seen()!r}" if seen is not None else ""
            raise DeadlinePassed(f"waited {deadline_s:g} s for {what}{last}")
        time.sleep(interval_s)


def holds_for(condition: Callable[[], bool], what: str, *, seconds: float) -> None:
    """Checks that `condition` stays true for `seconds`: for promises that something does not happen."""
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        assert condition(), f"{what} did not hold for {seconds:g} s"
        time.sleep(POLL_INTERVAL_S)
