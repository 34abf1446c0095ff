"""Where a job's rendezvous is: `raftkv://a:2379,b:2379/RUN?round=1&ttl=30`, and what of it is missing from the environment.

torchrun names run and restart in the environment of its workers; a plain script names them in the URL. Without torch.
"""

from typing import Any, Mapping, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from raftkv.client.tls import Tls
from raftkv.errors import ConfigError

TTL_S = 30.0
CALL_TIMEOUT_S = 30.0  # of a call that does not wait for other ranks: a job rather waits for an election than dies


class Where(NamedTuple):
    """The cluster, and which run and round in it. `client`: further arguments of `raftkv.Client`."""

    endpoints: str
    run_id: str
    round: int
    ttl_s: float
    client: dict[str, Any]
    rank: int | None
    world_size: int | None


def read_url(url: str, environment: Mapping[str, str]) -> Where:
    """Raises ConfigError that names what is wrong with it."""
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    run_id = unquote(parts.path.strip("/")) or environment.get("TORCHELASTIC_RUN_ID", "")
    if not parts.netloc or not run_id or "/" in run_id:
        raise ConfigError(f"{url}: is not raftkv://HOST:PORT,HOST:PORT/RUN_ID")
    round_ = query.pop("round", environment.get("TORCHELASTIC_RESTART_COUNT", "0"))
    rank = query.pop("rank", environment.get("RANK"))
    world_size = query.pop("world_size", environment.get("WORLD_SIZE"))
    ttl = query.pop("ttl", str(TTL_S))
    try:
        numbers = int(round_), float(ttl), None if rank is None else int(rank)
        size = None if world_size is None else int(world_size)
    except ValueError:
        raise ConfigError(f"{url}: round, ttl, rank and world_size are numbers") from None
    endpoints = parts.netloc.rpartition("@")[2]
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    return Where(
        endpoints, run_id, numbers[0], numbers[1], client_arguments(query, user, password, url), numbers[2], size
    )


def client_arguments(query: Mapping[str, str], user: str, password: str, url: str) -> dict[str, Any]:
    """The cluster's name, the login and TLS, as `raftkv.Client` takes them. Raises ConfigError for an option that is not known."""
    left = dict(query)
    found: dict[str, Any] = {"timeout": CALL_TIMEOUT_S}
    if seconds := left.pop("client_timeout", ""):
        found["timeout"] = _positive_seconds(seconds, url)
    if name := left.pop("cluster_name", ""):
        found["cluster_name"] = name
    if user:
        found["user"], found["password"] = unquote(user), unquote(password)
    files = {name: left.pop(name) for name in ("ca_file", "cert_file", "key_file") if name in left}
    if left.pop("tls", "") or files:
        found["tls"] = Tls(files.get("ca_file"), files.get("cert_file"), files.get("key_file"))
    if left:
        raise ConfigError(f"{url}: there is no option {', '.join(left)}")
    return found


def _positive_seconds(text: str, url: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        raise ConfigError(f"{url}: client_timeout {text!r} is no number of seconds")
    return seconds
