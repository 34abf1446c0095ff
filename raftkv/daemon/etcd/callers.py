"""Who makes a call of the etcd API: a token in its metadata, or the name in the certificate of its connection."""

from typing import Mapping

from raftkv.daemon.authn import Authenticator
from raftkv.daemon.etcd.house import Authenticate, Found

TOKEN_NAMES = ("token", "authorization")  # clients with gRPC, and the JSON gateway


def token_of(metadata: Mapping[str, str]) -> str | None:
    """As clients of etcd send it: bare, or as `Bearer`, which browsers need for WebSockets."""
    for name in TOKEN_NAMES:
        token = metadata.get(name)
        if token:
            return token.removeprefix("Bearer ").strip()
    return None


def authenticate_with(authenticator: Authenticator) -> Authenticate:
    """What a House asks."""

    def authenticate(metadata: Mapping[str, str], certificate_name: str, found: Found) -> None:
        token = token_of(metadata)
        if token is None:
            found(authenticator.caller_of_certificate(certificate_name))
        else:
            authenticator.look_up(token, found)

    return authenticate
