"""When a client speaks TLS, and what is refused before it connects."""

from pathlib import Path

import pytest
import trustme

import raftkv
from raftkv.client.tls import Tls, connector
from raftkv.errors import ConfigError


@pytest.mark.parametrize(
    ("tls", "endpoints", "speaks"),
    [
        (None, "a:1,b:2", False),
        (None, "http://a:1", False),
        (None, "https://a:1,https://b:2", True),
        (None, ["https://a:1", "https://b:2"], True),
        (Tls(), "a:1", True),
        (Tls(), "https://a:1", True),
    ],
)
def test_who_speaks_tls(tls: Tls | None, endpoints: str | list[str], speaks: bool) -> None:
    assert (connector(tls, endpoints) is not None) is speaks


@pytest.mark.parametrize(
    ("tls", "endpoints", "told"),
    [
        (None, "https://a:1,b:2", "before all of them, or before none"),
        (None, "https://a:1,http://b:2", "before all of them, or before none"),
        (Tls(), "http://a:1", "has no TLS"),
        (Tls(cert_file="/x"), "a:1", "belong together"),
        (Tls(ca_file="/nowhere/ca.pem"), "a:1", "/nowhere/ca.pem cannot be read"),
    ],
)
def test_what_does_not_fit_together(tls: Tls | None, endpoints: str, told: str) -> None:
    for make in (raftkv.Client, raftkv.connect):
        with pytest.raises(ConfigError, match=told):
            make(endpoints, tls=tls)


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    made = connector(Tls(ca_file=str(path)), "a:1")
    assert made is not None
    with pytest.raises(ConfigError, match=str(path)):
        made.arguments("a")


def test_a_client_goes_on_with_the_next_certificate_and_not_with_a_broken_one(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(ca_file)
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"

    def issue(name: str) -> None:
        issued = ca.issue_cert(name)
        for path, blob in zip(paths, (issued.cert_chain_pems[0], issued.private_key_pem), strict=True):
            blob.write_to_path(path)

    issue("ann")
    made = connector(Tls(str(ca_file), *map(str, paths)), "a:1")
    assert made is not None
    first = made.arguments("a")["ssl"]
    assert made.arguments("a")["ssl"] is first, "made once while nothing changes"
    issue("bob")
    second = made.arguments("a")["ssl"]
    assert second is not first
    paths[1].write_text("half of a file")
    assert made.arguments("a")["ssl"] is second
    issue("eve")
    assert made.arguments("a")["ssl"] is not second
