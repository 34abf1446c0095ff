"""Automatic compaction of history: by age and by number of revisions, decided by the leader, done by a command in the log.

Time is the replicated time of the log, which stands still without a leader, so history is never cut for an outage that nobody
could use it in. Every member notes which revision was reached when, so that a new leader knows the past that it has seen; after a restart
the age of what is there counts from then. SANS-IO.
"""

from collections import deque
from typing import Final

from raftkv.units import Milliseconds, Revision

SAMPLES_PER_AGE: Final = 32
SAMPLE_INTERVAL_MS_MIN: Final = 1_000
SLACK: Final = 10  # a tenth more than the number is kept, so that not every look ends in a command


class AutoCompaction:
    """Which revision to compact at, if any."""

    __slots__ = ("_age_ms_max", "_interval_ms", "_revisions_max", "_samples")

    def __init__(self, *, age_ms_max: Milliseconds, revisions_max: int) -> None:
        assert age_ms_max > 0 and revisions_max > 0, "history is kept for some time"
        self._age_ms_max = age_ms_max
        self._revisions_max = revisions_max
        self._interval_ms = max(SAMPLE_INTERVAL_MS_MIN, age_ms_max // SAMPLES_PER_AGE)
        self._samples: deque[tuple[Milliseconds, Revision]] = deque(maxlen=SAMPLES_PER_AGE + 2)

    def look(self, clock_ms: Milliseconds, revision: Revision) -> None:
        """Note which revision is reached at this replicated time, now and then."""
        samples = self._samples
        if not samples or clock_ms - samples[-1][0] >= self._interval_ms:
            samples.append((clock_ms, revision))

    def wanted(self, clock_ms: Milliseconds, revision: Revision, compact_revision: Revision) -> Revision:
        """The revision to compact at; 0 for none."""
        target = 0
        if revision - max(compact_revision, 1) > self._revisions_max + self._revisions_max // SLACK:
            target = revision - self._revisions_max
        for sampled_ms, reached in self._samples:
            if sampled_ms > clock_ms - self._age_ms_max:
                break
            target = max(target, reached)
        assert target <= revision, "only what was reached is compacted"
        return target if target > max(compact_revision, 1) else 0
