"""Leaders of a three-member etcd are stopped and killed under both clients: nothing is lost, doubled, or heard twice. The recipes' own tests of
that kind run in test_etcd_engine_recipes.py.
"""

import asyncio
import threading
from typing import Iterator

import pytest

import raftkv
from raftkv.errors import RaftKVError
from tests.differential.real import binary

from .harness.faults import kill_and_pause_leaders
from .harness.overetcd import OverEtcd

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.skipif(binary() is None, reason="etcd is not installed"),
]

THREADS, TASKS = 6, 12


@pytest.fixture
def cluster() -> Iterator[OverEtcd]:
    with OverEtcd(3) as cluster:
        cluster.start()
        yield cluster


def test_threads_count_and_append_and_every_call_is_done_once(cluster: OverEtcd) -> None:
    over = threading.Event()
    numbers: list[int] = []
    letters: list[int] = [0] * THREADS
    doubts: list[RaftKVError] = []

    def work(kv: raftkv.Client, number: int) -> None:
        while not over.is_set():
            try:
                numbers.append(kv.increment("n", timeout=60))
                kv.append("s", b"%c" % (65 + number), timeout=60)
                letters[number] += 1
            except RaftKVError as error:
                doubts.append(error)

    clients = [raftkv.Client(cluster.endpoints), raftkv.Client(cluster.endpoints)]
    threads = [threading.Thread(target=work, args=(clients[number % 2], number)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    asyncio.run(kill_and_pause_leaders(cluster))
    over.set()
    for thread in threads:
        thread.join()
    assert doubts == []
    kv = clients[0]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert kv.get("n", timeout=30) == b"%d" % len(numbers)
    found = kv.get("s", b"", timeout=30)
    assert [found.count(b"%c" % (65 + number)) for number in range(THREADS)] == letters
    for client in clients:
        client.close()


async def test_watches_hear_everything_once_and_in_order(cluster: OverEtcd) -> None:
    heard: dict[str, list[tuple[int, bytes]]] = {"async": [], "blocking": []}
    written = 0
    over = asyncio.Event()
    async with raftkv.connect(cluster.endpoints, timeout=60) as kv:
        first = (await kv.put("w/begin", "")).revision

        async def listen() -> None:
            async with kv.watch(prefix="w/", start_revision=first) as watch:
                async for event in watch:
                    heard["async"].append((event.revision, event.key))
                    if event.key == b"w/end":
                        return

        def listen_too() -> None:
            with raftkv.Client(cluster.endpoints) as own, own.watch(prefix="w/", start_revision=first) as watch:
                for event in watch:
                    heard["blocking"].append((event.revision, event.key))
                    if event.key == b"w/end":
                        return

        async def produce(number: int) -> None:
            nonlocal written
            count = 0
            while not over.is_set():
                await kv.put(f"w/{number}/{count}", "")
                count += 1
            written += count

        async with asyncio.timeout(100), asyncio.TaskGroup() as group:
            group.create_task(listen())
            group.create_task(asyncio.to_thread(listen_too))
            producers = [group.create_task(produce(number)) for number in range(TASKS)]
            await kill_and_pause_leaders(cluster)
            over.set()
            await asyncio.gather(*producers)
            await kv.put("w/end", "")
    for events in heard.values():
        assert events == sorted(events)
        assert len({key for _, key in events}) == len(events) == written + 2
