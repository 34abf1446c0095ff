"""Cables on loopback: who speaks is known by its socket, a cut keeps bytes back and says nothing, a mended one lets them through."""

import os
import socket
from typing import Iterator

import pytest

from raftkv_jepsen.machines.netns import CLIENTS, NamespacesUnavailable
from raftkv_jepsen.machines.proxies import ProxyNetwork, owner_of_port
from raftkv_jepsen.machines.waiting import wait_until


@pytest.fixture
def network() -> Iterator[ProxyNetwork]:
    network = ProxyNetwork(2)
    yield network
    network.close()


def connected(network: ProxyNetwork) -> tuple[socket.socket, socket.socket]:
    """A client's end and n1's end of one connection through n1's proxy."""
    place = network.places()[0]
    host, port = place.listen.rsplit(":", 1)
    with socket.create_server((host, int(port))) as listener:
        host, port = place.client_endpoint.rsplit(":", 1)
        client = socket.create_connection((host, int(port)), timeout=5)
        listener.settimeout(5)
        server, _ = listener.accept()
    server.settimeout(5)
    return client, server


def nothing_comes(end: socket.socket) -> bool:
    end.settimeout(0.2)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(5)
    return False


def test_a_cut_is_one_way_silent_and_loses_nothing_that_tcp_would_repeat(network: ProxyNetwork) -> None:
    client, server = connected(network)
    with client, server:
        client.sendall(b"a")
        assert server.recv(1) == b"a"
        network.cut("n1", CLIENTS)
        client.sendall(b"b")
        assert server.recv(1) == b"b"
        server.sendall(b"c")
        assert nothing_comes(client)
        network.heal()
        assert client.recv(1) == b"c"


def test_an_end_travels_through(network: ProxyNetwork) -> None:
    client, server = connected(network)
    with server:
        client.close()
        assert server.recv(1) == b""


def test_the_owner_of_a_connection_is_found_by_its_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as end:
            ports = end.getsockname()[1], listener.getsockname()[1]
            assert owner_of_port(*ports, {os.getpid(): "n1"}) == "n1"
            assert owner_of_port(*ports, {}) == ""
        wait_until(lambda: owner_of_port(*ports, {os.getpid(): "n1"}) == "", "the socket to be gone")


def test_only_delay_can_be_had_on_loopback(network: ProxyNetwork, tmp_path: object) -> None:
    with pytest.raises(NamespacesUnavailable, match="below TCP"):
        network.shape("n1", tmp_path, loss=0.1)  # type: ignore[arg-type]
