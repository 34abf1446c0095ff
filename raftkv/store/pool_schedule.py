"""Who gets what: the decisions of pools, as pure functions of pools, requests and a time.

By weight, highest first. A request that does not fit stays at the head of all its pools, and nobody behind it is given anything there, so that
large ones do not starve. All of a request is granted at once or nothing of it, over all its pools, so nobody holds one thing while waiting for
another: there is nothing to deadlock. With *backfill*, somebody behind a head gets what fits now if that cannot delay the head: because enough is
left for all who are ahead anyway, or because it has to be over before the head could start at the latest (its longest run is known, and so are
those of all that run). Who is below the threshold, over a quota, or larger than the pool is passed over and holds nobody up.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Mapping, NamedTuple, Sequence

from raftkv.store.pool_model import Pool, Request, eligible_ms, threshold_milli, weight_milli
from raftkv.units import Milliseconds

FITS: Final = "granted now"
TOO_LARGE: Final = "larger than the pool"
BELOW_THRESHOLD: Final = "below the threshold"
OVER_QUOTA: Final = "over the quota of its tenant"
HEAD: Final = "first in line, does not fit yet"
BEHIND: Final = "behind another one"

_NEVER_MS: Final = 1 << 62


class Reason(NamedTuple):
    """Why a request waits; `details` are plain values for whoever asks."""

    kind: str
    details: dict[str, Any]


@dataclass(slots=True)
class _Line:
    """What stands in front of a pool: who is first, and what all that wait there want together."""

    head: Request
    wanted: dict[str, int] = field(default_factory=dict)

    def add(self, amounts: Mapping[str, int]) -> None:
        for resource, amount in amounts.items():
            self.wanted[resource] = self.wanted.get(resource, 0) + amount


@dataclass(slots=True)
class Decision:
    """Who is to be granted, in that order, and why the others wait."""

    granted: list[Request] = field(default_factory=list)
    reasons: dict[str, Reason] = field(default_factory=dict)


class _Scene:
    """Pools, and what is used of them, while a decision is made."""

    def __init__(self, pools: Mapping[str, Pool], requests: Sequence[Request], now_ms: Milliseconds) -> None:
        self.pools = pools
        self.now_ms = now_ms
        self.running = [request for request in requests if not request.waits]
        self.used: dict[tuple[str, str], int] = {}
        self.used_by: dict[tuple[str, str, str], int] = {}
        self.lines: dict[str, _Line] = {}
        self._starts: dict[str, Milliseconds] = {}
        for request in self.running:
            self.use(request)

    def use(self, request: Request) -> None:
        for pool, amounts in request.demand.items():
            for resource, amount in amounts.items():
                self.used[pool, resource] = self.used.get((pool, resource), 0) + amount
                owner = (pool, resource, request.tenant)
                self.used_by[owner] = self.used_by.get(owner, 0) + amount

    def free(self, pool: str, resource: str) -> int:
        return self.pools[pool].capacity.get(resource, 0) - self.used.get((pool, resource), 0)

    def too_large(self, request: Request) -> Reason | None:
        for pool, amounts in request.demand.items():
            for resource, amount in amounts.items():
                capacity = self.pools[pool].capacity.get(resource, 0) if pool in self.pools else 0
                if amount > capacity:
                    details = {"pool": pool, "resource": resource, "wants": amount, "capacity": capacity}
                    return Reason(TOO_LARGE, details)
        return None

    def below(self, request: Request) -> Reason | None:
        threshold, weight = threshold_milli(request, self.pools), weight_milli(request, self.pools, self.now_ms)
        if weight >= threshold:
            return None
        when_ms = eligible_ms(request, self.pools)
        details = {"weight_milli": weight, "threshold_milli": threshold, "eligible_in_ms": None}
        if when_ms is not None:
            details["eligible_in_ms"] = when_ms - self.now_ms
        return Reason(BELOW_THRESHOLD, details)

    def over_quota(self, request: Request) -> Reason | None:
        for pool, amounts in request.demand.items():
            quota = self.pools[pool].quota_of(request.tenant)
            for resource, amount in amounts.items() if quota is not None else ():
                limit = quota.get(resource) if quota is not None else None
                used = self.used_by.get((pool, resource, request.tenant), 0)
                if limit is not None and used + amount > limit:
                    details = {"pool": pool, "resource": resource, "wants": amount, "used": used, "quota": limit}
                    return Reason(OVER_QUOTA, {**details, "tenant": request.tenant})
        return None

    def shortage(self, request: Request) -> dict[str, Any] | None:
        for pool, amounts in request.demand.items():
            for resource, amount in amounts.items():
                free = self.free(pool, resource)
                if amount > free:
                    return {"pool": pool, "resource": resource, "wants": amount, "free": max(0, free)}
        return None

    def stand(self, request: Request) -> None:
        """It waits in front of all its pools."""
        for pool, amounts in request.demand.items():
            line = self.lines.setdefault(pool, _Line(request))
            line.add(amounts)

    def is_closed(self, pool: str) -> bool:
        """Whether nobody else can be given anything of it: somebody stands there, and nothing is free or may be passed on."""
        if not self.pools[pool].backfill:
            return True
        return all(self.free(pool, resource) <= 0 for resource in self.pools[pool].capacity)

    def delays_nobody(self, request: Request) -> bool:
        """Whether all who stand in front of its pools start as if it were not there. It fits."""
        for pool, amounts in request.demand.items():
            line = self.lines.get(pool)
            if line is None:
                continue
            if not self.pools[pool].backfill:
                return False
            if all(
                self.free(pool, resource) - amount >= line.wanted.get(resource, 0)
                for resource, amount in amounts.items()
            ):
                continue
            if not request.max_run_ms or self.latest_end_ms(request) > self.start_ms(line.head):
                return False
        return True

    def latest_end_ms(self, request: Request) -> Milliseconds:
        """When what it holds, or would hold from now on, is taken back; far away without a longest run."""
        if not request.max_run_ms:
            return _NEVER_MS
        if request.notice_ms:
            return request.ends_ms
        begins_ms = self.now_ms if request.waits else request.granted_ms
        return begins_ms + request.max_run_ms + grace_ms(request, self.pools)

    def start_ms(self, head: Request) -> Milliseconds:
        """When there is room for a head at the latest, if nothing else were given: all that run use their time to the end."""
        if head.id not in self._starts:
            missing = {
                (pool, resource): amount - self.free(pool, resource)
                for pool, amounts in head.demand.items()
                for resource, amount in amounts.items()
                if amount > self.free(pool, resource)
            }
            starts_ms = self.now_ms
            for ends_ms, request in sorted(
                ((self.latest_end_ms(request), request) for request in self.running),
                key=lambda pair: (pair[0], pair[1].id),
            ):
                if not missing:
                    break
                starts_ms = ends_ms
                for pool, amounts in request.demand.items():
                    for resource, amount in amounts.items():
                        if (pool, resource) in missing:
                            missing[pool, resource] -= amount
                            if missing[pool, resource] <= 0:
                                del missing[pool, resource]
            self._starts[head.id] = _NEVER_MS if missing else starts_ms
        return self._starts[head.id]


def grace_ms(request: Request, pools: Mapping[str, Pool]) -> Milliseconds:
    """Between the notice and the end: the longest of its pools."""
    return max((pools[name].grace_ms for name in request.demand if name in pools), default=0)


def in_order(pools: Mapping[str, Pool], requests: Sequence[Request], now_ms: Milliseconds) -> list[Request]:
    """Those that wait: by weight, then by age."""
    waiting = [request for request in requests if request.waits]
    return sorted(waiting, key=lambda request: (-weight_milli(request, pools, now_ms), request.order, request.id))


def decide(
    pools: Mapping[str, Pool], requests: Sequence[Request], now_ms: Milliseconds, *, explain: bool = True
) -> Decision:
    """Who is granted now. Without `explain` it ends as soon as nobody else can be, and gives no reasons for the rest."""
    scene = _Scene(pools, requests, now_ms)
    decision = Decision()
    open_pools = {pool for request in requests if request.waits for pool in request.demand} if not explain else set()
    for request in in_order(pools, requests, now_ms):
        if not explain:
            if not open_pools:
                break
            if open_pools.isdisjoint(request.demand):
                continue  # whoever waits for closed pools alone changes nothing for the others
        passed_over = scene.too_large(request) or scene.below(request) or scene.over_quota(request)
        if passed_over is not None:
            decision.reasons[request.id] = passed_over
            continue
        lines = [scene.lines[pool] for pool in sorted(request.demand) if pool in scene.lines]
        shortage = scene.shortage(request)
        if shortage is None and (not lines or scene.delays_nobody(request)):
            scene.use(request)
            decision.granted.append(request)
            decision.reasons[request.id] = Reason(FITS, {})
            continue
        if lines:
            decision.reasons[request.id] = Reason(BEHIND, {"head": lines[0].head.id, **(shortage or {})})
        else:
            assert shortage is not None, "nobody is ahead of it, so it does not fit"
            decision.reasons[request.id] = Reason(HEAD, shortage)
        scene.stand(request)
        if not explain:
            open_pools.difference_update([pool for pool in request.demand if scene.is_closed(pool)])
    return decision


def next_deadline_ms(
    pools: Mapping[str, Pool], requests: Sequence[Request], now_ms: Milliseconds
) -> Milliseconds | None:
    """When time alone changes something next: a wait is too long, a run is, or a weight reaches the threshold."""
    deadlines: list[Milliseconds] = []
    for request in requests:
        if not request.waits:
            if request.notice_ms:
                deadlines.append(request.ends_ms)
            elif request.max_run_ms:
                deadlines.append(request.granted_ms + request.max_run_ms)
            continue
        if request.max_wait_ms:
            deadlines.append(request.submitted_ms + request.max_wait_ms)
        when_ms = eligible_ms(request, pools)
        if when_ms is not None and when_ms > now_ms:
            deadlines.append(when_ms)
    return min(deadlines, default=None)
