"""TXN: compares, checks and execution exactly as etcd's (its server/etcdserver/txn/txn.go), nested ones included.

Three passes, so that an error means no change at all. First every compare, of nested transactions too, is evaluated on the
state before the whole transaction: that fixes the branches, the plan. Then what the plan will do is checked: all puts, then
all ranges. Then it is executed, at one revision, each operation seeing the ones before it.
"""

import operator
from dataclasses import dataclass
from typing import Any, Callable, Final, Sequence

from raftkv.errors import KeyNotFound
from raftkv.store import operations
from raftkv.store.mvcc import Mvcc
from raftkv.store.ranges import check_revision, compacted, range_bound, read_range
from raftkv.store.records import unpack_header, value_of
from raftkv.wire.commands import (
    COMPARE_CREATE,
    COMPARE_LEASE,
    COMPARE_MOD,
    COMPARE_VALUE,
    COMPARE_VERSION,
    DELETE_RANGE,
    EQUAL,
    GREATER,
    IGNORE_LEASE,
    IGNORE_VALUE,
    LESS,
    NOT_EQUAL,
    OK,
    PUT,
    RANGE,
    TXN,
    Answer,
    Command,
)

_RESULTS: Final[dict[int, Callable[[Any, Any], bool]]] = {
    EQUAL: operator.eq,
    GREATER: operator.gt,
    LESS: operator.lt,
    NOT_EQUAL: operator.ne,
}
_HEADER_FIELD: Final = {COMPARE_MOD: 0, COMPARE_CREATE: 3, COMPARE_VERSION: 4, COMPARE_LEASE: 5}


@dataclass(slots=True)
class Plan:
    """The branch that a transaction takes; a nested transaction among its operations comes with a plan of its own."""

    succeeded: bool
    steps: "list[tuple[Command, Plan | None]]"


def apply_txn(mvcc: Mvcc, command: Command, reply_bytes_max: int) -> Answer:
    """Do a validated TXN. Raises KeyNotFound, LeaseNotFound, FutureRevision or Compacted; then nothing has changed."""
    assert not mvcc.sub, "a transaction starts a revision of its own"
    plan = _plan(mvcc, command)
    _check_puts(mvcc, plan, [])
    _check_ranges(mvcc, plan)
    mvcc.tally.txns += 1
    responses = _execute(mvcc, plan, reply_bytes_max)
    return [OK, mvcc.finish(), plan.succeeded, responses]


def read_txn(mvcc: Mvcc, command: Sequence[Any], reply_bytes_max: int) -> Answer:
    """Answer a validated READ_TXN, between two entries of the log. Raises FutureRevision or Compacted."""
    plan = _plan(mvcc, command)
    _check_ranges(mvcc, plan)
    mvcc.tally.txns += 1
    return [OK, mvcc.revision, plan.succeeded, _execute(mvcc, plan, reply_bytes_max)]


def _plan(mvcc: Mvcc, command: Sequence[Any]) -> Plan:
    _, _, compares, success, failure = command
    succeeded = all(_holds(mvcc, compare) for compare in compares)
    branch = success if succeeded else failure
    return Plan(
        succeeded, [(operation, _plan(mvcc, operation) if operation[0] == TXN else None) for operation in branch]
    )


def _holds(mvcc: Mvcc, compare: Sequence[Any]) -> bool:
    """With a range_end every key of the range must satisfy it; no key at all counts as one of zeros without a value."""
    result, target, key, operand, range_end = compare
    if range_end:
        records = operations.scan_all(mvcc, key, range_end)
    else:
        record = mvcc.get(key)
        records = [] if record is None else [record]
    compared = _RESULTS[result]
    if target == COMPARE_VALUE:
        wanted = operand or b""
        return bool(records) and all(compared(value_of(record), wanted) for record in records)
    number = operand or 0
    if not records:
        return compared(0, number)
    field = _HEADER_FIELD[target]
    return all(compared(unpack_header(record)[field], number) for record in records)


def _check_puts(mvcc: Mvcc, plan: Plan, deleted: list[tuple[bytes, bytes | None]]) -> None:
    for operation, nested in plan.steps:
        if nested is not None:
            _check_puts(mvcc, nested, deleted)
        elif operation[0] == DELETE_RANGE:
            deleted.append((operation[2], range_bound(operation[2], operation[3])))
        elif operation[0] == PUT:
            _, _, key, _, lease, flags = operation
            if flags & (IGNORE_VALUE | IGNORE_LEASE):
                # An open-ended delete slips through the duplicate-key rule: etcd panics on a key that it has just deleted.
                gone = any(start <= key and (end is None or key < end) for start, end in deleted)
                if gone or mvcc.get(key) is None:
                    raise KeyNotFound("ignore_value and ignore_lease need a key that exists")
            mvcc.leases.check(lease, key)


def _check_ranges(mvcc: Mvcc, plan: Plan) -> None:
    for operation, nested in plan.steps:
        if nested is not None:
            _check_ranges(mvcc, nested)
        elif operation[0] == RANGE:
            revision = operation[5]
            if revision > 0:
                check_revision(mvcc, revision)
            elif revision < 0 and revision < mvcc.compact_revision:
                raise compacted(revision, mvcc.compact_revision)


def _execute(mvcc: Mvcc, plan: Plan, reply_bytes_max: int) -> list[list[Any]]:
    """The responses: the operation's code, then its answer without the status."""
    responses: list[list[Any]] = []
    for operation, nested in plan.steps:
        kind = operation[0]
        if nested is not None:
            inner = _execute(mvcc, nested, reply_bytes_max)
            responses.append([TXN, mvcc.revision_in_progress(), nested.succeeded, inner])
        elif kind == PUT:
            previous = operations.put(mvcc, operation)
            responses.append([PUT, mvcc.revision_in_progress(), previous])
        elif kind == DELETE_RANGE:
            count, previous_all = operations.delete_range(mvcc, operation)
            responses.append([DELETE_RANGE, mvcc.revision_in_progress(), count, previous_all])
        else:
            assert kind == RANGE, "validated"
            responses.append([RANGE, *read_range(mvcc, operation, reply_bytes_max, live=True)[1:]])
    return responses
