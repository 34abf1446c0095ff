"""What only the blocking client does: threads, forks, closing under other threads."""

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import raftkv
from raftkv.errors import ClientClosed, ConfigError, DeadlineExceeded

from .conftest import eventually
from .fakeserver import FakeCluster


def test_threads_share_a_small_pool(cluster: FakeCluster) -> None:
    with raftkv.Client(cluster.endpoints, connections_max=3, timeout=20.0, attempt_timeout=20.0) as kv:
        with ThreadPoolExecutor(16) as threads:
            results = list(threads.map(lambda _: kv.increment("n"), range(200)))
        assert sorted(results) == list(range(1, 201))
        assert cluster.members[0].connections_seen <= 3
    assert len(cluster.store.sessions) == 1


def test_a_connection_is_kept_between_calls(cluster: FakeCluster) -> None:
    with raftkv.Client(cluster.endpoints) as kv:
        for number in range(20):
            kv.put("k", str(number))
            kv.get("k")
        assert cluster.members[0].connections_seen == 1


async def test_closing_ends_the_calls_of_other_threads(cluster: FakeCluster) -> None:
    kv = raftkv.Client(cluster.endpoints)
    kv.put("k", "v")
    cluster.members[0].mode = "slow"
    write = asyncio.create_task(asyncio.to_thread(kv.put, "k", "w"))
    await eventually(lambda: len(cluster.members[0].held) == 1)
    kv.close()
    with pytest.raises(ClientClosed) as raised:
        await write
    assert raised.value.may_have_happened is True
    with pytest.raises(ClientClosed):
        kv.get("k")
    with pytest.raises(ClientClosed):
        kv.put("k", "v")
    kv.close()


def test_nothing_begins_on_a_client_that_is_closed(cluster: FakeCluster) -> None:
    """What has connections of its own, too: nobody would end them."""
    kv = raftkv.Client(cluster.endpoints)
    kv.put("k", "v")
    kv.close()
    for begin in (lambda: kv.wait("k"), lambda: kv.watch("k"), kv._lease_keeper, kv.lease(10).__enter__):
        with pytest.raises(ClientClosed):
            begin()
    assert kv._waits is None
    assert kv._keeper is None


def test_a_forked_child_does_not_wait_for_a_lock_of_its_parent(cluster: FakeCluster) -> None:
    """Whose owner is a thread that is not in the child."""
    held, over = threading.Event(), threading.Event()
    with raftkv.Client(cluster.endpoints) as kv:
        kv.put("k", "v")

        def hold() -> None:
            with kv._caller.directory_lock:
                held.set()
                over.wait(60)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(60)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(20)
                found = kv.wait("k")
                code = 0 if found is not None and found.value == b"v" else 2
            finally:
                os._exit(code)
        over.set()
        thread.join()
        assert os.waitpid(child, 0)[1] == 0


def test_a_full_window_is_waited_for(cluster: FakeCluster) -> None:
    with raftkv.Client(cluster.endpoints) as kv:
        sessions = kv._caller._sessions
        assert sessions is not None
        sessions.current.window = 1
        held = sessions.current.open(0.0)
        with pytest.raises(DeadlineExceeded, match="1 earlier writes") as raised:
            kv.put("k", "v", timeout=0.05)
        assert raised.value.may_have_happened is False
        done: list[Any] = []
        thread = threading.Thread(target=lambda: done.append(kv.put("k", "v")))
        thread.start()
        with kv._caller._lock:
            sessions.current.settle(held)
            kv._caller._lock.notify()
        thread.join(timeout=5)
        assert len(done) == 1


def test_an_interrupted_call_settles_its_sequence(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with raftkv.Client(cluster.endpoints) as kv:
        kv.put("k", "v")
        interrupts = [KeyboardInterrupt()]
        receive = raftkv.client.blockingconn.BlockingConnection.receive  # type: ignore[attr-defined]

        def interrupted(*arguments: Any) -> Any:
            if interrupts:
                raise interrupts.pop()
            return receive(*arguments)

        monkeypatch.setattr("raftkv.client.blockingconn.BlockingConnection.receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kv.put("k", "interrupted")
        assert kv.get("k") in (b"v", b"interrupted")
        kv.put("k", "w")
        kv.put("k", "x")
        assert cluster.members[0].notices[-1][1] == 4
        assert kv.get("k") == b"x", "answers of the interrupted call are not taken for others"


def test_a_forked_child_has_a_session_of_its_own(cluster: FakeCluster) -> None:
    with raftkv.Client(cluster.endpoints, timeout=10.0) as kv:
        assert kv.increment("n") == 1
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if kv.increment("n") == 2 and kv.get("n") == b"2" else 2
            finally:
                os._exit(status)
        _, exit_status = os.waitpid(child, 0)
        assert exit_status == 0
        assert kv.increment("n") == 3, "the parent's connection and sequences are untouched"
        assert kv.increment("n") == 4
    assert len(cluster.store.sessions) == 2


def test_a_pool_has_a_place_at_least() -> None:
    with pytest.raises(ConfigError, match="connections_max"):
        raftkv.Client(connections_max=0)
