"""Semaphore: at most so much at a time, by weight, first come first served or by priority.

Who wants in puts a key under `NAME/q/`, who is in has one under `NAME/h/`, both on the owner's lease. Only the head of the queue (highest
priority, then oldest) may go in, when its weight fits beside those that are in: nothing that is small overtakes something large for ever.
The trick that makes the sum safe: the move from q to h is one transaction, under the condition that nothing under NAME has
been written since the sum was read (deletions only make room). Whoever waits, waits for the one before it; the head waits for anyone who is
in to leave. The create revision of the key under h is the fencing token: it grows in the order in which holders were let in.
"""

import json
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from raftkv.client.requests import Bytes
from raftkv.client.results import KeyValue, RangeResult
from raftkv.client.txn import CreateRevision, Delete, ModRevision, Put, missing
from raftkv.errors import InvalidRequest, LockLost, NotAcquired, NotHeld, RaftKVError
from raftkv.recipes.places import Place, check_seconds, enter_lease, leave, nonce, prefix_of, shown, surely_not
from raftkv.recipes.verbs import Kept, Verbs, blocking, run
from raftkv.recipes.waiting import Deadline, check_lease, wait_keys
from raftkv.units import Revision

if TYPE_CHECKING:
    import asyncio
    import threading

    from raftkv.client.guarded import AsyncGuarded, Guarded
    from raftkv.client.sync import Client

TTL_S = 10.0
WATCHED_MAX = 1_000
LOOK_AGAIN_S = 1.0


class Entry(NamedTuple):
    """Somebody who is in, or in the queue."""

    key: bytes
    created: Revision
    lease: int
    weight: int
    priority: int
    owner: str


class Standing(NamedTuple):
    """A semaphore at one revision: who is in, who waits in which order, and how much fits."""

    revision: Revision
    capacity: int
    held: list[Entry]
    waiting: list[Entry]

    @property
    def used(self) -> int:
        return sum(entry.weight for entry in self.held)


def standing_of(prefix: bytes, found: RangeResult) -> Standing:
    """From all keys under NAME/."""
    held, waiting, capacity = [], [], 0
    for kv in found.kvs:
        tail = kv.key[len(prefix) :]
        if tail == b"limit":
            capacity = int(kv.value)
        elif tail.startswith(b"h/%x-" % kv.lease):
            held.append(_entry(kv))
        elif tail.startswith(b"q/%x-" % kv.lease):
            waiting.append(_entry(kv))
    waiting.sort(key=lambda entry: (-entry.priority, entry.created))
    return Standing(found.revision, capacity, held, waiting)


def blockers(standing: Standing, key: bytes) -> tuple[bool, list[bytes]]:
    """Whether ours may go in now; if not, the keys of which one has to go before it is worth looking again.

    Raises LockLost when ours is not in the queue any more.
    """
    place = next((place for place, entry in enumerate(standing.waiting) if entry.key == key), None)
    if place is None:
        raise LockLost("the place in the queue is gone: its session has ended")
    if place:
        return False, [standing.waiting[place - 1].key]
    if standing.used + standing.waiting[0].weight <= standing.capacity:
        return True, []
    return False, [entry.key for entry in standing.held]


def _entry(kv: KeyValue) -> Entry:
    says = json.loads(kv.value)
    return Entry(kv.key, kv.create_revision, kv.lease, says["weight"], says["priority"], says["owner"])


class AsyncSemaphore:
    """A share of a semaphore; made by `kv.semaphore(name, capacity)`. One object is for one owner."""

    def __init__(
        self,
        kv: Verbs,
        name: Bytes,
        capacity: int,
        *,
        weight: int = 1,
        priority: int = 0,
        ttl: float = TTL_S,
        timeout: float | None = None,
        lease: Any = None,
        owner: str = "",
    ) -> None:
        check_seconds(ttl, "ttl")
        if capacity < 1 or not 1 <= weight <= capacity:
            raise InvalidRequest(f"1 <= weight <= capacity does not hold for weight {weight} and capacity {capacity}")
        self._kv = kv
        self._name = name
        self._prefix = prefix_of(name)
        self._capacity = capacity
        self._value = json.dumps({"weight": weight, "priority": priority, "owner": owner})
        self._ttl = ttl
        self._timeout = timeout
        self._lease = lease
        self._place: Place | None = None

    @property
    def held(self) -> bool:
        """Whether it was acquired and not released; `lost` says whether that still means anything."""
        return self._place is not None

    @property
    def token(self) -> Revision:
        """The fencing token: larger than those of all that were let in before. Raises NotHeld."""
        return self._held().create_revision

    @property
    def key(self) -> bytes:
        """The key whose existence is the place. Raises NotHeld."""
        return self._held().key

    @property
    def lost(self) -> "asyncio.Event":
        """Set when the place is gone, or when nobody can tell any more. Raises NotHeld."""
        return cast("asyncio.Event", self._held().lease.lost)

    @property
    def valid_for(self) -> float:
        """For how many seconds from now it surely is held, whatever happens. Raises NotHeld."""
        return self._held().lease.valid_for

    def guard(self, kv: Any = None) -> "AsyncGuarded":
        """The writes of a client, each refused by the cluster once the place is lost. Raises NotHeld."""
        place = self._held()
        client: Any = self._kv if kv is None else kv
        guarded: AsyncGuarded = client.guarded(place.key, place.create_revision)
        return guarded

    async def acquire(self, timeout: float | None = None) -> Revision:
        """Wait for a place, for ever or for `timeout` seconds (0: only if there is room). Returns the fencing token.

        Raises NotAcquired when the time is over, InvalidRequest when this object is in already, or when the capacity is another one.
        """
        if self._place is not None:
            raise InvalidRequest(f"semaphore {shown(self._name)!r} is held by this object already: make one per owner")
        deadline = Deadline(timeout)
        await self._found()
        while True:
            place = await self._queue_up(deadline, timeout)
            if place is not None:
                self._place = place
                return place.create_revision

    async def release(self) -> None:
        """Give the place back. Raises NotHeld when there is none, LockLost when it was lost before."""
        place = self._held()
        was_lost = place.lease.lost.is_set()
        self._place = None
        await leave(self._kv, *place)
        if was_lost:
            raise LockLost(f"the place in semaphore {shown(self._name)!r} was lost before it was released")

    async def resize(self, capacity: int) -> None:
        """Another capacity, for everybody. Who is in stays in; those who wait look again. Raises InvalidRequest."""
        if capacity < 1:
            raise InvalidRequest(f"the capacity is at least 1, not {capacity}")
        limit = Put(self._prefix + b"limit", str(capacity))
        await self._kv.txn().then(limit, Delete(self._prefix + b"bell")).commit()
        self._capacity = capacity

    async def standing(self) -> Standing:
        """Who is in, and who waits in which order."""
        return standing_of(self._prefix, await self._kv.range(prefix=self._prefix))

    async def __aenter__(self) -> "AsyncSemaphore":
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
            raise NotHeld(f"semaphore {shown(self._name)!r} is not held by this object")
        return self._place

    async def _found(self) -> None:
        """The first one says what the capacity is; nobody may be of another opinion."""
        key = self._prefix + b"limit"
        if await self._kv.put_if_absent(key, str(self._capacity)):
            return
        limit = await self._kv.get_kv(key)
        if limit is not None and int(limit.value) != self._capacity:
            raise InvalidRequest(
                f"semaphore {shown(self._name)!r} has a capacity of {int(limit.value)}, not {self._capacity}: see resize"
            )

    async def _queue_up(self, deadline: Deadline, timeout: float | None) -> Place | None:
        """One turn in the queue, to its end: a place, or None when the session was lost on the way. Raises NotAcquired."""
        lease, owns_lease = await enter_lease(self._kv, self._ttl, self._lease, timeout)
        tail = f"{lease.id:x}-{nonce()}".encode()
        waiting, holding = self._prefix + b"q/" + tail, self._prefix + b"h/" + tail
        token: Revision = 0
        try:
            await self._kv.txn().if_(missing(waiting)).then(Put(waiting, self._value, lease=lease.id)).commit()
            token = await self._wait_turn(waiting, holding, lease, deadline)
        except BaseException as error:
            await leave(self._kv, waiting, 0, lease, owns_lease)
            if not owns_lease:
                await leave(self._kv, holding, 0, lease, owns_lease)  # the move may have happened
            if isinstance(error, LockLost) and owns_lease and not deadline.has_passed:
                return None
            if isinstance(error, RaftKVError):
                raise surely_not(error, f"semaphore {shown(self._name)!r}") from error
            raise
        if token:
            return Place(holding, token, lease, owns_lease)
        await leave(self._kv, waiting, 0, lease, owns_lease)
        raise NotAcquired(
            f"semaphore {shown(self._name)!r} had no room within {timeout:g} s", details={"name": self._prefix[:-1]}
        )

    async def _wait_turn(self, waiting: bytes, holding: bytes, lease: Kept, deadline: Deadline) -> Revision:
        """The token of the place; 0 when the time is over. Raises LockLost."""
        what = f"semaphore {shown(self._name)!r}"
        bell = self._prefix + b"bell"
        while True:
            found = await self._kv.range(prefix=self._prefix)
            standing = standing_of(self._prefix, found)
            fits, ahead = blockers(standing, waiting)
            if fits:
                moved = await self._move(waiting, holding, lease, standing.revision)
                if moved:
                    check_lease(lease, what)
                    return moved
                continue
            if standing.waiting[0].key == waiting:
                ahead = [*ahead, bell]  # a resize deletes it
                if not any(kv.key == bell for kv in found.kvs):
                    await self._kv.put_if_absent(bell, "")
                    continue
            patience = deadline
            if len(ahead) > WATCHED_MAX:
                # More are in than one wait takes: one that goes and is not among these is noticed a little later.
                ahead, patience = ahead[-WATCHED_MAX:], Deadline(min(deadline.remaining_s, LOOK_AGAIN_S))
            done = await wait_keys(
                self._kv, ahead, until="deleted", any=True, deadline=patience, lease=lease, what=what
            )
            if done is None and deadline.has_passed:
                return 0

    async def _move(self, waiting: bytes, holding: bytes, lease: Kept, revision: Revision) -> Revision:
        """From the queue to those who are in, if nothing was written since; the revision of that, or 0."""
        moved = await (
            self._kv.txn()
            .if_(CreateRevision(waiting) > 0, ModRevision(self._prefix, prefix=True) < revision + 1)
            .then(Delete(waiting), Put(holding, self._value, lease=lease.id))
            .commit()
        )
        return moved.revision if moved.succeeded else 0


class Semaphore:
    """A share of a semaphore; made by `kv.semaphore(name, capacity)`. One object is for one owner."""

    def __init__(self, kv: "Client", name: Bytes, capacity: int, **options: Any) -> None:
        self._kv = kv
        self._semaphore = AsyncSemaphore(blocking(kv), name, capacity, **options)

    @property
    def held(self) -> bool:
        """Whether it was acquired and not released; `lost` says whether that still means anything."""
        return self._semaphore.held

    @property
    def token(self) -> Revision:
        """The fencing token: larger than those of all that were let in before. Raises NotHeld."""
        return self._semaphore.token

    @property
    def key(self) -> bytes:
        """The key whose existence is the place. Raises NotHeld."""
        return self._semaphore.key

    @property
    def lost(self) -> "threading.Event":
        """Set when the place is gone, or when nobody can tell any more. Raises NotHeld."""
        return cast("threading.Event", self._semaphore.lost)

    @property
    def valid_for(self) -> float:
        """For how many seconds from now it surely is held, whatever happens. Raises NotHeld."""
        return self._semaphore.valid_for

    def guard(self, kv: Any = None) -> "Guarded":
        """The writes of a client, each refused by the cluster once the place is lost. Raises NotHeld."""
        return cast("Guarded", self._semaphore.guard(self._kv if kv is None else kv))

    def acquire(self, timeout: float | None = None) -> Revision:
        """Wait for a place, for ever or for `timeout` seconds (0: only if there is room). Returns the fencing token.

        Raises NotAcquired when the time is over, InvalidRequest when this object is in already, or when the capacity is another one.
        """
        return run(self._semaphore.acquire(timeout))

    def release(self) -> None:
        """Give the place back. Raises NotHeld when there is none, LockLost when it was lost before."""
        run(self._semaphore.release())

    def resize(self, capacity: int) -> None:
        """Another capacity, for everybody. Who is in stays in; those who wait look again. Raises InvalidRequest."""
        run(self._semaphore.resize(capacity))

    def standing(self) -> Standing:
        """Who is in, and who waits in which order."""
        return run(self._semaphore.standing())

    def __enter__(self) -> "Semaphore":
        run(self._semaphore.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        run(self._semaphore.__aexit__(kind, error, trace))
