"""PUT and DELETE_RANGE on the versioned map: what the plain command and the operation of a transaction have in common.

Commands that arrive here have passed wire/validate.py. Everything that can be refused is refused before the first change,
so an error always means that nothing happened.
"""

from typing import Any, Final, Sequence

from raftkv.errors import KeyNotFound
from raftkv.store.mvcc import Mvcc
from raftkv.store.ranges import range_bound
from raftkv.store.records import key_of, key_value, lease_of, value_of
from raftkv.wire.commands import IGNORE_LEASE, IGNORE_VALUE, PREV_KV

_DELETE_ITEMS_PER_STEP: Final = 2048


def put(mvcc: Mvcc, command: Sequence[Any]) -> list[Any] | None:
    """One PUT; returns the previous key-value if it was asked for. Raises KeyNotFound."""
    _, _, key, value, lease, flags = command
    old = mvcc.get(key)
    if flags & (IGNORE_VALUE | IGNORE_LEASE):
        if old is None:
            raise KeyNotFound("ignore_value and ignore_lease need a key that exists")
        if flags & IGNORE_VALUE:
            value = value_of(old)
        if flags & IGNORE_LEASE:
            lease = lease_of(old)
    mvcc.put_over(old, key, value, lease)
    return key_value(old) if flags & PREV_KV and old is not None else None


def delete_range(mvcc: Mvcc, command: Sequence[Any]) -> tuple[int, list[list[Any]]]:
    """One DELETE_RANGE; returns the count, and the previous key-values in key order if they were asked for."""
    _, _, key, range_end, flags = command
    if not range_end:
        record = mvcc.get(key)
        doomed = [] if record is None else [record]
    else:
        doomed = scan_all(mvcc, key, range_end)
    for record in doomed:
        mvcc.delete(record, key_of(record))
    return len(doomed), [key_value(record) for record in doomed] if flags & PREV_KV else []


def scan_all(mvcc: Mvcc, key: bytes, range_end: bytes) -> list[bytes]:
    """All records of a range as they are now: an atomic command cannot be done in slices."""
    found: list[bytes] = []
    start: bytes | None = key
    end = range_bound(key, range_end)
    while start is not None:
        records, start = mvcc.scan(start, end, None, _DELETE_ITEMS_PER_STEP)
        found += records
    return found
