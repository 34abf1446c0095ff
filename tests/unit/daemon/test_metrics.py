"""Metrics: every figure under its name, etcd's names with etcd's types, and a scrape that Prometheus' own parser reads."""

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from raftkv.daemon.metrics import COUNTERS, GAUGES, Counters, Gauges, Metrics
from raftkv.daemon.timings import DISK_BUCKETS, Histogram
from raftkv.transport.links import PeerStatistics

PEERS = {
    0xB: PeerStatistics(
        "b:1",
        connected=True,
        connects=2,
        bytes_sent=10,
        bytes_received=20,
        messages_dropped=3,
        round_trip_seconds=0.0003,
    ),
    0xC: PeerStatistics("c:1", last_error="Connection refused"),
}
STANDING = Gauges(
    version="0.1.0",
    cluster_name='a "b"',
    node_id=0xA,
    has_leader=True,
    is_leader=False,
    is_learner=False,
    ready=True,
    term=3,
    commit_index=12,
    applied_index=11,
    last_index=13,
    revision=5,
    proposals_pending=2,
    db_size_bytes=4096,
    db_size_in_use_bytes=1024,
    quota_bytes=8192,
    leases=15,
    watchers=16,
    watchers_slow=17,
    waits=18,
    compact_revision=19,
    digest_agreed_index=10,
    diverging_members=20,
    client_connections=7,
    client_connections_accepted=9,
    client_connections_refused=1,
    client_connections_unrecognized=4,
    peer_connections_refused=6,
    disk_stalled_seconds=2.5,
    handovers=8,
    snapshots_made=3,
    snapshots_installed=2,
    snapshots_damaged=1,
    snapshot_bytes_sent=5000,
    snapshot_bytes_received=700,
    peers=PEERS,
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(metrics: Metrics) -> tuple[Samples, dict[str, str]]:
    """Samples by name and labels, and types by name."""
    samples: Samples = {}
    types: dict[str, str] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        types[family.name] = family.type
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, "a figure appears once"
            samples[key] = sample.value
    return samples, types


@pytest.fixture
def counters() -> Counters:
    counted = Counters()
    counted.leader_changes = 4
    counted.proposals_failed = 8
    counted.loop_stall_seconds_max = 0.25
    counted.observe_sync(0.0015)
    counted.observe_sync(100.0)
    counted.commit_seconds.observe(0.001)
    return counted


def test_figures_under_our_names_and_etcds(counters: Counters) -> None:
    samples, types = scrape(Metrics(counters, lambda: STANDING))
    for figure in GAUGES:
        for name in filter(None, (figure.name, figure.etcd_name)):
            assert samples[name, ()] == figure.read(STANDING)
            assert types[name] == "gauge"
    for counter in COUNTERS:
        for name in filter(None, (counter.name, counter.etcd_name)):
            assert samples[f"{name}_total", ()] == counter.read((STANDING, counters))
            assert types[name] == "counter"
    assert samples["etcd_server_proposals_committed_total", ()] == 12
    assert samples["etcd_server_leader_changes_seen_total", ()] == 4
    assert samples["raftkv_build_info", (("cluster_name", 'a "b"'), ("version", "0.1.0"))] == 1
    assert samples["etcd_server_id", (("server_id", "a"),)] == 1


def test_the_figures_of_the_process_are_there(counters: Counters) -> None:
    samples, _ = scrape(Metrics(counters, lambda: STANDING))
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_max_fds"):
        assert samples[name, ()] >= 0


@pytest.mark.parametrize("name", ["raftkv_wal_sync_seconds", "etcd_disk_wal_fsync_duration_seconds"])
def test_histograms(counters: Counters, name: str) -> None:
    samples, types = scrape(Metrics(counters, lambda: STANDING))
    assert types[name] == "histogram"
    assert samples[f"{name}_bucket", (("le", "0.001"),)] == 0
    assert samples[f"{name}_bucket", (("le", "0.002"),)] == 1
    assert samples[f"{name}_bucket", (("le", "8.192"),)] == 1
    assert samples[f"{name}_bucket", (("le", "+Inf"),)] == samples[f"{name}_count", ()] == 2
    assert samples[f"{name}_sum", ()] == pytest.approx(100.0015)


def test_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(seconds)
    assert histogram.cumulative() == [("1.0", 2), ("2.0", 4), ("+Inf", 5)]
    assert len(DISK_BUCKETS) == 14


def test_peers(counters: Counters) -> None:
    metrics = Metrics(counters, lambda: STANDING)
    samples, types = scrape(metrics)
    assert samples["etcd_network_peer_sent_bytes_total", (("To", "b"),)] == 10
    assert samples["etcd_network_peer_received_bytes_total", (("From", "b"),)] == 20
    assert samples["etcd_network_peer_sent_failures_total", (("To", "b"),)] == 3
    assert samples["etcd_network_active_peers", (("Local", "a"), ("Remote", "b"))] == 1
    assert samples["etcd_network_active_peers", (("Local", "a"), ("Remote", "c"))] == 0
    assert samples["raftkv_peer_connected", (("To", "c"),)] == 0
    assert types["etcd_network_peer_round_trip_time_seconds"] == "histogram"
    samples, _ = scrape(metrics)
    assert samples["etcd_network_peer_round_trip_time_seconds_count", (("To", "b"),)] == 2, "one per scrape"
    assert samples["etcd_network_peer_round_trip_time_seconds_count", (("To", "c"),)] == 0


def test_a_removed_peer_disappears(counters: Counters) -> None:
    standing = [STANDING]
    metrics = Metrics(counters, lambda: standing[0])
    metrics.text()
    standing[0] = replace(STANDING, peers={0xC: PEERS[0xC]})
    samples, _ = scrape(metrics)
    assert not [key for key in samples if ("To", "b") in key[1]]


def test_the_longest_stall_is_since_the_last_scrape(counters: Counters) -> None:
    metrics = Metrics(counters, lambda: STANDING)
    assert [scrape(metrics)[0]["raftkv_loop_stall_seconds", ()] for _ in range(2)] == [0.25, 0.0]


def test_members_in_one_process_do_not_mix(counters: Counters) -> None:
    one, two = Metrics(counters, lambda: STANDING), Metrics(Counters(), lambda: STANDING)
    assert scrape(one)[0]["raftkv_leader_changes_total", ()] == 4
    assert scrape(two)[0]["raftkv_leader_changes_total", ()] == 0
