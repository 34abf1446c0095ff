"""The configuration: precedence, every bad value with its one line, and a page that says what the table says."""

import argparse
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from raftkv.daemon.config import DaemonConfig, add_arguments, load_config
from raftkv.daemon.settings import BY_NAME, SETTINGS, show_size
from raftkv.errors import ConfigError
from raftkv.limits import DEFAULT_LIMITS, Limits

NEEDED = {"name": "n1", "data_dir": "/var/lib/raftkv"}


def parse(*arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return vars(parser.parse_args(arguments))


def load(
    tmp_path: Path, *arguments: str, file: str | None = None, environment: dict[str, str] | None = None
) -> DaemonConfig:
    if file is not None:
        (tmp_path / "raftkv.toml").write_text(file)
    flags = {**NEEDED, **{name: value for name, value in parse(*arguments).items() if value is not None}}
    return load_config(flags, environment or {}, directory=tmp_path)


def refusal(tmp_path: Path, *arguments: str, file: str | None = None, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *arguments, file=file, environment=environment)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_defaults(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config == DaemonConfig(
        name="n1",
        data_dir="/var/lib/raftkv",
        cluster_name="default",
        listen="127.0.0.1:2379",
        listen_peer="127.0.0.1:2380",
        advertise="127.0.0.1:2379",
        advertise_peer="127.0.0.1:2380",
        initial_cluster={},
        join=None,
        join_user=None,
        cert_file=None,
        key_file=None,
        trusted_ca_file=None,
        client_cert_auth=False,
        peer_cert_file=None,
        peer_key_file=None,
        peer_trusted_ca_file=None,
        peer_client_cert_auth=False,
        peer_cert_allowed_cn=None,
        log_level="info",
        log_format="text",
        heartbeat_ms=100,
        election_timeout_ms=1000,
        fast_failover=True,
        lease_reads=False,
        fsync_stall_ms_max=2000,
        snapshot_bytes_per_second_max=64 * 1024 * 1024,
        grpc_keepalive_interval_ms=7_200_000,
        grpc_keepalive_timeout_ms=20_000,
        grpc_keepalive_ms_min=5_000,
        allow_insecure_peers=False,
        priority=0,
        limits=DEFAULT_LIMITS,
    )


def test_every_field_has_a_row_and_every_limit_too() -> None:
    own = {field.name for field in fields(DaemonConfig)} - {"limits"}
    assert set(BY_NAME) == own | {f"limits.{field.name}" for field in fields(Limits)}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_defaults_pass_their_own_reader(setting: Any) -> None:
    if setting.default not in (None, {}):
        assert setting.read(setting.default) == setting.default
        assert setting.read(setting.shown_default) == setting.default
    assert setting.help


def test_flags_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = 'heartbeat_ms = 60\nelection_timeout_ms = 600\nlog_level = "error"\nfast_failover = false'
    environment = {"RAFTKV_HEARTBEAT_MS": "70", "RAFTKV_ELECTION_TIMEOUT_MS": "700", "RAFTKV_LOG_FORMAT": ""}
    config = load(tmp_path, "--heartbeat-ms", "80", file=file, environment=environment)
    assert (config.heartbeat_ms, config.election_timeout_ms) == (80, 700)
    assert (config.log_level, config.log_format, config.fast_failover) == ("error", "text", False)


def test_a_file_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text('log_level = "debug"')
    (tmp_path / "two.toml").write_text('log_level = "error"')
    (tmp_path / "raftkv.toml").write_text('log_level = "warning"')
    two = {"RAFTKV_CONFIG": str(tmp_path / "two.toml")}
    assert load(tmp_path, "--config", str(tmp_path / "one.toml"), environment=two).log_level == "debug"
    assert load(tmp_path, environment=two).log_level == "error"
    assert load(tmp_path).log_level == "warning"


def test_switches_and_limits(tmp_path: Path) -> None:
    file = 'lease_reads = true\n[limits]\nquota_bytes = "2GiB"\nsessions_max = 7\nkey_bytes_max = 100'
    environment = {"RAFTKV_LIMITS_KEY_BYTES_MAX": "1 KiB", "RAFTKV_FAST_FAILOVER": "off"}
    config = load(tmp_path, "--no-lease-reads", file=file, environment=environment)
    assert (config.lease_reads, config.fast_failover) == (False, False)
    assert (config.limits.quota_bytes, config.limits.sessions_max) == (2 << 30, 7)
    assert config.limits.key_bytes_max == 1024
    assert load(tmp_path, "--fast-failover", environment=environment).fast_failover


def test_members_as_text_and_as_table(tmp_path: Path) -> None:
    members = {"n1": "10.0.0.1:2380", "n2": "[::1]:2380"}
    assert load(tmp_path, "--initial-cluster", "n1=10.0.0.1:2380, n2=[::1]:2380,").initial_cluster == members
    file = '[initial_cluster]\nn1 = "10.0.0.1:2380"\nn2 = "[::1]:2380"'
    assert load(tmp_path, file=file).initial_cluster == members


def test_advertised_addresses(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        *("--listen", "0.0.0.0:2379", "--listen-peer", "[::]:2380", "--advertise", "n1:2379"),
        *("--initial-cluster", "n1=n1:2380,n2=n2:2380"),
    )
    assert (config.advertise, config.advertise_peer) == ("n1:2379", "n1:2380")
    config = load(tmp_path, "--advertise-peer", "other:9", "--initial-cluster", "n1=n1:2380")
    assert (config.advertise, config.advertise_peer) == ("127.0.0.1:2379", "other:9")


ADDRESS = "must be HOST:PORT"
POSITIVE = "must be a positive integer"
BAD_VALUES = [
    ("name", "", "must be 1 to 64 letters"),
    ("name", "n 1", "must be 1 to 64 letters"),
    ("name", "-x", "must be 1 to 64 letters"),
    ("name", "n" * 65, "must be 1 to 64 letters"),
    ("data_dir", "a\0b", "must be a path"),
    ("cluster_name", "a=b", "must be 1 to 64 letters"),
    ("listen", "2379", ADDRESS),
    ("listen", ":2379", ADDRESS),
    ("listen", "host:0", "must have a port from 1 to 65535"),
    ("listen", "host:99999", "must end in a port"),
    ("listen", "::1:2379", "must have an IPv6 address in brackets"),
    ("listen_peer", "http://x:1", ADDRESS),
    ("advertise", "n1", ADDRESS),
    ("advertise_peer", "n1:x", "must end in a port"),
    ("initial_cluster", "n1", "must be NAME=HOST:PORT,... and its member n1= is not: it must be HOST:PORT"),
    ("initial_cluster", ",", "must be NAME=HOST:PORT"),
    ("initial_cluster", "n1=a:1,n1=b:1", "n1=b:1 is there twice"),
    ("initial_cluster", "n1=a:1,n2=a:1", "n2=a:1 is there twice"),
    ("initial_cluster", "=a:1", "must be 1 to 64 letters"),
    ("join", "somewhere", ADDRESS),
    ("log_level", "loud", "must be one of debug, info, warning, error"),
    ("log_format", "xml", "must be one of text, json"),
    ("heartbeat_ms", "abc", POSITIVE),
    ("heartbeat_ms", "-5", POSITIVE),
    ("heartbeat_ms", "1.5", POSITIVE),
    ("heartbeat_ms", "²", POSITIVE),
    ("heartbeat_ms", "10", "must be from 25 to 60000"),
    ("election_timeout_ms", "0", POSITIVE),
    ("election_timeout_ms", "9" * 30, POSITIVE),
    ("election_timeout_ms", "250", "must be at least 3 times the heartbeat of 100 ms, is 250"),
    ("fast_failover", "maybe", "must be true or false"),
    ("lease_reads", "2", "must be true or false"),
    ("fsync_stall_ms_max", "soon", POSITIVE),
    ("limits.key_bytes_max", "64KB", "must be a positive number of bytes"),
    ("limits.key_bytes_max", "0", "must be a positive number of bytes"),
    ("limits.sessions_max", "many", POSITIVE),
    ("limits.commit_interval_ms", "-1", POSITIVE),
]


# An empty variable counts as unset; as a flag it is refused.
@pytest.mark.parametrize(("name", "value", "why"), [row for row in BAD_VALUES if row[1]])
def test_a_bad_variable(tmp_path: Path, name: str, value: str, why: str) -> None:
    setting = BY_NAME[name]
    flags = {key: text for key, text in NEEDED.items() if key != name}
    with pytest.raises(ConfigError) as caught:
        load_config(flags, {setting.variable: value}, directory=tmp_path)
    message = caught.value.message
    assert message.startswith(f"{setting.flag} (from {setting.variable}): "), message
    assert why in message
    assert "\n" not in message


@pytest.mark.parametrize(("name", "value", "why"), [row for row in BAD_VALUES if not row[0].startswith("limits.")])
def test_a_bad_flag(tmp_path: Path, name: str, value: str, why: str) -> None:
    setting = BY_NAME[name]
    with pytest.raises(ConfigError) as caught:
        load_config({**NEEDED, name: value}, {}, directory=tmp_path)
    assert caught.value.message.startswith(f"{setting.flag}: ")
    assert why in caught.value.message


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("heartbeat_ms = true", f"--heartbeat-ms (from FILE): {POSITIVE}, is true"),
        ('heartbeat_ms = "abc"', f'--heartbeat-ms (from FILE): {POSITIVE}, is "abc"'),
        ("heartbeat_ms = 1e3", f"--heartbeat-ms (from FILE): {POSITIVE}, is 1000.0"),
        ("name = 7", "--name (from FILE): must be 1 to 64 letters, digits, dots, dashes or underscores, is 7"),
        ("listen = 2379", f"--listen (from FILE): {ADDRESS}, is 2379"),
        ("join = 1979-05-27", f'--join (from FILE): {ADDRESS}, is "1979-05-27"'),
        ("lease_reads = 1", "--lease-reads (from FILE): must be true or false, is 1"),
        ('fast_failover = "line\\nbreak"', '--fast-failover (from FILE): must be true or false, is "line\\nbreak"'),
        ("log_level = []", "--log-level (from FILE): must be one of debug, info, warning, error, is []"),
        ("data_dir = 1", "--data-dir (from FILE): must be a path, is 1"),
        ("initial_cluster = 3", "--initial-cluster (from FILE): must be NAME=HOST:PORT,NAME=HOST:PORT,..., is 3"),
        ("hartbeat_ms = 1", 'FILE: there is no setting "hartbeat_ms", did you mean "heartbeat_ms"?'),
        ("zzz = 1", 'FILE: there is no setting "zzz"'),
        (
            "[limits]\nkey_byte_max = 1",
            'FILE: there is no setting "limits.key_byte_max", did you mean "limits.key_bytes_max"?',
        ),
        ("limits = 3", "FILE: limits must be a table, [limits]"),
        (
            "[limits]\nkey_bytes_max = 1.5",
            "limits.key_bytes_max (from FILE): must be a positive number of bytes, like 1048576, 64KiB, 1MiB or 8GiB, is 1.5",
        ),
        (
            '[limits]\nvalue_bytes_max = "64MiB"',
            "limits do not fit each other: a value fits into a request",
        ),
    ],
)
def test_a_bad_file(tmp_path: Path, file: str, message: str) -> None:
    path = tmp_path / "raftkv.toml"
    path.write_text(file)
    flags = {name: value for name, value in NEEDED.items() if f"{name} =" not in file}
    with pytest.raises(ConfigError) as caught:
        load_config(flags, {}, directory=tmp_path)
    assert caught.value.message == message.replace("FILE", str(path))


@pytest.mark.parametrize("content", [b"name =", b"\xff\xfe", b"a = 1\na = 2", b"[[[[" * 1000, b"x" * (1 << 21)])
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "raftkv.toml").write_bytes(content)
    message = refusal(tmp_path)
    assert "raftkv.toml" in message
    assert len(message) < 500


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    message = refusal(tmp_path, "--config", str(tmp_path / "none.toml"))
    assert message == f'--config: cannot read "{tmp_path}/none.toml": No such file or directory'
    message = refusal(tmp_path, environment={"RAFTKV_CONFIG": str(tmp_path)})
    assert message == f'RAFTKV_CONFIG: cannot read "{tmp_path}": Is a directory'


def test_unknown_variables(tmp_path: Path) -> None:
    load(tmp_path, environment={"RAFTKV_ENDPOINTS": "a:1", "RAFTKV_PORT": "tcp://10.0.0.1:2379"})
    message = refusal(tmp_path, environment={"RAFTKV_LIMITS_KEY_BYTE_MAX": "1"})
    assert message.startswith("RAFTKV_LIMITS_KEY_BYTE_MAX: there is no such limit, did you mean")
    message = refusal(tmp_path, environment={"RAFTKV_QUOTA_BYTES": "1GiB"})
    assert message == "RAFTKV_QUOTA_BYTES: a limit is set by RAFTKV_LIMITS_QUOTA_BYTES"


@pytest.mark.parametrize("missing", ["name", "data_dir"])
def test_required(tmp_path: Path, missing: str) -> None:
    flags = {name: value for name, value in NEEDED.items() if name != missing}
    with pytest.raises(ConfigError, match="is required") as caught:
        load_config(flags, {}, directory=tmp_path)
    assert caught.value.message.startswith(BY_NAME[missing].flag)
    assert BY_NAME[missing].variable in caught.value.message


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "[::]", "[0:0::0]", "0"])
def test_wildcards_need_an_advertised_address(tmp_path: Path, wildcard: str) -> None:
    message = refusal(tmp_path, "--listen", f"{wildcard}:2379")
    assert message.startswith("--advertise: is required (or RAFTKV_ADVERTISE) because --listen is the wildcard")
    message = refusal(tmp_path, "--listen-peer", f"{wildcard}:2380")
    assert message.startswith("--advertise-peer: is required")
    message = refusal(tmp_path, environment={"RAFTKV_ADVERTISE": f"{wildcard}:2379"})
    assert message.startswith("--advertise (from RAFTKV_ADVERTISE): must be an address that others can reach")
    message = refusal(tmp_path, "--initial-cluster", f"n1={wildcard}:2380")
    assert "others can reach" in message


def test_settings_that_contradict_each_other(tmp_path: Path) -> None:
    assert "must differ from --listen" in refusal(tmp_path, "--listen-peer", "127.0.0.1:2379")
    message = refusal(tmp_path, "--join", "n1:2379", "--initial-cluster", "n1=n1:2380")
    assert message == "--join: must not be given together with --initial-cluster"


def test_long_values_are_cut_in_the_message(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, "--log-level", "x" * 10_000)) < 400


def test_sizes_are_shown_as_they_are_read() -> None:
    assert [show_size(number) for number in (1, 1000, 1024, 1536 * 1024, 1 << 36)] == [
        "1",
        "1000",
        "1KiB",
        "1536KiB",
        "64GiB",
    ]


def test_help_names_every_flag_and_variable() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = parser.format_help()
    for setting in SETTINGS:
        if not setting.is_limit:
            assert setting.flag in text
            assert setting.variable in text
            assert setting.shown_default in text


PAGE_ROW = re.compile(r"^\| `([a-z0-9_]+)` \|(.*)\|$", re.MULTILINE)


def page_rows() -> dict[str, list[str]]:
    page = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    settings, limits = page.split("\n## Limits\n")
    rows = {name: [cell.strip() for cell in rest.split("|")] for name, rest in PAGE_ROW.findall(settings)}
    rows |= {f"limits.{name}": [cell.strip() for cell in rest.split("|")] for name, rest in PAGE_ROW.findall(limits)}
    return rows


def test_the_page_has_every_setting_and_no_other() -> None:
    assert set(page_rows()) == set(BY_NAME)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_page_is_true(setting: Any) -> None:
    cells = page_rows()[setting.name]
    default = f"`{setting.shown_default}`" if setting.shown_default else "–"
    if setting.is_limit:
        assert cells == [default, setting.help]
    else:
        flag = f"`{setting.flag}`" + (f", `--no-{setting.flag[2:]}`" if setting.is_switch else "")
        assert cells == [flag, f"`{setting.variable}`", default, setting.help]


def test_the_example_of_the_page_is_accepted(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    (tmp_path / "raftkv.toml").write_text(example)
    config = load_config({}, {}, directory=tmp_path)
    assert config.limits.quota_bytes == 2 << 30
    assert list(config.initial_cluster) == ["n1", "n2", "n3"]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, raftkv.daemon.config;"
        "print([name for name in ('asyncio', 'lmdb', 'aiohttp', 'argparse', 'ssl') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
