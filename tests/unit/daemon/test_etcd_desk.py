"""Commands of etcd's API on their way through a desk, and procedures that are coroutines."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from raftkv.daemon.etcd.calls import Call, Refused
from raftkv.daemon.etcd.desk import Desk
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.identity import Caller
from raftkv.daemon.etcd.procedures import GATEWAY, PROCEDURES
from raftkv.daemon.etcd.tasks import answered_by, streamed_by
from raftkv.errors import KeyEmpty
from raftkv.etcd.long_ranges import protobuf_part
from raftkv.etcd.methods import BY_PATH
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.limits import Limits
from raftkv.wire.commands import PUT, decode_batch
from tests.unit.conftest import Run
from tests.unit.daemon.etcd_calls import CLUSTER_ID, HandCall, HandDoor, HandHouse

PUT_METHOD = BY_PATH["/etcdserverpb.KV/Put"]
RANGE_METHOD = BY_PATH["/etcdserverpb.KV/Range"]
GRANT_METHOD = BY_PATH["/etcdserverpb.Lease/LeaseGrant"]
TTL_METHOD = BY_PATH["/etcdserverpb.Lease/LeaseTimeToLive"]


def in_loop(run: Run, scenario: Callable[[], None]) -> None:
    async def main() -> None:
        scenario()

    run(main())


def test_what_one_read_brings_is_one_entry_and_comes_back_at_once() -> None:
    hand, door = HandHouse(), HandDoor()
    desk = Desk(hand.house, door)
    for tag in range(1, 6):
        desk.submit(tag, PUT_METHOD, rpc.PutRequest(key=b"k%d" % tag, value=b"v"))
    assert desk.in_flight == 5
    entries_before = len(entries_of(hand))
    desk.flush()
    hand.cluster.settle()
    assert len(entries_of(hand)) == entries_before + 1
    assert [door.responses[tag].header.revision for tag in range(1, 6)] == [2, 3, 4, 5, 6]
    assert door.responses[1].header.cluster_id == CLUSTER_ID
    assert door.batches == 1
    assert desk.in_flight == 0
    assert desk.in_flight_bytes == 0


def entries_of(hand: HandHouse) -> list[Any]:
    return [entry for save in hand.leader.journal.saves for entry in save[1]]


def test_a_bad_request_is_refused_alone_and_at_once() -> None:
    hand, door = HandHouse(), HandDoor()
    desk = Desk(hand.house, door)
    desk.submit(1, PUT_METHOD, rpc.PutRequest(value=b"v"))
    desk.submit(2, PUT_METHOD, rpc.PutRequest(key=b"k"))
    assert door.failures[1] == (3, "etcdserver: key is not provided")
    desk.flush()
    hand.cluster.settle()
    assert set(door.responses) == {2}


def test_a_command_that_apply_refuses_has_its_status() -> None:
    hand, door = HandHouse(), HandDoor()
    desk = Desk(hand.house, door)
    desk.submit(1, PUT_METHOD, rpc.PutRequest(key=b"k", lease=5))
    desk.flush()
    hand.cluster.settle()
    assert door.failures[1] == (5, "etcdserver: requested lease not found")


def test_a_follower_forwards_writes_and_questions_and_reads_by_itself() -> None:
    hand, door = HandHouse(size=3), HandDoor()
    follower = next(member for member in hand.cluster.members.values() if member is not hand.leader)
    desk = Desk(hand.of(follower), door)
    desk.submit(1, PUT_METHOD, rpc.PutRequest(key=b"k", value=b"v"))
    desk.submit(2, GRANT_METHOD, rpc.LeaseGrantRequest(TTL=60, ID=9))
    desk.flush()
    hand.cluster.settle()
    desk.submit(3, TTL_METHOD, rpc.LeaseTimeToLiveRequest(ID=9))
    desk.submit(4, RANGE_METHOD, rpc.RangeRequest(key=b"k"))
    desk.flush()
    hand.cluster.settle()
    desk.submit(5, RANGE_METHOD, rpc.RangeRequest(key=b"k", serializable=True))
    desk.flush()  # what is applied here, at once
    assert not door.failures
    assert door.responses[1].header.member_id == follower.raft.node_id
    assert door.responses[3].grantedTTL == 60
    assert [key_value.value for key_value in door.responses[4].kvs] == [b"v"]
    assert door.responses[5].count == 1


def test_a_range_longer_than_one_answer_comes_whole(run: Run) -> None:
    async def scenario() -> None:
        hand, door = HandHouse(Limits(range_reply_bytes_max=4096)), HandDoor()
        desk = Desk(hand.house, door)
        for tag in range(100):
            desk.submit(tag, PUT_METHOD, rpc.PutRequest(key=b"k%03d" % tag, value=b"v" * 1000))
        desk.flush()
        hand.cluster.settle()
        desk.submit(1000, RANGE_METHOD, rpc.RangeRequest(key=b"k", range_end=b"l"))
        desk.submit(1001, RANGE_METHOD, rpc.RangeRequest(key=b"k", range_end=b"l", limit=50, sort_order=2))
        desk.submit(1002, RANGE_METHOD, rpc.RangeRequest(key=b"k", range_end=b"l", sort_target=4))
        desk.flush()
        while len(door.responses) < 102 or not door.failures:
            hand.cluster.settle()
            await asyncio.sleep(0)
        assert [key_value.key for key_value in door.responses[1000].kvs] == [b"k%03d" % i for i in range(100)]
        assert (door.responses[1000].count, door.responses[1000].more) == (100, False)
        assert [key_value.key for key_value in door.responses[1001].kvs] == [b"k%03d" % i for i in range(99, 49, -1)]
        assert door.responses[1001].more
        assert door.failures[1002].text == "etcdserver: request is too large"

    run(scenario())


def test_a_long_range_is_encoded_over_many_turns(run: Run) -> None:
    async def scenario() -> None:
        hand, door = HandHouse(), HandDoor()
        sizes: list[int] = []

        def encode_part(key_values: Any) -> bytes:
            sizes.append(len(key_values))
            return protobuf_part(key_values)

        desk = Desk(hand.house, door, encode_part=encode_part)
        for tag in range(1_700):
            desk.submit(tag, PUT_METHOD, rpc.PutRequest(key=b"k%04d" % tag, value=b"v"))
        desk.flush()
        hand.cluster.settle()
        for tag in (2_000, 2_001, 2_002):
            desk.submit(tag, RANGE_METHOD, rpc.RangeRequest(key=b"k", range_end=b"l", limit=0 if tag < 2_002 else 400))
        desk.flush()
        hand.cluster.settle()
        assert set(door.responses) - set(range(1_700)) == {2_002}, "the short one is answered, the others are begun"
        desk.forget(2_001)
        while 2_000 not in door.responses:
            await asyncio.sleep(0)
        assert [key_value.key for key_value in door.responses[2_000].kvs] == [b"k%04d" % i for i in range(1_700)]
        assert (door.responses[2_000].count, door.responses[2_000].more, door.responses[2_000].header.revision) == (
            1_700,
            False,
            1_701,
        )
        assert sizes == [500, 500, 500, 200]
        assert (len(door.responses[2_002].kvs), door.responses[2_002].more) == (400, True)
        assert not desk.in_flight

    run(scenario())


def test_callers_do_not_share_a_group() -> None:
    hand, door = HandHouse(), HandDoor()
    desk = Desk(hand.house, door)
    for tag, user in enumerate(["ann", "ann", "bob"]):
        desk.submit(tag, PUT_METHOD, rpc.PutRequest(key=b"k%d" % tag), Caller(user, 4))
    desk.flush()
    hand.cluster.settle()
    groups = [group for entry in entries_of(hand) if entry.kind == 1 for group in decode_batch(entry.data)[1]]
    assert [(user, revision, len(commands)) for *_, user, revision, commands in groups if user] == [
        ("ann", 4, 2),
        ("bob", 4, 1),
    ]


def test_answers_of_a_connection_that_is_gone_go_nowhere() -> None:
    hand, door = HandHouse(), HandDoor()
    desk = Desk(hand.house, door)
    desk.submit(1, PUT_METHOD, rpc.PutRequest(key=b"a"))
    desk.submit(2, PUT_METHOD, rpc.PutRequest(key=b"b"))
    desk.flush()
    desk.forget(1)
    hand.cluster.settle()
    assert set(door.responses) == {2}
    desk.submit(3, PUT_METHOD, rpc.PutRequest(key=b"c"))
    desk.flush()
    desk.close()
    hand.cluster.settle()
    assert set(door.responses) == {2}
    assert desk.in_flight_bytes == 0


def test_one_command_can_be_awaited(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse()
        answer = await hand.house.ask([PUT, 0, b"k", b"v", 0, 0])
        assert answer[1] == 2
        with pytest.raises(KeyEmpty):
            await hand.house.ask([PUT, 0, b"", b"v", 0, 0])

    run(scenario())


def test_a_coroutine_answers_ends_and_is_canceled(run: Run) -> None:
    async def scenario() -> None:
        canceled = asyncio.Event()

        async def answer(house: House, call: Call, request: Any) -> rpc.StatusResponse:
            if request.key == b"refuse":
                raise Refused(2, "election: no leader")
            if request.key == b"wait":
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    canceled.set()
                    raise
            await house.ask([PUT, 0, request.key, b"", 0, 0])
            return rpc.StatusResponse(version="3")

        hand = HandHouse()
        opened = answered_by(answer)
        calls = {key: HandCall() for key in (b"good", b"", b"refuse", b"wait")}
        receivers = {key: opened(hand.house, call) for key, call in calls.items()}
        for key, receiver in receivers.items():
            receiver.on_message(rpc.PutRequest(key=key))
            receiver.on_half_close()
        while not calls[b"good"].ended:
            await asyncio.sleep(0)
        assert calls[b"good"].replies == [rpc.StatusResponse(version="3")]
        assert calls[b"good"].ended == [None]
        assert calls[b""].ended == [(3, "etcdserver: key is not provided")]
        assert calls[b"refuse"].ended == [(2, "election: no leader")]
        receivers[b"wait"].on_gone()
        await canceled.wait()
        assert calls[b"wait"].ended == []

    run(scenario())


def test_a_stream_is_held_while_the_client_takes_nothing(run: Run) -> None:
    async def scenario() -> None:
        async def count(house: House, call: Call, request: Any) -> AsyncGenerator[rpc.StatusResponse, None]:
            for number in range(4):
                yield rpc.StatusResponse(leader=number)

        call = HandCall()
        call.takes_messages = False
        receiver = streamed_by(count)(HandHouse().house, call)
        receiver.on_message(rpc.StatusRequest())
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(call.replies) == 1
        call.takes_messages = True
        receiver.on_room()
        while not call.ended:
            await asyncio.sleep(0)
        assert call.replies == [rpc.StatusResponse(leader=number) for number in range(4)]

    run(scenario())


def test_every_procedure_has_one_path_of_each_kind() -> None:
    assert all(path == procedure.path for path, procedure in PROCEDURES.items())
    assert len(GATEWAY) == sum(len(procedure.gateway) for procedure in PROCEDURES.values())
