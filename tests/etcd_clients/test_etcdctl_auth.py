"""etcdctl: user, role, auth, and what a user may do when auth is on."""

import re
from typing import Any, Iterator

import pytest

from .etcdctl import Etcdctl
from .servers import RAFTKV, Servers, make_servers

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def guarded(kind: str) -> Iterator[Servers]:
    """A member with auth on: root, and alice who may read data/ and write data/mine/."""
    with make_servers(kind) as servers:
        servers.start()
        ctl = Etcdctl(servers.endpoints)
        ctl("user", "add", "root:secret")
        ctl("user", "grant-role", "root", "root")
        ctl("role", "add", "reader")
        ctl("role", "grant-permission", "reader", "read", "data/", "--prefix")
        ctl("role", "add", "writer")
        ctl("role", "grant-permission", "writer", "readwrite", "data/mine/", "--prefix=true")
        ctl("user", "add", "alice:wonder")
        ctl("user", "grant-role", "alice", "reader")
        ctl("user", "grant-role", "alice", "writer")
        assert ctl("auth", "enable") == "Authentication Enabled\n"
        yield servers


@pytest.fixture
def root(guarded: Servers) -> Etcdctl:
    return Etcdctl(guarded.endpoints, "--user=root:secret")


@pytest.fixture
def alice(guarded: Servers) -> Etcdctl:
    return Etcdctl(guarded.endpoints, "--user=alice", "--password=wonder")


def test_users(ctl: Etcdctl) -> None:
    assert ctl("user", "add", "ann:pw") == "User ann created\n"
    assert ctl("user", "add", "bob", "--interactive=false", given="pw\n") == "User bob created\n"
    assert ctl("user", "add", "cn", "--no-password") == "User cn created\n"
    assert "etcdserver: user name already exists" in ctl.refused("user", "add", "ann:pw")
    assert ctl("user", "list") == "ann\nbob\ncn\n"
    assert ctl("role", "add", "r") == "Role r created\n"
    assert ctl("user", "grant-role", "ann", "r") == "Role r is granted to user ann\n"
    assert ctl("user", "get", "ann") == "User: ann\nRoles: r\n"
    assert "etcdserver: role name not found" in ctl.refused("user", "grant-role", "ann", "none")
    assert ctl("user", "revoke-role", "ann", "r") == "Role r is revoked from user ann\n"
    assert "role is not granted to the user" in ctl.refused("user", "revoke-role", "ann", "r")
    assert ctl("user", "passwd", "ann", "--interactive=false", given="new\n") == "Password updated\n"
    assert ctl("user", "delete", "ann") == "User ann deleted\n"
    assert "etcdserver: user name not found" in ctl.refused("user", "get", "ann")
    for name in ("bob", "cn"):
        ctl("user", "delete", name)
    ctl("role", "delete", "r")


def test_roles(ctl: Etcdctl) -> None:
    assert ctl("role", "add", "ops") == "Role ops created\n"
    assert "etcdserver: role name already exists" in ctl.refused("role", "add", "ops")
    assert ctl("role", "grant-permission", "ops", "read", "one") == "Role ops updated\n"
    ctl("role", "grant-permission", "ops", "write", "from", "to")
    ctl("role", "grant-permission", "ops", "readwrite", "pre/", "--prefix")
    ctl("role", "grant-permission", "ops", "read", "z", "--from-key")
    assert ctl("role", "get", "ops") == (
        "Role ops\nKV Read:\n\tone\n\t[pre/, pre0) (prefix pre/)\n\t[z, <open ended>\n"
        "KV Write:\n\t[from, to) (prefix from)\n\t[pre/, pre0) (prefix pre/)\n"
    ).replace(" (prefix from)", "")
    assert ctl("role", "list") == "ops\n"
    assert "Permission of range [from, to) is revoked from role ops" in ctl(
        "role", "revoke-permission", "ops", "from", "to"
    )
    assert "permission is not granted to the role" in ctl.refused("role", "revoke-permission", "ops", "from", "to")
    assert ctl("role", "delete", "ops") == "Role ops deleted\n"
    assert "etcdserver: role name not found" in ctl.refused("role", "get", "ops")


def test_auth_needs_root_first(ctl: Etcdctl) -> None:
    assert "AuthRevision" in ctl("auth", "status")
    assert re.search("Authentication Status: false", ctl("auth", "status"))
    assert "etcdserver: root user does not exist" in ctl.refused("auth", "enable")
    assert ctl("auth", "disable") == "Authentication Disabled\n"


def test_what_a_user_may(root: Etcdctl, alice: Etcdctl) -> None:
    denied = "etcdserver: permission denied"
    assert root("put", "data/k", "v") == "OK\n"
    assert alice("get", "data/k") == "data/k\nv\n"
    assert alice("get", "data/", "--prefix") == "data/k\nv\n"
    assert denied in alice.refused("put", "data/k", "other")
    assert alice("put", "data/mine/k", "v") == "OK\n"
    assert denied in alice.refused("get", "other")
    assert denied in alice.refused("get", "", "--prefix")
    assert denied in alice.refused("del", "data/", "--prefix")
    assert denied in alice.refused("txn", given="\nput data/mine/a 1\nput data/k 2\n\n\n")
    assert alice("txn", given='version("data/k") = "1"\n\nput data/mine/a 1\n\n\n') == "SUCCESS\n\nOK\n"
    assert denied in alice.refused("txn", given='version("other") = "1"\n\nput data/mine/a 1\n\n\n')
    assert denied in alice.refused("user", "add", "eve:pw")
    assert denied in alice.refused("member", "add", "x", "--peer-urls=http://127.0.0.1:9")
    assert alice("user", "get", "alice") == "User: alice\nRoles: reader writer\n"
    assert denied in alice.refused("user", "get", "root")
    assert alice("role", "get", "reader").startswith("Role reader\n")
    assert root("get", "", "--prefix", "--keys-only").split() == ["data/k", "data/mine/a", "data/mine/k"]


def test_watches_are_guarded_too(root: Etcdctl, alice: Etcdctl) -> None:
    revision = root.json("put", "data/w", "1")["header"]["revision"]
    root("put", "secret", "1")
    with alice.staying("watch", "data/", "--prefix", f"--rev={revision}") as watch:
        assert watch.lines(3) == ["PUT", "data/w", "1"]
    with alice.staying("watch", "secret", f"--rev={revision}") as watch:
        watch.until("etcdserver: permission denied")


def test_who_is_refused(guarded: Servers, root: Etcdctl) -> None:
    nobody = Etcdctl(guarded.endpoints)
    assert "etcdserver: user name is empty" in nobody.refused("get", "data/k")
    wrong = Etcdctl(guarded.endpoints, "--user=root:wrong")
    assert "authentication failed, invalid user ID or password" in wrong.refused("get", "data/k", code=2)
    unknown = Etcdctl(guarded.endpoints, "--user=nobody:pw")
    assert "authentication failed, invalid user ID or password" in unknown.refused("get", "data/k", code=2)
    assert "invalid auth management" in root.refused("user", "delete", "root")
    assert "invalid auth management" in root.refused("user", "revoke-role", "root", "root")


def test_a_lease_is_for_who_may_write_its_keys(kind: str, root: Etcdctl, alice: Etcdctl) -> None:
    lease = root("lease", "grant", "300").split()[1]
    root("put", "secret/leased", "v", f"--lease={lease}")
    assert "etcdserver: permission denied" in alice.refused("put", "data/mine/l", "v", f"--lease={lease}")
    assert "etcdserver: permission denied" in alice.refused("lease", "revoke", lease)
    if kind == RAFTKV:  # etcd since 3.5.20: the names of keys are no less secret than the keys
        assert "etcdserver: permission denied" in alice.refused("lease", "timetolive", lease, "--keys", code=2)
    mine = alice("lease", "grant", "300").split()[1]
    assert alice("put", "data/mine/l", "v", f"--lease={mine}") == "OK\n"
    assert alice("lease", "revoke", mine) == f"lease {mine} revoked\n"
    assert root("lease", "revoke", lease) == f"lease {lease} revoked\n"


def test_a_changed_password_and_a_deleted_user(root: Etcdctl, guarded: Servers) -> None:
    root("user", "add", "carol:old")
    root("user", "grant-role", "carol", "reader")
    root("put", "data/k", "v")
    old, new = (Etcdctl(guarded.endpoints, f"--user=carol:{word}") for word in ("old", "new"))
    assert old("get", "data/k", "--keys-only") == "data/k\n\n"
    root("user", "passwd", "carol", "--interactive=false", given="new\n")
    assert "authentication failed" in old.refused("get", "data/k", code=2)
    assert new("get", "data/k", "--keys-only") == "data/k\n\n"
    root("user", "delete", "carol")
    assert "authentication failed" in new.refused("get", "data/k", code=2)


def test_off_and_on_again(make: Any) -> None:
    servers = make()
    ctl = Etcdctl(servers.endpoints)
    ctl("user", "add", "root:pw")
    assert ctl("auth", "enable") == "Authentication Enabled\n", "told what is missing, etcdctl sees to the role itself"
    root = Etcdctl(servers.endpoints, "--user=root:pw")
    assert "Authentication Status: true" in root("auth", "status")
    root("put", "k", "v")
    assert root("auth", "disable") == "Authentication Disabled\n"
    assert ctl("get", "k") == "k\nv\n"
    ctl("auth", "enable")
    assert "user name is empty" in ctl.refused("get", "k")
