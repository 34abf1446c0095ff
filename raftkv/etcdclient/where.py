"""Which etcd is meant: `etcd://a:2379,b:2379`, or etcds:// with TLS. Without gRPC, so that a mistake is told before it is looked for."""

import os
from typing import Final, NamedTuple, Sequence

from raftkv.client.endpoints import parse_endpoints
from raftkv.client.tls import Tls
from raftkv.errors import ConfigError

PLAIN, ENCRYPTED = "etcd", "etcds"
_SCHEMES: Final = (PLAIN, ENCRYPTED)


class Where(NamedTuple):
    """Addresses in the order given, and the TLS to them; None: none."""

    addresses: tuple[str, ...]
    tls: Tls | None


def parse(endpoints: str | Sequence[str], tls: Tls | None) -> Where:
    """One scheme for all; it may stand before the first alone. Raises ConfigError that names the part which is wrong."""
    parts = endpoints.split(",") if isinstance(endpoints, str) else [p for e in endpoints for p in e.split(",")]
    addresses: list[str] = []
    schemes: set[str] = set()
    for part in (part.strip() for part in parts):
        scheme, has_scheme, rest = part.partition("://")
        if has_scheme:
            if scheme.lower() not in _SCHEMES:
                raise ConfigError(
                    f"endpoint {part!r}: beside etcd:// there are only others of etcd://, or all are etcds://"
                )
            schemes.add(scheme.lower())
        address = (rest if has_scheme else part).rstrip("/")
        if address:
            addresses.append(address)
    if len(schemes) > 1:
        raise ConfigError("endpoints with and without TLS: etcd:// or etcds:// is for all of them")
    if tls is None and ENCRYPTED in schemes:
        tls = Tls()
    if tls is not None:
        _check(tls)
    return Where(parse_endpoints(addresses), tls)


def without_scheme(address: str) -> str:
    """HOST:PORT of an endpoint that is given as the client was given its own."""
    scheme, has_scheme, rest = address.partition("://")
    return rest.rstrip("/") if has_scheme and scheme.lower() in _SCHEMES else address


def _check(tls: Tls) -> None:
    if not tls.verify:
        raise ConfigError(
            "verify=False cannot be had with etcd://: gRPC has no TLS that believes anybody; give ca_file"
        )
    if (tls.cert_file is None) != (tls.key_file is None):
        raise ConfigError("a certificate and its key belong together: cert_file and key_file")
    for path in (tls.ca_file, tls.cert_file, tls.key_file):
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigError(f"{path} cannot be read")
