"""Users, roles, and logging in from the command line."""

from typing import Any

import pytest

from raftkv.client.auth_requests import Permission
from raftkv.errors import AuthFailed, UserNotFound
from raftkv_cli import secrets

from .conftest import RunCli
from .fake_client import Cluster

OK, FAILED, USAGE = 0, 1, 2


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAFTKV_USER", "RAFTKV_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("words", "variables", "login"),
    [
        ([], {}, (None, "")),
        (["--user", "ann:secret"], {}, ("ann", "secret")),
        (["--user", "ann:se:cret"], {}, ("ann", "se:cret")),
        (["--user", "ann:"], {}, ("ann", "")),
        (["--user", "ann", "--password", "secret"], {}, ("ann", "secret")),
        (["--user", "ann"], {"RAFTKV_PASSWORD": "secret"}, ("ann", "secret")),
        ([], {"RAFTKV_USER": "ann:secret"}, ("ann", "secret")),
        ([], {"RAFTKV_USER": "ann", "RAFTKV_PASSWORD": "secret"}, ("ann", "secret")),
        (["--user", "bob:x"], {"RAFTKV_USER": "ann:secret"}, ("bob", "x")),
        ([], {"RAFTKV_USER": "", "RAFTKV_PASSWORD": "left over"}, (None, "")),
    ],
)
def test_who_asks(
    cli: RunCli,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    variables: dict[str, str],
    login: tuple[Any, str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cli(*words, "put", "k", "v").code == OK
    assert cluster.logins == [login]


def test_a_password_is_asked_for_on_the_terminal(
    cli: RunCli, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(secrets, "TERMINAL", str(tmp_path / "none"))
    result = cli("--user", "ann", "put", "k", "v")
    assert result.code == USAGE
    assert "no password for user ann" in result.stderr
    (tmp_path / "tty").touch()
    monkeypatch.setattr(secrets, "TERMINAL", str(tmp_path / "tty"))
    monkeypatch.setattr("getpass.getpass", lambda prompt: f"answer to {prompt}")
    assert cli("--user", "ann", "put", "k", "v").code == OK
    assert cluster.logins == [("ann", "answer to Password of ann: ")]


@pytest.mark.parametrize("words", [["--password", "x"], ["--user", ":x"], ["--user", ""]])
def test_a_user_has_a_name(cli: RunCli, cluster: Cluster, words: list[str]) -> None:
    assert cli(*words, "get", "k").code == USAGE
    assert cluster.logins == []


def test_a_refused_login_is_one_line(cli: RunCli, cluster: Cluster) -> None:
    cluster.error = AuthFailed()
    code, output, line = cli("--user", "ann:x", "put", "k", "v")
    assert (code, output) == (FAILED, b"")
    assert line.startswith("raftkv put: auth_failed: ")
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "stdin", "asked"),
    [
        (["user", "add", "ann:secret"], b"", ("user_add", {"name": "ann", "password": "secret"})),
        (["user", "add", "ann"], b"secret\n", ("user_add", {"name": "ann", "password": "secret"})),
        (["user", "add", "ann", "--new-user-password", "x"], b"", ("user_add", {"name": "ann", "password": "x"})),
        (["user", "add", "ann", "--no-password"], b"", ("user_add", {"name": "ann", "password": None})),
        (["user", "passwd", "ann"], b"newer\r\n", ("user_change_password", {"name": "ann", "password": "newer"})),
        (["user", "delete", "ann"], b"", ("user_delete", {"name": "ann"})),
        (["user", "grant-role", "ann", "r"], b"", ("user_grant_role", {"user": "ann", "role": "r"})),
        (["user", "revoke-role", "ann", "r"], b"", ("user_revoke_role", {"user": "ann", "role": "r"})),
        (["role", "add", "r"], b"", ("role_add", {"role": "r"})),
        (["role", "delete", "r"], b"", ("role_delete", {"role": "r"})),
        (["auth", "enable"], b"", ("auth_enable", {})),
        (["auth", "disable"], b"", ("auth_disable", {})),
    ],
)
def test_what_changes_something(
    cli: RunCli, cluster: Cluster, words: list[str], stdin: bytes, asked: tuple[str, dict[str, Any]]
) -> None:
    assert cli(*words, stdin=stdin) == (OK, b"OK\n", "")
    assert cluster.asked == [asked]
    assert cli(*words, "-o", "json", stdin=stdin).document == {"ok": True}


@pytest.mark.parametrize(
    ("words", "bounds"),
    [
        (["k"], {"key": b"k", "range_end": None, "prefix": None}),
        (["a", "b"], {"key": b"a", "range_end": b"b", "prefix": None}),
        (["a/", "--prefix"], {"key": None, "range_end": None, "prefix": b"a/"}),
        (["", "--prefix"], {"key": None, "range_end": None, "prefix": b""}),
        (["a", "--from-key"], {"key": b"a", "range_end": b"\0", "prefix": None}),
        (["", "--from-key"], {"key": b"\0", "range_end": b"\0", "prefix": None}),
    ],
)
def test_permissions(cli: RunCli, cluster: Cluster, words: list[str], bounds: dict[str, Any]) -> None:
    assert cli("role", "grant-permission", "r", "readwrite", *words).code == OK
    assert cli("role", "revoke-permission", "r", *words).code == OK
    assert cluster.asked == [
        ("role_grant_permission", {"role": "r", "kind": "readwrite", **bounds}),
        ("role_revoke_permission", {"role": "r", **bounds}),
    ]


def test_what_tells_something(cli: RunCli, cluster: Cluster) -> None:
    cluster.users = {"ann": ["jobs", "r"], "zoe": []}
    cluster.roles = {
        "r": [
            Permission("read", b"k", b""),
            Permission("write", b"a/", b"a0"),
            Permission("read", b"a", b"c"),
            Permission("readwrite", b"m", b"\0"),
            Permission("readwrite", b"\0", b"\0"),
        ]
    }
    assert cli("user", "list") == (OK, b"ann\nzoe\n", "")
    assert cli("user", "get", "ann") == (OK, b"jobs\nr\n", "")
    assert cli("user", "get", "ann", "-o", "json").document == {"name": "ann", "roles": ["jobs", "r"]}
    assert cli("user", "get", "ann", "-o", "table").stdout == b"NAME  ROLES\nann   jobs, r\n"
    assert cli("role", "list", "-o", "json").document == ["r"]
    assert cli("role", "get", "r").stdout.decode().splitlines() == [
        "read k",
        "write a/* (prefix)",
        "read from a to before c",
        "readwrite from m on",
        "readwrite everything",
    ]
    document = cli("role", "get", "r", "-o", "json").document
    assert document["permissions"][1] == {"kind": "write", "key": "a/", "range_end": "a0"}
    assert cli("role", "get", "r", "-o", "table").code == OK
    assert cli("auth", "status") == (OK, b"enabled\n", "")
    assert cli("auth", "status", "-o", "json").document == {"enabled": True, "revision": 7}
    assert cli("auth", "status", "-o", "table").stdout == b"ENABLED  REVISION\ntrue     7\n"
    cluster.error = UserNotFound("there is no user 'bob'")
    assert cli("user", "get", "bob").code == FAILED


@pytest.mark.parametrize(
    "words",
    [
        ["user"],
        ["user", "ad", "ann"],
        ["user", "add"],
        ["user", "add", "ann", "r"],
        ["user", "add", "ann:x", "--no-password"],
        ["user", "list", "--no-password"],
        ["user", "passwd", "ann", "--no-password"],
        ["user", "grant-role", "ann"],
        ["role", "grant-permission", "r", "all", "k"],
        ["role", "grant-permission", "r", "read"],
        ["role", "grant-permission", "r", "read", "a", "b", "--prefix"],
        ["role", "grant-permission", "r", "read", "a", "--from-key", "--prefix"],
        ["role", "grant-permission", "r", "read", ""],
        ["role", "revoke-permission", "r"],
        ["auth", "enable", "now"],
        ["auth"],
    ],
)
def test_bad_usage_asks_nothing(cli: RunCli, cluster: Cluster, words: list[str]) -> None:
    result = cli(*words)
    assert result.code == USAGE
    assert result.stderr.count("\n") == 1
    assert cluster.asked == []


def test_a_new_password_needs_a_line(cli: RunCli, cluster: Cluster) -> None:
    assert cli("user", "add", "ann", stdin=b"").code == USAGE
    assert cluster.asked == []


def test_a_new_password_is_typed_twice(cli: RunCli, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["one", "one", "one", "two"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(secrets.sys, "stdin", Terminal())  # type: ignore[attr-defined]
    assert secrets.new_password("ann") == "one"
    with pytest.raises(secrets.UsageError):  # type: ignore[attr-defined]
        secrets.new_password("ann")
