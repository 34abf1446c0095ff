"""Every verb against the fake client: what it prints in each format, what it asks for, and its exit code."""

import os
from typing import Any

import pytest

from .conftest import RunCli
from .fake_client import Cluster

OK, FAILED, USAGE, NOT_FOUND, NOT_DONE = 0, 1, 2, 3, 4


def test_put_get_del(cli: RunCli, cluster: Cluster) -> None:
    assert cli("put", "k", "v") == (OK, b"OK\n", "")
    assert cli("get", "k") == (OK, b"v\n", "")
    assert cli("del", "k") == (OK, b"1\n", "")
    assert cli("get", "k") == (NOT_FOUND, b"", "")
    assert cli("del", "k") == (NOT_FOUND, b"0\n", "")


def test_put_reads_standard_input_as_it_is(cli: RunCli, cluster: Cluster) -> None:
    data = bytes(range(256)) + b"\n\n"
    assert cli("put", "k", "-", stdin=data).code == OK
    assert cluster.store[b"k"].value == data
    assert cli("get", "k").stdout == data + b"\n"


def test_bytes_of_the_shell_are_kept(cli: RunCli, cluster: Cluster) -> None:
    assert cli("put", os.fsdecode(b"k\xff"), os.fsdecode(b"v\xfe")).code == OK
    assert cluster.store[b"k\xff"].value == b"v\xfe"
    document = cli("get", os.fsdecode(b"k\xff"), "-o", "json").document
    assert (document["key_b64"], document["value_b64"]) == ("a/8=", "dv4=")
    assert "key" not in document
    assert "value" not in document


def test_json_of_put_get_del(cli: RunCli, cluster: Cluster) -> None:
    assert cli("put", "größe", "1", "-o", "json").document == {"revision": 2}
    cli("put", "größe", "2")
    assert cli("get", "größe", "-o", "json").document == {
        "key": "größe",
        "value": "2",
        "create_revision": 2,
        "mod_revision": 3,
        "version": 2,
        "lease": 0,
    }
    assert cli("del", "größe", "-o", "json").document == {"deleted": 1, "revision": 4}
    assert cli("get", "größe", "-o", "json") == (NOT_FOUND, b"", "")


def test_tables(cli: RunCli, cluster: Cluster) -> None:
    assert cli("put", "k", "v\x1b[31m", "-o", "table").stdout == b"RESULT  REVISION\nOK      2\n"
    lines = cli("get", "k", "-o", "table").stdout.decode().splitlines()
    assert lines[0].split() == ["KEY", "VALUE", "CREATE", "MOD", "VERSION", "LEASE"]
    assert lines[1].split() == ["k", "v\\x1b[31m", "2", "2", "1", "0"]
    assert cli("del", "k", "-o", "table").stdout == b"DELETED  REVISION\n1        3\n"


@pytest.fixture
def three(cli: RunCli, cluster: Cluster) -> Cluster:
    for name in ("a/2", "a/1", "b"):
        cluster.put(name.encode(), name.upper().encode())
    return cluster


def test_ranges(cli: RunCli, three: Cluster) -> None:
    assert cli("get", "a/", "--prefix") == (OK, b"a/1\nA/1\na/2\nA/2\n", "")
    assert cli("get", "a/2", "--range-end", "c").stdout == b"a/2\nA/2\nb\nB\n"
    assert cli("get", "", "--prefix", "--keys-only").stdout == b"a/1\na/2\nb\n"
    assert cli("get", "a/", "--prefix", "--limit=1").stdout == b"a/1\nA/1\n"
    assert cli("get", "a/", "--prefix", "--count-only").stdout == b"2\n"
    assert cli("get", "a/", "--prefix", "--count-only", "-o", "json").document == {"count": 2}
    assert [kv["key"] for kv in cli("get", "a/", "--prefix", "-o", "json").document] == ["a/1", "a/2"]
    assert cli("get", "nothing", "--prefix") == (NOT_FOUND, b"", "")
    assert cli("get", "nothing", "--prefix", "-o", "json") == (NOT_FOUND, b"[]\n", "")
    assert cli("get", "nothing", "--prefix", "--count-only") == (NOT_FOUND, b"0\n", "")
    assert cli("get", "b", "--keys-only").stdout == b"b\n"
    assert "value" not in cli("get", "b", "--keys-only", "-o", "json").document


def test_options_of_get_reach_the_client(cli: RunCli, three: Cluster) -> None:
    cli("get", "a", "--prefix", "--limit", "2", "--rev", "3", "--sort", "mod", "--order", "descend", "--stale")
    assert three.asked[-1] == (
        "range",
        {"limit": 2, "revision": 3, "sort_by": "mod", "descending": True, "stale": True},
    )
    cli("get", "b", "--stale")
    assert three.asked[-1] == ("get_kv", {"key": b"b", "stale": True})


def test_del_of_ranges(cli: RunCli, three: Cluster) -> None:
    assert cli("del", "a/", "--prefix") == (OK, b"2\n", "")
    assert cli("del", "a", "--range-end", "c") == (OK, b"1\n", "")
    three.put(b"x", b"y")
    refused = cli("del", "", "--prefix")
    assert refused.code == USAGE
    assert "--all" in refused.stderr
    assert three.store
    assert cli("del", "", "--prefix", "--all") == (OK, b"1\n", "")


TAKE = b'version("lock") = 0\n\nput lock me\n'


def test_txn(cli: RunCli, cluster: Cluster) -> None:
    assert cli("txn", stdin=TAKE) == (OK, b"SUCCESS\nOK\n", "")
    assert cli("txn", stdin=TAKE) == (FAILED, b"FAILURE\n", "")
    assert cli("txn", "-", stdin=TAKE + b"\nget lock\ndel l --prefix\n") == (OK, b"FAILURE\nlock\nme\n1\n", "")


def test_txn_json_table_and_file(cli: RunCli, cluster: Cluster, tmp_path: Any) -> None:
    script = tmp_path / "take.txn"
    script.write_bytes(TAKE + b"\nget lock\n")
    assert cli("txn", str(script), "-o", "json").document == {
        "succeeded": True,
        "revision": 2,
        "responses": [{"put": "OK"}],
    }
    document = cli("-o", "json", "txn", str(script)).document
    assert document["succeeded"] is False
    assert document["responses"][0]["count"] == 1
    assert document["responses"][0]["kvs"][0]["value"] == "me"
    table = cli("txn", str(script), "-o", "table").stdout.decode().splitlines()
    assert [line.split() for line in table[1:]] == [["all", "txn", "FAILURE"], ["1", "get", "1", "of", "1", "keys"]]


def test_txn_typed_in_prompts_for_three_parts(cli: RunCli, cluster: Cluster) -> None:
    result = cli("txn", "--interactive", stdin=TAKE)
    assert result.code == OK
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["compares:", "success", "failure"]
    assert cluster.store[b"lock"].value == b"me"


def member(name: str, role: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "id": 1, "endpoint": f"{name}:2379", "role": role, "errors": [], **more}


def test_status(cli: RunCli, cluster: Cluster) -> None:
    leader = member(
        "n1", "leader", term=3, leader="n1", commit_index=9, applied_index=9, revision=7, db_size_bytes=4096
    )
    gone = {"endpoint": "n2:2379", "role": "unreachable", "errors": ["refused"]}
    cluster.members = [{**leader, "version": "0.1.0", "digest": 17}, gone]
    documents = cli("status", "-o", "json").document
    assert documents[0]["commit_index"] == 9
    assert documents[0]["digest"] == 17
    assert documents[1]["name"] is None
    assert documents[1]["role"] == "unreachable"
    assert set(documents[1]) <= set(documents[0])
    lines = cli("status").stdout.decode().splitlines()
    assert lines[1].split() == ["n1", "n1:2379", "leader", "3", "n1", "9", "9", "7", "4.0", "KiB", "0.1.0"]
    assert lines[2].split() == ["-", "n2:2379", "unreachable", *["-"] * 7, "refused"]
    assert cli("status", "-o", "value").stdout == b"n1 n1:2379 leader\n- n2:2379 unreachable\n"
    cluster.members = [gone]
    assert cli("status").code == NOT_DONE


def test_move_leader(cli: RunCli, cluster: Cluster) -> None:
    assert cli("move-leader", "n3") == (OK, b"n3\n", "")
    assert cluster.asked[-1] == ("move_leader", {"name": "n3"})
    assert cli("move-leader").code == OK
    assert cluster.asked[-1] == ("move_leader", {"name": ""})
    assert cli("move-leader", "-o", "json").document == {"leader": "n2", "id": 2, "address": "127.0.0.1:2381"}


def test_defrag(cli: RunCli, cluster: Cluster) -> None:
    """Those that were named, or all of the cluster; one that cannot does not keep the others from it."""
    assert cli("defrag", "--endpoints", "a:1,b:2", "-o", "value") == (
        OK,
        b"a:1 8192 4096 0.25\nb:2 8192 4096 0.25\n",
        "",
    )
    assert cluster.asked == [("defragment", {"address": "a:1"}), ("defragment", {"address": "b:2"})]
    cluster.members = [{"name": f"n{number}", "endpoint": f"n{number}:2379"} for number in (1, 2, 3)]
    rows = cli("defrag", "--all", "-o", "json").document
    assert [row["endpoint"] for row in rows] == ["n1:2379", "n2:2379", "n3:2379"]
    assert rows[0] == {"endpoint": "n1:2379", "before_bytes": 8192, "after_bytes": 4096, "seconds": 0.25, "error": ""}
    cluster.full = {"n2:2379"}
    code, stdout, stderr = cli("defrag", "--all")
    lines = stdout.decode().splitlines()
    assert lines[1].split() == ["n1:2379", "8.0", "KiB", "4.0", "KiB", "0.2"]
    assert lines[2].split() == ["n2:2379", "-", "-", "-", "no_space:", "n2:2379", "is", "full"]
    assert lines[3].startswith("n3:2379")
    assert (code, stderr) == (FAILED, "raftkv defrag: n2:2379: no_space: n2:2379 is full\n")
    cluster.full = {"a:1"}
    assert cli("defrag", "--endpoints", "a:1", "-o", "value") == (FAILED, b"", "raftkv defrag: no_space: a:1 is full\n")


def test_version(cli: RunCli) -> None:
    plain = cli("version")
    assert plain.code == OK
    assert plain.stdout.startswith(b"raftkv ")
    assert cli("--version").stdout == plain.stdout
    assert set(cli("version", "-o", "json").document) == {"raftkv", "python"}


def test_global_options_on_both_sides_and_from_the_environment(
    cli: RunCli, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--endpoints", "a:1,b:2", "--cluster-name=prod", "--timeout", "1.5")
    cli(*options, "put", "k", "v")
    cli("put", *options, "k", "v")
    cli("put", "k", "v", *options)
    cli("--endpoints", "z:1", "put", "k", "v", *options)
    assert cluster.opened_with == [("a:1,b:2", "prod", 1.5)] * 4
    monkeypatch.setenv("RAFTKV_ENDPOINTS", "e:1")
    monkeypatch.setenv("RAFTKV_CLUSTER_NAME", "dev")
    cli("put", "k", "v")
    assert cluster.opened_with[-1] == ("e:1", "dev", 5.0)
    cli("put", "k", "v", "--endpoints", "o:1")
    assert cluster.opened_with[-1] == ("o:1", "dev", 5.0)


def test_compact(cli: RunCli, cluster: Cluster) -> None:
    cli("put", "k", "v")
    assert cli("compact", "2") == (OK, b"2\n", "")
    assert cluster.asked[-1] == ("compact", {"revision": 2})
    assert cli("compact", "2", "-o", "json").document == {"compacted": 2, "revision": 2}
    for bad in ("0", "x", "99999999999999999999"):
        assert cli("compact", bad).code == USAGE
