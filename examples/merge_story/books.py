"""The books of one run: who waited, who worked, what was used for nothing; sampled while it goes on."""

import time
from dataclasses import dataclass, field
from statistics import mean, quantiles

from merge_story.platform import MACHINES, Merge


class Clock:
    """The platform's time: `second_per_hour` real seconds are one of its hours."""

    def __init__(self, second_per_hour: float) -> None:
        self.second_per_hour = second_per_hour
        self._began = time.monotonic()

    @property
    def hour(self) -> float:
        return (time.monotonic() - self._began) / self.second_per_hour

    def seconds(self, hours: float) -> float:
        return hours * self.second_per_hour

    def seconds_until(self, hour: float) -> float:
        return max(0.0, (hour - self.hour) * self.second_per_hour)


@dataclass(slots=True)
class Sample:
    """The state of the platform at an hour."""

    hour: float
    waiting: int
    useful: int
    held: int


@dataclass
class Books:
    """Of one way of merging."""

    name: str
    clock: Clock
    samples: list[Sample] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    begun_hours: list[float] = field(default_factory=list)  # when each of them began
    waiting: set[str] = field(default_factory=set)
    held: dict[str, int] = field(default_factory=dict)
    useful: dict[str, int] = field(default_factory=dict)
    done: int = 0
    hung: int = 0
    stopped: int = 0
    crashed: int = 0
    gave_up: int = 0
    refused_late: int = 0
    moves: int = 0

    def falls_due(self, merge: Merge) -> None:
        self.waiting.add(merge.id)

    def holds(self, merge: Merge, machines: int) -> None:
        """It has so many machines by now, perhaps not all that it needs."""
        self.moves += 1
        self.held[merge.id] = machines

    def begins(self, merge: Merge) -> None:
        self.moves += 1
        self.waiting.discard(merge.id)
        self.delays.append(self.clock.hour - merge.due_hour)
        self.begun_hours.append(self.clock.hour)
        self.held[merge.id] = merge.machines
        if merge.hours is not None and not merge.crashes:
            self.useful[merge.id] = merge.machines

    def ends(self, merge: Merge) -> None:
        self.moves += 1
        for book in (self.held, self.useful):
            book.pop(merge.id, None)
        self.waiting.discard(merge.id)

    def sample(self) -> Sample:
        taken = Sample(self.clock.hour, len(self.waiting), sum(self.useful.values()), sum(self.held.values()))
        self.samples.append(taken)
        return taken

    @property
    def utilisation(self) -> float:
        """How much of all machines did work that counted."""
        return mean(sample.useful for sample in self.samples) / MACHINES if self.samples else 0.0

    def delay(self, percent: int) -> float:
        """Hours between falling due and beginning; of those that began."""
        if len(self.delays) < 2:
            return float("nan")
        return quantiles(self.delays, n=100)[percent - 1]
