"""Socket options: a dead network is noticed in seconds, and the kernel's round trip time is read where it has one."""

import socket
import sys

import pytest

from raftkv.transport.settings import LinkSettings, round_trip_seconds, tune_socket

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="these options are Linux's")


@linux_only
def test_a_silent_network_ends_a_connection_in_seconds() -> None:
    with socket.socket() as sock:
        tune_socket(sock, LinkSettings().dead_after_ms)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1


@linux_only
def test_the_round_trip_time_of_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        measured = round_trip_seconds(client)
        assert measured is not None
        assert 0 < measured < 1


@pytest.mark.parametrize(
    "bad", [{"backoff_ms_min": 0}, {"backoff_ms_min": 9, "backoff_ms_max": 8}, {"unauthenticated_connections_max": 0}]
)
def test_settings_that_make_no_sense(bad: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        LinkSettings(**bad)
