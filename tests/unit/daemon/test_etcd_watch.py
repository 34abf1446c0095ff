"""Watch streams of etcd's API on a member of a MiniCluster: ids, order, refusals, fragments, progress, and how they end."""

import asyncio
from typing import Any

import pytest

from raftkv.daemon.etcd.desk import Desk
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.procedures import PROCEDURES
from raftkv.daemon.etcd.watch import DUPLICATE_ID, WatchStream
from raftkv.etcd.methods import BY_PATH
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.limits import Limits
from tests.unit.conftest import Run
from tests.unit.daemon.etcd_calls import HandCall, HandDoor, HandHouse

PUT = BY_PATH["/etcdserverpb.KV/Put"]
DELETE = BY_PATH["/etcdserverpb.KV/DeleteRange"]
TXN = BY_PATH["/etcdserverpb.KV/Txn"]
COMPACT = BY_PATH["/etcdserverpb.KV/Compact"]


class Line:
    """One stream, and somebody who writes."""

    def __init__(self, hand: HandHouse, house: House | None = None) -> None:
        self.hand = hand
        self.call = HandCall()
        self.stream = WatchStream(house or hand.house, self.call)
        self._door = HandDoor()
        self._desk = Desk(hand.house, self._door)
        self._tag = 0

    def create(self, key: bytes = b"k", **fields: Any) -> None:
        self.stream.on_message(rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=key, **fields)))

    def cancel(self, watch_id: int) -> None:
        self.stream.on_message(rpc.WatchRequest(cancel_request=rpc.WatchCancelRequest(watch_id=watch_id)))

    def ask_progress(self) -> None:
        self.stream.on_message(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))

    def do(self, *calls: Any) -> None:
        """All of them in one entry."""
        for method, request in calls:
            self._tag += 1
            self._desk.submit(self._tag, method, request)
        self._desk.flush()
        self.hand.cluster.settle()
        assert not self._door.failures

    def put(self, *pairs: tuple[bytes, bytes]) -> None:
        self.do(*((PUT, rpc.PutRequest(key=key, value=value)) for key, value in pairs))

    def heard(self) -> list[rpc.WatchResponse]:
        """What has come since the last time."""
        self.hand.cluster.settle()
        replies, self.call.replies = self.call.replies, []
        return [
            rpc.WatchResponse.FromString(reply)
            if isinstance(reply, bytes)
            else rpc.WatchResponse.FromString(reply.SerializeToString())
            for reply in replies
        ]


def told(responses: list[rpc.WatchResponse]) -> list[tuple[int, int, list[bytes]]]:
    """Watch id, header revision, and what its events put or delete."""
    return [
        (response.watch_id, response.header.revision, [event.kv.value or event.kv.key for event in response.events])
        for response in responses
    ]


def test_ids_created_first_events_and_the_end() -> None:
    line = Line(HandHouse())
    line.create()
    line.create(watch_id=7)
    line.create(b"\0", range_end=b"\0")
    responses = line.heard()
    assert [(r.watch_id, r.created, r.canceled, r.header.revision) for r in responses] == [
        (0, True, False, 1),
        (7, True, False, 1),
        (1, True, False, 1),
    ]
    assert responses[0].header.member_id == line.hand.leader.node_id
    line.put((b"k", b"1"))
    assert told(line.heard()) == [(0, 2, [b"1"]), (7, 2, [b"1"]), (1, 2, [b"1"])]
    line.cancel(0)
    line.cancel(0)
    line.cancel(99)
    (ended,) = line.heard()
    assert (ended.watch_id, ended.canceled, ended.created, ended.compact_revision) == (0, True, False, 0)
    line.create(watch_id=0)
    line.create(watch_id=7)
    first, second = line.heard()
    assert (first.watch_id, first.created) == (2, True), "an id is not given twice"
    assert (second.watch_id, second.created, second.canceled) == (-1, True, True)
    assert second.cancel_reason == DUPLICATE_ID
    line.cancel(7)
    line.create(watch_id=7)
    assert [(r.watch_id, r.created, r.canceled) for r in line.heard()] == [(7, False, True), (7, True, False)]
    line.stream.on_half_close()
    line.put((b"k", b"2"))
    assert sorted(told(line.heard())) == [(1, 3, [b"2"]), (2, 3, [b"2"]), (7, 3, [b"2"])]
    assert not line.call.ended


def test_the_first_given_id_is_skipped_by_the_counter() -> None:
    line = Line(HandHouse())
    line.create(watch_id=1)
    line.create()
    line.create()
    assert [response.watch_id for response in line.heard()] == [1, 0, 2]


def test_refusals_keep_their_place_in_line() -> None:
    line = Line(HandHouse())
    line.create()
    line.create(b"b", range_end=b"a")
    line.create(watch_id=5)
    line.create(watch_id=5)
    line.create(start_revision=-3)
    line.create(b"k" * 20_000)
    line.stream.on_message(rpc.WatchRequest())
    line.create(b"", range_end=b"\0")
    responses = line.heard()
    assert [(r.watch_id, r.canceled, r.cancel_reason) for r in responses] == [
        (0, False, ""),
        (-1, True, "mvcc: watcher range is empty"),
        (5, False, ""),
        (-1, True, DUPLICATE_ID),
        (-1, True, "etcdserver: mvcc: required revision has been compacted"),
        (-1, True, "etcdserver: request is too large"),
        (1, False, ""),
    ]
    assert all(response.created for response in responses)


def test_each_revision_is_one_response_and_history_is_one() -> None:
    line = Line(HandHouse())
    line.create()
    line.create(b"a", range_end=b"z", prev_kv=True, filters=[rpc.WatchCreateRequest.NODELETE])
    line.heard()
    line.put((b"k", b"1"), (b"b", b"2"), (b"k", b"3"))
    assert told(line.heard()) == [(0, 2, [b"1"]), (0, 4, [b"3"]), (1, 2, [b"1"]), (1, 3, [b"2"]), (1, 4, [b"3"])]
    line.do((DELETE, rpc.DeleteRangeRequest(key=b"k")), (PUT, rpc.PutRequest(key=b"c", value=b"4")))
    responses = line.heard()
    assert told(responses) == [(0, 5, [b"k"]), (1, 6, [b"4"])]
    assert responses[0].events[0].type == 1
    line.create(b"a", range_end=b"z", start_revision=3, prev_kv=True)
    created, past = line.heard()
    assert (created.watch_id, created.created, created.header.revision) == (2, True, 6)
    assert told([past]) == [(2, 6, [b"2", b"3", b"k", b"4"])]
    assert past.events[1].prev_kv.value == b"1"
    assert past.events[2].prev_kv.value == b"3"


def test_a_watch_from_the_future_hears_nothing_before() -> None:
    line = Line(HandHouse())
    line.create(start_revision=4)
    line.heard()
    line.put((b"k", b"1"), (b"k", b"2"), (b"k", b"3"))
    assert told(line.heard()) == [(0, 4, [b"3"])]


def test_history_that_is_gone() -> None:
    line = Line(HandHouse())
    line.put((b"k", b"1"), (b"k", b"2"), (b"k", b"3"))
    line.do((COMPACT, rpc.CompactionRequest(revision=3)))
    line.create(start_revision=2)
    line.create(start_revision=3)
    began, ended, other, past = line.heard()
    assert (began.watch_id, began.created, began.canceled) == (0, True, False)
    assert (ended.watch_id, ended.canceled, ended.compact_revision, ended.header.revision) == (0, True, 3, 0)
    assert (ended.cancel_reason, len(ended.events)) == ("", 0)
    assert told([other, past]) == [(1, 4, []), (1, 4, [b"2", b"3"])]
    line.create(watch_id=5, start_revision=2)
    line.create(watch_id=5)
    responses = line.heard()
    line.cancel(5)
    line.cancel(5)
    line.create(watch_id=5)
    line.cancel(5)
    line.create(watch_id=5, start_revision=2)
    line.cancel(5)
    line.create(watch_id=5)
    responses += line.heard()
    assert [(r.watch_id, r.created, r.canceled) for r in responses] == [
        (5, True, False),
        (5, False, True),
        (-1, True, True),
        (5, False, True),
        *[(5, True, False), (5, False, True)] * 2,
        (5, True, False),
    ]
    assert responses[2].cancel_reason == DUPLICATE_ID, "as in etcd its id is in use until it is canceled"


def test_history_compacted_under_a_slow_client() -> None:
    line = Line(HandHouse())
    line.create()
    line.heard()
    line.call.takes_messages = False
    line.put((b"k", b"1"), (b"k", b"2"), (b"k", b"3"))
    line.do((COMPACT, rpc.CompactionRequest(revision=4)))
    line.call.takes_messages = True
    line.stream.on_room()
    line.hand.cluster.pass_time(25)
    (ended,) = line.heard()
    assert (ended.watch_id, ended.canceled, ended.compact_revision) == (0, True, 4)
    assert not line.call.ended


def test_a_slow_client_is_sent_nothing_and_then_all_of_it() -> None:
    line = Line(HandHouse())
    line.create()
    line.heard()
    line.call.takes_messages = False
    for number in range(20):
        line.put((b"k", b"%d" % number))
    assert not line.heard()
    line.call.takes_messages = True
    line.stream.on_room()
    line.hand.cluster.pass_time(25)
    events = [value for _, _, values in told(line.heard()) for value in values]
    assert events == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize("fragment", [False, True])
@pytest.mark.parametrize("history", [False, True])
def test_one_revision_is_one_response_or_fragments(fragment: bool, history: bool) -> None:
    hand = HandHouse(Limits(watch_fragment_bytes=64 * 1024))
    line = Line(hand)
    keys = [b"k%02d" % number for number in range(40)]
    if not history:
        line.create(b"k", range_end=b"l", fragment=fragment, prev_kv=True)
    for key in keys:
        line.put((key, b"v" * 100_000))
    line.heard()
    line.do((DELETE, rpc.DeleteRangeRequest(key=b"k", range_end=b"l")))
    if history:
        line.create(b"k", range_end=b"l", fragment=fragment, prev_kv=True, start_revision=42)
    responses = [response for response in line.heard() if response.events]
    assert [event.kv.key for response in responses for event in response.events] == keys
    assert all(len(event.prev_kv.value) == 100_000 for response in responses for event in response.events)
    assert {(response.watch_id, response.header.revision) for response in responses} == {(0, 42)}
    if fragment:
        assert [response.fragment for response in responses] == [True, False]
        assert max(response.ByteSize() for response in responses) < 2 * 1024 * 1024
    else:
        assert [response.fragment for response in responses] == [False]


def test_what_is_encoded_for_one_is_sent_to_all() -> None:
    line = Line(HandHouse())
    for _ in range(3):
        line.create()
    line.heard()
    line.put((b"k", b"v"))
    line.hand.cluster.settle()
    first, second, third = line.call.replies
    assert isinstance(first, bytes) and isinstance(second, bytes) and isinstance(third, bytes)
    assert second == b"\x10\x01" + first
    assert third == b"\x10\x02" + first


def test_progress_comes_behind_all_events_and_only_with_watches() -> None:
    line = Line(HandHouse())
    line.ask_progress()
    assert not line.heard(), "a stream without watches"
    line.put((b"k", b"1"), (b"k", b"2"))
    line.create(start_revision=2)
    line.ask_progress()
    line.ask_progress()
    created, past, progress, again = line.heard()
    assert (created.created, told([past])) == (True, [(0, 3, [b"1", b"2"])])
    assert (progress.watch_id, progress.header.revision, len(progress.events)) == (-1, 3, 0)
    assert again == progress
    line.call.takes_messages = False
    line.put((b"k", b"3"))
    line.ask_progress()
    assert not line.heard(), "not while a watch is behind"
    line.call.takes_messages = True
    line.stream.on_room()
    line.hand.cluster.pass_time(25)
    assert told(line.heard()) == [(0, 4, [b"3"]), (-1, 4, [])]


def test_quiet_watches_hear_of_progress(run: Run) -> None:
    async def scenario() -> None:
        line = Line(HandHouse(Limits(etcd_watch_progress_interval_ms=20)))
        line.create(progress_notify=True)
        line.create(b"x")
        line.heard()
        responses: list[rpc.WatchResponse] = []
        while not responses:
            await asyncio.sleep(0.005)
            responses = line.heard()
        assert told(responses) == [(0, 1, [])]
        line.stream.on_gone()
        line.call.replies.clear()
        await asyncio.sleep(0.05)
        assert not line.call.replies

    run(scenario())


def test_a_canceled_watch_that_had_not_begun(run: Run) -> None:
    line = Line(HandHouse())
    line.create()
    line.cancel(0)
    assert [(r.created, r.canceled) for r in line.heard()] == [(True, False), (False, True)]
    line.put((b"k", b"1"))
    assert not line.heard()


def test_a_call_that_is_over_is_forgotten() -> None:
    line = Line(HandHouse())
    line.create()
    line.heard()
    line.create()
    line.stream.on_gone()
    line.put((b"k", b"1"))
    line.create()
    assert not line.heard()
    assert line.hand.leader.storage.watches.count == 0


def test_streams_end_when_the_member_cannot_tell_any_more(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse(size=3)
        line = Line(hand)
        line.create()
        line.create()
        line.heard()
        hand.cluster.cut.update(hand.cluster.ids)
        hand.cluster.pass_time(5_000)
        assert line.call.ended == [(14, "etcdserver: no leader")]
        assert hand.leader.storage.watches.count == 0

    run(scenario())


def test_streams_end_with_the_member() -> None:
    line = Line(HandHouse())
    line.create()
    line.heard()
    line.hand.leader.service.begin_shutdown()
    assert line.call.ended == [(14, "etcdserver: server stopped")]


def test_watches_wait_for_a_leader_in_order(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse(size=3)
        follower = next(member for member in hand.cluster.members.values() if member is not hand.leader)
        hand.cluster.cut.update(hand.cluster.ids)
        hand.cluster.pass_time(5_000)
        line = Line(hand, hand.of(follower))
        line.create(b"a")
        line.create(b"b", range_end=b"a")
        line.create(b"c")
        assert not line.heard(), "they wait"
        hand.cluster.cut.clear()
        hand.cluster.elect()
        while len(line.call.replies) < 3:
            await asyncio.sleep(0.005)
            hand.cluster.pass_time(25)
        assert [(r.watch_id, r.created, r.canceled) for r in line.heard()] == [
            (0, True, False),
            (-1, True, True),
            (1, True, False),
        ]

    run(scenario())


def test_watches_wait_no_longer_than_a_request(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse(size=3)
        hand.cluster.cut.update(hand.cluster.ids)
        hand.cluster.pass_time(5_000)
        line = Line(hand)
        line.create()
        hand.cluster.pass_time(3_000)
        await asyncio.sleep(0.05)
        assert not line.call.ended
        hand.cluster.pass_time(4_100)
        while not line.call.ended:
            await asyncio.sleep(0.005)
        assert line.call.ended == [(14, "etcdserver: request timed out")]

    run(scenario())


def test_it_is_in_the_table() -> None:
    assert PROCEDURES["/etcdserverpb.Watch/Watch"].gateway == ("/watch",)
