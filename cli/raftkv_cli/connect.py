"""The blocking client for one verb, opened from the settings."""

from typing import TYPE_CHECKING

from raftkv_cli.settings import Settings
from raftkv_cli.spec import UsageError

if TYPE_CHECKING:
    from raftkv import Client


def open_client(settings: Settings) -> "Client":
    """A client for the endpoints of this run; nothing is sent before its first request."""
    from raftkv import Client

    return Client(",".join(settings.endpoints), cluster_name=settings.cluster_name, timeout=settings.timeout_seconds)


def key_bytes(text: str, name: str = "KEY") -> bytes:
    """The bytes that the shell gave us, whatever the locale made of them. Raises UsageError for none at all."""
    import os

    if not text:
        raise UsageError(f"{name} is empty")
    return os.fsencode(text)
