"""Users and roles in the state machine: etcd's rules, what a login outlives, and that all of it is kept."""

from typing import Any

import pytest

from raftkv.limits import Limits
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.refound import refound
from raftkv.store.store import Store
from raftkv.wire.commands import COMPACT, CREATE_CLUSTER, EXPIRE_SESSIONS, PUBLISH_MEMBER
from raftkv.wire.identity import MEMBER_USER
from raftkv.wire.passwords import hash_password
from raftkv.wire.settings import Settings
from raftkv.wire.users import (
    AUTH_DISABLE,
    AUTH_ENABLE,
    AUTH_LIST,
    AUTH_STATUS,
    ISSUE_TOKEN,
    LIST_ROLES,
    LIST_USERS,
    READ,
    READWRITE,
    ROLE_ADD,
    ROLE_DELETE,
    ROLE_GET,
    ROLE_GRANT_PERMISSION,
    ROLE_REVOKE_PERMISSION,
    USER_ADD,
    USER_CHANGE_PASSWORD,
    USER_DELETE,
    USER_GET,
    USER_GRANT_ROLE,
    USER_REVOKE_ROLE,
    WRITE,
)
from tests.unit.store.stores import LIMITS, SESSION, Driver, keyspace_of, put

HASH = hash_password("secret", b"salt-of-16-bytes")
OTHER = hash_password("other", b"salt-of-16-bytes")


class AuthDriver(Driver):
    """A store with users; `as_user` counts as logged in just now unless it says otherwise."""

    def do(self, *command: Any, user: str | None = None, revision: int | None = None) -> list[Any]:
        kind, *rest = command
        items = [kind, 0, *rest]
        at = self.store.auth.revision if revision is None else revision
        group = [None, False, 0, user, 0 if user is None else at, [items]]
        return self.apply_groups([group])[0][0]

    def code(self, *command: Any, user: str | None = None, revision: int | None = None) -> str:
        answer = self.do(*command, user=user, revision=revision)
        return answer[1] if answer[0] else "ok"

    def found(self) -> None:
        assert self.code(USER_ADD, "root", HASH, False) == "ok"
        assert self.code(USER_GRANT_ROLE, "root", "root") == "ok"
        assert self.code(AUTH_ENABLE) == "ok"

    @property
    def auth_revision(self) -> int:
        return self.store.auth.revision


@pytest.fixture
def driver() -> AuthDriver:
    return AuthDriver(MemoryKeyspace())


def test_the_setup_that_clients_use(driver: AuthDriver) -> None:
    assert driver.auth_revision == 1
    assert driver.code(AUTH_ENABLE) == "root_user_missing"
    driver.do(USER_ADD, "root", HASH, False)
    assert driver.code(AUTH_ENABLE) == "root_role_missing"
    assert driver.code(USER_GRANT_ROLE, "root", "root") == "ok", "the role root need not exist"
    revision = driver.auth_revision
    assert driver.code(AUTH_ENABLE) == "ok"
    assert driver.auth_revision == revision, "enabling is no change"
    assert driver.code(AUTH_ENABLE, user="root") == "ok", "twice is fine for root"
    assert driver.code(AUTH_ENABLE) == "user_empty"
    assert driver.code(AUTH_DISABLE, user="root") == "ok"
    assert driver.auth_revision == revision + 1
    assert driver.code(AUTH_DISABLE) == "ok", "off is off"
    assert driver.auth_revision == revision + 1


def test_users(driver: AuthDriver) -> None:
    assert driver.code(USER_ADD, "", HASH, False) == "user_empty"
    assert driver.code(USER_ADD, "ann", HASH, False) == "ok"
    assert driver.code(USER_ADD, "ann", HASH, False) == "user_exists"
    assert driver.code(USER_ADD, "cert", "", True) == "ok"
    assert driver.code(USER_CHANGE_PASSWORD, "cert", OTHER) == "ok", "as in etcd, and to no avail"
    assert driver.store.auth.users["cert"].password == ""
    assert driver.code(USER_CHANGE_PASSWORD, "bob", OTHER) == "user_not_found"
    assert driver.code(USER_GRANT_ROLE, "bob", "r") == "user_not_found"
    assert driver.code(USER_GRANT_ROLE, "ann", "r") == "role_not_found"
    assert driver.code(USER_REVOKE_ROLE, "ann", "r") == "role_not_granted"
    assert driver.code(USER_REVOKE_ROLE, "bob", "r") == "user_not_found"
    assert driver.code(USER_DELETE, "bob") == "user_not_found"
    assert driver.store.read([AUTH_LIST, 0, LIST_USERS])[2] == ["ann", "cert"]
    assert driver.code(USER_DELETE, "ann") == "ok"
    assert driver.store.read([AUTH_LIST, 0, LIST_USERS])[2] == ["cert"]


def test_roles_and_permissions(driver: AuthDriver) -> None:
    assert driver.code(ROLE_ADD, "") == "role_empty"
    assert driver.code(ROLE_ADD, "r") == "ok"
    assert driver.code(ROLE_ADD, "r") == "role_exists"
    assert driver.code(ROLE_GRANT_PERMISSION, "r", None, b"", b"") == "permission_not_given"
    assert driver.code(ROLE_GRANT_PERMISSION, "s", READ, b"a", b"") == "role_not_found"
    assert driver.code(ROLE_GRANT_PERMISSION, "r", READ, b"b", b"a") == "invalid_auth_management"
    assert driver.code(ROLE_GRANT_PERMISSION, "r", READ, b"b", b"") == "ok"
    assert driver.code(ROLE_GRANT_PERMISSION, "r", READ, b"a", b"c") == "ok"
    assert driver.code(ROLE_GRANT_PERMISSION, "r", READ, b"a", b"") == "ok"
    assert driver.code(ROLE_GRANT_PERMISSION, "r", READWRITE, b"a", b"c") == "ok", "the kind is replaced"
    assert driver.store.read([ROLE_GET, 0, "r"])[2] == [[READWRITE, b"a", b"c"], [READ, b"a", b""], [READ, b"b", b""]]
    assert driver.code(ROLE_REVOKE_PERMISSION, "r", b"a", b"d") == "permission_not_granted"
    assert driver.code(ROLE_REVOKE_PERMISSION, "r", b"a", b"c") == "ok"
    assert driver.code(ROLE_REVOKE_PERMISSION, "s", b"a", b"c") == "role_not_found"
    assert driver.store.read([ROLE_GET, 0, "r"])[2] == [[READ, b"a", b""], [READ, b"b", b""]]
    driver.do(USER_ADD, "ann", HASH, False)
    driver.do(USER_GRANT_ROLE, "ann", "r")
    assert driver.store.read([USER_GET, 0, "ann"])[2] == ["r"]
    assert driver.code(ROLE_DELETE, "r") == "ok"
    assert driver.code(ROLE_DELETE, "r") == "role_not_found"
    assert driver.store.read([USER_GET, 0, "ann"])[2] == [], "whoever had it has it no more"
    driver.do(ROLE_ADD, "root")
    assert driver.store.read([ROLE_GET, 0, "root"])[2] == [], "what it may is not written down"
    assert driver.store.read([AUTH_LIST, 0, LIST_ROLES])[2] == ["root"]


def test_the_auth_revision_grows_with_what_changes_something(driver: AuthDriver) -> None:
    driver.do(USER_ADD, "ann", HASH, False)
    driver.do(ROLE_ADD, "r")
    driver.do(USER_GRANT_ROLE, "ann", "r")
    revision = driver.auth_revision
    assert revision == 4
    assert driver.code(USER_GRANT_ROLE, "ann", "r") == "ok"
    assert driver.code(ROLE_ADD, "r") == "role_exists"
    assert driver.auth_revision == revision, "neither changed anything"
    assert driver.store.read([AUTH_STATUS, 0]) == [0, 1, False, revision]
    assert driver.store.revision == 1, "no revision of the data"


def test_root_stays_while_authentication_is_on(driver: AuthDriver) -> None:
    driver.found()
    driver.do(ROLE_ADD, "root", user="root")
    assert driver.code(USER_DELETE, "root", user="root") == "invalid_auth_management"
    assert driver.code(USER_REVOKE_ROLE, "root", "root", user="root") == "invalid_auth_management"
    assert driver.code(ROLE_DELETE, "root", user="root") == "invalid_auth_management"
    driver.do(AUTH_DISABLE, user="root")
    assert driver.code(ROLE_DELETE, "root") == "ok"
    assert driver.code(USER_DELETE, "root") == "ok"


def test_a_login_outlives_changes_of_roles_and_ends_with_the_password_and_the_user(driver: AuthDriver) -> None:
    driver.found()
    driver.do(USER_ADD, "ann", HASH, False, user="root")
    driver.do(ROLE_ADD, "r", user="root")
    login = driver.auth_revision
    driver.do(ROLE_GRANT_PERMISSION, "r", READWRITE, b"a", b"b", user="root")
    write = put(b"a1")
    assert driver.code(write[0], *write[2:], user="ann", revision=login) == "permission_denied"
    driver.do(USER_GRANT_ROLE, "ann", "r", user="root")
    assert driver.code(write[0], *write[2:], user="ann", revision=login) == "ok", "permissions count as they are now"
    driver.do(USER_CHANGE_PASSWORD, "ann", OTHER, user="root")
    assert driver.code(write[0], *write[2:], user="ann", revision=login) == "auth_old_revision"
    assert driver.code(write[0], *write[2:], user="ann") == "ok"
    driver.do(USER_DELETE, "ann", user="root")
    assert driver.code(write[0], *write[2:], user="ann") == "permission_denied"
    again = driver.auth_revision
    driver.do(USER_ADD, "ann", HASH, False, user="root")
    assert driver.code(write[0], *write[2:], user="ann", revision=again) == "auth_old_revision", "another ann"


def test_switching_off_ends_all_logins(driver: AuthDriver) -> None:
    driver.found()
    login = driver.auth_revision
    driver.do(AUTH_DISABLE, user="root")
    assert driver.code(*_put(b"k")) == "ok"
    driver.do(AUTH_ENABLE)
    assert driver.code(*_put(b"k"), user="root", revision=login) == "auth_old_revision"
    assert driver.code(*_put(b"k"), user="root") == "ok"


def _put(key: bytes) -> list[Any]:
    command = put(key)
    return [command[0], *command[2:]]


def test_what_members_propose_needs_no_user(driver: AuthDriver) -> None:
    driver.do(CREATE_CLUSTER, 77, "ml", [[1, "n1", "h1:2380"]])
    driver.found()
    assert driver.code(PUBLISH_MEMBER, 1, "n1", 5, "h1:2379", "h1:2380", "1.0") == "ok"
    assert driver.code(EXPIRE_SESSIONS) == "ok"
    driver.do(*_put(b"k"), user="root")
    assert driver.code(COMPACT, 2) == "user_empty"
    assert driver.code(COMPACT, 2, user=MEMBER_USER, revision=0) == "ok", "by itself a member compacts"


def test_a_session_waits_for_the_next_login(driver: AuthDriver) -> None:
    """What is refused for want of a login is not the answer to its sequence: after it the same write is done."""
    assert driver.apply(put(b"k", b"1", seq=1), session=SESSION)[0][0] == 0
    driver.found()
    group: list[Any] = [SESSION, False, 0, None, 0, [put(b"k", b"2", seq=2)]]
    assert driver.apply_groups([group])[0][0][1] == "user_empty"
    group = [SESSION, False, 0, "root", 0, [put(b"k", b"2", seq=2)]]
    assert driver.apply_groups([group])[0][0][1] == "auth_old_revision"
    group = [SESSION, False, 0, "root", driver.auth_revision, [put(b"k", b"2", seq=2), put(b"k", b"1", seq=1)]]
    second, first = driver.apply_groups([group])[0]
    assert second[:2] == [0, 3], "a session from before belongs to its first user"
    assert first[:2] == [0, 2], "and remembers"
    driver.do(USER_ADD, "ann", HASH, False, user="root")
    group = [SESSION, False, 0, "ann", driver.auth_revision, [put(b"k", b"1", seq=1)]]
    answer = driver.apply_groups([group])[0][0]
    assert answer[1] == "invalid_request", "no other user hears its answers"
    assert "another user" in answer[3]


def test_what_follows_in_the_same_group_is_judged_by_what_came_before(driver: AuthDriver) -> None:
    driver.do(USER_ADD, "root", HASH, False)
    driver.do(USER_GRANT_ROLE, "root", "root")
    enable, write = driver.apply([AUTH_ENABLE, 0], put(b"k"))
    assert enable[0] == 0
    assert write[1] == "user_empty"


def test_tokens_are_told_and_not_kept(driver: AuthDriver) -> None:
    token = b"d" * 32
    assert driver.code(ISSUE_TOKEN, "root", 1, token) == "auth_not_enabled"
    driver.found()
    digest_before = driver.store.digest
    revision = driver.auth_revision
    assert driver.code(ISSUE_TOKEN, "root", revision, token) == "ok"
    assert driver.code(ISSUE_TOKEN, "bob", revision, token) == "auth_old_revision"
    assert driver.code(ISSUE_TOKEN, "root", 1, token) == "auth_old_revision"
    assert driver.code(ISSUE_TOKEN, "root", revision, b"short") == "invalid_request"
    assert [tuple(issued) for issued in driver.store.auth.take_issued()] == [(token, "root", revision)]
    assert driver.store.auth.take_issued() == []
    assert driver.store.digest != digest_before, "entries count"


def test_as_many_as_may_be() -> None:
    limits = Limits(map_bytes=LIMITS.map_bytes, users_max=2, roles_max=1, role_permissions_max=1)
    driver = AuthDriver(MemoryKeyspace(), limits)
    assert [driver.code(USER_ADD, name, HASH, False) for name in "abc"] == ["ok", "ok", "auth_full"]
    assert [driver.code(ROLE_ADD, name) for name in "rs"] == ["ok", "auth_full"]
    assert driver.code(ROLE_GRANT_PERMISSION, "r", READ, b"a", b"") == "ok"
    assert driver.code(ROLE_GRANT_PERMISSION, "r", WRITE, b"a", b"") == "ok", "in the place of the other"
    assert driver.code(ROLE_GRANT_PERMISSION, "r", READ, b"b", b"") == "auth_full"


@pytest.mark.parametrize(
    "command",
    [
        [USER_ADD, 0, "ann", "secret", False],
        [USER_ADD, 0, "ann", HASH, True],
        [USER_ADD, 0, "ann", "", False],
        [USER_ADD, 0, b"ann", HASH, False],
        [USER_ADD, 0, "x" * 257, HASH, False],
        [USER_CHANGE_PASSWORD, 0, "ann", ""],
        [ROLE_GRANT_PERMISSION, 0, "r", 3, b"a", b""],
        [ROLE_GRANT_PERMISSION, 0, "r", True, b"a", b""],
        [ROLE_GRANT_PERMISSION, 0, "r", READ, "a", b""],
        [ROLE_GRANT_PERMISSION, 0, "r"],
        [AUTH_ENABLE, 0, 1],
        [AUTH_ENABLE],
        [ROLE_ADD, 0, None],
    ],
)
def test_whatever_is_in_the_log_is_refused_and_never_raises(driver: AuthDriver, command: list[Any]) -> None:
    assert driver.apply(command)[0][1] == "invalid_request"
    driver.found()
    group = [None, False, 0, "root", driver.auth_revision, [command]]
    assert driver.apply_groups([group])[0][0][1] == "invalid_request"


@pytest.mark.parametrize(
    "group", [[None, False, 0, 5, 0], [None, False, 0, "root", None], [None, False, 0, b"root", 9]]
)
def test_a_malformed_user_is_nobody(driver: AuthDriver, group: list[Any]) -> None:
    driver.found()
    assert driver.apply_groups([[*group, [put(b"k")]]])[0][0][1] == "invalid_request"


def story(driver: AuthDriver) -> None:
    driver.found()
    driver.do(ROLE_ADD, "r", user="root")
    driver.do(ROLE_GRANT_PERMISSION, "r", READ, b"a", b"b", user="root")
    driver.do(USER_ADD, "ann", HASH, False, user="root")
    driver.do(USER_GRANT_ROLE, "ann", "r", user="root")
    driver.do(USER_ADD, "zoe", "", True, user="root")


def all_of(store: Store) -> list[Any]:
    return [
        store.read([AUTH_STATUS, 0]),
        store.read([AUTH_LIST, 0, LIST_USERS]),
        store.read([AUTH_LIST, 0, LIST_ROLES]),
        *(store.read([ROLE_GET, 0, name]) for name in store.auth.roles),
        *((user.password, user.no_password, user.roles, user.since) for _, user in sorted(store.auth.users.items())),
    ]


@pytest.mark.parametrize("twin", ["lmdb", "memory"])
def test_a_commit_keeps_all_of_it_and_the_log_makes_the_same_again(twin: str, tmp_path: Any) -> None:
    driver = AuthDriver(keyspace_of(twin, tmp_path))
    story(driver)
    driver.commit()
    driver.do(USER_DELETE, "zoe", user="root")
    driver.do(ROLE_DELETE, "r", user="root")
    driver.commit()
    driver.do(USER_ADD, "new", HASH, False, user="root")
    log, expected, digest = list(driver.log), all_of(driver.store), driver.store.digest
    keyspace = driver.store.keyspace
    again = Store.open(keyspace, LIMITS)
    assert again.access.is_on
    assert again.auth.users.keys() == {"root", "ann"}, "the last one is in the log alone"
    again.apply(log[-1])
    assert all_of(again) == expected
    assert again.digest == digest
    fresh = Driver(MemoryKeyspace())
    for entry in log:
        fresh.store.apply(entry)
    assert all_of(fresh.store) == expected
    assert fresh.store.digest == digest
    driver.store.close()


def test_a_difference_in_users_is_a_difference_in_the_digest() -> None:
    one, two = AuthDriver(MemoryKeyspace()), AuthDriver(MemoryKeyspace())
    one.do(USER_ADD, "ann", HASH, False)
    two.do(USER_ADD, "ann", OTHER, False)
    assert one.store.digest != two.store.digest


@pytest.mark.parametrize("keep_users", [True, False])
def test_a_new_cluster_of_the_same_data_keeps_its_users_unless_it_is_told_not_to(keep_users: bool) -> None:
    driver = AuthDriver(MemoryKeyspace())
    story(driver)
    driver.commit()
    keyspace = driver.store.keyspace
    refound(
        keyspace,
        Settings(),
        cluster_id=5,
        cluster_name="new",
        node_id=1,
        name="n1",
        address="h:1",
        keep_users=keep_users,
    )
    store = Store.open(keyspace, LIMITS)
    assert store.access.is_on is keep_users
    assert sorted(store.auth.users) == (["ann", "root", "zoe"] if keep_users else [])
    assert store.auth.revision == (driver.auth_revision if keep_users else 1)
