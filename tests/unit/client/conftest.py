"""Both clients behind one face: a test that asks for `kv` runs once on the asyncio client and once on the blocking one."""

import asyncio
from typing import Any, AsyncIterator, Callable, Iterator

import pytest

import raftkv

from .fakeserver import FakeCluster


class ThreadedWatch:
    """The blocking client's watch, read in a thread."""

    def __init__(self, watch: Any) -> None:
        self.watch = watch

    async def __aenter__(self) -> "ThreadedWatch":
        await asyncio.to_thread(self.watch.__enter__)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.watch.close()

    async def started(self) -> None:
        await asyncio.to_thread(self.watch.started)

    def __aiter__(self) -> "ThreadedWatch":
        return self

    async def __anext__(self) -> Any:
        item = await asyncio.to_thread(next, self.watch, None)
        if item is None:
            raise StopAsyncIteration
        return item

    async def batches(self) -> AsyncIterator[Any]:
        batches = self.watch.batches()
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            yield batch

    @property
    def next_revision(self) -> int:
        return int(self.watch.next_revision)

    async def close(self) -> None:
        self.watch.close()


class Threaded:
    """The blocking client, each call in a thread, so that one test body serves both."""

    def __init__(self, client: raftkv.Client) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call

    def watch(self, *args: Any, **kwargs: Any) -> Any:
        return ThreadedWatch(self.client.watch(*args, **kwargs))

    def txn(self) -> Any:
        txn = self.client.txn()
        submit = txn._submit
        txn._submit = lambda command, timeout: asyncio.to_thread(submit, command, timeout)  # type: ignore[assignment]
        return txn

    async def scan(self, *args: Any, **kwargs: Any) -> AsyncIterator[raftkv.KeyValue]:
        for kv in await asyncio.to_thread(lambda: list(self.client.scan(*args, **kwargs))):
            yield kv


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster() as running:
        yield running


@pytest.fixture(params=["async", "blocking"])
async def open_client(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """A function that makes a client of either kind; all are closed at the end, and nothing may stay pending."""
    opened: list[Any] = []

    def open_(endpoints: str, **options: Any) -> Any:
        if request.param == "async":
            client: Any = raftkv.connect(endpoints, **options)
        else:
            client = Threaded(raftkv.Client(endpoints, **options))
        opened.append(client)
        return client

    yield open_
    for client in opened:
        await client.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "closing leaves nothing pending"


@pytest.fixture
def kv(cluster: FakeCluster, open_client: Callable[..., Any]) -> Any:
    return open_client(cluster.endpoints, timeout=3.0)


async def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for a condition of another thread."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.005)
