"""Watches and waits of both clients against scripted members: in order, once, across lost, silent and unwilling members."""

import asyncio
from typing import Any, Callable

import pytest

import raftkv
from raftkv.client import watch_async
from raftkv.errors import ClientClosed, Compacted, InvalidRequest, RaftKVError, ShuttingDown
from raftkv.wire.commands import Answer, failure
from raftkv.wire.protocol import WAIT, WATCH_CREATE, WATCH_EVENTS

from .conftest import eventually
from .fakeserver import FakeCluster, FakeMember


def told(revision: int, *keys: bytes, more: bool = False) -> Answer:
    kvs = [[0, [key, revision, revision, 1, 0, b"v%d" % revision], None] for key in keys]
    return [0, WATCH_EVENTS, revision, more, kvs]


async def watched_by(cluster: FakeCluster, count: int = 1) -> FakeMember:
    """The member that serves the watches."""
    await eventually(lambda: any(len(member.watches) == count for member in cluster.members))
    return next(member for member in cluster.members if len(member.watches) == count)


async def take(watch: Any, count: int) -> list[tuple[int, bytes]]:
    found = []
    async with asyncio.timeout(10):
        async for event in watch:
            found.append((event.revision, event.key))
            if len(found) == count:
                break
    return found


async def test_events_come_in_order_from_the_leader(kv: Any, cluster: FakeCluster) -> None:
    await kv.put("k", "v")
    async with kv.watch("k", prev_kv=True) as watch:
        member = await watched_by(cluster)
        assert member is cluster.leader
        assert member.watches[0][2][:4] == [WATCH_CREATE, b"k", b"", 0]
        member.push(told(3, b"k"))
        member.push([0, WATCH_EVENTS, 4, False, [[1, [b"k", 0, 4, 0, 0, b""], [b"k", 3, 3, 1, 0, b"v3"]]]])
        assert await take(watch, 1) == [(3, b"k")]
        async for event in watch:
            assert (event.type, event.key, event.value, event.prev_kv.value) == ("delete", b"k", b"", b"v3")
            break
        assert watch.next_revision == 5
    await eventually(lambda: not member.watches)


@pytest.mark.parametrize("end", ["hang_up", "stop", "silence", "shutting_down"])
async def test_it_goes_on_where_it_was_whatever_becomes_of_the_member(
    cluster: FakeCluster, open_client: Callable[..., Any], end: str
) -> None:
    kv = open_client(cluster.endpoints, timeout=10.0, attempt_timeout=0.4)
    async with kv.watch(prefix="k/") as watch:
        first = await watched_by(cluster)
        first.push(told(7, b"k/1"))
        first.push(told(9, b"k/1", more=True))
        assert await take(watch, 1) == [(7, b"k/1")]
        if end == "hang_up":
            first.hang_up()
        elif end == "stop":
            first.stop()
        elif end == "silence":
            first.mode = "hang"
        else:
            first.push(failure(ShuttingDown(details={"members": [member.hint for member in cluster.members]})))
        reader = asyncio.create_task(take(watch, 2))

        def moved() -> bool:
            return any(command[3] == 8 for member in cluster.members for _, _, command in member.watches)

        await eventually(moved)
        second = next(m for m in cluster.members if any(command[3] == 8 for _, _, command in m.watches))
        second.push(told(9, b"k/1", b"k/2"))
        assert await reader == [(9, b"k/1"), (9, b"k/2")], "half a revision was not handed on, and none is doubled"


async def test_a_silent_line_is_kept_while_the_member_lives(
    cluster: FakeCluster, open_client: Callable[..., Any]
) -> None:
    kv = open_client(cluster.endpoints, timeout=10.0, attempt_timeout=0.4)
    async with kv.watch("k") as watch:
        member = await watched_by(cluster)
        reader = asyncio.create_task(take(watch, 1))
        await eventually(lambda: member.pings >= 2)
        assert member.connections_seen == 1
        member.push(told(5, b"k"))
        assert await reader == [(5, b"k")]


async def test_what_is_compacted_ends_it_with_the_revision(kv: Any, cluster: FakeCluster) -> None:
    watch = kv.watch("k", start_revision=3)
    assert cluster.leader is not None
    cluster.leader.script.append(Compacted(details={"compact_revision": 40}))
    with pytest.raises(raftkv.WatchCompacted) as gone:
        await watch.started()
    assert gone.value.compact_revision == 40
    async with kv.watch("k") as later:
        (await watched_by(cluster)).push(told(5, b"k"))
        assert await take(later, 1) == [(5, b"k")]
        cluster.leader.push(failure(Compacted(details={"compact_revision": 60})))
        with pytest.raises(raftkv.WatchCompacted):
            await take(later, 1)


async def test_bad_requests_are_refused_before_anything_is_sent(kv: Any, cluster: FakeCluster) -> None:
    for bad in (
        lambda: kv.watch(),
        lambda: kv.watch("k", prefix="k"),
        lambda: kv.watch("k", start_revision=-1),
        lambda: kv.watch("k", only="nothing"),
    ):
        with pytest.raises(InvalidRequest):
            bad()
    for keys in ([], "k"):
        with pytest.raises(InvalidRequest):
            await kv.wait_for(keys)
    with pytest.raises(InvalidRequest):
        await kv.wait("k", until="never")
    assert not any(member.requests for member in cluster.members)


async def test_what_a_member_refuses_for_good_ends_it(kv: Any, cluster: FakeCluster) -> None:
    assert cluster.leader is not None
    for member in cluster.members:
        member.mode = InvalidRequest("no")
    with pytest.raises(InvalidRequest):
        await kv.watch("k").started()


async def test_it_says_so_when_nobody_serves_it(cluster: FakeCluster, open_client: Callable[..., Any]) -> None:
    kv = open_client(cluster.endpoints, timeout=2, attempt_timeout=1.0)
    for member in cluster.members:
        member.mode = member.no_quorum()
    with pytest.raises(RaftKVError, match=r"no member served the watch within 2 s") as told_so:
        await kv.watch("k").started()
    assert told_so.value.code == "no_quorum"


async def test_patience_ends(cluster: FakeCluster, open_client: Callable[..., Any]) -> None:
    kv = open_client(cluster.endpoints, timeout=3.0, attempt_timeout=0.1)
    async with kv.watch("k", patience=0.2) as watch:
        await watched_by(cluster)
        for member in cluster.members:
            member.stop()
        with pytest.raises(RaftKVError) as told_so:
            await take(watch, 1)
        assert told_so.value.code == "unreachable"


async def test_progress_and_batches(kv: Any, cluster: FakeCluster) -> None:
    async with kv.watch(prefix="", progress=True) as watch:
        member = await watched_by(cluster)
        member.push([0, WATCH_EVENTS, 8, False, []])
        member.push(told(9, b"a", b"b"))
        found = []
        async for batch in watch.batches():
            found.append((batch.revision, [event.key for event in batch.events]))
            if len(found) == 2:
                break
        assert found == [(8, []), (9, [b"a", b"b"])]


async def test_who_is_cancelled_while_it_begins_is_cancelled(cluster: FakeCluster) -> None:
    """Also in the very turn in which it has begun; and nothing is watched for nobody."""
    async with raftkv.connect(cluster.endpoints) as kv:
        watch = kv.watch("k")
        beginning = asyncio.create_task(watch.__aenter__())
        while watch._began is None:
            await asyncio.sleep(0)
        watch._began.set_result(None)
        await asyncio.sleep(0)
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        assert not watch._owner._watches


async def test_closing_ends_the_iteration(kv: Any, cluster: FakeCluster) -> None:
    watch = kv.watch("k")
    await watch.started()
    reader = asyncio.create_task(take(watch, 1))
    await watched_by(cluster)
    await watch.close()
    await watch.close()
    assert await reader == []
    await eventually(lambda: not any(member.watches for member in cluster.members))


async def test_closing_the_client_ends_it_with_an_error(cluster: FakeCluster, open_client: Callable[..., Any]) -> None:
    kv = open_client(cluster.endpoints)
    watch = kv.watch("k")
    await watch.started()
    reader = asyncio.create_task(take(watch, 1))
    await watched_by(cluster)
    await kv.close()
    with pytest.raises(ClientClosed):
        await reader


async def test_the_end_of_the_last_watch_speaks_against_no_member(cluster: FakeCluster) -> None:
    """It is we who hang up: the next watch, or call, goes to the same member."""
    async with raftkv.connect(cluster.endpoints) as kv:

        def is_over() -> bool:
            assert kv._watches is not None
            return kv._watches._task is None

        for _ in range(2):
            async with kv.watch("k") as watch:
                await watch.started()
                assert await watched_by(cluster) is cluster.leader
            await eventually(is_over)
            now = asyncio.get_running_loop().time()
            assert not any(kv._directory.is_unreachable(member.address, now) for member in cluster.members)


async def test_many_watches_share_a_connection_and_a_slow_one_holds_back_nobody(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_async, "QUEUE_EVENTS_MAX", 3)
    async with raftkv.connect(cluster.endpoints) as kv:
        slow, quick = kv.watch("a"), kv.watch("b")
        await slow.started()
        await quick.started()
        member = await watched_by(cluster, 2)
        assert member.connections_seen == 1
        for revision in range(2, 7):
            member.push(told(revision, b"k"))
            assert await take(quick, 1) == [(revision, b"k")]
        await eventually(lambda: len(member.watches) == 1)
        assert await take(slow, 4) == [(revision, b"k") for revision in range(2, 6)]
        await eventually(lambda: any(command[3] == 6 for _, _, command in member.watches))


async def test_wait_returns_what_it_waited_for(kv: Any, cluster: FakeCluster) -> None:
    await kv.put("k", "v")
    found = await kv.wait("k")
    assert (found.key, found.value) == (b"k", b"v")
    result = await kv.wait_for(["k", "missing"], until="changed", any=True, after=1)
    assert [kv_ and kv_.key for kv_ in result.kvs] == [b"k", None]
    assert cluster.leader is not None
    assert cluster.leader.requests[-1] == [WAIT, 2, False, [b"k", b"missing"], 1]


async def test_a_wait_is_patient_with_a_member_that_lives_and_with_no_other(
    cluster: FakeCluster, open_client: Callable[..., Any]
) -> None:
    kv = open_client(cluster.endpoints, timeout=15.0, attempt_timeout=1.0)
    await kv.put("k", "v")
    assert cluster.leader is not None
    leader = cluster.leader
    leader.script.append("slow")
    waiting = asyncio.create_task(kv.wait("k", timeout=30.0))
    signs = 13 if isinstance(kv, raftkv.AsyncClient) else 4  # of three attempts
    await eventually(lambda: leader.pings >= signs, 20.0)
    assert sum(len(member.held) for member in cluster.members) == 1, "nobody else was asked meanwhile"
    leader.release()
    assert (await waiting).value == b"v"
    leader.mode = "hang"
    assert (await kv.wait("k", timeout=15.0)).value == b"v"


async def test_a_wait_in_vain_says_for_what(cluster: FakeCluster, open_client: Callable[..., Any]) -> None:
    kv = open_client(cluster.endpoints)
    for member in cluster.members:
        member.mode = "slow"
    with pytest.raises(RaftKVError, match=r"waited in vain for b'k' \(exists\)") as in_vain:
        await kv.wait("k", timeout=0.3)
    assert in_vain.value.code == "deadline_exceeded"
    assert str(in_vain.value).endswith("no answer within 0.3 s"), "and nothing of members that were not tried: one was"
