"""Every remote procedure of the etcd API by its path in gRPC, and by its path in the JSON gateway.

A Method is one command and goes over a Desk; a Procedure is opened. Whoever builds a service exports its PROCEDURES and adds a line here.
"""

from typing import Final

from raftkv.daemon.etcd import auth, cluster, election, health, keepalive, lock, maintenance, reflection, watch
from raftkv.daemon.etcd.calls import Procedure
from raftkv.etcd.auth import AUTH_METHODS
from raftkv.etcd.methods import METHODS, Method

LEASE_KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"

_SERVICES: Final[tuple[tuple[Procedure, ...], ...]] = (
    watch.PROCEDURES,
    keepalive.PROCEDURES,
    cluster.PROCEDURES,
    maintenance.PROCEDURES,
    lock.PROCEDURES,
    election.PROCEDURES,
    auth.PROCEDURES,
    health.PROCEDURES,
    reflection.PROCEDURES,
)
_UNARY: Final = tuple(
    method for method in METHODS if method.path != LEASE_KEEP_ALIVE
)  # that one is a stream of such calls

PROCEDURES: Final[dict[str, Method | Procedure]] = {
    **{method.path: method for method in (*_UNARY, *AUTH_METHODS)},
    **{procedure.path: procedure for service in _SERVICES for procedure in service},
}
GATEWAY: Final[dict[str, Method | Procedure]] = {
    path: procedure for procedure in PROCEDURES.values() for path in procedure.gateway
}


def _kind(procedure: Method | Procedure) -> str:
    """In the words of gRPC's metrics."""
    if isinstance(procedure, Method):
        return "unary"
    words = {(True, True): "bidi_stream", (False, True): "server_stream", (True, False): "client_stream"}
    return words.get((procedure.client_streaming, procedure.server_streaming), "unary")


KINDS: Final = {path: _kind(procedure) for path, procedure in PROCEDURES.items()}
