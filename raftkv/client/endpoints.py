"""Which addresses there are, who is behind them, and which one to prefer. SANS-IO: time is an argument.

A member is found under two kinds of address: the endpoints of the client's own list, and the address that the member advertises through
the cluster. They may differ (published container ports), so an endpoint whose handshake gave a member's id comes first, the
advertised address second. An address that answered badly is put at the back for a while, longer each time, and never
struck off: when all are bad the least bad one is tried. What a single call does with this is decided in retry.py.
"""

from typing import Any, Final, Mapping, NamedTuple, Sequence

from raftkv.errors import ClusterMismatch, ConfigError, RaftKVError
from raftkv.units import NOBODY, NodeId

DEFAULT_PORT: Final = 2379

UNREACHABLE_PENALTY_S: Final = 1.0
UNREACHABLE_PENALTY_S_MAX: Final = 10.0
REFUSAL_PENALTY_S: Final = 1.0
MISMATCH_PENALTY_S: Final = 30.0


def parse_endpoints(endpoints: str | Sequence[str]) -> tuple[str, ...]:
    """ "a:2379,b:2379", or a sequence of such, as addresses in the given order, each once.

    A missing port is 2379; IPv6 addresses stand in brackets; https:// in front asks for TLS (client/tls.py), http:// for none. Raises ConfigError that names the part that is wrong.
    """
    parts = endpoints.split(",") if isinstance(endpoints, str) else [p for e in endpoints for p in e.split(",")]
    addresses = [_normal_address(part.strip()) for part in parts if part.strip()]
    if not addresses:
        raise ConfigError("no endpoint given: expected HOST:PORT, several separated by commas")
    return tuple(dict.fromkeys(addresses))


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[::1]:port"; the host without brackets. Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"endpoint {address!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"endpoint {address!r}: an IPv6 address stands in brackets, as in [::1]:{DEFAULT_PORT}")
    if not host or not host.isprintable() or any(c in host for c in " /@?#"):
        raise ConfigError(f"endpoint {address!r} is not HOST:PORT")
    return host, int(port)


def without_scheme(text: str) -> str:
    """HOST:PORT of https://HOST:PORT. Raises ConfigError for any other scheme."""
    scheme, has_scheme, rest = text.partition("://")
    if not has_scheme:
        return text
    if scheme.lower() not in ("http", "https"):
        raise ConfigError(f"endpoint {text!r} is not HOST:PORT, nor https://HOST:PORT")
    return rest.rstrip("/")


def _normal_address(text: str) -> str:
    text = without_scheme(text)
    bare_host = text.endswith("]") if text.startswith("[") else ":" not in text
    address = f"{text}:{DEFAULT_PORT}" if bare_host else text
    split_address(address)
    return address


class Peer(NamedTuple):
    """A member as hints and handshakes name it."""

    id: NodeId
    name: str
    address: str


def peer_or_none(mapping: Any) -> Peer | None:
    """The member that a mapping {id, name, address} describes; None for anything else (it came off the wire)."""
    if not isinstance(mapping, Mapping):
        return None
    member_id, name, address = mapping.get("id"), mapping.get("name"), mapping.get("address")
    if type(member_id) is not int or member_id == NOBODY or not isinstance(address, str):
        return None
    return Peer(member_id, str(name or ""), address)


class Handshake(NamedTuple):
    """What a member said about itself and the cluster when the connection was opened."""

    member_id: NodeId
    member_name: str
    cluster_id: int
    cluster_name: str
    leader: Peer | None
    members: tuple[Peer, ...]
    version: str
    request_bytes_max: int
    key_bytes_max: int
    value_bytes_max: int
    session_ttl_s: float


class _Health:
    """One address's bad days."""

    __slots__ = ("bad_until", "failures", "unreachable")

    def __init__(self) -> None:
        self.bad_until = 0.0
        self.failures = 0
        self.unreachable = False


class Directory:
    """What one client knows of the cluster. Owned by one client, changed only under its lock or in its loop."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        assert endpoints, "parse_endpoints gives one at least"
        self.endpoints: tuple[str, ...] = tuple(endpoints)
        self.leader_id: NodeId = NOBODY
        self.members: dict[NodeId, Peer] = {}
        self._cluster_id = 0
        self._cluster_name = ""
        self._member_of: dict[str, NodeId] = {}
        self._health: dict[str, _Health] = {}

    # What was learned.

    def on_handshake(self, address: str, handshake: Handshake) -> None:
        """Raises ClusterMismatch when this address belongs to another cluster than the one this client already talks to."""
        if self._cluster_id and handshake.cluster_id and handshake.cluster_id != self._cluster_id:
            raise ClusterMismatch(
                f"{address} belongs to cluster {handshake.cluster_name!r} ({handshake.cluster_id:x}), "
                f"this client talks to cluster {self._cluster_name!r} ({self._cluster_id:x})"
            )
        self._cluster_id = self._cluster_id or handshake.cluster_id
        self._cluster_name = self._cluster_name or handshake.cluster_name
        self._member_of[address] = handshake.member_id
        self._health.pop(address, None)
        self.on_hint(handshake.leader, handshake.members)

    def on_hint(self, leader: Peer | None, members: Sequence[Peer]) -> None:
        """The newest word about leader and members; an absent leader means that an election runs."""
        if members:
            self.members = {peer.id: peer for peer in members}
        if leader is not None and leader.address:
            self.members[leader.id] = leader
        self.leader_id = NOBODY if leader is None else leader.id

    def on_members(self, members: Sequence[Peer]) -> None:
        """A word about the members that says nothing about the leader."""
        if members:
            self.members = {peer.id: peer for peer in members}

    def on_refusal(self, address: str, now: float) -> None:
        """The member is there but cannot serve (no quorum, shutting down): to the back for a while."""
        health = self._health.setdefault(address, _Health())
        health.bad_until, health.unreachable = now + REFUSAL_PENALTY_S, False
        self._forget_leader_at(address)

    def on_unreachable(self, address: str, now: float) -> None:
        """It did not answer, or its connection was lost: to the back, twice as long each time.

        All calls of a lost connection report it; they count once.
        """
        health = self._health.setdefault(address, _Health())
        self._forget_leader_at(address)
        if health.unreachable and now < health.bad_until:
            return
        penalty_s = min(UNREACHABLE_PENALTY_S_MAX, UNREACHABLE_PENALTY_S * 2 ** min(health.failures, 8))
        health.failures += 1
        health.bad_until, health.unreachable = now + penalty_s, True

    def on_mismatch(self, address: str, now: float) -> None:
        """It belongs to another cluster."""
        health = self._health.setdefault(address, _Health())
        health.bad_until, health.unreachable = now + MISMATCH_PENALTY_S, True

    def _forget_leader_at(self, address: str) -> None:
        if self.leader_id != NOBODY and address in self.addresses_of(self.leader_id):
            self.leader_id = NOBODY

    # What follows from it.

    def addresses_of(self, member_id: NodeId) -> list[str]:
        """Where this member can be found, best first."""
        found = [address for address in self.endpoints if self._member_of.get(address) == member_id]
        peer = self.members.get(member_id)
        if peer is not None and peer.address and peer.address not in found:
            found.append(peer.address)
        return found

    def member_at(self, address: str) -> NodeId:
        """Who answered at this address, NOBODY when nobody did yet."""
        return self._member_of.get(address, NOBODY)

    def is_unreachable(self, address: str, now: float) -> bool:
        health = self._health.get(address)
        return health is not None and health.unreachable and now < health.bad_until

    def unmet_endpoints(self, now: float) -> list[str]:
        """Endpoints of the own list that never answered and may yet: any member may be behind them."""
        return [a for a in self.endpoints if a not in self._member_of and not self.is_unreachable(a, now)]

    def candidates(self, now: float) -> list[str]:
        """Every address worth trying, best first: own endpoints, then advertised ones, those in disgrace last."""
        met = {self._member_of[address] for address in self.endpoints if address in self._member_of}
        addresses = list(self.endpoints)
        for peer in self.members.values():
            if peer.id not in met and peer.address and peer.address not in addresses:
                addresses.append(peer.address)
        bad_until = {address: self._bad_until(address, now) for address in addresses}
        return sorted(addresses, key=bad_until.__getitem__)

    def _bad_until(self, address: str, now: float) -> float:
        health = self._health.get(address)
        return health.bad_until if health is not None and health.bad_until > now else 0.0


def hint_of(error: RaftKVError) -> tuple[Peer | None, list[Peer]]:
    """Leader and members that an error carries; it came off the wire, so anything may be in it."""
    members = error.details.get("members")
    peers = [peer_or_none(member) for member in members] if isinstance(members, list) else []
    leader: Any = error.details.get("leader")
    return peer_or_none(leader), [peer for peer in peers if peer is not None]
