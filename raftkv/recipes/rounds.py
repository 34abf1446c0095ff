"""The round of a rendezvous, and the life that a participant is in: what its keys hang on, and what its writes are fenced by.

All participants keep one lease alive together, whose id follows from the round's name; nobody owns it. When it has ended, the round may begin anew under the
same name, with a lease of the same id, and a participant of the first life that was cut off meanwhile would not see the difference. `life` tells the two apart:
whoever comes first puts that key on the lease, and every write is guarded by the revision at which it was made. Whoever was in the life before is told, and
changes nothing in the next one.
"""

from hashlib import blake2b
from typing import NamedTuple

from raftkv.client.results import RangeResult
from raftkv.client.txn import Get, Put, missing
from raftkv.errors import InvalidRequest, LeaseNotFound, LockLost
from raftkv.recipes.places import check_seconds
from raftkv.recipes.verbs import GuardedVerbs, Kept, Verbs
from raftkv.units import Revision


class Life(NamedTuple):
    """What a participant has of the life of a round that it is in."""

    lease: Kept
    token: Revision
    """When it began: the fencing token of all writes in it."""
    kv: GuardedVerbs


class Scope:
    """One (run id, round) of one client: the prefix, and the life, which is entered with the first write."""

    def __init__(self, kv: Verbs, run_id: str, round_: int, ttl: float) -> None:
        check_seconds(ttl, "ttl")
        if not run_id or "/" in run_id:
            raise InvalidRequest("a run id is text without /")
        if round_ < 0:
            raise InvalidRequest(f"a round is a number of 0 or more, not {round_}")
        self.kv = kv
        self.prefix = f"rdzv/{run_id}/{round_}/".encode()
        self._ttl = ttl
        self._life: dict[str, Life] = {}

    @property
    def entered(self) -> Life | None:
        """The life that we are in; None before the first write."""
        return self._life.get("it")

    async def life(self) -> Life:
        """Kept alive from here on. Raises LockLost when it has ended without us."""
        life = self.entered
        if life is None:
            shared_id = (int.from_bytes(blake2b(self.prefix, digest_size=8).digest()) >> 1) or 1
            lease = self.kv.lease(self._ttl, shared_id=shared_id)
            await lease.__aenter__()
            try:
                token = await self._begin(lease.id)
            except BaseException:
                await lease.revoke()
                raise
            mine = Life(lease, token, self.kv.guarded(self._name, token))
            # Tasks and threads share a store. Two that come first at once keep one alive, which `leave` knows of.
            life = self._life.setdefault("it", mine)
            if life is not mine:
                await lease.revoke()
        if life.lease.lost.is_set():
            raise round_over()
        return life

    async def leave(self) -> None:
        life = self._life.pop("it", None)
        if life is not None:
            await life.lease.revoke()

    @property
    def _name(self) -> bytes:
        return self.prefix + b"life"

    async def _begin(self, lease: int) -> Revision:
        """When this life began; it does now, if nobody else is in it."""
        found = await self.kv.get_kv(self._name)
        if found is not None:
            return found.create_revision
        try:
            done = (
                await self.kv.txn()
                .if_(missing(self._name))
                .then(Put(self._name, "", lease=lease))
                .else_(Get(self._name))
                .commit()
            )
        except LeaseNotFound as error:
            raise round_over() from error
        if done.succeeded:
            return done.revision
        other = done.responses[0]
        assert isinstance(other, RangeResult), "a read"
        return other.kvs[0].create_revision


def round_over(*, may_have_happened: bool = False) -> LockLost:
    return LockLost("the round is over: its lease has ended", may_have_happened=may_have_happened)
