"""Members of the cluster in etcd's words: URLs for addresses, numbers for names, and headers without a revision.

raftkv knows one peer address per member and adds members by name; etcd adds a URL, and learns the name when somebody starts there. A
member without a name is how both meet.
"""

from typing import Any, Final, Iterable, Mapping, Protocol, Sequence
from urllib.parse import urlsplit

from raftkv.etcd.responses import Origin
from raftkv.etcd.statuses import FAILED_PRECONDITION, INVALID_ARGUMENT, Status
from raftkv.etcdpb import rpc_pb2 as rpc

INVALID_URLS: Final = Status(INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
TOO_MANY_LEARNERS: Final = Status(FAILED_PRECONDITION, "etcdserver: too many learner members in cluster")
LEARNERS_MAX: Final = 1  # etcd's default
_SCHEMES: Final = ("http", "https")
_PORT_MAX: Final = 65_535


class MemberTold(Protocol):
    """What is told of a member."""

    @property
    def node_id(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def peer_address(self) -> str: ...

    @property
    def client_address(self) -> str: ...

    @property
    def is_learner(self) -> bool: ...

    @property
    def has_started(self) -> bool: ...


class Schemes(Protocol):
    """How URLs of clients and of peers begin."""

    @property
    def client_scheme(self) -> str: ...

    @property
    def peer_scheme(self) -> str: ...


def peer_address(urls: Sequence[str]) -> str | None:
    """HOST:PORT out of the one URL of a member; None for anything else. That etcd takes several, raftkv cannot offer."""
    if len(urls) != 1:
        return None
    try:
        parts = urlsplit(urls[0].strip())
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname
    if parts.scheme not in _SCHEMES or not host or port is None or not 0 < port <= _PORT_MAX:
        return None
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc or not host.isprintable() or " " in host:
        return None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url(scheme: str, address: str) -> list[str]:
    """As the list that etcd has; empty for an address that is not known."""
    return [f"{scheme}://{address}"] if address else []


def member(told: MemberTold, schemes: Schemes) -> rpc.Member:
    """Name and client URLs are told once the member has started."""
    return rpc.Member(
        ID=told.node_id,
        name=told.name if told.has_started else "",
        peerURLs=url(schemes.peer_scheme, told.peer_address),
        clientURLs=url(schemes.client_scheme, told.client_address) if told.has_started else [],
        isLearner=told.is_learner,
    )


def members(table: Iterable[MemberTold], schemes: Schemes) -> list[rpc.Member]:
    """In the order of their numbers."""
    return [member(told, schemes) for told in sorted(table, key=lambda told: told.node_id)]


def changed_members(answer: Mapping[str, Any], schemes: Schemes) -> list[rpc.Member]:
    """Out of the answer to a CHANGE_MEMBERS: all that there are after it."""
    return [
        rpc.Member(
            ID=row["id"],
            name=row["name"] if row["version"] else "",
            peerURLs=url(schemes.peer_scheme, row["peer_address"]),
            clientURLs=url(schemes.client_scheme, row["address"]) if row["version"] else [],
            isLearner=not row["voter"] and not row["wants_vote"],
        )
        for row in sorted(answer["members"], key=lambda row: row["id"])
    ]


def add_mapping(address: str, *, is_learner: bool) -> dict[str, Any]:
    """CHANGE_MEMBERS for somebody who is known by an address."""
    return {"add": [["", address, is_learner, None]]}


def cluster_header(origin: Origin) -> rpc.ResponseHeader:
    """The header of this service's responses: etcd gives it no revision."""
    return rpc.ResponseHeader(cluster_id=origin.cluster_id, member_id=origin.member_id, raft_term=origin.raft_term)
