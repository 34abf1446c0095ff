"""One machine's monotonic clock: it drifts, and it may leap forward, but like CLOCK_MONOTONIC it never goes back."""


class Clock:
    """Local time as a line through virtual time: `rate` local microseconds pass per virtual one."""

    __slots__ = ("_local_us", "_since_us", "rate")

    def __init__(self, local_us: int, rate: float) -> None:
        assert rate > 0, "time passes"
        self.rate = rate
        self._local_us = float(local_us)
        self._since_us = 0

    def now_ms(self, now_us: int) -> int:
        """What the machine takes the time for, in ms."""
        return int(self._local_us + (now_us - self._since_us) * self.rate) // 1000

    def virtual_us(self, local_us: int) -> int:
        """How long `local_us` of this clock last."""
        return int(local_us / self.rate)

    def set_rate(self, now_us: int, rate: float) -> None:
        assert rate > 0, "time passes"
        self._local_us += (now_us - self._since_us) * self.rate
        self._since_us = now_us
        self.rate = rate

    def leap(self, leap_us: int) -> None:
        assert leap_us >= 0, "a monotonic clock never goes back"
        self._local_us += leap_us
