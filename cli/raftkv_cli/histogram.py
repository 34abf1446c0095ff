"""Latencies in a few kilobytes, whatever their number: buckets whose width grows with the value.

After G. Tene's HdrHistogram: every power of two is cut into 64 equal buckets, so a recorded value is off by at most 1/64, from
a microsecond to hours. Histograms of several processes add up.
"""

from typing import Mapping

SUB_BUCKET_BITS = 6
SUB_BUCKETS = 1 << SUB_BUCKET_BITS
PERCENTILES = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9))


class Histogram:
    """Counts of durations in microseconds."""

    __slots__ = ("counts", "max_us", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = 0
        self.max_us = 0

    def record(self, duration_us: int) -> None:
        """Count one duration; a negative one (a clock that is not monotonic) is a bug."""
        assert duration_us >= 0, "durations come from a monotonic clock"
        bucket = bucket_of(duration_us)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.total += 1
        if duration_us > self.max_us:
            self.max_us = duration_us

    def merge(self, other: "Histogram") -> None:
        """Add another one's counts."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total
        self.max_us = max(self.max_us, other.max_us)

    def percentile_us(self, percent: float) -> int:
        """The smallest recorded duration that `percent` of all do not exceed, rounded up to its bucket's end; 0 when empty."""
        assert 0 < percent <= 100
        wanted = max(1, -(-self.total * percent // 100))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return min(bucket_end_us(bucket), self.max_us)
        return self.max_us

    def summary_us(self) -> dict[str, int]:
        """The percentiles that are reported, and the maximum."""
        return {**{name: self.percentile_us(percent) for name, percent in PERCENTILES}, "max": self.max_us}

    def as_data(self) -> dict[str, object]:
        """Plain data for another process."""
        return {"counts": {str(bucket): count for bucket, count in self.counts.items()}, "max_us": self.max_us}

    @classmethod
    def from_data(cls, data: Mapping[str, object]) -> "Histogram":
        histogram = cls()
        counts, max_us = data["counts"], data["max_us"]
        assert isinstance(counts, dict)
        assert isinstance(max_us, int)
        histogram.counts = {int(bucket): int(count) for bucket, count in counts.items()}
        histogram.total = sum(histogram.counts.values())
        histogram.max_us = max_us
        return histogram


def bucket_of(duration_us: int) -> int:
    """Values below 64 have a bucket each; above, the six bits behind the leading one decide."""
    shift = duration_us.bit_length() - SUB_BUCKET_BITS - 1
    if shift <= 0:
        return duration_us
    return (shift << SUB_BUCKET_BITS) + (duration_us >> shift)


def bucket_end_us(bucket: int) -> int:
    """The largest value of a bucket."""
    if bucket < 2 * SUB_BUCKETS:
        return bucket
    shift = (bucket >> SUB_BUCKET_BITS) - 1
    return ((bucket - (shift << SUB_BUCKET_BITS) + 1) << shift) - 1
