"""Lock: fair, fenced, optionally shared between readers or re-entrant.

The trick is in places.py: the oldest key holds the lock, everybody else waits for the key right before its own to go, so a release wakes one
waiter and not all. A reader only waits for the last writer before it. The create revision of the holder's key is the *fencing token*: it
grows from holder to holder, and `guard` makes writes that the cluster refuses once that key is gone. That is what makes a lock
safe: a holder that was stopped for longer than its lease cannot know that it lost the lock, but what it writes then is not done.
"""

from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Sequence, cast

from raftkv.client.requests import Bytes, as_bytes
from raftkv.client.results import KeyValue, PutResult, RangeResult
from raftkv.client.txn import Put, Range, missing
from raftkv.errors import InvalidRequest, LockLost, NotAcquired, NotHeld, RaftKVError
from raftkv.recipes.places import Place, check_seconds, enter_lease, leave, nonce, prefix_of, shown, surely_not
from raftkv.recipes.verbs import Verbs, blocking, run
from raftkv.recipes.waiting import Deadline, check_lease, wait_keys
from raftkv.units import Revision

if TYPE_CHECKING:
    import asyncio
    import threading

    from raftkv.client.guarded import AsyncGuarded, Guarded
    from raftkv.client.sync import Client

TTL_S = 10.0
_READER = b"-r"


class Holder(NamedTuple):
    """Somebody in the queue of a lock."""

    key: bytes
    token: Revision
    """The create revision of the key: the fencing token, once it holds the lock."""
    lease: int
    owner: bytes
    """What its owner said of itself."""
    holds: bool
    """It holds the lock now; the others wait, in this order."""


def places(entries: Sequence[KeyValue], prefix: bytes) -> list[KeyValue]:
    """The queue among what was found: whoever keeps data of his own under NAME/ is not in it. Places are named after their lease."""
    return [entry for entry in entries if entry.lease and entry.key.startswith(prefix + b"%x" % entry.lease)]


def standing(entries: Sequence[KeyValue], key: bytes, shared: bool) -> tuple[Revision, bytes | None]:
    """The create revision of our place (0: it is gone), and the one that it waits for (None: none)."""
    ours = next((entry.create_revision for entry in entries if entry.key == key), 0)
    ahead = [
        entry for entry in entries if entry.create_revision < ours and not (shared and entry.key.endswith(_READER))
    ]
    return ours, max(ahead, key=lambda entry: entry.create_revision).key if ahead else None


def line_up(entries: Sequence[KeyValue]) -> list[Holder]:
    """The whole queue, in order, and who of it holds the lock."""
    line: list[Holder] = []
    readers_only = True
    for entry in sorted(entries, key=lambda entry: entry.create_revision):
        is_reader = entry.key.endswith(_READER)
        holds = not line or (is_reader and readers_only)
        readers_only = readers_only and is_reader
        line.append(Holder(entry.key, entry.create_revision, entry.lease, entry.value, holds))
    return line


class AsyncLock:
    """A lock among everybody who uses its name; made by `kv.lock(name)`. One object is for one owner: a task, or a thread."""

    def __init__(
        self,
        kv: Verbs,
        name: Bytes,
        *,
        ttl: float = TTL_S,
        timeout: float | None = None,
        lease: Any = None,
        shared: bool = False,
        reentrant: bool = False,
        owner: Bytes = b"",
        me: Callable[[], object] | None = None,
    ) -> None:
        check_seconds(ttl, "ttl")
        self._kv = kv
        self._name = name
        self._prefix = prefix_of(name)
        self._ttl = ttl
        self._timeout = timeout
        self._lease = lease
        self._shared = shared
        self._reentrant = reentrant
        self._owner = as_bytes(owner)
        self._me = me if me is not None else _current_task
        self._place: Place | None = None
        self._holder: object = None
        self._depth = 0

    @property
    def held(self) -> bool:
        """Whether it was acquired and not released; `lost` says whether that still means anything."""
        return self._place is not None

    @property
    def token(self) -> Revision:
        """The fencing token: larger than those of all holders before. Raises NotHeld."""
        return self._held().create_revision

    @property
    def key(self) -> bytes:
        """The key whose existence is the lock. Raises NotHeld."""
        return self._held().key

    @property
    def lost(self) -> "asyncio.Event":
        """Set when the lock is gone, or when nobody can tell any more. Raises NotHeld."""
        return cast("asyncio.Event", self._held().lease.lost)

    @property
    def doubt(self) -> "asyncio.Event":
        """Set while a renewal of its session is overdue: there still is time to finish. Raises NotHeld."""
        return cast("asyncio.Event", self._held().lease.doubt)

    @property
    def valid_for(self) -> float:
        """For how many seconds from now it surely is held, whatever happens. Raises NotHeld."""
        return self._held().lease.valid_for

    def check(self) -> None:
        """Raises LockLost when it is lost, NotHeld when it was not acquired. Asks nobody."""
        check_lease(self._held().lease, f"lock {shown(self._name)!r}")

    def guard(self, kv: Any = None) -> "AsyncGuarded":
        """The writes of a client (of this lock's own by default), each refused by the cluster once the lock is lost. Raises NotHeld."""
        place = self._held()
        client: Any = self._kv if kv is None else kv
        guarded: AsyncGuarded = client.guarded(place.key, place.create_revision)
        return guarded

    async def acquire(self, timeout: float | None = None) -> Revision:
        """Wait for the lock, for ever or for `timeout` seconds (0: only if it is free). Returns the fencing token.

        Raises NotAcquired when the time is over; the place in the queue is given up then, as on every way out. What a session loses while
        it waits is queued up for anew. Raises InvalidRequest when this object holds the lock already and is not re-entrant.
        """
        if self._place is not None:
            return self._enter_again()
        deadline = Deadline(timeout)
        while True:
            place = await self._queue_up(deadline, timeout)
            if place is not None:
                self._place, self._depth, self._holder = place, 1, self._me()
                return place.create_revision

    async def release(self) -> None:
        """Give it back. Raises NotHeld when it is not held, LockLost when it was lost before: then others may have held it meanwhile."""
        place = self._held()
        self._depth -= 1
        if self._depth:
            return
        was_lost = place.lease.lost.is_set()
        self._place = None
        await leave(self._kv, *place)
        if was_lost:
            raise LockLost(f"lock {shown(self._name)!r} was lost before it was released")

    async def queue(self) -> list[Holder]:
        """Who holds the lock and who waits, in order."""
        return line_up(places((await self._kv.range(prefix=self._prefix)).kvs, self._prefix))

    async def __aenter__(self) -> "AsyncLock":
        await self.acquire(self._timeout)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._place is None:
            return  # it was released within the block
        try:
            await self.release()
        except LockLost:
            if error is None:
                raise

    def _held(self) -> Place:
        if self._place is None:
            raise NotHeld(f"lock {shown(self._name)!r} is not held by this object")
        return self._place

    def _enter_again(self) -> Revision:
        if not self._reentrant or self._holder != self._me():
            raise InvalidRequest(f"lock {shown(self._name)!r} is held by this object already: make one per owner")
        self.check()
        self._depth += 1
        return self.token

    async def _queue_up(self, deadline: Deadline, timeout: float | None) -> Place | None:
        """One turn in the queue, to its end: the lock, or None when the session was lost on the way. Raises NotAcquired."""
        lease, owns_lease = await enter_lease(self._kv, self._ttl, self._lease, timeout)
        key = self._prefix + f"{lease.id:x}{'' if owns_lease else '-' + nonce()}".encode() + _READER * self._shared
        created: Revision = 0
        try:
            put = Put(key, self._owner, lease=lease.id)
            entered = (
                await self._kv.txn().if_(missing(key)).then(put, Range(prefix=self._prefix, keys_only=True)).commit()
            )
            written, found = entered.responses
            assert isinstance(written, PutResult) and isinstance(found, RangeResult), "a put and a range"
            created = written.revision
            got = await self._wait_turn(key, found.kvs if not found.more else None, lease, deadline)
        except LockLost:
            await leave(self._kv, key, created, lease, owns_lease)
            if not owns_lease or deadline.has_passed:
                raise
            return None
        except RaftKVError as error:
            await leave(self._kv, key, created, lease, owns_lease)
            raise surely_not(error, f"lock {shown(self._name)!r}") from error
        except BaseException:
            await leave(self._kv, key, created, lease, owns_lease)
            raise
        if got:
            return Place(key, created, lease, owns_lease)
        await leave(self._kv, key, created, lease, owns_lease)
        raise NotAcquired(
            f"lock {shown(self._name)!r} was not free within {timeout:g} s", details={"name": self._prefix[:-1]}
        )

    async def _wait_turn(self, key: bytes, entries: list[KeyValue] | None, lease: Any, deadline: Deadline) -> bool:
        """Whether it is ours now; False when the time is over. Raises LockLost."""
        what = f"lock {shown(self._name)!r}"
        while True:
            if entries is None:
                entries = (await self._kv.range(prefix=self._prefix, keys_only=True)).kvs
            ours, ahead = standing(places(entries, self._prefix), key, self._shared)
            if not ours:
                raise LockLost(f"{what}: the place in its queue is gone")
            if ahead is None:
                check_lease(lease, what)  # the answer may have been long on its way
                return True
            if await wait_keys(self._kv, [ahead], until="deleted", deadline=deadline, lease=lease, what=what) is None:
                return False
            entries = None


class Lock:
    """A lock among everybody who uses its name; made by `kv.lock(name)`. One object is for one owner: a task, or a thread."""

    def __init__(self, kv: "Client", name: Bytes, **options: Any) -> None:
        import threading

        self._kv = kv
        self._lock = AsyncLock(blocking(kv), name, me=threading.get_ident, **options)
        self._timeout = self._lock._timeout

    @property
    def held(self) -> bool:
        """Whether it was acquired and not released; `lost` says whether that still means anything."""
        return self._lock.held

    @property
    def token(self) -> Revision:
        """The fencing token: larger than those of all holders before. Raises NotHeld."""
        return self._lock.token

    @property
    def key(self) -> bytes:
        """The key whose existence is the lock. Raises NotHeld."""
        return self._lock.key

    @property
    def lost(self) -> "threading.Event":
        """Set when the lock is gone, or when nobody can tell any more. Raises NotHeld."""
        return cast("threading.Event", self._lock.lost)

    @property
    def doubt(self) -> "threading.Event":
        """Set while a renewal of its session is overdue: there still is time to finish. Raises NotHeld."""
        return cast("threading.Event", self._lock.doubt)

    @property
    def valid_for(self) -> float:
        """For how many seconds from now it surely is held, whatever happens. Raises NotHeld."""
        return self._lock.valid_for

    def check(self) -> None:
        """Raises LockLost when it is lost, NotHeld when it was not acquired. Asks nobody."""
        self._lock.check()

    def guard(self, kv: Any = None) -> "Guarded":
        """The writes of a client (of this lock's own by default), each refused by the cluster once the lock is lost. Raises NotHeld."""
        return cast("Guarded", self._lock.guard(self._kv if kv is None else kv))

    def acquire(self, timeout: float | None = None) -> Revision:
        """Wait for the lock, for ever or for `timeout` seconds (0: only if it is free). Returns the fencing token.

        Raises NotAcquired when the time is over; the place in the queue is given up then, as on every way out. What a session loses while
        it waits is queued up for anew. Raises InvalidRequest when this object holds the lock already and is not re-entrant.
        """
        return run(self._lock.acquire(timeout))

    def release(self) -> None:
        """Give it back. Raises NotHeld when it is not held, LockLost when it was lost before: then others may have held it meanwhile."""
        run(self._lock.release())

    def queue(self) -> list[Holder]:
        """Who holds the lock and who waits, in order."""
        return run(self._lock.queue())

    def __enter__(self) -> "Lock":
        self.acquire(self._timeout)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        run(self._lock.__aexit__(kind, error, trace))


def _current_task() -> object:
    import asyncio

    return asyncio.current_task()
