"""Jobs for threads: the recipe of jobs.py, whose calls are done when they return."""

from typing import TYPE_CHECKING, Any, Iterator, Mapping, Sequence, cast

from raftkv.client.requests import Bytes
from raftkv.recipes.job_model import Job
from raftkv.recipes.job_work import TTL_S, AsyncJobClaim
from raftkv.recipes.jobs import AsyncJobs
from raftkv.recipes.verbs import blocking, iterate, run
from raftkv.units import Revision

if TYPE_CHECKING:
    from raftkv.client.guarded import Guarded
    from raftkv.client.sync import Client


class JobClaim:
    """A job in our hands. Leaving its block completes it, or reports a failure after an exception."""

    def __init__(self, claim: AsyncJobClaim, kv: "Client") -> None:
        self._claim = claim
        self._kv = kv
        self.job = claim.job
        """As it was when it began."""
        self.token = claim.token
        """The fencing token of this claim."""
        self.rank = claim.rank
        """Which of its workers we are, from 0."""

    @property
    def id(self) -> str:
        """Of the job."""
        return self._claim.id

    @property
    def lost(self) -> Any:
        """An event: set when our session is gone, or when nobody can tell any more."""
        return self._claim.lost

    def guard(self, kv: Any = None) -> "Guarded":
        """The writes of a client, each refused by the cluster once the job is not ours any more."""
        return cast("Guarded", self._claim.guard(self._kv if kv is None else kv))

    def heartbeat(self, progress: str = "") -> Job:
        """Say how far it is. Raises FencingTokenStale when it is not ours any more: cancelled, timed out, or handed out again."""
        return run(self._claim.heartbeat(progress))

    def complete(self, result: str = "") -> Job:
        """It is done. Raises FencingTokenStale: then this result counts for nothing."""
        return run(self._claim.complete(result))

    def fail(self, error: str, *, retry: bool = True) -> Job:
        """It cannot be done, now or (`retry=False`) at all. Raises FencingTokenStale."""
        return run(self._claim.fail(error, retry=retry))

    def give_back(self) -> Job:
        """Somebody else shall do it; this does not count as an attempt. Raises FencingTokenStale."""
        return run(self._claim.give_back())

    def __enter__(self) -> "JobClaim":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        run(self._claim.__aexit__(kind, error, trace))


class Jobs:
    """Jobs and their states; made by `kv.jobs(name)`. Its claims hang on one session: `close`, or leave its block, when done."""

    def __init__(self, kv: "Client", name: Bytes, *, ttl: float = TTL_S, lease: Any = None, worker: str = "") -> None:
        self._kv = kv
        self._jobs = AsyncJobs(blocking(kv), name, ttl=ttl, lease=lease, worker=worker)

    def submit(
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
        return run(
            self._jobs.submit(
                payload,
                job_id=job_id,
                priority=priority,
                attempts=attempts,
                run_limit=run_limit,
                workers=workers,
                labels=labels,
                hold=hold,
            )
        )

    def release(self, job_id: str) -> Job:
        """Queue a job that was submitted on hold. Raises JobNotFound, JobState when it is not on hold any more."""
        return run(self._jobs.release(job_id))

    def cancel(self, job_id: str) -> Job:
        """End it, whoever works on it: what they still report is refused. Raises JobNotFound, JobState when it has ended."""
        return run(self._jobs.cancel(job_id))

    def show(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        return run(self._jobs.show(job_id))

    def list(self, *, state: str | None = None, labels: Mapping[str, str] | None = None) -> list[Job]:
        """All jobs in the order of their submission, or those of a state, with labels. Raises InvalidRequest."""
        return run(self._jobs.list(state=state, labels=labels))

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended. Raises JobNotFound, JobState."""
        run(self._jobs.remove(job_id))

    def watch(self, job_id: str = "") -> Iterator[Job]:
        """Jobs as they change, from now on, or one job: as it is now, and then until it has ended. Raises JobNotFound."""
        return iterate(self._jobs.watch(job_id))

    def claim(self, timeout: float | None = None) -> JobClaim:
        """The next job, once there is one and all its workers are there, within `timeout` seconds (0: only if it can begin now).

        Raises NotAcquired. What died meanwhile is queued again, or ended, on the way.
        """
        return JobClaim(run(self._jobs.claim(timeout)), self._kv)

    def reap(self) -> Sequence[str]:
        """Queue again, or end, what dead workers left, and end what ran for too long: done by `claim`, too. The ids of those."""
        return run(self._jobs.reap())

    def heartbeat(self, job_id: str, token: Revision, progress: str = "") -> Job:
        """Renew the lease of a claim, and say how far the job is. Raises FencingTokenStale, JobNotFound."""
        return run(self._jobs.heartbeat(job_id, token, progress))

    def complete(self, job_id: str, token: Revision, result: str = "") -> Job:
        """The holder of the claim says that it is done. Raises FencingTokenStale, JobNotFound."""
        return run(self._jobs.complete(job_id, token, result))

    def fail(self, job_id: str, token: Revision, error: str, *, retry: bool = True) -> Job:
        """The holder of the claim says that it failed. Raises FencingTokenStale, JobNotFound."""
        return run(self._jobs.fail(job_id, token, error, retry=retry))

    def close(self) -> None:
        """End the session; what is claimed and has not ended is handed out again."""
        run(self._jobs.close())

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close()
