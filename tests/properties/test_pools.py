"""Pools under any history: never more given than there is, nothing lost with the dead, nobody overtaken, and the same on every member.

What must be true is said by a slow and simple twin: it adds up what is granted from the keys themselves, and looks for anybody who could be
granted and was not. A second member is started anew, from its store or from a snapshot, after some of the entries.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.raft.messages import ENTRY_COMMANDS, Entry
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.pool_model import weight_milli
from raftkv.store.pool_schedule import BELOW_THRESHOLD, OVER_QUOTA, TOO_LARGE, decide
from raftkv.store.store import Store
from raftkv.wire.commands import LEASE_GRANT, LEASE_REVOKE, encode_batch
from raftkv.wire.pools import (
    CREATE,
    GRANT_PREFIX,
    POOL_DELETE,
    POOL_RELEASE,
    POOL_REQUEST,
    POOL_SET,
    POOL_TICK,
    REQUEST_PREFIX,
    grant_key,
    request_key,
)
from tests.unit.store.stores import LIMITS, delete, put, ranged

POOL_NAMES, RESOURCES, TENANTS = ("a", "b"), ("x", "y"), ("", "ann")
IDS = tuple(f"r{number}" for number in range(8))
LEASES = (1, 2, 3)

amounts = st.dictionaries(st.sampled_from(RESOURCES), st.integers(1, 4), min_size=1)
capacities = st.fixed_dictionaries({resource: st.integers(0, 5) for resource in RESOURCES})
pool_settings = st.fixed_dictionaries(
    {},
    optional={
        "capacity": capacities,
        "threshold": st.integers(0, 3),
        "age_weight": st.sampled_from([0, 3_600_000, 7_000]),
        "staleness_weight": st.sampled_from([0, 1_000_000]),
        "quotas": st.dictionaries(st.sampled_from(("ann", "*")), amounts, max_size=2),
        "backfill": st.booleans(),
        "max_run_ms": st.sampled_from([0, 5, 50]),
        "max_wait_ms": st.sampled_from([0, 7]),
        "grace_ms": st.sampled_from([0, 3]),
    },
)
options = st.fixed_dictionaries(
    {},
    optional={
        "tenant": st.sampled_from(TENANTS),
        "weight": st.integers(0, 4),
        "staleness_ms": st.integers(0, 9_000),
        "max_run_ms": st.sampled_from([0, 4, 40]),
        "max_wait_ms": st.sampled_from([0, 9]),
    },
)
requests = st.tuples(
    st.just("request"),
    st.sampled_from(IDS),
    st.sampled_from(LEASES),
    st.dictionaries(st.sampled_from(POOL_NAMES), amounts, min_size=1),
    options,
)
steps = st.one_of(
    *[requests] * 6,
    st.tuples(st.just("release"), st.sampled_from(IDS)),
    st.tuples(st.just("set"), st.sampled_from(POOL_NAMES), pool_settings),
    st.tuples(st.just("delete"), st.sampled_from(POOL_NAMES)),
    st.tuples(st.just("revoke"), st.sampled_from(LEASES)),
    st.tuples(st.just("kill"), st.sampled_from(IDS)),
    st.tuples(st.just("meddle"), st.sampled_from(IDS)),
    st.just(("tick",)),
)
entries = st.lists(st.tuples(st.lists(steps, min_size=1, max_size=5), st.integers(0, 20)), min_size=3, max_size=14)


class Pair:
    """Two members, the second of which is started anew now and then."""

    def __init__(self) -> None:
        self.members = [Store.open(MemoryKeyspace(), LIMITS) for _ in range(2)]
        self.index = self.now_ms = 0
        opening = [{"capacity": {"x": 3, "y": 3}, "backfill": True}, {"capacity": {"x": 2, "y": 5}}]
        self.apply([[POOL_SET, 0, name, CREATE, opening[place]] for place, name in enumerate(POOL_NAMES)])
        self.apply([[LEASE_GRANT, 0, lease, 60_000] for lease in LEASES])

    @property
    def pools(self) -> Any:
        return self.members[0]._state.pools

    def apply(self, commands: list[Any]) -> None:
        self.index += 1
        data = encode_batch(self.now_ms, [[None, False, 0, None, 0, commands]])
        answers = [member.apply(Entry(self.index, 1, ENTRY_COMMANDS, data)) for member in self.members]
        assert answers[0] == answers[1]
        first, second = self.members
        assert (first.digest, first.revision, first.pool_deadline_ms) == (
            second.digest,
            second.revision,
            second.pool_deadline_ms,
        )

    def restart_second(self) -> None:
        second = self.members[1]
        job = second.freeze()
        if job is not None:
            job.run()
            second.thaw(job)
        self.members[1] = Store.open(second.keyspace, LIMITS)

    def command(self, step: Any) -> list[list[Any]]:
        kind, *rest = step
        if kind == "request":
            return [[POOL_REQUEST, 0, *rest]]
        if kind == "release":
            held = self.pools.requests.get(rest[0])
            return [[POOL_RELEASE, 0, rest[0], held.token if held is not None else 3]]
        if kind == "set":
            return [[POOL_SET, 0, rest[0], 0, rest[1]]]
        if kind == "delete":
            return [[POOL_DELETE, 0, rest[0]]]
        if kind == "revoke":
            return [[LEASE_REVOKE, 0, rest[0]], [LEASE_GRANT, 0, rest[0], 60_000]]
        if kind == "kill":
            return [delete(grant_key(rest[0])), delete(request_key(rest[0]))]
        if kind == "meddle":
            return [put(grant_key(rest[0]), b"?"), put(b"other", b"?")]
        return [[POOL_TICK, 0]]


def bounds(pair: Pair, commands: list[list[Any]], used: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """How much may be used after these commands: the most that there is while they are done, or what was used before."""
    most = dict(used)
    settings_of = [(name, pool.capacity) for name, pool in pair.pools.pools.items()]
    settings_of += [(command[2], command[-1].get("capacity", {})) for command in commands if command[0] == POOL_SET]
    for name, capacity in settings_of:
        for resource, amount in capacity.items():
            most[name, resource] = max(amount, most.get((name, resource), 0))
    return most


def check(pair: Pair, most: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """What must hold after every entry; returns what is used now."""
    member, pools = pair.members[0], pair.pools
    keys = {items[0]: items for items in member.read(ranged(b"raftkv.pools/", b"raftkv.pools0"))[2]}
    used: dict[tuple[str, str], int] = {}
    for request in pools.requests.values():
        key = request_key(request.id) if request.waits else grant_key(request.id)
        assert key in keys, "whatever is known has its key"
        if request.waits:
            continue
        assert keys[key][1] == request.token, "the token is the key's create revision"
        for pool, wanted in request.demand.items():
            for resource, amount in wanted.items():
                used[pool, resource] = used.get((pool, resource), 0) + amount
    ours = {key for key, items in keys.items() if items[4] and key.startswith((REQUEST_PREFIX, GRANT_PREFIX))}
    known = {request_key(name) for name in pools.requests} | {grant_key(name) for name in pools.requests}
    assert ours <= known, "no key of a request outlives it"
    for place, amount in used.items():
        assert amount <= most.get(place, 0), "never more than there is is given"
    decision = decide(pools.pools, list(pools.requests.values()), pair.now_ms)
    assert not decision.granted, "who looks at everything finds nobody who was left out"
    waiting = [request for request in pools.requests.values() if request.waits]
    for request in waiting:
        passed_over = decision.reasons[request.id].kind in (TOO_LARGE, BELOW_THRESHOLD, OVER_QUOTA)
        if passed_over or any(
            other is not request
            and other.demand.keys() & request.demand.keys()
            and decision.reasons[other.id].kind not in (TOO_LARGE, BELOW_THRESHOLD, OVER_QUOTA)
            and _rank(other, pair) < _rank(request, pair)
            for other in waiting
        ):
            continue
        fits = all(
            used.get((pool, resource), 0) + amount <= pools.pools[pool].capacity.get(resource, 0)
            for pool, wanted in request.demand.items()
            for resource, amount in wanted.items()
        )
        assert not fits, f"{request.id} is first everywhere, fits, and was not granted"
    assert pools.deadline_ms is None or pools.deadline_ms > pair.now_ms, "what is due was done"
    assert not pools.dirty
    return used


def _rank(request: Any, pair: Pair) -> tuple[int, int, str]:
    return -weight_milli(request, pair.pools.pools, pair.now_ms), request.order, request.id


@settings(max_examples=300)
@given(entries, st.lists(st.integers(0, 13)))
def test_whatever_happens(history: list[Any], restarts: list[int]) -> None:
    pair = Pair()
    used: dict[tuple[str, str], int] = {}
    for place, (chosen, after_ms) in enumerate(history):
        pair.now_ms += after_ms
        commands = [command for step in chosen for command in pair.command(step)]
        most = bounds(pair, commands, used)
        pair.apply(commands)
        if place in restarts:
            pair.restart_second()
        used = check(pair, most)
    for lease in LEASES:
        pair.apply([[LEASE_REVOKE, 0, lease]])
    assert not pair.pools.requests, "nothing is left when everybody is dead"
    assert check(pair, used) == {}
