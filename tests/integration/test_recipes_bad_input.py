"""Bad input to recipes: one clear error each, and nothing has changed, for both clients and on the command line.

What "nothing" is: every key with its revision, the revision of the store itself, pools and requests, and the leases.
"""

import inspect
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator

import pytest

import raftkv
from raftkv.errors import RaftKVError
from raftkv.recipes.pool import list_pools, list_requests
from raftkv.recipes.verbs import blocking, run

from .harness.cluster import Cluster
from .harness.process import run_raftkv

pytestmark = pytest.mark.integration

HUGE = 10**18


async def done(result: Any) -> Any:
    """Of either client."""
    return await result if inspect.isawaitable(result) else result


@dataclass
class Scene:
    """Things in somebody's hands, and things that were in them."""

    kv: Any
    one: Any = None
    """A lock that is held; `two` another one."""
    two: Any = None
    grant: Any = None
    """Of the pool `gpus`, all there is; `released` was given back."""
    released: Any = None
    claim: Any = None
    """Of the job `mine`; `other` of the job `theirs`."""
    other: Any = None
    finished: Any = None
    item: Any = None
    spent: dict[str, Any] = field(default_factory=dict)
    """What was given back once already, by recipe."""


async def build(kv: Any) -> Scene:
    scene = Scene(kv, kv.lock("one"), kv.lock("two"))
    await done(scene.one.acquire())
    await done(scene.two.acquire())
    await done(kv.pool("gpus").create({"gpu": 4}, classes={"urgent": 5}))
    await done(kv.pool("licences").create({"solver": 1}))
    scene.released = await done(kv.pool("gpus").acquire({"gpu": 1}))
    await done(scene.released.release())
    scene.grant = await done(kv.pool("gpus").acquire({"gpu": 4}, request_id="holder"))
    jobs = kv.jobs("jobs")
    for name in ("mine", "theirs", "finished"):
        await done(jobs.submit("x", job_id=name))
    scene.claim, scene.other, scene.finished = [await done(jobs.claim(0)) for _ in range(3)]
    await done(scene.finished.complete("well"))
    queue = kv.queue("queue")
    await done(queue.put("x"))
    scene.item = await done(queue.claim(0))
    await done(scene.item.ack())
    for recipe, holder in (
        ("lock", kv.lock("spent")),
        ("semaphore", kv.semaphore("spent.semaphore", 3)),
        ("election", kv.election("spent.election")),
        ("double barrier", kv.double_barrier("spent.meeting", 1)),
        ("group", kv.group("spent.group")),
    ):
        take, give_back = VERBS[recipe]
        await done(take(holder))
        await done(give_back(holder))
        scene.spent[recipe] = holder
    return scene


VERBS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "lock": (lambda it: it.acquire(), lambda it: it.release()),
    "semaphore": (lambda it: it.acquire(), lambda it: it.release()),
    "election": (lambda it: it.campaign("me"), lambda it: it.resign()),
    "double barrier": (lambda it: it.enter(), lambda it: it.leave()),
    "group": (lambda it: it.join(), lambda it: it.leave()),
}

CASES: dict[str, tuple[Callable[[Scene], Any], str]] = {
    "unknown pool, acquire": (lambda s: s.kv.pool("nope").acquire({"gpu": 1}), "pool_not_found"),
    "unknown pool, also": (
        lambda s: s.kv.pool("gpus").acquire({"gpu": 1}, also={"nope": {"x": 1}}),
        "pool_not_found",
    ),
    "unknown pool, set": (lambda s: s.kv.pool("nope").set(threshold=1), "pool_not_found"),
    "unknown pool, delete": (lambda s: s.kv.pool("nope").delete(), "pool_not_found"),
    "unknown pool, info": (lambda s: s.kv.pool("nope").info(), "pool_not_found"),
    "unknown pool, queue": (lambda s: s.kv.pool("nope").queue(), "pool_not_found"),
    "unknown request, why": (lambda s: s.kv.pool("gpus").why("nope"), "pool_request_not_found"),
    "unknown request, release": (lambda s: s.kv.pool("gpus").release("nope", 5), "pool_request_not_found"),
    "a pool that exists": (lambda s: s.kv.pool("gpus").create({"gpu": 1}), "pool_exists"),
    "a pool in use": (lambda s: s.kv.pool("gpus").delete(), "pool_busy"),
    "demand over capacity": (lambda s: s.kv.pool("gpus").acquire({"gpu": 5}), "demand_too_large"),
    "demand over that of the other pool": (
        lambda s: s.kv.pool("gpus").acquire({"gpu": 1}, also={"licences": {"solver": 2}}),
        "demand_too_large",
    ),
    "demand of what there is none of": (lambda s: s.kv.pool("gpus").acquire({"tpu": 1}), "demand_too_large"),
    "demand of nothing": (lambda s: s.kv.pool("gpus").acquire({}), "invalid_request"),
    "demand of zero": (lambda s: s.kv.pool("gpus").acquire({"gpu": 0}), "invalid_request"),
    "demand below zero": (lambda s: s.kv.pool("gpus").acquire({"gpu": -1}), "invalid_request"),
    "demand of a fraction": (lambda s: s.kv.pool("gpus").acquire({"gpu": 0.5}), "invalid_request"),
    "a huge demand": (lambda s: s.kv.pool("gpus").acquire({"gpu": HUGE}), "invalid_request"),
    "a negative weight": (lambda s: s.kv.pool("gpus").acquire({"gpu": 1}, weight=-1), "invalid_request"),
    "a negative weight of age": (lambda s: s.kv.pool("new").create({"gpu": 1}, age_weight=-1), "invalid_request"),
    "a negative weight of staleness": (lambda s: s.kv.pool("gpus").set(staleness_weight=-1), "invalid_request"),
    "a negative weight of a class": (lambda s: s.kv.pool("gpus").set(classes={"urgent": -1}), "invalid_request"),
    "a negative capacity": (lambda s: s.kv.pool("gpus").set(capacity={"gpu": -1}), "invalid_request"),
    "a negative quota": (lambda s: s.kv.pool("gpus").set(quotas={"ann": {"gpu": -1}}), "invalid_request"),
    "a negative time": (lambda s: s.kv.pool("gpus").set(max_run=-1), "invalid_request"),
    "a negative staleness": (lambda s: s.kv.pool("gpus").acquire({"gpu": 1}, staleness=-1), "invalid_request"),
    "an unknown class": (lambda s: s.kv.pool("gpus").acquire({"gpu": 1}, klass="nope"), "invalid_request"),
    "an unknown setting": (lambda s: s.kv.pool("gpus").set(colour="red"), "invalid_request"),
    "another request of that id": (
        lambda s: s.kv.pool("gpus").acquire({"gpu": 1}, request_id="holder"),
        "pool_request_exists",
    ),
    "a pool without a name": (lambda s: s.kv.pool(""), "invalid_request"),
    "a grant by another token": (
        lambda s: s.kv.pool("gpus").release("holder", s.released.token),
        "fencing_token_stale",
    ),
    "a grant by no token": (lambda s: s.kv.pool("gpus").release("holder"), "fencing_token_stale"),
    "a grant that is stale": (lambda s: s.released.guard().put("written", "x"), "fencing_token_stale"),
    "a grant by a lock's token": (
        lambda s: s.kv.guarded(s.grant.key, s.one.token).put("written", "x"),
        "fencing_token_stale",
    ),
    "somebody else's job, complete": (
        lambda s: s.kv.jobs("jobs").complete(s.other.id, s.claim.token, "x"),
        "fencing_token_stale",
    ),
    "somebody else's job, fail": (
        lambda s: s.kv.jobs("jobs").fail(s.other.id, s.claim.token, "x"),
        "fencing_token_stale",
    ),
    "somebody else's job, heartbeat": (
        lambda s: s.kv.jobs("jobs").heartbeat(s.other.id, s.claim.token, "x"),
        "fencing_token_stale",
    ),
    "a job by no token": (lambda s: s.kv.jobs("jobs").complete(s.claim.id, 0), "fencing_token_stale"),
    "a job that has ended": (
        lambda s: s.kv.jobs("jobs").complete(s.finished.id, s.finished.token),
        "fencing_token_stale",
    ),
    "a job that has ended, cancel": (lambda s: s.kv.jobs("jobs").cancel(s.finished.id), "job_state"),
    "a job that runs, release": (lambda s: s.kv.jobs("jobs").release(s.claim.id), "job_state"),
    "a job that runs, remove": (lambda s: s.kv.jobs("jobs").remove(s.claim.id), "job_state"),
    "an unknown job": (lambda s: s.kv.jobs("jobs").complete("nope", 5), "job_not_found"),
    "another job of that id": (lambda s: s.kv.jobs("jobs").submit("y", job_id="mine"), "invalid_request"),
    "a job without attempts": (lambda s: s.kv.jobs("jobs").submit("y", attempts=0), "invalid_request"),
    "a job for no worker": (lambda s: s.kv.jobs("jobs").submit("y", workers=0), "invalid_request"),
    "a token of another lock": (
        lambda s: s.kv.guarded(s.one.key, s.two.token).put("written", "x"),
        "fencing_token_stale",
    ),
    "a lock's token, the key of its queue": (
        lambda s: s.kv.guarded(b"one/", s.one.token).put("written", "x"),
        "fencing_token_stale",
    ),
    "a lock twice": (lambda s: s.one.acquire(), "invalid_request"),
    "a lock without a name": (lambda s: s.kv.lock(""), "invalid_request"),
    "a semaphore for nobody": (lambda s: s.kv.semaphore("s", 0), "invalid_request"),
    "a semaphore, too heavy": (lambda s: s.kv.semaphore("s", 2, weight=3), "invalid_request"),
    "a semaphore, a negative weight": (lambda s: s.kv.semaphore("s", 2, weight=-1), "invalid_request"),
    "a semaphore of another size": (lambda s: s.kv.semaphore("spent.semaphore", 4).acquire(0), "invalid_request"),
    "a semaphore, to nothing": (lambda s: s.kv.semaphore("spent.semaphore", 3).resize(0), "invalid_request"),
    "a meeting of nobody": (lambda s: s.kv.double_barrier("b", 0), "invalid_request"),
    "a queue, a huge priority": (lambda s: s.kv.queue("queue").put("x", priority=HUGE), "invalid_request"),
    "a round before the first": (lambda s: s.kv.rendezvous("run", -1), "invalid_request"),
    "released twice, grant": (lambda s: s.released.release(), "not_held"),
    "released twice, item": (lambda s: s.item.ack(), "not_held"),
    "released twice, item given back": (lambda s: s.item.give_back(), "not_held"),
    "released twice, job": (lambda s: s.finished.complete(), "fencing_token_stale"),
    **{
        f"released twice, {recipe}": (lambda s, recipe=recipe: VERBS[recipe][1](s.spent[recipe]), "not_held")  # type: ignore[misc]
        for recipe in VERBS
    },
    **{
        f"a TTL of {ttl}, {recipe}": (lambda s, make=make, ttl=ttl: make(s.kv, ttl), "invalid_request")  # type: ignore[misc]
        for ttl in (0, -1, float("nan"))
        for recipe, make in {
            "lock": lambda kv, ttl: kv.lock("t", ttl=ttl),
            "semaphore": lambda kv, ttl: kv.semaphore("t", 1, ttl=ttl),
            "election": lambda kv, ttl: kv.election("t", ttl=ttl),
            "double barrier": lambda kv, ttl: kv.double_barrier("t", 1, ttl=ttl),
            "queue": lambda kv, ttl: kv.queue("t", ttl=ttl),
            "group": lambda kv, ttl: kv.group("t", ttl=ttl),
            "jobs": lambda kv, ttl: kv.jobs("t", ttl=ttl),
            "pool": lambda kv, ttl: kv.pool("gpus").acquire({"gpu": 1}, ttl=ttl),
            "rendezvous": lambda kv, ttl: kv.rendezvous("t", ttl=ttl),
            "lease": lambda kv, ttl: kv.lease_grant(ttl),
        }.items()
    },
}


@pytest.fixture
def looker(cluster: Cluster) -> Iterator[raftkv.Client]:
    with raftkv.Client(cluster.endpoints) as kv:
        yield kv


def state(kv: raftkv.Client) -> dict[str, object]:
    everything = kv.range(prefix="")
    requests = run(list_requests(blocking(kv)))
    return {
        "keys": everything.kvs,
        "revision": everything.revision,
        "pools": run(list_pools(blocking(kv))),
        "requests": [(row.id, row.state, row.token, row.demand) for row in requests],
        "leases": sorted(kv.leases()),
    }


async def judge(scene: Scene, looker: raftkv.Client) -> None:
    """All cases, and everything that is wrong with any of them."""
    before = state(looker)
    wrong = []
    for case, (do, code) in CASES.items():
        try:
            await done(do(scene))
            wrong.append(f"{case}: nothing was said")
        except RaftKVError as error:
            if error.code != code or not error.message or "\n" in error.message:
                wrong.append(f"{case}: {error.code}, {error.message!r}")
            if error.may_have_happened:
                wrong.append(f"{case}: perhaps it has happened")
        after = state(looker)
        if after != before:
            wrong.append(f"{case}: changed {[part for part in before if before[part] != after[part]]}")
            before = after
    assert not wrong, "\n".join(wrong)


async def test_the_asyncio_client(cluster: Cluster, looker: raftkv.Client) -> None:
    async with raftkv.connect(cluster.endpoints) as kv:
        await judge(await build(kv), looker)


async def test_the_blocking_client(cluster: Cluster, looker: raftkv.Client) -> None:
    with raftkv.Client(cluster.endpoints) as kv:
        await judge(await build(kv), looker)


COMMANDS: dict[str, tuple[int, str]] = {
    "pool acquire nope gpu=1 -- true": (3, "pool_not_found"),
    "pool acquire gpus gpu=1 --also nope:x=1 -- true": (3, "pool_not_found"),
    "pool set nope gpu=1": (3, "pool_not_found"),
    "pool delete nope": (3, "pool_not_found"),
    "pool queue nope": (3, "pool_not_found"),
    "pool why nope": (3, "pool_request_not_found"),
    "pool release nope 5": (3, "pool_request_not_found"),
    "pool release holder 1": (1, "fencing_token_stale"),
    "pool release holder": (1, "fencing_token_stale"),
    "pool release {released.id} {released.token}": (3, "pool_request_not_found"),
    "pool release holder five": (2, "TOKEN"),
    "pool create gpus gpu=1": (1, "pool_exists"),
    "pool create new gpu=-1": (2, "gpu=-1"),
    "pool create new gpu=1 --age-weight -1": (2, "--age-weight"),
    "pool create new gpu=1 --class urgent=-1": (2, "urgent=-1"),
    "pool delete gpus": (1, "pool_busy"),
    "pool acquire gpus gpu=5 -- true": (1, "demand_too_large"),
    "pool acquire gpus gpu=1 --also licences:solver=2 -- true": (1, "demand_too_large"),
    "pool acquire gpus gpu=0 -- true": (1, "invalid_request"),
    "pool acquire gpus gpu=-1 -- true": (2, "gpu=-1"),
    "pool acquire gpus gpu=1 --weight -1 -- true": (2, "--weight"),
    "pool acquire gpus gpu=1 --as nope -- true": (1, "invalid_request"),
    "pool acquire gpus gpu=1 --ttl 0 -- true": (2, "--ttl"),
    "pool acquire gpus gpu=1 --id holder -- true": (1, "pool_request_exists"),
    "pool acquire gpus gpu=1 --wait 0.1 -- true": (4, "not_acquired"),
    "pool set gpus": (2, "set"),
    "pool dance": (2, "dance"),
    "job complete {other.id} {claim.token}": (1, "fencing_token_stale"),
    "job fail {other.id} {claim.token} x": (1, "fencing_token_stale"),
    "job heartbeat {other.id} {claim.token} x": (1, "fencing_token_stale"),
    "job complete {finished.id} {finished.token}": (1, "fencing_token_stale"),
    "job complete {other.id} token": (2, "TOKEN"),
    "job complete nope 5": (3, "job_not_found"),
    "job show nope": (3, "job_not_found"),
    "job cancel {finished.id}": (1, "job_state"),
    "job remove {claim.id}": (1, "job_state"),
    "job submit y --id mine": (1, "invalid_request"),
    "job submit y --attempts 0": (2, "--attempts"),
    "job submit y --run-limit -1": (2, "--run-limit"),
    "job claim --ttl 0 -- true": (2, "--ttl"),
    "job claim --wait 0.1 -- true": (4, "not_acquired"),
    "job list --state odd": (2, "--state"),
    "lock one --ttl 0 -- true": (2, "--ttl"),
    "lock one --ttl -1 -- true": (2, "--ttl"),
    "lock one --wait 0.1 -- true": (4, "not_acquired"),
    "lock": (2, "NAME"),
    "lock one --queue -- true": (2, "--queue"),
    "put written x --guard one/:{one.token}": (1, "fencing_token_stale"),
    "put written x --guard {one.key}:{two.token}": (1, "fencing_token_stale"),
    "del one --guard {two.key}:{one.token}": (1, "fencing_token_stale"),
    "elect office me --ttl 0 -- true": (2, "--ttl"),
    "queue claim queue --ttl 0 -- true": (2, "--ttl"),
    "queue claim queue --wait 0.1": (4, "not_acquired"),
    "queue put queue x --priority 10000000000": (2, "--priority"),
    "barrier meet room 0": (2, "COUNT"),
    "counter one/x 5x": (2, "5x"),
    "lease grant 0": (2, "TTL"),
}


async def test_the_command_line(cluster: Cluster, looker: raftkv.Client) -> None:
    with raftkv.Client(cluster.endpoints) as kv:
        scene = await build(kv)
        before = state(looker)
        wrong = []
        for line, (code, said) in COMMANDS.items():
            words = [filled(word, scene) for word in line.split()]
            ran = run_raftkv(*words, environment={"RAFTKV_ENDPOINTS": cluster.endpoints})
            error = ran.stderr.decode()
            if ran.returncode != code or ran.stdout:
                wrong.append(f"{line}: exit code {ran.returncode}, {ran.stdout!r}, {error!r}")
            if error.count("\n") != 1 or said not in error or "Traceback" in error:
                wrong.append(f"{line}: {error!r}")
            after = state(looker)
            if code == 4:  # who has waited and left was there in between
                before["revision"] = after["revision"]
            if after != before:
                wrong.append(f"{line}: changed {[part for part in before if before[part] != after[part]]}")
                before = after
        assert not wrong, "\n".join(wrong)


def filled(word: str, scene: Scene) -> str:
    return word.format(
        released=scene.released,
        claim=scene.claim,
        other=scene.other,
        finished=scene.finished,
        one=Text(scene.one),
        two=Text(scene.two),
    )


class Text:
    """A lock, for a command line."""

    def __init__(self, lock: Any) -> None:
        self.key = lock.key.decode()
        self.token = lock.token
