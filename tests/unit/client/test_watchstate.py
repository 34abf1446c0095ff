"""A watch without its connection: fragments joined, places kept, refusals told apart."""

import pytest

from raftkv.client.endpoints import Directory, Peer
from raftkv.client.watchstate import Places, WatchState, watch_command
from raftkv.errors import (
    ClusterMismatch,
    Compacted,
    InvalidRequest,
    NoQuorum,
    ProtocolError,
    Unreachable,
    WatchCompacted,
)
from raftkv.wire.commands import failure
from raftkv.wire.protocol import WATCH_CREATE, WATCH_EVENTS


def state(start: int = 0, *, progress: bool = False) -> WatchState:
    command = watch_command(b"k", b"", start_revision=start, prev_kv=False, only=None)
    return WatchState(command, progress=progress)


def events(revision: int, *keys: bytes, more: bool = False, header: int = 0) -> list[object]:
    return [
        0,
        WATCH_EVENTS,
        header or revision,
        more,
        [[0, [key, revision, revision, 1, 0, b"v"], None] for key in keys],
    ]


def test_from_now_means_from_where_the_first_member_was() -> None:
    watch = state()
    assert watch.command()[3] == 0
    assert watch.receive([0, WATCH_CREATE, 9]) == []
    assert watch.began
    assert watch.command()[3] == 10
    watch.receive([0, WATCH_CREATE, 99])
    assert watch.command()[3] == 10, "another member may be further: what came meanwhile is history there"


def test_a_revision_is_handed_on_when_it_is_whole() -> None:
    watch = state(2)
    assert watch.receive(events(2, b"a", b"b", more=True)) == []
    assert watch.command()[3] == 2
    (batch,) = watch.receive(events(2, b"c"))
    assert (batch.revision, len(batch.events)) == (2, 1), "asked for anew, the fragments before do not count"
    assert watch.command()[3] == 3
    watch.receive(events(3, b"a", more=True))
    first, second = watch.receive([0, WATCH_EVENTS, 5, False, events(3, b"b")[4] + events(5, b"c")[4]])  # type: ignore[operator]
    assert [len(first.events), second.revision] == [2, 5]
    watch.receive(events(6, b"a", more=True))
    (batch,) = watch.receive([0, WATCH_EVENTS, 6, False, []])
    assert (batch.revision, watch.next_revision) == (6, 7)


def test_progress_moves_the_place_and_is_told_when_asked_for() -> None:
    quiet, told = state(2), state(2, progress=True)
    for watch in (quiet, told):
        watch.receive([0, WATCH_CREATE, 1])
    assert quiet.receive([0, WATCH_EVENTS, 40, False, []]) == []
    assert quiet.command()[3] == 41
    assert [batch.revision for batch in told.receive([0, WATCH_EVENTS, 40, False, []])] == [40]
    assert told.receive([0, WATCH_EVENTS, 40, False, []]) == [], "once is enough"


def test_what_was_heard_does_not_come_again() -> None:
    watch = state(5)
    assert watch.receive(events(4, b"a")) == []
    assert watch.next_revision == 5


def test_refusals() -> None:
    with pytest.raises(WatchCompacted) as gone:
        state(3).receive(failure(Compacted(details={"compact_revision": 7})))
    assert gone.value.compact_revision == 7
    with pytest.raises(NoQuorum):
        state().receive(failure(NoQuorum()))
    for answer in ([0, 5], [0, WATCH_EVENTS, 1, False, [[0]]], [0], [2, "x"], [0, WATCH_EVENTS, 1, False, 7]):
        with pytest.raises(ProtocolError):
            state().receive(answer)
    with pytest.raises(InvalidRequest):
        watch_command(b"k", b"", start_revision=-1, prev_kv=False, only=None)
    with pytest.raises(InvalidRequest):
        watch_command(b"k", b"", start_revision=0, prev_kv=False, only="get")  # type: ignore[arg-type]


def test_places_begin_with_the_leader_and_go_round_with_pauses() -> None:
    directory = Directory(["a:1", "b:1"])
    directory.on_hint(Peer(7, "c", "c:1"), [Peer(7, "c", "c:1")])
    places = Places(directory, lambda: 0.5)
    assert places.choose(0.0) == ("c:1", 0.0)
    places.on_failed("c:1", 0.0, Unreachable())
    assert {places.choose(0.0)[0], places.choose(0.0)[0]} == {"a:1", "b:1"}
    address, pause_s = places.choose(0.0)
    assert pause_s > 0
    places.on_served()
    assert places.on_failed("a:1", 0.0, NoQuorum(details={"members": "nonsense"})) is None
    assert places.choose(0.0)[0] == "b:1", "one that has no quorum comes last"
    assert address


def test_a_search_ends_when_every_endpoint_is_of_another_cluster() -> None:
    places = Places(Directory(["a:1", "b:1"]), lambda: 0.5)
    assert places.on_failed("a:1", 0.0, ClusterMismatch()) is None
    assert places.on_failed("b:1", 0.0, ClusterMismatch()) is not None
