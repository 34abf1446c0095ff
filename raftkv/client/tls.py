"""TLS of the clients: what is told to `connect` and `Client`, and the context that is made of it with the first connection.

`ssl` is imported when it is used: the command line answers a `get` in the time that this import takes.
"""

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

from raftkv.errors import ConfigError

if TYPE_CHECKING:
    import socket
    import ssl

PROTOCOL = "raftkv"  # in ALPN


class Tls(NamedTuple):
    """Paths of PEM files, and whom to believe. All defaults: the system's CAs, and the name of the endpoint.

    `ca_file`: whose certificates are believed instead. `cert_file` and `key_file`: the own certificate, for members that ask for one.
    `server_name`: the name that certificates of members have to be for, instead of the host in their address. `verify=False` believes
    anybody: for tries, never for use.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    verify: bool = True


class TlsConnector:
    """Makes connections with one Tls. The context is made when it is needed, and anew when a file has changed.

    A client may live longer than its certificate. A file that cannot be used any more takes nothing away from the connections to come.
    """

    def __init__(self, tls: Tls) -> None:
        if (tls.cert_file is None) != (tls.key_file is None):
            raise ConfigError("a certificate and its key belong together: cert_file and key_file")
        for path in (tls.ca_file, tls.cert_file, tls.key_file):
            if path is not None and not os.access(path, os.R_OK):
                raise ConfigError(f"{path} cannot be read")
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._stamps: list[tuple[int, int, int] | None] = []

    def arguments(self, host: str) -> dict[str, Any]:
        """For loop.create_connection. Raises ConfigError for files that cannot be used."""
        return {"ssl": self._made(), "server_hostname": self._tls.server_name or host}

    def wrap(self, sock: "socket.socket", host: str) -> "socket.socket":
        """The same connection, encrypted; within the socket's timeout. Raises OSError, ssl's errors among them, and ConfigError."""
        return self._made().wrap_socket(sock, server_hostname=self._tls.server_name or host)

    def _made(self) -> "ssl.SSLContext":
        # Two threads at once make one context too many, and no harm.
        stamps = [_stamp(path) for path in (self._tls.ca_file, self._tls.cert_file, self._tls.key_file) if path]
        if self._context is None or stamps != self._stamps:
            self._stamps = stamps
            try:
                self._context = make_context(self._tls)
            except ConfigError:
                if self._context is None:
                    raise
        return self._context


def make_context(tls: Tls) -> "ssl.SSLContext":
    """Raises ConfigError that names the file which cannot be used."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([PROTOCOL, "http/1.1"])
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if tls.ca_file is not None:
            context.load_verify_locations(tls.ca_file)
        else:
            context.load_default_certs()
    except OSError as error:
        raise ConfigError(f"CA file {tls.ca_file}: {_words(error)}") from None
    if tls.cert_file is not None:
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")  # nobody may be there to be asked
        except OSError as error:
            raise ConfigError(f"certificate {tls.cert_file} with key {tls.key_file}: {_words(error)}") from None
    return context


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _words(error: OSError) -> str:
    return (error.strerror or str(error)) if error.filename or error.errno == 2 else "cannot be used"


def connector(tls: Tls | None, endpoints: "str | Sequence[str]") -> TlsConnector | None:
    """With TLS when it is asked for, or when the endpoints begin with https://. Raises ConfigError when they do not agree."""
    parts = endpoints.split(",") if isinstance(endpoints, str) else [p for e in endpoints for p in e.split(",")]
    schemes = {part.strip().partition("://")[0].lower() for part in parts if "://" in part}
    bare = any(part.strip() and "://" not in part for part in parts)
    if "https" in schemes and (bare or "http" in schemes):
        raise ConfigError("endpoints with and without TLS: https:// stands before all of them, or before none")
    if "http" in schemes and tls is not None:
        raise ConfigError("an endpoint with http:// has no TLS")
    if tls is None and "https" not in schemes:
        return None
    return TlsConnector(tls or Tls())


__all__ = ["Tls", "TlsConnector", "connector", "make_context"]
