"""What a bench process is told and what it tells: plain data as JSON lines, so that processes share nothing else.

To a worker: one plan, then `go`. From a worker: `{"ready": true}`, then one `{"done": n, "errors": n}` a second, then one final
`{"histogram": ..., "errors": {code: n}, "seconds": s}`; or `{"failed": [code, message]}` at any time.
"""

from typing import Any, NamedTuple

KEY_PREFIX = "bench/"


class BenchPlan(NamedTuple):
    """The load of one process."""

    verb: str
    """put or get."""
    endpoints: str
    cluster_name: str | None
    timeout_seconds: float
    in_flight: int
    seconds: float
    value_bytes: int
    keys: int
    """How many keys the load is spread over; worker w of W prepares every W-th."""
    worker: int
    workers: int
    user: str | None = None
    password: str = ""
    tls: list[Any] | None = None
    """As raftkv.Tls."""


def plan_from_data(data: dict[str, Any]) -> BenchPlan:
    return BenchPlan(**data)


def key_of(number: int) -> str:
    """Keys of one length, spread over the store."""
    return f"{KEY_PREFIX}{number:010d}"


def shares(total: int, parts: int) -> list[int]:
    """`total` in `parts` whole numbers that differ by at most one."""
    assert parts > 0
    return [total // parts + (1 if number < total % parts else 0) for number in range(parts)]
