"""Queue: every item is handed to one worker at a time, and handed out again when that worker dies.

An item is `NAME/i/<priority>/<number>`, named so that key order is the order of the queue; a claim is `NAME/c/` with the same rest, on the
worker's lease. Claiming is one transaction (the item is there, the claim is not), acknowledging another (the claim still is the one that we
made: then item and claim go together). So an item is lost by nobody's death, and a worker that is too late learns it instead of acknowledging
what somebody else is working on. Each claim touches the item, whose version thereby counts how often it was handed out.
"""

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence, cast

from raftkv.client.requests import Bytes
from raftkv.client.results import KeyValue, RangeResult
from raftkv.client.txn import CreateRevision, Delete, ModRevision, Put, Range, Value, exists, missing
from raftkv.errors import InvalidRequest, LeaseNotFound, LockLost, NotAcquired, NotHeld, RaftKVError
from raftkv.recipes.places import Session, check_seconds, nonce, prefix_of, shown
from raftkv.recipes.verbs import Kept, Verbs, blocking, run
from raftkv.recipes.waiting import Deadline, check_lease, wait_keys
from raftkv.units import Revision
from raftkv.wire.commands import IGNORE_VALUE

if TYPE_CHECKING:
    from raftkv.client.guarded import AsyncGuarded, Guarded
    from raftkv.client.sync import Client

TTL_S = 10.0
PRIORITY_MAX = 10**9
LOOK_AHEAD = 32
CLAIMS_WATCHED = 1_000


class Item(NamedTuple):
    """An item in the queue, as seen from outside."""

    id: bytes
    value: bytes
    priority: int
    attempts: int
    """How often it was handed out."""
    claimed: bool


def unclaimed(items: Sequence[KeyValue], claims: Sequence[KeyValue], prefix: bytes) -> list[KeyValue]:
    """The items that nobody works on, in order."""
    taken = {claim.key[len(prefix) + 2 :] for claim in claims}
    return [item for item in items if item.key[len(prefix) + 2 :] not in taken]


def _touch(item: bytes) -> Put:
    """Its version counts the claims; the value stays, and does not travel."""
    put = Put(item, b"")
    put.command[5] |= IGNORE_VALUE
    return put


class AsyncClaim:
    """An item in our hands. Leaving its block acknowledges it, or gives it back after an exception."""

    def __init__(self, queue: "AsyncQueue", item: KeyValue, claim: bytes, token: Revision, lease: Kept) -> None:
        self._queue = queue
        self._item = item
        self._claim = claim
        self._lease = lease
        self._open = True
        self.token = token
        """The fencing token of this claim."""
        self.value = item.value
        self.attempt = item.version
        """1 when it is handed out for the first time."""

    @property
    def id(self) -> bytes:
        """What `put` returned."""
        return self._item.key[len(self._queue.prefix) + 2 :]

    @property
    def lost(self) -> Any:
        """An event: set when the claim is gone, or when nobody can tell any more."""
        return self._lease.lost

    def guard(self, kv: Any = None) -> "AsyncGuarded":
        """The writes of a client, each refused by the cluster once the item is not ours any more."""
        client: Any = self._queue.kv if kv is None else kv
        guarded: AsyncGuarded = client.guarded(self._claim, self.token)
        return guarded

    async def ack(self) -> None:
        """It is done: take it out of the queue. Raises NotHeld, or LockLost when it is, or was, in somebody else's hands."""
        await self._end(Delete(self._item.key), Delete(self._claim))

    async def give_back(self) -> None:
        """Somebody else shall do it, at once. Raises NotHeld, LockLost."""
        await self._end(Delete(self._claim))

    async def _end(self, *operations: Delete) -> None:
        if not self._open:
            raise NotHeld("the item was acknowledged or given back before")
        ours = CreateRevision(self._claim) == self.token
        done = await self._queue.kv.txn().if_(ours).then(*operations).commit()
        self._open = False
        if not done.succeeded:
            raise LockLost("the claim was lost before this: the item is handed out again", details={"id": self.id})

    async def __aenter__(self) -> "AsyncClaim":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._open:
            return
        if error is None:
            await self.ack()
            return
        try:
            await self.give_back()
        except LockLost:
            pass


class AsyncQueue:
    """A queue of items for workers; made by `kv.queue(name)`. Its claims hang on one session: `close`, or leave its block, when done."""

    def __init__(self, kv: Verbs, name: Bytes, *, ttl: float = TTL_S, lease: Any = None) -> None:
        check_seconds(ttl, "ttl")
        self.kv = kv
        self._name = name
        self.prefix = prefix_of(name)
        self._session = Session(kv, ttl, lease)

    async def put(self, value: Bytes, *, priority: int = 0, timeout: float | None = None) -> bytes:
        """Append an item; a larger `priority` is handed out earlier. Returns its id. Raises InvalidRequest."""
        if not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
            raise InvalidRequest(f"a priority is between -{PRIORITY_MAX} and {PRIORITY_MAX}")
        number = await self.kv.increment(self.prefix + b"n", timeout=timeout)
        item = b"%010d/%020d" % (PRIORITY_MAX - priority, number)
        put, ring = Put(self.prefix + b"i/" + item, value), Put(self.prefix + b"bell", "")
        await self.kv.txn().then(put, ring).commit(timeout=timeout)
        return item

    async def claim(self, timeout: float | None = None) -> AsyncClaim:
        """The next item, once there is one, within `timeout` seconds (0: only if there is one now). Raises NotAcquired.

        It is ours until it is acknowledged, given back, or our session ends: then it is handed out again.
        """
        deadline = Deadline(timeout)
        misses = 0
        while True:
            lease = await self._session.enter()
            free, claims, revision = await self._look(misses)
            if not free:
                if deadline.has_passed or not await self._wait(claims, revision, deadline):
                    raise NotAcquired(
                        f"queue {shown(self._name)!r} had nothing to do", details={"name": self.prefix[:-1]}
                    )
                misses = 0
                continue
            # Whoever lost a race looks further behind: a hundred workers do not fight for one item a hundred times.
            item = free[int.from_bytes(os.urandom(2)) % min(len(free), 1 + 2 * misses)]
            taken = await self._take(item, lease)
            if taken is not None:
                return taken
            misses += not lease.lost.is_set()  # a session that ended is no race

    async def items(self) -> list[Item]:
        """All items, in the order in which they are handed out."""
        found, claims = await self._both(0)
        taken = {claim.key[len(self.prefix) + 2 :] for claim in claims.kvs}
        listed = []
        for kv in found.kvs:
            name = kv.key[len(self.prefix) + 2 :]
            priority = PRIORITY_MAX - int(name.partition(b"/")[0])
            listed.append(Item(name, kv.value, priority, kv.version - 1, name in taken))
        return listed

    async def length(self) -> int:
        """How many items there are, those in somebody's hands included."""
        return (await self.kv.range(prefix=self.prefix + b"i/", count_only=True)).count

    async def remove(self, item: bytes) -> bool:
        """Take an item out, whoever has it. Returns whether it was there."""
        key = self.prefix + b"i/" + item
        done = await self.kv.txn().if_(exists(key)).then(Delete(key), Delete(self.prefix + b"c/" + item)).commit()
        return done.succeeded

    async def close(self) -> None:
        """End the session; what is claimed and not acknowledged is handed out again."""
        await self._session.end()

    async def __aenter__(self) -> "AsyncQueue":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        await self.close()

    async def _take(self, item: KeyValue, lease: Kept) -> AsyncClaim | None:
        """None when somebody was faster, or our session ended meanwhile."""
        claim, mine = self.prefix + b"c/" + item.key[len(self.prefix) + 2 :], f"{lease.id:x}-{nonce()}"
        try:
            done = await (
                self.kv.txn()
                .if_(ModRevision(item.key) == item.mod_revision, missing(claim))
                .then(Put(claim, mine, lease=lease.id), _touch(item.key))
                .commit()
            )
        except LeaseNotFound:  # it ended before we had noticed
            await self._session.end(lease)
            if self._session.is_of_user:
                raise
            return None
        except BaseException:
            await self._disown(claim, mine)
            raise
        if not done.succeeded:
            return None
        if lease.valid_for <= 0:  # the answer was too long on its way
            await self._session.end(lease)
            if self._session.is_of_user:
                check_lease(lease, f"queue {shown(self._name)!r}")
            return None
        return AsyncClaim(self, item, claim, done.revision, lease)

    async def _disown(self, claim: bytes, mine: str) -> None:
        """Perhaps it is ours, and nobody will hear of it: it must not stay in the hands of a session that goes on."""
        try:
            await self.kv.txn().if_(Value(claim) == mine).then(Delete(claim)).commit()
        except RaftKVError:
            await self._session.end()

    async def _both(self, limit: int) -> tuple[RangeResult, RangeResult]:
        """Items and claims, at one revision."""
        items = Range(prefix=self.prefix + b"i/", limit=limit)
        claims = Range(prefix=self.prefix + b"c/", keys_only=True)
        looked = await self.kv.txn().then(items, claims).commit()
        found, taken = looked.responses
        assert isinstance(found, RangeResult) and isinstance(taken, RangeResult), "two ranges"
        return found._replace(revision=looked.revision), taken

    async def _look(self, misses: int) -> tuple[list[KeyValue], list[KeyValue], Revision]:
        limit = LOOK_AHEAD + 2 * misses
        while True:
            found, claims = await self._both(limit)
            free = unclaimed(found.kvs, claims.kvs, self.prefix)
            if free or not found.more:
                return free, claims.kvs, found.revision
            limit = max(2 * limit, len(claims.kvs) + LOOK_AHEAD)

    async def _wait(self, claims: list[KeyValue], revision: Revision, deadline: Deadline) -> bool:
        """Until an item comes, or a claim goes, after `revision`; False when the time is over."""
        bell = self.prefix + b"bell"
        if await self.kv.put_if_absent(bell, ""):
            return True
        done = await wait_keys(
            self.kv,
            [bell, *(claim.key for claim in claims[:CLAIMS_WATCHED])],
            until="differs",
            any=True,
            after=revision,
            deadline=deadline,
        )
        return done is not None


class Claim:
    """An item in our hands. Leaving its block acknowledges it, or gives it back after an exception."""

    def __init__(self, claim: AsyncClaim, kv: "Client") -> None:
        self._claim = claim
        self._kv = kv
        self.token = claim.token
        """The fencing token of this claim."""
        self.value = claim.value
        self.attempt = claim.attempt
        """1 when it is handed out for the first time."""

    @property
    def id(self) -> bytes:
        """What `put` returned."""
        return self._claim.id

    @property
    def lost(self) -> Any:
        """An event: set when the claim is gone, or when nobody can tell any more."""
        return self._claim.lost

    def guard(self, kv: Any = None) -> "Guarded":
        """The writes of a client, each refused by the cluster once the item is not ours any more."""
        return cast("Guarded", self._claim.guard(self._kv if kv is None else kv))

    def ack(self) -> None:
        """It is done: take it out of the queue. Raises NotHeld, or LockLost when it is, or was, in somebody else's hands."""
        run(self._claim.ack())

    def give_back(self) -> None:
        """Somebody else shall do it, at once. Raises NotHeld, LockLost."""
        run(self._claim.give_back())

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        run(self._claim.__aexit__(kind, error, trace))


class Queue:
    """A queue of items for workers; made by `kv.queue(name)`. Its claims hang on one session: `close`, or leave its block, when done."""

    def __init__(self, kv: "Client", name: Bytes, *, ttl: float = TTL_S, lease: Any = None) -> None:
        self._kv = kv
        self._queue = AsyncQueue(blocking(kv), name, ttl=ttl, lease=lease)

    def put(self, value: Bytes, *, priority: int = 0, timeout: float | None = None) -> bytes:
        """Append an item; a larger `priority` is handed out earlier. Returns its id. Raises InvalidRequest."""
        return run(self._queue.put(value, priority=priority, timeout=timeout))

    def claim(self, timeout: float | None = None) -> Claim:
        """The next item, once there is one, within `timeout` seconds (0: only if there is one now). Raises NotAcquired.

        It is ours until it is acknowledged, given back, or our session ends: then it is handed out again.
        """
        return Claim(run(self._queue.claim(timeout)), self._kv)

    def items(self) -> list[Item]:
        """All items, in the order in which they are handed out."""
        return run(self._queue.items())

    def length(self) -> int:
        """How many items there are, those in somebody's hands included."""
        return run(self._queue.length())

    def remove(self, item: bytes) -> bool:
        """Take an item out, whoever has it. Returns whether it was there."""
        return run(self._queue.remove(item))

    def close(self) -> None:
        """End the session; what is claimed and not acknowledged is handed out again."""
        run(self._queue.close())

    def __enter__(self) -> "Queue":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close()
