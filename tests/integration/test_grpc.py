"""The gRPC door with grpcio as its client, on real members: what works, what is refused, and what ends."""

import os
import queue
import socket
from typing import Any, Iterator

import grpc
import pytest

from raftkv.etcdpb import rpc_pb2 as rpc

from .conftest import StartCluster
from .harness.cluster import Cluster
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

KV = "/etcdserverpb.KV/"
TIMEOUT_S = 10.0


class Channel:
    """A client of one member, without retries of its own."""

    def __init__(self, endpoint: str) -> None:
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
        self.channel = grpc.insecure_channel(endpoint, options=unlimited)

    def call(self, path: str, request: Any, response: Any, **options: Any) -> Any:
        options.setdefault("timeout", TIMEOUT_S)
        return self.unary(path, response)(request, **options)

    def unary(self, path: str, response: Any) -> Any:
        return self.channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )

    def put(self, key: bytes, value: bytes = b"", **options: Any) -> rpc.PutResponse:
        return self.call(KV + "Put", rpc.PutRequest(key=key, value=value), rpc.PutResponse, **options)

    def get(self, key: bytes, range_end: bytes = b"", **options: Any) -> rpc.RangeResponse:
        return self.call(KV + "Range", rpc.RangeRequest(key=key, range_end=range_end), rpc.RangeResponse, **options)


class Stream:
    """A watch stream."""

    def __init__(self, channel: Channel, **options: Any) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        multi = channel.channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=rpc.WatchResponse.FromString,
        )
        self.responses = multi(iter(self._requests.get, None), timeout=60, **options)

    def create(self, key: bytes, **fields: Any) -> rpc.WatchResponse:
        self._requests.put(rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=key, **fields)))
        created = next(self.responses)
        assert created.created
        return created

    def close(self) -> None:
        self._requests.put(None)
        self.responses.cancel()


@pytest.fixture
def channels(cluster: Cluster) -> Iterator[list[Channel]]:
    """One per member."""
    made = [Channel(node.client_endpoint) for node in cluster.nodes]
    yield made
    for channel in made:
        channel.channel.close()


def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), error.value.details()


def test_every_member_serves_reads_and_writes(channels: list[Channel]) -> None:
    for i, channel in enumerate(channels):
        assert channel.put(b"k%d" % i, b"v%d" % i).header.revision == 2 + i
    for channel in channels:
        found = channel.get(b"k", b"l")
        assert [(item.key, item.value) for item in found.kvs] == [(b"k%d" % i, b"v%d" % i) for i in range(3)]
    assert len({channel.get(b"k0").header.member_id for channel in channels}) == 3
    assert len({channel.get(b"k0").header.cluster_id for channel in channels}) == 1


def test_transactions_that_only_read_are_answered_by_every_member_without_the_log(
    cluster: Cluster, channels: list[Channel]
) -> None:
    channels[0].put(b"k", b"v")
    look = rpc.RequestOp(request_range=rpc.RangeRequest(key=b"k"))
    request = rpc.TxnRequest(
        compare=[rpc.Compare(target=rpc.Compare.VERSION, result=rpc.Compare.EQUAL, key=b"k", version=1)], success=[look]
    )
    before = cluster.statuses()[cluster.leader().name]["applied_index"]
    for _ in range(100):
        for channel in channels:
            answer = channel.call(KV + "Txn", request, rpc.TxnResponse)
            assert answer.succeeded and answer.responses[0].response_range.kvs[0].value == b"v"
    assert cluster.statuses()[cluster.leader().name]["applied_index"] - before < 100, "each would have been an entry"


def test_large_messages_both_ways_and_their_bound(channels: list[Channel]) -> None:
    channel = channels[0]
    values = [os.urandom(1_000_000) for _ in range(12)]
    for i, value in enumerate(values):
        channel.put(b"big%02d" % i, value)
    assert [item.value for item in channel.get(b"big", b"bih").kvs] == values
    code, text = refused(lambda: channel.put(b"k", b"x" * 2_200_000))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text.startswith("grpc: received message larger than max (2200")
    assert channel.put(b"after").header.revision > 0


def test_what_is_refused_and_how(channels: list[Channel]) -> None:
    channel = channels[0]
    assert refused(lambda: channel.put(b"")) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "etcdserver: key is not provided",
    )
    assert refused(lambda: channel.call(KV + "Nope", rpc.PutRequest(), rpc.PutResponse)) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "unknown method Nope for service etcdserverpb.KV",
    )
    malformed = channel.channel.unary_unary(KV + "Put", request_serializer=bytes, response_deserializer=bytes)
    code, text = refused(lambda: malformed(b"\x0a\xff", timeout=TIMEOUT_S))
    assert (code, text.split(":")[0]) == (grpc.StatusCode.INTERNAL, "grpc")
    code, _ = refused(lambda: channel.put(b"k", compression=grpc.Compression.Deflate))
    assert code == grpc.StatusCode.UNIMPLEMENTED


def test_compressed_requests_are_taken_as_etcd_takes_them(channels: list[Channel]) -> None:
    value = b"v" * 1_000_000
    channels[0].put(b"k", value, compression=grpc.Compression.Gzip)
    assert channels[1].get(b"k").kvs[0].value == value
    code, text = refused(lambda: channels[0].put(b"k", bytes(3_000_000), compression=grpc.Compression.Gzip))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text.startswith("grpc: received message larger than max (30000")


def test_watches_hear_of_writes_at_other_members(channels: list[Channel]) -> None:
    stream = Stream(channels[0])
    stream.create(b"w", range_end=b"x")
    for i in range(50):
        channels[1 + i % 2].put(b"w%d" % i)
    heard = []
    while len(heard) < 50:
        heard += [event.kv.key for event in next(stream.responses).events]
    assert heard == [b"w%d" % i for i in range(50)]
    stream.close()


def test_a_canceled_call_and_a_deadline_leave_the_connection_as_it_was(channels: list[Channel]) -> None:
    channel = channels[0]
    channel.put(b"k")
    streams = [Stream(channel) for _ in range(20)]
    for stream in streams:
        stream.create(b"k")
    for stream in streams:
        stream.close()
    put = channel.unary(KV + "Put", rpc.PutResponse)
    calls = [put.future(rpc.PutRequest(key=b"k%d" % i), timeout=TIMEOUT_S) for i in range(200)]
    for call in calls[::2]:
        call.cancel()
    assert all(call.result().header.revision for call in calls[1::2])
    assert channel.get(b"k").count == 1


def test_a_paused_majority_ends_in_the_clients_deadline_and_then_it_goes_on(
    cluster: Cluster, channels: list[Channel]
) -> None:
    leader = cluster.leader()
    channel = channels[cluster.nodes.index(leader)]
    others = [node for node in cluster.nodes if node is not leader]
    for node in others:
        node.pause()
    try:
        code, text = refused(lambda: channel.put(b"k", timeout=0.4))
        # Were we held up since the pause, the leader steps down within the deadline, and says of the pending write that nobody knows.
        if code != grpc.StatusCode.DEADLINE_EXCEEDED:
            assert (code, text) == (
                grpc.StatusCode.UNAVAILABLE,
                "etcdserver: request timed out, possibly due to previous leader failure",
            )
    finally:
        for node in others:
            node.resume()
    wait_until(lambda: write_once(channels), "a write", deadline_s=20)


def write_once(channels: list[Channel]) -> bool:
    for channel in channels:
        try:
            channel.put(b"again", timeout=3)
        except grpc.RpcError:
            continue
        return True
    return False


def test_a_killed_leader_loses_no_acknowledged_write_of_followers_clients(
    cluster: Cluster, channels: list[Channel]
) -> None:
    leader = cluster.leader()
    survivors = [channel for channel, node in zip(channels, cluster.nodes, strict=True) if node is not leader]
    acknowledged: list[bytes] = []

    def write(count: int) -> None:
        for i in range(count):
            key = b"key-%d" % (len(acknowledged) + i * 1000)
            try:
                survivors[i % 2].put(key, timeout=8)
            except grpc.RpcError:
                continue
            acknowledged.append(key)

    write(30)
    leader.kill()
    write(60)
    assert len(acknowledged) > 60
    for channel in survivors:
        assert set(acknowledged) <= {item.key for item in channel.get(b"key-", b"key.").kvs}


def test_a_member_that_shuts_down_ends_its_streams_and_sends_clients_away(
    cluster: Cluster, channels: list[Channel]
) -> None:
    follower = next(node for node in cluster.nodes if node is not cluster.leader())
    channel = channels[cluster.nodes.index(follower)]
    stream = Stream(channel)
    stream.create(b"k")
    assert follower.terminate() == 0
    code, _ = refused(lambda: [next(stream.responses) for _ in range(2)])
    assert code == grpc.StatusCode.UNAVAILABLE


def attack(endpoint: str, data: bytes) -> bytes:
    """Send all, then read what comes until the other side closes, or says no more."""
    host, _, port = endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as line:
        try:
            line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + data)
            answer = b""
            while part := line.recv(65536):
                answer += part
        except (TimeoutError, ConnectionError):
            pass
        return answer


def test_floods_hurt_only_whoever_sends_them(make_cluster: StartCluster) -> None:
    cluster = make_cluster(size=1).start()
    node = cluster.nodes[0]
    channel = Channel(node.client_endpoint)
    channel.put(b"k", b"v")
    before = node.daemon.resident_bytes()
    settings = b"\0\0\0\x04\0\0\0\0\0"
    ping = b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"
    continuations = b"\0\0\1\1\0\0\0\0\1\x82" + b"\0\0\0\x09\0\0\0\0\1" * 5_000
    for flood in (settings * 5_000, settings + ping * 5_000, settings + continuations, os.urandom(5_000)):
        answer = attack(node.client_endpoint, flood)
        assert b"\x07\0\0\0\0\0" in answer, "a GOAWAY is the last word"
        assert channel.get(b"k").kvs[0].value == b"v"
    held = []
    try:
        for _ in range(200):  # windows of nothing, each with answers that wait for room
            host, _, port = node.client_endpoint.rpartition(":")
            line = socket.create_connection((host, int(port)), timeout=5)
            held.append(line)
            line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\6\4\0\0\0\0\0" + b"\0\4\0\0\0\0")
        channel.put(b"k", b"w")
        assert channel.get(b"k").kvs[0].value == b"w"
    finally:
        for line in held:
            line.close()
    assert node.daemon.resident_bytes() < before + 64 * 1024 * 1024
    channel.channel.close()
