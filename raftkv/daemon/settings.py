"""Every setting of `raftkv serve` in one table: what it is called, how its text is read, its default, what it does.

The table drives flags, environment, file, `--help` and docs/configuration.md (a test compares them), so a setting cannot
exist in one place only. A reader takes what the file (typed) or the flag or variable (text) gave, and raises ValueError
with the requirement alone ("must be a positive integer"): where the value came from is the business of daemon/config.py.
Nothing heavy is imported here: the command line reads this module for its help.
"""

import re
from dataclasses import dataclass, fields
from typing import Any, Callable, Final, Mapping

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

LIMIT_HELP: Final[Mapping[str, str]] = {
    "key_bytes_max": "largest key",
    "value_bytes_max": "largest value",
    "request_bytes_max": "largest request, a transaction with all its keys and values for example",
    "txn_operations_max": "operations in one branch of a transaction",
    "range_reply_bytes_max": "a range is cut here and says that there is more",
    "connection_in_flight_requests_max": "unanswered requests of one connection; over it, it is not read",
    "connection_in_flight_bytes_max": "their bytes; over it, the connection is not read",
    "connection_write_buffer_bytes_max": "answers that a client has not taken yet; over it, it is not read",
    "client_connections_max": "connections to the client port; over it, new ones are closed at once",
    "pending_writes_bytes_max": "bytes of writes that wait in this member; over it, new ones are refused",
    "pending_writes_max": "writes that wait in this member; over it, new ones are refused",
    "pending_reads_max": "reads that wait in this member; over it, new ones are refused",
    "entry_bytes_max": "requests that share one entry of the log",
    "append_message_bytes_max": "entries that share one message to a follower",
    "append_messages_in_flight_max": "unacknowledged messages to a follower; over it, the leader waits",
    "append_bytes_in_flight_max": "their bytes; over it, the leader waits",
    "peer_frame_bytes_max": "largest frame between members",
    "peer_send_queue_bytes_max": "messages that wait for a slow member; over it, they are dropped",
    "transfer_lag_entries_max": "a member that is further behind is not handed leadership",
    "promotion_lag_entries_max": "a learner that is further behind is not given a vote",
    "members_max": "members of the cluster, learners included; over it, new ones are refused",
    "wal_segment_bytes": "size of a file of the log",
    "log_retained_bytes_max": "log kept for members that are behind; who needs more gets a snapshot",
    "log_retained_entries_max": "entries of the log kept for members that are behind",
    "digests_kept_max": "digests of the store, one per entry, that are kept to be compared with those of other members",
    "log_held_bytes_max": "log kept while the store is copied or a copy sent; over it, who was to get the copy gets a newer one, and a defragmentation ends",
    "snapshot_chunk_bytes": "size of a piece of a snapshot on its way to a member",
    "snapshot_chunks_in_flight_max": "pieces sent ahead of their acknowledgement",
    "snapshot_resume_ms_max": "a snapshot on its way to a member that fell silent is kept for so long, and then goes on",
    "overlay_bytes_max": "changes not committed to the store yet; over it, writes wait",
    "overlay_records_max": "their number; over it, writes wait",
    "commit_interval_ms": "longest time between two commits of the store",
    "commit_bytes": "changes after which the store is committed at once",
    "map_bytes": "address space of the store; fixed at the first start, sparse",
    "quota_bytes": "size of the store at which writes are refused",
    "history_ms_max": "history is kept for this long, then it is compacted",
    "history_revisions_max": "revisions of history that are kept; a tenth more, and what is older is compacted",
    "watchers_max": "watches that one member serves; over it, new ones are refused",
    "watch_queue_events_max": "events that wait for the watchers of one range; who is further behind reads history",
    "watch_queue_bytes_max": "their bytes; who is further behind reads history",
    "watch_fragment_bytes": "size at which the events of a watch are cut into several messages",
    "http2_streams_max": "calls that are open on one HTTP/2 connection (gRPC); over it, a new one is refused",
    "http2_partial_bytes_max": "messages of one HTTP/2 connection that are not whole yet; over it, the call is refused",
    "watch_buffer_bytes_max": "events that a client has not taken yet; over it, its watches read history once it goes on",
    "watch_progress_interval_ms": "a watch that asked for it hears after so much silence that it has missed nothing",
    "etcd_watch_progress_interval_ms": "the same for clients of etcd, and up to a tenth more",
    "waits_max": "server-side waits of one member; over it, new ones are refused",
    "wait_keys_max": "keys of one wait",
    "session_window": "writes of one session that may be unanswered at a time",
    "session_answer_bytes_max": "answers kept per session for its retries",
    "sessions_max": "sessions in the cluster; over it, new ones are refused",
    "session_ttl_ms": "a session that was not used for this long ends",
    "leases_max": "leases in the cluster; over it, new ones are refused",
    "lease_keys_max": "keys that may hang on one lease; over it, puts with that lease are refused",
    "lease_ttl_ms_min": "a lease that is asked for a shorter time gets this one",
    "lease_expiry_keys_max": "keys deleted in one go when leases expire; the keys of one lease always go together",
    "keep_alive_leases_max": "leases that one request may keep alive",
    "users_max": "users in the cluster; over it, new ones are refused",
    "roles_max": "roles in the cluster; over it, new ones are refused",
    "role_permissions_max": "permissions of one role; over it, new ones are refused",
    "logins_pending_max": "logins that wait for their turn in this member; over it, new ones are refused",
    "tokens_max": "tokens that one member remembers; over it, the one that was not used for longest is forgotten",
    "token_ttl_ms": "a token that was not used for this long ends",
    "login_refusal_ms": "a login that is refused is answered no sooner than after this long",
}


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
