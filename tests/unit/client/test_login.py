"""Clients with a user: each connection logs in, a login that does not count any more is made anew, and passwords go to nobody else."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import raftkv
from raftkv.client import wireconn
from raftkv.client.wireconn import WireConnection
from raftkv.errors import AuthFailed, ClusterMismatch, ConfigError, Unreachable, UserEmpty
from raftkv.wire.commands import PUT
from raftkv.wire.passwords import verify_password
from raftkv.wire.protocol import AUTHENTICATE, HELLO, WATCH_CREATE
from raftkv.wire.users import (
    READWRITE,
    ROLE_GRANT_PERMISSION,
    ROLE_REVOKE_PERMISSION,
    USER_ADD,
    USER_CHANGE_PASSWORD,
    USER_GRANT_ROLE,
)

from .conftest import eventually
from .fakeserver import FakeCluster

ANN = {"user": "ann", "password": "secret"}
OpenClient = Callable[..., Any]


@pytest.fixture
def guarded(cluster: FakeCluster) -> FakeCluster:
    cluster.passwords = {"ann": "secret"}
    return cluster


def logins(cluster: FakeCluster) -> int:
    return sum(command[0] == AUTHENTICATE for member in cluster.members for command in member.log)


async def test_a_connection_logs_in_once(guarded: FakeCluster, open_client: OpenClient) -> None:
    kv = open_client(guarded.endpoints, **ANN)
    for number in range(5):
        await kv.put("k", str(number))
        assert await kv.get("k") == b"%d" % number
    assert logins(guarded) == guarded.members[0].connections_seen == 1


async def test_without_a_user_it_is_told_so(guarded: FakeCluster, open_client: OpenClient) -> None:
    kv = open_client(guarded.endpoints)
    for call in (kv.get("k"), kv.put("k", "v")):
        with pytest.raises(UserEmpty) as raised:
            await call
        assert raised.value.may_have_happened is False


async def test_a_wrong_password_ends_the_call_at_once(guarded: FakeCluster, open_client: OpenClient) -> None:
    kv = open_client(guarded.endpoints, user="ann", password="wrong", timeout=60.0)
    for call in (kv.put("k", "v"), kv.get("k")):
        with pytest.raises(AuthFailed) as raised:
            await call
        assert raised.value.may_have_happened is False
    rows = await kv.status()
    assert {row["role"] for row in rows} == {"unreachable"}
    assert all("no such user" in str(row["errors"]) for row in rows)
    assert guarded.store.revision == 1


async def test_where_nobody_has_to_log_in_the_user_does_not_matter(
    cluster: FakeCluster, open_client: OpenClient
) -> None:
    kv = open_client(cluster.endpoints, **ANN)
    await kv.put("k", "v")
    assert await kv.get("k") == b"v"


async def test_a_login_that_does_not_count_any_more_is_made_anew(guarded: FakeCluster, open_client: OpenClient) -> None:
    kv = open_client(guarded.endpoints, **ANN)
    await kv.increment("n")
    guarded.auth_revision += 1
    assert await kv.increment("n") == 2, "under its session, and once"
    guarded.auth_revision += 1
    assert await kv.get("n") == b"2"
    assert logins(guarded) == 3


async def test_authentication_that_is_enabled_under_a_client(cluster: FakeCluster, open_client: OpenClient) -> None:
    kv = open_client(cluster.endpoints, **ANN)
    await kv.increment("n")
    cluster.passwords = {"ann": "secret"}
    assert await kv.increment("n") == 2
    cluster.passwords = {"ann": "newer"}
    cluster.auth_revision += 1
    with pytest.raises(AuthFailed):
        await kv.increment("n")
    cluster.passwords = None
    assert await kv.increment("n") == 3


async def test_many_calls_at_once_log_in_once(guarded: FakeCluster) -> None:
    async with raftkv.connect(guarded.endpoints, **ANN) as kv:
        await kv.put("k", "v")
        guarded.auth_revision += 1
        await asyncio.gather(*(kv.increment("n") for _ in range(50)))
        assert await kv.get("n") == b"50"
    assert logins(guarded) == 2


async def test_connections_of_threads_that_lay_idle_are_not_tried_one_by_one(guarded: FakeCluster) -> None:
    with raftkv.Client(guarded.endpoints, connections_max=8, **ANN) as kv:
        await asyncio.gather(*(asyncio.to_thread(kv.increment, "n") for _ in range(32)))
        guarded.auth_revision += 1
        await asyncio.to_thread(kv.increment, "n")
        assert kv.get("n") == b"33"


async def test_a_login_may_take_longer_than_a_greeting(
    guarded: FakeCluster, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passwords of others are compared first. A member that does not even greet is left as soon as before."""
    guarded.members[0].holds_logins = True
    kv = open_client(guarded.endpoints, timeout=30.0, attempt_timeout=0.2, **ANN)
    call = asyncio.create_task(kv.get("k"))
    await eventually(lambda: logins(guarded) == 1)
    connection = guarded.members[0].connections[0]

    def answer_late() -> None:
        guarded.members[0].holds_logins = False
        connection._log_in(2, "ann", "secret")

    await asyncio.sleep(0)
    guarded.call(answer_late)
    assert await call is None
    assert logins(guarded) == 1


async def test_a_member_that_never_compares_is_left(
    guarded: FakeCluster, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("raftkv.client.links", "raftkv.client.blockingconn"):
        monkeypatch.setattr(f"{module}.LOGIN_TIMEOUT_S", 0.2)
    guarded.members[0].holds_logins = True
    kv = open_client(guarded.endpoints, timeout=20.0, attempt_timeout=0.2, **ANN)
    assert await kv.get("k") is None
    assert guarded.members[1].requests + guarded.members[2].requests


async def test_a_password_is_not_for_another_cluster(guarded: FakeCluster, open_client: OpenClient) -> None:
    kv = open_client(guarded.endpoints, cluster_name="other", timeout=2.0, **ANN)
    with pytest.raises(ClusterMismatch):
        await kv.get("k")
    assert all(command[0] == HELLO for member in guarded.members for command in member.log)


async def test_watches_log_in_and_go_on_after_the_next_login(guarded: FakeCluster, open_client: OpenClient) -> None:
    kv = open_client(guarded.endpoints, **ANN)
    async with kv.watch("k") as watch:
        await watch.started()
        assert guarded.members[0].watches
        guarded.auth_revision += 1
        reading = asyncio.create_task(watch.__anext__())
        guarded.members[0].hang_up()
        await eventually(
            lambda: sum(command[0] == WATCH_CREATE for member in guarded.members for command in member.log) >= 2
        )
    await asyncio.gather(reading, return_exceptions=True)
    assert logins(guarded) >= 2


async def test_a_watch_with_a_wrong_password_ends(guarded: FakeCluster, open_client: OpenClient) -> None:
    kv = open_client(guarded.endpoints, user="ann", password="wrong", timeout=20.0)
    with pytest.raises(AuthFailed):
        async with kv.watch("k") as watch:
            await watch.started()


async def test_a_watch_without_a_user_is_told_so(guarded: FakeCluster, open_client: OpenClient) -> None:
    kv = open_client(guarded.endpoints, timeout=20.0)
    with pytest.raises(UserEmpty):
        async with kv.watch("k") as watch:
            await watch.started()


@pytest.mark.parametrize("options", [{"user": ""}, {"password": "x"}])
def test_a_user_has_a_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        raftkv.Client("a:1", **options)


def test_the_login_goes_out_behind_the_greeting_and_calls_behind_the_login() -> None:
    wire = WireConnection(cluster_name=None, session=None, client_name="t", login=("ann", "secret"))
    assert b"secret" not in wire.greeting(1.0)
    hello = {"protocol": 1, "member_id": 1, "cluster_name": "prod"}
    assert wire.receive(wire.pack([1, [0, hello]])) == []
    assert wire.handshake is None
    assert b"secret" in wire.take_reply()
    assert wire.take_reply() == b""
    assert wire.receive(wire.pack([wireconn.LOGIN_ID, [0, 7]])) == []
    assert wire.handshake is not None
    assert wire.request([PUT], 1.0)[0] > wireconn.LOGIN_ID


@pytest.mark.parametrize("answer", [[5, [0, 7]], [2, [1, "auth_failed", False, "no", {}]], [2, [9]]])
def test_a_login_that_is_refused_or_answered_oddly_breaks_the_connection(answer: list[Any]) -> None:
    wire = WireConnection(cluster_name=None, session=None, client_name="t", login=("ann", "secret"))
    wire.receive(wire.pack([1, [0, {"protocol": 1, "member_id": 1}]]))
    assert wire.receive(wire.pack(answer) + wire.pack([3, [0, 1]])) == []
    assert wire.handshake is None
    assert wire.broken is not None
    assert not isinstance(wire.broken, Unreachable)


async def test_the_verbs_of_users_and_roles(cluster: FakeCluster, open_client: OpenClient) -> None:
    kv = open_client(cluster.endpoints)
    sent: list[list[Any]] = []
    cluster.store.write = lambda command, *_: (sent.append(command), [0, 1])[1]  # type: ignore[method-assign]
    await kv.user_add("ann", "secret")
    await kv.user_add("cert", None)
    await kv.user_change_password("ann", "newer")
    await kv.user_grant_role("ann", "jobs")
    await kv.role_grant_permission("jobs", "readwrite", prefix="jobs/")
    await kv.role_grant_permission("jobs", "read", "k")
    await kv.role_revoke_permission("jobs", "a", "b")
    assert [command[0] for command in sent[:3]] == [USER_ADD, USER_ADD, USER_CHANGE_PASSWORD]
    assert verify_password("secret", sent[0][3])
    assert sent[1][2:] == ["cert", "", True]
    assert verify_password("newer", sent[2][3])
    assert [[command[0], *command[2:]] for command in sent[3:]] == [
        [USER_GRANT_ROLE, "ann", "jobs"],
        [ROLE_GRANT_PERMISSION, "jobs", READWRITE, b"jobs/", b"jobs0"],
        [ROLE_GRANT_PERMISSION, "jobs", 0, b"k", b""],
        [ROLE_REVOKE_PERMISSION, "jobs", b"a", b"b"],
    ]
