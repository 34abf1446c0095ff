"""The blocking client for one verb, opened from the settings."""

from contextlib import contextmanager
from typing import TYPE_CHECKING, Iterator

from raftkv_cli.settings import Settings
from raftkv_cli.spec import Failed, UsageError

if TYPE_CHECKING:
    from raftkv import Client


REVOKE_SECONDS = 2.0


@contextmanager
def open_client(settings: Settings) -> "Iterator[Client]":
    """A client for the endpoints of this run; nothing is sent before its first request.

    A Ctrl-C or SIGTERM may come when something is ours already and its verb does not know yet: what it hangs on is ended then.
    """
    from raftkv import Client

    if is_etcd(settings):
        import os

        # Some verbs run commands. gRPC's handlers of fork, on by default, abort the child now and then before it is the command.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    user, password = login(settings)
    with Client(
        ",".join(settings.endpoints),
        cluster_name=settings.cluster_name,
        timeout=settings.timeout_seconds,
        user=user,
        password=password,
        tls=settings.tls,
    ) as client:
        try:
            yield client
        except KeyboardInterrupt:
            client._revoke_kept(REVOKE_SECONDS)
            raise


def login(settings: Settings) -> tuple[str | None, str]:
    """User and password of this run; one that was not given is asked for. Raises UsageError."""
    if settings.user is None:
        return None, ""
    if settings.password is not None:
        return settings.user, settings.password
    from raftkv_cli.secrets import ask_password

    return settings.user, ask_password(settings.user)


def is_etcd(settings: Settings) -> bool:
    """Whether the endpoints of this run are of a cluster of etcd."""
    return settings.endpoints[0].startswith(("etcd://", "etcds://"))


def only_raftkv(settings: Settings, verb: str, instead: str) -> None:
    """Refuse endpoints of etcd for a verb that asks members of raftkv in a way of their own. Raises Failed."""
    if is_etcd(settings):
        raise Failed(f"{verb} asks members of raftkv, and these endpoints are of etcd: use {instead}")


def key_bytes(text: str, name: str = "KEY") -> bytes:
    """The bytes that the shell gave us, whatever the locale made of them. Raises UsageError for none at all."""
    import os

    if not text:
        raise UsageError(f"{name} is empty")
    return os.fsencode(text)
