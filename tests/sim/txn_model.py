"""What a transaction does, said once more and as plainly as possible: on a dictionary, without history, layers or sessions.

The judge of transactions (transactions.py) asks it what an answer should have been at a revision; it shares no code with store/transactions.py.
"""

import operator
from typing import Any, Final, Sequence

from raftkv.wire.commands import (
    COMPARE_CREATE,
    COMPARE_LEASE,
    COMPARE_MOD,
    COMPARE_VALUE,
    COMPARE_VERSION,
    DELETE_RANGE,
    EQUAL,
    GREATER,
    LESS,
    NOT_EQUAL,
    PREV_KV,
    PUT,
    RANGE,
    TXN,
)

from .ledger import Items

COMPARISONS: Final = {EQUAL: operator.eq, GREATER: operator.gt, LESS: operator.lt, NOT_EQUAL: operator.ne}
FIELDS: Final = {COMPARE_CREATE: 1, COMPARE_MOD: 2, COMPARE_VERSION: 3, COMPARE_LEASE: 4}

Change = tuple[bytes, Items | None]


class TxnModel:
    """The keys at one revision, and one transaction upon them."""

    def __init__(self, keys: Sequence[Items], revision: int) -> None:
        self._before = {items[0]: items for items in keys}
        self._keys = dict(self._before)
        self._revision = revision
        self.changes: list[Change] = []
        """In order: a key and what it becomes, None when it is deleted."""

    def run(self, command: Sequence[Any]) -> list[Any]:
        """The answer's [succeeded, responses]."""
        _, _, compares, success, failure = command
        succeeded = all(self._holds(compare) for compare in compares)
        return [succeeded, [self._do(operation) for operation in (success if succeeded else failure)]]

    def _holds(self, compare: Sequence[Any]) -> bool:
        """On the keys as they were before the whole transaction, nested or not."""
        result, target, key, operand, range_end = compare
        found = self._select(self._before, key, range_end)
        compared = COMPARISONS[result]
        if target == COMPARE_VALUE:
            return bool(found) and all(compared(items[5], operand) for items in found)
        if not found:
            return bool(compared(0, operand))
        return all(compared(items[FIELDS[target]], operand) for items in found)

    @staticmethod
    def _select(keys: dict[bytes, Items], key: bytes, range_end: bytes) -> list[Items]:
        if not range_end:
            return [keys[key]] if key in keys else []
        return [keys[name] for name in sorted(keys) if key <= name and (range_end == b"\0" or name < range_end)]

    @property
    def revision(self) -> int:
        """That of the answer at this point."""
        return self._revision + bool(self.changes)

    def _do(self, operation: Sequence[Any]) -> list[Any]:
        kind = operation[0]
        if kind == TXN:
            inner = self.run(operation)
            return [TXN, self.revision, *inner]
        if kind == RANGE:
            found = self._select(self._keys, operation[2], operation[3])
            return [RANGE, self.revision, found, False, len(found)]
        if kind == DELETE_RANGE:
            doomed = self._select(self._keys, operation[2], operation[3])
            for items in doomed:
                del self._keys[items[0]]
                self.changes.append((items[0], None))
            return [DELETE_RANGE, self.revision, len(doomed), doomed if operation[4] & PREV_KV else []]
        assert kind == PUT, kind
        _, _, key, value, lease, flags = operation
        old, at = self._keys.get(key), self._revision + 1
        self._keys[key] = [key, at if old is None else old[1], at, 1 if old is None else old[3] + 1, lease, value]
        self.changes.append((key, self._keys[key]))
        return [PUT, self.revision, old if flags & PREV_KV else None]
