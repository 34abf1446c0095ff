"""Bugs of watches, waits, transactions and compaction: store/watches.py and its neighbours, and the client's side. Their worlds use all of it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from raftkv.client.watchstate import WatchState
from raftkv.errors import RaftKVError
from raftkv.replica.service import Service
from raftkv.replica.watching import Watching
from raftkv.store import apply, transactions
from raftkv.store import watches as watches_module
from raftkv.store.access import Access
from raftkv.store.compaction import Compaction
from raftkv.store.mvcc import Mvcc
from raftkv.store.records import HEADER, PUT_EVENT, key_of, value_of
from raftkv.store.transactions import Plan
from raftkv.store.waits import Wait, Waits
from raftkv.store.watcher import Batch, Watcher
from raftkv.store.watches import WatchHub
from raftkv.units import Milliseconds, Revision
from raftkv.wire.commands import PUT, TXN, Answer, Command

from .registry import bug, swapped

WORLD = {"data": True}
RESTLESS = {**WORLD, "disasters": ("kill", "isolate_leader", "reset"), "nemesis_us": 300_000}
LONG = {"history_revisions_max": 10**6, "history_ms_max": 3_600_000}
SHORT = {"history_revisions_max": 20, "history_ms_max": 1_500}
SMALL_LOG = {"log_retained_entries_max": 5, "log_retained_bytes_max": 1024}

ONCE = "a watch hears every event of its range once"
TOGETHER = "events of one revision arrive together"
PAST = "what is not compacted can be read"


@bug(
    "watch resumed one revision too early",
    "a watch that goes on elsewhere asks for the last revision that it had, and takes it again",
    ONCE,
    knobs=WORLD,
)
def resumed_too_early() -> Iterator[None]:
    original = WatchState.command

    def command(self: WatchState) -> Command:
        if self.began:
            self.next_revision = max(1, self.next_revision - 1)
        return original(self)

    with swapped(WatchState, "command", command):
        yield


@bug(
    "half a revision kept over a reconnect",
    "what was heard of a revision before the connection broke is joined with all of it from the next member",
    ONCE,
    knobs={**WORLD, "watch_leave": 0.3, "latency_us": (500, 30_000)},
    limits={"watch_fragment_bytes": 1, **LONG},
)
def half_kept() -> Iterator[None]:
    def command(self: WatchState) -> Command:
        return [*self._command[:3], self.next_revision, self._command[4]]

    with swapped(WatchState, "command", command):
        yield


@bug(
    "gap at the switch from history to live",
    "a watch that reads its last slice of history is live before the slice is over",
    ONCE,
    knobs={**WORLD, "history_events_per_step": 7},
    limits=LONG,
)
def gap_at_the_switch() -> Iterator[None]:
    read_events = watches_module.read_events  # type: ignore[attr-defined]

    def read_the_last(mvcc: Mvcc, position: bytes, events_max: int, bytes_max: int) -> tuple[list[bytes], bytes | None]:
        records, following = read_events(mvcc, position, events_max, bytes_max)
        if following is not None and following >= watches_module.position_of(mvcc.revision):  # type: ignore[attr-defined]
            following = None
        return records, following

    with swapped(watches_module, "read_events", read_the_last):
        yield


@bug(
    "overflow drops what was queued",
    "a watch that falls behind goes on with the event that did not fit, not with the first that it has not had",
    ONCE,
    knobs=WORLD,
    limits={"watch_queue_events_max": 3, **LONG},
)
def overflow_drops() -> Iterator[None]:
    def lag(self: WatchHub, watcher: Watcher) -> None:
        if watcher not in self._lagging:
            watcher.position = watcher.position or watches_module.position_of(self._fed_revision + 1)  # type: ignore[attr-defined]
            watcher.topic.live -= 1
            self._lagging[watcher] = None

    with swapped(WatchHub, "_lag", lag):
        yield


@bug(
    "revision split over two batches",
    "a fragment does not say that more of its revision follows",
    TOGETHER,
    knobs=WORLD,
    limits={"watch_fragment_bytes": 1},
)
def revision_split() -> Iterator[None]:
    cut = watches_module.cut  # type: ignore[attr-defined]

    def cut_without_a_word(*arguments: Any, **flags: Any) -> list[Batch]:
        batches = cut(*arguments, **flags)
        for batch in batches:
            batch.more = False
        return batches

    with swapped(watches_module, "cut", cut_without_a_word):
        yield


@bug(
    "event of an entry that is not committed",
    "a leader tells its watches of a write when it is proposed; another leader truncates it",
    "a watch hears only of what is committed",
    knobs=RESTLESS,
)
def told_when_proposed() -> Iterator[None]:
    propose, feed = Service._propose_entry, WatchHub.feed
    told: dict[WatchHub, set[tuple[bytes, bytes]]] = {}

    def propose_and_tell(self: Service) -> None:
        waiting = list(self._new._groups)
        propose(self)
        hub: Any = self.watching._hub
        if hub._mvcc is None or not hub._watchers:
            return
        records = []
        for group in waiting[: len(waiting) - len(self._new)]:
            for command in group.commands:
                if command[0] == PUT:
                    at = hub._mvcc.revision + 1 + len(records)
                    _, _, key, value, lease, _ = command
                    old = hub._mvcc.get(key)
                    version = 1 if old is None else 2
                    records.append(HEADER.pack(at, 0, PUT_EVENT, at, version, lease, len(key)) + key + value)
        told.setdefault(hub, set()).update((key_of(record), value_of(record)) for record in records)
        feed(hub, records)

    def feed_the_rest(self: WatchHub, records: Sequence[bytes]) -> None:
        known = told.get(self, set())
        feed(self, [record for record in records if (key_of(record), value_of(record)) not in known])

    with swapped(Service, "_propose_entry", propose_and_tell), swapped(WatchHub, "feed", feed_the_rest):
        yield


@bug(
    "watches forgotten when a snapshot comes",
    "a watch stays live when another store takes the place of its own, and misses what came with it",
    ONCE,
    knobs={**WORLD, "disasters": ("slow_link", "pause", "stalled_disk"), "nemesis_us": 300_000},
    limits={**SMALL_LOG, **LONG},
)
def snapshot_unnoticed() -> Iterator[None]:
    def attach(self: WatchHub, mvcc: Mvcc, access: Access) -> None:
        self._mvcc, self._access, mvcc.tally = mvcc, access, self.tally
        self._fed_revision = mvcc.revision
        self.waits.attach(mvcc, access)

    with swapped(WatchHub, "attach", attach):
        yield


@bug(
    "watch that begins without a barrier",
    "a member takes it for granted that it knows the newest revision when a watch or a wait begins",
    "a watch from now misses nothing that comes after it was asked for (6.4)",
    knobs={**WORLD, "disasters": ("isolate_leader", "slow_link"), "nemesis_us": 300_000},
)
def without_a_barrier() -> Iterator[None]:
    def begin_at_once(
        self: Watching, begin: Callable[[], None], refuse: Callable[[RaftKVError], None], deadline_ms: Milliseconds
    ) -> None:
        begin()

    with swapped(Watching, "_behind_barrier", begin_at_once):
        yield


@bug(
    "progress told to a watch that lags",
    "a watch is told that it has heard everything although it reads history",
    ONCE,
    knobs={**WORLD, "history_events_per_step": 1, "think_us": 5_000},
    limits={"watch_progress_interval_ms": 100, "watch_queue_events_max": 1, **LONG},
)
def progress_of_one_that_lags() -> Iterator[None]:
    with swapped(WatchHub, "_has_all", lambda self, watcher: True):
        yield


@bug(
    "watch goes on over a compaction",
    "what a watch has not heard and is gone is passed over in silence",
    "a watch that cannot go on without a gap says so",
    knobs=WORLD,
    limits=SHORT,
)
def silent_over_a_compaction() -> Iterator[None]:
    create = WatchHub.create

    def create_anywhere(
        self: WatchHub, command: Sequence[Any], sink: Any, tag: int, *caller: Any
    ) -> tuple[Watcher, Revision]:
        mvcc = self._mvcc
        if mvcc is not None and 0 < command[3] < mvcc.compact_revision:
            command = [*command[:3], mvcc.compact_revision, command[4]]
        return create(self, command, sink, tag, *caller)

    with swapped(WatchHub, "create", create_anywhere):
        yield


@bug(
    "compaction removes a visible version",
    "the newest version of a key at the compacted revision goes with the older ones",
    PAST,
    knobs=WORLD,
    limits=SHORT,
)
def visible_version_removed() -> Iterator[None]:
    doom = Compaction._doom

    def release(self: Compaction, *, superseded: bool) -> None:
        if self._held is None:
            return
        (item, head, kept, last), self._held = self._held, None
        self._keep(item, head, kept if doom(self, last) else [*kept, last], len(kept) + 2)

    with swapped(Compaction, "_release_held", release):
        yield


@bug(
    "wait answered when half of it is true",
    "a wait for all of several keys ends with the first of them",
    "a wait ends when what it waits for is true",
    knobs=WORLD,
)
def half_a_wait() -> Iterator[None]:
    with swapped(Wait, "is_over", property(lambda self: len(self.unmet) < len(self.records))):
        yield


@bug(
    "wait forgotten when a store is replaced",
    "a wait does not look at the keys of the store that came with a snapshot",
    "a wait that is answered says what its keys were",
    knobs={**RESTLESS, "disasters": ("kill", "partition", "pause")},
    limits=SMALL_LOG,
)
def wait_forgotten() -> Iterator[None]:
    def add(
        self: Waits,
        command: Sequence[Any],
        answer: Callable[[Answer], None],
        deadline_ms: Milliseconds,
        user: str | None = None,
        auth_revision: int = 0,
    ) -> Any:
        wait = Wait(command, answer, deadline_ms, user, auth_revision)
        self._waits[wait] = None
        self._earliest_ms = min(self._earliest_ms, deadline_ms)
        for key in wait.records:
            self._by_key.setdefault(key, {})[wait] = None
        return wait

    with swapped(Waits, "add", add):
        yield


@bug(
    "one compare is enough",
    "a transaction takes its first branch when one of its compares holds",
    "transactions are serializable",
    knobs=WORLD,
)
def one_compare_is_enough() -> Iterator[None]:
    def plan(mvcc: Mvcc, command: Sequence[Any]) -> Plan:
        _, _, compares, success, failure = command
        succeeded = not compares or any(transactions._holds(mvcc, compare) for compare in compares)
        branch = success if succeeded else failure
        return Plan(succeeded, [(one, plan(mvcc, one) if one[0] == TXN else None) for one in branch])

    with swapped(transactions, "_plan", plan):
        yield


@bug(
    "nested compare sees the transaction's own writes",
    "the branch of a nested transaction is chosen when its turn comes, not before the first change",
    "every compare is of the state before the whole transaction",
    knobs=WORLD,
)
def nested_compare_too_late() -> Iterator[None]:
    execute, plan = transactions._execute, transactions._plan

    def execute_late(mvcc: Mvcc, chosen: Plan, reply_bytes_max: int) -> list[list[Any]]:
        responses: list[list[Any]] = []
        for command, nested in chosen.steps:
            late = plan(mvcc, command) if nested is not None else None
            responses += execute(mvcc, Plan(chosen.succeeded, [(command, late)]), reply_bytes_max)
        return responses

    with swapped(transactions, "_execute", execute_late):
        yield


@bug(
    "transaction done twice",
    "a transaction that comes again is done again",
    "exactly once (6.3)",
    knobs={**RESTLESS, "loss": 0.1, "call_timeout_s": 5.0},
)
def transaction_done_twice() -> Iterator[None]:
    run_once = apply._run_once

    def run(state: Any, session: Any, commands: list[Any]) -> list[Answer]:
        for command in commands:
            if command[0] == TXN:
                session.answers.pop(command[1], None)
        return run_once(state, session, commands)

    with swapped(apply, "_run_once", run):
        yield
