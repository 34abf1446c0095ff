"""Leases and the keys that hang on them: what is replicated of them, which is a granted time and no clock.

A lease has the time that it was granted and the time that a new leader has to give it, at first the same. How much of it has run
off is the leader's knowledge (replica/leases.py) and comes in here only as a checkpoint, so nothing can expire in this file by
itself. Leases and attachments live in memory; what changed is written with each commit to a table of its own:

    id (i64)               -> [ttl_ms, remaining_ms]
    id (i64) + user key    -> nothing: the key is attached
"""

import struct
from typing import Final, Iterator, NamedTuple, Sequence

import msgpack

from raftkv.errors import LeaseNotFound, TooManyKeys
from raftkv.store.keyspace import LEASES, Item, Keyspace
from raftkv.units import Milliseconds

_ID: Final = struct.Struct(">q")
_SCAN_ITEMS: Final = 4096
_SCAN_BYTES: Final = 16 * 1024 * 1024

NEWS_MAX: Final = 1_000_000  # nobody took them for so long: a store that is only replayed


class Lease:
    """One lease. `keys` are those attached to it; `remaining_ms` is what a new leader gives it from its first moment on."""

    __slots__ = ("keys", "remaining_ms", "ttl_ms")

    def __init__(self, ttl_ms: Milliseconds, remaining_ms: Milliseconds) -> None:
        self.ttl_ms = ttl_ms
        self.remaining_ms = remaining_ms
        self.keys: set[bytes] = set()


class LeaseChanges(NamedTuple):
    """What a commit has to write: leases (None: gone) by id, attachments (False: gone) by table key."""

    leases: dict[int, tuple[Milliseconds, Milliseconds] | None]
    attachments: dict[bytes, bool]

    def puts(self) -> list[Item]:
        """Records to set, in key order. For the committing thread: packing takes its time."""
        records = [
            (_ID.pack(lease_id), bytes(msgpack.packb(state)))
            for lease_id, state in self.leases.items()
            if state is not None
        ]
        return sorted(records + [(key, b"") for key, attached in self.attachments.items() if attached])

    def deletes(self) -> list[bytes]:
        """Records to drop, in key order."""
        gone = [_ID.pack(lease_id) for lease_id, state in self.leases.items() if state is None]
        return sorted(gone + [key for key, attached in self.attachments.items() if not attached])


class Leases:
    """All leases. `news` tells the leader's books which were granted (True) or ended (False), in order."""

    __slots__ = ("_attachments_changed", "_leases", "_leases_changed", "keys_max", "news")

    def __init__(self) -> None:
        self._leases: dict[int, Lease] = {}
        self._leases_changed: dict[int, tuple[Milliseconds, Milliseconds] | None] = {}
        self._attachments_changed: dict[bytes, bool] = {}
        self.news: list[tuple[int, bool]] = []
        self.keys_max = 1 << 62  # apply sets it from the replicated settings

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, lease_id: int) -> bool:
        return lease_id in self._leases

    def __iter__(self) -> Iterator[int]:
        return iter(self._leases)

    def get(self, lease_id: int) -> Lease | None:
        return self._leases.get(lease_id)

    def ids(self) -> list[int]:
        """All ids, ascending."""
        return sorted(self._leases)

    def check(self, lease_id: int, key: bytes) -> None:
        """Raises LeaseNotFound for an id that a put names and nobody was granted (0 names none), or TooManyKeys.

        All keys of a lease end in one command, which must not take for ever.
        """
        if not lease_id:
            return
        lease = self._leases.get(lease_id)
        if lease is None:
            raise LeaseNotFound(f"lease {lease_id} does not exist")
        if len(lease.keys) >= self.keys_max and key not in lease.keys:
            raise TooManyKeys(f"lease {lease_id} has {len(lease.keys)} keys, and takes no more")

    def take_news(self) -> Sequence[tuple[int, bool]]:
        """What was granted or ended since the last call."""
        news = self.news
        if news:
            self.news = []
        return news

    def take_over(self, other: "Leases") -> None:
        """In the place of leases of the same state: the books go on with what those had to tell, and hear nothing twice."""
        self.news = other.news

    def release(self, leases_max: int) -> bool:
        """Let go of some, of leases that nobody needs any more; True when none are left."""
        for _ in range(min(leases_max, len(self._leases))):
            self._leases.popitem()
        return not self._leases

    # Apply.

    def grant(self, lease_id: int, ttl_ms: Milliseconds) -> None:
        """A new lease."""
        assert lease_id not in self._leases, "an id is granted once at a time"
        assert lease_id, "0 is no lease"
        self._leases[lease_id] = Lease(ttl_ms, ttl_ms)
        self._leases_changed[lease_id] = (ttl_ms, ttl_ms)
        self._tell(lease_id, True)

    def end(self, lease_id: int) -> None:
        """Forget a lease whose keys are deleted."""
        lease = self._leases.pop(lease_id)
        assert not lease.keys, "the keys of a lease go before it"
        self._leases_changed[lease_id] = None
        self._tell(lease_id, False)

    def set_remaining(self, lease_id: int, remaining_ms: Milliseconds) -> None:
        """A checkpoint: what a new leader has to give it."""
        lease = self._leases[lease_id]
        lease.remaining_ms = remaining_ms
        self._leases_changed[lease_id] = (lease.ttl_ms, remaining_ms)

    def attach(self, lease_id: int, key: bytes) -> None:
        """The newest version of a key hangs on this lease."""
        self._leases[lease_id].keys.add(key)
        self._attachments_changed[_ID.pack(lease_id) + key] = True

    def detach(self, lease_id: int, key: bytes) -> None:
        """It does no more."""
        self._leases[lease_id].keys.remove(key)
        self._attachments_changed[_ID.pack(lease_id) + key] = False

    def _tell(self, lease_id: int, granted: bool) -> None:
        if len(self.news) >= NEWS_MAX:
            self.news.clear()
        self.news.append((lease_id, granted))

    # Commit.

    def take_changes(self) -> LeaseChanges:
        """What changed since the last call; handed over whole, so it costs the loop nothing."""
        changes = LeaseChanges(self._leases_changed, self._attachments_changed)
        self._leases_changed, self._attachments_changed = {}, {}
        return changes


def load_leases(keyspace: Keyspace) -> Leases:
    """The leases as committed."""
    leases = Leases()
    held = leases._leases
    start: bytes | None = b"\0"
    while start is not None:
        window = keyspace.window(LEASES, start, None, _SCAN_ITEMS, _SCAN_BYTES)
        for name, data in window.items:
            (lease_id,) = _ID.unpack_from(name)
            if len(name) == _ID.size:  # in front of its attachments
                held[lease_id] = Lease(*msgpack.unpackb(data))
            else:
                held[lease_id].keys.add(name[_ID.size :])
        start = window.resume
    return leases
