"""`python -m tests.sim --scale`: what distance and loss cost, on paper and in the simulator, side by side.

Members are far from each other, clients sit beside each of them. A *round trip* R is what a message and its answer need between two
members; S is a sync of the disk, c what a client and its member need. On paper:

- a write takes R + S + c: entries go out while the leader's own disk works, and the majority's answers come together. At most two
  entries are open, and who comes meanwhile waits for up to half as long again; a disk that is at work makes an entry wait for another S.
  So C callers that wait for their answers get between C / (1.5 (R + 2S) + c) and C / (R + S + c) writes a second, however many members;
- a read takes between R + c and 2(R + H) + c: whoever comes during a round of ReadIndex shares the next one, which begins with the next
  heartbeat, H later at most, when a round for others is on its way. A follower's question adds R;
- an election takes what the quickest of the k members that are left waits, T(1 + 1/(k+1)) after the last heartbeat, and 2(R + S) for the
  pre-vote and the vote. It has to be repeated when too many others stand before they hear of the first, which is R/2 later;
- loss delays single followers for about 2R; a majority without them is there nearly always, so it costs a few percent at most.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import comb
from random import Random
from statistics import mean
from typing import Any

from raftkv.limits import Limits
from raftkv_jepsen.checkers.models import READ, WRITE

from .client import SimClient
from .knobs import Knobs
from .machine import Machine
from .network import CLIENT_PLACES
from .workload import Keys, Workload
from .world import World

SYNC_US = (1_000, 2_000)
NEAR_US = (100, 300)  # one way between a client and its member
ELECTION_TIMEOUT_US = 1_000_000
HEARTBEAT_US = 100_000
CALLERS = 32
CALLER_US = 2 * mean(NEAR_US) + 1_000  # c: there, back, and a moment to think
SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """One row: how many members, how far from each other, and what gets lost."""

    members: int
    round_trip_us: int
    loss: float

    @property
    def round_us(self) -> float:
        """R: the distance, and what every message takes."""
        return self.round_trip_us + 2 * mean(NEAR_US)


@dataclass(slots=True)
class Measured:
    """What the simulator says of a row. Rates in calls a second, times in seconds."""

    writes: float
    reads: float
    elections_s: list[float]
    terms: list[int]  # that each election took
    disturbed: int  # changes of the term while nothing was wrong


PLACES = [
    Place(members, round_trip_us, loss)
    for members, round_trip_us, loss in product((5, 7), (0, 200_000, 400_000), (0.0, 0.01))
]


class Registers(Keys):
    """Keys that are only written and read as a whole."""

    def draw(self, random: Random) -> str:
        return "r" + super().draw(random)[1:]


class Callers(Workload):
    """A client that calls again as soon as it is answered, always the same."""

    function = WRITE

    def _draw_operation(self, key: str) -> tuple[str, Any]:
        if self.function == READ:
            return READ, None
        self._number += 1
        return WRITE, b"%d.%d" % (self.client.place, self._number)


class Scale:
    """A world at one place, with all checks on."""

    def __init__(self, place: Place, seed: int = 1) -> None:
        knobs = Knobs(
            members=place.members,
            clients=0,
            nemesis_us=0,
            fast_failover=False,  # the leader's power is lost: nobody resets anything
            latency_us=NEAR_US,
            sync_us=SYNC_US,
            think_us=1,
            pipelined=4,
            limits=Limits(wal_segment_bytes=131_072),
        )
        self.place = place
        self.world = World(seed, knobs=knobs)
        self.world.keys = Registers(16, 40)  # the judges' work grows with the calls that are open on a key
        self._random = self.world.stream("scale")
        members = self.world.machines
        for ways in product(members, members):
            self.world.network.slow[ways] = place.round_trip_us // 2
        if place.loss:
            self.world.network.is_lost = lambda message: self._random.random() < place.loss
        self.world.begin()
        self.new_leader()

    def leader(self) -> Machine | None:
        """Whoever leads in the newest term."""
        leading = [machine for machine in self.world.machines.values() if machine.process and machine.books.is_leader]
        return max(leading, key=lambda machine: machine.books.term, default=None)

    def new_leader(self) -> Machine:
        self.wait(lambda: self.leader() is not None)
        leader = self.leader()
        assert leader is not None, "it was waited for"
        return leader

    def wait(self, condition: Callable[[], bool], step_us: int = 5_000) -> None:
        ends_us = self.world.now_us + 120_000_000
        while not condition():
            if self.world.now_us >= ends_us:
                self.world.checks.violate(f"two minutes were not enough: {self.world.state()}")
            self.world.run_until(self.world.now_us + step_us)

    def rate(self, function: str, seconds: float) -> float:
        """Answers a second to CALLERS that wait for theirs."""
        world = self.world
        callers = []
        for _ in range(CALLERS // world.knobs.pipelined):
            client = SimClient(world, CLIENT_PLACES + len(world.clients))
            workload = Callers(world, client)
            workload.function = function
            world.clients.append(client)
            callers.append(workload)
            workload.start()
        settle_us = 4 * self.place.round_trip_us + 20_000
        world.run_until(world.now_us + settle_us)
        before = sum(caller.completed for caller in callers)
        world.run_until(world.now_us + int(seconds * 1e6))
        done = sum(caller.completed for caller in callers) - before
        for caller in callers:
            caller.resting = True
        world.run_until(world.now_us + settle_us)
        return done / seconds

    def elect(self) -> tuple[float, int]:
        """The leader's power is lost: seconds until the next one leads, and the terms that it took. Then all are up again."""
        leader = self.new_leader()
        term, lost_us = leader.books.term, self.world.now_us
        leader.held_down = True
        leader.lose_power()
        self.wait(lambda: (new := self.leader()) is not None and new is not leader)
        took_us, terms = self.world.now_us - lost_us, self.new_leader().books.term - term
        leader.held_down = False
        leader.start()
        # Until it follows, and somewhere between two heartbeats.
        self.world.run_until(self.world.now_us + 4 * self.place.round_trip_us + 500_000)
        self.world.run_until(self.world.now_us + int(self._random.random() * 100_000))
        return took_us / 1e6, terms


def measure(place: Place, *, elections: int, seconds: float) -> Measured:
    """Run a row. Raises Violation."""
    scale = Scale(place)
    if not place.round_trip_us:
        seconds /= 50  # there are so many calls in a second
    term = scale.new_leader().books.term
    writes, reads = scale.rate(WRITE, seconds), scale.rate(READ, seconds)
    disturbed = scale.new_leader().books.term - term
    took = [scale.elect() for _ in range(elections)]
    scale.world.judge()
    return Measured(writes, reads, [s for s, _ in took], [terms for _, terms in took], disturbed)


# On paper.


def writes_on_paper(place: Place) -> tuple[float, float]:
    """The least and the most writes a second."""
    sync_us = mean(SYNC_US)
    slow_us = 1.5 * (place.round_us + 2 * sync_us) + CALLER_US
    return CALLERS * 1e6 / slow_us, CALLERS * 1e6 / (place.round_us + sync_us + CALLER_US)


def reads_on_paper(place: Place) -> tuple[float, float]:
    """The least and the most reads a second: everybody waits for a whole round before his own, or for none."""
    heartbeat_us = HEARTBEAT_US if place.round_trip_us else 0  # near by, a round is over long before
    slow_us = 2 * (place.round_us + heartbeat_us) + CALLER_US
    return CALLERS * 1e6 / slow_us, CALLERS * 1e6 / (place.round_us + CALLER_US)


def election_on_paper(place: Place) -> tuple[float, float]:
    """Seconds from the leader's death to the next leader, and the share of elections that have to be repeated."""
    left = place.members - 1
    timeout_s, round_s = ELECTION_TIMEOUT_US / 1e6, place.round_us / 1e6
    split = split_share(place.members, round_s / 2 / timeout_s)
    once_s = timeout_s * (1 + 1 / (left + 1)) + 2 * (round_s + mean(SYNC_US) / 1e6)
    # The last heartbeat was on its way for R/2, and was sent 50 ms before the death, on average.
    return round_s / 2 - 0.05 + once_s + split / (1 - split) * once_s, split


def split_share(members: int, window: float) -> float:
    """How often too many stand at once. `window`: R/2 as a share of the election timeout.

    Of the k members that are left the first gets the votes of all that do not stand within the window after it; with its own they
    have to be a majority of all members. Averaged over where the first draw falls.
    """
    left = members - 1
    others, rivals_max = left - 1, left - (members // 2 + 1)
    total = 0.0
    for number in range(SAMPLES):
        first = 1 - (1 - (number + 0.5) / SAMPLES) ** (1 / left)  # the smallest of `left` draws
        near = min(1.0, window / (1 - first))
        total += sum(
            comb(others, rivals) * near**rivals * (1 - near) ** (others - rivals)
            for rivals in range(rivals_max + 1, others + 1)
        )
    return total / SAMPLES


# The table.


def table(elections: int = 100, seconds: float = 20.0) -> Iterator[str]:
    """Markdown, row by row."""
    yield "| members | round trip | loss | writes/s: paper | simulated | reads/s: paper | simulated | election: paper | simulated | worst | repeated: paper | simulated | lost office |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for place in PLACES:
        measured = measure(place, elections=elections, seconds=seconds)
        writes, reads = writes_on_paper(place), reads_on_paper(place)
        election_s, split = election_on_paper(place)
        repeated = sum(terms > 1 for terms in measured.terms) / len(measured.terms)
        yield (
            f"| {place.members} | {place.round_trip_us // 1000} ms | {place.loss:.0%}"
            f" | {writes[0]:.0f} to {writes[1]:.0f} | {measured.writes:.0f} | {reads[0]:.0f} to {reads[1]:.0f} | {measured.reads:.0f}"
            f" | {election_s:.2f} s | {mean(measured.elections_s):.2f} s | {max(measured.elections_s):.2f} s"
            f" | {split:.0%} | {repeated:.0%} | {measured.disturbed} |"
        )


__all__ = ["PLACES", "Place", "election_on_paper", "measure", "reads_on_paper", "table", "writes_on_paper"]
