"""Who may talk to whom: the judgement over a Hello, sans-IO, the same on both sides of a connection.

A member of another cluster, of another protocol, or one whose disk was replaced must never be heard by the core: its votes
and acknowledgements would be counted. Refusals are texts for operators: they name both sides.
"""

from dataclasses import dataclass
from typing import Callable, Protocol, TypeAlias

from raftkv.transport.frames import PROTOCOL_VERSION, Hello, RoutedMessage
from raftkv.units import NOBODY, NodeId

CheckMember: TypeAlias = Callable[[Hello], str | None]
"""The owner's word on who greets, its id and incarnation above all: None to let it in, else the reason why not."""

REMOVED = "was removed from the cluster"
"""How every refusal of a former member ends: it stops when it reads that."""


class PeerEvents(Protocol):
    """What the owner of a PeerTransport is told. Never called from inside one of the transport's own methods."""

    def on_messages(self, messages: list[RoutedMessage]) -> None:
        """All that one read of a socket brought, in order, from one peer; source and target are checked."""
        ...

    def on_peer_reset(self, node_id: NodeId) -> None:
        """The peer's connection to here ended without a goodbye: its process died, most likely."""
        ...

    def on_peer_connected(self, node_id: NodeId) -> None:
        """From now on messages to the peer are sent."""
        ...

    def on_peer_unreachable(self, node_id: NodeId) -> None:
        """The connection to the peer ended, or messages to it were dropped (once per loop turn)."""
        ...


@dataclass(slots=True, kw_only=True)
class Identity:
    """Who this member is. `cluster_id` is 0 until the first entry of the log was applied."""

    cluster_id: int
    cluster_name: str
    node_id: NodeId
    name: str
    incarnation: int
    version: str
    address: str = ""  # where it listens for peers

    def __post_init__(self) -> None:
        assert self.node_id != NOBODY, "0 means nobody"
        assert self.cluster_id >= 0, "ids are not negative"

    def hello(self) -> Hello:
        return Hello(
            PROTOCOL_VERSION,
            self.cluster_id,
            self.cluster_name,
            self.node_id,
            self.name,
            self.incarnation,
            self.version,
            self.address,
        )


def find_refusal(own: Identity, other: Hello, check_member: CheckMember) -> str | None:
    """Why `other` must not be connected with this member; None when it may."""
    if other.protocol_version != PROTOCOL_VERSION:
        return (
            f"{own.name} (version {own.version}) speaks peer protocol {PROTOCOL_VERSION}, {other.name!r} (version"
            f" {other.version!r}) speaks {other.protocol_version}"
        )
    if other.cluster_name != own.cluster_name:
        return f"{own.name} belongs to cluster {own.cluster_name!r}, {other.name!r} to cluster {other.cluster_name!r}"
    if own.cluster_id and other.cluster_id and other.cluster_id != own.cluster_id:
        return (
            f"both clusters are called {own.cluster_name!r}, but {own.name} belongs to the one with id"
            f" {own.cluster_id:x}, {other.name!r} to {other.cluster_id:x}"
        )
    if other.node_id == NOBODY:
        return f"{other.name!r} gives no member id"
    if other.node_id == own.node_id:
        return f"{other.name!r} and {own.name} both claim to be member {own.node_id:x}"
    return check_member(other)
