"""What a client can be told, checked once, with the defaults that both clients share."""

from os import urandom
from typing import Any, Final, NamedTuple

from raftkv.client.decisions import PATIENT_READ
from raftkv.client.retry import default_attempt_timeout_s
from raftkv.client.session import Session
from raftkv.client.tls import TlsConnector
from raftkv.client.wireconn import WireConnection
from raftkv.errors import ConfigError

DEFAULT_ENDPOINTS: Final = "127.0.0.1:2379"
DEFAULT_TIMEOUT_S: Final = 5.0
DEFAULT_LIFETIME_S: Final = 600.0
DEFAULT_IDLE_S: Final = 30.0
LIFETIME_JITTER: Final = 0.2
WITHDRAW_S: Final = 2.0  # for ending what was asked for and is not wanted any more; it expires by itself, too


class Options(NamedTuple):
    """Times in seconds. See docs/client.md for what each means to a user."""

    cluster_name: str | None
    timeout_s: float
    attempt_timeout_s: float
    session: bool
    lifetime_s: float
    idle_s: float
    client_name: str
    login: tuple[str, str] | None = None
    """Name and password of a user."""
    tls: TlsConnector | None = None

    @property
    def connect_timeout_s(self) -> float:
        """For the connection and its greeting together: two round trips, where an attempt includes a disk."""
        return self.attempt_timeout_s / 2

    def arguments(self, host: str) -> dict[str, Any]:
        """What loop.create_connection is told beside host and port."""
        return {} if self.tls is None else self.tls.arguments(host)

    def new_wire(self, session: Session | None) -> WireConnection:
        """The protocol of a new connection under this session."""
        return WireConnection(
            cluster_name=self.cluster_name, session=session, client_name=self.client_name, login=self.login
        )

    def attempt_s(self, kind: int, timeout_s: float) -> float:
        """For one attempt of a call with this timeout: three members can be asked, unless one may answer at the last moment."""
        return min(self.attempt_timeout_s, timeout_s if kind == PATIENT_READ else timeout_s / 3)

    def draw_lifetime_s(self, drawn: float) -> float:
        """Clients that began together do not reconnect together."""
        return self.lifetime_s * (1 + LIFETIME_JITTER * (drawn - 0.5))


def make_options(
    *,
    cluster_name: str | None,
    timeout: float,
    attempt_timeout: float | None,
    session: bool,
    connection_lifetime: float,
    idle_check_after: float,
    client_name: str,
    user: str | None = None,
    password: str = "",
    tls: TlsConnector | None = None,
) -> Options:
    """Raises ConfigError that names the option which has a bad value."""
    for name, value in (
        ("timeout", timeout),
        ("attempt_timeout", attempt_timeout),
        ("connection_lifetime", connection_lifetime),
        ("idle_check_after", idle_check_after),
    ):
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is a number of seconds above 0, not {value!r}")
    if user == "" or (user is None and password):
        raise ConfigError("a user has a name, and a password belongs to a user")
    return Options(
        cluster_name=cluster_name,
        timeout_s=timeout,
        attempt_timeout_s=default_attempt_timeout_s(timeout) if attempt_timeout is None else attempt_timeout,
        session=session,
        lifetime_s=connection_lifetime,
        idle_s=idle_check_after,
        client_name=client_name,
        login=None if user is None else (user, password),
        tls=tls,
    )


def draw() -> float:
    """A random number in [0, 1). From the system, because importing `random` costs the command line 3 ms."""
    return int.from_bytes(urandom(4), "little") / 2**32


def draw_session_id() -> bytes:
    return urandom(16)


def draw_lease_id() -> int:
    """A number that nobody else has drawn, of 62 bits: those of etcd's sessions (etcdclient/marks.py) are above."""
    return 1 + (int.from_bytes(urandom(8), "little") >> 2)
