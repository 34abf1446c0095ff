"""A job as a document, its states, and who may be claimed next: pure, for the recipe in jobs.py.

    submitted -> queued -> running -> succeeded | failed | timed_out
    (anything that has not ended) -> cancelled; running -> queued with attempt + 1 when its worker dies or fails

The document is JSON, for whoever looks with other eyes. Times in it are wall times of whoever wrote them, for display only: nothing is decided
by them.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from time import time
from typing import Any, Final, Mapping, Sequence

from raftkv.client.results import KeyValue
from raftkv.errors import InvalidRequest, JobState
from raftkv.units import Revision

SUBMITTED, QUEUED, RUNNING = "submitted", "queued", "running"
SUCCEEDED, FAILED, CANCELLED, TIMED_OUT = "succeeded", "failed", "cancelled", "timed_out"
STATES: Final = (SUBMITTED, QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED, TIMED_OUT)
ENDED: Final = frozenset({SUCCEEDED, FAILED, CANCELLED, TIMED_OUT})
PRIORITY_MAX: Final = 10**9
HISTORY_MAX: Final = 100

_NEXT: Final[Mapping[str, frozenset[str]]] = {
    SUBMITTED: frozenset({QUEUED, CANCELLED}),
    QUEUED: frozenset({RUNNING, CANCELLED}),
    RUNNING: frozenset({QUEUED, SUCCEEDED, FAILED, CANCELLED, TIMED_OUT}),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One job. `revision` is that of its last change; `workers` is how many have to work on it at once."""

    id: str
    payload: str
    state: str = SUBMITTED
    priority: int = 0
    attempt: int = 0
    attempts_max: int = 3
    run_limit: float = 0.0
    workers: int = 1
    labels: dict[str, str] = field(default_factory=dict)
    progress: str = ""
    result: str = ""
    error: str = ""
    dead: bool = False
    owners: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    order: int = 0
    revision: Revision = 0

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    def pack(self) -> bytes:
        fields = asdict(self)
        del fields["revision"]
        return json.dumps(fields, ensure_ascii=False, sort_keys=True).encode()

    def is_same(self, other: "Job") -> bool:
        """Whether it was submitted as the same job."""
        names = ("payload", "priority", "attempts_max", "run_limit", "workers", "labels")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def moved(self, state: str, who: str, note: str = "", **changes: Any) -> "Job":
        """In another state, with a line in its history. Raises JobState when that does not follow."""
        if state not in _NEXT.get(self.state, frozenset()):
            raise JobState(f"job {self.id!r} is {self.state}: it cannot become {state}", details={"state": self.state})
        line = {"state": state, "who": who, "when": round(time(), 3), "attempt": changes.get("attempt", self.attempt)}
        if note:
            line["note"] = note
        return replace(self, state=state, history=[*self.history, line][-HISTORY_MAX:], **changes)

    def released(self, who: str) -> "Job":
        """It was on hold. One that runs becomes queued by its workers' hands alone. Raises JobState."""
        if self.state != SUBMITTED:
            raise JobState(f"job {self.id!r} is {self.state}: it is not on hold", details={"state": self.state})
        return self.moved(QUEUED, who)

    def begun(self, owners: list[str], who: str) -> "Job":
        """Its workers are all there."""
        return self.moved(RUNNING, who, attempt=self.attempt + 1, owners=owners, progress="", error="")

    def given_up(self, who: str, note: str, *, counts: bool = True) -> "Job":
        """Its worker died, failed or gave it back: it is queued again, or, after its last attempt, failed and dead."""
        if counts and self.attempt >= self.attempts_max:
            text = f"{note} (attempt {self.attempt} of {self.attempts_max})"
            return self.moved(FAILED, who, note, error=text, dead=True, owners=[])
        attempt = self.attempt if counts else self.attempt - 1
        return self.moved(QUEUED, who, note, error=note if counts else "", owners=[], attempt=attempt)


def unpack_job(kv: KeyValue) -> Job:
    return Job(**json.loads(kv.value), revision=kv.mod_revision)


def new_job(
    job_id: str,
    payload: str,
    *,
    priority: int,
    attempts: int,
    run_limit: float,
    workers: int,
    labels: Mapping[str, str] | None,
) -> Job:
    """Raises InvalidRequest."""
    if not isinstance(payload, str):
        raise InvalidRequest("the payload of a job is text")
    if not job_id or "/" in job_id:
        raise InvalidRequest("the id of a job is text without /")
    if not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
        raise InvalidRequest(f"a priority is between -{PRIORITY_MAX} and {PRIORITY_MAX}")
    if attempts < 1 or workers < 1:
        raise InvalidRequest(f"a job has at least 1 attempt and 1 worker, not {attempts} and {workers}")
    if not 0 <= run_limit < float("inf"):
        raise InvalidRequest(f"the run limit is a number of seconds of 0 or more, not {run_limit!r}")
    return Job(
        job_id,
        payload,
        priority=priority,
        attempts_max=attempts,
        run_limit=float(run_limit),
        workers=workers,
        labels=dict(labels or {}),
    )


def pack_needs(job: Job) -> bytes:
    """What its place among those that run says: how many workers, and whether a limit."""
    return b"%d %d" % (job.workers, bool(job.run_limit))


def unpack_needs(kv: KeyValue) -> tuple[int, bool]:
    workers, limited = kv.value.split()
    return int(workers), limited == b"1"


def queue_name(job: Job) -> bytes:
    """Sorts as jobs are handed out: by priority, then by when they were submitted."""
    return b"%010d/%020d/%s" % (PRIORITY_MAX - job.priority, job.order, job.id.encode())


def id_of_queue_name(name: bytes) -> str:
    return name.split(b"/", 2)[2].decode()


def claims_of(claims: Sequence[KeyValue], prefix: bytes) -> dict[str, list[KeyValue]]:
    """Claims by job, each job's by age: the first is rank 0."""
    found: dict[str, list[KeyValue]] = {}
    for claim in sorted(claims, key=lambda claim: claim.create_revision):
        found.setdefault(claim.key[len(prefix) :].split(b"/")[0].decode(), []).append(claim)
    return found


def is_filtered(job: Job, state: str | None, labels: Mapping[str, str] | None) -> bool:
    """Whether a filter leaves it out."""
    if state is not None and job.state != state:
        return True
    return any(job.labels.get(name) != value for name, value in (labels or {}).items())
