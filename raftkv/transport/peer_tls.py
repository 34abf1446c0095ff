"""TLS between members: whose certificate is whose.

Each side shows a certificate that the peer CA vouches for. That alone would let any member speak in the name of another, so the certificate
has to be one of the member that greets: it is for the host at which that member listens for peers, or in the member's own name. What a member
says of its host counts only where nobody else is known to be there: it may have moved, but one member's key must not open another's place. Where
certificates say nothing about hosts, one common name for all of them can be demanded instead.
"""

import asyncio
from typing import Callable, Mapping

from raftkv.errors import ConfigError
from raftkv.transport.addresses import split_address
from raftkv.transport.tls import TlsContexts, TlsFiles, is_for, names_of
from raftkv.units import NodeId


class PeerTls:
    """The certificates of the peer port, and the judgement over those of other members. Raises ConfigError."""

    def __init__(self, files: TlsFiles, allowed_common_name: str | None = None) -> None:
        self.contexts = TlsContexts(files)
        self.allowed_common_name = allowed_common_name
        self.known: Callable[[], Mapping[NodeId, tuple[str, str]]] = dict
        """Name and peer address of every member, as the cluster has written them down; whoever has the records sets it."""

    @property
    def is_mutual(self) -> bool:
        """Whether members authenticate each other."""
        return self.contexts.files.asks_certificate

    def server_name(self, address: str) -> str:
        """The name that the certificate of whoever listens at this address has to be for."""
        return split_address(address)[0]

    def judge(self, transport: asyncio.BaseTransport, node_id: NodeId, name: str, address: str) -> str | None:
        """Why the certificate that a member has shown is not its own; None when it is, or when none is asked for.

        `node_id`, `name` and `address` (for peers) are what the member says of itself.
        """
        if not self.is_mutual:
            return None
        common_name, names = names_of(transport)
        if self.allowed_common_name is not None:
            if common_name == self.allowed_common_name:
                return None
            return f"the certificate of {name!r} is that of {common_name!r}, not of {self.allowed_common_name!r}"
        names = names or [common_name]  # very old certificates have nothing else
        known = dict(self.known())
        recorded_name, recorded_address = known.pop(node_id, (name, ""))
        if _is_of(recorded_name, recorded_address, common_name, names):
            return None
        for other_name, other_address in known.values():
            if _is_of(other_name, other_address, common_name, names):
                return f"the certificate that {name!r} shows is that of {other_name!r}: it is for {', '.join(names)}"
        if _is_of(recorded_name, address, common_name, names):
            return None
        host = _host_of(address) or "its host"
        return f"the certificate of {name!r} is for {', '.join(names) or 'nobody'}, not for {host} or {recorded_name!r}"


def _is_of(name: str, address: str, common_name: str, names: list[str]) -> bool:
    """Whether a certificate is one of the member with this name at this address."""
    host = _host_of(address)
    return (host != "" and is_for(host, names)) or is_for(name, [*names, common_name])


def _host_of(address: str) -> str:
    try:
        return split_address(address)[0]
    except ConfigError:
        return ""


__all__ = ["PeerTls"]
