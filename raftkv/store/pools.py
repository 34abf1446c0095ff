"""The state of pools: records in META, in the commit and the snapshot of everything else, and in the digest.

Each request has a key beside its record: under `raftkv.pools/r/` while it waits, under `raftkv.pools/g/` when it is granted. The key hangs on the
lease of whoever asked, and it is what waits, watches and guards look at; the record is what is decided upon. A key that goes, because
its lease ended or somebody deleted it, takes its record along: `sync` hears of it from the events of the entry. So a dead worker's place is
free in the very entry that ends its lease.
"""

from typing import Final, Sequence

from raftkv.store.auth import AuthChanges
from raftkv.store.keyspace import META, Item, Keyspace
from raftkv.store.pool_model import Pool, Request, unpack_pool, unpack_request
from raftkv.store.pool_schedule import next_deadline_ms
from raftkv.store.records import DELETE_EVENT, POSITION_BYTES, key_of, lease_of
from raftkv.units import Milliseconds
from raftkv.wire.pools import GRANT_PREFIX, KEY_PREFIX, REQUEST_PREFIX

POOL_RECORD: Final = b"pool/p/"
REQUEST_RECORD: Final = b"pool/r/"
_END: Final = b"pool0"
_SCAN_ITEMS: Final = 1024
_SCAN_BYTES: Final = 4 * 1024 * 1024


class Pools:
    """All pools and requests. `seen`: how many events of the entry in progress were looked at; `dirty`: a decision is due."""

    __slots__ = ("_changed", "_effects", "deadline_ms", "dirty", "overwritten", "pools", "requests", "seen")

    def __init__(self) -> None:
        self.pools: dict[str, Pool] = {}
        self.requests: dict[str, Request] = {}
        self.deadline_ms: Milliseconds | None = None
        """When time alone changes something next."""
        self.dirty = False
        self.seen = 0
        self.overwritten: set[str] = set()
        """Requests whose key somebody took off its lease: they are to be ended, or nobody's death would."""
        self._changed: set[bytes] = set()
        self._effects: list[bytes] = []

    def set_pool(self, name: str, pool: Pool | None) -> None:
        """Another state of a pool; None: it is gone."""
        if pool is None:
            del self.pools[name]
        else:
            self.pools[name] = pool
        self._note(POOL_RECORD + name.encode())

    def set_request(self, request: Request) -> None:
        """A request that is new, or not what it was."""
        self.requests[request.id] = request
        self._note(REQUEST_RECORD + request.id.encode())

    def drop_request(self, request_id: str) -> None:
        """It is released, taken back, or too late."""
        del self.requests[request_id]
        self.overwritten.discard(request_id)
        self._note(REQUEST_RECORD + request_id.encode())

    def sync(self, events: Sequence[bytes]) -> None:
        """What happened to the keys of requests since the last look, by hands that are not ours."""
        requests = self.requests
        for record in events[self.seen :]:
            key = key_of(record)
            if key.startswith(KEY_PREFIX):
                request = requests.get(key[len(REQUEST_PREFIX) :].decode(errors="replace"))
                if request is None or not key.startswith(REQUEST_PREFIX if request.waits else GRANT_PREFIX):
                    continue
                if record[POSITION_BYTES] == DELETE_EVENT:
                    self.drop_request(request.id)
                elif lease_of(record) != request.lease:
                    self.overwritten.add(request.id)
                    self.dirty = True
        self.seen = len(events)

    def _note(self, name: bytes) -> None:
        record = self._record(name)
        self._changed.add(name)
        self._effects.append(name + (b"" if record is None else record))
        self.dirty = True

    def take_effects(self) -> list[bytes]:
        """For the digest: everything that changed, in order."""
        effects, self._effects = self._effects, []
        return effects

    def take_changes(self) -> AuthChanges:
        """For the commit: records of META to put and to drop."""
        puts: list[Item] = []
        deletes: list[bytes] = []
        for name in sorted(self._changed):
            record = self._record(name)
            if record is None:
                deletes.append(name)
            else:
                puts.append((name, record))
        self._changed.clear()
        return AuthChanges(puts, deletes)

    def _record(self, name: bytes) -> bytes | None:
        if name.startswith(POOL_RECORD):
            pool = self.pools.get(name[len(POOL_RECORD) :].decode())
            return None if pool is None else pool.pack()
        request = self.requests.get(name[len(REQUEST_RECORD) :].decode())
        return None if request is None else request.pack()


def load_pools(keyspace: Keyspace, clock_ms: Milliseconds) -> Pools:
    """As committed at a replicated time. Every entry ends decided, so what is due next follows from that."""
    loaded = Pools()
    start: bytes | None = POOL_RECORD
    while start is not None:
        window = keyspace.window(META, start, _END, _SCAN_ITEMS, _SCAN_BYTES)
        for name, data in window.items:
            if name.startswith(POOL_RECORD):
                loaded.pools[name[len(POOL_RECORD) :].decode()] = unpack_pool(data)
            elif name.startswith(REQUEST_RECORD):
                request = unpack_request(data)
                loaded.requests[request.id] = request
        start = window.resume
    loaded.deadline_ms = next_deadline_ms(loaded.pools, list(loaded.requests.values()), clock_ms)
    return loaded
