"""TLS between members: whose certificate is whose.

Each side shows a certificate that the peer CA vouches for. That alone would let any member speak in the name of another, so the certificate
has to be one of the member that greets: it is for the host at which that member listens for peers, or in the member's own name. Where
certificates say nothing about hosts, one common name for all of them can be demanded instead.
"""

import asyncio

from raftkv.errors import ConfigError
from raftkv.transport.addresses import split_address
from raftkv.transport.tls import TlsContexts, TlsFiles, is_for, names_of


class PeerTls:
    """The certificates of the peer port, and the judgement over those of other members. Raises ConfigError."""

    def __init__(self, files: TlsFiles, allowed_common_name: str | None = None) -> None:
        self.contexts = TlsContexts(files)
        self.allowed_common_name = allowed_common_name

    @property
    def is_mutual(self) -> bool:
        """Whether members authenticate each other."""
        return self.contexts.files.asks_certificate

    def server_name(self, address: str) -> str:
        """The name that the certificate of whoever listens at this address has to be for."""
        return split_address(address)[0]

    def judge(self, transport: asyncio.BaseTransport, name: str, address: str) -> str | None:
        """Why the certificate that a member has shown is not its own; None when it is, or when none is asked for.

        `name` and `address` (for peers) are what the member says of itself.
        """
        if not self.is_mutual:
            return None
        common_name, names = names_of(transport)
        if self.allowed_common_name is not None:
            if common_name == self.allowed_common_name:
                return None
            return f"the certificate of {name!r} is that of {common_name!r}, not of {self.allowed_common_name!r}"
        try:
            host = split_address(address)[0]
        except ConfigError:
            host = ""
        names = names or [common_name]  # very old certificates have nothing else
        if (host and is_for(host, names)) or is_for(name, [*names, common_name]):
            return None
        return f"the certificate of {name!r} is for {', '.join(names) or 'nobody'}, not for {host or 'its host'} or {name!r}"


__all__ = ["PeerTls"]
