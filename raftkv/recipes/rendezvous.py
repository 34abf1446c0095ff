"""Rendezvous: the store in which the ranks of a training job find each other, with the semantics of PyTorch's TCPStore.

One rendezvous is (run id, round): its keys live under `rdzv/RUN/ROUND/` and on one lease that all participants keep alive together, so nobody can
see what an earlier round has left, and nothing is left when all are gone; no rank's host matters more than another's. Waiting
is a wait in the cluster, not a loop of questions. Below that prefix: `k/KEY` values, `e/KEY` where a queue begins and ends (it exists while
the queue is not empty, which is what "a queue counts as existing" needs), `q/KEY/NUMBER` its items, `b/KEY` barriers, and `life`.

A round whose lease has ended may begin anew under the same name: every write is fenced by the life that its writer is in (rounds.py).
"""

from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Awaitable, Callable, Final, Iterator, Sequence, TypeVar

from raftkv.client.requests import Bytes, as_bytes
from raftkv.client.results import RangeResult, TxnResult
from raftkv.client.txn import Delete, Get, Operation, Put, Range, Value, missing
from raftkv.client.watch_verbs import WaitResult
from raftkv.errors import (
    DeadlineExceeded,
    FencingTokenStale,
    InvalidRequest,
    LeaseNotFound,
    NotANumber,
    QueueEmpty,
    RaftKVError,
)
from raftkv.recipes.places import check_seconds
from raftkv.recipes.rounds import Life, Scope, round_over
from raftkv.recipes.waiting import Deadline, check_lease, wait_keys
from raftkv.units import Revision

TTL_S: Final = 30.0
TIMEOUT_S: Final = 300.0
OPERATIONS_PER_TXN: Final = 64
KEYS_PER_WAIT: Final = 1_000
KEYS_PER_LOOK: Final = 32  # at first: their values come along, and may be large
SMALL_LOOK_BYTES: Final = 64 * 1024

ROUND: Final = "the round"

T = TypeVar("T")


@contextmanager
def _behind_a_write() -> Iterator[None]:
    """What fails in here comes after a write that was done: whoever believed that nothing has happened would do that one twice."""
    try:
        yield
    except RaftKVError as error:
        error.may_have_happened = True
        raise


class AsyncStore:
    """The store of a rendezvous; made by `kv.rendezvous(run_id, round_)`. Methods are named as TCPStore's, and do as they do."""

    def __init__(self, scope: Scope, prefix: bytes = b"", timeout: float = TIMEOUT_S) -> None:
        self._scope = scope
        self._kv = scope.kv
        self._prefix = prefix
        self._timeout = timeout

    @property
    def timeout(self) -> float:
        """Seconds that `get`, `wait`, `barrier` and the like wait at most, unless they are told otherwise."""
        return self._timeout

    @property
    def token(self) -> Revision | None:
        """The fencing token of the life of the round that we are in; None before our first write. Another one: another life."""
        life = self._scope.entered
        return None if life is None else life.token

    def set_timeout(self, timeout: float) -> None:
        """For this store; clones and prefixed stores have their own."""
        check_seconds(timeout, "timeout")
        self._timeout = timeout

    async def set(self, key: Bytes, value: Bytes) -> None:
        """Write; wakes who waits."""
        await self._write(lambda life: life.kv.put(self._key(key), value, lease=life.lease.id))

    async def get(self, key: Bytes, timeout: float | None = None) -> bytes:
        """The value, once it exists. Raises DeadlineExceeded."""
        return (await self.multi_get([key], timeout))[0]

    async def add(self, key: Bytes, amount: int) -> int:
        """Add to a number, which begins at 0 and is decimal text for `get`. Returns the new one. Raises NotANumber."""
        return await self._write(lambda life: life.kv.increment(self._key(key), amount, lease=life.lease.id))

    async def append(self, key: Bytes, value: Bytes) -> None:
        """Append to a value, which begins empty."""
        await self._write(lambda life: life.kv.append(self._key(key), value, lease=life.lease.id))

    async def compare_set(self, key: Bytes, expected: Bytes, desired: Bytes) -> bytes:
        """Write `desired` if the value is `expected`, or if there is none and `expected` is empty. What the value is then.

        Where there is none, and `expected` is not empty, nothing is written and `expected` is returned.
        """
        name, wanted, new = self._key(key), as_bytes(expected), as_bytes(desired)

        def swap(life: Life) -> Awaitable[TxnResult]:
            put = Put(name, new, lease=life.lease.id)
            otherwise = self._kv.txn().if_(missing(name)).then(*([] if wanted else [put])).else_(Get(name))
            return life.kv.txn().if_(Value(name) == wanted).then(put).else_(otherwise).commit()

        done = await self._write(swap)
        if done.succeeded:
            return new
        inner = done.responses[0]
        assert isinstance(inner, TxnResult), "the branch is a transaction"
        if inner.succeeded:
            return wanted if wanted else new
        found = inner.responses[0]
        assert isinstance(found, RangeResult), "a read"
        return found.kvs[0].value

    async def check(self, keys: Sequence[Bytes]) -> bool:
        """Whether all exist; True for none."""
        return not await self._missing(list(keys))

    async def wait(self, keys: Sequence[Bytes], timeout: float | None = None) -> None:
        """Until all exist; a queue that is not empty counts. Raises DeadlineExceeded."""
        deadline = self._deadline(timeout)
        start, size = 0, KEYS_PER_LOOK
        while start < len(keys):
            missing, came_bytes = list(keys[start : start + size]), 0
            while missing:
                missing, found_bytes = await self._still_missing(missing, deadline)
                came_bytes += found_bytes
                if missing:  # ranks come one after the other: when the last one is there, most are
                    await self._still_missing(missing[-1:], deadline)
            start += size
            if came_bytes < SMALL_LOOK_BYTES:
                size = min(4 * size, KEYS_PER_WAIT // 2)

    async def _still_missing(self, keys: list[Bytes], deadline: Deadline) -> tuple[list[Bytes], int]:
        """Those that do not exist once any of them does, and the size of what was found. Nothing is written, so many may ask.

        Raises DeadlineExceeded.
        """
        either = [name for key in keys for name in (self._key(key), self._mark(key))]
        found = await self._wait(either, deadline, any=True)
        if found is None:
            raise _in_vain(keys)
        there = [kv is not None for kv in found.kvs]
        missing = [key for place, key in enumerate(keys) if not (there[2 * place] or there[2 * place + 1])]
        return missing, sum(len(kv.value) for kv in found.kvs if kv is not None)

    async def multi_get(self, keys: Sequence[Bytes], timeout: float | None = None) -> list[bytes]:
        """The values, once all exist. Raises DeadlineExceeded."""
        deadline = self._deadline(timeout)
        names = [self._key(key) for key in keys]
        values: list[bytes] = []
        for start in range(0, len(names), KEYS_PER_WAIT):
            part = names[start : start + KEYS_PER_WAIT]
            found = await self._wait(part, deadline)
            if found is None:
                raise _in_vain(keys[start : start + len(part)])
            values += [kv.value for kv in found.kvs if kv is not None]
        assert len(values) == len(names), "all of them exist"
        return values

    async def multi_set(self, keys: Sequence[Bytes], values: Sequence[Bytes]) -> None:
        """Write all: up to 64 at once, more in parts. Raises InvalidRequest."""
        if len(keys) != len(values):
            raise InvalidRequest(f"{len(keys)} keys and {len(values)} values")
        pairs = {self._key(key): value for key, value in zip(keys, values, strict=True)}
        names = list(pairs)
        for start in range(0, len(names), OPERATIONS_PER_TXN):
            part = {name: pairs[name] for name in names[start : start + OPERATIONS_PER_TXN]}
            with _behind_a_write() if start else nullcontext():
                await self._write(partial(self._put_all, part))

    @staticmethod
    def _put_all(pairs: dict[bytes, Bytes], life: Life) -> Awaitable[TxnResult]:
        return life.kv.txn().then(*(Put(name, value, lease=life.lease.id) for name, value in pairs.items())).commit()

    async def delete_key(self, key: Bytes) -> bool:
        """Whether there was one."""
        return bool(await self._write(lambda life: life.kv.delete(self._key(key))))

    async def num_keys(self) -> int:
        """Of the whole round, also through a prefix; queues are not counted."""
        return (await self._kv.range(prefix=self._scope.prefix + b"k/", count_only=True)).count

    async def list_keys(self) -> list[bytes]:
        """Those with this store's prefix, without it; queues are not listed."""
        start = self._scope.prefix + b"k/" + self._prefix
        found = await self._kv.range(prefix=start, keys_only=True)
        return [kv.key[len(start) :] for kv in found.kvs]

    async def queue_push(self, key: Bytes, value: Bytes) -> None:
        """Append to a queue, first in first out; wakes who waits."""
        while True:
            head, tail, mark = await self._bounds(key)
            done = await self._write(partial(self._push, key, value, head, tail, mark))
            if done.succeeded:
                return

    async def queue_pop(self, key: Bytes, block: bool = True, timeout: float | None = None) -> bytes:
        """The first of a queue, once there is one. Raises DeadlineExceeded, or QueueEmpty without `block`."""
        deadline = self._deadline(timeout)
        while True:
            head, tail, mark = await self._bounds(key)
            if head == tail:
                if not block:
                    raise QueueEmpty(f"queue {as_bytes(key)!r} is empty")
                if await self._wait([self._mark(key)], deadline) is None:
                    raise DeadlineExceeded(f"waited in vain for something in queue {as_bytes(key)!r}")
                continue
            item = self._item(key, head)
            taken = await self._write(partial(self._pop, key, item, head, tail, mark))
            if taken.succeeded:
                found = taken.responses[0]
                assert isinstance(found, RangeResult), "a read"
                return found.kvs[0].value

    def _push(self, key: Bytes, value: Bytes, head: int, tail: int, mark: Any, life: Life) -> Awaitable[TxnResult]:
        bounds = Put(self._mark(key), b"%d %d" % (head, tail + 1), lease=life.lease.id)
        return life.kv.txn().if_(mark).then(bounds, Put(self._item(key, tail), value, lease=life.lease.id)).commit()

    def _pop(self, key: Bytes, item: bytes, head: int, tail: int, mark: Any, life: Life) -> Awaitable[TxnResult]:
        bounds: Operation = Put(self._mark(key), b"%d %d" % (head + 1, tail), lease=life.lease.id)
        if head + 1 == tail:
            bounds = Delete(self._mark(key))
        return life.kv.txn().if_(mark).then(Get(item), Delete(item), bounds).commit()

    async def queue_len(self, key: Bytes) -> int:
        """How many are in a queue."""
        head, tail, _ = await self._bounds(key)
        return tail - head

    async def barrier(self, key: Bytes, world_size: int, timeout: float | None = None) -> None:
        """Until `world_size` have come. Once per key: a second barrier on it is passed at once. Raises DeadlineExceeded."""
        deadline = self._deadline(timeout)
        count = self._scope.prefix + b"b/" + self._prefix + as_bytes(key)
        opened = count + b"/open"
        arrived = await self._write(lambda life: life.kv.increment(count + b"/n", lease=life.lease.id))
        if arrived >= world_size:
            with _behind_a_write():
                await self._write(lambda life: life.kv.put(opened, "", lease=life.lease.id))
            return
        if await self._wait([opened], deadline) is None:
            raise DeadlineExceeded(
                f"{arrived} of {world_size} had come to barrier {as_bytes(key)!r} with us, not all came"
            )

    def prefixed(self, prefix: Bytes) -> "AsyncStore":
        """The same store with `prefix/` in front of all keys; prefixes of prefixes stand in front of each other, as PrefixStore's do."""
        return AsyncStore(self._scope, self._prefix + as_bytes(prefix) + b"/", self._timeout)

    def clone(self) -> "AsyncStore":
        """Another one of the same, with its own timeout."""
        return AsyncStore(self._scope, self._prefix, self._timeout)

    async def close(self) -> None:
        """Keep the round alive no more: it ends when the last participant has stopped for as long as its `ttl`."""
        await self._scope.leave()

    async def __aenter__(self) -> "AsyncStore":
        await self._scope.life()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        await self.close()

    def _key(self, key: Bytes) -> bytes:
        return self._scope.prefix + b"k/" + self._prefix + as_bytes(key)

    def _mark(self, key: Bytes) -> bytes:
        return self._scope.prefix + b"e/" + self._prefix + as_bytes(key)

    def _item(self, key: Bytes, number: int) -> bytes:
        return self._scope.prefix + b"q/" + self._prefix + as_bytes(key) + b"/%020d" % number

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)

    async def _write(self, write: Callable[[Life], Awaitable[T]]) -> T:
        """A write in our life of the round. Raises LockLost when that has ended."""
        life = await self._scope.life()
        try:
            return await write(life)
        except (LeaseNotFound, FencingTokenStale) as error:
            raise round_over(may_have_happened=error.may_have_happened) from error

    async def _wait(self, names: Sequence[bytes], deadline: Deadline, *, any: bool = False) -> WaitResult | None:
        """Until they exist; None when the time is over. Whoever is in a life of the round is told when that ends (LockLost)."""
        life = self._scope.entered
        lease = None if life is None else life.lease
        found = await wait_keys(self._kv, names, until="exists", any=any, deadline=deadline, lease=lease, what=ROUND)
        if lease is not None and found is not None:
            check_lease(lease, ROUND)  # the answer may be of the next life
        return found

    async def _bounds(self, key: Bytes) -> tuple[int, int, Any]:
        """Where a queue begins and ends, and the condition that it still does."""
        mark = self._mark(key)
        kv = await self._kv.get_kv(mark)
        if kv is None:
            return 0, 0, missing(mark)
        head, tail = map(int, kv.value.split())
        return head, tail, Value(mark) == kv.value

    async def _missing(self, keys: list[Bytes]) -> list[Bytes]:
        """Those that neither have a value nor a queue with something in it; asked for in one request each 64."""
        absent: list[Bytes] = []
        for start in range(0, len(keys), OPERATIONS_PER_TXN):
            part = keys[start : start + OPERATIONS_PER_TXN]
            looks = [Range(name, count_only=True) for key in part for name in (self._key(key), self._mark(key))]
            found = (await self._kv.txn().then(*looks).commit()).responses
            counts = [row.count for row in found if isinstance(row, RangeResult)]
            absent += [key for place, key in enumerate(part) if not (counts[2 * place] or counts[2 * place + 1])]
        return absent


def _in_vain(keys: Sequence[Bytes]) -> DeadlineExceeded:
    others = f" and {len(keys) - 1} other keys" if len(keys) > 1 else ""
    return DeadlineExceeded(f"waited in vain for {as_bytes(keys[0])!r}{others}")


__all__ = ["AsyncStore", "NotANumber", "Scope"]
