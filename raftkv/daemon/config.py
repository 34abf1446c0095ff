"""The configuration of one member: flags over environment over file over defaults, checked before anything starts.

Every refusal is one line that says what, where it came from and why: `--heartbeat-ms (from RAFTKV_HEARTBEAT_MS): must be a
positive integer, is "abc"`. The rows are in daemon/settings.py. Nothing here may import asyncio, lmdb or aiohttp: the
command line loads this module to parse `raftkv serve`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Mapping

from raftkv.daemon.settings import BY_NAME, LIMITS_PREFIX, SETTINGS, Setting
from raftkv.errors import ConfigError
from raftkv.limits import Limits
from raftkv.transport.addresses import split_address
from raftkv.units import Milliseconds

if TYPE_CHECKING:
    import argparse

DEFAULT_FILE = "raftkv.toml"
CONFIG_VARIABLE = "RAFTKV_CONFIG"
FILE_BYTES_MAX = 1 << 20
HEARTBEATS_PER_ELECTION_TIMEOUT_MIN = 3

_SHOWN_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """Checked settings of one member. Addresses are "host:port" texts, resolved when they are used."""

    name: str
    data_dir: str
    cluster_name: str
    listen: str
    listen_peer: str
    advertise: str
    advertise_peer: str
    initial_cluster: Mapping[str, str]  # member name -> peer address; empty when it was not given
    join: str | None
    join_user: str | None
    cert_file: str | None
    key_file: str | None
    trusted_ca_file: str | None
    client_cert_auth: bool
    peer_cert_file: str | None
    peer_key_file: str | None
    peer_trusted_ca_file: str | None
    peer_client_cert_auth: bool
    peer_cert_allowed_cn: str | None
    log_level: str
    log_format: str
    heartbeat_ms: Milliseconds
    election_timeout_ms: Milliseconds
    fast_failover: bool
    lease_reads: bool
    fsync_stall_ms_max: Milliseconds
    snapshot_bytes_per_second_max: int  # 0: no bound
    grpc_keepalive_interval_ms: Milliseconds
    grpc_keepalive_timeout_ms: Milliseconds
    grpc_keepalive_ms_min: Milliseconds
    allow_insecure_peers: bool
    priority: int  # to lead; the higher the better
    limits: Limits


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as somebody wrote it, and where: "" for a flag, else the variable or the file."""

    value: Any
    source: str


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add --config and one flag per setting. Values arrive as text: load_config reads and checks them."""
    parser.add_argument(
        "--config", metavar="FILE", help=f"TOML file with settings (default: ./{DEFAULT_FILE} if it exists)"
    )
    for setting in SETTINGS:
        if setting.is_limit:
            continue
        default = f"default: {setting.shown_default}; " if setting.shown_default else ""
        text = f"{setting.help} ({default}{setting.variable})".replace("%", "%%")
        if setting.is_switch:
            parser.add_argument(setting.flag, dest=setting.name, action="store_const", const="true", help=text)
            opposite = f"--no-{setting.flag[2:]}"
            parser.add_argument(opposite, dest=setting.name, action="store_const", const="false", help="the opposite")
        else:
            parser.add_argument(setting.flag, dest=setting.name, metavar=setting.metavar, help=text)


def load_config(
    flags: Mapping[str, Any], environment: Mapping[str, str], *, directory: Path | None = None
) -> DaemonConfig:
    """The configuration of this run. Raises ConfigError with one line.

    `flags` is vars() of the parsed arguments (None: not given), `directory` where raftkv.toml is looked for.
    """
    given: dict[str, _Given] = {}
    path, path_source = _find_file(flags, environment, directory or Path())
    if path is not None:
        given.update(_read_file(path, path_source))
    given.update(_read_environment(environment))
    given.update({s.name: _Given(flags[s.name], "") for s in SETTINGS if flags.get(s.name) is not None})
    values = {
        setting.name: _read(setting, given[setting.name]) if setting.name in given else setting.default
        for setting in SETTINGS
    }
    for required in ("name", "data_dir"):
        if values[required] is None:
            setting = BY_NAME[required]
            raise ConfigError(f"{setting.flag}: is required (or {setting.variable}, or {required} in {DEFAULT_FILE})")
    _fill_advertised(values, given)
    _check_together(values, given)
    limits = _make_limits(values)
    own = {name: value for name, value in values.items() if not name.startswith(LIMITS_PREFIX)}
    return DaemonConfig(**own, limits=limits)


# Where values come from.


def _find_file(flags: Mapping[str, Any], environment: Mapping[str, str], directory: Path) -> tuple[Path | None, str]:
    """The file and how messages call its origin; a file that was asked for has to exist."""
    if flags.get("config") is not None:
        return Path(flags["config"]), "--config"
    if environment.get(CONFIG_VARIABLE):
        return Path(environment[CONFIG_VARIABLE]), CONFIG_VARIABLE
    default = directory / DEFAULT_FILE
    return (default, DEFAULT_FILE) if default.is_file() else (None, "")


def _read_file(path: Path, source: str) -> dict[str, _Given]:
    import tomllib  # a fraction of a millisecond that only a file costs

    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{source}: cannot read {_show(str(path))}: {getattr(error, 'strerror', None) or error}"
        ) from None
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"{source}: {_show(str(path))} is no configuration: it is larger than {FILE_BYTES_MAX} bytes")
    try:
        table = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not TOML: {' '.join(str(error).split())}") from None
    limits = table.pop("limits", {})
    if not isinstance(limits, dict):
        raise ConfigError(f"{path}: limits must be a table, [limits]")
    flat = {**table, **{LIMITS_PREFIX + name: value for name, value in limits.items()}}
    for name in flat:
        if name not in BY_NAME:
            raise ConfigError(f"{path}: there is no setting {_show(name)}{_nearest(name, list(BY_NAME))}")
    return {name: _Given(value, str(path)) for name, value in flat.items()}


def _read_environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    """An empty variable counts as unset, as docker-compose files leave it.

    Other variables that begin with RAFTKV_ belong to the command line, or to an orchestrator that makes its own.
    """
    variables = {setting.variable: setting.name for setting in SETTINGS}
    for variable in environment:
        if variable.startswith("RAFTKV_LIMITS_") and variable not in variables:
            raise ConfigError(f"{variable}: there is no such limit{_nearest(variable, list(variables))}")
        meant = variable.replace("RAFTKV_", "RAFTKV_LIMITS_", 1)
        if variable not in variables and meant in variables:
            raise ConfigError(f"{variable}: a limit is set by {meant}")
    return {
        name: _Given(environment[variable], variable)
        for variable, name in variables.items()
        if environment.get(variable)
    }


def _read(setting: Setting, given: _Given) -> Any:
    try:
        return setting.read(given.value)
    except ValueError as error:
        raise ConfigError(f"{_label(setting, given)}: {error}, is {_show(given.value)}") from None


# What values mean together.


def _fill_advertised(values: dict[str, Any], given: Mapping[str, _Given]) -> None:
    """Advertised addresses that were not given; a wildcard can be listened on, but nobody can be sent to it."""
    if values["advertise_peer"] is None:
        values["advertise_peer"] = values["initial_cluster"].get(values["name"])
    for name, listen in (("advertise", "listen"), ("advertise_peer", "listen_peer")):
        setting = BY_NAME[name]
        if values[name] is None:
            if _is_wildcard(values[listen]):
                raise ConfigError(
                    f"{setting.flag}: is required (or {setting.variable}) because {BY_NAME[listen].flag} is the"
                    f" wildcard {values[listen]}: say where others reach this member"
                )
            values[name] = values[listen]
        elif _is_wildcard(values[name]):
            label = _label(setting, given.get(name, _Given(None, BY_NAME["initial_cluster"].flag)))
            raise ConfigError(f'{label}: must be an address that others can reach, is "{values[name]}"')


def _check_together(values: Mapping[str, Any], given: Mapping[str, _Given]) -> None:
    def label(name: str) -> str:
        return _label(BY_NAME[name], given.get(name))

    heartbeat_ms, timeout_ms = values["heartbeat_ms"], values["election_timeout_ms"]
    if timeout_ms < HEARTBEATS_PER_ELECTION_TIMEOUT_MIN * heartbeat_ms:
        raise ConfigError(
            f"{label('election_timeout_ms')}: must be at least {HEARTBEATS_PER_ELECTION_TIMEOUT_MIN} times the heartbeat"
            f" of {heartbeat_ms} ms, is {timeout_ms}"
        )
    if values["listen"] == values["listen_peer"]:
        raise ConfigError(f'{label("listen_peer")}: must differ from --listen, is "{values["listen_peer"]}" too')
    if values["join"] is not None and values["initial_cluster"]:
        raise ConfigError(f"{label('join')}: must not be given together with --initial-cluster")
    _check_tls(values, label, "")
    _check_tls(values, label, "peer_")


def _check_tls(values: Mapping[str, Any], label: Callable[[str], str], port: str) -> None:
    """Certificate and key belong together, and the rest means nothing without them."""
    cert, key, ca, asks = f"{port}cert_file", f"{port}key_file", f"{port}trusted_ca_file", f"{port}client_cert_auth"
    if (values[cert] is None) != (values[key] is None):
        given, missing = (cert, key) if values[key] is None else (key, cert)
        raise ConfigError(f"{label(given)}: is of no use without {BY_NAME[missing].flag}")
    if values[asks] and values[cert] is None:
        raise ConfigError(f"{label(asks)}: is of no use without {BY_NAME[cert].flag}")
    if values[asks] and values[ca] is None:
        raise ConfigError(
            f"{label(asks)}: is of no use without {BY_NAME[ca].flag}: whose certificates would be believed?"
        )
    if port and values["peer_cert_allowed_cn"] is not None and not values[asks]:
        raise ConfigError(f"{label('peer_cert_allowed_cn')}: is of no use without {BY_NAME[asks].flag}")


def _make_limits(values: Mapping[str, Any]) -> Limits:
    chosen = {
        name.removeprefix(LIMITS_PREFIX): value for name, value in values.items() if name.startswith(LIMITS_PREFIX)
    }
    try:
        return Limits(**chosen)
    except AssertionError as error:
        # Limits checks how its bounds fit each other: from here that is bad input, not a bug.
        raise ConfigError(f"limits do not fit each other: {error}") from None


def _is_wildcard(address: str) -> bool:
    import ipaddress  # not needed by the command line's other verbs

    host = split_address(address)[0]
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host in ("0", "*")  # what the resolver also takes for "everywhere"


# How messages put it.


def _label(setting: Setting, given: _Given | None) -> str:
    return f"{setting.flag} (from {given.source})" if given is not None and given.source else setting.flag


def _show(value: Any) -> str:
    """On one line, whatever it is, and not too long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}..."


def _nearest(name: str, names: list[str]) -> str:
    import difflib  # only for a message

    matches = difflib.get_close_matches(name, names, n=1)
    return f", did you mean {_show(matches[0])}?" if matches else ""


__all__ = ["DaemonConfig", "add_arguments", "load_config"]
