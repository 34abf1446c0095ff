"""The front doors of a member, put together: which protocols its client port speaks, and what each of them is given.

The doors for clients of etcd need the extra `raftkv[etcd]`; without it the client port speaks the native protocol and HTTP/1.1, and says so
to whoever asks for HTTP/2.
"""

from typing import TYPE_CHECKING

from raftkv.daemon.api.controls import MemberControl
from raftkv.daemon.api.gate import make_judge
from raftkv.daemon.api.http import ChangeMembers, build_http_server
from raftkv.daemon.api.native import NativeConnection
from raftkv.daemon.config import DaemonConfig
from raftkv.daemon.encryption import client_tls, schemes
from raftkv.daemon.mux import ClientPort, Http2Door
from raftkv.daemon.view import View
from raftkv.replica.service import Service
from raftkv.transport.tls import names_of

if TYPE_CHECKING:
    from raftkv.daemon.api.gateway import Gateway
    from raftkv.daemon.etcd.house import House

LEADER_WAITS = 3  # election timeouts that a stream which wants a leader goes on without one
ETCD_REQUEST_TIMEOUT_MS = 5_000  # and two election timeouts, as in etcd


def build_client_port(
    service: Service, member: MemberControl, view: View, config: DaemonConfig, change_members: ChangeMembers
) -> ClientPort:
    """The client port with all its doors, not listening yet."""
    view.client_scheme, view.peer_scheme = schemes(config)
    house = build_etcd_house(service, member, view, config)
    gateway = build_gateway(house) if house is not None else None
    http = build_http_server(view, change_members, make_judge(member.authenticator, service), gateway)
    return ClientPort(
        lambda: NativeConnection(service, member, config.limits),
        http,
        config.limits,
        http2_door=None if house is None else build_grpc_door(house, config),
        tls=client_tls(config),
    )


def build_grpc_door(house: "House", config: DaemonConfig) -> Http2Door:
    """The door for etcd's clients."""
    from raftkv.daemon.api.grpc_door import GrpcDoor
    from raftkv.daemon.api.grpc_pulse import Pulse

    pulse = Pulse(config.grpc_keepalive_interval_ms, config.grpc_keepalive_timeout_ms, config.grpc_keepalive_ms_min)
    return GrpcDoor(house, LEADER_WAITS * config.election_timeout_ms, lambda transport: names_of(transport)[0], pulse)


def build_etcd_house(service: Service, member: MemberControl, view: View, config: DaemonConfig) -> "House | None":
    """What the etcd API needs of this member; None when the extra `etcd` is not installed."""
    try:
        from raftkv.daemon.etcd.callers import authenticate_with
        from raftkv.daemon.etcd.counting import CallCounts
        from raftkv.daemon.etcd.house import House
        from raftkv.daemon.etcd.procedures import KINDS, PROCEDURES
    except ImportError:
        return None
    timeout_ms = ETCD_REQUEST_TIMEOUT_MS + 2 * config.election_timeout_ms
    house = House(service, member, view, config.limits, timeout_ms, CallCounts(PROCEDURES))
    house.calls.kinds = KINDS
    view.calls = house.calls
    view.client_scheme = "https" if config.cert_file else "http"
    view.peer_scheme = "https" if config.peer_cert_file else "http"
    house.authenticate = authenticate_with(member.authenticator)
    return house


def build_gateway(house: "House") -> "Gateway":
    """The JSON gateway of the etcd API."""
    from raftkv.daemon.api import gateway_streams
    from raftkv.daemon.api.gateway import Gateway
    from raftkv.daemon.etcd.procedures import GATEWAY

    return Gateway(house, GATEWAY, gateway_streams)
