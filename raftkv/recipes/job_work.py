"""How jobs get from hand to hand: the keys, the transitions, and how a worker finds its next job. The recipe is in jobs.py.

Every transition is one transaction: the document is as it was read, the claim is the one that the token names (its create revision), and
document, indexes and claims change together. What is decided upon was read at one revision (Sight); a document that changed after
that revision is left alone.
"""

import os
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

from raftkv.client.requests import Bytes
from raftkv.client.results import KeyValue, RangeResult
from raftkv.client.txn import Compare, CreateRevision, Delete, ModRevision, Operation, Put, Range, missing
from raftkv.errors import FencingTokenStale, JobNotFound, RaftKVError
from raftkv.recipes import job_model
from raftkv.recipes.job_model import QUEUED, RUNNING, SUCCEEDED, TIMED_OUT, Job, unpack_job
from raftkv.recipes.places import Session, check_seconds, nonce, prefix_of
from raftkv.recipes.verbs import Kept, Verbs
from raftkv.recipes.waiting import Deadline, check_lease, wait_keys
from raftkv.units import Revision

if TYPE_CHECKING:
    from raftkv.client.guarded import AsyncGuarded

TTL_S = 10.0
QUEUED_LOOKED_AT = 64
WATCHED_MAX = 1_000


class Sight(NamedTuple):
    """What a worker sees, at one revision."""

    queued: list[str]
    """In order."""
    running: dict[str, tuple[int, bool]]
    """How many workers each has, and whether it has a run limit."""
    claims: dict[str, list[KeyValue]]
    timers: set[str]
    revision: Revision


class AsyncJobClaim:
    """A job in our hands. Leaving its block completes it, or reports a failure after an exception."""

    def __init__(self, jobs: "JobWork", job: Job, key: bytes, token: Revision, rank: int, lease: Kept) -> None:
        self._jobs = jobs
        self._key = key
        self._lease = lease
        self._open = True
        self.job = job
        """As it was when it began."""
        self.token = token
        """The fencing token of this claim."""
        self.rank = rank
        """Which of its workers we are, from 0."""

    @property
    def id(self) -> str:
        """Of the job."""
        return self.job.id

    @property
    def lost(self) -> Any:
        """An event: set when our session is gone, or when nobody can tell any more."""
        return self._lease.lost

    def guard(self, kv: Any = None) -> "AsyncGuarded":
        """The writes of a client, each refused by the cluster once the job is not ours any more."""
        client: Any = self._jobs.kv if kv is None else kv
        guarded: AsyncGuarded = client.guarded(self._key, self.token)
        return guarded

    async def heartbeat(self, progress: str = "") -> Job:
        """Say how far it is. Raises FencingTokenStale when it is not ours any more: cancelled, timed out, or handed out again."""
        return await self._jobs.heartbeat(self.id, self.token, progress)

    async def complete(self, result: str = "") -> Job:
        """It is done. Raises FencingTokenStale: then this result counts for nothing."""
        self._open = False
        return await self._jobs.complete(self.id, self.token, result)

    async def fail(self, error: str, *, retry: bool = True) -> Job:
        """It cannot be done, now or (`retry=False`) at all. Raises FencingTokenStale."""
        self._open = False
        return await self._jobs.fail(self.id, self.token, error, retry=retry)

    async def give_back(self) -> Job:
        """Somebody else shall do it; this does not count as an attempt. Raises FencingTokenStale."""
        self._open = False
        return await self._jobs._end(
            self.id, self.token, lambda job, who: job.given_up(who, "given back", counts=False)
        )

    async def __aenter__(self) -> "AsyncJobClaim":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._open:
            return
        if error is None:
            await self.complete()
            return
        try:
            await self.fail(f"{type(error).__name__}: {error}")
        except (FencingTokenStale, JobNotFound):
            pass


class JobWork:
    """The base of AsyncJobs: everything but the verbs."""

    def __init__(self, kv: Verbs, name: Bytes, *, ttl: float = TTL_S, lease: Any = None, worker: str = "") -> None:
        check_seconds(ttl, "ttl")
        self.kv = kv
        self._prefix = prefix_of(name)
        self._worker = worker or f"{os.uname().nodename}:{os.getpid()}"
        self._session = Session(kv, ttl, lease)

    async def show(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        kv = await self.kv.get_kv(self._job_key(job_id))
        if kv is None:
            raise JobNotFound(f"there is no job {job_id!r}")
        return unpack_job(kv)

    async def heartbeat(self, job_id: str, token: Revision, progress: str = "") -> Job:
        """Renew the lease of a claim, and say how far the job is. Raises FencingTokenStale, JobNotFound."""
        while True:
            job, claim, _ = await self._held(job_id, token)
            await self.kv.lease_keep_alive_once(claim.lease)
            if not progress:
                return job
            told = replace(job, progress=progress)
            put = Put(self._job_key(job_id), told.pack())
            done = await self.kv.txn().if_(*self._unchanged(job), is_claim(claim)).then(put).commit()
            if done.succeeded:
                return at_revision(told, done.revision)

    async def complete(self, job_id: str, token: Revision, result: str = "") -> Job:
        """The holder of the claim says that it is done. Raises FencingTokenStale, JobNotFound."""
        return await self._end(job_id, token, lambda job, who: job.moved(SUCCEEDED, who, result=result, owners=[]))

    async def fail(self, job_id: str, token: Revision, error: str, *, retry: bool = True) -> Job:
        """The holder of the claim says that it failed. Raises FencingTokenStale, JobNotFound."""

        def failed(job: Job, who: str) -> Job:
            if retry:
                return job.given_up(who, error)
            return job.moved(job_model.FAILED, who, error=error, owners=[])

        return await self._end(job_id, token, failed)

    async def close(self) -> None:
        """End the session; what is claimed and has not ended is handed out again."""
        await self._session.end()

    # Keys.

    def _job_key(self, job_id: str) -> bytes:
        return self._prefix + b"j/" + job_id.encode()

    def _timer_key(self, job_id: str) -> bytes:
        return self._prefix + b"t/" + job_id.encode()

    def _ring(self) -> Operation:
        return Put(self._prefix + b"bell", "")

    def _index(self, old: Job | None, new: Job) -> list[Operation]:
        """What changes in the indexes between two states."""
        operations: list[Operation] = []
        queue, running = self._prefix + b"q/", self._prefix + b"r/" + new.id.encode()
        if old is not None and old.state == QUEUED:
            operations.append(Delete(queue + job_model.queue_name(old)))
        if new.state == QUEUED:
            operations.append(Put(queue + job_model.queue_name(new), ""))
        if old is not None and old.state == RUNNING:
            operations += [Delete(running), Delete(self._timer_key(new.id))]
        if new.state == RUNNING:
            operations.append(Put(running, job_model.pack_needs(new)))
        return operations

    def _unchanged(self, job: Job) -> list[Compare]:
        return [ModRevision(self._job_key(job.id)) == job.revision]

    # Steps.

    async def _look(self) -> Sight:
        """Everything that a worker has to know, at one revision."""
        parts = [
            Range(prefix=self._prefix + b"q/", limit=QUEUED_LOOKED_AT, keys_only=True),
            Range(prefix=self._prefix + b"r/"),
            *(Range(prefix=self._prefix + table, keys_only=True) for table in (b"c/", b"t/")),
        ]
        looked = await self.kv.txn().then(*parts).commit()
        start = len(self._prefix) + 2
        queued, running, claims, timers = (part.kvs for part in looked.responses if isinstance(part, RangeResult))
        return Sight(
            [job_model.id_of_queue_name(kv.key[start:]) for kv in queued],
            {kv.key[start:].decode(): job_model.unpack_needs(kv) for kv in running},
            job_model.claims_of(claims, self._prefix + b"c/"),
            {kv.key[start:].decode() for kv in timers},
            looked.revision,
        )

    async def _take(self, job_id: str, sight: Sight, lease: Kept, deadline: Deadline) -> AsyncJobClaim | None:
        """Claim a place in a queued job and wait until it begins; None when something came between: look again."""
        claims = sight.claims.get(job_id, [])
        job_kv = await self.kv.get_kv(self._job_key(job_id))
        if job_kv is None or job_kv.mod_revision > sight.revision:
            return None  # somebody came, or went, after we had counted the claims
        job = unpack_job(job_kv)
        if job.state != QUEUED or len(claims) >= job.workers:
            return None
        key = self._prefix + b"c/" + job_id.encode() + b"/" + f"{lease.id:x}-{nonce()}".encode()
        conditions = [*self._unchanged(job), *(is_claim(claim) for claim in claims), missing(key)]
        mine = Put(key, self._worker, lease=lease.id)
        if len(claims) + 1 < job.workers:
            if deadline.has_passed:
                return None
            # The document is written as it is: its new revision tells others that somebody has come.
            same = Put(self._job_key(job_id), job.pack())
            try:
                entered = await self.kv.txn().if_(*conditions).then(mine, same, self._ring()).commit()
                return await self._wait_for_others(job_id, key, lease, deadline) if entered.succeeded else None
            except BaseException:
                await self._disown(job_id, key)
                raise
        others = await self.kv.get_prefix(self._prefix + b"c/" + job_id.encode() + b"/") if claims else []
        owners = [kv.value.decode(errors="replace") for kv in sorted(others, key=lambda kv: kv.create_revision)]
        begun = job.begun([*owners, self._worker], self._worker)
        operations = [mine, Put(self._job_key(job_id), begun.pack()), *self._index(job, begun), self._ring()]
        timer = (await self.kv.lease_grant(job.run_limit)).id if job.run_limit else 0
        if timer:
            operations.append(Put(self._timer_key(job_id), "", lease=timer))  # nobody renews it
        try:
            done = await self.kv.txn().if_(*conditions).then(*operations).commit()
            if done.succeeded:
                check_lease(lease, "the worker's session")
                return AsyncJobClaim(self, at_revision(begun, done.revision), key, done.revision, len(claims), lease)
        except BaseException:
            await self._disown(job_id, key)
            raise
        if timer:
            await self.kv.lease_revoke(timer)
        return None

    async def _disown(self, job_id: str, key: bytes) -> None:
        """Perhaps the claim is there, and nobody will hear of it: it must not stay in the hands of a session that goes on."""
        try:
            while True:
                job_kv = await self.kv.get_kv(self._job_key(job_id))
                claims = await self.kv.get_prefix(self._prefix + b"c/" + job_id.encode() + b"/")
                mine = next((claim for claim in claims if claim.key == key), None)
                if mine is None or job_kv is None:
                    await self.kv.delete(key)
                    return
                job = unpack_job(job_kv)
                if job.state == RUNNING:
                    back = job.given_up(self._worker, "given back", counts=False)
                    if await self._write(job, back, [*self._unchanged(job), is_claim(mine)], claims):
                        return
                    continue
                left = self.kv.txn().if_(*self._unchanged(job)).then(Delete(key), self._ring())
                if (await left.commit()).succeeded:
                    return
        except RaftKVError:
            await self._session.end()

    async def _wait_for_others(self, job_id: str, key: bytes, lease: Kept, deadline: Deadline) -> AsyncJobClaim | None:
        """Until the job begins with us; None when we have left, because another job comes first or the time is over."""
        while True:
            sight = await self._look()
            ours = sight.claims.get(job_id, [])
            mine = next((claim for claim in ours if claim.key == key), None)
            job_kv = await self.kv.get_kv(self._job_key(job_id))
            if mine is None or job_kv is None:
                return None
            if job_kv.mod_revision > sight.revision:
                continue  # the claims that we saw are not those that it began with
            job = unpack_job(job_kv)
            if job.state == RUNNING:
                check_lease(lease, "the worker's session")
                return AsyncJobClaim(self, job, key, mine.create_revision, ours.index(mine), lease)
            others = [claim.key for claim in ours if claim.key != key]
            comes_first = job.state == QUEUED and sight.queued[:1] == [job_id]
            if not comes_first or not await self._wait(others, sight.revision, deadline):
                await self._step_back(key)

    async def _step_back(self, key: bytes) -> None:
        """Leave a job that has not begun; it may begin before we do, then we are in."""
        job_id = key[len(self._prefix) + 2 :].split(b"/")[0].decode()
        try:
            job_kv = await self.kv.get_kv(self._job_key(job_id))
            if job_kv is not None and unpack_job(job_kv).state == QUEUED:
                same = ModRevision(self._job_key(job_id)) == job_kv.mod_revision
                await self.kv.txn().if_(same).then(Delete(key), self._ring()).commit()
            elif job_kv is None or unpack_job(job_kv).state != RUNNING:
                await self.kv.delete(key)
        except RaftKVError:
            pass  # it hangs on the lease

    async def _wait(self, keys: Sequence[bytes], revision: Revision, deadline: Deadline) -> bool:
        bell = self._prefix + b"bell"
        if await self.kv.put_if_absent(bell, ""):
            return True
        watched = [bell, *keys[:WATCHED_MAX]]
        lease = await self._session.enter()
        done = await wait_keys(
            self.kv, watched, until="differs", any=True, after=revision, deadline=deadline, lease=lease, what="a worker"
        )
        return done is not None

    async def _reap(self, sight: Sight) -> list[str]:
        reaped = []
        for job_id, (workers, limited) in sight.running.items():
            alive = sight.claims.get(job_id, [])
            too_long = limited and job_id not in sight.timers
            if len(alive) >= workers and not too_long:
                continue
            job_kv = await self.kv.get_kv(self._job_key(job_id))
            if job_kv is None or job_kv.mod_revision > sight.revision:
                continue  # what was seen was of another run, perhaps
            job = unpack_job(job_kv)
            if job.state != RUNNING:
                continue
            if too_long:
                ended = job.moved(TIMED_OUT, self._worker, f"ran for longer than {job.run_limit:g} s", owners=[])
            else:
                ended = job.given_up(self._worker, f"{workers - len(alive)} of its workers died")
            if await self._write(job, ended, self._unchanged(job), alive):
                reaped.append(job_id)
        return reaped

    async def _write(
        self, job: Job, changed: Job, conditions: Sequence[Compare], claims: Sequence[KeyValue]
    ) -> Revision:
        """One transition: the document, its indexes, and the claims that go with it. The revision, or 0 when it was not as expected."""
        put = Put(self._job_key(job.id), changed.pack())
        operations = [put, *self._index(job, changed), *(Delete(claim.key) for claim in claims), self._ring()]
        timer = await self.kv.get_kv(self._timer_key(job.id)) if job.state == RUNNING and job.run_limit else None
        done = await self.kv.txn().if_(*conditions).then(*operations).commit()
        if done.succeeded and timer is not None:
            try:
                await self.kv.lease_revoke(timer.lease)
            except RaftKVError:
                pass  # it ends by itself
        return done.revision if done.succeeded else 0

    async def _move(self, job_id: str, change: Any, *, drops_claims: bool = False) -> Job:
        while True:
            job = await self.show(job_id)
            changed: Job = change(job)
            claims = await self.kv.get_prefix(self._prefix + b"c/" + job_id.encode() + b"/") if drops_claims else []
            revision = await self._write(job, changed, self._unchanged(job), claims)
            if revision:
                return at_revision(changed, revision)

    async def _held(self, job_id: str, token: Revision) -> tuple[Job, KeyValue, list[KeyValue]]:
        """The job, our claim, and all of its claims. Raises FencingTokenStale, JobNotFound."""
        claims = await self.kv.get_prefix(self._prefix + b"c/" + job_id.encode() + b"/")
        job = await self.show(job_id)
        ours = next((claim for claim in claims if claim.create_revision == token), None)
        if ours is None or job.state != RUNNING:
            raise FencingTokenStale(
                f"job {job_id!r} is {job.state}, and not in the hands of token {token}",
                details={"key": self._job_key(job_id), "create_revision": token, "actual": 0},
            )
        return job, ours, claims

    async def _end(self, job_id: str, token: Revision, change: Any) -> Job:
        while True:
            job, claim, claims = await self._held(job_id, token)
            who = claim.value.decode(errors="replace")
            changed: Job = change(job, who)
            revision = await self._write(job, changed, [*self._unchanged(job), is_claim(claim)], claims)
            if revision:
                return at_revision(changed, revision)


def is_claim(claim: KeyValue) -> Compare:
    return CreateRevision(claim.key) == claim.create_revision


def at_revision(job: Job, revision: Revision) -> Job:
    return replace(job, revision=revision)


def noted(job: Job, who: str) -> Job:
    """With the first line of its history."""
    return replace(job, history=[{"state": job.state, "who": who, "when": round(time(), 3), "attempt": 0}])
