"""`--guard KEY:REVISION` of verbs that write: the fencing token of a lock, as `raftkv lock` hands it to a command."""

import os
from typing import TYPE_CHECKING, Union

from raftkv_cli.spec import Call, Option

if TYPE_CHECKING:
    from raftkv import Client
    from raftkv.client.guarded import Guarded


def parse_guard(text: str) -> tuple[bytes, int]:
    """The key, which may have colons in it, and the revision. Raises ValueError with the end of a sentence."""
    key, colon, revision = text.rpartition(":")
    if not (key and colon and revision.isdecimal() and int(revision)):
        raise ValueError("is not KEY:REVISION, as in $RAFTKV_LOCK_KEY:$RAFTKV_LOCK_TOKEN")
    return os.fsencode(key), int(revision)


GUARD = Option("--guard", "only if KEY still is as it was created at REVISION", "KEY:REVISION", convert=parse_guard)


def writer(call: Call, client: "Client") -> Union["Client", "Guarded"]:
    """Who writes: the client, or its writes under the guard that was given."""
    guard = call.options.get(GUARD.name)
    return client if guard is None else client.guarded(*guard)
