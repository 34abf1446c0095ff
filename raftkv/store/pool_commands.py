"""The commands of pools, and `settle`, which ends every entry decided: what came free in it is given on in it.

A decision is one revision, however many it grants. It reads replicated time only, so POOL_TICK has nothing to do but to move that: the
deadlines that have passed are seen to by `settle`, in whatever entry comes first.
"""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, Final

from raftkv.errors import (
    DemandTooLarge,
    FencingTokenStale,
    InvalidRequest,
    PoolBusy,
    PoolExists,
    PoolNotFound,
    PoolRequestExists,
    PoolRequestNotFound,
    TooManyPoolRequests,
)
from raftkv.store.pool_model import Pool, Request
from raftkv.store.pool_schedule import decide, grace_ms, next_deadline_ms
from raftkv.store.records import create_revision_of
from raftkv.units import Milliseconds, Revision
from raftkv.wire.commands import OK, Answer, Command
from raftkv.wire.pools import (
    CREATE,
    POOL_DELETE,
    POOL_RELEASE,
    POOL_REQUEST,
    POOL_SET,
    POOL_TICK,
    grant_key,
    request_key,
)
from raftkv.wire.validate import validate

if TYPE_CHECKING:
    from raftkv.store.state import State


def set_pool(state: "State", command: Command) -> Answer:
    """POOL_SET. A capacity below what is used takes nothing back: nothing is given until it fits again."""
    validate(command, state.cluster.settings)
    _, _, name, flags, settings = command
    pools = state.pools
    pool = pools.pools.get(name)
    if flags & CREATE:
        if pool is not None:
            raise PoolExists(f"pool {name!r} exists already")
        pools_max = state.cluster.settings.pools_max
        if len(pools.pools) >= pools_max:
            raise InvalidRequest(f"the cluster keeps at most {pools_max} pools")
        pool = Pool({})
    elif pool is None:
        raise PoolNotFound(f"there is no pool {name!r}")
    pools.set_pool(name, replace(pool, **settings))
    return [OK, settle(state)]


def delete_pool(state: "State", command: Command) -> Answer:
    """POOL_DELETE."""
    validate(command, state.cluster.settings)
    name = command[2]
    pools = state.pools
    if name not in pools.pools:
        raise PoolNotFound(f"there is no pool {name!r}")
    pools.sync(state.mvcc.events)
    users = sorted(request.id for request in pools.requests.values() if name in request.demand)
    if users:
        raise PoolBusy(f"{len(users)} requests hold or want pool {name!r}, {users[0]!r} for one")
    pools.set_pool(name, None)
    return [OK, settle(state)]


def request_grant(state: "State", command: Command) -> Answer:
    """POOL_REQUEST. The same id again, with the same demand: the answer is how it stands."""
    validate(command, state.cluster.settings)
    _, _, request_id, lease, _, _ = command
    pools = state.pools
    pools.sync(state.mvcc.events)
    request = _request_of(state, command)
    known = pools.requests.get(request_id)
    if known is not None:
        if not known.is_same(request):
            raise PoolRequestExists(f"there is another request {request_id!r}")
        return [OK, state.mvcc.revision, known.token]
    requests_max = state.cluster.settings.pool_requests_max
    if len(pools.requests) >= requests_max:
        raise TooManyPoolRequests(f"the cluster keeps at most {requests_max} requests")
    state.mvcc.leases.check(lease, request_key(request_id))
    pools.set_request(request)
    return [OK, settle(state, fresh=request_id), pools.requests[request_id].token]


def _request_of(state: "State", command: Command) -> Request:
    """Raises PoolNotFound, DemandTooLarge or InvalidRequest."""
    _, _, request_id, lease, demand, options = command
    pools = state.pools.pools
    tenant, klass = options.get("tenant", ""), options.get("class", "")
    for name, amounts in demand.items():
        pool = pools.get(name)
        if pool is None:
            raise PoolNotFound(f"there is no pool {name!r}")
        if klass and klass not in pool.classes:
            raise InvalidRequest(f"pool {name!r} knows no class {klass!r}")
        quota = pool.quota_of(tenant) or {}
        for resource, amount in amounts.items():
            if amount > pool.capacity.get(resource, 0):
                raise DemandTooLarge(
                    f"pool {name!r} has {pool.capacity.get(resource, 0)} of {resource} in all, {amount} were asked for"
                )
            if amount > quota.get(resource, amount):
                raise DemandTooLarge(
                    f"tenant {tenant!r} may have {quota[resource]} of {resource} in pool {name!r}, not {amount}"
                )
    longest_wait = [options.get("max_wait_ms", 0), *(pools[name].max_wait_ms for name in demand)]
    longest_run = [options.get("max_run_ms", 0), *(pools[name].max_run_ms for name in demand)]
    return Request(
        request_id,
        lease,
        demand,
        tenant,
        klass,
        options.get("weight", 0),
        options.get("staleness_ms", 0),
        _shortest(longest_wait),
        _shortest(longest_run),
        state.clock_ms,
        state.mvcc.revision + 1,
    )


def _shortest(limits: list[int]) -> int:
    """0 is no limit."""
    return min((limit for limit in limits if limit), default=0)


def release(state: "State", command: Command) -> Answer:
    """POOL_RELEASE: give a grant back, or take back a request that waits. Whoever names the wrong token changes nothing."""
    validate(command, state.cluster.settings)
    _, _, request_id, token = command
    pools, mvcc = state.pools, state.mvcc
    pools.sync(mvcc.events)
    request = pools.requests.get(request_id)
    if request is None:
        raise PoolRequestNotFound(
            f"there is no request {request_id!r}: it was released, taken back, or its session ended"
        )
    if request.token != token:
        raise FencingTokenStale(
            f"request {request_id!r} "
            + (f"was granted with token {request.token}" if request.token else "waits, it has no token yet")
            + f", not {token}",
            details={"key": grant_key(request_id), "create_revision": token, "actual": request.token},
        )
    _drop(state, request)
    return [OK, settle(state)]


def tick(state: "State", command: Command) -> Answer:
    """POOL_TICK: the entry has brought the time."""
    return [OK, settle(state)]


def settle(state: "State", fresh: str = "") -> Revision:
    """See to what has happened to keys, to deadlines, and to whoever can be granted now. Returns the revision.

    `fresh`: the request that this command has brought. Its key is written once, for what became of it.
    """
    pools, mvcc = state.pools, state.mvcc
    pools.sync(mvcc.events)
    now_ms = state.clock_ms
    is_late = pools.deadline_ms is not None and pools.deadline_ms <= now_ms
    if not (pools.dirty or is_late):
        return mvcc.finish()
    for name in sorted(pools.overwritten):
        _drop(state, pools.requests[name])
    for request in sorted(pools.requests.values(), key=lambda request: request.id) if is_late else ():
        if not request.waits:
            _watch_the_end(state, request, now_ms)
        elif request.id != fresh and request.max_wait_ms and request.submitted_ms + request.max_wait_ms <= now_ms:
            _drop(state, request)
    for request in decide(pools.pools, list(pools.requests.values()), now_ms, explain=False).granted:
        _grant(state, request, now_ms, is_fresh=request.id == fresh)
    if fresh and pools.requests[fresh].waits:
        key = request_key(fresh)
        mvcc.put_over(mvcc.get(key), key, _told(pools.requests[fresh]), pools.requests[fresh].lease)
    revision = mvcc.finish()
    pools.seen = len(mvcc.events)
    pools.dirty = False
    pools.deadline_ms = next_deadline_ms(pools.pools, list(pools.requests.values()), now_ms)
    state.effects += pools.take_effects()
    return revision


def _watch_the_end(state: "State", request: Request, now_ms: Milliseconds) -> None:
    """A run that is too long is given notice, and after the grace it is over."""
    if not request.max_run_ms:
        return
    if not request.notice_ms and request.granted_ms + request.max_run_ms <= now_ms:
        ends_ms = now_ms + grace_ms(request, state.pools.pools)
        request = replace(request, notice_ms=now_ms, ends_ms=ends_ms)
        if ends_ms > now_ms:
            state.pools.set_request(request)
            key = grant_key(request.id)
            state.mvcc.put_over(state.mvcc.get(key), key, _told(request, "ending"), request.lease)
            return
    if request.notice_ms and request.ends_ms <= now_ms:
        _drop(state, request)


def _grant(state: "State", request: Request, now_ms: Milliseconds, *, is_fresh: bool) -> None:
    mvcc = state.mvcc
    holding = grant_key(request.id)
    if not is_fresh:
        waiting = request_key(request.id)
        record = mvcc.get(waiting)
        assert record is not None, "a request that waits has its key: sync drops it with that"
        mvcc.delete(record, waiting)
    granted = replace(request, granted_ms=now_ms)
    mvcc.put_over(mvcc.get(holding), holding, _told(granted, "granted"), request.lease)
    written = mvcc.get(holding)
    assert written is not None, "it was just written"
    granted.token = create_revision_of(written)
    state.pools.set_request(granted)


def _drop(state: "State", request: Request) -> None:
    key = request_key(request.id) if request.waits else grant_key(request.id)
    record = state.mvcc.get(key)
    assert record is not None, "a request has its key: sync drops it with that"
    state.mvcc.delete(record, key)
    state.pools.drop_request(request.id)


def _told(request: Request, stands: str = "waiting") -> bytes:
    """What its key says, for whoever watches."""
    says: dict[str, Any] = {
        "demand": request.demand,
        "tenant": request.tenant,
        "class": request.klass,
        "weight": request.weight,
        "staleness_ms": request.staleness_ms,
        "submitted_ms": request.submitted_ms,
        "state": stands,
        "max_run_ms": request.max_run_ms,
    }
    if request.notice_ms:
        says["ends_in_ms"] = request.ends_ms - request.notice_ms
    return json.dumps(says, sort_keys=True).encode()


POOL_HANDLERS: Final[dict[int, Callable[["State", Command], Answer]]] = {
    POOL_SET: set_pool,
    POOL_DELETE: delete_pool,
    POOL_REQUEST: request_grant,
    POOL_RELEASE: release,
    POOL_TICK: tick,
}
