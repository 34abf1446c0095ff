"""The platform: training jobs that have to merge, what their merges need, and what goes wrong. Time is counted in its own hours.

Every job merges about every ten hours. A merge takes some machines and memory for about an hour; now and then one hangs for ever, or its
worker dies in the middle. All chance comes from one seed, so both ways of merging face the same day.
"""

import random
from dataclasses import dataclass

JOBS = 200
MACHINES = 18
MEMORY_GB = 1_800
MERGE_EVERY_HOURS = 10.0
MERGE_HOURS = 0.45
HANG_SHARE = 0.02
CRASH_SHARE = 0.02
URGENT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Merge:
    """One merge of one job. `hours` None: it hangs."""

    job: int
    number: int
    due_hour: float
    machines: int
    memory_gb: int
    hours: float | None
    crashes: bool
    urgent: bool

    @property
    def id(self) -> str:
        return f"job-{self.job:03}/{self.number}"


def plan(seed: int, job: int, hours: float) -> list[Merge]:
    """The merges that fall due for a job within so many hours."""
    chance = random.Random(seed * 1_000 + job)
    due_hour = chance.uniform(0, MERGE_EVERY_HOURS)
    merges: list[Merge] = []
    while due_hour < hours:
        fate = chance.random()
        merges.append(
            Merge(
                job,
                len(merges),
                due_hour,
                machines=chance.choice((1, 1, 1, 2, 2, 3)),
                memory_gb=chance.choice((40, 60, 80, 120, 200)),
                hours=None if fate < HANG_SHARE else chance.uniform(0.5, 1.5) * MERGE_HOURS,
                crashes=HANG_SHARE <= fate < HANG_SHARE + CRASH_SHARE,
                urgent=chance.random() < URGENT_SHARE,
            )
        )
        due_hour += chance.uniform(0.9, 1.1) * MERGE_EVERY_HOURS
    return merges
