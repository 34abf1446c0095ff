"""Times and bounds of the connections between members that are not part of raftkv/limits.py, and the socket options.

Injectable, so that tests meet every deadline within milliseconds. The defaults fit the default election timeout of 1 to 2 s:
a connection through a network that drops packets is given up a little after the leader on its far side was.
"""

import socket
from dataclasses import dataclass

from raftkv.limits import MIB
from raftkv.units import Milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """How patient a member is with its peers."""

    connect_timeout_ms: Milliseconds = 1_000
    handshake_deadline_ms: Milliseconds = 2_000
    backoff_ms_min: Milliseconds = 50
    backoff_ms_max: Milliseconds = 1_000
    dead_after_ms: Milliseconds = 3_000  # without any progress of what was sent; also when a peer does not read
    unauthenticated_connections_max: int = 64  # over it: accepted and closed at once
    write_buffer_bytes_high: int = 1 * MIB  # over it: messages wait in the queue of limits.peer_send_queue_bytes_max

    def __post_init__(self) -> None:
        assert 0 < self.backoff_ms_min <= self.backoff_ms_max, "the backoff grows"
        assert self.unauthenticated_connections_max > 0, "somebody must be able to connect"


def tune_socket(sock: socket.socket, dead_after_ms: Milliseconds) -> None:
    """No delays, and an end for a connection whose other side has silently gone (Linux; elsewhere what there is)."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Keep-alive watches the receiving side, TCP_USER_TIMEOUT the sending side: retransmission alone gives up after 15 minutes.
    for option, value in (
        ("TCP_KEEPIDLE", max(1, dead_after_ms // 2000)),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", dead_after_ms),
    ):
        number: int | None = getattr(socket, option, None)
        if number is not None:
            sock.setsockopt(socket.IPPROTO_TCP, number, value)


def round_trip_seconds(sock: socket.socket) -> float | None:
    """The kernel's smoothed round trip time of a connection (Linux: tcpi_rtt of TCP_INFO); None where it has none."""
    option: int | None = getattr(socket, "TCP_INFO", None)
    if option is None:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, option, 72)
    except OSError:
        return None
    return int.from_bytes(info[68:72], "little" if _LITTLE_ENDIAN else "big") / 1e6 if len(info) == 72 else None


_LITTLE_ENDIAN = socket.htons(1) != 1
