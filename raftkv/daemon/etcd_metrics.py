"""Metrics under etcd's names that raftkv has no names of its own for, so that dashboards and alert rules for etcd go on working.

Names, types and labels are those of etcd 3.5. What raftkv cannot say honestly is left out, and listed in docs/etcd-compat.md with the
reason; a test compares both with a real etcd. The thousand figures of gRPC are written as text here, because the library takes
as long for each of them as for anything else, and a scrape must not hold the loop.
"""

import os
import resource
from typing import TYPE_CHECKING, Any, Callable, Final, Iterator, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from raftkv.daemon.defrag import Defragmentation
from raftkv.daemon.journal import WalJournal
from raftkv.daemon.metrics import Metrics
from raftkv.daemon.storage import Storage
from raftkv.daemon.timings import SLOW_APPLY_SECONDS
from raftkv.daemon.view import View
from raftkv.etcd.versions import CLUSTER_VERSION, SERVER_VERSION
from raftkv.replica.service import Service

if TYPE_CHECKING:
    from raftkv.daemon.etcd.counting import CallCounts

GRPC_CODES: Final = (
    *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"),
    *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented"),
    *("Internal", "Unavailable", "DataLoss", "Unauthenticated"),
)
"""gRPC's status numbers in Go's words."""
_WATCH: Final = "/etcdserverpb.Watch/Watch"


class Parts(NamedTuple):
    """What is looked at of the member besides its view."""

    storage: Storage
    journal: WalJournal
    service: Service
    defragmentation: Defragmentation


class EtcdMetrics(Collector):
    """Of one member."""

    def __init__(self, view: View, parts: Parts) -> None:
        self._view = view
        self._parts = parts

    def join(self, metrics: Metrics, *others: Collector) -> Callable[[], bytes]:
        """A scrape of all metrics of the member, these and those of others included."""
        for collector in (*others, self):
            metrics.add(collector)
        return lambda: metrics.text() + self._health_text() + self._grpc_text()

    def collect(self) -> Iterator[Metric]:
        """All but those that are written as text."""
        for name, text, value in self._counters():
            yield CounterMetricFamily(name, text, value=value)
        for name, text, value in self._gauges():
            yield GaugeMetricFamily(name, text, value=value)
        version = GaugeMetricFamily("etcd_server_version", "1: the label tells", labels=("server_version",))
        version.add_metric([SERVER_VERSION], 1)
        yield version
        cluster = GaugeMetricFamily("etcd_cluster_version", "1: the label tells", labels=("cluster_version",))
        if self._view.facts().cluster_id:
            cluster.add_metric([CLUSTER_VERSION.rpartition(".")[0]], 1)
        yield cluster
        yield from self._collect_checks()
        if self._view.calls is not None:
            yield from self._collect_calls(self._view.calls)

    def _counters(self) -> Iterator[tuple[str, str, float]]:
        storage, figures = self._parts.storage, self._parts.service.figures
        tally, slow = storage.watches.tally, storage.timings.apply.count_above(SLOW_APPLY_SECONDS)
        yield "etcd_server_slow_apply", "Entries that took more than 100 ms to apply", slow
        yield "etcd_server_slow_read_indexes", "Confirmations of reads asked for anew", figures.read_rounds_slow
        yield "etcd_server_read_indexes_failed", "Confirmations of reads that failed", figures.read_rounds_failed
        yield "etcd_mvcc_put", "Puts applied", tally.puts
        yield "etcd_mvcc_delete", "Keys deleted", tally.deletes
        yield "etcd_mvcc_txn", "Transactions applied", tally.txns
        yield "etcd_mvcc_range", "Ranges answered, those in transactions not counted", tally.ranges
        yield "etcd_debugging_mvcc_events", "Events sent to watchers", storage.watches.events_delivered
        yield "etcd_debugging_lease_granted", "Leases granted", tally.leases_granted
        yield "etcd_debugging_lease_revoked", "Leases that ended", tally.leases_revoked
        yield "etcd_debugging_lease_renewed", "Leases renewed by this member as leader", figures.leases_renewed
        yield "etcd_debugging_server_lease_expired", "Leases that expired", tally.leases_expired

    def _gauges(self) -> Iterator[tuple[str, str, float]]:
        parts = self._parts
        taking_in = parts.storage.is_replacing
        yield "etcd_server_snapshot_apply_in_progress_total", "1 while a snapshot is put in place", taking_in
        yield "etcd_disk_defrag_inflight", "1 during a defragmentation", parts.defragmentation.is_running
        yield "etcd_disk_wal_write_bytes_total", "Bytes written to the log", parts.journal.written_bytes
        yield "os_fd_used", "Open file descriptors", len(os.listdir("/proc/self/fd"))
        yield "os_fd_limit", "File descriptors that may be open", resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def _collect_checks(self) -> Iterator[Metric]:
        looks = self._view.looks
        last = GaugeMetricFamily("etcd_server_healthcheck", "1: the last look was good", labels=("type", "name"))
        for (kind, name), good in looks.results.items():
            last.add_metric([kind, name], good)
        yield last
        labels = ("type", "name", "status")
        counts = CounterMetricFamily("etcd_server_healthchecks", "Looks by what they found", labels=labels)
        for (kind, name, good), count in looks.counts.items():
            counts.add_metric([kind, name, "success" if good else "error"], count)
        yield counts

    def _collect_calls(self, calls: "CallCounts") -> Iterator[Metric]:
        watch = calls.of(_WATCH)
        open_streams = watch.started - sum(watch.handled)
        yield GaugeMetricFamily("etcd_debugging_mvcc_watch_stream_total", "Open watch streams", value=open_streams)
        received, sent = calls.received_bytes, calls.sent_bytes
        yield CounterMetricFamily("etcd_network_client_grpc_received_bytes", "From gRPC clients", value=received)
        yield CounterMetricFamily("etcd_network_client_grpc_sent_bytes", "To gRPC clients", value=sent)
        labels = ("type", "client_api_version")
        requests = CounterMetricFamily("etcd_server_client_requests", "Calls by version of the client", labels=labels)
        for (is_stream, version), count in calls.requests.items():
            requests.add_metric(["stream" if is_stream else "unary", version], count)
        yield requests

    def _health_text(self) -> bytes:
        """Counters without the ending that the library gives to counters."""
        looks = self._view.looks
        lines: list[str] = []
        _add_family(lines, "etcd_server_health_success", "Answers of /health that were good", [("", looks.healthy)])
        _add_family(lines, "etcd_server_health_failures", "Answers of /health that were not", [("", looks.unhealthy)])
        return "".join(lines).encode()

    def _grpc_text(self) -> bytes:
        calls = self._view.calls
        return grpc_text(calls).encode() if calls is not None else b""


def grpc_text(calls: "CallCounts") -> str:
    """What gRPC servers in Go say of their calls; every code of every method is there, with 0, because ratios are made of them."""
    rows = []
    for path, counts in sorted(calls.methods.items()):
        _, service, method = path.split("/")
        kind = calls.kinds.get(path, "unary")
        rows.append((f'grpc_method="{method}",grpc_service="{service}",grpc_type="{kind}"', counts))
    lines: list[str] = []
    for name, text, read in _GRPC_FAMILIES:
        _add_family(lines, name, text, [(f"{{{labels}}}", read(counts)) for labels, counts in rows])
    handled = [
        (f'{{grpc_code="{code}",{labels}}}', counts.handled[number])
        for labels, counts in rows
        for number, code in enumerate(GRPC_CODES)
    ]
    _add_family(lines, "grpc_server_handled_total", "Calls that ended, by how they ended", handled)
    return "".join(lines)


_GRPC_FAMILIES: Final[tuple[tuple[str, str, Callable[[Any], int]], ...]] = (
    ("grpc_server_started_total", "Calls that began", lambda counts: counts.started),
    ("grpc_server_msg_received_total", "Messages of clients", lambda counts: counts.received),
    ("grpc_server_msg_sent_total", "Messages to clients", lambda counts: counts.sent),
)


def _add_family(lines: list[str], name: str, text: str, samples: list[tuple[str, int]]) -> None:
    """One counter in Prometheus's text format."""
    lines.append(f"# HELP {name} {text}\n# TYPE {name} counter\n")
    lines += [f"{name}{labels} {value}.0\n" for labels, value in samples]


__all__ = ["GRPC_CODES", "EtcdMetrics", "grpc_text"]
