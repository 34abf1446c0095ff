"""Every setting of `raftkv serve` in one table: what it is called, how its text is read, its default, what it does.

The table drives flags, environment, file, `--help` and docs/configuration.md (a test compares them), so a setting cannot
exist in one place only. A reader takes what the file (typed) or the flag or variable (text) gave, and raises ValueError
with the requirement alone ("must be a positive integer"): where the value came from is the business of daemon/config.py.
Nothing heavy is imported here: the command line reads this module for its help.
"""

import re
from dataclasses import dataclass, fields
from typing import Any, Callable, Final, Mapping

from raftkv.daemon.limit_help import LIMIT_HELP
from raftkv.errors import ConfigError
from raftkv.limits import DEFAULT_LIMITS, GIB, KIB, MIB
from raftkv.transport.addresses import join_address, split_address
from raftkv.wire.commands import PRIORITY_MAX

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")
NUMBER_MAX: Final = 2**62

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SIZE: Final = re.compile(r"([0-9]+) ?(B|KiB|MiB|GiB)?")
_SIZE_UNITS: Final = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, None: 1}
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})

LIMITS_PREFIX: Final = "limits."


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. `name` is the key of the file; flag and variable follow from it. Limits have no flags."""

    name: str
    read: Callable[[Any], Any]
    default: Any  # None: required, or worked out from others as `help` says
    help: str
    metavar: str = ""
    unit: str = ""

    @property
    def is_limit(self) -> bool:
        return self.name.startswith(LIMITS_PREFIX)

    @property
    def is_switch(self) -> bool:
        return self.read is read_switch

    @property
    def flag(self) -> str:
        """How messages call it: --heartbeat-ms; a limit, which has no flag, by its name."""
        return self.name if self.is_limit else "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "RAFTKV_" + self.name.replace(".", "_").upper()

    @property
    def shown_default(self) -> str:
        """The default as an operator would write it; empty when there is none."""
        if self.default is None or self.default == {}:
            return ""
        if type(self.default) is bool:
            return "true" if self.default else "false"
        return show_size(self.default) if self.unit == "bytes" else str(self.default)


# Readers.


def read_name(raw: Any) -> str:
    """A name that can stand in file names, logs and address lists."""
    if not isinstance(raw, str) or not _NAME.fullmatch(raw):
        raise ValueError("must be 1 to 64 letters, digits, dots, dashes or underscores")
    return raw


def read_path(raw: Any) -> str:
    if not isinstance(raw, str) or not raw or "\0" in raw:
        raise ValueError("must be a path")
    return raw


def read_address(raw: Any) -> str:
    """HOST:PORT in the spelling of split_address."""
    if not isinstance(raw, str):
        raise ValueError("must be HOST:PORT")
    try:
        host, port = split_address(raw.strip())
    except ConfigError as error:
        raise ValueError(error.message.partition(", is ")[0]) from None
    if port == 0:
        raise ValueError("must have a port from 1 to 65535")
    return join_address(host, port)


def read_members(raw: Any) -> Mapping[str, str]:
    """n1=HOST:PORT,n2=HOST:PORT as a mapping; in the file it may also be a table."""
    if isinstance(raw, str):
        pairs = [tuple(part.strip().partition("=")[::2]) for part in raw.split(",") if part.strip()]
    elif isinstance(raw, dict):
        pairs = [(name, address) for name, address in raw.items()]
    else:
        pairs = []
    if not pairs:
        raise ValueError("must be NAME=HOST:PORT,NAME=HOST:PORT,...")
    members: dict[str, str] = {}
    for name, address in pairs:
        try:
            checked_name, checked_address = read_name(name), read_address(address)
        except ValueError as error:
            raise ValueError(f"must be NAME=HOST:PORT,... and its member {name}={address} is not: it {error}") from None
        if checked_name in members or checked_address in members.values():
            raise ValueError(f"must name every member and address once, and {name}={address} is there twice")
        members[checked_name] = checked_address
    return members


def read_login(raw: Any) -> str:
    if not isinstance(raw, str) or not raw.partition(":")[0] or ":" not in raw:
        raise ValueError("must be NAME:PASSWORD")
    return raw


def read_switch(raw: Any) -> bool:
    text = str(raw).strip().lower() if isinstance(raw, str | bool) else ""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError("must be true or false")


def read_count(raw: Any) -> int:
    """A positive integer, as number or text."""
    number = int(raw) if isinstance(raw, str) and raw.isascii() and raw.strip().isdigit() else raw
    if type(number) is not int or not 0 < number <= NUMBER_MAX:
        raise ValueError("must be a positive integer")
    return number


def read_size(raw: Any) -> int:
    """A positive number of bytes: 65536, "65536", "64KiB", "64 MiB", "1GiB"."""
    if isinstance(raw, str):
        match = _SIZE.fullmatch(raw.strip())
        raw = int(match[1]) * _SIZE_UNITS[match[2]] if match and len(match[1]) < 20 else None
    if type(raw) is not int or not 0 < raw <= NUMBER_MAX:
        raise ValueError("must be a positive number of bytes, like 1048576, 64KiB, 1MiB or 8GiB")
    return raw


def read_rate(raw: Any) -> int:
    """As read_size, in a second; 0 has no bound."""
    if raw == 0 or (isinstance(raw, str) and raw.strip() == "0"):
        return 0
    try:
        return read_size(raw)
    except ValueError:
        raise ValueError("must be a number of bytes, like 1048576, 64KiB or 64MiB, or 0 for no bound") from None


def read_priority(raw: Any) -> int:
    number = 0 if raw == 0 or (isinstance(raw, str) and raw.strip() == "0") else read_count(raw)
    if number > PRIORITY_MAX:
        raise ValueError(f"must be from 0 to {PRIORITY_MAX}")
    return number


def read_heartbeat(raw: Any) -> int:
    number = read_count(raw)
    if not 25 <= number <= 60_000:
        raise ValueError("must be from 25 to 60000")
    return number


def show_size(number: int) -> str:
    """The shortest spelling that read_size understands."""
    for unit in ("GiB", "MiB", "KiB"):
        if number % _SIZE_UNITS[unit] == 0:
            return f"{number // _SIZE_UNITS[unit]}{unit}"
    return str(number)


class OneOf:
    """Reads one of a few words."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words

    def __call__(self, raw: Any) -> str:
        if not isinstance(raw, str) or raw.strip().lower() not in self.words:
            raise ValueError(f"must be one of {', '.join(self.words)}")
        return raw.strip().lower()


# The table.

_OWN: Final = (
    Setting("name", read_name, None, "name of this member, unique in the cluster; required", "NAME"),
    Setting("data_dir", read_path, None, "where log and store live; one directory per member; required", "DIR"),
    Setting(
        "cluster_name", read_name, "default", "name of the cluster; members and clients of another are refused", "NAME"
    ),
    Setting("listen", read_address, "127.0.0.1:2379", "address for clients, all protocols", "HOST:PORT"),
    Setting("listen_peer", read_address, "127.0.0.1:2380", "address for the other members", "HOST:PORT"),
    Setting(
        "advertise",
        read_address,
        None,
        "where clients reach this member; like listen, and required when that is a wildcard",
        "HOST:PORT",
    ),
    Setting(
        "advertise_peer",
        read_address,
        None,
        "where members reach this one; as in initial_cluster, or like listen_peer, and required when that is a wildcard",
        "HOST:PORT",
    ),
    Setting(
        "initial_cluster",
        read_members,
        {},
        "the members of a new cluster and their peer addresses; counts only on an empty data directory",
        "N1=HOST:PORT,...",
    ),
    Setting(
        "join",
        read_address,
        None,
        "client address of any member of the cluster to join, in place of initial_cluster",
        "HOST:PORT",
    ),
    Setting(
        "join_user",
        read_login,
        None,
        "who asks to join while authentication is on: a user with the role root; better in the file or the environment than as a flag",
        "NAME:PASSWORD",
    ),
    Setting(
        "cert_file",
        read_path,
        None,
        "certificate of the client port (PEM): with it, the port speaks TLS and nothing else",
        "FILE",
    ),
    Setting("key_file", read_path, None, "its private key (PEM)", "FILE"),
    Setting(
        "trusted_ca_file",
        read_path,
        None,
        "whose certificates are believed on the client port, and of the member that is asked to join (PEM)",
        "FILE",
    ),
    Setting(
        "client_cert_auth",
        read_switch,
        False,
        "clients have to show a certificate that trusted_ca_file vouches for; its common name is the user",
    ),
    Setting(
        "peer_cert_file",
        read_path,
        None,
        "certificate of the peer port (PEM): with it, members speak TLS to each other",
        "FILE",
    ),
    Setting("peer_key_file", read_path, None, "its private key (PEM)", "FILE"),
    Setting("peer_trusted_ca_file", read_path, None, "whose certificates are believed of other members (PEM)", "FILE"),
    Setting(
        "peer_client_cert_auth",
        read_switch,
        False,
        "members have to show each other a certificate that peer_trusted_ca_file vouches for, and that is theirs",
    ),
    Setting(
        "peer_cert_allowed_cn",
        read_path,
        None,
        "members may have certificates of any host, if this is their common name",
        "NAME",
    ),
    Setting("log_level", OneOf(LOG_LEVELS), "info", "debug, info, warning or error; SIGUSR2 cycles it", "LEVEL"),
    Setting("log_format", OneOf(LOG_FORMATS), "text", "text or json, one line each", "FORMAT"),
    Setting("heartbeat_ms", read_heartbeat, 100, "how often the leader shows that it lives", "MS", "ms"),
    Setting(
        "election_timeout_ms",
        read_count,
        1000,
        "without a leader for this long, up to twice as long, a member stands for election; at least 3 heartbeats",
        "MS",
        "ms",
    ),
    Setting("fast_failover", read_switch, True, "elect at once when the connection from the leader breaks", "", ""),
    Setting("lease_reads", read_switch, False, "the leader answers reads from its lease, trusting clocks to run alike"),
    Setting(
        "fsync_stall_ms_max",
        read_count,
        2000,
        "a leader whose disk did not finish an fsync for this long hands leadership over",
        "MS",
        "ms",
    ),
    Setting(
        "snapshot_bytes_per_second_max",
        read_rate,
        64 * MIB,
        "bytes of snapshots that a leader sends in a second, to all members together; 0 has no bound",
        "SIZE",
        "bytes",
    ),
    Setting(
        "grpc_keepalive_interval_ms",
        read_count,
        7_200_000,
        "a gRPC client that was silent for this long is asked whether it is there",
        "MS",
        "ms",
    ),
    Setting(
        "grpc_keepalive_timeout_ms",
        read_count,
        20_000,
        "a gRPC client that does not answer that for this long is gone",
        "MS",
        "ms",
    ),
    Setting(
        "grpc_keepalive_ms_min",
        read_count,
        5_000,
        "a gRPC client that asks more often, and for nothing else, is sent away",
        "MS",
        "ms",
    ),
    Setting(
        "allow_insecure_peers",
        read_switch,
        False,
        "let authentication be enabled although members do not authenticate each other: only where nobody else reaches the peer ports",
    ),
    Setting(
        "priority",
        read_priority,
        0,
        "a leader hands over to a caught-up voter whose priority is higher than its own, from 0 to 1000",
        "NUMBER",
    ),
)


def _limit_settings() -> tuple[Setting, ...]:
    rows = []
    for field in fields(DEFAULT_LIMITS):
        name, default = field.name, getattr(DEFAULT_LIMITS, field.name)
        unit = "bytes" if "bytes" in name else "ms" if name.endswith("_ms") else ""
        read = read_size if unit == "bytes" else read_count
        rows.append(Setting(LIMITS_PREFIX + name, read, default, LIMIT_HELP[name], unit=unit))
    return tuple(rows)


SETTINGS: Final[tuple[Setting, ...]] = (*_OWN, *_limit_settings())
BY_NAME: Final[Mapping[str, Setting]] = {setting.name: setting for setting in SETTINGS}
assert len(BY_NAME) == len(SETTINGS), "a setting is listed twice"

__all__ = ["BY_NAME", "LIMITS_PREFIX", "SETTINGS", "Setting"]
