"""raftkv's recipes as the harness speaks of them: who holds a share, who works on an item, who has come to a meeting.

They are the library's own, on the library's client; here their errors become ClientErrors and their bytes text.
"""

from typing import Any, Awaitable, Final, Sequence, TypeVar

from raftkv.errors import RaftKVError, WatchCompacted
from raftkv_jepsen.clients.base import ClientError

T = TypeVar("T")
ATTEMPTS: Final = 1_000


def error_of(error: RaftKVError) -> ClientError:
    """The code is what people look for; the text says where it was tried."""
    begins = error.compact_revision if isinstance(error, WatchCompacted) else 0
    return ClientError(
        f"{error.code}: {error.message}", may_have_happened=error.may_have_happened, history_begins=begins
    )


async def asked(call: Awaitable[T]) -> T:
    """The answer. Raises ClientError."""
    try:
        return await call
    except RaftKVError as error:
        raise error_of(error) from error


class NativeRecipes:
    """Everything on one client of the library."""

    def __init__(self, kv: Any) -> None:
        self._kv = kv

    def semaphore(self, name: str, capacity: int, weight: int, ttl_s: float) -> "SemaphoreShare":
        return SemaphoreShare(self._kv.semaphore(name, capacity, weight=weight, ttl=ttl_s))

    async def make_pool(self, name: str, capacity: int) -> None:
        try:
            await self._kv.pool(name).create({"slot": capacity})
        except RaftKVError as error:
            if error.code != "pool_exists":
                raise error_of(error) from error

    def pool(self, name: str, weight: int, ttl_s: float) -> "PoolShare":
        return PoolShare(self._kv.pool(name), weight, ttl_s)

    def queue(self, name: str, ttl_s: float) -> "WorkQueue":
        return WorkQueue(self._kv.queue(name, ttl=ttl_s))

    def jobs(self, name: str, ttl_s: float) -> "JobQueue":
        return JobQueue(self._kv.jobs(name, ttl=ttl_s))

    def meeting(self, name: str, count: int, ttl_s: float) -> "MeetingPoint":
        return MeetingPoint(self._kv.double_barrier(name, count, ttl=ttl_s))

    def gate(self, name: str) -> "BarrierGate":
        return BarrierGate(self._kv.barrier(name))

    def store(self, run_id: str, round_: int, ttl_s: float) -> "RoundStore":
        return RoundStore(self._kv.rendezvous(run_id, round_, ttl=ttl_s))


class SemaphoreShare:
    """raftkv.recipes.semaphore, for one owner."""

    def __init__(self, semaphore: Any) -> None:
        self._semaphore = semaphore

    async def acquire(self, timeout_s: float) -> int:
        return int(await asked(self._semaphore.acquire(timeout_s)))

    async def release(self) -> None:
        await asked(self._semaphore.release())

    @property
    def surely_held(self) -> bool:
        return bool(self._semaphore.held and self._semaphore.valid_for > 0)


class PoolShare:
    """A grant of raftkv.recipes.pool."""

    def __init__(self, pool: Any, weight: int, ttl_s: float) -> None:
        self._pool = pool
        self._weight = weight
        self._ttl_s = ttl_s
        self._grant: Any = None

    async def acquire(self, timeout_s: float) -> int:
        self._grant = await asked(self._pool.acquire({"slot": self._weight}, timeout=timeout_s, ttl=self._ttl_s))
        return int(self._grant.token)

    async def release(self) -> None:
        grant, self._grant = self._grant, None
        await asked(grant.release())

    @property
    def surely_held(self) -> bool:
        return self._grant is not None and self._grant.valid_for > 0


class ItemClaim:
    """An item in our hands."""

    def __init__(self, claim: Any) -> None:
        self._claim = claim
        self.value = claim.value.decode()
        self.token = int(claim.token)

    async def acknowledge(self) -> None:
        await asked(self._claim.ack())

    async def give_back(self) -> None:
        await asked(self._claim.give_back())


class WorkQueue:
    """raftkv.recipes.queue, for one worker."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    async def put(self, value: str) -> None:
        await asked(self._queue.put(value))

    async def claim(self, timeout_s: float) -> ItemClaim:
        return ItemClaim(await asked(self._queue.claim(timeout_s)))

    async def close(self) -> None:
        await asked(self._queue.close())


class JobClaim:
    """A job that we work on."""

    def __init__(self, claim: Any) -> None:
        self._claim = claim
        self.value = str(claim.id)
        self.token = int(claim.token)

    async def acknowledge(self) -> None:
        await asked(self._claim.complete("done"))

    async def give_back(self) -> None:
        await asked(self._claim.give_back())


class JobQueue:
    """raftkv.recipes.jobs, for one worker or submitter. A job may be tried for ever: what counts here is that it is done once."""

    def __init__(self, jobs: Any) -> None:
        self._jobs = jobs

    async def put(self, value: str) -> None:
        await asked(self._jobs.submit("payload", job_id=value, attempts=ATTEMPTS))

    async def claim(self, timeout_s: float) -> JobClaim:
        return JobClaim(await asked(self._jobs.claim(timeout_s)))

    async def close(self) -> None:
        await asked(self._jobs.close())


class BarrierGate:
    """raftkv.recipes.barrier's gate."""

    def __init__(self, barrier: Any) -> None:
        self._barrier = barrier

    async def close(self) -> bool:
        return bool(await asked(self._barrier.close()))

    async def open(self) -> bool:
        return bool(await asked(self._barrier.open()))

    async def is_closed(self) -> bool:
        return bool(await asked(self._barrier.is_closed()))

    async def wait(self, timeout_s: float) -> None:
        await asked(self._barrier.wait(timeout_s))


class RoundStore:
    """raftkv.recipes.rendezvous, for one participant of one round."""

    def __init__(self, store: Any) -> None:
        self._store = store

    async def enter(self) -> int:
        await asked(self._store.__aenter__())
        token: int = self._store.token
        return token

    async def add(self, key: str, amount: int) -> int:
        return int(await asked(self._store.add(key, amount)))

    async def set(self, key: str, value: str) -> None:
        await asked(self._store.set(key, value))

    async def multi_get(self, keys: Sequence[str], timeout_s: float) -> list[str]:
        return [value.decode() for value in await asked(self._store.multi_get(list(keys), timeout_s))]

    async def barrier(self, key: str, count: int, timeout_s: float) -> None:
        await asked(self._store.barrier(key, count, timeout_s))

    async def close(self) -> None:
        await asked(self._store.close())


class MeetingPoint:
    """raftkv.recipes.barrier, for one participant of one round."""

    def __init__(self, barrier: Any) -> None:
        self._barrier = barrier

    async def enter(self, timeout_s: float) -> None:
        await asked(self._barrier.enter(timeout_s))

    async def leave(self, timeout_s: float) -> None:
        await asked(self._barrier.leave(timeout_s))
