"""Pools on three nodes: what is given is never more than there is, whoever dies, and a grant that is taken back cannot write any more."""

import asyncio
import random
import signal
import threading
import time
from pathlib import Path
from typing import Iterator

import pytest

import raftkv
from raftkv.errors import (
    DemandTooLarge,
    FencingTokenStale,
    InvalidRequest,
    LockLost,
    NotAcquired,
    NotHeld,
    PoolBusy,
    PoolExists,
    PoolNotFound,
    PoolRequestExists,
    PoolRequestNotFound,
    RaftKVError,
)

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


def raftkv_(cluster: Cluster, *words: str) -> tuple[int, str, str]:
    ran = run_raftkv(*words, environment={"RAFTKV_ENDPOINTS": cluster.endpoints})
    return ran.returncode, ran.stdout.decode(), ran.stderr.decode()


def test_a_pool_from_create_to_delete(kv: raftkv.Client) -> None:
    pool, licences = kv.pool("gpus"), kv.pool("licences")
    pool.create({"gpu": 4, "mem": 100}, classes={"urgent": 50}, age_weight=10, max_run=3600)
    licences.create({"solver": 1})
    with pytest.raises(PoolExists):
        pool.create({"gpu": 1})
    info = pool.info()
    assert (info.capacity, info.used, info.settings["max_run"]) == ({"gpu": 4, "mem": 100}, {"gpu": 0, "mem": 0}, 3600)
    with pool.acquire({"gpu": 3}, also={"licences": {"solver": 1}}, tenant="ann") as grant:
        assert pool.info().used == {"gpu": 3, "mem": 0}
        assert licences.info().used == {"solver": 1}
        grant.guard().put("model", "x")
        with pytest.raises(NotAcquired):
            pool.acquire({"gpu": 2}, timeout=0)
        with pytest.raises(NotAcquired):
            pool.acquire({"gpu": 2}, timeout=0.2)
        assert [(row.id, row.state, row.tenant) for row in pool.queue()] == [(grant.id, "granted", "ann")]
        with pytest.raises(PoolBusy):
            pool.delete()
    with pytest.raises(FencingTokenStale):
        grant.guard().put("model", "late")
    with pytest.raises(NotHeld):
        grant.release()
    assert kv.leases() == []
    for bad, error in (
        (lambda: kv.pool("nope").acquire({"gpu": 1}), PoolNotFound),
        (lambda: pool.acquire({"gpu": 5}), DemandTooLarge),
        (lambda: pool.acquire({"gpu": 0}), InvalidRequest),
        (lambda: pool.acquire({"gpu": 1}, weight=-1), InvalidRequest),
        (lambda: pool.acquire({"gpu": 1}, klass="unknown"), InvalidRequest),
        (lambda: pool.acquire({"gpu": 1}, ttl=0), InvalidRequest),
        (lambda: pool.set(capacity={"gpu": -1}), InvalidRequest),
        (lambda: kv.pool("nope").set(threshold=1), PoolNotFound),
        (lambda: kv.pool("nope").info(), PoolNotFound),
        (lambda: pool.release("nobody", 5), PoolRequestNotFound),
        (lambda: pool.why("nobody"), PoolRequestNotFound),
    ):
        with pytest.raises(error):
            bad()
    assert kv.leases() == [], "what is refused leaves no session behind"
    pool.delete()
    licences.delete()


def test_order_reasons_and_idempotence(kv: raftkv.Client) -> None:
    pool = kv.pool("order")
    pool.create({"gpu": 2}, threshold=1, quotas={"ann": {"gpu": 1}})
    with kv.lease(10) as lease:
        holder = pool.acquire({"gpu": 1}, weight=1, lease=lease, request_id="holder", tenant="ann")
        assert pool.acquire({"gpu": 1}, weight=1, lease=lease, request_id="holder", tenant="ann").token == holder.token
        with pytest.raises(PoolRequestExists):
            pool.acquire({"gpu": 1}, weight=1, request_id="holder", tenant="ann")
        second = pool.acquire({"gpu": 1}, weight=1)
        granted: list[str] = []

        def ask(name: str, demand: int, weight: int, tenant: str = "") -> None:
            with pool.acquire({"gpu": demand}, weight=weight, request_id=name, tenant=tenant, timeout=60):
                granted.append(name)

        threads = []
        for count, (name, demand, weight, tenant) in enumerate(
            (("light", 1, 2, ""), ("wide", 2, 5, ""), ("heavy", 1, 9, "ann"), ("young", 1, 0, "")), 3
        ):
            threads.append(threading.Thread(target=ask, args=(name, demand, weight, tenant)))
            threads[-1].start()
            wait_until(lambda count=count: len(pool.queue()) == count, "the request to queue up")  # type: ignore[misc]
        second.release()
        assert granted == []
        reasons = {row.id: (row.reason, row.ahead) for row in pool.queue() if row.state == "waiting"}
        assert reasons == {
            "heavy": ("over the quota of its tenant", 0),
            "wide": ("first in line, does not fit yet", 1),
            "light": ("behind another one", 2),
            "young": ("below the threshold", 3),
        }
        assert pool.why("light").details["head"] == "wide"
        assert pool.why("young").details["eligible_in_ms"] is None
        pool.set(threshold=0)
        holder.release()
        for thread in threads:
            thread.join()
    assert granted.index("heavy") == 0, granted
    assert sorted(granted) == ["heavy", "light", "wide", "young"]
    pool.delete()


def test_a_run_that_is_too_long_is_told_and_then_cut_off(kv: raftkv.Client) -> None:
    pool = kv.pool("limits")
    pool.create({"gpu": 1}, max_run=1.0, grace=60, max_wait=0.7)
    started_s = time.monotonic()
    grant = pool.acquire({"gpu": 1})
    with pytest.raises(NotAcquired, match="waited too long"):
        pool.acquire({"gpu": 1})
    assert grant.ending.wait(10)
    assert not grant.lost.is_set()
    assert time.monotonic() - started_s > 0.8
    grant.guard().put("limits/saved", "in time")
    assert pool.queue()[0].state == "ending"
    grant.release()
    pool.set(grace=1.0)  # counts from the next notice on
    started_s = time.monotonic()
    grant = pool.acquire({"gpu": 1})
    assert grant.lost.wait(10)
    assert grant.ending.is_set()
    assert time.monotonic() - started_s > 1.8
    with pytest.raises(FencingTokenStale):
        grant.guard().put("limits/saved", "late")
    with pytest.raises(LockLost):
        grant.release()
    with pool.acquire({"gpu": 1}, timeout=10) as other:
        assert other.token > grant.token
    pool.delete()


async def test_asyncio(healthy: Cluster) -> None:
    async with raftkv.connect(healthy.endpoints) as kv:
        pool = kv.pool("async")
        await pool.create({"gpu": 1})
        async with await pool.acquire({"gpu": 1}):
            waiting = asyncio.ensure_future(pool.acquire({"gpu": 1}))
            while len(await pool.queue()) < 2:
                await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert len(await pool.queue()) == 1
        cut_off = await pool.acquire({"gpu": 1}, max_run=1.0)
        await asyncio.wait_for(cut_off.lost.wait(), 20)
        with pytest.raises(LockLost):
            await cut_off.release()
        await pool.delete()


async def test_no_pool_is_overcommitted_while_nodes_and_workers_die(cluster: Cluster) -> None:
    """Hundreds of workers of all sizes over two pools; what they hold by their own clocks is never more than there is."""
    capacity = {"gpu": 8, "mem": 20}
    opened = [raftkv.connect(cluster.endpoints, timeout=20) for _ in range(4)]
    await opened[0].pool("work").create(capacity, age_weight=1000)
    await opened[0].pool("licences").create({"solver": 3})
    randomness = random.Random(5)
    held = {"gpu": 0, "mem": 0, "solver": 0}
    done = died = 0
    ending = asyncio.Event()

    def add(demand: dict[str, int], sign: int) -> None:
        for resource, amount in demand.items():
            held[resource] += sign * amount
        assert all(held[name] <= {**capacity, "solver": 3}[name] for name in held), "more is held than there is"

    async def work(number: int) -> None:
        nonlocal done, died
        kv = opened[number % 4]
        while not ending.is_set():
            demand = {"gpu": randomness.randint(1, 4), "mem": randomness.randint(1, 9)}
            solver = {"solver": 1} if randomness.random() < 0.3 else {}
            try:
                grant = await kv.pool("work").acquire(
                    demand, also={"licences": solver} if solver else None, ttl=2.0, timeout=30, weight=number % 3
                )
            except RaftKVError:
                continue
            add({**demand, **solver}, 1)
            await asyncio.sleep(randomness.random() * 0.02)
            add({**demand, **solver}, -1)
            if randomness.random() < 0.05:
                died += 1
                grant._watching.cancel()  # dies without a word: its session runs out
                await grant._lease.revoke()
                continue
            try:
                await grant.release()
                done += 1
            except (LockLost, RaftKVError):
                pass

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(work(number))
            await kill_and_pause_leaders(cluster)
            await asyncio.to_thread(wait_until, lambda: done > 100 and died > 0, "some work", deadline_s=60)
            ending.set()
        assert (await opened[0].pool("work").info()).used == {"gpu": 0, "mem": 0}
        assert (await opened[0].pool("licences").info()).used == {"solver": 0}
    finally:
        for kv in opened:
            await kv.close()
    await asyncio.to_thread(cluster.wait_applied_equal)


@pytest.mark.long
def test_pools_survive_the_restart_of_everybody(cluster: Cluster) -> None:
    with raftkv.Client(cluster.endpoints, timeout=20) as kv:
        pool = kv.pool("kept")
        pool.create({"gpu": 2}, grace=1)
        with kv.lease(60) as lease:
            grant = pool.acquire({"gpu": 2}, lease=lease, request_id="one")
            before = pool.queue()[0]
            for node in cluster.nodes:
                node.kill()
            cluster.start()
            after = pool.queue()[0]
            assert (after.id, after.token, after.demand) == (before.id, before.token, before.demand)
            grant.guard().put("kept/model", "x")
            grant.release()
        assert pool.queue() == []
    cluster.wait_applied_equal()


def test_a_worker_that_is_killed_frees_its_share_in_its_time_and_not_before(
    healthy: Cluster, kv: raftkv.Client, tmp_path: Path
) -> None:
    pool = kv.pool("killed")
    pool.create({"gpu": 1})
    words = ("pool", "acquire", "killed", "gpu=1", "--ttl", str(TTL_S), "--id", "w", "--endpoints", healthy.endpoints)
    worker = Process((*RAFTKV, *words, "--", "sleep", "100"), tmp_path / "log")
    wait_until(lambda: pool.queue(), "the worker to be granted")
    (key,) = kv.get_prefix("raftkv.pools/g/w")
    term = leading_term(healthy)
    worker.send(signal.SIGKILL)
    worker.wait_exit()
    killed_s = time.monotonic()
    remaining_s = kv.lease_ttl(key.lease).remaining
    with pool.acquire({"gpu": 1}, timeout=20) as grant:
        waited_s = time.monotonic() - killed_s
        assert grant.token > key.create_revision
    elections = leading_term(healthy) - term
    assert remaining_s - 0.1 <= waited_s < TTL_S * (1 + elections) + LATE_S
    pool.delete()


def test_the_command_line(healthy: Cluster, kv: raftkv.Client, tmp_path: Path) -> None:
    words = [
        "--class",
        "urgent=5",
        "--quota",
        "ann:gpu=1;*:gpu=9",
        "--backfill",
        "on",
        "--max-run",
        "60",
        "--notice",
        "3",
    ]
    assert raftkv_(healthy, "pool", "create", "cli", "gpu=2,mem=9", *words) == (0, "OK\n", "")
    assert raftkv_(healthy, "pool", "create", "cli", "gpu=2")[0] == 1
    info = kv.pool("cli").info()
    assert info.settings["quotas"] == {"ann": {"gpu": 1}, "*": {"gpu": 9}}
    assert (info.settings["classes"], info.settings["backfill"], info.settings["grace"]) == ({"urgent": 5}, True, 3)
    code, out, _ = raftkv_(
        *(healthy, "pool", "acquire", "cli", "gpu=1,mem=4", "--tenant", "ann", "--as", "urgent", "--id", "mine", "--"),
        *("sh", "-c", 'echo "$RAFTKV_GRANT_ID $RAFTKV_GRANT_KEY"; exit 3'),
    )
    assert (code, out) == (3, "mine raftkv.pools/g/mine\n")
    with kv.pool("cli").acquire({"gpu": 2}, request_id="all") as grant:
        assert raftkv_(healthy, "pool", "acquire", "cli", "gpu=1", "--wait", "0.3", "--", "true")[0] == 4
        waiting = Process(
            (
                *RAFTKV,
                "pool",
                "acquire",
                "cli",
                "gpu=1",
                "--id",
                "next",
                "--endpoints",
                healthy.endpoints,
                "--",
                "true",
            ),
            tmp_path / "log",
        )
        wait_until(lambda: len(kv.pool("cli").queue()) == 2, "the next one to wait")
        assert "first in line" in raftkv_(healthy, "pool", "why", "next")[1]
        assert "granted" in raftkv_(healthy, "pool", "why", "all")[1]
        listed = raftkv_(healthy, "pool", "queue", "cli")[1]
        assert "all" in listed
        assert "first in line" in listed
        assert '"state": "waiting"' in raftkv_(healthy, "pool", "queue", "-o", "json")[1]
        assert "gpu 2/2" in raftkv_(healthy, "pool", "list")[1]
        assert raftkv_(healthy, "pool", "release", "all", "1")[0] == 1
        assert raftkv_(healthy, "pool", "release", "all", str(grant.token))[0] == 0
        assert waiting.wait_exit() == 0
        assert grant.lost.wait(10)
        with pytest.raises(LockLost):
            grant.release()
    assert raftkv_(healthy, "pool", "why", "all")[0] == 3
    assert raftkv_(healthy, "pool", "set", "cli", "gpu=1,mem=1", "--max-run", "0.5")[0] == 0
    ended = raftkv_(healthy, "pool", "set", "cli", "--notice", "0.2")
    assert ended[0] == 0
    code, _, err = raftkv_(
        healthy,
        "pool",
        "acquire",
        "cli",
        "gpu=1",
        "--grace",
        "0.3",
        "--",
        "sh",
        "-c",
        "trap '' TERM; sleep 60 & wait; sleep 60",
    )
    assert (code, "lock_lost" in err) == (1, True)
    assert raftkv_(healthy, "pool", "delete", "cli")[0] == 0


def test_the_command_line_refuses_what_makes_no_sense(healthy: Cluster) -> None:
    for bad in (
        ("acquire", "cli"),
        ("acquire", "cli", "gpu"),
        ("create", "x", "gpu=-1"),
        ("queue", "--weight", "1"),
        ("dance",),
    ):
        assert raftkv_(healthy, "pool", *bad)[0] == 2, bad
