"""Watches as a workload: the twin of client/watch_async.py on connections of the simulated network, to the real door and hub.

WatchState, Places and Directory are the client's own; what is told here is when they are asked. A client has several watches on one
connection, which it leaves when the member falls silent, refuses, or now and then for no reason. Some consumers are slow, some
clients do not read at all for a while. What a watch heard is judged at the end, against the committed log: exactly the events of its range, in order, those of a
revision together, up to where it says that it has heard everything.
"""

from typing import TYPE_CHECKING, Any, Final

from raftkv.client import verdict
from raftkv.client.endpoints import Directory
from raftkv.client.results import KeyValue
from raftkv.client.retry import default_attempt_timeout_s
from raftkv.client.watchstate import PASSING, Event, Only, Places, WatchBatch, WatchState, watch_command
from raftkv.client.wireconn import parse_handshake
from raftkv.errors import RaftKVError, WatchCompacted
from raftkv.store.records import DELETE_EVENT, POSITION_BYTES, key_of, key_value
from raftkv.units import Revision
from raftkv.wire.commands import OK, Answer, prefix_range_end
from raftkv.wire.protocol import PING, WATCH_CANCEL, WATCH_CREATE

from .door import Connection
from .ledger import Ledger

if TYPE_CHECKING:
    from .network import Place
    from .world import World

WATCHES: Final = 3  # of one client
LOOK_US: Final = 150_000
SILENCE_ATTEMPTS: Final = 3  # as in client/watch_async.py
QUEUE_EVENTS_MAX: Final = 6
DEAF_CHANCE: Final = 0.1
SLOW_CHANCE: Final = 0.3
REPLACE_CHANCE: Final = 0.03
BACK_MAX: Final = 300
AHEAD_MAX: Final = 20
PREFIXES: Final = (b"t/", b"r", b"n", b"a", b"w/", b"lease/")


class SimWatch:
    """One watch from its begin to its end, and all that it heard."""

    def __init__(self, start: bytes, end: bytes, revision: Revision, *, prev_kv: bool, only: Only | None) -> None:
        self.start, self.end = start, end
        self.from_revision = revision  # 0: from now, which is settled when it has begun
        self.prev_kv, self.only = prev_kv, only
        self.state = WatchState(
            watch_command(start, end, start_revision=revision, prev_kv=prev_kv, only=only), progress=False
        )
        self.heard: list[WatchBatch] = []
        self.queued_events = 0
        self.suspended = False
        self.request_id = 0
        self.floor: Revision = 0  # known to somebody when it was asked for
        self.gone: WatchCompacted | None = None

    def covers(self, key: bytes) -> bool:
        if not self.end:
            return key == self.start
        return self.start <= key and (self.end == b"\0" or key < self.end)

    def expected(self, ledger: Ledger, revision: Revision) -> list[Event]:
        """What it has to hear of one revision."""
        events = []
        for record in ledger.events.get(revision, ()):
            key = key_of(record)
            kind = "delete" if record[POSITION_BYTES] == DELETE_EVENT else "put"
            if not self.covers(key) or self.only not in (None, kind):
                continue
            items = key_value(record) if kind == "put" else [key, 0, revision, 0, 0, b""]
            prev = ledger.at(key, revision - 1) if self.prev_kv else None
            events.append(Event(kind, KeyValue(*items), None if prev is None else KeyValue(*prev)))
        return events

    def judge(self, ledger: Ledger) -> str:
        """What is wrong with what it heard; empty when nothing is."""
        heard = iter(self.heard)
        batch = next(heard, None)
        for revision in range(self.from_revision, self.state.next_revision):
            expected = self.expected(ledger, revision)
            if not expected:
                continue
            if batch is None or batch.revision != revision:
                return f"heard {_said(batch)} where revision {revision} was due"
            if batch.events != expected and not self._is_same(batch.events, expected, ledger):
                return f"heard {batch.events} of revision {revision}, it is {expected}"
            batch = next(heard, None)
        if batch is not None:
            return f"heard {_said(batch)}, which is not there, or twice"
        if (
            self.gone is not None
            and not self.state.next_revision < self.gone.compact_revision <= ledger.compact_revision
        ):
            return (
                f"was refused at {self.state.next_revision} for a compaction at {self.gone.compact_revision},"
                f" the log has one at {ledger.compact_revision}"
            )
        return ""

    @staticmethod
    def _is_same(heard: list[Event], expected: list[Event], ledger: Ledger) -> bool:
        """A previous value may be missing once history is gone."""
        return len(heard) == len(expected) and all(
            one[:2] == other[:2]
            and (one.prev_kv == other.prev_kv or (one.prev_kv is None and one.revision <= ledger.compact_revision))
            for one, other in zip(heard, expected, strict=True)
        )

    def __str__(self) -> str:
        only = f" only {self.only}" if self.only else ""
        return f"the watch of {self.start!r}..{self.end!r}{only} from {self.from_revision}"


def _said(batch: WatchBatch | None) -> str:
    return "nothing" if batch is None else f"{len(batch.events)} events of revision {batch.revision}"


class WatchingClient:
    """All watches of one client, as AsyncWatches."""

    def __init__(self, world: "World", place: "Place") -> None:
        self.place = place
        self.resting = False
        self.over: list[SimWatch] = []
        self.watches: list[SimWatch] = []
        self._world = world
        self._random = world.stream(f"watcher {place}")
        endpoints = list(world.endpoints_now())
        self._random.shuffle(endpoints)
        self.directory = Directory(endpoints)
        self._places = Places(self.directory, self._random.random)
        self._attempt_us = int(default_attempt_timeout_s(world.knobs.call_timeout_s) * 1e6)
        self._connection: Connection | None = None
        self._address = ""
        self._greeted = False
        self._heard_us = 0
        self._last_id = 0
        self._by_id: dict[int, SimWatch] = {}

    def start(self) -> None:
        self.watches = [self._draw() for _ in range(WATCHES)]
        self._seek()
        self._world.after(LOOK_US, self._look)

    def told(self, revision: Revision) -> bool:
        """Whether all of them have heard of everything up to there."""
        return all(watch.state.began and watch.state.next_revision > revision for watch in self.watches)

    def judge(self, ledger: Ledger) -> None:
        for watch in (*self.over, *self.watches):
            wrong = watch.judge(ledger)
            if wrong:
                self._world.checks.violate(f"{watch} of client {self.place} {wrong}")

    def _draw(self) -> SimWatch:
        random = self._random
        dice = random.random()
        if dice < 0.3:
            start, end = b"\0", b"\0"
        elif dice < 0.6:
            start = random.choice(PREFIXES)
            end = prefix_range_end(start)
        elif dice < 0.8:
            start, end = b"t/%d" % random.randrange(5), b""
        else:
            start, end = b"n", b"t/2"
        seen = self._world.history.revision_seen
        dice = random.random()
        revision = 0
        if dice < 0.4:
            revision = max(1, seen - random.randrange(BACK_MAX))
        elif dice < 0.5:
            revision = seen + random.randrange(AHEAD_MAX)
        only: Only | None = random.choice((None, None, None, "put", "delete"))
        return SimWatch(start, end, revision, prev_kv=random.random() < 0.5, only=only)

    # What its owner does.

    def _look(self) -> None:
        self._world.after(LOOK_US, self._look)
        random = self._random
        if self._connection is not None:
            self._connection.read_on(is_deaf=not self.resting and random.random() < DEAF_CHANCE)
        for watch in list(self.watches):
            if self.resting or random.random() > SLOW_CHANCE:
                watch.queued_events = 0
                if watch.suspended:
                    watch.suspended = False
                    self._create(watch)
            if not self.resting and random.random() < REPLACE_CHANCE:
                self._cancel(watch)
                self._replace(watch)
        if self._connection is not None and not self.resting and random.random() < self._world.knobs.watch_leave:
            self._lose(self._connection, verdict.lost("it wants to"))

    def _replace(self, watch: SimWatch) -> None:
        self.over.append(watch)
        self.watches.remove(watch)
        self.watches.append(self._draw())
        self._create(self.watches[-1])

    # The connection.

    def _seek(self) -> None:
        address, pause_s = self._places.choose(self._now())
        self._world.after(int(pause_s * 1e6) + 1, self._connect, (address,))

    def _connect(self, address: str) -> None:
        self._address, self._greeted = address, False
        connection = self._connection = Connection(self, self._world.machine_at(address), None)
        connection.connect()
        self._world.after(self._attempt_us, self._expect_greeting, (connection,))

    def _expect_greeting(self, connection: Connection) -> None:
        if connection is self._connection and not self._greeted:
            self._lose(connection, verdict.not_connected("timed out"))

    def on_greeted(self, connection: Connection, hello: dict[str, Any]) -> None:
        if connection is not self._connection:
            return
        self._greeted, self._heard_us = True, self._world.now_us
        self.directory.on_handshake(self._address, parse_handshake(hello))
        for watch in self.watches:
            if not watch.suspended:
                self._create(watch)
        self._world.after(self._attempt_us, self._attend, (connection,))

    def _attend(self, connection: Connection) -> None:
        """Signs of life, as in AsyncWatches._attend."""
        if connection is not self._connection:
            return
        if any(watch.request_id and watch.state.began for watch in self.watches):
            self._places.on_served()
        silent_us = self._world.now_us - self._heard_us
        if silent_us > SILENCE_ATTEMPTS * self._attempt_us:
            self._lose(connection, verdict.silence(False))
            return
        if silent_us >= self._attempt_us:
            self._send([PING])
        self._world.after(self._attempt_us, self._attend, (connection,))

    def on_reset(self, connection: Connection) -> None:
        self._lose(connection, verdict.lost("reset"))

    def _lose(self, connection: Connection, error: RaftKVError) -> None:
        if connection is not self._connection:
            return
        connection.close()
        self._connection, self._greeted = None, False
        self._by_id.clear()
        for watch in self.watches:
            watch.request_id = 0
        fatal = self._places.on_failed(self._address, self._now(), error)
        assert fatal is None, "there is one cluster"
        self._seek()

    def _send(self, command: list[Any]) -> int:
        assert self._connection is not None, "it is connected"
        self._last_id += 1
        self._connection.send(0, False, [(self._last_id, 0, command)])
        return self._last_id

    # One watch.

    def _create(self, watch: SimWatch) -> None:
        if self._greeted:
            watch.floor = self._world.history.revision_seen
            watch.request_id = self._send(watch.state.command())
            self._by_id[watch.request_id] = watch

    def _cancel(self, watch: SimWatch) -> None:
        if self._by_id.pop(watch.request_id, None) is not None:
            self._send([WATCH_CANCEL, watch.request_id])
        watch.request_id = 0

    def on_answers(self, connection: Connection, answers: list[tuple[int, Answer]]) -> None:
        if connection is not self._connection:
            return
        self._heard_us = self._world.now_us
        for request_id, answer in answers:
            watch = self._by_id.get(request_id)
            if watch is not None:
                self._receive(connection, watch, answer)

    def _receive(self, connection: Connection, watch: SimWatch, answer: Answer) -> None:
        state = watch.state
        if answer[0] == OK and answer[1] == WATCH_CREATE and answer[2] < watch.floor:
            self._world.checks.violate(f"{watch} begins at {answer[2]}, {watch.floor} was known before (6.4)")
        try:
            batches = state.receive(answer)
        except WatchCompacted as gone:
            watch.gone = gone
            self._by_id.pop(watch.request_id)
            self._replace(watch)
            return
        except RaftKVError as error:
            if error.code not in PASSING:
                self._world.checks.violate(f"{watch} is answered {error.code}: {error.message}")
            self._lose(connection, error)
            return
        watch.from_revision = watch.from_revision or state.next_revision
        watch.heard += batches
        for batch in batches:
            self._world.history.learn(batch.revision)
        watch.queued_events += sum(len(batch.events) for batch in batches)
        if watch.queued_events > QUEUE_EVENTS_MAX and not self.resting:
            self._cancel(watch)
            watch.suspended = True

    def _now(self) -> float:
        return self._world.now_us / 1e6
