"""Keep-alive streams of etcd's API, and commands that wait for a leader."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from raftkv.daemon.etcd.calls import Refused
from raftkv.daemon.etcd.desk import Desk
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.keepalive import KeepAliveStream
from raftkv.errors import DeadlineExceeded, LeadershipLost, NoQuorum, NotLeader, OutcomeUnknown, ShuttingDown
from raftkv.etcd.methods import BY_PATH
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.limits import Limits
from raftkv.wire.commands import PUT, RANGE
from tests.unit.conftest import Run
from tests.unit.daemon.etcd_calls import HandCall, HandDoor, HandHouse

PUT_METHOD = BY_PATH["/etcdserverpb.KV/Put"]
RANGE_METHOD = BY_PATH["/etcdserverpb.KV/Range"]
TTL_METHOD = BY_PATH["/etcdserverpb.Lease/LeaseTimeToLive"]
GRANT_METHOD = BY_PATH["/etcdserverpb.Lease/LeaseGrant"]


def grant(hand: HandHouse, *leases: int) -> None:
    door = HandDoor()
    desk = Desk(hand.house, door)
    for lease in leases:
        desk.submit(lease, GRANT_METHOD, rpc.LeaseGrantRequest(TTL=60, ID=lease))
    desk.flush()
    hand.cluster.settle()
    assert len(door.responses) == len(leases)


def keep(stream: KeepAliveStream, *leases: int) -> None:
    for lease in leases:
        stream.on_message(rpc.LeaseKeepAliveRequest(ID=lease))


async def until(hand: HandHouse, condition: Callable[[], object]) -> None:
    """Time passes in the cluster until then."""
    while not condition():
        hand.cluster.pass_time(25)
        await asyncio.sleep(0.002)


def answers(call: HandCall) -> list[tuple[int, int]]:
    return [(reply.ID, reply.TTL) for reply in call.replies if isinstance(reply, rpc.LeaseKeepAliveResponse)]


def test_answers_in_order_and_no_time_for_a_lease_that_is_not_there(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse()
        grant(hand, 5, 6)
        call = HandCall()
        stream = KeepAliveStream(hand.house, call)
        keep(stream, 6, 99, 5, 6)
        await until(hand, lambda: len(call.replies) == 4)
        assert answers(call) == [(6, 60), (99, 0), (5, 60), (6, 60)]
        keep(stream, 5)
        stream.on_half_close()
        assert not call.ended, "what was asked is answered first"
        await until(hand, lambda: call.ended)
        assert (answers(call)[4:], call.ended) == ([(5, 60)], [None])

    run(scenario())


def test_streams_of_one_turn_share_a_question(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse(Limits(keep_alive_leases_max=3))
        grant(hand, *range(1, 6))
        asked: list[Any] = []
        forward = hand.leader.service.forward
        hand.leader.service.forward = lambda group: (asked.append(group.commands), forward(group))[1]  # type: ignore[method-assign]
        calls = [HandCall() for _ in range(5)]
        for lease, call in enumerate(calls, 1):
            keep(KeepAliveStream(hand.house, call), lease)
        await until(hand, lambda: all(call.replies for call in calls))
        assert [len(commands[0][1]) for commands in asked] == [3, 2]
        assert [answers(call) for call in calls] == [[(lease, 60)] for lease in range(1, 6)]

    run(scenario())


def test_a_client_that_takes_nothing_is_told_later(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse()
        grant(hand, 5)
        call = HandCall()
        call.takes_messages = False
        stream = KeepAliveStream(hand.house, call)
        keep(stream, 5)
        stream.on_half_close()
        for _ in range(10):
            hand.cluster.pass_time(25)
            await asyncio.sleep(0)
        assert not call.replies and not call.ended
        call.takes_messages = True
        stream.on_room()
        assert (answers(call), call.ended) == ([(5, 60)], [None])

    run(scenario())


def test_too_many_keep_alives_at_once_end_the_stream(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse(Limits(connection_in_flight_requests_max=4))
        stream = KeepAliveStream(hand.house, HandCall())
        keep(stream, 1, 2, 3, 4)
        with pytest.raises(Refused, match="too many requests"):
            keep(stream, 5)
        stream.on_gone()
        hand.cluster.settle()

    run(scenario())


def test_keep_alives_survive_the_loss_of_the_leader(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse(size=3)
        grant(hand, 5)
        follower = hand.cluster.followers()[0]
        call = HandCall()
        stream = KeepAliveStream(hand.of(follower), call)
        hand.cluster.cut.add(hand.leader.node_id)
        keep(stream, 5)  # forwarded to a leader that is gone
        await until(hand, lambda: call.replies or call.ended)
        assert (answers(call), call.ended) == ([(5, 60)], [])

    run(scenario())


def test_keep_alives_without_a_leader_end_in_time(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse(size=3)
        hand.cluster.cut.update(hand.cluster.ids)
        hand.cluster.pass_time(5_000)
        call = HandCall()
        keep(KeepAliveStream(hand.house, call), 5)
        await until(hand, lambda: call.ended)
        assert call.ended == [(14, "etcdserver: request timed out")]
        assert not hand.house.parking

    run(scenario())


class Waiters:
    """A follower that has lost everybody, and a connection to it with a write, a read and a question."""

    def __init__(self) -> None:
        self.hand = HandHouse(size=3)
        grant(self.hand, 9)
        self.house = self.hand.of(self.hand.cluster.followers()[0])
        self.door = HandDoor()
        self.desk = Desk(self.house, self.door)
        self.hand.cluster.cut.update(self.hand.cluster.ids)
        self.hand.cluster.pass_time(5_000)
        assert not self.house.view.knows_leader

    def ask(self, timeout_ms: int = 0) -> None:
        self.desk.submit(1, PUT_METHOD, rpc.PutRequest(key=b"k", value=b"v"), timeout_ms=timeout_ms)
        self.desk.submit(2, RANGE_METHOD, rpc.RangeRequest(key=b"k"), timeout_ms=timeout_ms)
        self.desk.submit(3, TTL_METHOD, rpc.LeaseTimeToLiveRequest(ID=9), timeout_ms=timeout_ms)
        self.desk.flush()


def test_commands_wait_for_a_leader_and_are_done_once(run: Run) -> None:
    async def scenario() -> None:
        waiters = Waiters()
        waiters.ask()
        asked = asyncio.ensure_future(waiters.house.ask([PUT, 0, b"other", b"", 0, 0]))
        read = asyncio.ensure_future(waiters.house.ask([RANGE, 0, b"k", b"", 0, 0, 0, 0, 0, 0, 0, 0]))
        given_up = asyncio.ensure_future(waiters.house.ask([PUT, 0, b"given up", b"", 0, 0]))
        await asyncio.sleep(0.1)
        given_up.cancel()
        assert len(waiters.house.parking) == 6
        assert waiters.desk.in_flight_bytes
        waiters.hand.cluster.cut.clear()
        await until(waiters.hand, lambda: len(waiters.door.responses) == 3 and asked.done() and read.done())
        assert waiters.door.responses[3].grantedTTL == 60
        assert not waiters.door.failures and not waiters.desk.in_flight_bytes and not waiters.desk.in_flight
        found = await waiters.house.ask([RANGE, 1, b"\0", b"\0", 0, 0, 0, 0, 0, 0, 0, 0])
        assert sorted((items[0], items[3]) for items in found[2]) == [(b"k", 1), (b"other", 1)]

    run(scenario())


def test_commands_wait_until_their_deadline(run: Run) -> None:
    async def scenario() -> None:
        waiters = Waiters()
        waiters.ask(timeout_ms=1_000)
        await until(waiters.hand, lambda: len(waiters.door.failures) == 3)
        assert set(waiters.door.failures.values()) == {(14, "etcdserver: request timed out")}
        task = asyncio.ensure_future(waiters.house.ask([PUT, 0, b"k", b"", 0, 0]))
        await until(waiters.hand, task.done)
        with pytest.raises(DeadlineExceeded):
            await task
        assert not waiters.house.parking and not waiters.desk.in_flight_bytes

    run(scenario())


def test_what_a_client_gave_up_while_it_waited_is_not_done(run: Run) -> None:
    async def scenario() -> None:
        waiters = Waiters()
        waiters.desk.submit(1, PUT_METHOD, rpc.PutRequest(key=b"a"))
        waiters.desk.submit(2, PUT_METHOD, rpc.PutRequest(key=b"b"))
        waiters.desk.flush()
        waiters.desk.submit(3, PUT_METHOD, rpc.PutRequest(key=b"c"))
        waiters.desk.flush()
        waiters.desk.forget(1)
        waiters.desk.forget(3)
        waiters.hand.cluster.cut.clear()
        await until(waiters.hand, lambda: waiters.door.responses)
        found = await waiters.house.ask([RANGE, 1, b"\0", b"\0", 0, 0, 0, 0, 0, 0, 0, 0])
        assert [items[0] for items in found[2]] == [b"b"]
        assert not waiters.desk.in_flight_bytes

    run(scenario())


def test_what_waits_is_bounded_and_a_member_that_leaves_holds_nobody(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse(Limits(pending_writes_max=2), size=3)
        hand.cluster.cut.update(hand.cluster.ids)
        hand.cluster.pass_time(5_000)
        door = HandDoor()
        desk = Desk(hand.house, door)
        for tag in range(3):
            desk.submit(tag, PUT_METHOD, rpc.PutRequest(key=b"k"))
            desk.flush()
        assert door.failures == {2: (14, "etcdserver: no leader")}
        hand.leader.service.begin_shutdown()
        await until(hand, lambda: len(door.failures) == 3)
        assert door.failures[0] == (14, "etcdserver: server stopped")

    run(scenario())


def test_thousands_that_wait_are_handed_in_some_at_a_time_and_each_once(run: Run) -> None:
    async def scenario() -> None:
        waiters = Waiters()
        for tag in range(5_000):
            waiters.desk.submit(tag, PUT_METHOD, rpc.PutRequest(key=b"k%d" % tag), timeout_ms=0 if tag % 5 else 1_000)
            waiters.desk.flush()
        assert len(waiters.house.parking) == 5_000
        waiters.hand.cluster.pass_time(2_000)
        await until(waiters.hand, lambda: len(waiters.door.failures) == 1_000)
        assert {tag % 5 for tag in waiters.door.failures} == {0}
        waiters.hand.cluster.cut.clear()
        await until(waiters.hand, lambda: len(waiters.door.responses) == 4_000)
        found = await waiters.house.ask([RANGE, 1, b"\0", b"\0", 0, 0, 0, 0, 0, 0, 0, 0])
        assert (len(found[2]), {items[3] for items in found[2]}) == (4_000, {1})
        assert not waiters.desk.in_flight_bytes and not waiters.house.parking

    run(scenario())


def test_which_errors_wait() -> None:
    parking = HandHouse().house.parking
    waits = [NotLeader(), NoQuorum(), ShuttingDown()]
    assert all(parking.takes(error) for error in waits)
    for error in (OutcomeUnknown(), LeadershipLost(), NoQuorum(may_have_happened=True)):
        assert not parking.takes(error)
        assert parking.takes(error, harmless_twice=True)
    assert not parking.takes(DeadlineExceeded(may_have_happened=True), harmless_twice=True)


def test_a_call_that_needs_a_leader_now() -> None:
    hand = HandHouse(size=3)
    house: House = hand.house
    assert house.refusal({"hasleader": "true"}) is None
    hand.cluster.cut.update(hand.cluster.ids)
    hand.cluster.pass_time(5_000)
    assert house.refusal({"hasleader": "true"}) == (14, "etcdserver: no leader")
    assert house.refusal({"hasleader": "false"}) is None
    assert house.refusal({}) is None
