"""The watch hub on a real store: what a watch hears, from when on, and what becomes of one that is slow."""

from typing import Any

import pytest

from raftkv.errors import Compacted, InvalidRequest, Overloaded, ShuttingDown
from raftkv.limits import MIB, Limits
from raftkv.store import watches
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.store import Store
from raftkv.store.watcher import Watcher
from raftkv.store.watches import WatchHub
from raftkv.wire.commands import COMPACT, prefix_range_end
from raftkv.wire.protocol import WATCH_CREATE
from raftkv.wire.watching import NO_DELETE, NO_PUT, WATCH_PREV_KV, WATCH_PROGRESS_NOTIFY
from tests.unit.store.stores import Driver, delete, put, txn
from tests.unit.store.watching import RecordingSink

LIMITS = Limits(
    map_bytes=64 * MIB,
    watch_queue_events_max=8,
    watch_fragment_bytes=400,
    watch_progress_interval_ms=1000,
    watchers_max=9,
)


class Bench:
    def __init__(self) -> None:
        self.driver = Driver(MemoryKeyspace(), LIMITS)
        self.hub = WatchHub(LIMITS)
        self.driver.store.tell(self.hub)
        self.sink = RecordingSink()
        self.tag = 0

    def watch(
        self, key: bytes, end: bytes = b"", start: int = 0, flags: int = 0, sink: RecordingSink | None = None
    ) -> int:
        self.tag += 1
        self.watcher: Watcher
        self.watcher, self.revision = self.hub.create(
            [WATCH_CREATE, key, end, start, flags], sink or self.sink, self.tag
        )
        return self.tag

    def settle(self) -> None:
        for _ in range(10_000):
            if not self.hub.has_backlog:
                return
            self.hub.step()
        raise AssertionError("the hub does not come to rest")

    def apply(self, *commands: Any) -> None:
        self.driver.apply(*commands)
        self.settle()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_key_prefix_range_and_everything(bench: Bench) -> None:
    key, prefix = bench.watch(b"a/1"), bench.watch(b"a/", prefix_range_end(b"a/"))
    ranged, everything, empty_key = bench.watch(b"a/2", b"c"), bench.watch(b"\0", b"\0"), bench.watch(b"", b"\0")
    bench.apply(put(b"a/1"), put(b"a/2"), put(b"b"), put(b"c"), delete(b"a/1"))
    heard = {tag: bench.sink.keys(tag) for tag in (key, prefix, ranged, everything, empty_key)}
    assert heard == {
        key: [b"a/1", b"a/1"],
        prefix: [b"a/1", b"a/2", b"a/1"],
        ranged: [b"a/2", b"b"],
        everything: [b"a/1", b"a/2", b"b", b"c", b"a/1"],
        empty_key: [b"a/1", b"a/2", b"b", b"c", b"a/1"],
    }
    assert bench.sink.events[key] == [[0, [b"a/1", 2, 2, 1, 0, b"v"], None], [1, [b"a/1", 0, 6, 0, 0, b""], None]]


def test_history_then_live_without_gap_or_duplicate(bench: Bench) -> None:
    for number in range(20):
        bench.driver.apply(put(b"k%d" % (number % 3), b"%d" % number))
        if number == 7:
            bench.driver.commit()
    tag = bench.watch(b"k", prefix_range_end(b"k"), start=3)
    assert bench.revision == 21
    bench.hub.step()
    bench.apply(put(b"k0"))
    assert bench.sink.revisions(tag) == list(range(3, 23))


def test_a_start_in_the_future_hears_nothing_earlier(bench: Bench) -> None:
    tag = bench.watch(b"k", start=5)
    for _ in range(6):
        bench.apply(put(b"k"))
    assert bench.sink.revisions(tag) == [5, 6, 7]


def test_what_cannot_be_watched(bench: Bench) -> None:
    bench.apply(put(b"k"), put(b"k"), put(b"k"), [COMPACT, 0, 3])
    for start in (2, -1):
        with pytest.raises(Compacted) as refused:
            bench.watch(b"k", start=start)
        assert refused.value.details == {"compact_revision": 3}
    with pytest.raises(InvalidRequest, match="empty"):
        bench.watch(b"b", b"a")
    assert bench.sink.revisions(bench.watch(b"k", start=3)) == []
    bench.settle()
    assert bench.sink.revisions(bench.tag) == [3, 4]
    for _ in range(LIMITS.watchers_max - 1):
        bench.watch(b"k")
    with pytest.raises(Overloaded):
        bench.watch(b"k")


def test_a_delete_at_the_compacted_revision_is_still_heard(bench: Bench) -> None:
    bench.apply(put(b"k"), delete(b"k"), [COMPACT, 0, 3])
    bench.driver.commit()
    while bench.driver.store.compaction.has_work:
        bench.driver.store.compaction.step()
    bench.driver.commit()
    assert bench.driver.store.compaction.done == 3
    tag = bench.watch(b"k", start=3)
    bench.settle()
    assert [event[0] for event in bench.sink.events[tag]] == [1]


def test_filters_and_previous_values(bench: Bench) -> None:
    bench.apply(put(b"k", b"old"))
    deletes, puts = bench.watch(b"k", flags=NO_PUT | WATCH_PREV_KV), bench.watch(b"k", flags=NO_DELETE | WATCH_PREV_KV)
    past = bench.watch(b"k", start=2, flags=WATCH_PREV_KV)
    bench.apply(put(b"k", b"new"), delete(b"k"))
    assert bench.sink.events[deletes] == [[1, [b"k", 0, 4, 0, 0, b""], [b"k", 2, 3, 2, 0, b"new"]]]
    assert bench.sink.events[puts] == [[0, [b"k", 2, 3, 2, 0, b"new"], [b"k", 2, 2, 1, 0, b"old"]]]
    assert [prev and prev[5] for _, _, prev in bench.sink.events[past]] == [None, b"old", b"new"]
    assert bench.watch(b"k", start=2) and not bench.settle()
    assert [prev for _, _, prev in bench.sink.events[bench.tag]] == [None, None, None]


def test_a_key_that_is_deleted_and_created_at_one_revision_has_nothing_before_it(bench: Bench) -> None:
    """Found beside a real etcd: what the transaction deleted comes with the delete, not with the put."""
    tag = bench.watch(b"\0", b"\0", flags=WATCH_PREV_KV)
    bench.apply(put(b"k", b"old"), txn([], [delete(b"a", b"\0"), put(b"k", b"new")], []))
    past = bench.watch(b"\0", b"\0", start=2, flags=WATCH_PREV_KV)
    bench.settle()
    for heard in (tag, past):
        events = [(kind, kv[5], prev and prev[5]) for kind, kv, prev in bench.sink.events[heard]]
        assert events == [(0, b"old", None), (1, b"", b"old"), (0, b"new", None)]


def test_previous_values_are_those_before_the_revision_and_absent_once_compacted(bench: Bench) -> None:
    tag = bench.watch(b"\0", b"\0", flags=WATCH_PREV_KV)
    bench.apply(put(b"a", b"1"))
    bench.apply(txn([], [delete(b"a", b"\0"), put(b"b")], []))
    assert [(kind, kv[0], prev and prev[5]) for kind, kv, prev in bench.sink.events[tag]] == [
        (0, b"a", None),
        (1, b"a", b"1"),
        (0, b"b", None),
    ]
    bench.apply([COMPACT, 0, 3])
    late = bench.watch(b"\0", b"\0", start=3, flags=WATCH_PREV_KV)
    bench.settle()
    assert [prev for _, _, prev in bench.sink.events[late]] == [None, None]


def test_one_revision_arrives_together_and_large_ones_in_fragments(bench: Bench) -> None:
    tag = bench.watch(b"\0", b"\0")
    bench.apply(txn([], [put(b"a"), put(b"b")], []))
    (batch,) = bench.sink.batches[tag]
    assert (len(batch.events), batch.more, batch.revision) == (2, False, 2)
    bench.apply(txn([], [put(b"%d" % number, b"v" * 150) for number in range(6)], []))
    assert [(len(batch.events), batch.more) for batch in bench.sink.batches[tag][1:]] == [(3, True), (3, False)]


def test_a_revision_larger_than_the_queue_comes_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "HISTORY_EVENTS_PER_STEP", 5)
    everything, first, other = bench.watch(b"\0", b"\0"), bench.watch(b"k00"), bench.watch(b"k", b"k03")
    bench.apply(txn([], [put(b"k%02d" % number) for number in range(31)], []))
    bench.apply(put(b"k00"), put(b"x"))
    assert bench.sink.revisions(everything) == [2] * 31 + [3, 4]
    assert bench.sink.revisions(first) == [2, 3]
    assert bench.sink.revisions(other) == [2, 2, 2, 3]
    assert not any(bench.sink.promised.values()), "every revision was ended"


def test_those_who_wait_for_their_turn_get_what_came_meanwhile(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "DELIVERIES_PER_STEP", 1)
    first, second, third = bench.watch(b"k"), bench.watch(b"k"), bench.watch(b"k")
    bench.driver.apply(put(b"k"))
    bench.hub.step()
    bench.driver.apply(put(b"k"))
    bench.hub.step()
    bench.apply(put(b"k"))
    assert [bench.sink.revisions(tag) for tag in (first, second, third)] == [[2, 3, 4]] * 3


def test_a_slow_one_reads_history_and_hurts_nobody(bench: Bench) -> None:
    slow = RecordingSink()
    slow.open = False
    slow_tag, quick_tag = bench.watch(b"\0", b"\0", sink=slow), bench.watch(b"\0", b"\0")
    for number in range(50):
        bench.apply(put(b"%d" % number))
        if number % 10 == 0:
            bench.driver.commit()
    assert bench.sink.revisions(quick_tag) == list(range(2, 52))
    assert slow.events == {} and bench.hub.lagging_count == 1
    slow.open, slow.batches_left = True, 1
    bench.settle()
    slow.batches_left = 1 << 30
    bench.apply(put(b"last"))
    assert slow.revisions(slow_tag) == list(range(2, 53))
    assert bench.hub.lagging_count == 0


def test_a_slow_one_that_is_overtaken_by_a_compaction_is_told(bench: Bench) -> None:
    bench.sink.open = False
    tag = bench.watch(b"k")
    bench.apply(put(b"k"), put(b"k"), put(b"k"))
    bench.apply([COMPACT, 0, 4])
    bench.sink.open = True
    bench.settle()
    assert bench.sink.events == {}
    assert bench.sink.canceled[tag].code == "compacted"
    assert bench.sink.canceled[tag].details == {"compact_revision": 4}
    assert bench.hub.count == 0


def test_canceled_is_canceled(bench: Bench) -> None:
    tag = bench.watch(b"k")
    bench.driver.apply(put(b"k"))
    bench.hub.cancel(bench.watcher)
    bench.hub.cancel(bench.watcher)
    bench.apply(put(b"k"))
    assert bench.sink.events == {} and bench.hub.count == 0 and not bench.hub.is_active
    other = bench.watch(b"k")
    bench.hub.cancel_all(ShuttingDown())
    assert (list(bench.sink.canceled), tag) == ([other], 1)


def test_progress_is_told_to_those_that_asked_and_have_everything(bench: Bench) -> None:
    asked, silent = bench.watch(b"k", flags=WATCH_PROGRESS_NOTIFY), bench.watch(b"k")
    bench.hub.tick(999)
    assert bench.sink.progress == []
    bench.driver.apply(put(b"other"))
    bench.hub.tick(1000)
    assert bench.sink.progress == [(asked, 2)]
    bench.driver.apply(put(b"k"))
    bench.hub.tick(2000)
    assert bench.sink.progress == [(asked, 2)], "not before the event has gone out"
    bench.settle()
    bench.hub.tick(2900)
    assert bench.sink.progress == [(asked, 2)], "an event is a sign too"
    bench.hub.tick(3000)
    assert bench.sink.progress == [(asked, 2), (asked, 3)]
    assert silent in bench.sink.events


def test_a_question_about_progress_waits_for_the_events_before_it(bench: Bench) -> None:
    told: list[int] = []
    bench.watch(b"k", start=2)
    bench.hub.request_progress(bench.sink, told.append)
    bench.hub.step()
    assert told == [1]
    bench.sink.open = False
    bench.driver.apply(put(b"k"))
    bench.hub.step()
    bench.hub.request_progress(bench.sink, told.append)
    bench.hub.step()
    assert told == [1]
    bench.sink.open = True
    bench.settle()
    assert told == [1, 2]


def test_another_store_after_a_snapshot_goes_on_from_history(bench: Bench) -> None:
    tag = bench.watch(b"k")
    bench.apply(put(b"k"))
    ahead = Driver(MemoryKeyspace(), LIMITS)
    for _ in range(5):
        ahead.apply(put(b"k"))
    ahead.commit()
    bench.driver.store.close()
    bench.hub.step()
    with pytest.raises(Overloaded):
        bench.watch(b"k")
    Store.open(ahead.store.keyspace, LIMITS).tell(bench.hub)
    bench.settle()
    assert bench.sink.revisions(tag) == [2, 3, 4, 5, 6]


def test_ten_thousand_watchers_of_other_keys_cost_an_event_little(bench: Bench) -> None:
    """Not a time but a count: what is matched is what concerns the key."""
    hub = WatchHub(Limits())
    driver = Driver(MemoryKeyspace())
    driver.store.tell(hub)
    for number in range(10_000):
        hub.create([WATCH_CREATE, b"key/%d" % number, b"", 0, 0], bench.sink, number)
    assert len(hub._topics.match(b"key/77")) == 1
    driver.apply(put(b"key/77"))
    assert len(hub._dirty) == 1


def test_those_who_stand_still_do_not_hide_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "LAGGING_EXAMINED_PER_STEP", 2)
    monkeypatch.setattr(watches, "LAGGING_PER_STEP", 1)
    bench.apply(put(b"k"))
    still = RecordingSink()
    still.open = False
    for _ in range(5):
        bench.watch(b"k", start=2, sink=still)
    tag = bench.watch(b"k", start=2)
    for _ in range(4):
        bench.hub.tick(0)
    assert bench.sink.revisions(tag) == [2]
    assert still.events == {} and bench.hub.lagging_count == 5


def test_one_that_starts_later_takes_nothing_from_its_neighbour_in_history(bench: Bench) -> None:
    """Both lag at one place of one range and are handed one slice; only one of them wants its first events."""
    later = bench.watch(b"k", start=5)
    now = bench.watch(b"k")
    bench.sink.open = False
    bench.apply(*(put(b"k") for _ in range(6)))
    bench.sink.open = True
    bench.settle()
    assert bench.sink.revisions(now) == [2, 3, 4, 5, 6, 7]
    assert bench.sink.revisions(later) == [5, 6, 7]


def test_one_that_starts_later_does_not_care_for_a_compaction_before(bench: Bench) -> None:
    later = bench.watch(b"k", start=6)
    bench.sink.open = False
    bench.apply(*(put(b"k") for _ in range(3)))
    bench.apply([COMPACT, 0, 4])
    bench.apply(*(put(b"k") for _ in range(3)))
    bench.sink.open = True
    bench.settle()
    assert not bench.sink.canceled
    assert bench.sink.revisions(later) == [6, 7]
