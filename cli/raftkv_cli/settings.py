"""How to reach the cluster: options first, then the environment, then the defaults that DESIGN fixes.

A bad value is refused here with the place it came from, before anything connects.
"""

from typing import Mapping, NamedTuple

from raftkv.client.endpoints import split_address, without_scheme
from raftkv.client.tls import Tls, connector
from raftkv.errors import ConfigError

DEFAULT_ENDPOINTS = "127.0.0.1:2379"
DEFAULT_TIMEOUT_SECONDS = 5.0
ENDPOINTS_MAX = 64


class Settings(NamedTuple):
    """Where the cluster is and how long to wait for it."""

    endpoints: tuple[str, ...] = (DEFAULT_ENDPOINTS,)
    cluster_name: str | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    user: str | None = None
    password: str | None = None
    """None with a user: it is asked for."""
    tls: Tls | None = None


def resolve_settings(options: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """The settings of this run. Raises ValueError with a text that names the option or variable and what is wrong.

    An empty variable counts as unset, as docker-compose files leave it.
    """
    where, text = "--endpoints", options.get("--endpoints")
    if text is None:
        where, text = "RAFTKV_ENDPOINTS", environment.get("RAFTKV_ENDPOINTS") or DEFAULT_ENDPOINTS
    cluster_name = options.get("--cluster-name")
    if cluster_name is None:
        cluster_name = environment.get("RAFTKV_CLUSTER_NAME") or None
    timeout = options.get("--timeout", DEFAULT_TIMEOUT_SECONDS)
    assert isinstance(text, str)
    assert isinstance(timeout, float)
    if cluster_name == "":
        raise ValueError("--cluster-name is empty")
    user, password = login_of(options, environment)
    cluster_name = None if cluster_name is None else str(cluster_name)
    tls = tls_of(options, environment)
    if tls is None and text.lower().startswith("https://"):
        tls = Tls()
    return Settings(checked_endpoints(text, where), cluster_name, timeout, user, password, tls)


def tls_of(options: Mapping[str, object], environment: Mapping[str, str]) -> Tls | None:
    """TLS as etcdctl is told of it; None when nothing of it is. Raises ValueError."""

    def given(name: str) -> str | None:
        value = options.get(f"--{name}")
        return str(value) if value is not None else environment.get(f"RAFTKV_{name.upper()}") or None

    ca_file, cert_file, key_file = given("cacert"), given("cert"), given("key")
    skips = "--insecure-skip-tls-verify" in options or environment.get("RAFTKV_INSECURE_SKIP_TLS_VERIFY") == "true"
    if (cert_file is None) != (key_file is None):
        raise ValueError("--cert and --key belong together")
    if ca_file is None and cert_file is None and not skips:
        return None
    return Tls(ca_file, cert_file, key_file, verify=not skips)


def login_of(options: Mapping[str, object], environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Name and password, as etcdctl takes them: NAME:PASSWORD in one, or apart. Raises ValueError."""
    where, text = "--user", options.get("--user")
    if text is None:
        where, text = "RAFTKV_USER", environment.get("RAFTKV_USER") or None
    password = options.get("--password")
    if text is None:
        if password is not None:
            raise ValueError("--password needs --user")
        return None, None
    if password is None:
        password = environment.get("RAFTKV_PASSWORD") or None
    name, colon, behind = str(text).partition(":")
    if not name:
        raise ValueError(f"{where} has no name")
    return name, behind if colon else None if password is None else str(password)


def checked_endpoints(text: str, where: str) -> tuple[str, ...]:
    """`a:1,b:2` as a tuple. Raises ValueError that names `where` and the part that is wrong; the port must be written out."""
    endpoints = tuple(part.strip() for part in text.split(","))
    if endpoints[0].lower().startswith(("etcd://", "etcds://")):
        return _of_etcd(endpoints, where)
    if len(endpoints) > ENDPOINTS_MAX:
        raise ValueError(f"{where} names {len(endpoints)} endpoints, at most {ENDPOINTS_MAX} are accepted")
    try:
        connector(None, endpoints)  # all with TLS, or none
        endpoints = tuple(without_scheme(endpoint) for endpoint in endpoints)
        for endpoint in endpoints:
            split_address(endpoint)
    except ConfigError as error:
        raise ValueError(f"{where}: {error.message}") from None
    return endpoints


def _of_etcd(endpoints: tuple[str, ...], where: str) -> tuple[str, ...]:
    """They keep their scheme: it is what tells the client. Raises ValueError."""
    from raftkv.etcdclient.where import parse

    scheme = endpoints[0].partition("://")[0].lower()
    try:
        return tuple(f"{scheme}://{address}" for address in parse(endpoints, None).addresses)
    except ConfigError as error:
        raise ValueError(f"{where}: {error.message}") from None
