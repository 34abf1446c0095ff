"""What a user may read and write: the union of the ranges of its roles, asked with a bisection.

A range is permitted when the union covers all of it, so two grants that adjoin permit what spans them. An empty range, or one that ends
before it begins, holds no key and is permitted to nobody but root: whoever asks for it has made a mistake, or tries something.
"""

from bisect import bisect_right
from typing import Final, Iterable

from raftkv.wire.users import READ, READWRITE, WRITE

_OPEN_END: Final = b"\0"
Permission = tuple[int, bytes, bytes]
"""Kind, key, range_end."""


class Coverage:
    """A union of ranges: disjoint, sorted, none adjoining the next. The end None is that of the key space."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[tuple[bytes, bytes]]) -> None:
        starts: list[bytes] = []
        ends: list[bytes | None] = []
        for start, end in sorted(((key, _end(key, range_end)) for key, range_end in ranges), key=lambda pair: pair[0]):
            if end is not None and end <= start:
                continue
            if starts and ((last := ends[-1]) is None or start <= last):
                ends[-1] = None if last is None or end is None else max(last, end)
            else:
                starts.append(start)
                ends.append(end)
        self._starts = starts
        self._ends = ends

    def covers_key(self, key: bytes) -> bool:
        position = bisect_right(self._starts, key) - 1
        if position < 0:
            return False
        end = self._ends[position]
        return end is None or key < end

    def covers(self, key: bytes, range_end: bytes) -> bool:
        """Whether every key of [key, range_end) is in it; range_end as in requests: empty means the key alone."""
        if not range_end:
            return self.covers_key(key)
        position = bisect_right(self._starts, key) - 1
        if position < 0:
            return False
        end, wanted = self._ends[position], _end(key, range_end)
        if wanted is None:
            return end is None
        return key < wanted and (end is None or wanted <= end)

    def covers_all(self, keys: Iterable[bytes]) -> bool:
        """Whether every one of these keys is in it."""
        if len(self._starts) == 1 and self._ends[0] is None and self._starts[0] <= _OPEN_END:
            return True
        return all(map(self.covers_key, keys))


class Grants:
    """What one user may do."""

    __slots__ = ("is_root", "read", "roles", "user", "write")

    def __init__(self, user: str, roles: Iterable[str], permissions: Iterable[Permission], *, is_root: bool) -> None:
        kept = list(permissions)
        self.user = user
        self.roles = frozenset(roles)
        self.is_root = is_root
        self.read = Coverage((key, end) for kind, key, end in kept if kind in (READ, READWRITE))
        self.write = Coverage((key, end) for kind, key, end in kept if kind in (WRITE, READWRITE))


def is_valid_range(key: bytes, range_end: bytes) -> bool:
    """Whether a permission for it permits anything."""
    return bool(key) and (not range_end or range_end == _OPEN_END or key < range_end)


def _end(key: bytes, range_end: bytes) -> bytes | None:
    if not range_end:
        return key + b"\0"
    return None if range_end == _OPEN_END else range_end


__all__ = ["Coverage", "Grants", "Permission", "is_valid_range"]
