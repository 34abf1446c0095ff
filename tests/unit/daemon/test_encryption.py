"""Settings become certificates: naming a CA is asking for certificates of it, as etcd's operators know it."""

from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from raftkv.daemon.config import DaemonConfig, load_config
from raftkv.daemon.encryption import client_tls, peer_tls


@pytest.fixture
def config(tmp_path: Path) -> DaemonConfig:
    return load_config({"name": "n1", "data_dir": str(tmp_path)}, {}, directory=tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    """Certificate, key, CA."""
    ca = trustme.CA()
    issued = ca.issue_cert("localhost")
    paths = tuple(str(tmp_path / name) for name in ("cert.pem", "key.pem", "ca.pem"))
    for path, blob in zip(paths, (issued.cert_chain_pems[0], issued.private_key_pem, ca.cert_pem), strict=True):
        blob.write_to_path(path)
    return paths  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("names_ca", "asks", "expected"), [(False, False, False), (True, False, True), (True, True, True)]
)
def test_who_names_a_ca_asks_for_its_certificates(
    config: DaemonConfig, files: tuple[str, str, str], names_ca: bool, asks: bool, expected: bool
) -> None:
    cert, key, ca = files
    named = ca if names_ca else None
    client = client_tls(replace(config, cert_file=cert, key_file=key, trusted_ca_file=named, client_cert_auth=asks))
    peer = peer_tls(
        replace(config, peer_cert_file=cert, peer_key_file=key, peer_trusted_ca_file=named, peer_client_cert_auth=asks)
    )
    assert client is not None
    assert peer is not None
    assert client.files.asks_certificate is expected
    assert peer.is_mutual is expected


def test_without_a_certificate_ports_speak_plainly(config: DaemonConfig) -> None:
    assert client_tls(config) is None
    assert peer_tls(config) is None
