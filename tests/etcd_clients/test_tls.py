"""Clients over TLS with certificates of their own: what works without works so too, who has none is kept out, and the name in it is a user."""

import subprocess
from pathlib import Path
from typing import Any, Iterator, NamedTuple

import pytest

from raftkv_jepsen.machines.waiting import wait_until

from .environments import LIBRARIES
from .etcdctl import Etcdctl
from .servers import Servers, make_guarded

trustme = pytest.importorskip("trustme", reason="trustme is not installed: pip install 'raftkv[dev]'")

pytestmark = pytest.mark.integration

SECONDS_MAX = 120.0
OTHER_AUTHORITIES = (
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)  # would be believed instead of the one that the client names


class Guarded(NamedTuple):
    """A member, and the files of a client of it that is called ann."""

    servers: Servers
    ca: str
    certificate: str
    key: str

    @property
    def flags(self) -> tuple[str, ...]:
        return (f"--cacert={self.ca}", f"--cert={self.certificate}", f"--key={self.key}")


@pytest.fixture
def guarded(kind: str, tmp_path: Path) -> Iterator[Guarded]:
    authority = trustme.CA()

    def write(name: str, blob: Any) -> str:
        blob.write_to_path(str(tmp_path / name))
        return str(tmp_path / name)

    own = authority.issue_cert("127.0.0.1", "localhost")
    client = authority.issue_cert("ann@example.com", common_name="ann")
    ca = write("ca.pem", authority.cert_pem)
    files = {
        "cert_file": write("own.pem", own.cert_chain_pems[0]),
        "key_file": write("own-key.pem", own.private_key_pem),
        "trusted_ca_file": ca,
    }
    pair = write("ann.pem", client.cert_chain_pems[0]), write("ann-key.pem", client.private_key_pem)
    with make_guarded(kind, files) as servers:
        made = Guarded(servers, ca, *pair)
        servers.nodes[0].start()
        ctl = Etcdctl(servers.endpoints, *made.flags)
        said = lambda: ctl.run("endpoint", "health").stderr[-300:]  # noqa: E731
        wait_until(lambda: ctl.run("endpoint", "health").returncode == 0, "a healthy member", deadline_s=40, seen=said)
        yield made


def test_etcdctl(guarded: Guarded) -> None:
    ctl = Etcdctl(guarded.servers.endpoints, *guarded.flags)
    ctl("put", "k", "v")
    assert ctl("get", "k") == "k\nv\n"
    revision = ctl.json("get", "k")["header"]["revision"]
    with ctl.staying("watch", "k", f"--rev={revision}") as watch:
        assert watch.lines(3) == ["PUT", "k", "v"]
    (member,) = ctl.json("member", "list")["members"]
    assert member["clientURLs"] == [f"https://{guarded.servers.endpoints}"], "clients learn of others by these"


def test_who_has_no_certificate(guarded: Guarded, tmp_path: Path) -> None:
    quick = ("--command-timeout=1s", "--dial-timeout=1s")
    plain = Etcdctl(guarded.servers.endpoints, *quick)
    assert plain.run("get", "k").returncode != 0, "TLS is not a choice"
    nobody = Etcdctl(guarded.servers.endpoints, *quick, f"--cacert={guarded.ca}")
    assert nobody.run("get", "k").returncode != 0
    stranger = trustme.CA().issue_cert("eve@example.com", common_name="ann")
    stranger.cert_chain_pems[0].write_to_path(str(tmp_path / "eve.pem"))
    stranger.private_key_pem.write_to_path(str(tmp_path / "eve-key.pem"))
    files = (f"--cert={tmp_path}/eve.pem", f"--key={tmp_path}/eve-key.pem")
    assert Etcdctl(guarded.servers.endpoints, *quick, f"--cacert={guarded.ca}", *files).run("get", "k").returncode != 0


def test_the_name_in_a_certificate_is_a_user(guarded: Guarded) -> None:
    """Without a password, and a password goes before it."""
    ctl = Etcdctl(guarded.servers.endpoints, *guarded.flags)
    ctl("put", "secret", "v")
    ctl("user", "add", "root:pw")
    ctl("role", "add", "reader")
    ctl("role", "grant-permission", "reader", "readwrite", "open/", "--prefix")
    ctl("user", "add", "ann", "--no-password")
    ctl("user", "grant-role", "ann", "reader")
    ctl("auth", "enable")
    assert ctl("put", "open/k", "v") == "OK\n"
    assert "etcdserver: permission denied" in ctl.refused("get", "secret")
    root = Etcdctl(guarded.servers.endpoints, *guarded.flags, "--user=root:pw")
    assert root("get", "secret") == "secret\nv\n"


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name not in ("aetcd", "rust")])  # those know no TLS
def test_library(guarded: Guarded, library: str) -> None:
    command, environment = LIBRARIES[library]()
    files = {"TLS_CA": guarded.ca, "TLS_CERT": guarded.certificate, "TLS_KEY": guarded.key}
    done = subprocess.run(
        [*command, "check", guarded.servers.endpoints],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        env={name: value for name, value in {**environment, **files}.items() if name not in OTHER_AUTHORITIES},
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
