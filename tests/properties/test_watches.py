"""Watches against a plain list of all events: random writes, compactions, commits, restarts, and sinks that come and go.

Every watch hears exactly the events of its range, in order, each revision whole before the next one; or it is told that what it
wants is compacted, and then that is so. Queues and slices are tiny, so that most of it goes the slow way.
"""

from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkv.errors import Compacted
from raftkv.limits import MIB, Limits
from raftkv.store import compaction, pages, topics, watches
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.store import Store
from raftkv.store.watcher import Watcher
from raftkv.store.watches import WatchHub
from raftkv.wire.commands import COMPACT, DELETE_RANGE, PUT, TXN
from raftkv.wire.protocol import WATCH_CREATE
from raftkv.wire.watching import NO_DELETE, NO_PUT, WATCH_PREV_KV
from tests.unit.store.stores import Driver, delete, put, txn
from tests.unit.store.watching import RecordingSink

LIMITS = Limits(map_bytes=16 * MIB, watch_queue_events_max=3, watch_queue_bytes_max=400, watch_fragment_bytes=150)
KEYS = [b"\0", b"a", b"a/1", b"a/2", b"a0", b"b", b"\xff", b"p" * 500]
ENDS = [b"", b"", b"\0", b"a0", b"b", b"c"]


class History:
    """All events that ever were: (revision, key, kind, value, record before the revision)."""

    def __init__(self) -> None:
        self.events: list[tuple[int, bytes, int, bytes, bytes | None]] = []
        self.revision = 1
        self.compacted = -1
        self.values: dict[bytes, bytes] = {}

    def apply(self, command: list[Any]) -> None:
        if command[0] == COMPACT:
            if self.compacted < command[2] <= self.revision:
                self.compacted = command[2]
            return
        before = dict(self.values)
        found: list[tuple[int, bytes, int, bytes, bytes | None]] = []
        for operation in command[3] if command[0] == TXN else [command]:
            if operation[0] == PUT:
                self.values[operation[2]] = operation[3]
                found.append((self.revision + 1, operation[2], 0, operation[3], before.get(operation[2])))
            else:
                assert operation[0] == DELETE_RANGE
                for key in sorted(key for key in self.values if inside(key, operation[2], operation[3])):
                    del self.values[key]
                    found.append((self.revision + 1, key, 1, b"", before.get(key)))
        if found:
            self.revision += 1
            self.events += found


def inside(key: bytes, start: bytes, end: bytes) -> bool:
    return key == start if not end else key >= start and (end == b"\0" or key < end)


class Watch:
    def __init__(self, tag: int, command: list[Any], sink: RecordingSink, first_revision: int) -> None:
        self.tag, self.command, self.sink, self.first_revision = tag, command, sink, first_revision
        self.watcher: Watcher
        self.over = False

    def expected(self, history: History) -> list[tuple[int, bytes, int, bytes, bytes | None]]:
        _, key, end, _, flags = self.command
        hidden = NO_PUT, NO_DELETE
        return [
            event
            for event in history.events
            if event[0] >= self.first_revision and inside(event[1], key, end) and not flags & hidden[event[2]]
        ]

    def heard(self) -> list[tuple[int, bytes, int, bytes]]:
        return [(kv[2], kv[0], kind, kv[5]) for kind, kv, _ in self.sink.events.get(self.tag, [])]


class World:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.driver = Driver(MemoryKeyspace(), LIMITS)
        self.hub = WatchHub(LIMITS)
        self.driver.store.tell(self.hub)
        self.history = History()
        self.sinks = [RecordingSink() for _ in range(3)]
        self.watches: list[Watch] = []
        self.told: list[tuple[int, RecordingSink]] = []

    def write(self) -> None:
        commands = [self.command() for _ in range(self.random.choice([1, 1, 2, 5]))]
        self.driver.apply(*commands)
        for command in commands:
            self.history.apply(command)
        assert self.driver.store.revision == self.history.revision

    def command(self) -> list[Any]:
        random = self.random
        kind = random.randrange(10)
        if kind == 0:
            return [COMPACT, 0, random.randint(0, self.history.revision)]
        if kind < 3:
            return delete(random.choice(KEYS), random.choice(ENDS))
        if kind < 5:
            chosen = random.sample(KEYS, random.randint(1, 6))
            return txn([], [put(key, b"%d" % random.randrange(100)) for key in chosen], [])
        return put(random.choice(KEYS), b"v" * random.choice([0, 1, 60]))

    def watch(self) -> None:
        random = self.random
        start = random.choice([0, 0, random.randint(1, self.history.revision + 3)])
        flags = random.choice([0, WATCH_PREV_KV, NO_PUT, NO_DELETE, NO_DELETE | WATCH_PREV_KV])
        command = [WATCH_CREATE, random.choice(KEYS[:-1]), random.choice(ENDS), start, flags]
        if self.watches and random.random() < 0.5:
            command = random.choice(self.watches).command  # several of one range are handed the same
            start = command[3]
        if command[2] not in (b"", b"\0") and command[1] >= command[2]:
            return
        watch = Watch(len(self.watches) + 1, command, random.choice(self.sinks), start or self.history.revision + 1)
        try:
            watch.watcher, revision = self.hub.create(command, watch.sink, watch.tag)
        except Compacted:
            assert 0 < start < self.history.compacted
            return
        assert revision == self.history.revision
        self.watches.append(watch)

    def cancel(self) -> None:
        if self.watches:
            watch = self.random.choice(self.watches)
            self.hub.cancel(watch.watcher)
            watch.over = True

    def blink(self) -> None:
        sink = self.random.choice(self.sinks)
        sink.open = self.random.random() < 0.6
        sink.batches_left = self.random.choice([1, 2, 1 << 30])

    def restart(self) -> None:
        """The store goes away and another comes, with a part of the log applied, as after a snapshot; then the rest follows."""
        self.driver.store.close()
        self.hub.step()
        store = Store.open(self.driver.store.keyspace, LIMITS)
        log = self.driver.log
        split = self.random.randint(store.applied_index, len(log))
        for entry in log[store.applied_index : split]:
            store.apply(entry)
        if store.revision < self.hub._fed_revision:
            for entry in log[split:]:
                store.apply(entry)
        store.tell(self.hub)
        for entry in log[store.applied_index :]:
            store.apply(entry)
        self.driver.store = store

    def commit(self) -> None:
        job = self.driver.store.freeze()
        if job is not None:
            if self.random.random() < 0.5:
                self.hub.step()
            job.run()
            self.driver.store.thaw(job)

    def ask(self) -> None:
        sink = self.random.choice(self.sinks)

        def done(revision: int) -> None:
            for watch in self.watches:
                if watch.sink is sink and not watch.over and watch.tag not in sink.canceled:
                    missing = [event for event in watch.expected(self.history) if event[0] <= revision]
                    assert len(watch.heard()) == len(missing), "progress does not overtake events"

        self.hub.request_progress(sink, done)

    def check(self) -> None:
        for watch in self.watches:
            expected, heard = watch.expected(self.history), watch.heard()
            assert heard == [event[:4] for event in expected[: len(heard)]]
            if watch.command[4] & WATCH_PREV_KV:
                for (_, _, prev), event in zip(watch.sink.events.get(watch.tag, []), expected, strict=False):
                    assert (prev and prev[5]) == event[4] or (prev is None and event[0] <= self.history.compacted)
            if watch.tag in watch.sink.canceled:
                assert watch.sink.canceled[watch.tag].code == "compacted"
                assert not heard or heard[-1][0] <= self.history.compacted, "it had not come past what is gone"

    def finish(self) -> None:
        for sink in self.sinks:
            sink.open, sink.batches_left = True, 1 << 30
        for _ in range(10_000):
            if not self.hub.has_backlog and not self.hub.lagging_count:
                break
            self.hub.step()
        self.hub.step()
        for watch in self.watches:
            if not watch.over and watch.tag not in watch.sink.canceled:
                assert watch.heard() == [event[:4] for event in watch.expected(self.history)]
                assert not watch.sink.promised.get(watch.tag)
        assert not self.hub._questions


STEPS = {"write": 10, "watch": 3, "cancel": 1, "blink": 4, "restart": 1, "commit": 3, "ask": 1, "step": 8, "compact": 3}


@pytest.fixture(autouse=True)
def _tiny_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "HISTORY_EVENTS_PER_STEP", 3)
    monkeypatch.setattr(watches, "HISTORY_BYTES_PER_STEP", 300)
    monkeypatch.setattr(watches, "LAGGING_PER_STEP", 2)
    monkeypatch.setattr(watches, "BYTES_PER_STEP", 500)
    monkeypatch.setattr(watches, "LAGGING_EXAMINED_PER_STEP", 3)
    monkeypatch.setattr(watches, "DELIVERIES_PER_STEP", 2)
    monkeypatch.setattr(pages, "PAGE_EVENTS_MAX", 3)
    monkeypatch.setattr(topics, "PREFIX_LENGTHS_MAX", 1)
    monkeypatch.setattr(compaction, "WALK_ITEMS", 3)
    monkeypatch.setattr(compaction, "ROUND_EVENTS_MAX", 4)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**48), length=st.integers(10, 150))
def test_every_watch_hears_exactly_its_events(seed: int, length: int) -> None:
    world = World(seed)
    for name in world.random.choices(list(STEPS), weights=list(STEPS.values()), k=length):
        if name == "step":
            world.hub.step()
        elif name == "compact":
            world.driver.store.compaction.step()
        else:
            getattr(world, name)()
        world.check()
    world.finish()
