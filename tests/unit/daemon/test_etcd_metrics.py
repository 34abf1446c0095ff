"""gRPC's figures as text, and the names of what is counted."""

import time

from prometheus_client.parser import text_string_to_metric_families

from raftkv.daemon.etcd.counting import CallCounts
from raftkv.daemon.etcd.procedures import KINDS, PROCEDURES
from raftkv.daemon.etcd_metrics import GRPC_CODES, grpc_text
from raftkv.daemon.timings import SLOW_APPLY_SECONDS, Timings


def test_every_code_of_every_method_is_there_from_the_beginning() -> None:
    calls = CallCounts(PROCEDURES)
    calls.kinds = KINDS
    put = calls.of("/etcdserverpb.KV/Put")
    put.started, put.received, put.sent = 7, 6, 5
    put.handled[0], put.handled[3] = 5, 1
    families = {family.name: family for family in text_string_to_metric_families(grpc_text(calls))}
    assert {family.type for family in families.values()} == {"counter"}
    handled = {
        (sample.labels["grpc_service"], sample.labels["grpc_method"], sample.labels["grpc_code"]): sample.value
        for sample in families["grpc_server_handled"].samples
    }
    assert len(handled) == len(PROCEDURES) * 17 == len(PROCEDURES) * len(set(GRPC_CODES))
    assert handled["etcdserverpb.KV", "Put", "OK"] == 5
    assert handled["etcdserverpb.KV", "Put", "InvalidArgument"] == 1
    assert sum(handled.values()) == 6
    for name, expected in (("started", 7), ("msg_received", 6), ("msg_sent", 5)):
        values = [sample.value for sample in families[f"grpc_server_{name}"].samples if sample.value]
        assert values == [expected]
    kinds = {
        sample.labels["grpc_method"]: sample.labels["grpc_type"]
        for sample in families["grpc_server_started"].samples
        if sample.labels["grpc_service"].startswith("etcdserverpb.")
    }
    assert (kinds["Put"], kinds["Watch"], kinds["Snapshot"]) == ("unary", "bidi_stream", "server_stream")
    assert kinds["LeaseKeepAlive"] == "bidi_stream"


def test_slow_entries_are_those_above_etcds_bound() -> None:
    apply = Timings().apply
    for seconds in (0.0, SLOW_APPLY_SECONDS, SLOW_APPLY_SECONDS + 0.001, 60.0):
        apply.observe(seconds)
    assert apply.count_above(SLOW_APPLY_SECONDS) == 2


def test_what_is_called_is_timed_and_answers() -> None:
    apply = Timings().apply
    assert apply.call(max, 3, 4) == 4
    apply.call(time.sleep, 0)
    assert sum(apply.counts) == 2
