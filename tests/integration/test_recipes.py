"""Elections, barriers, queues, counters and groups on three nodes, while leaders die and while members and workers do."""

import asyncio
import random
import signal
import threading
import time
from collections import Counter as Tally
from pathlib import Path
from typing import Iterator

import pytest

import raftkv
from raftkv.errors import FencingTokenStale, InvalidRequest, LockLost, NotAcquired, NotANumber, NotHeld, RaftKVError

from .harness.cluster import Cluster
from .harness.faults import kill_and_pause_leaders
from .harness.offices import leading_term
from .harness.process import RAFTKV, Process, run_raftkv
from .harness.rivals import check_count, rivalry
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

TTL_S = 3.0
LATE_S = 3.0


@pytest.fixture
def kv(healthy: Cluster) -> Iterator[raftkv.Client]:
    with raftkv.Client(healthy.endpoints) as client:
        yield client


def raftkv_(cluster: Cluster, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
    ran = run_raftkv(*words, environment={"RAFTKV_ENDPOINTS": cluster.endpoints}, standard_input=stdin)
    return ran.returncode, ran.stdout.decode(), ran.stderr.decode()


# Election.


def test_an_election_from_campaign_to_succession(kv: raftkv.Client) -> None:
    first, second = kv.election("office"), kv.election("office")
    assert first.leader() is None
    heard: list[tuple[bytes, int]] = []

    def listen() -> None:
        for leader in kv.election("office").observe():
            heard.append((leader.value, leader.token))
            if leader.value == b"over":
                return

    listener = threading.Thread(target=listen)
    listener.start()
    token = first.campaign("a")
    with pytest.raises(NotAcquired):
        second.campaign("b", 0)
    wait_until(lambda: (b"a", token) in heard, "the first leader to be heard of")
    first.proclaim("a2")
    wait_until(lambda: (b"a2", token) in heard, "its words to be heard of")
    mine = first.guard()
    first.resign()
    successor = second.campaign("b")
    assert successor > token
    with pytest.raises(FencingTokenStale):
        mine.put("plan", "late")
    leader = second.leader()
    assert leader is not None
    assert (leader.value, leader.token) == (b"b", successor)
    with pytest.raises(NotHeld):
        first.proclaim("ghost")
    wait_until(lambda: (b"b", successor) in heard, "the successor to be heard of")
    second.proclaim("over")
    listener.join()
    kv.lease_revoke(kv.lock("office").queue()[0].lease)  # the office is a lock
    with pytest.raises(FencingTokenStale):
        second.proclaim("deposed")
    assert second.lost.wait(20)
    with pytest.raises(LockLost):
        second.resign()
    assert kv.leases() == []


@pytest.mark.long
async def test_one_leader_at_a_time_while_nodes_die(cluster: Cluster) -> None:
    class Candidate:
        def __init__(self, kv: raftkv.AsyncClient) -> None:
            self.election = kv.election("rivals", ttl=TTL_S)
            self.guard = self.election.guard
            self.release = self.election.resign

        @property
        def token(self) -> int:
            return self.election.token

        async def acquire(self, timeout: float) -> None:
            await self.election.campaign("me", timeout)

    async def meanwhile() -> None:
        await kill_and_pause_leaders(cluster)

    tally = await rivalry(cluster.endpoints, Candidate, rivals=20, seconds=10, meanwhile=meanwhile)
    counted = await asyncio.to_thread(check_count, cluster.endpoints, tally)
    assert counted > 20, tally


def test_elect_on_the_command_line(healthy: Cluster, kv: raftkv.Client) -> None:
    code, out, _ = raftkv_(healthy, "elect", "cli", "me", "--", "sh", "-c", 'echo "$RAFTKV_ELECTION_TOKEN"; exit 5')
    assert (code, int(out) > 1) == (5, True)
    assert raftkv_(healthy, "elect", "cli", "--leader")[0] == 3
    office = kv.election("cli")
    office.campaign("somebody")
    assert raftkv_(healthy, "elect", "cli", "--leader")[:2] == (0, "somebody\n")
    assert raftkv_(healthy, "elect", "cli", "me", "--wait", "0.3", "--", "true")[0] == 4
    assert raftkv_(healthy, "elect", "cli", "me", "--leader")[0] == 2
    office.resign()


# Barriers.


def test_a_gate(healthy: Cluster, kv: raftkv.Client) -> None:
    gate = kv.barrier("gate")
    gate.wait(0)
    assert gate.close()
    with pytest.raises(NotAcquired):
        gate.wait(0)
    assert not gate.close()
    assert gate.is_closed()
    with pytest.raises(NotAcquired):
        gate.wait(0.2)
    assert raftkv_(healthy, "barrier", "wait", "gate", "--wait", "0.2")[0] == 4
    passed = threading.Event()

    def pass_through() -> None:
        kv.barrier("gate").wait(30)
        passed.set()

    waiting = threading.Thread(target=pass_through)
    waiting.start()
    assert raftkv_(healthy, "barrier", "open", "gate")[:2] == (0, "OK\n")
    assert passed.wait(20)
    waiting.join()
    assert not gate.open()
    assert raftkv_(healthy, "barrier", "wait", "gate")[0] == 0
    with kv.lease(TTL_S) as lease:
        gate.close(lease=lease.id)
    assert not gate.is_closed(), "it opens when its closer ends"


@pytest.mark.long
async def test_rounds_of_a_meeting_point_while_nodes_die(cluster: Cluster) -> None:
    """Forty meet again and again on one name: nobody is a round ahead of another, whatever happens to the nodes."""
    count, rounds = 40, 6
    where = [0] * count
    opened = [raftkv.connect(cluster.endpoints, timeout=20) for _ in range(4)]

    async def take_part(number: int) -> None:
        for round_ in range(1, rounds + 1):
            await asyncio.sleep(random.random() * 0.5)
            point = opened[number % 4].double_barrier("meet", count, ttl=20)
            await point.enter(60)
            where[number] = round_
            assert round_ - 1 <= min(where), "somebody is a whole round behind"
            assert max(where) <= round_, "somebody is ahead"
            await point.leave(60)
            assert min(where) == round_, "nobody leaves before all were there"

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(take_part(number))
        await kill_and_pause_leaders(cluster, between_s=1.0)
    for client in opened:
        await client.close()


def test_a_meeting_point_is_not_held_up_by_the_dead(healthy: Cluster, kv: raftkv.Client) -> None:
    with pytest.raises(NotAcquired):
        kv.double_barrier("late", 2).enter(0.3)
    assert kv.get_prefix("late/") == [], "who gives up leaves nothing behind"
    threads = [threading.Thread(target=raftkv_, args=(healthy, "barrier", "meet", "late", "3")) for _ in range(2)]
    for thread in threads:
        thread.start()
    with kv.double_barrier("late", 3, timeout=30):
        assert 1 <= len(kv.get_prefix("late/m/")) <= 3  # the others may have left already
    for thread in threads:
        thread.join()
    kv.put("late/ready", "")  # a round that died on its way out
    with kv.double_barrier("late", 1, timeout=10) as point, pytest.raises(InvalidRequest):
        point.enter(1)
    with pytest.raises(NotHeld):
        point.leave()
    with pytest.raises(InvalidRequest):
        kv.double_barrier("late", 0)
    assert kv.get_prefix("late/") == []


# Queue.


def test_a_queue_in_order_and_by_priority(healthy: Cluster, kv: raftkv.Client) -> None:
    with kv.queue("q") as queue:
        for value, priority in ((b"a", 0), (b"b", 0), (b"first", 7), (b"last", -1)):
            queue.put(value, priority=priority)
        assert [item.value for item in queue.items()] == [b"first", b"a", b"b", b"last"]
        with queue.claim(0) as claim:
            assert (claim.value, claim.attempt) == (b"first", 1)
            assert [item.claimed for item in queue.items()] == [True, False, False, False]
        given = queue.claim(0)
        given.give_back()
        with pytest.raises(NotHeld):
            given.ack()
        again = queue.claim(0)
        assert (again.value, again.attempt) == (b"a", 2)
        again.ack()
        with pytest.raises(NotHeld):
            again.ack()
        with pytest.raises(ZeroDivisionError), queue.claim(0):
            raise ZeroDivisionError
        assert [item.attempts for item in queue.items()] == [1, 0]
        assert [queue.claim(0).value for _ in range(2)] == [b"b", b"last"]
        with pytest.raises(NotAcquired):
            queue.claim(0.1)
    assert queue.length() == 2
    assert not any(item.claimed for item in queue.items()), "claims end with their session"
    with pytest.raises(InvalidRequest):
        queue.put("x", priority=10**10)
    for item in queue.items():
        assert queue.remove(item.id)
    assert not queue.remove(b"0/0")


def test_whoever_waits_is_woken_by_puts_and_by_lost_claims(kv: raftkv.Client) -> None:
    got: list[bytes] = []

    def work() -> None:
        with kv.queue("wake") as queue:
            for _ in range(2):
                with queue.claim(30) as claim:
                    got.append(claim.value)

    worker = threading.Thread(target=work)
    worker.start()
    with kv.queue("wake", ttl=TTL_S) as queue:
        queue.put("one")
        wait_until(lambda: got == [b"one"], "the item to be worked on")
        wait_until(lambda: queue.length() == 0, "the item to be acknowledged")
        with kv.lock("wake"):
            queue.put("two")
    worker.join()
    assert got == [b"one", b"two"]

    with kv.queue("lost") as other:
        other.put("x")
        stale = other.claim(0)
        lease = kv.get_prefix("lost/c/")[0].lease
        done: list[int] = []

        def rework() -> None:
            with kv.queue("lost") as queue, queue.claim(30) as claim:
                done.append(claim.attempt)

        worker = threading.Thread(target=rework)
        worker.start()
        kv.lease_revoke(lease)
        worker.join()
        assert done == [2]
        with pytest.raises(LockLost):
            stale.ack()
        assert other.length() == 0


async def test_no_item_is_lost_or_done_twice_while_nodes_and_workers_die(cluster: Cluster) -> None:
    """Workers vanish in the middle of an item. What was acknowledged was acknowledged once; everything is."""
    items, workers = 150, 12
    acknowledged: Tally[bytes] = Tally()
    uncertain: set[bytes] = set()
    randomness = random.Random(7)
    done = asyncio.Event()

    async def produce(kv: raftkv.AsyncClient) -> None:
        queue = kv.queue("work")
        for number in range(items):
            await queue.put(b"%d" % number, priority=number % 3)

    async def work(kv: raftkv.AsyncClient) -> None:
        while not done.is_set():
            queue = kv.queue("work", ttl=2.0)
            try:
                claim = await queue.claim(1)
                if randomness.random() < 0.2:
                    await queue.close()  # dies with the item in hand
                    continue
                value = claim.value
                try:
                    await claim.ack()
                except LockLost:
                    continue
                except RaftKVError as error:
                    if error.may_have_happened:
                        uncertain.add(value)
                    continue
                acknowledged[value] += 1
            except (NotAcquired, RaftKVError):
                pass
            finally:
                await queue.close()
            if len(acknowledged.keys() | uncertain) == items and await kv.queue("work").length() == 0:
                done.set()

    opened = [raftkv.connect(cluster.endpoints, timeout=20) for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        group.create_task(produce(opened[0]))
        for number in range(workers):
            group.create_task(work(opened[number % 3]))
        await kill_and_pause_leaders(cluster)
    assert set(acknowledged) | uncertain == {b"%d" % number for number in range(items)}
    assert max(acknowledged.values()) == 1, "an item was acknowledged twice"
    for kv in opened:
        await kv.close()


def test_a_worker_that_is_killed_gives_its_item_back_in_its_time(
    healthy: Cluster, kv: raftkv.Client, tmp_path: Path
) -> None:
    code, item, _ = raftkv_(healthy, "queue", "put", "cli", "-", "--priority", "2", stdin=b"work\xff")
    assert code == 0
    assert raftkv_(healthy, "queue", "length", "cli")[1] == "1\n"
    words = ("queue", "claim", "cli", "--ttl", str(TTL_S), "--endpoints", healthy.endpoints)
    worker = Process((*RAFTKV, *words, "--", "sleep", "100"), tmp_path / "log")
    with kv.queue("cli") as queue:
        wait_until(lambda: queue.items()[0].claimed, "the worker to claim it")
        (claim,) = kv.get_prefix("cli/c/")
        term = leading_term(healthy)
        worker.send(signal.SIGKILL)
        worker.wait_exit()
        killed_s = time.monotonic()
        remaining_s = kv.lease_ttl(claim.lease).remaining
        again = queue.claim(20)
        waited_s = time.monotonic() - killed_s
        elections = leading_term(healthy) - term
        assert remaining_s - 0.1 <= waited_s < TTL_S * (1 + elections) + LATE_S
        assert (again.value, again.attempt, again.id) == (b"work\xff", 2, item.strip().encode())
        again.give_back()
    script = 'test "$RAFTKV_ITEM_ATTEMPT" = 3 && exit 9'
    assert raftkv_(healthy, "queue", "claim", "cli", "--", "sh", "-c", script)[0] == 9
    assert kv.queue("cli").length() == 1, "a failed command gives it back"
    assert raftkv_(healthy, "queue", "claim", "cli", "--", "true")[0] == 0
    assert kv.queue("cli").length() == 0
    assert raftkv_(healthy, "queue", "claim", "cli", "--wait", "0.2")[0] == 4
    assert raftkv_(healthy, "queue", "remove", "cli", "0/1")[0] == 3


# Counter and group.


async def test_no_increment_is_lost_or_done_twice_while_nodes_die(cluster: Cluster) -> None:
    numbers: list[int] = []
    uncertain = 0
    ending = asyncio.Event()
    opened = [raftkv.connect(cluster.endpoints, timeout=20) for _ in range(4)]

    async def count(kv: raftkv.AsyncClient) -> None:
        nonlocal uncertain
        counter = kv.counter("builds")
        while not ending.is_set():
            try:
                numbers.append(await counter.add())
            except RaftKVError as error:
                uncertain += error.may_have_happened

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(count(opened[number % 4]))
        await kill_and_pause_leaders(cluster, rounds=3)
        ending.set()
    final = await opened[0].counter("builds").value()
    assert len(set(numbers)) == len(numbers), "two were given one number"
    assert len(numbers) <= final <= len(numbers) + uncertain
    assert uncertain == 0, "with 20 s there was time to learn what became of each"
    for kv in opened:
        await kv.close()


def test_a_counter_on_the_command_line(healthy: Cluster, kv: raftkv.Client) -> None:
    assert raftkv_(healthy, "counter", "c")[1] == "0\n"
    assert raftkv_(healthy, "counter", "c", "5")[1] == "5\n"
    assert raftkv_(healthy, "counter", "c", "-7")[1] == "-2\n"
    assert raftkv_(healthy, "counter", "c", "--set", "40", "-o", "json")[1] == '{"value": 40}\n'
    assert raftkv_(healthy, "counter", "c", "x")[0] == 2
    kv.put("c", "text")
    assert raftkv_(healthy, "counter", "c")[0] == 1
    with pytest.raises(NotANumber):
        kv.counter("c").value()


def test_a_group_of_the_living(healthy: Cluster, kv: raftkv.Client) -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    def look() -> None:
        for members in kv.group("g").changes():
            seen.append([(member.name, member.value) for member in members])
            if len(seen) > 1 and not members:
                return

    looking = threading.Thread(target=look)
    looking.start()
    wait_until(lambda: seen == [[]], "the looker to begin")
    one, two = kv.group("g", ttl=TTL_S), kv.group("g")
    assert one.join("x", member="one") == b"one"
    name = two.join("y")
    assert [member.name for member in two.members()] == [b"one", name]
    with pytest.raises(InvalidRequest):
        kv.group("g").join(member="one")
    with pytest.raises(InvalidRequest):
        one.join()
    one.say("x2")
    two.leave()
    with pytest.raises(NotHeld):
        two.leave()
    kv.lease_revoke(kv.get_prefix("g/")[0].lease)
    looking.join()
    assert seen[1:] == [
        [(b"one", b"x")],
        [(b"one", b"x"), (name, b"y")],
        [(b"one", b"x2"), (name, b"y")],
        [(b"one", b"x2")],
        [],
    ]
    assert one.lost.wait(20)
    assert kv.leases() == []
