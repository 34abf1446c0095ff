"""Leases as a workload: owners that keep theirs alive for a while and then do not, and what every one of them was promised.

A promise is a moment of virtual time: when the request was sent, plus the time that was answered, by the fastest clock that a leader
may have. A lease that ends before it, by anything but its owner's revoke, breaks the promise (etcd#9888, #15247 are of this kind).
At the end no lease may be left. Worlds with leases have no clocks that leap: those owe nobody anything.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Sequence

from raftkv.client import requests
from raftkv.client.decisions import QUESTION, WRITE
from raftkv.errors import RaftKVError
from raftkv.wire.commands import Answer, Command

from .client import SimClient

if TYPE_CHECKING:
    from .knobs import Knobs
    from .world import World

OWNERS = 3
CLOCK_DISASTERS = ("clock_jump", "drift")
ROUNDING_US = 2_000  # clocks are read in whole milliseconds


def adapt(knobs: "Knobs") -> None:
    """Leases that are short enough to end within seconds."""
    knobs.disasters = tuple(name for name in knobs.disasters if name not in CLOCK_DISASTERS)
    knobs.limits = replace(knobs.limits, lease_ttl_ms_min=400, lease_expiry_keys_max=2)


class Promises:
    """Up to when each lease has to live, and when it ended."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._until_us: dict[int, int] = {}
        self._ended_us: dict[int, int] = {}
        self._given_up: set[int] = set()
        self.expired = 0

    def promise(self, lease_id: int, sent_us: int, ttl_ms: int) -> None:
        """An owner was told so."""
        until_us = sent_us + int(ttl_ms * 1000 / (1 + self._world.knobs.drift_max)) - ROUNDING_US
        self._until_us[lease_id] = max(until_us, self._until_us.get(lease_id, 0))
        self._compare(lease_id)

    def give_up(self, lease_id: int) -> None:
        """Its owner is about to revoke it."""
        self._given_up.add(lease_id)

    def on_news(self, news: Sequence[tuple[int, bool]]) -> None:
        """A member has applied an entry in which these began or ended."""
        for lease_id, granted in news:
            if not granted and lease_id not in self._ended_us:
                self._ended_us[lease_id] = self._world.now_us
                self.expired += lease_id not in self._given_up
                self._compare(lease_id)

    def _compare(self, lease_id: int) -> None:
        ended_us, until_us = self._ended_us.get(lease_id), self._until_us.get(lease_id, 0)
        if ended_us is not None and ended_us < until_us and lease_id not in self._given_up:
            self._world.checks.violate(
                f"lease {lease_id} ended at {ended_us / 1e6:.6f} s and was promised until {until_us / 1e6:.6f} s"
            )


class LeaseOwner:
    """Grants a lease, puts a key on it, renews it some times, and then revokes it or walks away."""

    def __init__(self, world: "World", place: int) -> None:
        self.client = SimClient(world, place)
        self.completed = 0
        self.resting = False
        self._world = world
        self._random = world.stream(f"lease owner {place}")
        self._number = 0
        self._lease = 0
        self._ttl_ms = 0
        self._renewals_left = 0

    def start(self) -> None:
        self._later(self._random.random() * 1e6, self._grant)

    def _later(self, delay_us: float, step: Any) -> None:
        self._world.after(int(delay_us) + 1000, self._step, (step,))

    def _step(self, step: Any) -> None:
        if not self.resting:
            step()

    def _ask(self, command: Command, kind: int, then: Any) -> None:
        sent_us = self._world.now_us

        def done(answer: Answer | None, error: RaftKVError | None) -> None:
            if answer is None:
                self._world.tell(f"owner {self.client.place}: {command} {error!r}")
                self._later(100_000, self._grant)  # whatever is left of the old one ends by itself
            else:
                self._world.tell(f"owner {self.client.place}: {command} {answer}")
                self.completed += 1
                then(sent_us, answer)

        self.client.submit(command, kind, done)

    def _grant(self) -> None:
        ttl_s = self._random.choice((0.1, 0.5, 1.0, 2.0, 4.0))
        self._ask(requests.lease_grant(ttl_s), WRITE, self._on_granted)

    def _on_granted(self, sent_us: int, answer: Answer) -> None:
        self._lease, self._ttl_ms = answer[2], answer[3]
        self._world.promises.promise(self._lease, sent_us, self._ttl_ms)
        self._renewals_left = self._random.choice((0, 1, 3, 10))
        self._number += 1
        key = f"lease/{self.client.place}.{self._number}"
        self._ask(requests.put(key, b"", lease=self._lease), WRITE, lambda *_: self._go_on())

    def _go_on(self) -> None:
        if self._renewals_left:
            self._renewals_left -= 1
            self._later(self._ttl_ms * 1000 * self._random.choice((0.1, 0.33, 0.7)), self._renew)
        elif self._random.random() < 0.2:
            self._world.promises.give_up(self._lease)
            self._ask(requests.lease_revoke(self._lease), WRITE, lambda *_: self._later(0, self._grant))
        else:
            self._later(self._ttl_ms * 2000, self._grant)

    def _renew(self) -> None:
        if self._random.random() < 0.3:
            self._ask(requests.lease_ttl(self._lease), QUESTION, self._on_told)
        else:
            self._ask(requests.keep_alive([self._lease]), QUESTION, self._on_renewed)

    def _on_renewed(self, sent_us: int, answer: Answer) -> None:
        (ttl_ms,) = answer[2]
        if ttl_ms:
            self._world.promises.promise(self._lease, sent_us, ttl_ms)
            self._go_on()
        else:
            self._later(0, self._grant)

    def _on_told(self, sent_us: int, answer: Answer) -> None:
        if answer[2] > 0:
            self._world.promises.promise(self._lease, sent_us, answer[2])
        self._go_on()
