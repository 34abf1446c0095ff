"""The gRPC door with clients of other hands: grpc.aio in its own loop, and raw HTTP/2 where a library would hide what is looked at."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.http2 import frames

from .conftest import StartCluster
from .harness.cluster import Cluster
from .harness.waiting import wait_until
from .test_grpc import Channel, Stream, refused
from .test_grpc_abuse import GREETING, attackers, ends_with

pytestmark = pytest.mark.integration

KV = "/etcdserverpb.KV/"


def calls_of(channel: Any) -> tuple[Any, Any]:
    """Put and Range."""
    return tuple(
        channel.unary_unary(
            KV + name, request_serializer=lambda m: m.SerializeToString(), response_deserializer=kind.FromString
        )
        for name, kind in (("Put", rpc.PutResponse), ("Range", rpc.RangeResponse))
    )  # type: ignore[return-value]


async def test_many_calls_of_an_asyncio_client(cluster: Cluster) -> None:
    async with grpc.aio.insecure_channel(cluster.leader().client_endpoint) as channel:
        put, get = calls_of(channel)

        async def write(number: int) -> int:
            answer = await put(rpc.PutRequest(key=b"k%d" % number, value=b"v%d" % number), timeout=20)
            return int(answer.header.revision)

        revisions = await asyncio.gather(*map(write, range(500)))
        assert sorted(revisions) == list(range(2, 502)), "each write has a revision of its own"
        found = await asyncio.gather(*(get(rpc.RangeRequest(key=b"k%d" % n), timeout=20) for n in range(500)))
        assert [answer.kvs[0].value for answer in found] == [b"v%d" % n for n in range(500)]

        canceled = [put(rpc.PutRequest(key=b"c%d" % n), timeout=20) for n in range(100)]
        for call in canceled:
            call.cancel()
        assert (await get(rpc.RangeRequest(key=b"k1"), timeout=20)).count == 1

        watch = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=rpc.WatchResponse.FromString,
        )(timeout=60)
        await watch.write(rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=b"w")))
        assert (await watch.read()).created
        await put(rpc.PutRequest(key=b"w", value=b"1"), timeout=20)
        assert (await watch.read()).events[0].kv.value == b"1"
        watch.cancel()


def test_messages_of_a_megabyte_and_a_half_both_ways(cluster: Cluster) -> None:
    channel = Channel(cluster.leader().client_endpoint)
    values = [bytes([n]) * 700_000 for n in (1, 2)]
    puts = [rpc.RequestOp(request_put=rpc.PutRequest(key=b"k%d" % n, value=value)) for n, value in enumerate(values)]
    both = rpc.RequestOp(request_range=rpc.RangeRequest(key=b"k", range_end=b"l"))
    answer = channel.call(KV + "Txn", rpc.TxnRequest(success=[*puts, both]), rpc.TxnResponse)
    assert [item.value for item in answer.responses[2].response_range.kvs] == values
    channel.channel.close()


def test_streams_and_calls_that_want_a_leader(cluster: Cluster) -> None:
    leader = cluster.leader()
    channel = Channel(leader.client_endpoint)
    stream = Stream(channel, metadata=[("hasleader", "true")])
    stream.create(b"k")
    others = [node for node in cluster.nodes if node is not leader]
    for node in others:
        node.pause()
    try:
        no_leader = grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader"
        assert refused(lambda: next(stream.responses)) == no_leader
        wait_until(
            lambda: refused(lambda: channel.get(b"k", metadata=[("hasleader", "true")], timeout=1)) == no_leader,
            "calls to be refused at once",
            deadline_s=20,
        )
    finally:
        for node in others:
            node.resume()
        channel.channel.close()


@pytest.mark.long
def test_a_client_that_does_not_answer_a_ping_is_let_go_and_one_that_does_stays(make_cluster: StartCluster) -> None:
    environment = {"RAFTKV_GRPC_KEEPALIVE_INTERVAL_MS": "300", "RAFTKV_GRPC_KEEPALIVE_TIMEOUT_MS": "1500"}
    node = make_cluster(size=1, environment=environment).start().nodes[0]
    channel = Channel(node.client_endpoint)
    stream = Stream(channel)
    stream.create(b"k")
    with attackers(node, 1) as (silent,):
        silent.send(GREETING)
        heard = silent.read(seconds=60)
        assert frames.frame(frames.PING, 0, 0, b"raftkv\0\0") in heard
        assert silent.is_closed()
    channel.put(b"k", b"v")
    assert next(stream.responses).events[0].kv.value == b"v", "its library has answered all the while"
    stream.close()
    channel.channel.close()


def test_pings_in_silence_and_a_limit_that_is_set(make_cluster: StartCluster) -> None:
    node = make_cluster(size=1, environment={"RAFTKV_GRPC_KEEPALIVE_MS_MIN": "1"}).start().nodes[0]
    often = make_cluster(size=1).start().nodes[0]
    ping = frames.frame(frames.PING, 0, 0, b"12345678")
    ack = frames.frame(frames.PING, frames.ACK, 0, b"12345678")
    with attackers(node, 1) as (allowed,), attackers(often, 1) as (refused_one,):
        allowed.send(GREETING)
        refused_one.send(GREETING)
        heard = bytearray()

        def acks() -> int:
            heard.extend(allowed.read(seconds=0.1))
            return heard.count(ack)

        for sent in range(1, 13):
            allowed.send(ping)
            refused_one.send(ping)
            # The next one goes out only then: two that come to a busy member at once would be too many even here.
            wait_until(lambda sent=sent: acks() >= sent, f"the ack of ping {sent}", seen=lambda: bytes(heard))
        assert heard.count(ack) == 12
        assert not allowed.is_closed()
        answer = refused_one.read()
    assert ends_with(answer, frames.ENHANCE_YOUR_CALM)
    assert b"too_many_pings" in answer


def test_a_member_that_leaves_says_so_twice(cluster: Cluster) -> None:
    follower = next(node for node in cluster.nodes if node is not cluster.leader())
    with attackers(follower, 1) as (client,):
        client.send(GREETING)
        client.read(seconds=0.2)
        assert follower.terminate() == 0
        heard = client.read(seconds=10)
    last_ids = []
    while len(heard) >= 9:
        size = int.from_bytes(heard[:3], "big")
        if heard[3] == frames.GOAWAY:
            last_ids.append(int.from_bytes(heard[9:13], "big"))
        heard = heard[9 + size :]
    assert last_ids == [frames.STREAM_ID_MAX, 0]
