"""The reads of pools: what there is, who waits in which order, and why.

Reasons are not kept: they are what a decision says when it is made again, at the replicated time that is applied here.
"""

from typing import Any, Sequence

from raftkv.errors import PoolNotFound, PoolRequestNotFound
from raftkv.store.pool_model import Pool, Request, settings_of, weight_milli
from raftkv.store.pool_schedule import Decision, decide, in_order
from raftkv.store.pools import Pools
from raftkv.units import Milliseconds, Revision
from raftkv.wire.commands import OK, Answer
from raftkv.wire.pools import POOL_QUEUE, POOL_WHY, POOLS


def read_pools(pools: Pools, revision: Revision, clock_ms: Milliseconds, command: Sequence[Any]) -> Answer:
    """Answer a valid POOLS, POOL_QUEUE or POOL_WHY. Raises PoolNotFound or PoolRequestNotFound."""
    kind = command[0]
    requests = list(pools.requests.values())
    if kind == POOLS:
        return [OK, revision, [_pool_map(name, pools.pools[name], requests) for name in sorted(pools.pools)]]
    decision = decide(pools.pools, requests, clock_ms)
    waiting = in_order(pools.pools, requests, clock_ms)
    if kind == POOL_WHY:
        request = pools.requests.get(command[2])
        if request is None:
            raise PoolRequestNotFound(f"there is no request {command[2]!r}")
        return [OK, revision, _request_map(request, pools, decision, waiting, clock_ms)]
    assert kind == POOL_QUEUE, "one of the three"
    wanted = command[2]
    if wanted and wanted not in pools.pools:
        raise PoolNotFound(f"there is no pool {wanted!r}")
    granted = sorted((request for request in requests if not request.waits), key=lambda held: (held.token, held.id))
    rows = [
        _request_map(request, pools, decision, waiting, clock_ms)
        for request in (*granted, *waiting)
        if not wanted or wanted in request.demand
    ]
    return [OK, revision, rows]


def _pool_map(name: str, pool: Pool, requests: Sequence[Request]) -> dict[str, Any]:
    used = dict.fromkeys(pool.capacity, 0)
    granted = waiting = 0
    for request in requests:
        if name in request.demand:
            if request.waits:
                waiting += 1
                continue
            granted += 1
            for resource, amount in request.demand[name].items():
                used[resource] = used.get(resource, 0) + amount
    return {"name": name, **settings_of(pool), "used": used, "granted": granted, "waiting": waiting}


def _request_map(
    request: Request, pools: Pools, decision: Decision, waiting: Sequence[Request], clock_ms: Milliseconds
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": request.id,
        "lease": request.lease,
        "demand": request.demand,
        "tenant": request.tenant,
        "class": request.klass,
        "token": request.token,
        "waited_ms": (clock_ms if request.waits else request.granted_ms) - request.submitted_ms,
    }
    if request.waits:
        reason = decision.reasons[request.id]
        place = next(place for place, other in enumerate(waiting) if other.id == request.id)
        found |= {
            "state": "waiting",
            "weight_milli": weight_milli(request, pools.pools, clock_ms),
            "ahead": sum(bool(other.demand.keys() & request.demand.keys()) for other in waiting[:place]),
            "reason": reason.kind,
            "details": reason.details,
        }
    else:
        found |= {
            "state": "ending" if request.notice_ms else "granted",
            "running_ms": clock_ms - request.granted_ms,
            "ends_in_ms": max(0, request.ends_ms - clock_ms) if request.notice_ms else None,
        }
    return found
