"""Watches and keep-alives of etcd's clients on members that stay, while the leader is killed, hands over, and a member is cut off."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from raftkv.etcdpb import rpc_pb2 as rpc

from .harness.cluster import Cluster
from .harness.netns import Network
from .harness.node import Node
from .harness.waiting import wait_until
from .test_grpc import Channel, Stream

pytestmark = pytest.mark.integration

LEASE = 77
TTL_SECONDS = 5


class Hearing:
    """A watch on everything at one member: keys in the order in which they were told, and how the stream ended."""

    def __init__(self, node: Node, **fields: Any) -> None:
        self._channel = Channel(node.client_endpoint)
        self.stream = Stream(self._channel)
        self.stream.create(b"k", range_end=b"l", **fields)
        self.heard: list[tuple[bytes, int]] = []
        self.ended: tuple[grpc.StatusCode, str] | None = None
        self._thread = threading.Thread(target=self._hear)
        self._thread.start()

    def _hear(self) -> None:
        try:
            for response in self.stream.responses:
                self.heard += [(event.kv.key, event.kv.mod_revision) for event in response.events]
        except grpc.RpcError as error:
            self.ended = error.code(), error.details()

    def close(self) -> None:
        self.stream.close()
        self._thread.join()
        self._channel.channel.close()


class Keeping:
    """A keep-alive stream at one member: a message every 200 ms, and the time that was left at each."""

    def __init__(self, node: Node) -> None:
        self._channel = Channel(node.client_endpoint)
        self._requests: queue.Queue[Any] = queue.Queue()
        make = self._channel.channel.stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=rpc.LeaseKeepAliveResponse.FromString,
        )
        self._answers = make(iter(self._requests.get, None), timeout=100)
        self.ttls: list[int] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._ask, self._read)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._stop.wait(0.2):
            self._requests.put(rpc.LeaseKeepAliveRequest(ID=LEASE))
        self._requests.put(None)

    def _read(self) -> None:
        for answer in self._answers:
            self.ttls.append(answer.TTL)

    def close(self) -> None:
        """Raises nothing: a stream that is half-closed ends well, after all answers."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._channel.channel.close()


class Writing:
    """Puts of new keys through one member, one after the other."""

    def __init__(self, node: Node, number: int) -> None:
        self._channel = Channel(node.client_endpoint)
        self._number = number
        self.acknowledged: list[tuple[bytes, int]] = []
        self.failed: list[tuple[grpc.StatusCode, str]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        count = 0
        while not self._stop.is_set():
            key = b"k/%d/%05d" % (self._number, count)
            count += 1
            try:
                self.acknowledged.append((key, self._channel.put(key, timeout=20).header.revision))
            except grpc.RpcError as error:
                self.failed.append((error.code(), error.details()))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._channel.channel.close()


@pytest.fixture
def closing() -> Iterator[list[Any]]:
    """What is closed at the end, whatever happens."""
    opened: list[Any] = []
    yield opened
    for one in opened:
        one.close()


def grant(cluster: Cluster) -> None:
    channel = Channel(cluster.leader().client_endpoint)
    channel.call(
        "/etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantRequest(ID=LEASE, TTL=TTL_SECONDS), rpc.LeaseGrantResponse
    )
    channel.call("/etcdserverpb.KV/Put", rpc.PutRequest(key=b"leased", lease=LEASE), rpc.PutResponse)
    channel.channel.close()


def wait_written(writers: list[Writing], count: int) -> None:
    """So many more."""

    def written() -> int:
        return sum(len(writer.acknowledged) for writer in writers)

    before = written()
    wait_until(lambda: written() >= before + count, "writes", deadline_s=30, seen=written)


def test_streams_outlive_the_leader(cluster: Cluster, closing: list[Any]) -> None:
    grant(cluster)
    leader = cluster.leader()
    staying = cluster.others(leader)
    hearings = [Hearing(node) for node in staying]
    keepings = [Keeping(node) for node in staying]
    writers = [Writing(node, number) for number, node in enumerate(staying * 2)]
    closing += [*hearings, *keepings, *writers]
    wait_written(writers, 200)
    leader.kill()
    wait_written(writers, 200)
    leader.start()
    cluster.wait_ready()
    wait_written(writers, 200)
    for writer in writers:
        writer.close()
    acknowledged = sorted((pair for writer in writers for pair in writer.acknowledged), key=lambda pair: pair[1])
    last = acknowledged[-1]
    for hearing in hearings:
        wait_until(lambda hearing=hearing: last in hearing.heard, "the last event", deadline_s=20)
        assert hearing.ended is None
        revisions = [revision for _, revision in hearing.heard]
        assert revisions == sorted(set(revisions)), "in order, none twice"
        assert set(acknowledged) <= set(hearing.heard)
    assert hearings[0].heard == hearings[1].heard
    assert {text for writer in writers for _, text in writer.failed} <= {
        "etcdserver: request timed out, possibly due to previous leader failure"
    }
    time_left = min(ttl for keeping in keepings for ttl in keeping.ttls)
    assert time_left == TTL_SECONDS, "it was kept alive all the time"
    channel = Channel(staying[0].client_endpoint)
    closing.append(channel.channel)
    assert channel.get(b"leased").count == 1


@pytest.mark.long
def test_a_leader_that_is_told_to_stop_costs_clients_of_others_nothing(cluster: Cluster, closing: list[Any]) -> None:
    leader = cluster.leader()
    writers = [Writing(node, number) for number, node in enumerate(cluster.others(leader) * 2)]
    closing += writers
    wait_written(writers, 200)
    assert leader.terminate() == 0
    wait_written(writers, 200)
    for writer in writers:
        writer.close()
    assert not [failure for writer in writers for failure in writer.failed]


@pytest.mark.long
def test_a_member_that_is_cut_off_sends_its_streams_away(
    separated: Cluster, network: Network, closing: list[Any]
) -> None:
    grant(separated)
    leader = separated.leader()
    alone = separated.others(leader)[0]
    hearing = Hearing(alone)
    closing.append(hearing)
    channel = Channel(alone.client_endpoint)
    network.isolate(alone.name, [node.name for node in separated.others(alone)])
    began = time.monotonic()
    wait_until(lambda: hearing.ended is not None, "the stream to end", deadline_s=20)
    assert hearing.ended == (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
    assert time.monotonic() - began < 15
    with pytest.raises(grpc.RpcError) as error:
        channel.put(b"k", timeout=20)
    assert (error.value.code(), error.value.details()) == (
        grpc.StatusCode.UNAVAILABLE,
        "etcdserver: request timed out",
    )
    with pytest.raises(grpc.RpcError) as error:
        channel.put(b"k", metadata=[("hasleader", "true")], timeout=20)
    assert error.value.details() == "etcdserver: no leader"
    channel.channel.close()


@pytest.mark.long
def test_a_client_that_takes_nothing_is_told_from_history(cluster: Cluster, closing: list[Any]) -> None:
    """It is sent what fits into its window and some buffers, and later everything, in order; meanwhile others do not wait for it."""
    node = cluster.leader()
    channel = Channel(node.client_endpoint)
    stream = Stream(channel)
    stream.create(b"k", range_end=b"l")
    closing += [stream, channel.channel]
    writer = Channel(node.client_endpoint)
    closing.append(writer.channel)

    def figure(name: str) -> float:
        text = node.http_get("/metrics")[1]
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(line.split()[1])

    keys = [b"k%03d" % number for number in range(60)]
    for key in keys:
        writer.put(key, bytes(800_000))
    assert figure("raftkv_watchers_slow") == 1
    heard = []
    while len(heard) < len(keys):
        heard += [event.kv.key for event in next(stream.responses).events]
    assert heard == keys
    wait_until(lambda: figure("raftkv_watchers_slow") == 0, "it to be live again", deadline_s=20)
    writer.put(b"k", b"live")
    assert next(stream.responses).events[0].kv.value == b"live"
