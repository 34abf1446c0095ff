"""Pools as a workload: workers that ask for a share, hold it, and give it back or walk away.

What a pool promises is looked at on every member after every entry it applies: never more given than there is, every grant and every request
with its key, and nothing undecided. Members are compared by their digests anyway, restarted and replaced by snapshots as in every world. At the end,
when nobody keeps a session alive any more, nobody may hold or want anything: no share is lost with the dead.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raftkv.client import requests
from raftkv.client.decisions import QUESTION, READ, WRITE
from raftkv.errors import RaftKVError
from raftkv.store.store import Store
from raftkv.wire.commands import Answer, Command
from raftkv.wire.pools import CREATE, POOL_RELEASE, POOL_REQUEST, POOL_SET, grant_key, request_key

from .client import SimClient

if TYPE_CHECKING:
    from .knobs import Knobs
    from .world import World

WORKERS = 4
CAPACITY = {"a": {"x": 4, "y": 6}, "b": {"x": 3}}
TIMES = {"max_run_ms": 900, "grace_ms": 200, "max_wait_ms": 3_000, "age_weight": 3_600_000, "threshold": 1}


def adapt(knobs: "Knobs") -> None:
    """Sessions that are short enough to end within seconds, and entries that hold what so many callers ask for.

    Two requests an entry, a slow disk, and twice the callers were more work than time: calls ended with their deadline for ever, and rightly.
    """
    limits = knobs.limits
    knobs.limits = replace(limits, lease_ttl_ms_min=400, entry_bytes_max=max(limits.entry_bytes_max, 8_192))


class PoolChecks:
    """What must hold on a member that has just applied an entry."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.granted: set[tuple[str, int]] = set()

    def look(self, store: Store) -> None:
        pools = store._state.pools
        if not pools.requests:
            return
        used: dict[tuple[str, str], int] = {}
        for request in pools.requests.values():
            key = request_key(request.id) if request.waits else grant_key(request.id)
            if store._mvcc.get(key) is None:
                self._world.checks.violate(f"request {request.id} has no key {key!r}")
            if not request.waits:
                self.granted.add((request.id, request.token))
                for pool, amounts in request.demand.items():
                    for resource, amount in amounts.items():
                        used[pool, resource] = used.get((pool, resource), 0) + amount
        for (pool, resource), amount in used.items():
            if amount > CAPACITY[pool][resource]:
                self._world.checks.violate(
                    f"{amount} of {resource} of pool {pool} are given, there are {CAPACITY[pool]}"
                )
        if pools.dirty or (pools.deadline_ms is not None and pools.deadline_ms <= store.clock_ms):
            self._world.checks.violate(f"something of the pools was left undecided at {store.clock_ms} ms")


class PoolWorker:
    """Grants itself a session, asks, looks now and then whether it was granted, releases or vanishes."""

    def __init__(self, world: "World", place: int) -> None:
        self.client = SimClient(world, place)
        self.completed = 0
        self.resting = False
        self._world = world
        self._random = world.stream(f"pool worker {place}")
        self._number = 0
        self._lease = 0
        self._looks_left = 0

    def start(self) -> None:
        self._later(self._random.random() * 1e6, self._create)

    def _later(self, delay_us: float, step: Any) -> None:
        self._world.after(int(delay_us) + 1000, self._step, (step,))

    def _step(self, step: Any) -> None:
        if not self.resting:
            step()

    def _ask(self, command: Command, kind: int, then: Any) -> None:
        def done(answer: Answer | None, error: RaftKVError | None) -> None:
            self._world.tell(f"pool worker {self.client.place}: {command} {answer or repr(error)}")
            if answer is None:
                self._later(100_000, self._begin)
            else:
                self.completed += 1
                then(answer)

        self.client.submit(command, kind, done)

    def _create(self) -> None:
        """Whoever comes first makes the pools; the others are refused, which is as good."""
        for name in CAPACITY:
            settings = {"capacity": CAPACITY[name], "backfill": name == "a", **TIMES}
            self.client.submit([POOL_SET, 0, name, CREATE, settings], WRITE, lambda *_: None)
        self._later(200_000, self._begin)

    def _begin(self) -> None:
        ttl_s = self._random.choice((0.5, 1.0, 3.0))
        self._ask(requests.lease_grant(ttl_s), WRITE, self._request)

    def _request(self, answer: Answer) -> None:
        self._lease = answer[2]
        self._number += 1
        random = self._random
        demand = {"a": {"x": random.randint(1, 4)}} if random.random() < 0.7 else {"b": {"x": random.randint(1, 3)}}
        if random.random() < 0.3:
            demand = {"a": {"x": random.randint(1, 3), "y": random.randint(1, 6)}, "b": {"x": 1}}
        options = {"weight": random.randint(0, 3), "max_run_ms": random.choice((0, 300)), "tenant": ""}
        self._looks_left = random.choice((1, 3, 8))
        command = [POOL_REQUEST, 0, self._name, self._lease, demand, options]
        self._ask(command, WRITE, lambda answer: self._hold(answer[2]) if answer[2] else self._wait())

    @property
    def _name(self) -> str:
        return f"{self.client.place}.{self._number}"

    def _wait(self) -> None:
        """Keep the session alive and look; then lose patience, or die."""
        if not self._looks_left:
            if self._random.random() < 0.5:
                self._ask([POOL_RELEASE, 0, self._name, 0], WRITE, lambda *_: self._later(0, self._begin))
            else:
                self._later(500_000, self._begin)
            return
        self._looks_left -= 1
        self._later(self._random.random() * 300_000, self._look)

    def _look(self) -> None:
        def looked(answer: Answer) -> None:
            found = answer[2]
            self._hold(found[1]) if found is not None else self._wait()

        def kept(_: Answer) -> None:
            self._ask(requests.get(grant_key(self._name)), READ, looked)

        self._ask(requests.keep_alive([self._lease]), QUESTION, kept)

    def _hold(self, token: int) -> None:
        """For a while; then give it back, or walk away."""
        if self._random.random() < 0.3:
            self._later(800_000, self._begin)
            return
        release = [POOL_RELEASE, 0, self._name, token]
        self._later(
            self._random.random() * 400_000,
            lambda: self._ask(release, WRITE, lambda *_: self._later(0, self._begin)),
        )
