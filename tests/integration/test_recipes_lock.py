"""Locks and semaphores on three nodes: exclusion by fencing tokens through kills, pauses and cut cables; a dead holder frees in its time."""

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Iterator

import pytest

import raftkv
from raftkv.errors import FencingTokenStale, InvalidRequest, LockLost, NotAcquired, NotHeld, PoolExists

from .harness.cluster import Cluster
from .harness.netns import Network
from .harness.offices import leading_term
from .harness.process import RAFTKV, Process, run_raftkv
from .harness.rivals import check_count, rivalry
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

TTL_S = 3.0
LATE_S = 3.0  # an expiry is a write, and the machine is shared


@pytest.fixture
def kv(healthy: Cluster) -> Iterator[raftkv.Client]:
    with raftkv.Client(healthy.endpoints) as client:
        yield client


def test_first_come_first_served_with_growing_tokens(healthy: Cluster, kv: raftkv.Client) -> None:
    """Also among threads of one client, more than it has connections; a timeout gives the place up."""
    order: list[int] = []
    tokens: list[int] = []
    lock = kv.lock("fifo")
    tokens.append(lock.acquire())
    assert [holder.holds for holder in lock.queue()] == [True]

    def wait_in_line(number: int) -> None:
        mine = kv.lock("fifo", owner=str(number))
        mine.acquire(60)
        order.append(number)
        tokens.append(mine.token)
        mine.release()

    threads = []
    for number in range(12):
        threads.append(threading.Thread(target=wait_in_line, args=(number,)))
        threads[-1].start()
        wait_until(lambda n=number: len(kv.lock("fifo").queue()) == n + 2, "the next one to queue up")  # type: ignore[misc]
    with pytest.raises(NotAcquired):
        kv.lock("fifo").acquire(0)
    with pytest.raises(NotAcquired):
        kv.lock("fifo").acquire(0.2)
    line = lock.queue()
    assert [holder.owner for holder in line[1:]] == [str(number).encode() for number in range(12)]
    lock.release()
    for thread in threads:
        thread.join()
    assert order == list(range(12))
    assert tokens == sorted(set(tokens))
    assert lock.queue() == []
    assert kv.leases() == []


def test_a_stale_holder_is_refused_and_told(kv: raftkv.Client) -> None:
    lock = kv.lock("guarded")
    lock.acquire()
    mine, token = lock.guard(), lock.token
    mine.put("guarded/value", "first")
    (holder,) = lock.queue()
    assert holder.token == token
    kv.lease_revoke(holder.lease)  # as if it had run out
    assert lock.lost.wait(TTL_S * 4), "the holder is told"
    with pytest.raises(LockLost):
        lock.check()
    with kv.lock("guarded") as other:
        assert other.token > token
        with pytest.raises(FencingTokenStale):
            mine.put("guarded/value", "late")
        other.guard().put("guarded/value", "second")
    with pytest.raises(LockLost):
        lock.release()
    with pytest.raises(NotHeld):
        lock.release()
    assert kv.get("guarded/value") == b"second"


def test_a_token_of_another_lock_is_no_token(kv: raftkv.Client) -> None:
    with kv.lock("one") as one, kv.lock("two") as two:
        for key, token in ((one.key, two.token), (two.key, one.token), (b"one/", one.token)):
            with pytest.raises(FencingTokenStale):
                kv.guarded(key, token).put("mixed", "x")
        kv.guarded(one.key, one.token).guarded(two.key, two.token).put("mixed", "both")
        key, token = two.key, two.token
        two.release()
        with pytest.raises(FencingTokenStale):
            kv.guarded(one.key, one.token).guarded(key, token).put("mixed", "late")
    assert kv.get("mixed") == b"both"


def test_leaving_the_block_of_a_lost_lock_says_so(kv: raftkv.Client) -> None:
    def lose(then: type[Exception] | None = None) -> None:
        with kv.lock("left") as lock:
            kv.lease_revoke(lock.queue()[0].lease)
            assert lock.lost.wait(20)
            if then is not None:
                raise then

    with pytest.raises(LockLost):
        lose()
    with pytest.raises(ZeroDivisionError):  # it is not hidden by the loss
        lose(then=ZeroDivisionError)


def test_readers_share_and_writers_do_not(kv: raftkv.Client) -> None:
    with kv.lock("rw", shared=True), kv.lock("rw", shared=True) as second:
        with pytest.raises(NotAcquired):
            kv.lock("rw").acquire(0)
        assert [holder.holds for holder in second.queue()] == [True, True]
        entered: list[str] = []

        def write() -> None:
            with kv.lock("rw"):
                entered.append("writer")

        def read() -> None:
            with kv.lock("rw", shared=True):
                entered.append("reader")

        writer = threading.Thread(target=write)
        writer.start()
        wait_until(lambda: len(second.queue()) == 3, "the writer to queue up")
        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: len(second.queue()) == 4, "the reader to queue up behind the writer")
        assert entered == []
    writer.join()
    reader.join()
    assert entered == ["writer", "reader"], "a reader does not overtake a writer"


def test_reentrance_and_misuse(kv: raftkv.Client) -> None:
    lock = kv.lock("again", reentrant=True)
    with lock, lock:
        assert lock.held
        assert len(lock.queue()) == 1
    assert not lock.held
    plain = kv.lock("again")
    with plain:
        assert plain.held
        with pytest.raises(InvalidRequest):
            plain.acquire()
    errors: list[BaseException] = []

    def steal() -> None:
        try:
            lock.acquire()
        except InvalidRequest as error:
            errors.append(error)

    with lock:
        thief = threading.Thread(target=steal)
        thief.start()
        thief.join()
    assert len(errors) == 1, "re-entrant is for the owner"
    for bad in ({"ttl": 0}, {"ttl": -1.0}, {"ttl": float("nan")}):
        with pytest.raises(InvalidRequest):
            kv.lock("bad", **bad)
    with pytest.raises(InvalidRequest):
        kv.lock("")
    with pytest.raises(NotHeld):
        kv.lock("bad").check()
    assert kv.leases() == []


def test_a_lease_of_the_user_carries_several_locks(kv: raftkv.Client) -> None:
    with kv.lease(5) as lease:
        one, two = kv.lock("mine", lease=lease), kv.lock("mine", lease=lease)
        one.acquire()
        with pytest.raises(NotAcquired):
            two.acquire(0)
        one.release()
        two.acquire(5)
        assert kv.leases() == [lease.id]
    assert two.lost.is_set()


async def test_asyncio_and_cancellation(healthy: Cluster) -> None:
    """Who is cancelled in the queue leaves no place behind."""
    async with raftkv.connect(healthy.endpoints) as kv, kv.lock("async") as lock:
        with pytest.raises(NotAcquired):
            await kv.lock("async").acquire(0)
        waiting = asyncio.ensure_future(kv.lock("async").acquire())
        while len(await lock.queue()) < 2:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert len(await lock.queue()) == 1
        assert len(await kv.leases()) == 1


def test_a_semaphore_by_weight_and_priority(kv: raftkv.Client) -> None:
    with kv.semaphore("sem", 5, weight=3) as place:
        with kv.semaphore("sem", 5, weight=2):
            with pytest.raises(NotAcquired):
                kv.semaphore("sem", 5).acquire(0)
            assert place.standing().used == 5
        entered: list[str] = []

        def enter(name: str, weight: int, priority: int) -> None:
            with kv.semaphore("sem", 5, weight=weight, priority=priority, owner=name):
                entered.append(name)

        threads = []
        for name, weight, priority in (("large", 5, 0), ("small", 1, 0), ("urgent", 5, 1)):
            threads.append(threading.Thread(target=enter, args=(name, weight, priority)))
            threads[-1].start()
            wait_until(lambda: len(place.standing().waiting) == len(threads), "the next one to queue up")
        assert [waiting.owner for waiting in place.standing().waiting] == ["urgent", "large", "small"]
        assert entered == [], "the small one would fit, and does not overtake"
    for thread in threads:
        thread.join()
    assert entered == ["urgent", "large", "small"]
    with pytest.raises(InvalidRequest, match="has a capacity of 5, not 6"):
        kv.semaphore("sem", 6).acquire(0)
    for capacity, weight in ((5, 6), (0, 1), (5, 0), (5, -1)):
        with pytest.raises(InvalidRequest):
            kv.semaphore("sem", capacity, weight=weight)


def test_a_resize_lets_in_who_waits(kv: raftkv.Client) -> None:
    with kv.semaphore("grow", 1) as place:
        in_too = threading.Event()

        def enter() -> None:
            with kv.semaphore("grow", 1):
                in_too.set()

        thread = threading.Thread(target=enter)
        thread.start()
        wait_until(lambda: len(place.standing().waiting) == 1, "the second to wait")
        place.resize(2)
        assert in_too.wait(10)
        thread.join()


# Faults.


def in_thread(action: Callable[[], None]) -> Awaitable[None]:
    return asyncio.to_thread(action)


def a_lock(kv: raftkv.AsyncClient) -> Any:
    return kv.lock("rivals", ttl=TTL_S)


def a_semaphore(kv: raftkv.AsyncClient) -> Any:
    return kv.semaphore("rivals", 1, ttl=TTL_S)


@pytest.mark.parametrize("hold", [a_lock, pytest.param(a_semaphore, marks=pytest.mark.long)])
async def test_exclusion_while_leaders_are_killed_and_paused(cluster: Cluster, hold: Any) -> None:
    async def meanwhile() -> None:
        for round_ in range(2):
            await asyncio.sleep(2)
            leader = await asyncio.to_thread(cluster.leader)
            if round_ % 2:
                leader.kill()
                await asyncio.to_thread(cluster.leader, cluster.others(leader))
            else:
                leader.pause()
                await asyncio.to_thread(cluster.leader, cluster.others(leader))
                leader.resume()

    tally = await rivalry(cluster.endpoints, hold, rivals=40, seconds=12, meanwhile=meanwhile)
    counted = await asyncio.to_thread(check_count, cluster.endpoints, tally)
    assert counted > 20, tally


class Grantee:
    """A grant of a pool of one, with the words of a lock."""

    def __init__(self, kv: raftkv.AsyncClient) -> None:
        self._pool = kv.pool("rivals")
        self._grant: Any = None

    @property
    def token(self) -> int:
        return int(self._grant.token)

    async def acquire(self, timeout: float) -> None:
        try:
            await self._pool.create({"one": 1})
        except PoolExists:
            pass
        self._grant = await self._pool.acquire({"one": 1}, timeout=timeout, ttl=TTL_S)

    def guard(self) -> Any:
        return self._grant.guard()

    async def release(self) -> None:
        await self._grant.release()


@pytest.mark.netns
@pytest.mark.parametrize(
    "hold", [a_lock, *(pytest.param(hold, marks=pytest.mark.long) for hold in (a_semaphore, Grantee))]
)
async def test_exclusion_while_the_leader_is_cut_off(network: Network, separated: Cluster, hold: Any) -> None:
    async def meanwhile() -> None:
        await asyncio.sleep(2)
        leader = await asyncio.to_thread(separated.leader)
        others = separated.others(leader)
        network.isolate(leader.name, [node.name for node in others])
        await asyncio.to_thread(separated.leader, others)
        await asyncio.sleep(TTL_S)
        network.heal()

    tally = await rivalry(separated.endpoints, hold, rivals=40, seconds=12, meanwhile=meanwhile)
    counted = await asyncio.to_thread(check_count, separated.endpoints, tally)
    assert counted > 20, tally


async def test_hundreds_of_rivals_all_get_their_turn(healthy: Cluster) -> None:
    """Three hundred in one queue, on four connections: each is in once, in the order of its token."""
    tokens: list[int] = []
    opened = [raftkv.connect(healthy.endpoints, timeout=20) for _ in range(4)]

    async def once(kv: raftkv.AsyncClient) -> None:
        async with kv.lock("hundreds", ttl=30) as lock:
            tokens.append(lock.token)

    async with asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(once(opened[number % 4]))
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 300
    assert await opened[0].leases() == []
    for kv in opened:
        await kv.close()


def test_a_holder_that_is_killed_frees_the_lock_in_its_time_and_not_before(
    healthy: Cluster, kv: raftkv.Client, tmp_path: Path
) -> None:
    command = (*RAFTKV, "lock", "killed", "--ttl", str(TTL_S), "--endpoints", healthy.endpoints)
    marks = tmp_path / "marks"
    script = f"while :; do date >> {marks}; sleep 0.05; done"
    process = Process((*command, "--", "sh", "-c", script), tmp_path / "log")
    try:
        wait_until(marks.exists, "the command to run")
        (holder,) = kv.lock("killed").queue()
        term = leading_term(healthy)
        process.send(signal.SIGKILL)
        process.wait_exit()
        killed_s = time.monotonic()
        remaining_s = kv.lease_ttl(holder.lease).remaining
        with kv.lock("killed") as lock:
            waited_s = time.monotonic() - killed_s
            assert lock.token > holder.token
        elections = leading_term(healthy) - term
        assert remaining_s - 0.1 <= waited_s < TTL_S * (1 + elections) + LATE_S
        wait_until(lambda: marks.stat().st_mtime < time.time() - 1, "the command to have ended with its holder")
    finally:
        process.kill()


def lock_command(cluster: Cluster, *words: str) -> Any:
    return run_raftkv("lock", *words, environment={"RAFTKV_ENDPOINTS": cluster.endpoints})


def test_the_command_line(healthy: Cluster, kv: raftkv.Client) -> None:
    ran = lock_command(healthy, "cli", "--", "sh", "-c", 'echo "$RAFTKV_LOCK_NAME $RAFTKV_LOCK_TOKEN -x"; exit 7')
    assert ran.returncode == 7, ran.stderr
    name, token, rest = ran.stdout.decode().split()
    assert (name, rest) == ("cli", "-x")
    assert int(token) > 1
    assert lock_command(healthy, "cli", "--", "sh", "-c", "kill -9 $$").returncode == 128 + 9
    assert lock_command(healthy, "cli", "--", "/no/such/command").returncode == 127
    assert lock_command(healthy, "cli", "--", "/etc/passwd").returncode == 126
    assert kv.leases() == []
    with kv.lock("cli", owner="a test"):
        refused = lock_command(healthy, "cli", "--wait", "0.3", "--", "true")
        assert refused.returncode == 4
        assert refused.stderr.decode().startswith("raftkv lock: not_acquired: ")
        listed = lock_command(healthy, "cli", "--queue")
        assert "held" in listed.stdout.decode()
        assert "a test" in listed.stdout.decode()
    assert lock_command(healthy, "cli", "--queue", "--", "true").returncode == 2


def test_signals_and_input_go_to_the_command(healthy: Cluster, kv: raftkv.Client, tmp_path: Path) -> None:
    said = run_raftkv("lock", "cat", "--endpoints", healthy.endpoints, "--", "cat", standard_input=b"through\xff")
    assert (said.returncode, said.stdout) == (0, b"through\xff")
    words = ("lock", "told", "--endpoints", healthy.endpoints, "--", "sh", "-c", f"echo > {tmp_path}/on; sleep 100")
    process = Process((*RAFTKV, *words), tmp_path / "log")
    wait_until((tmp_path / "on").exists, "the command to run")
    process.send(signal.SIGTERM)
    assert process.wait_exit() == 128 + signal.SIGTERM
    kv.lock("told").acquire(0)  # it was given back, and did not run out
    holding = Process((*RAFTKV, "lock", "held", "--endpoints", healthy.endpoints), tmp_path / "held")
    wait_until(lambda: holding.log_text().endswith("\n"), "it to say that it holds the lock")
    holding.send(signal.SIGTERM)
    assert holding.wait_exit() == 0
    kv.lock("held").acquire(0)


def test_a_command_writes_under_its_token(healthy: Cluster, kv: raftkv.Client) -> None:
    raftkv_ = " ".join(RAFTKV)
    guard = '--guard "$RAFTKV_LOCK_KEY:$RAFTKV_LOCK_TOKEN"'
    said = lock_command(
        healthy, "token", "--", "sh", "-c", f"{raftkv_} put shell x {guard}; {raftkv_} del shell {guard}"
    )
    assert (said.returncode, said.stdout) == (0, b"OK\n1\n"), said.stderr
    with kv.lock("token") as lock:
        stale = f"{lock.key.decode()}:{lock.token - 1}"
        for words in (("put", "shell", "x"), ("del", "shell")):
            refused = run_raftkv(*words, "--guard", stale, "--endpoints", healthy.endpoints)
            assert refused.returncode == 1
            assert "fencing_token_stale" in refused.stderr.decode()
    for bad in ("token", "token:", ":5", "token:x", "token:0"):
        assert run_raftkv("put", "shell", "x", "--guard", bad, "--endpoints", healthy.endpoints).returncode == 2
    assert kv.get("shell") is None


def test_a_command_is_ended_when_its_lock_is_lost(healthy: Cluster, kv: raftkv.Client, tmp_path: Path) -> None:
    words = ("lock", "ended", "--ttl", str(TTL_S), "--grace", "0.5", "--endpoints", healthy.endpoints)
    script = f"trap '' TERM; echo $$ > {tmp_path}/pid; sleep 100 & wait; sleep 100"
    process = Process((*RAFTKV, *words, "--", "sh", "-c", script), tmp_path / "log")
    try:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the command to run")
        kv.lease_revoke(kv.lock("ended").queue()[0].lease)
        assert process.wait_exit(TTL_S + 10) == 1
        child = int((tmp_path / "pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
        assert "lock_lost" in (tmp_path / "log").read_text()
    finally:
        process.kill()


def test_no_quorum_is_not_acquired(cluster: Cluster) -> None:
    for node in cluster.followers():
        node.kill()
    ran = lock_command(cluster, "alone", "--timeout", "2", "--", "true")
    assert ran.returncode == 4, ran.stderr
