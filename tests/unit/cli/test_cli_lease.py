"""`raftkv lease` and `put --lease` against the fake client: what they print, what they ask, and how they end."""

from typing import Any

import pytest

from raftkv.errors import NoQuorum
from raftkv_cli.commands import lease as verb
from raftkv_cli.leaseid import lease_name, parse_lease

from .conftest import RunCli
from .fake_client import Cluster, FakeClient

OK, FAILED, USAGE, NOT_FOUND, NOT_DONE, INTERRUPTED = 0, 1, 2, 3, 4, 130
ID = "000000000000007b"


def test_a_lease_from_grant_to_revoke(cli: RunCli, cluster: Cluster) -> None:
    assert cli("lease", "grant", "60") == (OK, f"{ID}\n".encode(), "")
    assert cli("lease", "list").stdout == f"{ID}\n".encode()
    assert cli("lease", "ttl", ID).stdout == b"58.5\n"
    assert cli("lease", "ttl", "7b", "--keys").stdout == b"58.5\na\n\xff\n"
    assert cli("lease", "keep-alive", ID, "--once").stdout == f"{ID} 60\n".encode()
    assert cli("lease", "revoke", ID) == (OK, b"OK\n", "")
    assert cli("lease", "list") == (OK, b"", "")


def test_json(cli: RunCli, cluster: Cluster) -> None:
    named = {"id": ID, "lease": 123}
    assert cli("lease", "grant", "60", "-o", "json").document == {**named, "ttl": 60.0}
    assert cli("lease", "list", "-o", "json").document == [named]
    assert cli("lease", "ttl", ID, "-o", "json").document == {**named, "remaining": 58.5, "ttl": 60.0}
    assert cli("lease", "ttl", ID, "--keys", "-o", "json").document["keys"] == [{"key": "a"}, {"key_b64": "/w=="}]
    assert cli("lease", "keep-alive", ID, "--once", "-o", "json").document == {**named, "ttl": 60.0}
    assert cli("lease", "revoke", ID, "-o", "json").document == {**named, "deleted": 2}


def test_tables(cli: RunCli, cluster: Cluster) -> None:
    assert cli("lease", "grant", "60", "-o", "table").stdout.split() == [b"ID", b"TTL", ID.encode(), b"60"]
    assert cli("lease", "ttl", ID, "--keys", "-o", "table").stdout.splitlines()[1].split()[:3] == [
        ID.encode(),
        b"58.5",
        b"60",
    ]
    assert cli("lease", "list", "-o", "table").stdout.split() == [b"ID", ID.encode()]
    assert cli("lease", "revoke", ID, "-o", "table").stdout.split()[-1] == b"2"


@pytest.mark.parametrize("action", ["revoke", "ttl", "keep-alive"])
def test_a_lease_that_is_not_there(cli: RunCli, cluster: Cluster, action: str) -> None:
    result = cli("lease", action, "ff")
    assert result.code == NOT_FOUND
    assert result.stderr.startswith("raftkv lease: lease_not_found: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("grant",), "grant needs a TTL in seconds"),
        (("grant", "soon"), "TTL 'soon' is no number of seconds above 0"),
        (("grant", "-1"), "-1"),
        (("grant", "nan"), "TTL 'nan' is no number"),
        (("grant", "inf"), "TTL 'inf' is no number"),
        (("revoke",), "revoke needs the ID of a lease"),
        (("ttl", "xyz"), "ID 'xyz' is no lease id in hexadecimal"),
        (("ttl", "1" * 17), "64 bits and not 0"),
        (("ttl", "0"), "64 bits and not 0"),
        (("list", "7b"), "list takes no more arguments"),
        (("keepalive", "7b"), "did you mean"),
        (("ttl", "7b", "--once"), "--once belongs to keep-alive"),
        (("grant", "60", "--keys"), "--keys belongs to ttl"),
        ((), "ACTION"),
    ],
)
def test_bad_input_is_one_line_and_asks_nobody(
    cli: RunCli, cluster: Cluster, words: tuple[str, ...], text: str
) -> None:
    result = cli("lease", *words)
    assert result.code == USAGE
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert cluster.asked == []


def test_put_with_a_lease(cli: RunCli, cluster: Cluster) -> None:
    assert cli("put", "k", "v", "--lease", ID).code == OK
    assert cluster.asked == [("put", {"key": b"k", "value": b"v", "lease": 0x7B})]
    assert cli("put", "k", "v", "--lease", "zz").code == USAGE


def test_ids_are_read_as_they_are_shown() -> None:
    for lease_id in (1, 2**63 - 1, -1, -(2**63)):
        assert parse_lease(lease_name(lease_id)) == lease_id


def test_keep_alive_goes_on_until_the_lease_is_gone(
    cli: RunCli, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.leases[0x7B] = 9.0
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            cluster.leases.clear()

    monkeypatch.setattr(verb, "sleep", pause)
    result = cli("lease", "keep-alive", ID)
    assert (result.code, result.stdout) == (NOT_FOUND, f"{ID} 9\n".encode() * 3)
    assert pauses == [3.0, 3.0, 3.0]


def test_keep_alive_survives_a_cluster_that_is_away_for_a_while_and_ctrl_c_ends_it(
    cli: RunCli, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.leases[0x7B] = 9.0
    asked = FakeClient.lease_keep_alive_once
    calls: list[int] = []

    def renew(self: Any, lease_id: int) -> float:
        calls.append(lease_id)
        if len(calls) == 1:
            return asked(self, lease_id)
        if len(calls) == 4:
            raise KeyboardInterrupt
        raise NoQuorum

    monkeypatch.setattr(FakeClient, "lease_keep_alive_once", renew)
    monkeypatch.setattr(verb, "sleep", lambda seconds: None)
    assert cli("lease", "keep-alive", ID).code == INTERRUPTED
    assert len(calls) == 4


def test_keep_alive_gives_up_when_the_time_is_over(
    cli: RunCli, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.error = NoQuorum()
    assert cli("lease", "keep-alive", ID).code == NOT_DONE
