"""Pools and requests as data: what is replicated of them, and what weight a request has at a time.

A request waits until it is granted, and is gone when it is released. All numbers are whole: milli-points and milliseconds of
replicated time, so that every member gets the same order.
"""

from dataclasses import astuple, dataclass, field
from typing import Any, Final, Mapping

import msgpack

from raftkv.units import Milliseconds, Revision

HOUR_MS: Final = 3_600_000
MILLI: Final = 1_000
ANY_TENANT: Final = "*"

Amounts = dict[str, int]
Demand = dict[str, Amounts]


@dataclass(slots=True)
class Pool:
    """What there is, and by which rules it is given. A quota limits what one tenant has at a time; `*` is for those without their own."""

    capacity: Amounts
    threshold: int = 0
    age_weight: int = 0
    staleness_weight: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    quotas: dict[str, Amounts] = field(default_factory=dict)
    backfill: bool = False
    max_wait_ms: Milliseconds = 0
    max_run_ms: Milliseconds = 0
    grace_ms: Milliseconds = 0

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(list(astuple(self)))
        return packed

    def quota_of(self, tenant: str) -> Amounts | None:
        return self.quotas.get(tenant, self.quotas.get(ANY_TENANT))


@dataclass(slots=True)
class Request:
    """One request. `token` 0: it waits. `ends_ms` is when its grant is taken back, `notice_ms` when that was announced (0: not yet)."""

    id: str
    lease: int
    demand: Demand
    tenant: str
    klass: str
    weight: int
    staleness_ms: Milliseconds
    max_wait_ms: Milliseconds
    max_run_ms: Milliseconds
    submitted_ms: Milliseconds
    order: Revision
    token: Revision = 0
    granted_ms: Milliseconds = 0
    notice_ms: Milliseconds = 0
    ends_ms: Milliseconds = 0

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(list(astuple(self)))
        return packed

    @property
    def waits(self) -> bool:
        return not self.token

    def is_same(self, other: "Request") -> bool:
        """Whether it asks for the same: then a second command is the same request."""
        return (
            self.lease == other.lease
            and self.demand == other.demand
            and self.tenant == other.tenant
            and self.klass == other.klass
        )


def unpack_pool(data: bytes) -> Pool:
    return Pool(*msgpack.unpackb(data))


def unpack_request(data: bytes) -> Request:
    return Request(*msgpack.unpackb(data))


def settings_of(pool: Pool) -> dict[str, Any]:
    """As POOL_SET takes them."""
    return {name: getattr(pool, name) for name in Pool.__dataclass_fields__}


def main_pool(request: Request) -> str:
    """The pool whose weights count: the first by name."""
    return min(request.demand)


def weight_milli(request: Request, pools: Mapping[str, Pool], now_ms: Milliseconds) -> int:
    """Its weight in milli-points: what it came with and what its class has, and what age and staleness have added since."""
    pool = pools.get(main_pool(request))
    if pool is None:
        return request.weight * MILLI
    age_ms = max(0, now_ms - request.submitted_ms)
    grown = pool.age_weight * age_ms + pool.staleness_weight * (request.staleness_ms + age_ms)
    return (request.weight + pool.classes.get(request.klass, 0)) * MILLI + grown * MILLI // HOUR_MS


def threshold_milli(request: Request, pools: Mapping[str, Pool]) -> int:
    """What its weight has to reach before it counts: the highest of its pools."""
    return max((pools[name].threshold for name in request.demand if name in pools), default=0) * MILLI


def eligible_ms(request: Request, pools: Mapping[str, Pool]) -> Milliseconds | None:
    """The first moment at which its weight reaches the threshold; None: never.

    Not counted from now: a member that was started anew has to come to the same moment.
    """
    pool = pools.get(main_pool(request))
    fixed = request.weight * MILLI if pool is None else (request.weight + pool.classes.get(request.klass, 0)) * MILLI
    missing = threshold_milli(request, pools) - fixed
    if missing <= 0:
        return request.submitted_ms
    if pool is None or not pool.age_weight + pool.staleness_weight:
        return None
    grown = missing * HOUR_MS - MILLI * pool.staleness_weight * request.staleness_ms
    return request.submitted_ms + max(0, -(-grown // (MILLI * (pool.age_weight + pool.staleness_weight))))
