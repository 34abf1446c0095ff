"""Addresses: what is read, what is refused, and that both directions agree."""

import pytest

from raftkv.errors import ConfigError
from raftkv.transport.addresses import join_address, split_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:2379", "127.0.0.1", 2379),
        ("n1:2380", "n1", 2380),
        ("[::1]:2379", "::1", 2379),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
        ("0.0.0.0:0", "0.0.0.0", 0),
    ],
)
def test_there_and_back(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)
    assert join_address(host, port) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "n1",
        ":2379",
        "n1:",
        "n1:x",
        "n1:-1",
        "n1:65536",
        "n1:²",
        "::1:2379",
        "[::1]",
        "http://n1:2379",
        "n 1:2",
        "[]:2",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must (be|end|have)"):
        split_address(text)
