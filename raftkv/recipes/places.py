"""A place in a queue of keys: names, the lease it hangs on, and how it is given up.

The trick of all queues here is etcd's: each waiter puts a key of its own under `NAME/`, and the order in which the keys were created is the
queue. A key hangs on its owner's lease, so a dead owner leaves no gap that anybody would have to clean up. `NAME/<lease id in hex>` is
what etcd's own clients call theirs: the two queue up together.
"""

import os
from typing import Any, NamedTuple

from raftkv.client.requests import Bytes, as_bytes
from raftkv.client.txn import CreateRevision, Delete
from raftkv.client.txn import Lease as LeaseOf
from raftkv.errors import InvalidRequest, NotAcquired, RaftKVError
from raftkv.recipes.verbs import Kept, Verbs, kept
from raftkv.units import Revision


class Place(NamedTuple):
    """A key of ours in somebody's queue."""

    key: bytes
    create_revision: Revision
    lease: Kept
    owns_lease: bool


def prefix_of(name: Bytes) -> bytes:
    """Raises InvalidRequest for an empty name."""
    text = as_bytes(name)
    if not text:
        raise InvalidRequest("the name is empty")
    return text + b"/"


def shown(name: Bytes) -> str:
    """A name for a message."""
    return as_bytes(name).decode(errors="backslashreplace")


def nonce() -> str:
    """Tells keys on one lease apart."""
    return os.urandom(4).hex()


def check_seconds(seconds: float, what: str) -> None:
    """Raises InvalidRequest for a duration of nothing, or of no number."""
    if not 0 < seconds < float("inf"):
        raise InvalidRequest(f"{what} is a number of seconds above 0, not {seconds!r}")


async def enter_lease(kv: Verbs, ttl: float, shared: Any, timeout: float | None) -> tuple[Kept, bool]:
    """The user's lease, or one of our own; and whether it is ours.

    `timeout` is how long the user waits for others. A short one is no reason to give up a connection or a disk that is a little slow: the grant has
    the time of any call, or more.
    """
    if shared is not None:
        return kept(shared), False
    lease = kv.lease(ttl, timeout=max(timeout, kv._timeout_s) if timeout else None)
    try:
        await lease.__aenter__()
    except RaftKVError as error:
        raise surely_not(error, "a session") from error
    return lease, True


async def leave(kv: Verbs, key: bytes, create_revision: Revision, lease: Kept, owns_lease: bool) -> None:
    """Give up a place, or one that may not have come about (`create_revision` 0). A place that cannot be given up ends with its lease."""
    if owns_lease:
        await lease.revoke()
        return
    try:
        if create_revision:
            await kv.txn().if_(CreateRevision(key) == create_revision).then(Delete(key)).commit()
        else:
            # Under its name there may be somebody else's.
            await kv.txn().if_(LeaseOf(key) == lease.id).then(Delete(key)).commit()
    except RaftKVError:
        pass  # it hangs on the lease


class Session:
    """What the claims of an object hang on: begun with the first of them, and anew after it was lost.

    Several tasks, or threads, may begin it at once; all get the same one, and none is kept alive that nobody knows of.
    """

    def __init__(self, kv: Verbs, ttl: float, lease_of_user: Any) -> None:
        self._kv = kv
        self._ttl = ttl
        self._lease_of_user = lease_of_user
        self._current: dict[str, Kept] = {}

    @property
    def is_of_user(self) -> bool:
        """We neither begin nor end it."""
        return self._lease_of_user is not None

    async def enter(self) -> Kept:
        """The one there is, or a new one. Raises what the cluster has against that."""
        current = self._current.get("it")
        if current is not None and (self.is_of_user or not current.lost.is_set()):
            return current
        if current is not None:
            await self.end(current)
        lease, _ = await enter_lease(self._kv, self._ttl, self._lease_of_user, None)
        entered = self._current.setdefault("it", lease)
        if entered is not lease and not self.is_of_user:
            await lease.revoke()
        return entered

    async def end(self, only: Kept | None = None) -> None:
        """Give up all that hangs on it; on `only`, when that is not the one any more, nothing does."""
        if only is not None and self._current.get("it") is not only:
            return
        lease = self._current.pop("it", None)
        if lease is not None and not self.is_of_user:
            await lease.revoke()


def surely_not(error: RaftKVError, what: str) -> RaftKVError:
    """An error on the way to a place. Whatever became of the write: there is no place, and what is left of it ends with its lease."""
    if not error.may_have_happened:
        return error
    return NotAcquired(f"{what} could not be had: {error.message}", details=error.details)
