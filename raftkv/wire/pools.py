"""The commands of merge scheduling pools: their numbers, and what can be refused about them without any state.

| command | items |
|---|---|
| POOL_SET | op, seq, pool, flags (CREATE: it must not exist, else it must), settings: a map of what is to be set |
| POOL_DELETE | op, seq, pool: one that nobody holds or waits for |
| POOL_REQUEST | op, seq, request id, lease, demand {pool: {resource: amount}}, options: a map. Twice the same is the same request |
| POOL_RELEASE | op, seq, request id, token of the grant (0: take back what still waits) |
| POOL_TICK | op, 0 (proposed by the leader only): a deadline of replicated time has passed |
| POOLS | op, flags (SERIALIZABLE) |
| POOL_QUEUE | op, flags (SERIALIZABLE), pool ("": all) |
| POOL_WHY | op, flags (SERIALIZABLE), request id |

| answer | items after the status 0 |
|---|---|
| POOL_SET, POOL_DELETE, POOL_RELEASE, POOL_TICK | revision |
| POOL_REQUEST | revision, token of the grant (0: it waits) |
| POOLS | revision, [a map per pool: its settings, used, granted, waiting] |
| POOL_QUEUE | revision, [a map per request, the granted ones first, then in the order of the queue] |
| POOL_WHY | revision, the map of the request, with why it waits |

Amounts, weights and times are whole numbers: what every member computes has to be the same. Weights are in points, per hour where time counts.
"""

import re
from typing import Any, Callable, Final, Mapping, Sequence

from raftkv.errors import InvalidRequest

POOL_SET: Final = 10
POOL_DELETE: Final = 11
POOL_REQUEST: Final = 12
POOL_RELEASE: Final = 13
POOL_TICK: Final = 48
POOLS: Final = 80
POOL_QUEUE: Final = 81
POOL_WHY: Final = 82

POOL_WRITES: Final = frozenset({POOL_SET, POOL_DELETE, POOL_REQUEST, POOL_RELEASE})
POOL_READS: Final = frozenset({POOLS, POOL_QUEUE, POOL_WHY})

CREATE: Final = 1

KEY_PREFIX: Final = b"raftkv.pools/"
REQUEST_PREFIX: Final = KEY_PREFIX + b"r/"
GRANT_PREFIX: Final = KEY_PREFIX + b"g/"

RESOURCES_MAX: Final = 16
POOLS_PER_REQUEST_MAX: Final = 16
NAMES_MAX: Final = 1_000
AMOUNT_MAX: Final = 2**53
WEIGHT_MAX: Final = 10**9
DURATION_MS_MAX: Final = 10 * 365 * 24 * 3_600_000

_SERIALIZABLE: Final = 1  # as in commands.py, which imports this file
_NAME: Final = re.compile(r"[A-Za-z0-9_.:@+-]{1,64}\Z")
_ID: Final = re.compile(r"[A-Za-z0-9_.:@+/-]{1,128}\Z")

Bounds = Any  # Limits or Settings: nothing of it is used


def pool_key(name: str) -> bytes:
    """No key that exists: who may write it may change the pool."""
    return KEY_PREFIX + b"p/" + name.encode()


def request_key(request_id: str) -> bytes:
    """The key of a request that waits; it hangs on the lease of whoever made it."""
    return REQUEST_PREFIX + request_id.encode()


def grant_key(request_id: str) -> bytes:
    """The key of a grant; its create revision is the fencing token."""
    return GRANT_PREFIX + request_id.encode()


def _amount(value: Any, what: str, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise InvalidRequest(f"{what} is a whole number between {least} and {most}, not {value!r}")


def _name(value: Any, what: str) -> None:
    if type(value) is not str or not _NAME.match(value):
        raise InvalidRequest(f"{what} is a name of 1 to 64 letters, digits and _.:@+-, not {value!r}")


def _amounts(value: Any, what: str, least: int) -> None:
    if type(value) is not dict or not 0 < len(value) <= RESOURCES_MAX:
        raise InvalidRequest(f"{what} has 1 to {RESOURCES_MAX} resources")
    for resource, amount in value.items():
        _name(resource, "a resource")
        _amount(amount, f"{what}, {resource}", least, AMOUNT_MAX)


def _check_capacity(value: Any) -> None:
    _amounts(value, "the capacity", 0)


def _check_classes(value: Any) -> None:
    if type(value) is not dict or len(value) > NAMES_MAX:
        raise InvalidRequest(f"there are at most {NAMES_MAX} classes")
    for name, weight in value.items():
        _name(name, "a class")
        _amount(weight, f"the weight of class {name}", 0, WEIGHT_MAX)


def _check_quotas(value: Any) -> None:
    if type(value) is not dict or len(value) > NAMES_MAX:
        raise InvalidRequest(f"there are at most {NAMES_MAX} quotas")
    for tenant, amounts in value.items():
        if tenant != "*":
            _name(tenant, "a tenant")
        _amounts(amounts, f"the quota of {tenant}", 0)


def _check_backfill(value: Any) -> None:
    if type(value) is not bool:
        raise InvalidRequest("backfill is on or off")


def _weight(what: str) -> Callable[[Any], None]:
    return lambda value: _amount(value, what, 0, WEIGHT_MAX)


def _duration(what: str) -> Callable[[Any], None]:
    return lambda value: _amount(value, f"{what} in ms", 0, DURATION_MS_MAX)


def _text(what: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if value != "":
            _name(value, what)

    return check


SETTINGS: Final[Mapping[str, Callable[[Any], None]]] = {
    "capacity": _check_capacity,
    "threshold": _weight("the threshold"),
    "age_weight": _weight("the weight of age"),
    "staleness_weight": _weight("the weight of staleness"),
    "classes": _check_classes,
    "quotas": _check_quotas,
    "backfill": _check_backfill,
    "max_wait_ms": _duration("the longest wait"),
    "max_run_ms": _duration("the longest run"),
    "grace_ms": _duration("the grace"),
}
OPTIONS: Final[Mapping[str, Callable[[Any], None]]] = {
    "tenant": _text("the tenant"),
    "class": _text("the class"),
    "weight": _weight("the weight"),
    "staleness_ms": _duration("the staleness"),
    "max_wait_ms": _duration("the longest wait"),
    "max_run_ms": _duration("the longest run"),
}


def _check_map(value: Any, known: Mapping[str, Callable[[Any], None]], what: str) -> None:
    if type(value) is not dict:
        raise InvalidRequest(f"{what} are a map")
    for name, item in value.items():
        check = known.get(name) if type(name) is str else None
        if check is None:
            raise InvalidRequest(f"{what}: {name!r} is none of {', '.join(known)}")
        check(item)


def check_pool_name(name: Any) -> None:
    """Raises InvalidRequest."""
    _name(name, "a pool")


def check_request_id(request_id: Any) -> None:
    """Raises InvalidRequest."""
    if type(request_id) is not str or not _ID.match(request_id):
        raise InvalidRequest(f"a request id has 1 to 128 letters, digits and _.:@+/-, it is not {request_id!r}")


def _check_set(command: Sequence[Any], bounds: Bounds) -> int:
    _, _, name, flags, settings = _fields(command, 5)
    check_pool_name(name)
    if type(flags) is not int or flags & ~CREATE:
        raise InvalidRequest("POOL_SET has flags that are not known")
    _check_map(settings, SETTINGS, "the settings of a pool")
    if flags & CREATE and "capacity" not in settings:
        raise InvalidRequest("a pool is created with a capacity")
    return 0


def _check_delete(command: Sequence[Any], bounds: Bounds) -> int:
    check_pool_name(_fields(command, 3)[2])
    return 0


def _check_request(command: Sequence[Any], bounds: Bounds) -> int:
    _, _, request_id, lease, demand, options = _fields(command, 6)
    check_request_id(request_id)
    if type(lease) is not int or not 0 < abs(lease) < 2**63:
        raise InvalidRequest("a request hangs on a lease: its id is a 64-bit integer and not 0")
    if type(demand) is not dict or not 0 < len(demand) <= POOLS_PER_REQUEST_MAX:
        raise InvalidRequest(f"a request is for 1 to {POOLS_PER_REQUEST_MAX} pools")
    for pool, amounts in demand.items():
        check_pool_name(pool)
        _amounts(amounts, f"the demand for {pool}", 1)
    _check_map(options, OPTIONS, "the options of a request")
    return 0


def _check_release(command: Sequence[Any], bounds: Bounds) -> int:
    _, _, request_id, token = _fields(command, 4)
    check_request_id(request_id)
    _amount(token, "the token", 0, 2**63 - 1)
    return 0


def _check_list(command: Sequence[Any], bounds: Bounds) -> int:
    return _read(_fields(command, 2))


def _check_queue(command: Sequence[Any], bounds: Bounds) -> int:
    if _fields(command, 3)[2] != "":
        check_pool_name(command[2])
    return _read(command)


def _check_why(command: Sequence[Any], bounds: Bounds) -> int:
    check_request_id(_fields(command, 3)[2])
    return _read(command)


POOL_CHECKS: Final[dict[int, Callable[[Sequence[Any], Bounds], int]]] = {
    POOL_SET: _check_set,
    POOL_DELETE: _check_delete,
    POOL_REQUEST: _check_request,
    POOL_RELEASE: _check_release,
    POOLS: _check_list,
    POOL_QUEUE: _check_queue,
    POOL_WHY: _check_why,
}


def _fields(command: Sequence[Any], count: int) -> Sequence[Any]:
    if len(command) != count:
        raise InvalidRequest(f"operation {command[0]} has {count} items, not {len(command)}")
    return command


def _read(command: Sequence[Any]) -> int:
    if command[1] & ~_SERIALIZABLE:
        raise InvalidRequest("the read has flags that are not known")
    return 0
