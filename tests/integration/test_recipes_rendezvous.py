"""The rendezvous on three nodes: TCPStore's semantics method by method, rounds that do not see each other, and leaders that die in the middle."""

import asyncio
import threading
from typing import Any, Callable, Iterator

import pytest

import raftkv
from raftkv.errors import DeadlineExceeded, InvalidRequest, LockLost, NotANumber, QueueEmpty
from raftkv.recipes.rendezvous_blocking import Store

from .harness.cluster import Cluster
from .harness.faults import kill_and_pause_leaders
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def kv(healthy: Cluster) -> Iterator[raftkv.Client]:
    with raftkv.Client(healthy.endpoints) as client:
        yield client


@pytest.fixture
def store(kv: raftkv.Client, request: pytest.FixtureRequest) -> Iterator[Store]:
    with kv.rendezvous(request.node.name, timeout=20) as made:
        yield made


def test_values(store: Store) -> None:
    with pytest.raises(DeadlineExceeded):
        store.get("a", timeout=0.2)
    store.set("a", "1")
    store.set("a", b"\xff")
    assert store.get("a") == b"\xff"
    assert store.delete_key("a")
    assert not store.delete_key("a")
    assert store.num_keys() == 0
    store.append("log", "x")
    store.append("log", "y")
    assert store.get("log") == b"xy"
    store.multi_set(["m1", "m2"], ["1", "2"])
    assert store.multi_get(["m2", "m1", "m2"][:2]) == [b"2", b"1"]
    with pytest.raises(InvalidRequest):
        store.multi_set(["m1"], [])
    many = [f"k{number}" for number in range(150)]
    store.multi_set(many, many)
    assert store.multi_get(many) == [name.encode() for name in many]
    assert store.check(many)
    assert not store.check([*many, "other"])
    assert store.check([])
    store.wait([])
    store.wait(many)
    with pytest.raises(DeadlineExceeded):
        store.wait([*many, "other"], timeout=0.2)
    assert store.num_keys() == 153


def test_numbers_are_decimal_text(store: Store) -> None:
    assert [store.add("n", 5), store.add("n", -2), store.add("n", 0)] == [5, 3, 3]
    assert store.get("n") == b"3"
    store.set("n", "40")
    assert store.add("n", 2) == 42
    store.set("n", "text")
    with pytest.raises(NotANumber):
        store.add("n", 1)


@pytest.mark.parametrize(
    ("before", "expected", "desired", "answer", "after"),
    [
        (None, "", "new", b"new", b"new"),
        (None, "old", "new", b"old", None),
        ("old", "old", "new", b"new", b"new"),
        ("other", "old", "new", b"other", b"other"),
        ("other", "", "new", b"other", b"other"),
        ("", "", "new", b"new", b"new"),
    ],
)
def test_compare_set(
    kv: raftkv.Client, before: str | None, expected: str, desired: str, answer: bytes, after: bytes | None
) -> None:
    with kv.rendezvous(f"cas {before} {expected}") as store:
        if before is not None:
            store.set("k", before)
        assert store.compare_set("k", expected, desired) == answer
        assert (store.get("k") if store.check(["k"]) else None) == after


def test_who_waits_is_woken_by_every_kind_of_write(store: Store) -> None:
    writes = {
        "set": lambda: store.set("set", "x"),
        "add": lambda: store.add("add", 1),
        "append": lambda: store.append("append", "x"),
        "multi_set": lambda: store.multi_set(["multi_set"], ["x"]),
        "compare_set": lambda: store.compare_set("compare_set", "", "x"),
        "queue": lambda: store.queue_push("queue", "x"),
    }
    woken: list[str] = []

    def wait_for(name: str) -> None:
        store.clone().wait([name])
        woken.append(name)

    threads = [threading.Thread(target=wait_for, args=(name,)) for name in writes]
    everything = threading.Thread(target=lambda: (store.wait(list(writes)), woken.append("all")))
    for thread in (*threads, everything):
        thread.start()
    for count, (name, write) in enumerate(writes.items(), 1):
        write()
        wait_until(lambda name=name: name in woken, f"{name} to wake its waiter")  # type: ignore[misc]
        assert len(woken) == count or (count == len(writes) and "all" in woken)
    for thread in (*threads, everything):
        thread.join()
    assert "all" in woken


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "the last one first"])
def test_who_waits_for_many_needs_them_all_queues_included(store: Store, order: int) -> None:
    names = [f"n{number:03d}" for number in range(70)]
    queues = set(names[::9])
    woken = threading.Event()
    waiter = threading.Thread(target=lambda: (store.clone().wait(names), woken.set()))
    waiter.start()
    for name in names[::order]:
        assert not woken.is_set(), f"{name} is not there"
        store.queue_push(name, "x") if name in queues else store.set(name, "x")
    waiter.join(30)
    assert woken.is_set()


def test_queues(store: Store) -> None:
    assert store.queue_len("q") == 0
    with pytest.raises(QueueEmpty):
        store.queue_pop("q", block=False)
    with pytest.raises(DeadlineExceeded):
        store.queue_pop("q", timeout=0.2)
    for value in ("1", "2", "3"):
        store.queue_push("q", value)
    assert store.queue_len("q") == 3
    assert store.check(["q"])
    assert (store.num_keys(), store.list_keys()) == (0, []), "queues are not counted"
    assert [store.queue_pop("q") for _ in range(3)] == [b"1", b"2", b"3"]
    assert not store.check(["q"])
    popped: list[bytes] = []
    poppers = [threading.Thread(target=lambda: popped.append(store.queue_pop("q"))) for _ in range(4)]
    pushers = [threading.Thread(target=store.queue_push, args=("q", str(number))) for number in range(4)]
    for thread in (*poppers, *pushers):
        thread.start()
    for thread in (*poppers, *pushers):
        thread.join()
    assert sorted(popped) == [b"0", b"1", b"2", b"3"]


def test_barriers_are_for_one_use(store: Store) -> None:
    passed: list[int] = []

    def come(number: int) -> None:
        store.barrier("b", 3)
        passed.append(number)

    threads = [threading.Thread(target=come, args=(number,)) for number in range(3)]
    for thread in threads[:2]:
        thread.start()
    with pytest.raises(DeadlineExceeded):
        store.barrier("other", 2, timeout=0.2)
    assert passed == []
    threads[2].start()
    for thread in threads:
        thread.join()
    assert len(passed) == 3
    store.barrier("b", 3)
    assert store.num_keys() == 0


def test_prefixes_and_clones(store: Store) -> None:
    inner = store.prefixed("B").prefixed("A")
    inner.set("k", "x")
    assert store.get("B/A/k") == b"x"
    assert inner.list_keys() == [b"k"]
    assert store.prefixed("B").list_keys() == [b"A/k"]
    assert inner.num_keys() == store.num_keys() == 1
    twin = store.clone()
    assert twin.timeout == store.timeout == 20
    twin.set_timeout(5)
    assert store.timeout == 20
    for bad in (0, -1, float("nan")):
        with pytest.raises(InvalidRequest):
            twin.set_timeout(bad)


def test_a_round_sees_nothing_of_another_and_ends_with_its_last_participant(
    kv: raftkv.Client, healthy: Cluster
) -> None:
    with raftkv.Client(healthy.endpoints) as other:
        first, same, second = (
            kv.rendezvous("run", 1, ttl=3),
            other.rendezvous("run", 1, ttl=3),
            other.rendezvous("run", 2, ttl=3),
        )
        with first, same:
            first.set("k", "1")
            first.add("n", 1)
            first.append("a", "x")
            first.queue_push("q", "x")
            first.barrier("b", 1)
            assert same.get("k") == b"1"
            with second:
                assert not second.check(["k"])
                second.set("k", "2")
            assert first.get("k") == b"1"
            lease = kv.get_prefix("rdzv/run/1/")[0].lease
            assert {pair.lease for pair in kv.get_prefix("rdzv/run/1/")} == {lease}, "all on the lease of the round"
        wait_until(lambda: not kv.get_prefix("rdzv/run/"), "the rounds to end")
    with kv.rendezvous("run", 1) as again:
        assert again.num_keys() == 0
        again.set("k", "1")
        kv.lease_revoke(kv.get_prefix("rdzv/run/1/")[0].lease)
        with pytest.raises(LockLost):
            again.set("k", "x")
    for bad in (("", 0), ("a/b", 0), ("a", -1)):
        with pytest.raises(InvalidRequest):
            kv.rendezvous(*bad)


def test_who_was_in_a_life_that_is_over_changes_nothing_in_the_next(kv: raftkv.Client, healthy: Cluster) -> None:
    """Found by an hour of faults: the next life has the same name and a lease of the same id, and the old participant went on in it with its old rank."""
    writes: list[Callable[[Store], Any]] = [
        lambda store: store.add("ranks", 1),
        lambda store: store.set("address/1", "old"),
        lambda store: store.append("log", "old"),
        lambda store: store.compare_set("address/9", "", "old"),
        lambda store: store.delete_key("address/1"),
        lambda store: store.multi_set(["address/1"], ["old"]),
        lambda store: store.queue_push("queue", "old"),
        lambda store: store.queue_pop("queue", block=False),
        lambda store: store.barrier("all", 2),
    ]
    for number, write in enumerate(writes):
        with raftkv.Client(healthy.endpoints) as other:
            before, after = kv.rendezvous("lives", number, ttl=60), other.rendezvous("lives", number, ttl=60)
            with before:
                assert before.add("ranks", 1) == 1
                kv.lease_revoke(kv.get_prefix(f"rdzv/lives/{number}/")[0].lease)
                with after:
                    assert after.token is not None and before.token is not None and after.token > before.token
                    assert after.add("ranks", 1) == 1
                    after.set("address/1", "new")
                    after.queue_push("queue", "new")
                    held = kv.get_prefix(f"rdzv/lives/{number}/")
                    with pytest.raises(LockLost, match="the round is over"):
                        write(before)
                    assert kv.get_prefix(f"rdzv/lives/{number}/") == held
                    assert len({pair.lease for pair in held}) == 1


def test_waits_end_with_the_life_that_they_are_in(kv: raftkv.Client, healthy: Cluster) -> None:
    with raftkv.Client(healthy.endpoints) as other, other.rendezvous("waits", 1, ttl=2) as store:
        store.set("k", "1")
        lease = kv.get_prefix("rdzv/waits/1/")[0].lease
        kv.lease_revoke(lease)
        for wait in (
            lambda: store.get("never", 60),
            lambda: store.wait(["never"], 60),
            lambda: store.queue_pop("never", timeout=60),
        ):
            with pytest.raises(LockLost):
                wait()


@pytest.mark.long
async def test_three_hundred_ranks_meet_while_leaders_die(cluster: Cluster) -> None:
    """Each sets its address, waits for all others, and passes three barriers; nobody's number is given twice."""
    ranks = 300
    numbers: list[int] = []
    opened = [raftkv.connect(cluster.endpoints, timeout=30) for _ in range(4)]

    async def take_part(place: int) -> None:
        store = opened[place % 4].rendezvous("big", 0, timeout=100)
        rank = await store.add("rank", 1) - 1
        numbers.append(rank)
        await store.set(f"address/{rank}", f"10.0.0.{rank}")
        await store.barrier("all here", ranks)
        names = [f"address/{other}" for other in range(0, ranks, 37)]
        assert await store.multi_get(names) == [f"10.0.0.{other}".encode() for other in range(0, ranks, 37)]
        for round_ in range(2):
            await asyncio.sleep(0.5)
            await store.barrier(f"step {round_}", ranks)

    async with asyncio.TaskGroup() as group:
        for place in range(ranks):
            group.create_task(take_part(place))
        await kill_and_pause_leaders(cluster, between_s=0.5)
    assert sorted(numbers) == list(range(ranks))
    assert await opened[0].rendezvous("big").num_keys() == ranks + 1
    for kv in opened:
        await kv.close()
