"""One world: a heap of events in virtual time, and everything that lives in it. A seed is a world's whole history.

Nothing here asks a real clock, a real disk or the order of a set of strings, so a seed replays event by event. A run has three
parts: chaos, then quiet, in which a majority must make progress again, then the judges.
"""

import heapq
from random import Random
from typing import Any, Callable

from raftkv.raft.messages import Configuration
from raftkv.store.store import Store
from raftkv.units import NodeId
from raftkv.wire.commands import RANGE
from raftkv.wire.identity import ANYBODY, Caller

from . import data as data_module
from . import leases as leases_module
from . import pools as pools_module
from . import users as users_module
from .checks import Checks
from .client import SimClient
from .history import History
from .knobs import Knobs, draw_knobs
from .leases import OWNERS, LeaseOwner, Promises
from .ledger import Ledger
from .machine import Machine
from .nemesis import Nemesis
from .network import CLIENT_PLACES, Network
from .workload import Keys, Workload

QUIET_US_MAX = 120_000_000  # in which a healed cluster has to make progress
CALLS_DEMANDED = 3  # of every client, after the faults
EVENTS_MAX = 3_000_000

Event = tuple[int, int, Callable[..., None], tuple[Any, ...]]


class World:
    """Machines, clients, a network, and time."""

    CLUSTER_NAME = "sim"

    def __init__(
        self,
        seed: int,
        knobs: Knobs | None = None,
        tell: Callable[[str], None] | None = None,
        *,
        leases: bool = False,
        data: bool = False,
        pools: bool = False,
        users: bool = False,
    ) -> None:
        self.seed = seed
        self.knobs = draw_knobs(self.stream("knobs")) if knobs is None else knobs
        self.knobs.leases = self.knobs.leases or leases
        if self.knobs.leases:
            leases_module.adapt(self.knobs)
        self.knobs.pools = self.knobs.pools or pools
        if self.knobs.pools:
            pools_module.adapt(self.knobs)
        if data:
            data_module.adapt(self.knobs, self.stream("data"))
        self.knobs.users = self.knobs.users or users
        self.story = tell
        self.now_us = 0
        self.events = 0
        self._heap: list[Event] = []
        self._number = 0
        founders = range(1, self.knobs.members + 1)
        self.initial_configuration = Configuration(frozenset(founders))
        self.checks = Checks(self.initial_configuration, self.knobs.limits)
        self.network = Network(self)
        self.machines: dict[NodeId, Machine] = {
            node_id: Machine(self, node_id) for node_id in range(1, self.knobs.members + self.knobs.spares + 1)
        }
        self._machine_at = {machine.address: machine for machine in self.machines.values()}
        self.keys = Keys(self.knobs.keys, self.knobs.operations_per_key)
        self.history = History(self.checks)
        self.clients: list[SimClient] = []
        self.workloads: list[Workload] = []
        self.promises = Promises(self)
        owners = OWNERS if self.knobs.leases else 0
        self.owners = [LeaseOwner(self, CLIENT_PLACES + 1000 + number) for number in range(owners)]
        self.pool_checks = pools_module.PoolChecks(self)
        workers = pools_module.WORKERS if self.knobs.pools else 0
        self.pool_workers = [pools_module.PoolWorker(self, CLIENT_PLACES + 4000 + number) for number in range(workers)]
        self.data = data_module.DataWork(self) if self.knobs.data else None
        self.users = users_module.UserWork(self) if self.knobs.users else None
        self._next_place = CLIENT_PLACES
        self.nemesis = Nemesis(self)

    def stream(self, name: str) -> Random:
        """Chance for one part of the world, so that a change in one does not change all others."""
        return self.stream_of(self.seed, name)

    @staticmethod
    def stream_of(seed: int, name: str) -> Random:
        """The same, before there is a world."""
        return Random(f"{seed} {name}")

    def founders(self) -> list[tuple[NodeId, str, str]]:
        """Id, name and peer address of the initial members."""
        return [
            (node_id, self.machines[node_id].name, self.machines[node_id].peer_address)
            for node_id in sorted(self.initial_configuration.voters)
        ]

    def configuration_known_by(self, node_id: NodeId) -> Configuration:
        """Before its log says anything: the founders know each other, whoever joins knows nobody."""
        return (
            self.initial_configuration if node_id in self.initial_configuration.voters else Configuration(frozenset())
        )

    def members_now(self) -> frozenset[NodeId]:
        """What somebody would tell a new client: the members as of the last committed configuration, and of the latest anywhere."""
        known = {self.checks.latest_configuration()}
        known |= {machine.process.raft.configuration for machine in self.machines.values() if machine.process}
        return frozenset().union(*(configuration.members() for configuration in known))

    def endpoints_now(self) -> tuple[str, ...]:
        return tuple(self.machines[node_id].address for node_id in sorted(self.members_now()))

    def caller_of(self, place: int) -> Caller:
        """Who the client at a place is, as if it had logged in."""
        return users_module.caller_of(place) if self.knobs.users else ANYBODY

    def machine_at(self, address: str) -> Machine:
        return self._machine_at[address]

    # Time.

    def push(self, at_us: int, callback: Callable[..., None], arguments: tuple[Any, ...] = ()) -> None:
        """Call back at a time of the world."""
        self._number += 1
        heapq.heappush(self._heap, (at_us if at_us > self.now_us else self.now_us, self._number, callback, arguments))

    def after(self, delay_us: int, callback: Callable[..., None], arguments: tuple[Any, ...] = ()) -> None:
        """Call back after so many microseconds."""
        self._number += 1
        heapq.heappush(self._heap, (self.now_us + delay_us, self._number, callback, arguments))

    def run_until(self, until_us: int, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Let events happen until that time, or until it is over (asked every hundred events). True when it is."""
        heap, pop = self._heap, heapq.heappop
        countdown = 100
        while heap and heap[0][0] <= until_us:
            self.now_us, _, callback, arguments = pop(heap)
            self.events += 1
            callback(*arguments)
            countdown -= 1
            if not countdown:
                countdown = 100
                if is_over():
                    return True
                if self.events > EVENTS_MAX:
                    self.checks.violate(f"no end after {EVENTS_MAX} events")
        self.now_us = max(self.now_us, until_us)
        return is_over()

    def tell(self, text: str) -> None:
        """A line of the story."""
        if self.story is not None:
            self.story(f"{self.now_us / 1e6:11.6f}  {text}")

    def draw_member_id(self) -> NodeId:
        """The id of the machine that is being added."""
        return self.nemesis.newcomer

    # A whole run.

    def run(self) -> None:
        """Raises Violation, or AssertionError for an invariant of the code itself."""
        self.begin()
        self.run_until(self.knobs.chaos_us)
        self.heal_and_demand_progress()
        self.rest_and_compare()
        self.judge()

    def begin(self) -> None:
        """Everybody starts."""
        for machine in self.machines.values():
            if machine.node_id in self.initial_configuration.voters:
                machine.start()
        for _ in range(self.knobs.clients):
            self.add_client()
        for owner in self.owners:
            owner.start()
        for worker in self.pool_workers:
            worker.start()
        if self.data is not None:
            self.data.start()
        if self.users is not None:
            self.users.start()
        self.nemesis.start()

    def add_client(self) -> None:
        client = SimClient(self, self._next_place)
        self._next_place += 1
        workload = Workload(self, client)
        self.clients.append(client)
        self.workloads.append(workload)
        workload.start()

    def replace_client(self, number: int) -> None:
        """One dies, another one comes."""
        self.clients[number].vanish()
        del self.clients[number], self.workloads[number]
        self.add_client()

    def heal_and_demand_progress(self) -> None:
        """Faults are over for a majority: every client has to be served again."""
        self.tell("the faults are over")
        self.nemesis.stop()
        callers = [
            *self.workloads,
            *self.owners,
            *self.pool_workers,
            *(self.data.callers if self.data is not None else ()),
        ]
        if self.knobs.spares:
            # All that a client was told may be gone by now, faster than a connection's lifetime: somebody tells it anew.
            watching = [*(self.data.clients if self.data else ()), *(self.users.clients if self.users else ())]
            for client in (*(caller.client for caller in callers), *watching):
                client.directory.endpoints = self.endpoints_now()
        goals = [(caller, caller.completed + CALLS_DEMANDED) for caller in callers]

        def served() -> bool:
            return all(workload.completed >= goal for workload, goal in goals)

        if not self.run_until(self.now_us + QUIET_US_MAX, served):
            waiting = [workload.client.place for workload, goal in goals if workload.completed < goal]
            self.checks.violate(
                f"no progress {QUIET_US_MAX // 10**6} s after the faults: clients {waiting}; {self.state()}"
            )

    def rest_and_compare(self) -> None:
        """Clients rest; every member that can be reached comes to the same state."""
        everybody: list[Any] = [*self.workloads, *self.owners, *self.pool_workers]
        for workload in everybody:
            workload.resting = True
        if self.data is not None:
            self.data.rest()
        if self.users is not None:
            self.users.resting = True

        def settled() -> bool:
            return self._is_settled()

        if not self.run_until(self.now_us + QUIET_US_MAX, settled):
            self.checks.violate(f"the members do not come to rest at one index: {self.state()}")
        if self.data is not None:
            self._demand_that_watches_end_up(self.data)

    def _demand_that_watches_end_up(self, data: data_module.DataWork) -> None:
        """Every watch hears of the last revision, by an event or by word of progress."""
        watching, revision = data.watching, max(m.process.storage.revision for m in self.machines.values() if m.process)
        if not self.run_until(self.now_us + QUIET_US_MAX, lambda: all(w.told(revision) for w in watching)):
            places = [f"{watch} is at {watch.state.next_revision}" for w in watching for watch in w.watches]
            self.checks.violate(f"not all watches hear of revision {revision}: {places}; {self.state()}")

    def _is_settled(self) -> bool:
        last = len(self.checks.committed) - 1
        leaders = [machine for machine in self.machines.values() if machine.process and machine.process.state.is_leader]
        if not leaders:
            return False
        leader = max(leaders, key=lambda machine: machine.books.term)
        assert leader.process is not None, "it leads"
        members = leader.process.raft.configuration.members()
        if len(leader.process.storage.leases):
            return False  # nobody keeps them alive any more
        waited_for = [self.machines[node_id] for node_id in members if self._is_reachable(self.machines[node_id])]
        return all(
            machine.process is not None and machine.process.storage.applied_index == last for machine in waited_for
        )

    def _is_reachable(self, machine: Machine) -> bool:
        """Whether it must catch up: healthy, and connected with the others."""
        if machine.rotten or machine.held_down or machine.disk_is_full or machine.retired:
            return False
        return not any(machine.node_id in way for way in self.network.cuts)

    def judge(self) -> None:
        """What can be said only at the end."""
        ledger = Ledger(self.knobs.limits) if self.data is not None else None
        store, _ = self.checks.replay(ledger)
        if store._state.pools.requests:
            self.checks.violate(f"the dead hold on to {sorted(store._state.pools.requests)}")
        self.history.judge()
        self.history.judge_once(_contents(store))
        if self.data is not None and ledger is not None:
            self.data.judge(ledger)

    def state(self) -> str:
        """One line about everybody, for a violation's message."""
        return "; ".join(
            f"{machine.name} "
            + (
                ("rotten" if machine.rotten else "down")
                if machine.process is None
                else f"{machine.process.raft.role} term {machine.process.raft.term} commit {machine.process.raft.commit_index}"
                f" last {machine.process.raft.last_index} applied {machine.process.storage.applied_index}"
            )
            for machine in self.machines.values()
        )


def _contents(store: Store) -> dict[bytes, tuple[bytes, int]]:
    """Value and version of every key."""
    found: dict[bytes, tuple[bytes, int]] = {}
    key = b"\0"
    while True:
        answer = store.read([RANGE, 0, key, b"\0", 0, 0, 0, 0, 0, 0, 0, 0])
        for name, _, _, version, _, value in answer[2]:
            found[name] = (value, version)
        if not answer[3]:
            return found
        key = answer[2][-1][0] + b"\0"
