"""Which keys a transaction writes, and that it writes none twice: etcd's rule, which depends on the order of its operations as etcd's does.

Nested transactions count with both of their branches, which exclude each other.
"""

from bisect import bisect_right
from typing import Any, Sequence

from raftkv.errors import DuplicateKey
from raftkv.wire.commands import DELETE_RANGE, PUT, TXN


class Intervals:
    """The union of half-open key intervals, disjoint and sorted: a thousand deletes cost a bisection per put."""

    __slots__ = ("ends", "starts")

    def __init__(self) -> None:
        self.starts: list[bytes] = []
        self.ends: list[bytes] = []

    def add(self, start: bytes, end: bytes) -> None:
        """An interval that ends before it starts, also one up to b"\\0", counts as empty (etcd does so too)."""
        if start >= end:
            return
        low = bisect_right(self.starts, start)
        if low and self.ends[low - 1] >= start:
            low -= 1
            start = self.starts[low]
        high = bisect_right(self.starts, end)
        if high > low:
            end = max(end, self.ends[high - 1])
        self.starts[low:high] = [start]
        self.ends[low:high] = [end]

    def update(self, other: "Intervals") -> None:
        for start, end in zip(other.starts, other.ends, strict=True):
            self.add(start, end)

    def __contains__(self, key: bytes) -> bool:
        position = bisect_right(self.starts, key) - 1
        return position >= 0 and key < self.ends[position]


def check_intervals(operations: Sequence[Any]) -> tuple[set[bytes], Intervals]:
    """The keys put and deleted by one branch, nested ones included. Raises DuplicateKey; order-dependent as etcd's."""
    deletes = Intervals()
    puts: set[bytes] = set()
    for operation in operations:
        if operation[0] == DELETE_RANGE:
            key, range_end = operation[2], operation[3]
            deletes.add(key, range_end or key + b"\0")
    for operation in operations:
        if operation[0] == TXN:
            puts_then, deletes_then = check_intervals(operation[3])
            puts_else, deletes_else = check_intervals(operation[4])
            # Then and else exclude each other, so they may share keys; neither may with what came before.
            for key in puts_then | puts_else:
                if key in puts or key in deletes:
                    raise DuplicateKey()
            puts |= puts_then | puts_else
            deletes.update(deletes_then)
            deletes.update(deletes_else)
    for operation in operations:
        if operation[0] == PUT:
            key = operation[2]
            if key in puts or key in deletes:
                raise DuplicateKey()
            puts.add(key)
    return puts, deletes
