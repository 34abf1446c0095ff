"""Authentication on real members: who gets in, what becomes of logins when a leader dies, and that no path leads past it."""

import http.client
import json
import os
from base64 import b64encode
from typing import Any

import pytest

from raftkv.errors import InsecurePeers, InvalidRequest, RaftKVError, UserEmpty
from raftkv.wire import commands, pools, protocol, users
from raftkv.wire.passwords import hash_password
from raftkv.wire.watching import UNTIL_EXISTS

from .conftest import StartCluster
from .harness.cluster import Cluster
from .harness.native import ConnectionEnded, NativeConnection
from .harness.node import Node
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT, ANN = ("root", "root's secret"), ("ann", "ann's secret")
ENVIRONMENT = {"RAFTKV_ALLOW_INSECURE_PEERS": "true", "RAFTKV_LIMITS_LOGIN_REFUSAL_MS": "1"}

# What each kind of request asks for, so that a list of all of them can be asked without a login.
REQUESTS: dict[int, list[Any]] = {
    commands.PUT: [commands.PUT, 0, b"a/1", b"", 0, 0],
    commands.DELETE_RANGE: [commands.DELETE_RANGE, 0, b"a/1", b"", 0],
    commands.TXN: [commands.TXN, 0, [], [[commands.PUT, 0, b"a/1", b"", 0, 0]], []],
    commands.INCREMENT: [commands.INCREMENT, 0, b"n", 1],
    commands.APPEND: [commands.APPEND, 0, b"a/1", b"x"],
    commands.LEASE_GRANT: [commands.LEASE_GRANT, 0, 0, 60_000],
    commands.LEASE_REVOKE: [commands.LEASE_REVOKE, 0, 7],
    commands.GUARDED: [commands.GUARDED, 0, [[b"a/1", 2]], [commands.PUT, 0, b"a/1", b"", 0, 0]],
    commands.COMPACT: [commands.COMPACT, 0, 2],
    commands.GET: [commands.GET, 0, b"a/1"],
    commands.RANGE: [commands.RANGE, 0, b"\0", b"\0", *[0] * 8],
    commands.LEASES: [commands.LEASES, 0],
    commands.READ_TXN: [commands.READ_TXN, 0, [], [[commands.RANGE, 0, b"\0", b"\0", *[0] * 8]], []],
    commands.LEASE_TTL: [commands.LEASE_TTL, 0, 7],
    protocol.KEEP_ALIVE: [protocol.KEEP_ALIVE, [7]],
    protocol.STATUS: [protocol.STATUS],
    protocol.MEMBERS: [protocol.MEMBERS],
    protocol.MOVE_LEADER: [protocol.MOVE_LEADER, ""],
    protocol.CHANGE_MEMBERS: [protocol.CHANGE_MEMBERS, {"remove": ["n3"]}],
    protocol.WATCH_CREATE: [protocol.WATCH_CREATE, b"\0", b"\0", 0, 0],
    protocol.WAIT: [protocol.WAIT, UNTIL_EXISTS, True, [b"a/1"], 0],
    protocol.BACKUP_OPEN: [protocol.BACKUP_OPEN],
    protocol.BACKUP_READ: [protocol.BACKUP_READ, 1, 0, 10],
    protocol.BACKUP_CLOSE: [protocol.BACKUP_CLOSE, 1],
    protocol.DEFRAGMENT: [protocol.DEFRAGMENT],
    pools.POOL_SET: [pools.POOL_SET, 0, "mine", 1, {"capacity": {"gpu": 1}}],
    pools.POOL_DELETE: [pools.POOL_DELETE, 0, "mine"],
    pools.POOL_REQUEST: [pools.POOL_REQUEST, 0, "mine/1", 7, {"mine": {"gpu": 1}}, {}],
    pools.POOL_RELEASE: [pools.POOL_RELEASE, 0, "mine/1", 0],
    pools.POOLS: [pools.POOLS, 0],
    pools.POOL_QUEUE: [pools.POOL_QUEUE, 0, ""],
    pools.POOL_WHY: [pools.POOL_WHY, 0, "mine/1"],
    users.AUTH_ENABLE: [users.AUTH_ENABLE, 0],
    users.AUTH_DISABLE: [users.AUTH_DISABLE, 0],
    users.USER_ADD: [users.USER_ADD, 0, "eve", "", True],
    users.USER_DELETE: [users.USER_DELETE, 0, "ann"],
    users.USER_CHANGE_PASSWORD: [users.USER_CHANGE_PASSWORD, 0, "root", hash_password("mine", b"salt-of-16-bytes")],
    users.USER_GRANT_ROLE: [users.USER_GRANT_ROLE, 0, "ann", "root"],
    users.USER_REVOKE_ROLE: [users.USER_REVOKE_ROLE, 0, "ann", "a"],
    users.ROLE_ADD: [users.ROLE_ADD, 0, "r"],
    users.ROLE_DELETE: [users.ROLE_DELETE, 0, "a"],
    users.ROLE_GRANT_PERMISSION: [users.ROLE_GRANT_PERMISSION, 0, "a", users.READ, b"\0", b"\0"],
    users.ROLE_REVOKE_PERMISSION: [users.ROLE_REVOKE_PERMISSION, 0, "a", b"a/", b"a0"],
    users.AUTH_STATUS: [users.AUTH_STATUS, 0],
    users.USER_GET: [users.USER_GET, 0, "ann"],
    users.ROLE_GET: [users.ROLE_GET, 0, "a"],
    users.AUTH_LIST: [users.AUTH_LIST, 0, users.LIST_USERS],
}
# Judged within another request, only ending what the connection began itself, or open to all: a greeting and a sign of life.
ELSEWHERE = {"HELLO", "ACK", "PING", "FORWARD", "AUTHENTICATE", "WATCH_EVENTS", "WATCH_CANCEL", "WATCH_PROGRESS"}
OTHER_OPERATIONS = {
    number
    for name, number in vars(protocol).items()
    if name.isupper() and type(number) is int and name not in ELSEWHERE | {"PROTOCOL_VERSION", "SESSION_ID_BYTES"}
}
NOT_IN_THE_NATIVE_PROTOCOL = {"ALARM", "DOWNGRADE"}  # of the doors of etcd, as commands like any other


def all_operations() -> set[int]:
    return set(commands.CLIENT_WRITES | commands.READS | {commands.LEASE_TTL} | OTHER_OPERATIONS)


def found(cluster: Cluster) -> None:
    """Root, and ann who may do all under a/."""
    with cluster.leader().connect() as connection:
        connection.put(b"a/1", b"1")
        connection.put(b"b/1", b"1")
        for name, password in (ROOT, ANN):
            connection.call([users.USER_ADD, 0, name, hash_password(password), False])
        connection.call([users.USER_GRANT_ROLE, 0, "root", "root"])
        connection.call([users.ROLE_ADD, 0, "a"])
        connection.call([users.ROLE_GRANT_PERMISSION, 0, "a", users.READWRITE, b"a/", b"a0"])
        connection.call([users.USER_GRANT_ROLE, 0, "ann", "a"])
        connection.call([users.AUTH_ENABLE, 0])
    for node in cluster.nodes:
        node.login = ROOT
        wait_until(lambda node=node: knows(node), f"{node.name} to have applied it")


def knows(node: Node) -> bool:
    try:
        with node.connect() as connection:
            return bool(connection.call([users.AUTH_STATUS, commands.SERIALIZABLE])[2])
    except RaftKVError:
        return False


@pytest.fixture
def guarded(make_cluster: StartCluster) -> Cluster:
    cluster = make_cluster(environment=ENVIRONMENT).start()
    found(cluster)
    return cluster


def code_of(connection: NativeConnection, command: list[Any]) -> str:
    outcome = connection.outcome(command, timeout_s=20)
    return outcome.code if isinstance(outcome, RaftKVError) else "ok"


def test_no_path_leads_past_the_login(guarded: Cluster) -> None:
    """Everything that the native door takes, on the leader and on a follower, directly and forwarded."""
    named = {number: name for name, number in vars(commands).items() if name in NOT_IN_THE_NATIVE_PROTOCOL}
    missing = all_operations() - set(REQUESTS) - set(named)
    assert not missing, f"operations {sorted(missing)} are not tried here"
    leader = guarded.leader()
    with leader.connect() as connection:
        before = connection.dump(serializable=False)
    for node in (leader, guarded.followers()[0]):
        with node.connect(login=None) as connection:
            for command in REQUESTS.values():
                answers = {code_of(connection, command)}
                if command[0] in commands.CLIENT_WRITES:
                    answers.add(code_of(connection, [protocol.FORWARD, None, False, 0, command]))
                assert answers <= {"user_empty", "not_leader"}, command
                assert "user_empty" in answers or node is not leader, command
            assert code_of(connection, [protocol.PING]) == "ok"
            stale = [commands.RANGE, commands.SERIALIZABLE, b"\0", b"\0", *[0] * 8]
            assert code_of(connection, stale) == "user_empty"
    with leader.connect() as connection:
        assert connection.dump(serializable=False) == before
    assert all(node.running for node in guarded.nodes)


def test_a_user_has_what_it_was_granted_and_no_more(guarded: Cluster) -> None:
    leader, follower = guarded.leader(), guarded.followers()[0]
    with leader.connect(login=ANN) as connection:
        assert connection.get(b"a/1") == b"1"
        assert connection.put(b"a/2", b"2")
        for command in ([commands.GET, 0, b"b/1"], [commands.PUT, 0, b"b/1", b"", 0, 0], REQUESTS[users.USER_ADD]):
            assert code_of(connection, command) == "permission_denied"
    with follower.connect(login=ANN) as connection:
        assert connection.get(b"a/2") == b"2"
        forwarded = [protocol.FORWARD, None, False, 0, [commands.PUT, 0, b"b/1", b"", 0, 0]]
        assert code_of(connection, forwarded) == "permission_denied"
        forwarded[4] = [commands.PUT, 0, b"a/3", b"3", 0, 0]
        assert code_of(connection, forwarded) == "ok"
        assert connection.get(b"a/3") == b"3"


def test_wrong_passwords_and_malformed_logins(guarded: Cluster) -> None:
    for login in (("ann", "wrong"), ("eve", "secret"), ("", "")):
        with pytest.raises(RaftKVError) as caught:
            guarded.leader().connect(login=login)
        assert caught.value.code == "auth_failed"
    with guarded.leader().connect() as connection:
        metrics = guarded.leader().http_get("/metrics")[1]
        assert 'raftkv_logins_total{outcome="refused"} 3.0' in metrics
        with pytest.raises(ConnectionEnded):
            connection.call([protocol.AUTHENTICATE, "ann"])


def test_logins_outlive_a_leader_and_a_restart(guarded: Cluster) -> None:
    leader = guarded.leader()
    survivor = guarded.others(leader)[0]
    with survivor.connect(login=ANN) as connection:
        leader.kill()
        successor = guarded.leader(guarded.others(leader))
        command = [commands.PUT, 0, b"a/9", b"9", 0, 0]
        forwarded = [protocol.FORWARD, None, False, 0, command]
        wait_until(lambda: code_of(connection, forwarded) == "ok", "the new leader to take it")
        assert (
            code_of(connection, [protocol.FORWARD, None, False, 0, REQUESTS[users.USER_DELETE]]) == "permission_denied"
        )
    with successor.connect(login=None) as connection:
        assert code_of(connection, command) == "user_empty"
    leader.start()
    guarded.wait_ready()
    with leader.connect(login=ANN) as connection:
        assert connection.get(b"a/9") == b"9"
        assert code_of(connection, [commands.GET, 0, b"b/1"]) == "permission_denied"


def test_a_session_goes_on_after_the_next_login(guarded: Cluster) -> None:
    leader, session = guarded.leader(), os.urandom(16)
    write = [commands.INCREMENT, 1, b"a/n", 1]
    with leader.connect(login=ANN, session=session) as connection, leader.connect() as root:
        connection.acknowledge(1, register=True)
        first = connection.call(write)
        root.call([users.USER_CHANGE_PASSWORD, 0, "ann", hash_password("newer")])
        assert code_of(connection, [commands.INCREMENT, 2, b"a/n", 1]) == "auth_old_revision"
        assert code_of(connection, [commands.GET, 0, b"a/n"]) == "auth_old_revision"
        connection.call([protocol.AUTHENTICATE, "ann", "newer"])
        assert connection.call(write) == first
        assert connection.call([commands.INCREMENT, 2, b"a/n", 1])[2] == 2
    with leader.connect(login=ROOT, session=session) as connection:
        connection.acknowledge(1, register=False)
        assert isinstance(connection.outcome(write), InvalidRequest), "the session of another user"


def test_pages(guarded: Cluster) -> None:
    host = guarded.leader().client_endpoint

    def get(path: str, login: tuple[str, str] | None = None, method: str = "GET") -> tuple[int, str]:
        headers = {"Content-Type": "application/json"}
        if login is not None:
            headers["Authorization"] = "Basic " + b64encode(":".join(login).encode()).decode()
        connection = http.client.HTTPConnection(host, timeout=10)
        try:
            connection.request(method, path, body="{}" if method == "POST" else None, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    for path in ("/", "/status", "/members"):
        assert get(path)[0] == 401
        assert get(path, ("ann", "wrong"))[0] == 401
        assert get(path, ANN)[0] == 200
    assert get("/members", method="POST")[0] == 401
    assert get("/members", ANN, method="POST")[0] == 403
    assert get("/members", ROOT, method="POST")[0] != 403
    assert json.loads(get("/status", ROOT)[1])["name"]
    for path in ("/livez", "/readyz", "/health", "/metrics", "/version"):
        assert get(path)[0] == 200


def test_a_member_joins_with_a_login(guarded: Cluster) -> None:
    joining = guarded.add_node(
        "n4", join=guarded.leader().client_endpoint, environment={"RAFTKV_JOIN_USER": ":".join(ROOT)}
    )
    joining.start()
    joining.login = ANN
    joining.wait_ready()
    with joining.connect() as connection:
        assert connection.get(b"a/1") == b"1"
        assert code_of(connection, [commands.GET, 0, b"b/1"]) == "permission_denied"


def test_authentication_is_not_enabled_over_insecure_peers(cluster: Cluster) -> None:
    with cluster.leader().connect() as connection:
        connection.call([users.USER_ADD, 0, "root", hash_password("x"), False])
        connection.call([users.USER_GRANT_ROLE, 0, "root", "root"])
        assert isinstance(connection.outcome([users.AUTH_ENABLE, 0]), InsecurePeers)
        assert isinstance(connection.outcome([protocol.FORWARD, None, False, 0, [users.AUTH_ENABLE, 0]]), InsecurePeers)
        assert not isinstance(connection.outcome([commands.GET, 0, b"k"]), UserEmpty)
