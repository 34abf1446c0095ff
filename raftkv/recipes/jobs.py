"""Jobs: what is to be done, who does it, and what became of it, kept so that no crash and no late worker can falsify it.

Keys under `NAME/`: `j/ID` the document, `q/...` an index of those that are queued, `r/ID` of those that run, `c/ID/WORKER` the claims, `t/ID` the timers. Every
transition is one transaction: the document is as it was read, the claim is the one that the token names (its create revision), and
document, index and claims change together. A claim hangs on its worker's lease: when it is gone while the job is running, whoever looks next (every
worker that wants work looks) queues the job again. A run limit needs no clock: the timer is a key on a lease that nobody renews.

A job for several workers begins when the last of them has claimed its place. Whoever waits for the others leaves when a job before his own
lacks workers, so that two half-filled jobs do not wait for each other.
"""

import os
from dataclasses import replace
from typing import AsyncIterator, Mapping, Sequence

from raftkv.client.results import KeyValue, RangeResult
from raftkv.client.txn import Get, Put, missing
from raftkv.errors import InvalidRequest, JobNotFound, JobState, LeaseNotFound, LockLost, NotAcquired
from raftkv.recipes import job_model
from raftkv.recipes.job_model import CANCELLED, QUEUED, Job, unpack_job
from raftkv.recipes.job_work import AsyncJobClaim, JobWork, at_revision, noted
from raftkv.recipes.places import nonce
from raftkv.recipes.waiting import Deadline, check_lease

RACES_MAX = 20


class AsyncJobs(JobWork):
    """Jobs and their states; made by `kv.jobs(name)`. Its claims hang on one session: `close`, or leave its block, when done."""

    # Submitting and looking.

    async def submit(
        self,
        payload: str,
        *,
        job_id: str = "",
        priority: int = 0,
        attempts: int = 3,
        run_limit: float = 0.0,
        workers: int = 1,
        labels: Mapping[str, str] | None = None,
        hold: bool = False,
    ) -> Job:
        """A new job, queued unless it is on `hold`; with the id of an equal one, that one. Raises InvalidRequest.

        It is tried `attempts` times, each for `run_limit` seconds at most (0: no limit), by `workers` at once. A larger `priority` goes first.
        """
        job = job_model.new_job(
            job_id or nonce() + nonce(),
            payload,
            priority=priority,
            attempts=attempts,
            run_limit=run_limit,
            workers=workers,
            labels=labels,
        )
        key = self._job_key(job.id)
        there = await self.kv.get_kv(key) if job_id else None
        if there is not None:
            return same_job(there, job)  # nothing is written, not even a number for it
        job = replace(noted(job, self._worker), order=await self.kv.increment(self._prefix + b"n"))
        if not hold:
            job = job.moved(QUEUED, self._worker)
        done = await (
            self.kv.txn()
            .if_(missing(key))
            .then(Put(key, job.pack()), *self._index(None, job), self._ring())
            .else_(Get(key))
            .commit()
        )
        if done.succeeded:
            return at_revision(job, done.revision)
        found = done.responses[0]
        assert isinstance(found, RangeResult), "a read"
        if not found.kvs:
            raise JobNotFound(f"job {job.id!r} was removed while it was submitted again")
        return same_job(found.kvs[0], job)

    async def release(self, job_id: str) -> Job:
        """Queue a job that was submitted on hold. Raises JobNotFound, JobState when it is not on hold any more."""
        return await self._move(job_id, lambda job: job.released(self._worker))

    async def cancel(self, job_id: str) -> Job:
        """End it, whoever works on it: what they still report is refused. Raises JobNotFound, JobState when it has ended."""
        return await self._move(job_id, lambda job: job.moved(CANCELLED, self._worker, owners=[]), drops_claims=True)

    async def list(self, *, state: str | None = None, labels: Mapping[str, str] | None = None) -> list[Job]:
        """All jobs in the order of their submission, or those of a state, with labels. Raises InvalidRequest."""
        if state is not None and state not in job_model.STATES:
            raise InvalidRequest(f"a state is {', '.join(job_model.STATES)}, not {state!r}")
        jobs = [unpack_job(kv) for kv in await self.kv.get_prefix(self._prefix + b"j/")]
        kept = [job for job in jobs if not job_model.is_filtered(job, state, labels)]
        return sorted(kept, key=lambda job: job.order)

    async def remove(self, job_id: str) -> None:
        """Forget a job that has ended. Raises JobNotFound, JobState."""
        job = await self.show(job_id)
        if not job.has_ended:
            raise JobState(f"job {job_id!r} is {job.state}: cancel it first", details={"state": job.state})
        await self.kv.delete(self._job_key(job_id))

    async def watch(self, job_id: str = "") -> AsyncIterator[Job]:
        """Jobs as they change, from now on, or one job: as it is now, and then until it has ended. Raises JobNotFound."""
        if not job_id:
            async with self.kv.watch(prefix=self._prefix + b"j/", only="put") as watch:
                async for event in watch:
                    yield unpack_job(event.kv)
            return
        job = await self.show(job_id)
        yield job
        if job.has_ended:
            return
        async with self.kv.watch(self._job_key(job_id), start_revision=job.revision + 1) as watch:
            async for event in watch:
                if event.type == "delete":
                    return
                job = unpack_job(event.kv)
                yield job
                if job.has_ended:
                    return

    # Working.

    async def claim(self, timeout: float | None = None) -> AsyncJobClaim:
        """The next job, once there is one and all its workers are there, within `timeout` seconds (0: only if it can begin now).

        Raises NotAcquired. What died meanwhile is queued again, or ended, on the way.
        """
        deadline = Deadline(timeout)
        while True:
            try:
                return await self._next(deadline, timeout)
            except (LockLost, LeaseNotFound) as error:
                # It was ours only to wait in. What else hangs on it has been told by its own `lost`.
                await self._session.end()
                if self._session.is_of_user:
                    raise
                if deadline.has_passed:
                    raise NotAcquired(f"there was nothing to do: {error.message}") from error

    async def _next(self, deadline: Deadline, timeout: float | None) -> AsyncJobClaim:
        """Raises NotAcquired, or LockLost when our session ended on the way."""
        misses = 0
        while True:
            lease = await self._session.enter()
            check_lease(lease, "the worker's session")
            sight = await self._look()
            if await self._reap(sight):
                continue
            if sight.queued:
                # Whoever lost a race looks further behind, so that many workers do not fight for one job.
                place = int.from_bytes(os.urandom(2)) % min(len(sight.queued), 1 + 2 * misses)
                found = await self._take(sight.queued[place], sight, lease, deadline)
                if found is not None:
                    return found
                if deadline.has_passed and timeout:
                    raise NotAcquired("the other workers of a job did not come in time")
                misses += 1
                if timeout == 0 and misses > RACES_MAX:
                    raise NotAcquired("there is no job that could begin now")
                continue
            misses = 0
            watched = [claim.key for row in sight.claims.values() for claim in row]
            watched += [self._timer_key(name) for name in sorted(sight.timers)]
            if deadline.has_passed or not await self._wait(watched, sight.revision, deadline):
                raise NotAcquired("there was nothing to do")

    async def reap(self) -> Sequence[str]:
        """Queue again, or end, what dead workers left, and end what ran for too long: done by `claim`, too. The ids of those."""
        return await self._reap(await self._look())

    async def __aenter__(self) -> "AsyncJobs":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        await self.close()


def same_job(there: KeyValue, job: Job) -> Job:
    """The one that is there, if it was submitted as this one. Raises InvalidRequest."""
    known = unpack_job(there)
    if not known.is_same(job):
        raise InvalidRequest(f"there is another job {job.id!r}")
    return known
