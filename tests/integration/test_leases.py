"""Leases of a real cluster: they end with their keys, never early by the clock of whoever was promised something, and not never."""

import asyncio
import threading
import time

import pytest

import raftkv
from raftkv.errors import LeaseNotFound, RaftKVError

from .harness.cluster import Cluster
from .harness.node import Node
from .harness.offices import leading_term, move_leader
from .harness.process import run_raftkv
from .harness.waiting import holds_for, wait_until

pytestmark = pytest.mark.integration

TTL_S = 3.0
LATE_S = 2.0  # how long after its time a lease may still be seen: an expiry is a write, and the machine is shared
KEY = "owned"


class Watcher:
    """Looks at a key all the time, from a thread; knows the moment by which it was surely gone."""

    def __init__(self, endpoints: str, key: str) -> None:
        self.gone_by_s: float | None = None
        self._ended = threading.Event()
        self._endpoints, self._key = endpoints, key
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with raftkv.Client(self._endpoints) as kv:
            while not self._ended.is_set():
                try:
                    value = kv.get(self._key)
                except RaftKVError:
                    continue  # an election runs
                if value is None:
                    self.gone_by_s = time.monotonic()
                    return
                self._ended.wait(0.01)


def grant_with_key(kv: raftkv.Client, ttl_s: float = TTL_S) -> tuple[int, float]:
    """A lease with KEY on it, and the moment up to which it was promised."""
    sent_s = time.monotonic()
    granted = kv.lease_grant(ttl_s)
    assert granted.ttl == ttl_s
    kv.put(KEY, "", lease=granted.id)
    return granted.id, sent_s + ttl_s


def keep_alive_after(kv: raftkv.Client, lease_id: int) -> float:
    sent_s = time.monotonic()
    return sent_s + kv.lease_keep_alive_once(lease_id)


def check_end(cluster: Cluster, watcher: Watcher, promised_s: float, term: int) -> None:
    """Waits for the end: it comes after the promise, and soon. `term` is from before the promise: who is elected unasked gives the whole time again."""
    due_s = promised_s

    def gone_by_s() -> float | None:
        nonlocal due_s, term
        newest = leading_term(cluster)
        if newest > term:
            term, due_s = newest, time.monotonic() + TTL_S
        return watcher.gone_by_s

    gone_s = wait_until(gone_by_s, "the end of the lease", deadline_s=TTL_S + 10)
    assert promised_s <= gone_s < due_s + LATE_S


def wait_in_office(cluster: Cluster, watcher: Watcher, seconds: float) -> float:
    """Until one leader was in office for so long, or the lease has ended. How long it took until then that others were elected unasked."""
    began_s = since_s = time.monotonic()
    term = leading_term(cluster)

    def is_over() -> bool:
        nonlocal since_s, term
        newest = leading_term(cluster)
        if newest > term:
            term, since_s = newest, time.monotonic()
        return watcher.gone_by_s is not None or time.monotonic() > since_s + seconds

    wait_until(is_over, "its term", deadline_s=20)
    return since_s - began_s


def test_a_lease_ends_with_its_keys_after_its_time_and_not_before(cluster: Cluster) -> None:
    with raftkv.Client(cluster.endpoints) as kv:
        term = leading_term(cluster)
        lease_id, promised_s = grant_with_key(kv)
        with Watcher(cluster.endpoints, KEY) as watcher:
            check_end(cluster, watcher, promised_s, term)
        for ask in (kv.lease_ttl, kv.lease_keep_alive_once, kv.lease_revoke):
            with pytest.raises(LeaseNotFound):
                ask(lease_id)
        assert kv.leases() == []
    cluster.wait_applied_equal()


def test_no_promise_is_broken_by_leaders_that_die_and_none_is_kept_for_ever(cluster: Cluster) -> None:
    with raftkv.Client(cluster.endpoints, timeout=10) as kv:
        lease_id, promised_s = grant_with_key(kv)
        with Watcher(cluster.endpoints, KEY) as watcher:
            for kills in range(3):
                promised_s = max(promised_s, keep_alive_after(kv, lease_id))
                leader = cluster.leader()
                leader.kill()
                sent_s = time.monotonic()
                promised_s = max(promised_s, sent_s + kv.lease_ttl(lease_id).remaining)
                leader.start()

                def is_back(leader: Node = leader) -> bool:
                    """Somebody has to keep the lease alive while it starts."""
                    nonlocal promised_s
                    promised_s = max(promised_s, keep_alive_after(kv, lease_id))
                    return leader.is_ready()

                wait_until(is_back, "the killed leader to be back", deadline_s=30)
                assert watcher.gone_by_s is None, f"lost with leader {kills + 1}"
            term = leading_term(cluster)
            promised_s = max(promised_s, keep_alive_after(kv, lease_id))
            check_end(cluster, watcher, promised_s, term)


def test_a_lease_that_nobody_keeps_dies_although_leaders_do(cluster: Cluster) -> None:
    """Each leader stays for more than half of its time; without checkpoints it would begin anew with each."""
    with raftkv.Client(cluster.endpoints, timeout=10) as kv:
        _, promised_s = grant_with_key(kv, 6.0)
        latest_s = promised_s + 3 * 3.6
        with Watcher(cluster.endpoints, KEY) as watcher:
            while watcher.gone_by_s is None and time.monotonic() < latest_s:
                latest_s += wait_in_office(cluster, watcher, 3.6)
                if watcher.gone_by_s is None:
                    leader = cluster.leader()
                    leader.kill()
                    cluster.leader(cluster.others(leader))
                    leader.start()
                    leader.wait_ready()
            assert watcher.gone_by_s is not None, "immortal"
            assert promised_s <= watcher.gone_by_s < latest_s


async def test_a_kept_lease_lives_through_dying_leaders(cluster: Cluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv, kv.lease(TTL_S) as lease:
        await kv.put(KEY, "", lease=lease.id)
        lowest_s = TTL_S
        for _ in range(3):
            leader = await asyncio.to_thread(cluster.leader)
            await asyncio.to_thread(leader.kill)
            await kv.put("probe", "x")
            lowest_s = min(lowest_s, lease.valid_for)
            leader.start()
            await asyncio.to_thread(leader.wait_ready)
            lowest_s = min(lowest_s, lease.valid_for)
        assert not lease.lost.is_set()
        assert lowest_s > 0
        assert await kv.get(KEY) == b""
    with raftkv.Client(cluster.endpoints) as client:
        assert client.get(KEY) is None, "the block has ended"


async def test_a_kept_lease_lives_through_ten_hand_overs(cluster: Cluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv, kv.lease(TTL_S) as lease:
        await kv.put(KEY, "", lease=lease.id)
        lowest_s = TTL_S
        with raftkv.Client(cluster.endpoints) as mover:
            for number in range(10):
                followers = await asyncio.to_thread(cluster.followers)
                await asyncio.to_thread(move_leader, mover, followers[number % 2].name)
                asked_s, known_s = time.monotonic(), lease.valid_for  # its keeper hears of more while we ask
                remaining_s = (await kv.lease_ttl(lease.id)).remaining
                assert remaining_s >= known_s - (time.monotonic() - asked_s)
                lowest_s = min(lowest_s, lease.valid_for)
        assert lowest_s > 0
        assert not lease.lost.is_set()
        assert await kv.get(KEY) == b""


async def test_a_leader_that_wakes_up_ends_no_lease_that_its_successor_keeps(cluster: Cluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv, kv.lease(TTL_S) as lease:
        await kv.put(KEY, "", lease=lease.id)
        sleeper = cluster.leader()
        sleeper.pause()
        with raftkv.Client(cluster.endpoints) as other:
            await asyncio.to_thread(
                holds_for, lambda: other.get(KEY) == b"", "the key, with its lease", seconds=2 * TTL_S
            )
            sleeper.resume()
            await asyncio.to_thread(holds_for, lambda: other.get(KEY) == b"", "the key, with its lease", seconds=1.0)
        assert not lease.lost.is_set()


def test_nothing_ends_while_there_is_no_majority(cluster: Cluster) -> None:
    with raftkv.Client(cluster.endpoints, timeout=10) as kv:
        lease_id, _ = grant_with_key(kv)
        cluster.wait_applied_equal()
        followers = cluster.followers()
        for node in followers:
            node.pause()
        leader = next(node for node in cluster.nodes if node not in followers)
        with raftkv.Client(leader.client_endpoint) as alone:
            holds_for(lambda: alone.get(KEY, stale=True) == b"", "the key", seconds=2 * TTL_S)
        for node in followers:
            node.resume()
        cluster.leader()
        assert kv.lease_keep_alive_once(lease_id) == TTL_S
        assert kv.get(KEY) == b""


async def test_load_does_not_starve_keep_alives(cluster: Cluster) -> None:
    """Two clients keep the write path full; a third one keeps a lease of the shortest time."""
    stop = asyncio.Event()
    written = 0

    async def write(kv: raftkv.AsyncClient, number: int) -> None:
        nonlocal written
        value = b"v" * 16_384
        while not stop.is_set():
            await kv.put(f"load/{number % 50}", value)
            written += 1

    async with (
        raftkv.connect(cluster.endpoints, timeout=30) as first,
        raftkv.connect(cluster.endpoints, timeout=30) as second,
        raftkv.connect(cluster.endpoints) as kv,
    ):
        async with kv.lease(2.0) as lease, first.lease(2.0) as loaded, asyncio.TaskGroup() as writers:
            for number in range(256):
                writers.create_task(write(first, number))
                writers.create_task(write(second, number))
            loop = asyncio.get_running_loop()
            lowest_s, slowest_s, ends = 2.0, 0.0, loop.time() + 8
            while loop.time() < ends:
                began = loop.time()
                await kv.lease_keep_alive_once(lease.id)
                slowest_s = max(slowest_s, loop.time() - began)
                lowest_s = min(lowest_s, lease.valid_for, loaded.valid_for)
            stop.set()
        assert written > 1000, "it was no load"
        assert not lease.doubt.is_set() or lowest_s > 0
        assert lowest_s > 0, "lost"
        assert slowest_s < 2.0, "slower than the time of the lease would keep nothing alive"


def test_thousands_of_leases_end_together(cluster: Cluster) -> None:
    ended = 0

    async def grant_all() -> None:
        async with raftkv.connect(cluster.endpoints, timeout=30) as kv:

            async def one(number: int) -> None:
                nonlocal ended
                asked_s = time.monotonic()
                granted = await kv.lease_grant(TTL_S)
                try:
                    await kv.put(f"many/{number}", "", lease=granted.id)
                except LeaseNotFound:
                    assert time.monotonic() >= asked_s + TTL_S, "ended before its time"
                    ended += 1  # before its turn to write came: that is what all shall do

            await asyncio.gather(*(one(number) for number in range(3000)))

    asyncio.run(grant_all())
    assert ended < 3000, "none had a key"
    with raftkv.Client(cluster.endpoints) as kv:
        wait_until(lambda: kv.count("many/") == 0, "all to end", deadline_s=TTL_S + 15)
        assert kv.leases() == []
    cluster.wait_applied_equal()
    digests = {status["digest"] for status in cluster.statuses().values()}
    assert len(digests) == 1


def test_watchers_hear_the_end_of_leases_as_deletes_and_waiters_are_answered(cluster: Cluster) -> None:
    """Also across the death of the leader that granted them; each lease ends at one revision, its keys in order."""
    with raftkv.Client(cluster.endpoints, timeout=10) as kv, kv.watch(prefix="end/", only="delete") as watch:
        leases = []
        for ttl_s in (60.0, 2.5, 2.5, 2.5):  # the first one is not to end by itself
            leases.append(kv.lease_grant(ttl_s).id)
            for name in ("b", "a"):
                kv.put(f"end/{leases[-1]}/{name}", "", lease=leases[-1])
        assert kv.lease_revoke(leases[0]) == 2
        cluster.leader().kill()
        assert kv.wait(f"end/{leases[1]}/a", until="deleted", timeout=20) is None
        heard: dict[int, list[bytes]] = {}
        for event in watch:
            heard.setdefault(event.revision, []).append(event.key)
            if sum(map(len, heard.values())) == 8:
                break
    expected = [[f"end/{lease}/{name}".encode() for name in ("a", "b")] for lease in leases]
    assert sorted(heard.values()) == sorted(expected)


def test_the_command_line(cluster: Cluster) -> None:
    def run(*words: str) -> str:
        ran = run_raftkv(*words, "--endpoints", cluster.endpoints)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.decode()

    lease_id = run("lease", "grant", "60").strip()
    assert len(lease_id) == 16
    run("put", "cli", "v", "--lease", lease_id)
    lines = run("lease", "ttl", lease_id, "--keys").splitlines()
    assert 50 < float(lines[0]) <= 60
    assert lines[1:] == ["cli"]
    assert run("lease", "keep-alive", lease_id, "--once").split() == [lease_id, "60"]
    assert lease_id in run("lease", "list")
    run("lease", "revoke", lease_id)
    gone = run_raftkv("lease", "ttl", lease_id, "--endpoints", cluster.endpoints)
    assert gone.returncode == 3
