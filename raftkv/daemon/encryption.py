"""The certificates of a member's two ports, from its settings."""

from typing import Final

from raftkv.daemon.config import DaemonConfig
from raftkv.transport.peer_tls import PeerTls
from raftkv.transport.tls import TlsContexts, TlsFiles

APPLICATION_PROTOCOLS: Final = ("raftkv", "http/1.1", "h2")
"""The first that the client offers too. Who could do either (curl, browsers, Prometheus) wants pages, which HTTP/1.1 has here; gRPC offers `h2` alone."""


def client_tls(config: DaemonConfig) -> TlsContexts | None:
    """The certificates of the client port; None when it speaks plainly. Raises ConfigError."""
    if config.cert_file is None or config.key_file is None:
        return None
    # As etcd: whoever names a CA means that clients have to show a certificate of it, said twice or not.
    asks = config.client_cert_auth or config.trusted_ca_file is not None
    return TlsContexts(TlsFiles(config.cert_file, config.key_file, config.trusted_ca_file, asks), APPLICATION_PROTOCOLS)


def peer_tls(config: DaemonConfig) -> PeerTls | None:
    """The certificates of the peer port; None when it speaks plainly. Raises ConfigError."""
    if config.peer_cert_file is None or config.peer_key_file is None:
        return None
    asks = config.peer_client_cert_auth or config.peer_trusted_ca_file is not None
    files = TlsFiles(config.peer_cert_file, config.peer_key_file, config.peer_trusted_ca_file, asks)
    return PeerTls(files, config.peer_cert_allowed_cn)


def schemes(config: DaemonConfig) -> tuple[str, str]:
    """How URLs of the client port and of the peer port begin: etcd's clients go to other members by what a list of members says."""
    secure = (config.cert_file is not None, config.peer_cert_file is not None)
    client, peer = ("https" if is_secure else "http" for is_secure in secure)
    return client, peer
