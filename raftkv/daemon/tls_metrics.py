"""What /metrics says of this member's own certificates: when they end, and whether new ones were taken."""

from typing import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from raftkv.transport.peer_tls import PeerTls
from raftkv.transport.tls import TlsContexts


class TlsMetrics(Collector):
    """By port: `client`, `peer`. A port that speaks plainly has none."""

    def __init__(self, client: TlsContexts | None, peer: PeerTls | None) -> None:
        ports = {"client": client, "peer": None if peer is None else peer.contexts}
        self._ports = {port: contexts for port, contexts in ports.items() if contexts is not None}

    def collect(self) -> Iterator[Metric]:
        """What is in use: certificates that have been put beside it since are taken first."""
        ends = GaugeMetricFamily(
            "raftkv_certificate_not_after_seconds",
            "When the first certificate of a port's chain ends, in seconds since 1970",
            labels=("port",),
        )
        reloads = CounterMetricFamily(
            "raftkv_certificate_reloads", "Times that new certificates were read", labels=("port", "outcome")
        )
        for port, contexts in self._ports.items():
            contexts.look()
            if contexts.not_after is not None:
                ends.add_metric([port], contexts.not_after)
            reloads.add_metric([port, "ok"], contexts.reloads)
            reloads.add_metric([port, "failed"], contexts.reloads_failed)
        yield ends
        yield reloads
