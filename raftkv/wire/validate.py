"""What can be refused about a command without looking at any state: shape, sizes, flags, operation count, duplicate keys.

Pure, so that three places share it: a client refuses before it sends, a front door before it proposes, and apply, which
must survive whatever is in the log, decides by the very same rules. The order of checks and the duplicate-key rule are
etcd's (checkTxnRequest and checkIntervals in its server/etcdserver/api/v3rpc/key.go).
"""

from typing import Any, Callable, Final, Sequence

from raftkv.errors import (
    InvalidRequest,
    KeyEmpty,
    KeyNotFound,
    KeyTooLarge,
    LeaseProvided,
    LeaseTtlTooLarge,
    RequestTooLarge,
    TooManyOperations,
    ValueProvided,
    ValueTooLarge,
)
from raftkv.limits import Limits
from raftkv.wire.alarms import ALARM_CHECKS
from raftkv.wire.commands import (
    APPEND,
    COMPACT,
    COMPARE_LEASE,
    COMPARE_VALUE,
    COUNT_ONLY,
    DELETE_RANGE,
    GET,
    GUARDED,
    IGNORE_LEASE,
    IGNORE_VALUE,
    INCREMENT,
    KEYS_ONLY,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASE_TTL,
    LEASES,
    NOT_EQUAL,
    PREV_KV,
    PUT,
    RANGE,
    READ_TXN,
    SERIALIZABLE,
    SORT_DESCEND,
    SORT_VALUE,
    TXN,
    UNCOUNTED,
    WITH_KEYS,
    only_reads,
)
from raftkv.wire.intervals import check_intervals
from raftkv.wire.pools import POOL_CHECKS
from raftkv.wire.settings import Settings
from raftkv.wire.users import AUTH_CHECKS

_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1

_PUT_FLAGS: Final = PREV_KV | IGNORE_VALUE | IGNORE_LEASE
_READ_FLAGS: Final = SERIALIZABLE | KEYS_ONLY | COUNT_ONLY

LEASE_TTL_MS_MAX: Final = 9_000_000_000 * 1000  # etcd's bound


def validate(command: Any, bounds: Limits | Settings) -> None:
    """Refuse a client's command that can never be done. Reads no state and changes nothing.

    Raises InvalidRequest or one of its kinds (key_empty, key_too_large, value_too_large, request_too_large,
    too_many_operations, duplicate_key, value_provided, lease_provided, lease_ttl_too_large), or KeyNotFound for an empty operation in a
    transaction, as etcd does.
    """
    if type(command) is not list or len(command) < 2 or type(command[0]) is not int:
        raise InvalidRequest("a command is a list that starts with its operation")
    check = _CHECKS.get(command[0])
    if check is None:
        raise InvalidRequest(f"operation {command[0]} is not known")
    if not _is_int64(command[1]) or command[1] < 0:
        raise InvalidRequest("sequence or flags are not an integer of 0 or more")
    if check(command, bounds) > bounds.request_bytes_max:
        raise RequestTooLarge(f"the request has more than {bounds.request_bytes_max} bytes of keys and values")


# Each check returns the bytes of keys and values that the command carries.


def is_plain_put(command: Any, key_bytes_max: int, value_bytes_max: int) -> bool:
    """Whether this is surely a valid PUT without lease and flags: what validate would find, at a third of its price.

    `value_bytes_max`: small enough that a value of that size and the largest key fit into a request.
    """
    if len(command) != 6:
        return False
    operation, sequence, key, value, lease, flags = command
    return (
        operation == PUT
        and type(lease) is type(flags) is type(sequence) is int
        and type(key) is type(value) is bytes
        and not (lease or flags)
        and 0 < len(key) <= key_bytes_max
        and len(value) <= value_bytes_max
        and 0 <= sequence <= _INT64_MAX
    )


def plain_value_bytes_max(bounds: Limits | Settings) -> int:
    """The bound on values for is_plain_put."""
    return min(bounds.value_bytes_max, bounds.request_bytes_max - bounds.key_bytes_max)


def _check_put(command: Sequence[Any], bounds: Limits | Settings) -> int:
    _, _, key, value, lease, flags = _fields(command, 6, "PUT")
    key_bytes = _key_bytes(key, bounds.key_bytes_max)
    if type(flags) is not int or flags & ~_PUT_FLAGS:
        raise InvalidRequest("PUT has flags that are not known")
    if not _is_int64(lease):
        raise InvalidRequest("the lease is not a 64-bit integer")
    value_bytes = _value_bytes(value, bounds)
    if flags & IGNORE_VALUE and value:
        raise ValueProvided()
    if flags & IGNORE_LEASE and lease:
        raise LeaseProvided()
    return key_bytes + value_bytes


def _check_delete_range(command: Sequence[Any], bounds: Limits | Settings) -> int:
    _, _, key, range_end, flags = _fields(command, 5, "DELETE_RANGE")
    if type(flags) is not int or flags & ~PREV_KV:
        raise InvalidRequest("DELETE_RANGE has flags that are not known")
    return _range_bytes(key, range_end, bounds)


def _check_increment(command: Sequence[Any], bounds: Limits | Settings) -> int:
    _, _, key, delta = _fields_and_lease(command, "INCREMENT")
    if not _is_int64(delta):
        raise InvalidRequest("the delta is not a 64-bit integer")
    return _key_bytes(key, bounds.key_bytes_max)


def _check_append(command: Sequence[Any], bounds: Limits | Settings) -> int:
    _, _, key, value = _fields_and_lease(command, "APPEND")
    return _key_bytes(key, bounds.key_bytes_max) + _value_bytes(value, bounds)


def _fields_and_lease(command: Sequence[Any], name: str) -> Sequence[Any]:
    """Those before the lease, which may be left out."""
    if len(command) == 5 and not _is_int64(command[4]):
        raise InvalidRequest(f"the lease of {name} is not a 64-bit integer")
    return _fields(command[:4] if len(command) == 5 else command, 4, name)


def _check_lease_grant(command: Sequence[Any], bounds: Limits | Settings) -> int:
    _, _, lease_id, ttl_ms = _fields(command, 4, "LEASE_GRANT")
    if not _is_int64(lease_id) or not _is_int64(ttl_ms):
        raise InvalidRequest("id and time to live of a lease are 64-bit integers")
    if ttl_ms > LEASE_TTL_MS_MAX:
        raise LeaseTtlTooLarge()
    return 0


def _check_lease_revoke(command: Sequence[Any], bounds: Limits | Settings) -> int:
    if not _is_int64(_fields(command, 3, "LEASE_REVOKE")[2]):
        raise InvalidRequest("the id of a lease is a 64-bit integer")
    return 0


def _check_compact(command: Sequence[Any], bounds: Limits | Settings) -> int:
    if not _is_int64(_fields(command, 3, "COMPACT")[2]):
        raise InvalidRequest("the revision is not a 64-bit integer")
    return 0


def _check_lease_ttl(command: Sequence[Any], bounds: Limits | Settings) -> int:
    _, flags, lease_id = _fields(command, 3, "LEASE_TTL")
    if flags & ~WITH_KEYS or not _is_int64(lease_id):
        raise InvalidRequest("LEASE_TTL has flags that are not known, or an id that is no 64-bit integer")
    return 0


def _check_leases(command: Sequence[Any], bounds: Limits | Settings) -> int:
    if _fields(command, 2, "LEASES")[1] & ~SERIALIZABLE:
        raise InvalidRequest("LEASES has flags that are not known")
    return 0


def _check_guarded(command: Sequence[Any], bounds: Limits | Settings) -> int:
    """What is inside is a write that could stand alone; it has no sequence, the guarded one has."""
    _, _, guards, inner = _fields(command, 4, "GUARDED")
    if type(guards) is not list or not guards:
        raise InvalidRequest("GUARDED has a list of guards")
    if len(guards) > bounds.txn_operations_max:
        raise TooManyOperations("the write has more guards than a transaction may have operations")
    total = 0
    for guard in guards:
        if type(guard) is not list or len(guard) != 2 or not _is_int64(guard[1]) or guard[1] <= 0:
            raise InvalidRequest("a guard is a key and the revision above 0 that created it")
        total += _key_bytes(guard[0], bounds.key_bytes_max)
    if type(inner) is not list or len(inner) < 2 or type(inner[0]) is not int or inner[0] not in _GUARDED_WRITES:
        raise InvalidRequest("guarded is PUT, DELETE_RANGE, TXN, INCREMENT or APPEND")
    if type(inner[1]) is not int or inner[1] != 0:
        raise InvalidRequest("a guarded write has no sequence of its own")
    return total + _CHECKS[inner[0]](inner, bounds)


_GUARDED_WRITES: Final = frozenset({PUT, DELETE_RANGE, TXN, INCREMENT, APPEND})


def _check_get(command: Sequence[Any], bounds: Limits | Settings) -> int:
    _, flags, key = _fields(command, 3, "GET")
    if flags & ~_READ_FLAGS:
        raise InvalidRequest("GET has flags that are not known")
    return _key_bytes(key, bounds.key_bytes_max)


def _check_range(command: Sequence[Any], bounds: Limits | Settings) -> int:
    _, flags, key, range_end, *numbers = _fields(command, 12, "RANGE")
    if flags & ~(_READ_FLAGS | UNCOUNTED):
        raise InvalidRequest("RANGE has flags that are not known")
    if not all(_is_int64(number) for number in numbers):
        raise InvalidRequest("limit, revision, sorting and bounds of RANGE are 64-bit integers")
    key_bytes = _range_bytes(key, range_end, bounds)
    sort_order, sort_target = numbers[2], numbers[3]
    if not 0 <= sort_order <= SORT_DESCEND or not 0 <= sort_target <= SORT_VALUE:
        raise InvalidRequest("invalid sort option")
    return key_bytes


def _check_read_txn(command: Sequence[Any], bounds: Limits | Settings) -> int:
    total = _txn_shape(command, bounds, bounds.txn_operations_max)
    if command[1] & ~SERIALIZABLE:
        raise InvalidRequest("READ_TXN has flags that are not known")
    if not only_reads(command):
        raise InvalidRequest("nothing but RANGE stands in a READ_TXN")
    return total


def _check_txn(command: Sequence[Any], bounds: Limits | Settings) -> int:
    total = _txn_shape(command, bounds, bounds.txn_operations_max)
    for branch in (command[3], command[4]):
        if len(branch) > 1 or (branch and branch[0][0] == TXN):
            check_intervals(branch)
    return total


_CHECKS: Final[dict[int, Callable[[Sequence[Any], Limits | Settings], int]]] = {
    PUT: _check_put,
    DELETE_RANGE: _check_delete_range,
    TXN: _check_txn,
    INCREMENT: _check_increment,
    APPEND: _check_append,
    LEASE_GRANT: _check_lease_grant,
    LEASE_REVOKE: _check_lease_revoke,
    GUARDED: _check_guarded,
    COMPACT: _check_compact,
    LEASE_TTL: _check_lease_ttl,
    LEASES: _check_leases,
    GET: _check_get,
    RANGE: _check_range,
    READ_TXN: _check_read_txn,
    **AUTH_CHECKS,
    **POOL_CHECKS,
    **ALARM_CHECKS,
}


def _txn_shape(command: Sequence[Any], bounds: Limits | Settings, operations_max: int) -> int:
    """A nested transaction may use only what its parent left: it ends the recursion after operations_max levels."""
    _, _, compares, success, failure = _fields(command, 5, "TXN")
    if not type(compares) is type(success) is type(failure) is list:
        raise InvalidRequest("compares and branches of TXN are lists")
    widest = max(len(compares), len(success), len(failure))
    if widest > operations_max:
        raise TooManyOperations()
    total = sum(_compare_bytes(compare, bounds) for compare in compares)
    for branch in (success, failure):
        total += sum(_operation_bytes(operation, bounds, operations_max - widest) for operation in branch)
    return total


def _operation_bytes(operation: Any, bounds: Limits | Settings, operations_max: int) -> int:
    if type(operation) is not list:
        raise InvalidRequest("an operation of TXN is a list")
    if not operation:
        raise KeyNotFound("the operation is empty")
    kind = operation[0]
    if type(kind) is not int or kind not in _BRANCH_OPERATIONS:
        raise InvalidRequest("an operation of TXN is PUT, DELETE_RANGE, RANGE or TXN")
    if (
        len(operation) < 2
        or type(operation[1]) is not int
        or (operation[1] != 0 if kind != RANGE else operation[1] < 0)
    ):
        raise InvalidRequest("an operation of TXN has no sequence of its own")
    if kind == TXN:
        return _txn_shape(operation, bounds, operations_max)
    return _CHECKS[kind](operation, bounds)


_BRANCH_OPERATIONS: Final = frozenset({PUT, DELETE_RANGE, RANGE, TXN})


def _compare_bytes(compare: Any, bounds: Limits | Settings) -> int:
    if type(compare) is not list or len(compare) != 5:
        raise InvalidRequest("a compare is a list of result, target, key, operand and range_end")
    result, target, key, operand, range_end = compare
    if type(result) is not int or not 0 <= result <= NOT_EQUAL:
        raise InvalidRequest("the result of a compare is not known")
    if type(target) is not int or not 0 <= target <= COMPARE_LEASE:
        raise InvalidRequest("the target of a compare is not known")
    total = _range_bytes(key, range_end, bounds)
    if target == COMPARE_VALUE:
        if operand is not None and type(operand) is not bytes:
            raise InvalidRequest("the operand of a value compare is not bytes")
        return total + len(operand or b"")
    if operand is not None and not _is_int64(operand):
        raise InvalidRequest("the operand of a compare is not a 64-bit integer")
    return total


def _fields(command: Sequence[Any], count: int, name: str) -> Sequence[Any]:
    if len(command) != count:
        raise InvalidRequest(f"{name} has {count} items, not {len(command)}")
    return command


def _is_int64(value: Any) -> bool:
    return type(value) is int and _INT64_MIN <= value <= _INT64_MAX


def _key_bytes(key: Any, bytes_max: int) -> int:
    if type(key) is not bytes:
        raise InvalidRequest("the key is not bytes")
    if not key:
        raise KeyEmpty()
    if len(key) > bytes_max:
        raise KeyTooLarge(f"the key has {len(key)} bytes, at most {bytes_max} are accepted")
    return len(key)


def _range_bytes(key: Any, range_end: Any, bounds: Limits | Settings) -> int:
    """One byte more than a key may have: the place right behind the longest key, where a pager goes on."""
    if type(range_end) is not bytes:
        raise InvalidRequest("range_end is not bytes")
    if len(range_end) > bounds.key_bytes_max + 1:
        raise KeyTooLarge(f"range_end has {len(range_end)} bytes, at most {bounds.key_bytes_max + 1} are accepted")
    return _key_bytes(key, bounds.key_bytes_max + 1) + len(range_end)


def _value_bytes(value: Any, bounds: Limits | Settings) -> int:
    if type(value) is not bytes:
        raise InvalidRequest("the value is not bytes")
    if len(value) > bounds.value_bytes_max:
        raise ValueTooLarge(f"the value has {len(value)} bytes, at most {bounds.value_bytes_max} are accepted")
    return len(value)
