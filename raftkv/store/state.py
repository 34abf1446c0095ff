"""What apply works on: everything that is replicated, and where in the log it stands."""

from typing import Any

from raftkv.store.access import Access
from raftkv.store.auth import Auth
from raftkv.store.members import Cluster
from raftkv.store.mvcc import Mvcc
from raftkv.store.pools import Pools
from raftkv.store.sessions import Sessions
from raftkv.units import Index, Milliseconds, Term
from raftkv.wire.validate import plain_value_bytes_max


class State:
    """What a batch works on. `effects` are packed changes, beside those of `mvcc.events`, that the digest has to fold.

    `index` and `term` are those of the entry being applied, `draws` counts what was drawn from them. `is_guarded`: authentication is on,
    and every command of a client is judged by `access`.
    """

    __slots__ = (
        "access",
        "auth",
        "auth_revision",
        "clock_ms",
        "cluster",
        "cluster_changed",
        "draws",
        "effects",
        "fast_value_bytes_max",
        "index",
        "is_guarded",
        "key_bytes_max",
        "mvcc",
        "pools",
        "sessions",
        "term",
        "user",
    )

    def __init__(
        self, mvcc: Mvcc, sessions: Sessions, cluster: Cluster, auth: Auth, pools: Pools, clock_ms: Milliseconds
    ) -> None:
        self.mvcc = mvcc
        self.sessions = sessions
        self.cluster = cluster
        self.auth = auth
        self.pools = pools
        self.access = Access(auth, mvcc.leases)
        self.is_guarded = auth.enabled
        self.user: Any = None  # whose group is being applied
        self.auth_revision: Any = 0
        self.clock_ms = clock_ms
        self.index: Index = 0
        self.term: Term = 0
        self.draws = 0
        self.effects: list[bytes] = []
        self.cluster_changed = False
        self.key_bytes_max = self.fast_value_bytes_max = 0
        self._adopt_settings()

    def change_cluster(self) -> None:
        """The cluster record has changed: commit it, fold it, obey its settings."""
        self.cluster_changed = True
        self.effects.append(self.cluster.pack())
        self._adopt_settings()

    def _adopt_settings(self) -> None:
        settings = self.cluster.settings
        self.key_bytes_max = settings.key_bytes_max
        self.fast_value_bytes_max = plain_value_bytes_max(settings)
        self.mvcc.leases.keys_max = settings.lease_keys_max
