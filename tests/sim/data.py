"""Worlds in which the whole data model is used at once: watches, transactions, reads of the past, waits, and compactions under all of them.

History is kept for seconds or a few revisions, queues hold a few events, so every slow path is the usual one. The judges replay the
committed log once and ask it (ledger.py); the stores of the members are compared with it, too, as far back as they must remember.
"""

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, Final

from raftkv.client import requests
from raftkv.client.decisions import WRITE
from raftkv.errors import RaftKVError
from raftkv.store.history import position_of, read_events
from raftkv.store.records import revision_of
from raftkv.units import Revision
from raftkv.wire.commands import RANGE, Answer

from .client import SimClient
from .ledger import Ledger
from .transactions import Transactor
from .waits import Waiter
from .watchers import WatchingClient

if TYPE_CHECKING:
    from .knobs import Knobs
    from .process import Process
    from .world import World

WATCHERS: Final = 2
TRANSACTORS: Final = 2
WAITERS: Final = 1
FIRST_PLACE: Final = 3000
ALL_EVENTS: Final = 10**6


def adapt(knobs: "Knobs", random: Random) -> None:
    """Bounds that are met within seconds."""
    knobs.data = True
    knobs.limits = replace(
        knobs.limits,
        history_revisions_max=random.choice((20, 200, 10**6)),
        history_ms_max=random.choice((1_500, 10_000, 3_600_000)),
        watch_queue_events_max=random.choice((1, 3, 4_096)),
        watch_queue_bytes_max=random.choice((200, 1 << 20)),
        watch_fragment_bytes=random.choice((1, 100, 1 << 19)),
        watch_buffer_bytes_max=random.choice((100, 2_000, 1 << 20)),
        watch_progress_interval_ms=random.choice((100, 1_000)),
        waits_max=random.choice((2, 100_000)),
    )
    knobs.history_events_per_step = random.choice((1, 7, 512))
    knobs.compact_us = random.choice((0, 500_000, 3_000_000))


class DataWork:
    """All that such a world has on top of another."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = world.stream("compactions")
        places = iter(range(FIRST_PLACE, FIRST_PLACE + 100))
        self.watching = [WatchingClient(world, next(places)) for _ in range(WATCHERS)]
        self.transactors = [Transactor(world, next(places)) for _ in range(TRANSACTORS)]
        self.waiters = [Waiter(world, next(places)) for _ in range(WAITERS)]
        self._operator = SimClient(world, next(places))
        self._refused: list[tuple[Revision, str]] = []
        self.compactions = 0

    @property
    def callers(self) -> list[Any]:
        """Those whose calls have to come to an end."""
        return [*self.transactors, *self.waiters]

    @property
    def clients(self) -> list[Any]:
        """Those that sit somewhere in the network, and know members."""
        return [*self.watching, self._operator, *(caller.client for caller in self.callers)]

    def start(self) -> None:
        for part in (*self.watching, *self.callers):
            part.start()
        self._later()

    # An operator who compacts.

    def _later(self) -> None:
        mean_us = self._world.knobs.compact_us
        if mean_us:
            self._world.after(int(self._random.expovariate(1 / mean_us)) + 1, self._compact)

    def _compact(self) -> None:
        if self.callers[0].resting:
            return
        revision = max(1, self._world.history.revision_seen - self._random.choice((0, 3, 50)))

        def done(answer: Answer | None, error: RaftKVError | None) -> None:
            self._world.tell(f"compact {revision}: {answer or repr(error)}")
            self.compactions += answer is not None
            if error is not None:
                self._refused.append((revision, error.code))
            self._later()

        self._operator.submit(requests.compact(revision), WRITE, done)

    # The end.

    def rest(self) -> None:
        """Who is slow is so no more."""
        for part in (*self.watching, *self.callers):
            part.resting = True

    def judge(self, ledger: Ledger) -> None:
        for part in (*self.watching, *self.callers):
            part.judge(ledger)
        for revision, code in self._refused:
            if code == "future_revision" or (code == "compacted" and revision > ledger.compact_revision):
                self._world.checks.violate(f"compact {revision} is refused with {code}")
        for machine in self._world.machines.values():
            if machine.process is not None and not machine.process.storage.is_replacing:
                self._judge_member(machine.process, ledger)

    def _judge_member(self, process: "Process", ledger: Ledger) -> None:
        """All that may be read there is what the log says, to the oldest revision that is not compacted."""
        store, name = process.storage.store, process.machine.name
        oldest, newest = max(store.compact_revision, 1), store.revision
        for revision in sorted({oldest, (oldest + newest) // 2, newest}):
            found = store.read([RANGE, 0, b"\0", b"\0", 0, revision, 0, 0, 0, 0, 0, 0])[2]
            expected = ledger.range_at(b"\0", None, revision)
            if found != expected:
                self._world.checks.violate(f"{name} at revision {revision} has {found}, the log says {expected}")
        records, _ = read_events(store._mvcc, position_of(oldest), ALL_EVENTS, 1 << 30)
        expected_records = [
            record for revision in range(oldest, newest + 1) for record in ledger.events.get(revision, ())
        ]
        if records != expected_records:
            of = [sorted({revision_of(record) for record in some}) for some in (records, expected_records)]
            self._world.checks.violate(f"{name} has the events of revisions {of[0]}, the log has those of {of[1]}")
