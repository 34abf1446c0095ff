"""How long things took: counts per bucket, with the bounds that etcd has where it measures the same."""

import time
from bisect import bisect_left
from typing import Any, Callable, Final, TypeVar

DISK_BUCKETS: Final = tuple(0.001 * 2**power for power in range(14))  # etcd's: 1 ms to 8.2 s
ROUND_TRIP_BUCKETS: Final = tuple(0.0001 * 2**power for power in range(16))  # etcd's: 0.1 ms to 3.3 s
COPY_BUCKETS: Final = tuple(0.01 * 2**power for power in range(17))  # etcd's: 10 ms to 11 min
DEFRAGMENT_BUCKETS: Final = tuple(0.1 * 2**power for power in range(13))  # etcd's: 0.1 s to 7 min
SLOW_APPLY_SECONDS: Final = 0.1  # etcd's
APPLY_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, SLOW_APPLY_SECONDS, 0.25, 0.5, 1.0, 2.5)

_Result = TypeVar("_Result")


class Histogram:
    """Counts per bucket. `observe` may be called from one thread at a time, whichever."""

    __slots__ = ("bounds", "counts", "total_seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        assert tuple(sorted(bounds)) == bounds, "bounds ascend"
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_seconds += seconds

    def call(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """What the function returns; how long it took is observed."""
        started = time.perf_counter()
        result = function(*arguments)
        self.observe(time.perf_counter() - started)
        return result

    def count_above(self, bound: float) -> int:
        """How many took longer than one of the bounds."""
        return sum(self.counts[self.bounds.index(bound) + 1 :])

    def cumulative(self) -> list[tuple[str, float]]:
        """Buckets as Prometheus wants them: everything up to each bound."""
        rows: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            rows.append((bound, running))
        return rows


class Timings:
    """Of the store."""

    __slots__ = ("apply", "commit", "copy", "defragment")

    def __init__(self) -> None:
        self.apply = Histogram(APPLY_BUCKETS)  # of one entry
        self.commit = Histogram(DISK_BUCKETS)
        self.copy = Histogram(COPY_BUCKETS)
        self.defragment = Histogram(DEFRAGMENT_BUCKETS)
