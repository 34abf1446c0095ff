"""Authentication through every door: no procedure of etcd's API answers without a login, and clients go on while leaders and passwords change."""

import asyncio
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

import raftkv
from raftkv.errors import AuthFailed, PermissionDenied

from .conftest import StartCluster
from .harness.cluster import Cluster
from .harness.waiting import wait_until
from .test_auth import ANN, ENVIRONMENT, ROOT, found

grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'raftkv[dev]'")

from raftkv.daemon.etcd.calls import Procedure  # noqa: E402
from raftkv.daemon.etcd.procedures import GATEWAY, PROCEDURES  # noqa: E402
from raftkv.etcdpb import kv_pb2 as kv  # noqa: E402
from raftkv.etcdpb import rpc_pb2 as rpc  # noqa: E402

pytestmark = pytest.mark.integration

OPEN = {"/etcdserverpb.Auth/Authenticate"}
OPEN_SERVICES = ("/grpc.health.", "/grpc.reflection.")
FIELDS: dict[str, dict[str, Any]] = {
    "Range": {"key": b"a/1"},
    "Put": {"key": b"a/1"},
    "DeleteRange": {"key": b"a/1"},
    "Compact": {"revision": 2},
    "LeaseGrant": {"TTL": 60},
    "LeaseRevoke": {"ID": 7},
    "LeaseKeepAlive": {"ID": 7},
    "LeaseTimeToLive": {"ID": 7, "keys": True},
    "MemberAdd": {"peerURLs": ["http://127.0.0.1:1"]},
    "MemberUpdate": {"peerURLs": ["http://127.0.0.1:1"], "ID": 7},
    "MemberRemove": {"ID": 7},
    "MemberPromote": {"ID": 7},
    "MoveLeader": {"targetID": 7},
    "Alarm": {"action": 1, "alarm": 1, "memberID": 7},
    "Downgrade": {"action": 1, "version": "3.4.0"},
    "UserAdd": {"name": "eve", "password": "x"},
    "UserChangePassword": {"name": "root", "password": "x"},
    "UserGet": {"name": "ann"},
    "RoleGet": {"role": "a"},
    "Lock": {"name": b"a/lock", "lease": 7},
    "Unlock": {"key": b"a/1"},
    "Campaign": {"name": b"a/e", "lease": 7, "value": b"v"},
    "Leader": {"name": b"a/e"},
    "Observe": {"name": b"a/e"},
    "Proclaim": {"leader": {"name": b"a/e", "key": b"a/e/7", "rev": 3, "lease": 7}, "value": b"v"},
    "Resign": {"leader": {"name": b"a/e", "key": b"a/e/7", "rev": 3, "lease": 7}},
    "Watch": {"create_request": {"key": b"\0", "range_end": b"\0"}},
}
WORDS = "user name is empty"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    from .harness.cluster import ClusterOptions

    cluster = Cluster(ClusterOptions(environment=ENVIRONMENT))
    try:
        found(cluster.start())
        yield cluster
    finally:
        cluster.close()


def request_of(path: str) -> Any:
    """One that would be carried out, if it only came from somebody."""
    return PROCEDURES[path].request(**FIELDS.get(path.rpartition("/")[2], {}))


def refusal_over_grpc(channel: Any, path: str, metadata: Any = ()) -> str:
    served = PROCEDURES[path]
    streams = (served.client_streaming, served.server_streaming) if isinstance(served, Procedure) else (False, False)
    kind = f"{'stream' if streams[0] else 'unary'}_{'stream' if streams[1] else 'unary'}"
    call = getattr(channel, kind)(path, served.request.SerializeToString, served.answered_by.FromString)
    request = request_of(path)
    try:
        answer = call(iter([request]) if streams[0] else request, timeout=20, metadata=metadata)
        for message in answer if streams[1] else [answer]:
            if getattr(message, "cancel_reason", ""):
                return str(message.cancel_reason)
            if not getattr(message, "created", False):
                return f"answered: {message}"
    except grpc.RpcError as error:
        return str(error.details())
    return "answered"


@pytest.mark.parametrize("path", sorted(PROCEDURES))
def test_no_procedure_answers_without_a_login(guarded: Cluster, path: str) -> None:
    if path in OPEN or path.startswith(OPEN_SERVICES):
        return
    for node in (guarded.leader(), guarded.followers()[0]):
        with grpc.insecure_channel(node.client_endpoint) as channel:
            assert WORDS in refusal_over_grpc(channel, path)
            assert "invalid auth token" in refusal_over_grpc(channel, path, (("token", "forged.1"),))


@pytest.mark.parametrize("path", sorted(GATEWAY))
def test_nor_does_the_gateway(guarded: Cluster, path: str) -> None:
    procedure = GATEWAY[path]
    if procedure.path in OPEN:
        return
    from google.protobuf import json_format

    body = json_format.MessageToJson(request_of(procedure.path), preserving_proto_field_name=True)
    connection = http.client.HTTPConnection(guarded.leader().client_endpoint, timeout=20)
    try:
        connection.request("POST", f"/v3{path}", body)
        response = connection.getresponse()
        text = response.readline().decode()
        while '"created":true' in text and "cancel_reason" not in text:
            text = response.readline().decode()
        assert WORDS in text, text
    finally:
        connection.close()


def test_a_token_is_good_on_every_member_at_once(guarded: Cluster) -> None:
    """As clients use it that spread their calls over the members."""
    for number, node in enumerate(guarded.nodes):
        with grpc.insecure_channel(node.client_endpoint) as channel:
            authenticate = channel.unary_unary(
                "/etcdserverpb.Auth/Authenticate",
                rpc.AuthenticateRequest.SerializeToString,
                rpc.AuthenticateResponse.FromString,
            )
            token = authenticate(rpc.AuthenticateRequest(name=ANN[0], password=ANN[1]), timeout=20).token
        for other in guarded.nodes:
            with grpc.insecure_channel(other.client_endpoint) as channel:
                put = channel.unary_unary(
                    "/etcdserverpb.KV/Put", rpc.PutRequest.SerializeToString, rpc.PutResponse.FromString
                )
                request = rpc.PutRequest(key=b"a/t%d" % number, value=b"v")
                assert put(request, timeout=20, metadata=(("token", token),)).header.revision
                with pytest.raises(grpc.RpcError) as caught:
                    put(rpc.PutRequest(key=b"b/1"), timeout=20, metadata=(("token", token),))
                assert caught.value.details() == "etcdserver: permission denied"


def test_a_watch_over_grpc_ends_with_its_permission(guarded: Cluster) -> None:
    with raftkv.Client(guarded.endpoints, user=ROOT[0], password=ROOT[1]) as root:
        root.user_add("wat", "x")
        root.role_add("w")
        root.role_grant_permission("w", "read", prefix="a/")
        root.user_grant_role("wat", "w")
        with grpc.insecure_channel(guarded.leader().client_endpoint) as channel:
            authenticate = channel.unary_unary(
                "/etcdserverpb.Auth/Authenticate",
                rpc.AuthenticateRequest.SerializeToString,
                rpc.AuthenticateResponse.FromString,
            )
            token = authenticate(rpc.AuthenticateRequest(name="wat", password="x"), timeout=20).token
            watch = channel.stream_stream(
                "/etcdserverpb.Watch/Watch", rpc.WatchRequest.SerializeToString, rpc.WatchResponse.FromString
            )
            create = rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=b"a/", range_end=b"a0"))
            stream = watch(iter([create]), timeout=30, metadata=(("token", token),))
            assert next(stream).created
            root.put("a/seen", "1")
            assert [event.type for event in next(stream).events] == [kv.Event.PUT]
            root.role_revoke_permission("w", prefix="a/")
            root.put("a/hidden", "secret")
            last = next(stream)
            assert last.canceled
            assert last.cancel_reason == "etcdserver: permission denied"
            assert not last.events


@pytest.mark.long
def test_clients_go_on_while_leaders_die_and_passwords_change(make_cluster: StartCluster) -> None:
    cluster = make_cluster(environment=ENVIRONMENT).start()
    found(cluster)
    password = ANN[1]
    with raftkv.Client(cluster.endpoints, user="ann", password=password, timeout=30) as kv:
        assert kv.increment("a/n") == 1
        leader = cluster.leader()
        leader.kill()
        assert kv.increment("a/n") == 2
        with pytest.raises(PermissionDenied):
            kv.put("b/1", "no")
        leader.start()
        cluster.wait_ready()
        with raftkv.Client(cluster.endpoints, user="root", password=ROOT[1], timeout=30) as root:
            root.role_add("more")
            assert kv.increment("a/n") == 3, "the change of a role ends no login"
            root.user_change_password("ann", password)
            assert kv.increment("a/n") == 4, "it logs in again by itself"
            root.user_change_password("ann", "another")
            with pytest.raises(AuthFailed):
                kv.increment("a/n")
            root.auth_disable()
            assert kv.increment("a/n") == 5

    async def stories() -> None:
        async with raftkv.connect(cluster.endpoints, user="ann", password="another", timeout=30) as client:
            assert await client.increment("a/n") == 6
            await client.auth_enable()
            assert await client.increment("a/n") == 7
            with pytest.raises(PermissionDenied):
                await client.get("b/1")
            async with client.watch(prefix="a/") as watch:
                await watch.started()
                await client.put("a/w", "1")
                event = await anext(aiter(watch))
                assert event.kv.key == b"a/w"

    asyncio.run(stories())
    wait_until(lambda: json.loads(cluster.leader().http_get("/health")[1])["health"] == "true", "health to be open")
