"""What Prometheus sees, under our names and, where the meaning is equal, under the names of etcd that dashboards know.

Nothing here is called per request: hot paths add to plain ints of Counters, and a collector reads them, and the Gauges
that the owner fills, at a scrape. Names, types and labels of etcd's metrics follow its 3.5 series.
"""

from dataclasses import dataclass, field
from typing import Any, Callable, Final, Generic, Iterator, Mapping, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from raftkv.daemon.timings import DISK_BUCKETS, ROUND_TRIP_BUCKETS, Histogram, Timings
from raftkv.transport.links import PeerStatistics


class Counters:
    """Figures that are counted where things happen. All only grow, except the largest stall, which a scrape resets."""

    __slots__ = (
        "commit_seconds",
        "leader_changes",
        "loop_stall_seconds_max",
        "proposals_failed",
        "sync_seconds",
        "timings",
    )

    def __init__(self) -> None:
        self.leader_changes = 0
        self.proposals_failed = 0
        self.loop_stall_seconds_max = 0.0
        self.sync_seconds = Histogram(DISK_BUCKETS)
        self.timings = Timings()
        self.commit_seconds = self.timings.commit

    def observe_sync(self, seconds: float) -> None:
        """One fdatasync of the log."""
        self.sync_seconds.observe(seconds)


@dataclass(slots=True, kw_only=True)
class Gauges:
    """How things stand at the moment of a scrape. The owner fills all of it."""

    version: str
    cluster_name: str
    node_id: int
    has_leader: bool
    is_leader: bool
    is_learner: bool
    ready: bool
    term: int
    commit_index: int
    applied_index: int
    last_index: int
    revision: int
    proposals_pending: int
    db_size_bytes: int
    db_size_in_use_bytes: int
    quota_bytes: int
    leases: int
    watchers: int
    watchers_slow: int
    waits: int
    compact_revision: int
    digest_agreed_index: int
    diverging_members: int
    client_connections: int
    client_connections_accepted: int  # since the start, as are all below
    client_connections_refused: int
    client_connections_unrecognized: int
    peer_connections_refused: int
    disk_stalled_seconds: float
    handovers: int
    snapshots_made: int
    snapshots_installed: int
    snapshots_damaged: int
    snapshot_bytes_sent: int
    snapshot_bytes_received: int
    peers: Mapping[int, PeerStatistics] = field(default_factory=dict)


_Source = TypeVar("_Source")


class Figure(NamedTuple, Generic[_Source]):
    """One number: how it is read, our name, etcd's name ("": it has none), and a help text."""

    read: Callable[[_Source], float]
    name: str
    etcd_name: str
    help: str


# etcd types the committed and applied index as gauges although their names end in _total.
GAUGES: Final[tuple[Figure[Gauges], ...]] = (
    Figure(lambda g: g.has_leader, "raftkv_has_leader", "etcd_server_has_leader", "1 while a leader is known"),
    Figure(lambda g: g.is_leader, "raftkv_is_leader", "etcd_server_is_leader", "1 on the leader"),
    Figure(lambda g: g.is_learner, "raftkv_is_learner", "etcd_server_is_learner", "1 on a member without a vote"),
    Figure(lambda g: g.ready, "raftkv_ready", "", "1 while /readyz says ok"),
    Figure(lambda g: g.term, "raftkv_term", "", "Raft term"),
    Figure(
        lambda g: g.commit_index,
        "raftkv_commit_index",
        "etcd_server_proposals_committed_total",
        "Last committed index of the log",
    ),
    Figure(
        lambda g: g.applied_index,
        "raftkv_applied_index",
        "etcd_server_proposals_applied_total",
        "Last applied index of the log",
    ),
    Figure(lambda g: g.last_index, "raftkv_last_index", "", "Last index of the log"),
    Figure(lambda g: g.revision, "raftkv_revision", "etcd_debugging_mvcc_current_revision", "Revision of the store"),
    Figure(
        lambda g: g.proposals_pending,
        "raftkv_proposals_pending",
        "etcd_server_proposals_pending",
        "Writes that wait for their answer",
    ),
    Figure(
        lambda g: g.db_size_bytes,
        "raftkv_db_size_bytes",
        "etcd_mvcc_db_total_size_in_bytes",
        "Size of the store's file",
    ),
    Figure(
        lambda g: g.db_size_in_use_bytes,
        "raftkv_db_size_in_use_bytes",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Bytes of the store's pages that are in use",
    ),
    Figure(
        lambda g: g.quota_bytes,
        "raftkv_quota_bytes",
        "etcd_server_quota_backend_bytes",
        "Size of the store at which writes are refused",
    ),
    Figure(
        lambda g: g.disk_stalled_seconds,
        "raftkv_disk_stalled_seconds",
        "",
        "For how long an fsync of the log has not returned, once it is over fsync_stall_ms_max",
    ),
    Figure(lambda g: g.leases, "raftkv_leases", "", "Leases that were granted and have not ended"),
    Figure(lambda g: g.watchers, "raftkv_watchers", "etcd_debugging_mvcc_watcher_total", "Watches that are served"),
    Figure(
        lambda g: g.watchers_slow,
        "raftkv_watchers_slow",
        "etcd_debugging_mvcc_slow_watcher_total",
        "Watches that read history because they start in the past or do not keep up",
    ),
    Figure(lambda g: g.waits, "raftkv_waits", "", "Server-side waits that are not answered yet"),
    Figure(
        lambda g: g.compact_revision,
        "raftkv_compact_revision",
        "etcd_debugging_mvcc_compact_revision",
        "History below it is gone",
    ),
    Figure(
        lambda g: g.digest_agreed_index,
        "raftkv_digest_agreed_index",
        "",
        "Newest index of the log at which this member's store is known to be that of a quorum; 0 while none is",
    ),
    Figure(
        lambda g: g.diverging_members,
        "raftkv_diverging_members",
        "",
        "On the leader: members whose store differs from its own",
    ),
    Figure(lambda g: g.client_connections, "raftkv_client_connections", "", "Open client connections of all protocols"),
)

COUNTERS: Final[tuple[Figure[tuple[Gauges, Counters]], ...]] = (
    Figure(
        lambda s: s[1].leader_changes,
        "raftkv_leader_changes",
        "etcd_server_leader_changes_seen",
        "Changes of leader that this member saw",
    ),
    Figure(
        lambda s: s[1].proposals_failed,
        "raftkv_proposals_failed",
        "etcd_server_proposals_failed",
        "Writes that ended with an error of the cluster",
    ),
    Figure(
        lambda s: s[0].client_connections_accepted,
        "raftkv_client_connections_accepted",
        "",
        "Client connections so far",
    ),
    Figure(
        lambda s: s[0].client_connections_refused,
        "raftkv_client_connections_refused",
        "",
        "Client connections closed at once because too many were open",
    ),
    Figure(
        lambda s: s[0].client_connections_unrecognized,
        "raftkv_client_connections_unrecognized",
        "",
        "Client connections that spoke no known protocol",
    ),
    Figure(
        lambda s: s[0].peer_connections_refused,
        "raftkv_peer_connections_refused",
        "",
        "Connections to the peer port that were not let in",
    ),
    Figure(
        lambda s: s[0].handovers,
        "raftkv_leader_handovers",
        "",
        "Transfers of leadership that this member began by itself: an ill disk, a preferred member, a shutdown",
    ),
    Figure(lambda s: s[0].snapshots_made, "raftkv_snapshots_made", "", "Snapshots made for members that are behind"),
    Figure(
        lambda s: s[0].snapshots_installed,
        "raftkv_snapshots_installed",
        "",
        "Received snapshots that took the store's place",
    ),
    Figure(
        lambda s: s[0].snapshots_damaged,
        "raftkv_snapshots_damaged",
        "",
        "Received snapshots that were refused because their checksum was wrong",
    ),
    Figure(
        lambda s: s[0].snapshot_bytes_sent,
        "raftkv_snapshot_sent_bytes",
        "",
        "Bytes of snapshots given to the network, those given again included",
    ),
    Figure(
        lambda s: s[0].snapshot_bytes_received,
        "raftkv_snapshot_received_bytes",
        "",
        "Bytes of snapshots received, those that came again included",
    ),
)

HISTOGRAMS: Final[tuple[tuple[Callable[[Counters], Histogram], str, str, str], ...]] = (
    (
        lambda counters: counters.sync_seconds,
        "raftkv_wal_sync_seconds",
        "etcd_disk_wal_fsync_duration_seconds",
        "fdatasync of the log",
    ),
    (
        lambda counters: counters.commit_seconds,
        "raftkv_store_commit_seconds",
        "etcd_disk_backend_commit_duration_seconds",
        "Durable commit of the store",
    ),
    (
        lambda counters: counters.timings.copy,
        "raftkv_store_copy_seconds",
        "etcd_disk_backend_snapshot_duration_seconds",
        "Compact copy of the store, for a snapshot or a backup",
    ),
    (
        lambda counters: counters.timings.defragment,
        "raftkv_defragment_seconds",
        "etcd_disk_backend_defrag_duration_seconds",
        "Defragmentation of the store that succeeded",
    ),
    (
        lambda counters: counters.timings.apply,
        "raftkv_entry_apply_seconds",
        "",
        "Applying one entry of the log, whatever is in it",
    ),
)

PEER_GAUGES: Final[tuple[Figure[PeerStatistics], ...]] = (
    Figure(lambda p: p.connected, "raftkv_peer_connected", "", "1 while there is a connection to the peer"),
    Figure(lambda p: p.queued_bytes, "raftkv_peer_queued_bytes", "", "Bytes that wait because the peer is slow"),
)

SENT: Final[tuple[Figure[PeerStatistics], ...]] = (
    Figure(lambda p: p.bytes_sent, "raftkv_peer_sent_bytes", "etcd_network_peer_sent_bytes", "Bytes sent to a peer"),
    Figure(lambda p: p.messages_sent, "raftkv_peer_sent_messages", "", "Messages sent to a peer"),
    Figure(
        lambda p: p.messages_dropped,
        "raftkv_peer_dropped_messages",
        "etcd_network_peer_sent_failures",
        "Messages to a peer that were not sent",
    ),
    Figure(lambda p: p.connects, "raftkv_peer_connects", "", "Connections made to a peer"),
)

RECEIVED: Final[tuple[Figure[PeerStatistics], ...]] = (
    Figure(
        lambda p: p.bytes_received,
        "raftkv_peer_received_bytes",
        "etcd_network_peer_received_bytes",
        "Bytes received from a peer",
    ),
    Figure(lambda p: p.messages_received, "raftkv_peer_received_messages", "", "Messages received from a peer"),
)


class Metrics(Collector):
    """The registry of one member; `text` is a scrape."""

    def __init__(self, counters: Counters, read_gauges: Callable[[], Gauges]) -> None:
        self._counters = counters
        self._read_gauges = read_gauges
        self._round_trips: dict[int, Histogram] = {}
        # Of its own: the library's global one would mix members that share a process, as tests have them.
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def add(self, further: Collector) -> None:
        """Figures that somebody else collects."""
        self._registry.register(further)

    def text(self) -> bytes:
        """The Prometheus text format, all figures of one moment."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Everything except process_*; each figure under our name, then under etcd's."""
        gauges, counters = self._read_gauges(), self._counters
        build = GaugeMetricFamily("raftkv_build_info", "1: the labels tell", labels=("version", "cluster_name"))
        build.add_metric([gauges.version, gauges.cluster_name], 1)
        yield build
        own_id = GaugeMetricFamily("etcd_server_id", "1: the label tells", labels=("server_id",))
        own_id.add_metric([f"{gauges.node_id:x}"], 1)
        yield own_id
        for figure in GAUGES:
            for name in _names(figure):
                yield GaugeMetricFamily(name, figure.help, value=figure.read(gauges))
        for counter in COUNTERS:
            for name in _names(counter):
                yield CounterMetricFamily(name, counter.help, value=counter.read((gauges, counters)))
        for read, own_name, etcd_name, text in HISTOGRAMS:
            histogram = read(counters)
            for name in filter(None, (own_name, etcd_name)):
                yield HistogramMetricFamily(name, text, histogram.cumulative(), histogram.total_seconds)
        stall, counters.loop_stall_seconds_max = counters.loop_stall_seconds_max, 0.0
        yield GaugeMetricFamily("raftkv_loop_stall_seconds", "Longest stall since the last scrape", value=stall)
        yield from self._collect_peers(gauges)

    def _collect_peers(self, gauges: Gauges) -> Iterator[Metric]:
        own_id = f"{gauges.node_id:x}"
        peers = [(node_id, f"{node_id:x}", statistics) for node_id, statistics in sorted(gauges.peers.items())]
        for figure in PEER_GAUGES:
            gauge = GaugeMetricFamily(figure.name, figure.help, labels=("To",))
            for _, label, statistics in peers:
                gauge.add_metric([label], figure.read(statistics))
            yield gauge
        for direction, figures in (("To", SENT), ("From", RECEIVED)):
            for figure in figures:
                for name in _names(figure):
                    counter = CounterMetricFamily(name, figure.help, labels=(direction,))
                    for _, label, statistics in peers:
                        counter.add_metric([label], figure.read(statistics))
                    yield counter
        active = GaugeMetricFamily("etcd_network_active_peers", "1 while connected", labels=("Local", "Remote"))
        for _, label, statistics in peers:
            active.add_metric([own_id, label], statistics.connected)
        yield active
        yield from self._collect_round_trips(gauges)

    def _collect_round_trips(self, gauges: Gauges) -> Iterator[Metric]:
        """One observation per peer and scrape, of what the kernel measured; etcd's prober observes every few seconds."""
        self._round_trips = {
            node_id: self._round_trips.get(node_id, Histogram(ROUND_TRIP_BUCKETS)) for node_id in sorted(gauges.peers)
        }
        for node_id, statistics in gauges.peers.items():
            if statistics.round_trip_seconds is not None:
                self._round_trips[node_id].observe(statistics.round_trip_seconds)
        for name in ("raftkv_peer_round_trip_seconds", "etcd_network_peer_round_trip_time_seconds"):
            family = HistogramMetricFamily(name, "Round trip time to a peer", labels=("To",))
            for node_id, histogram in self._round_trips.items():
                family.add_metric([f"{node_id:x}"], histogram.cumulative(), histogram.total_seconds)
            yield family


def _names(figure: Figure[Any]) -> tuple[str, ...]:
    return (figure.name, figure.etcd_name) if figure.etcd_name else (figure.name,)


__all__ = ["Counters", "Gauges", "Histogram", "Metrics"]
