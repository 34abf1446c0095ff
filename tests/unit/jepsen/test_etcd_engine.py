"""etcd's end of the harness: what its errors say about a write, how its responses become batches, how its nodes are asked."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc")

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]

from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv_jepsen.beside import SUMMARY, load
from raftkv_jepsen.clients.etcd import _batches, error_of
from raftkv_jepsen.history import HistoryWriter, Operation
from raftkv_jepsen.machines.etcd_node import EtcdNode
from raftkv_jepsen.options import Options
from raftkv_jepsen.report.page import page
from raftkv_jepsen.runner import Result


@pytest.mark.parametrize(
    ("code", "details", "may_have_happened"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; last error: ...", False),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader", False),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out", True),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", True),
        (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: key is not provided", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", False),
    ],
)
def test_an_error_is_honest_about_its_write(code: Any, details: str, may_have_happened: bool) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    assert error_of(error).may_have_happened is may_have_happened


def event(key: bytes, revision: int, previous: bytes | None = None) -> Any:
    made = rpc.WatchResponse().events.add()
    made.kv.key, made.kv.value, made.kv.mod_revision = key, b"v", revision
    if previous is not None:
        made.prev_kv.value = previous
    return made


def test_a_response_is_cut_into_revisions_and_a_quiet_one_is_a_bookmark() -> None:
    events = [event(b"a", 5), event(b"b", 5, b"old"), event(b"a", 6)]
    batches = _batches(rpc.WatchResponse(events=events))
    assert [(batch.revision, [change.key for change in batch.changes]) for batch in batches] == [
        (5, ["a", "b"]),
        (6, ["a"]),
    ]
    assert [change.previous for change in batches[0].changes] == [None, "old"]
    quiet = rpc.WatchResponse()
    quiet.header.revision = 9
    assert _batches(quiet) == [(9, [])]
    assert _batches(rpc.WatchResponse(created=True)) == []


def test_a_real_etcd_is_started_as_the_others_know_it(tmp_path: Path) -> None:
    node = EtcdNode(
        name="n1",
        client_endpoint="10.0.0.1:2379",
        peer_endpoint="10.0.0.1:2380",
        data_directory=tmp_path,
        log_path=tmp_path / "log",
        cluster_name="c",
        initial_cluster="n1=10.0.0.1:2380,n2=10.0.0.2:2380",
    )
    words = node.arguments()
    assert "--initial-cluster=n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380" in words
    assert "--advertise-client-urls=http://10.0.0.1:2379" in words


def test_figures_of_another_run_stand_beside_ours(tmp_path: Path) -> None:
    history = HistoryWriter(tmp_path / "history.jsonl")
    fault = history.fault_began("pause", "n1", 1_000_000_000)
    operation = Operation(1, "write", "register/0", 1, "ok", 2, 1_500_000_000)
    history.invoke(operation)
    history.complete(operation, 1_600_000_000)
    history.fault_ended(fault, 2_000_000_000)
    history.close()
    with pytest.raises(RuntimeError, match="did not come to its end"):
        load(tmp_path)
    (tmp_path / SUMMARY).write_text(json.dumps({"ended_ns": 3_000_000_000}))
    result = Result(Options(out=tmp_path), beside={"etcd": load(tmp_path)})
    result.verdicts, result.faults, result.operations, result.ended_ns = (
        [],
        history.faults,
        history.operations,
        3 * 10**9,
    )
    text = page(result)
    assert "Side by side" in text
    assert text.count("100.0</td>") >= 2, "the median of both"
