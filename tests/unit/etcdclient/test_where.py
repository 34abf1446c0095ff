"""etcd:// endpoints, what a failed call of etcd means, and what is told to whoever lacks gRPC."""

import subprocess
import sys

import pytest

import raftkv
from raftkv.errors import ConfigError, all_codes
from raftkv.etcdclient import failures
from raftkv.etcdclient.failures import Outcome, judge
from raftkv.etcdclient.where import parse
from raftkv_cli.settings import checked_endpoints


@pytest.mark.parametrize(
    ("endpoints", "addresses", "encrypted"),
    [
        ("etcd://a:1", ("a:1",), False),
        ("etcd://a:1,b:2", ("a:1", "b:2"), False),
        ("etcd://a,etcd://[::1]:5/", ("a:2379", "[::1]:5"), False),
        (["ETCDS://a:1", "b"], ("a:1", "b:2379"), True),
    ],
)
def test_endpoints(endpoints: str, addresses: tuple[str, ...], encrypted: bool) -> None:
    where = parse(endpoints, None)
    assert (where.addresses, where.tls is not None) == (addresses, encrypted)


@pytest.mark.parametrize(
    "endpoints",
    ["etcd://", "etcd://a:x", "etcd://a:1,etcds://b:1", "etcd://a:1,https://b:1", "etcd://a:1,b:0", "etcd://a/b"],
)
def test_bad_endpoints(endpoints: str) -> None:
    with pytest.raises(ConfigError):
        raftkv.Client(endpoints)
    with pytest.raises(ConfigError):
        raftkv.connect(endpoints)
    with pytest.raises(ValueError, match="--endpoints"):
        checked_endpoints(endpoints, "--endpoints")


def test_what_cannot_be_had_is_said() -> None:
    for options in (
        {"tls": raftkv.Tls(verify=False)},
        {"cluster_name": "prod"},
        {"tls": raftkv.Tls(ca_file="/no/such")},
    ):
        with pytest.raises(ConfigError):
            raftkv.Client("etcds://a:1", **options)  # type: ignore[arg-type]


def test_the_command_line_keeps_the_scheme() -> None:
    assert checked_endpoints("etcds://a:1,b", "x") == ("etcds://a:1", "etcds://b:2379")


@pytest.mark.parametrize(
    ("number", "text", "code", "outcome"),
    [
        (14, "etcdserver: no leader", "no_quorum", Outcome.PASSING),
        (14, "etcdserver: server stopped", "shutting_down", Outcome.UNCERTAIN),
        (14, "etcdserver: request timed out", "unreachable", Outcome.UNCERTAIN),
        (14, "etcdserver: leader changed", "unreachable", Outcome.UNCERTAIN),
        (14, "Socket closed", "unreachable", Outcome.UNCERTAIN),
        (
            14,
            "failed to connect to all addresses; last error: x: Connection refused (111)",
            "unreachable",
            Outcome.PASSING,
        ),
        (4, "Deadline Exceeded", "unreachable", Outcome.UNCERTAIN),
        (1, "", "unreachable", Outcome.UNCERTAIN),
        (5, "etcdserver: requested lease not found", "lease_not_found", Outcome.FINAL),
        (16, "etcdserver: invalid auth token", "invalid_auth_token", Outcome.LOGIN),
        (3, "etcdserver: something new", "invalid_request", Outcome.FINAL),
        (8, "trying to send message larger than max (3 vs. 2)", "request_too_large", Outcome.FINAL),
        (2, "auth: authentication failed, password was given for no password user", "no_password_user", Outcome.FINAL),
        (12, "unknown service", "unsupported", Outcome.FINAL),
    ],
)
def test_failures(number: int, text: str, code: str, outcome: Outcome) -> None:
    failure = judge(number, text)
    assert (failure.error.code, failure.outcome) == (code, outcome)


def test_every_code_in_the_tables_is_one() -> None:
    for table in (failures._TEXTS, failures._LOGIN, failures._NOT_DONE):
        assert set(table.values()) <= set(all_codes())


def test_whoever_lacks_grpc_is_told_what_to_install() -> None:
    program = """
import sys
sys.modules["grpc"] = None
import raftkv
for make in (raftkv.Client, raftkv.connect):
    try:
        make("etcd://a:1")
    except raftkv.RaftKVError as error:
        assert error.code == "missing_extra", error
        assert "pip install 'raftkv[etcd]'" in error.message, error
    else:
        raise SystemExit("made")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
