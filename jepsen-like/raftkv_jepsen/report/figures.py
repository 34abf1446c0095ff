"""Figures of a history: rates, latencies, and how long nobody was served, as a whole and under each fault."""

from bisect import bisect_left, bisect_right
from functools import cached_property
from itertools import pairwise
from typing import Final, NamedTuple, Sequence

from raftkv_jepsen.history import FAIL, INFO, NEVER_NS, OK, Fault, Operation
from raftkv_jepsen.recorder import SEEN, WRITES_NOTHING

NS_PER_S: Final = 1_000_000_000
WAITS: Final = frozenset({"acquire", "campaign", "claim", "enter", "leave", "wait", "gather"})
"""What waits for others takes as long as they do: that is no latency of the cluster."""
AFTERMATH_NS: Final = 1 * NS_PER_S
"""A fault's effect is looked for from its beginning to so long after its healing."""


class UnderFault(NamedTuple):
    """What clients felt of one kind of fault."""

    name: str
    times: int
    gap_s: float
    """The longest time without an acknowledged write; the worst of all times it was injected."""
    median_ms: float
    p99_ms: float
    failed: int
    unknown: int


def quantile(values: Sequence[float], share: float) -> float:
    """0 for no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Figures:
    """Computed when asked for."""

    def __init__(self, operations: Sequence[Operation], faults: Sequence[Fault], ended_ns: int) -> None:
        self.operations = [o for o in operations if o.function not in SEEN]
        self.faults = faults
        self.ended_ns = ended_ns

    @property
    def count(self) -> int:
        return len(self.operations)

    def _of(self, outcome: str) -> int:
        return sum(o.outcome == outcome for o in self.operations)

    @property
    def ok(self) -> int:
        return self._of(OK)

    @property
    def failed(self) -> int:
        return self._of(FAIL)

    @property
    def unknown(self) -> int:
        return self._of(INFO)

    @cached_property
    def _written_ns(self) -> list[int]:
        return sorted(o.completed_ns for o in self.operations if o.outcome == OK and o.function not in WRITES_NOTHING)

    def gap_s(self, from_ns: int, until_ns: int) -> float:
        """The longest time without an acknowledged write that touches this window, beginning at the last write before it."""
        written = self._written_ns
        first = max(0, bisect_left(written, from_ns) - 1)
        last = bisect_right(written, until_ns) + 1
        marks = written[first:last]
        if len(marks) < 2:
            return (until_ns - from_ns) / NS_PER_S
        return max(later - earlier for earlier, later in pairwise(marks)) / NS_PER_S

    @property
    def longest_gap_s(self) -> float:
        written = self._written_ns
        if not written:
            return self.ended_ns / NS_PER_S
        return self.gap_s(written[0], max(self.ended_ns, written[0]))

    def latencies_ms(self, from_ns: int = 0, until_ns: int = NEVER_NS) -> list[float]:
        """Of those that were answered, by when they began."""
        return [
            (o.completed_ns - o.invoked_ns) / 1e6
            for o in self.operations
            if o.outcome == OK and from_ns <= o.invoked_ns <= until_ns and o.function not in WAITS
        ]

    def window(self, fault: Fault) -> tuple[int, int]:
        """From its injection to a moment after its healing."""
        return fault.began_ns, min(fault.ended_ns, self.ended_ns) + AFTERMATH_NS

    def under_faults(self) -> list[UnderFault]:
        """By kind, in the order of their first injection. Faults that overlap share what was felt."""
        rows = []
        for name in dict.fromkeys(fault.name for fault in self.faults):
            windows = [self.window(fault) for fault in self.faults if fault.name == name]
            # Who was served quickly asks again sooner: the moment after the healing would outweigh the fault.
            inside = [o for o in self.operations if any(a <= o.invoked_ns <= b - AFTERMATH_NS for a, b in windows)]
            latencies = [
                (o.completed_ns - o.invoked_ns) / 1e6 for o in inside if o.outcome == OK and o.function not in WAITS
            ]
            rows.append(
                UnderFault(
                    name,
                    len(windows),
                    max(self.gap_s(a, b) for a, b in windows),
                    quantile(latencies, 0.5),
                    quantile(latencies, 0.99),
                    sum(o.outcome == FAIL for o in inside),
                    sum(o.outcome == INFO for o in inside),
                )
            )
        return rows
