"""Barriers: a gate that somebody closes and opens, and a meeting point that lets nobody in or out before all are there.

The gate is one key: closed while it exists. At the meeting point each participant has a key on its lease; who sees that all are there
writes `ready`, which everybody waits for, and the way out is the same backwards: who finds all keys gone deletes `ready`. Nobody may come
in while an old `ready` stands, so the same name serves round after round; what a crashed round left is removed by the next one, in a
transaction whose condition is that really nobody is there any more.
"""

from typing import TYPE_CHECKING, Any, cast

from raftkv.client.requests import Bytes, as_bytes
from raftkv.client.results import RangeResult
from raftkv.client.txn import Delete, Get, Put, Range, Version, exists, missing
from raftkv.errors import InvalidRequest, NotAcquired, NotHeld, RaftKVError
from raftkv.recipes.places import check_seconds, enter_lease, leave, nonce, prefix_of, shown, surely_not
from raftkv.recipes.verbs import Kept, Verbs, blocking, run
from raftkv.recipes.waiting import Deadline, wait_keys

if TYPE_CHECKING:
    import asyncio
    import threading

    from raftkv.client.sync import Client

TTL_S = 10.0


class AsyncBarrier:
    """A gate; made by `kv.barrier(name)`. Closed while its key exists."""

    def __init__(self, kv: Verbs, name: Bytes) -> None:
        prefix_of(name)
        self._kv = kv
        self._name = as_bytes(name)

    async def close(self, *, lease: int = 0) -> bool:
        """Close it; whoever waits stays outside. With the id of a lease it opens when that ends. Returns False when it was closed."""
        put = Put(self._name, "", lease=lease)
        return (await self._kv.txn().if_(missing(self._name)).then(put).commit()).succeeded

    async def open(self) -> bool:
        """Open it for everybody. Returns False when it was open."""
        return bool(await self._kv.delete(self._name))

    async def is_closed(self) -> bool:
        """Whether it is closed now."""
        return await self._kv.get_kv(self._name) is not None

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until it is open, for ever or for `timeout` seconds (0: only if it is open now). Raises NotAcquired."""
        if timeout == 0 and not await self.is_closed():
            return
        if await wait_keys(self._kv, [self._name], until="deleted", deadline=Deadline(timeout)) is None:
            raise NotAcquired(f"barrier {shown(self._name)!r} stayed closed", details={"name": self._name})


class AsyncDoubleBarrier:
    """A meeting point for `count` participants; made by `kv.double_barrier(name, count)`. One object is for one of them."""

    def __init__(
        self, kv: Verbs, name: Bytes, count: int, *, ttl: float = TTL_S, timeout: float | None = None, lease: Any = None
    ) -> None:
        check_seconds(ttl, "ttl")
        if count < 1:
            raise InvalidRequest(f"at least 1 takes part, not {count}")
        self._kv = kv
        self._name = name
        self._members = prefix_of(name) + b"m/"
        self._ready = prefix_of(name) + b"ready"
        self._count = count
        self._ttl = ttl
        self._timeout = timeout
        self._lease_of_user = lease
        self._entered: tuple[bytes, Kept, bool] | None = None

    @property
    def lost(self) -> "asyncio.Event":
        """Set when our place is gone, or when nobody can tell any more. Raises NotHeld."""
        return cast("asyncio.Event", self._inside()[1].lost)

    async def enter(self, timeout: float | None = None) -> None:
        """Wait until all are there, for ever or for `timeout` seconds. Raises NotAcquired, LockLost."""
        if self._entered is not None:
            raise InvalidRequest(f"barrier {shown(self._name)!r} was entered by this object already")
        deadline = Deadline(timeout)
        lease, owns_lease = await enter_lease(self._kv, self._ttl, self._lease_of_user, timeout)
        key = self._members + f"{lease.id:x}-{nonce()}".encode()
        try:
            arrived = await self._arrive(key, lease, deadline) and await self._gather(lease, deadline)
        except BaseException as error:
            await leave(self._kv, key, 0, lease, owns_lease)
            if isinstance(error, RaftKVError):
                raise surely_not(error, f"barrier {shown(self._name)!r}") from error
            raise
        if not arrived:
            await leave(self._kv, key, 0, lease, owns_lease)
            raise NotAcquired(f"not all {self._count} came to barrier {shown(self._name)!r} in time")
        self._entered = key, lease, owns_lease

    async def leave(self, timeout: float | None = None) -> None:
        """Wait until all have left, too, or are dead. Raises NotAcquired when the time is over: we have left all the same. Raises NotHeld."""
        key, lease, owns_lease = self._inside()
        self._entered = None
        deadline = Deadline(timeout)
        await leave(self._kv, key, 0, lease, owns_lease)
        while True:
            inside = (await self._kv.range(prefix=self._members, keys_only=True)).kvs
            if not inside:
                await self._end_round()
                return
            last = max(inside, key=lambda kv: kv.create_revision).key
            if await wait_keys(self._kv, [last, self._ready], until="deleted", any=True, deadline=deadline) is None:
                raise NotAcquired(f"not all have left barrier {shown(self._name)!r} in time")
            if await self._kv.get_kv(self._ready) is None:
                return

    async def __aenter__(self) -> "AsyncDoubleBarrier":
        await self.enter(self._timeout)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        await self.leave(self._timeout)

    def _inside(self) -> tuple[bytes, Kept, bool]:
        if self._entered is None:
            raise NotHeld(f"barrier {shown(self._name)!r} was not entered by this object")
        return self._entered

    async def _arrive(self, key: bytes, lease: Kept, deadline: Deadline) -> bool:
        """Put our key, as soon as no earlier round is on its way out; False when the time is over."""
        while True:
            put = Put(key, "", lease=lease.id)
            if (await self._kv.txn().if_(missing(self._ready)).then(put).commit()).succeeded:
                return True
            inside = (await self._kv.range(prefix=self._members, keys_only=True)).kvs
            if not inside:
                await self._end_round()
                continue
            keys = [inside[0].key, self._ready]
            what = f"barrier {shown(self._name)!r}"
            done = await wait_keys(self._kv, keys, until="deleted", any=True, deadline=deadline, lease=lease, what=what)
            if done is None:
                return False

    async def _gather(self, lease: Kept, deadline: Deadline) -> bool:
        """Wait for `ready`, or write it; False when the time is over."""
        look = Range(prefix=self._members, count_only=True)
        found = (await self._kv.txn().then(look).commit()).responses[0]
        assert isinstance(found, RangeResult), "a range"
        if found.count >= self._count:
            await self._kv.txn().if_(missing(self._ready)).then(Put(self._ready, "")).else_(Get(self._ready)).commit()
            return True
        what = f"barrier {shown(self._name)!r}"
        done = await wait_keys(self._kv, [self._ready], until="exists", deadline=deadline, lease=lease, what=what)
        return done is not None

    async def _end_round(self) -> None:
        nobody = Version(self._members, prefix=True) == 0
        await self._kv.txn().if_(nobody, exists(self._ready)).then(Delete(self._ready)).commit()


class Barrier:
    """A gate; made by `kv.barrier(name)`. Closed while its key exists."""

    def __init__(self, kv: "Client", name: Bytes) -> None:
        self._barrier = AsyncBarrier(blocking(kv), name)

    def close(self, *, lease: int = 0) -> bool:
        """Close it; whoever waits stays outside. With the id of a lease it opens when that ends. Returns False when it was closed."""
        return run(self._barrier.close(lease=lease))

    def open(self) -> bool:
        """Open it for everybody. Returns False when it was open."""
        return run(self._barrier.open())

    def is_closed(self) -> bool:
        """Whether it is closed now."""
        return run(self._barrier.is_closed())

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is open, for ever or for `timeout` seconds (0: only if it is open now). Raises NotAcquired."""
        run(self._barrier.wait(timeout))


class DoubleBarrier:
    """A meeting point for `count` participants; made by `kv.double_barrier(name, count)`. One object is for one of them."""

    def __init__(self, kv: "Client", name: Bytes, count: int, **options: Any) -> None:
        self._barrier = AsyncDoubleBarrier(blocking(kv), name, count, **options)

    @property
    def lost(self) -> "threading.Event":
        """Set when our place is gone, or when nobody can tell any more. Raises NotHeld."""
        return cast("threading.Event", self._barrier.lost)

    def enter(self, timeout: float | None = None) -> None:
        """Wait until all are there, for ever or for `timeout` seconds. Raises NotAcquired, LockLost."""
        run(self._barrier.enter(timeout))

    def leave(self, timeout: float | None = None) -> None:
        """Wait until all have left, too, or are dead. Raises NotAcquired when the time is over: we have left all the same. Raises NotHeld."""
        run(self._barrier.leave(timeout))

    def __enter__(self) -> "DoubleBarrier":
        run(self._barrier.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        run(self._barrier.__aexit__(kind, error, trace))
