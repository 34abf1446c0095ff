"""`raftkv watch` against the fake client: its formats, its options, its end."""

import json

import pytest

from raftkv.client.results import KeyValue
from raftkv.client.watchstate import Event, WatchBatch

from .conftest import RunCli
from .fake_client import Cluster

OK, USAGE, INTERRUPTED = 0, 2, 130


@pytest.fixture
def busy(cluster: Cluster) -> Cluster:
    old, new = KeyValue(b"a", 2, 2, 1, 0, b"1"), KeyValue(b"a", 2, 3, 2, 0, b"2")
    gone = Event("delete", KeyValue(b"\xff", 0, 4, 0, 0, b""), None)
    cluster.watched = [
        WatchBatch(3, [Event("put", new, old)]),
        WatchBatch(4, [gone]),
        WatchBatch(9, []),
    ]
    return cluster


def test_lines(cli: RunCli, busy: Cluster) -> None:
    assert cli("watch", "a") == (INTERRUPTED, b"PUT\na\n2\nDELETE\n\xff\nPROGRESS\n9\n", "")


def test_json_lines(cli: RunCli, busy: Cluster) -> None:
    lines = [json.loads(line) for line in cli("watch", "a", "-o", "json").stdout.splitlines()]
    put = {"type": "put", "key": "a", "value": "2", "create_revision": 2, "mod_revision": 3, "version": 2, "lease": 0}
    prev = {"key": "a", "value": "1", "create_revision": 2, "mod_revision": 2, "version": 1, "lease": 0}
    assert lines == [
        {**put, "prev": prev},
        {"type": "delete", "key_b64": "/w==", "mod_revision": 4},
        {"type": "progress", "revision": 9},
    ]


def test_table(cli: RunCli, busy: Cluster) -> None:
    lines = cli("watch", "a", "-o", "table").stdout.decode().splitlines()
    assert [line.split() for line in lines] == [["3", "put", "a", "2"], ["4", "delete", "\\xff"], ["9", "progress"]]


def test_limit_ends_it(cli: RunCli, busy: Cluster) -> None:
    assert cli("watch", "a", "--limit", "1") == (OK, b"PUT\na\n2\n", "")
    assert cli("watch", "a", "--limit", "2").stdout.endswith(b"DELETE\n\xff\n")


def test_what_is_asked_for(cli: RunCli, cluster: Cluster) -> None:
    cli("watch", "a", "--range-end", "c", "--rev", "7", "--only", "delete")
    asked = {"key": b"a", "range_end": b"c", "prefix": None, "start_revision": 7, "only": "delete"}
    assert cluster.asked[-1] == ("watch", asked)
    cli("watch", "", "--prefix")
    assert cluster.asked[-1][1]["prefix"] == b""


@pytest.mark.parametrize(
    "words", [("",), ("a", "--prefix", "--range-end", "b"), ("a", "--rev", "0"), ("a", "--only", "x")]
)
def test_bad_usage(cli: RunCli, cluster: Cluster, words: tuple[str, ...]) -> None:
    assert cli("watch", *words).code == USAGE
    assert not cluster.asked
