"""gRPC to one member: options, TLS, and what goes along with every call."""

from pathlib import Path
from typing import Any, Final

import grpc

from raftkv.client.tls import Tls
from raftkv.errors import ConfigError
from raftkv.etcdclient.rpcs import Rpc

OPTIONS: Final = [
    ("grpc.max_receive_message_length", -1),  # a range of etcd is one message, whatever its size
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),  # course.py has its own pauses
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 6000),  # etcd hangs up on who asks for signs of life more often than every 5 s
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.enable_retries", 0),  # what may be repeated is known here
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a client that is closed has hung up
]


def options(tls: Tls | None) -> list[tuple[str, Any]]:
    if tls is None or tls.server_name is None:
        return OPTIONS
    return [*OPTIONS, ("grpc.ssl_target_name_override", tls.server_name)]


def credentials(tls: Tls) -> Any:
    """Raises ConfigError that names the file which cannot be used."""
    ca_file = tls.ca_file or _system_cas()
    try:
        roots, key, certificate = (Path(p).read_bytes() if p else None for p in (ca_file, tls.key_file, tls.cert_file))
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    return grpc.ssl_channel_credentials(roots, key, certificate)


def _system_cas() -> str | None:
    """Those that Python believes; gRPC has a list of its own, which it takes where there are none."""
    import ssl

    return ssl.get_default_verify_paths().cafile


def metadata(rpc: Rpc, token: str) -> list[tuple[str, str]]:
    """A member that knows no leader refuses at once instead of waiting for one."""
    pairs = [] if rpc.leaderless else [("hasleader", "true")]
    return [*pairs, ("token", token)] if token else pairs


def status_of(error: Any) -> tuple[int, str]:
    """Number and text of a failed call."""
    return int(error.code().value[0]), str(error.details() or "")


def serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
