"""Jobs on three nodes: no job in two hands, none lost, no late word that counts, while nodes and workers die."""

import asyncio
import json
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Iterator

import pytest

import raftkv
from raftkv.errors import (
    FencingTokenStale,
    InvalidRequest,
    JobNotFound,
    JobState,
    NotAcquired,
    RaftKVError,
)
from raftkv.recipes.jobs_blocking import JobClaim

from .harness.cluster import Cluster
from .harness.faults import kill_and_pause_leaders
from .harness.offices import leading_term
from .harness.process import RAFTKV, Process, run_raftkv
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

TTL_S = 3.0
LATE_S = 3.0


@pytest.fixture
def kv(healthy: Cluster) -> Iterator[raftkv.Client]:
    with raftkv.Client(healthy.endpoints) as client:
        yield client


def test_a_job_from_submit_to_success(kv: raftkv.Client) -> None:
    heard: list[tuple[str, str]] = []
    with kv.jobs("way", worker="w1") as jobs:
        submitted = jobs.submit("do it", job_id="a", labels={"team": "x"}, hold=True)
        assert submitted.state == "submitted"
        assert jobs.submit("do it", job_id="a", labels={"team": "x"}).state == "submitted", "the same job"
        with pytest.raises(InvalidRequest):
            jobs.submit("something else", job_id="a")
        with pytest.raises(NotAcquired):
            jobs.claim(0)

        def listen() -> None:
            heard.extend((job.state, job.progress) for job in kv.jobs("way").watch("a"))

        listener = threading.Thread(target=listen)
        listener.start()
        wait_until(lambda: heard, "the listener to begin")
        jobs.release("a")
        with jobs.claim(10) as claim:
            assert (claim.job.payload, claim.job.attempt, claim.rank) == ("do it", 1, 0)
            claim.heartbeat("half")
            claim.guard().put("way/out", "x")
            claim.complete("42")
        listener.join()
        done = jobs.show("a")
        assert (done.state, done.result, done.progress) == ("succeeded", "42", "half")
        assert [line["state"] for line in done.history] == ["submitted", "queued", "running", "succeeded"]
        assert done.history[2]["who"] == "w1"
        assert heard == [("submitted", ""), ("queued", ""), ("running", ""), ("running", "half"), ("succeeded", "half")]
        for late in (lambda: claim.complete("x"), lambda: claim.heartbeat("x"), lambda: claim.fail("x")):
            with pytest.raises(FencingTokenStale):
                late()
        with pytest.raises(FencingTokenStale):
            claim.guard().put("way/out", "late")
        with pytest.raises(JobState):
            jobs.cancel("a")
        assert [job.id for job in jobs.list(state="succeeded", labels={"team": "x"})] == ["a"]
        assert jobs.list(labels={"team": "y"}) == []
        with pytest.raises(InvalidRequest):
            jobs.list(state="odd")
        jobs.remove("a")
        for gone in (jobs.show, jobs.cancel, jobs.release, jobs.remove):
            with pytest.raises(JobNotFound):
                gone("a")
    assert kv.leases() == []


def test_order_failure_retry_and_the_end_of_attempts(kv: raftkv.Client) -> None:
    with kv.jobs("fail") as jobs:
        jobs.submit("low", job_id="low")
        jobs.submit("high", job_id="high", priority=3, attempts=2)
        claim = jobs.claim(0)
        assert claim.id == "high"
        claim.fail("boom")
        with pytest.raises(ZeroDivisionError), jobs.claim(0):
            raise ZeroDivisionError("by zero")
        dead = jobs.show("high")
        assert (dead.state, dead.dead, dead.error) == ("failed", True, "ZeroDivisionError: by zero (attempt 2 of 2)")
        low = jobs.claim(0)
        assert low.id == "low"
        low.give_back()
        assert jobs.show("low").attempt == 0
        low = jobs.claim(0)
        low.fail("no use", retry=False)
        assert (jobs.show("low").state, jobs.show("low").dead) == ("failed", False)
        with pytest.raises(FencingTokenStale):
            jobs.complete("low", low.token, "somebody else's")


def test_a_cancelled_job_is_in_nobodys_hands(kv: raftkv.Client) -> None:
    with kv.jobs("cancel") as jobs:
        jobs.submit("x", job_id="a")
        claim = jobs.claim(0)
        assert jobs.cancel("a").state == "cancelled"
        with pytest.raises(FencingTokenStale):
            claim.complete("late")
        assert jobs.show("a").state == "cancelled"
        with pytest.raises(NotAcquired):
            jobs.claim(0)


def test_a_dead_workers_job_goes_on_elsewhere_and_its_late_word_does_not_count(kv: raftkv.Client) -> None:
    with kv.jobs("dead", worker="first") as jobs, kv.jobs("dead", worker="second") as others:
        jobs.submit("x", job_id="a", attempts=2)
        stale = jobs.claim(0)
        lease = kv.get_prefix("dead/c/")[0].lease
        again: list[JobClaim] = []

        def work() -> None:
            again.append(others.claim(30))

        worker = threading.Thread(target=work)
        worker.start()
        kv.lease_revoke(lease)
        worker.join()
        (claim,) = again
        assert (claim.job.attempt, claim.token > stale.token) == (2, True)
        with pytest.raises(FencingTokenStale):
            stale.complete("from the grave")
        kv.lease_revoke(kv.get_prefix("dead/c/")[0].lease)
        assert kv.jobs("dead").reap() == ["a"]
        job = jobs.show("a")
        assert (job.state, job.dead) == ("failed", True)
        assert [line["who"] for line in job.history if line["state"] == "running"] == ["first", "second"]


def test_a_run_limit_needs_no_worker_to_notice(kv: raftkv.Client) -> None:
    with kv.jobs("limit") as jobs, kv.jobs("limit") as others:
        jobs.submit("x", job_id="a", run_limit=2.5)
        claim = jobs.claim(0)
        with pytest.raises(NotAcquired):
            others.claim(6)  # whoever waits for work sees to it
        assert jobs.show("a").state == "timed_out"
        with pytest.raises(FencingTokenStale):
            claim.complete("late")


def test_a_gang_begins_whole_or_not_at_all(kv: raftkv.Client) -> None:
    with kv.jobs("gang") as jobs:
        jobs.submit("x", job_id="a", workers=3)
        with pytest.raises(NotAcquired):
            jobs.claim(0)
        with pytest.raises(NotAcquired):
            jobs.claim(0.3)
        assert kv.get_prefix("gang/c/") == [], "who gave up holds no place"
        ranks: list[int] = []
        tokens: list[int] = []

        def work(name: str) -> None:
            with kv.jobs("gang", worker=name) as mine:
                claim = mine.claim(30)
                ranks.append(claim.rank)
                tokens.append(claim.token)
                together.wait(30)
                if claim.rank == 0:
                    claim.complete("all of us")

        together = threading.Barrier(3)
        threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(3)]
        for thread in threads[:2]:
            thread.start()
        wait_until(lambda: len(kv.get_prefix("gang/c/")) == 2, "two of them to wait")
        assert jobs.show("a").state == "queued"
        threads[2].start()
        for thread in threads:
            thread.join()
        assert sorted(ranks) == [0, 1, 2]
        job = jobs.show("a")
        assert (job.state, job.attempt, job.result) == ("succeeded", 1, "all of us")
        assert job.history[-2]["state"] == "running"


def test_two_gangs_do_not_starve_each_other(kv: raftkv.Client) -> None:
    """Four workers, two jobs for three each, the second one more urgent and later: both get done."""
    done: list[str] = []

    def work() -> None:
        with kv.jobs("gangs") as mine:
            while len(done) < 2:
                try:
                    claim = mine.claim(1)
                except NotAcquired:
                    continue
                if claim.rank == 0:
                    claim.complete()
                    done.append(claim.id)

    with kv.jobs("gangs") as jobs:
        jobs.submit("x", job_id="first", workers=3)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads[:2]:
            thread.start()
        wait_until(lambda: len(kv.get_prefix("gangs/c/")) == 2, "two to wait for a third")
        jobs.submit("x", job_id="urgent", workers=3, priority=9)
        for thread in threads[2:]:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(done) == ["first", "urgent"]


async def test_every_job_is_done_once_while_nodes_and_workers_die(cluster: Cluster) -> None:
    """What is worked on is noted under the claim's guard: one successful note per attempt that ended well, and never two."""
    count, workers = 80, 16
    randomness = random.Random(3)
    completed: Counter[str] = Counter()
    uncertain: set[str] = set()
    opened = [raftkv.connect(cluster.endpoints, timeout=20) for _ in range(4)]
    boss = opened[0].jobs("all")
    done = asyncio.Event()

    async def submit_all() -> None:
        for number in range(count):
            await boss.submit("x", job_id=f"j{number}", attempts=50, priority=number % 3)

    async def work(number: int) -> None:
        while not done.is_set():
            jobs = opened[number % 4].jobs("all", ttl=2.0, worker=f"w{number}")
            try:
                claim = await jobs.claim(1)
                if randomness.random() < 0.15:
                    continue  # dies: `finally` ends its session
                await claim.guard().append(f"notes/{claim.id}", f"{claim.token} ")
                try:
                    await claim.complete(str(number))
                    completed[claim.id] += 1
                except FencingTokenStale:
                    uncertain.add(claim.id)  # perhaps its own first attempt to say so
                except RaftKVError as error:
                    if error.may_have_happened:
                        uncertain.add(claim.id)
            except RaftKVError:
                pass
            finally:
                await jobs.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(submit_all())
        for number in range(workers):
            group.create_task(work(number))
        await kill_and_pause_leaders(cluster)
        while len(await boss.list(state="succeeded")) < count:
            await asyncio.sleep(0.2)
        done.set()
    finished = await boss.list()
    assert {job.id for job in finished} == {f"j{number}" for number in range(count)}
    assert {job.state for job in finished} == {"succeeded"}
    assert max(completed.values()) == 1, "a job was completed twice"
    assert len(completed.keys() | uncertain) == count
    for job in finished:
        runs = [line for line in job.history if line["state"] == "running"]
        returned = [line for line in job.history if line.get("note") == "given back"]  # begun in doubt: no attempt
        assert len(runs) == job.attempt + len(returned)
        assert sorted({line["attempt"] for line in runs}) == list(range(1, job.attempt + 1))
    for kv in opened:
        await kv.close()


def test_the_command_line(healthy: Cluster, kv: raftkv.Client, tmp_path: Path) -> None:
    def job(*words: str) -> tuple[int, str, str]:
        ran = run_raftkv("job", *words, environment={"RAFTKV_ENDPOINTS": healthy.endpoints})
        return ran.returncode, ran.stdout.decode(), ran.stderr.decode()

    assert job("submit", "echo hello $RAFTKV_JOB_ID", "--id", "a", "--label", "team=x", "--attempts", "2")[1] == "a\n"
    assert job("claim", "--", "sh", "-c", 'test "$RAFTKV_JOB_ATTEMPT" = 2 && eval "$RAFTKV_JOB"')[0] == 1
    code, out, _ = job("claim", "--worker", "me", "--", "sh", "-c", 'eval "$RAFTKV_JOB"')
    assert (code, out) == (0, "hello a\n")
    code, out, _ = job("show", "a")
    assert "a succeeded, attempt 2 of 2" in out
    assert "me" in out
    assert json.loads(job("show", "a", "-o", "json")[1])["state"] == "succeeded"
    job("submit", "by hand", "--id", "b")
    claimed = job("claim", "--ttl", "30")[1].split()
    assert claimed[0] == "b"
    assert claimed[2:] == ["by", "hand"]
    assert job("heartbeat", "b", claimed[1], "half way")[0] == 0
    assert "half way" in job("list", "--state", "running")[1]
    assert job("complete", "b", "1")[0] == 1
    assert job("complete", "b", claimed[1], "result")[1] == "succeeded\n"
    assert job("complete", "b", claimed[1])[0] == 1, "twice"
    assert job("watch", "b")[1] == "b succeeded half way\n"
    assert job("claim", "--wait", "0.2")[0] == 4
    assert job("show", "nobody")[0] == 3
    assert job("cancel", "b")[0] == 1
    job("submit", "held", "--id", "c", "--hold")
    assert job("release", "c")[1] == "queued\n"
    assert job("cancel", "c")[1] == "cancelled\n"
    assert job("remove", "c")[0] == 0
    job("submit", "killed", "--id", "d")
    words = ("job", "claim", "--ttl", str(TTL_S), "--endpoints", healthy.endpoints, "--", "sleep", "100")
    worker = Process((*RAFTKV, *words), tmp_path / "log")
    wait_until(lambda: kv.get_prefix("jobs/c/d/"), "the worker to claim it")
    (claim,) = kv.get_prefix("jobs/c/d/")
    term = leading_term(healthy)
    worker.send(signal.SIGKILL)
    worker.wait_exit()
    killed_s = time.monotonic()
    remaining_s = kv.lease_ttl(claim.lease).remaining
    with kv.jobs("jobs") as jobs:
        again = jobs.claim(20)
        waited_s = time.monotonic() - killed_s
        assert (again.id, again.job.attempt) == ("d", 2)
        again.fail("enough", retry=False)
    elections = leading_term(healthy) - term
    assert remaining_s - 0.1 <= waited_s < TTL_S * (1 + elections) + LATE_S
    for bad in (
        ("submit", "x", "--label", "x"),
        ("complete", "a", "x"),
        ("submit", "x", "--attempts", "0"),
        ("dance",),
    ):
        assert job(*bad)[0] == 2, bad
