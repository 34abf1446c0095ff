"""What /metrics says of logins. Not in metrics.py because it is asked of the authenticator alone."""

from typing import Final, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from raftkv.daemon.authn import Authenticator

OUTCOMES: Final = ("ok", "refused", "turned_away")


class LoginMetrics(Collector):
    """Logins by what became of them, and tokens."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def collect(self) -> Iterator[Metric]:
        authenticator = self._authenticator
        logins = CounterMetricFamily(
            "raftkv_logins",
            "Logins: ok, refused (name or password), turned away (too many waited)",
            labels=("outcome",),
        )
        counts = (authenticator.logins, authenticator.logins_refused, authenticator.logins_turned_away)
        for outcome, count in zip(OUTCOMES, counts, strict=True):
            logins.add_metric([outcome], count)
        yield logins
        yield GaugeMetricFamily("raftkv_tokens", "Tokens that this member knows", value=len(authenticator.tokens))
        for name in ("raftkv_auth_revision", "etcd_debugging_auth_revision"):
            yield GaugeMetricFamily(name, "Revision of users and roles", value=authenticator.auth_revision)
