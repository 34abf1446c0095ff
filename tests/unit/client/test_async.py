"""What only the asyncio client does: one connection for all, one write per loop turn, cancellation, deadlines, lifetimes."""

import asyncio

import pytest

import raftkv
from raftkv.client.session import WINDOW
from raftkv.errors import ClientClosed, DeadlineExceeded
from raftkv.wire.commands import PUT
from raftkv.wire.protocol import ACK

from .conftest import eventually
from .fakeserver import FakeCluster


async def test_requests_of_one_loop_turn_are_one_write_with_one_notice(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv:
        await kv.put("k", "v")
        await asyncio.gather(*(kv.put(f"k{number}", "v") for number in range(100)))
    burst = max(cluster.members[0].reads, key=len)
    assert [message[2][0] for message in burst] == [ACK] + [PUT] * 100
    assert burst[0][2] == [ACK, 2, False]


async def test_all_calls_share_one_connection(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv:
        await asyncio.gather(*(kv.put(f"k{number}", "v") for number in range(500)))
        await asyncio.gather(*(kv.get(f"k{number}") for number in range(500)))
        assert cluster.members[0].connections_seen == 1


async def test_answers_in_any_order(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv:
        await kv.put("k", "v")
        first = cluster.members[0]
        first.mode = "slow"
        reads = [asyncio.create_task(kv.get("k")) for _ in range(10)]
        await eventually(lambda: len(first.held) == 10)
        cluster.call(first.held.reverse)
        first.release()
        assert await asyncio.gather(*reads) == [b"v"] * 10


async def test_a_cancelled_call_disturbs_nobody_and_is_settled(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv:
        await kv.put("k", "v")
        first = cluster.members[0]
        first.mode = "slow"
        cancelled = asyncio.create_task(kv.put("k", "cancelled"))
        other = asyncio.create_task(kv.put("k", "other"))
        await eventually(lambda: len(first.held) == 2)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        first.mode = "serve"
        first.release()
        assert (await other).revision == 4
        await kv.put("k", "later")
        assert first.connections_seen == 1
        assert first.notices[-1] == [ACK, 4, False], "its sequence was acknowledged with the others"


async def test_a_call_cancelled_before_it_was_sent_leaves_no_gap(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv:
        early = asyncio.create_task(kv.put("k", "early"))
        await asyncio.sleep(0)
        early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early
        await kv.put("k", "1")
        await kv.put("k", "2")
        assert [command[3] for command in cluster.store.applied] == [b"1", b"2"]
        assert cluster.members[0].notices[-1][1] == 3


async def test_a_cancelled_write_whose_connection_breaks_is_not_repeated(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv:
        await kv.put("k", "v")
        first = cluster.members[0]
        first.script.append("hang")
        write = asyncio.create_task(kv.put("k", "x"))
        await eventually(lambda: len(first.requests) == 2)
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)
        first.hang_up()
        await kv.put("k", "y")
        assert [command[3] for command in cluster.store.applied] == [b"v", b"y"]


async def test_more_writes_than_the_window_wait_for_room(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints, timeout=20.0) as kv:
        await kv.put("k", "v")
        first = cluster.members[0]
        first.mode = "slow"
        writes = [asyncio.create_task(kv.increment("n")) for _ in range(3 * WINDOW)]
        await eventually(lambda: len(first.held) == WINDOW)
        read = asyncio.create_task(kv.get("k"))
        await eventually(lambda: len(first.held) == WINDOW + 1)
        first.mode = "serve"
        first.release()
        assert await read == b"v", "reads pass the window"
        assert sorted(await asyncio.gather(*writes)) == list(range(1, 3 * WINDOW + 1))


async def test_a_write_that_waits_for_the_window_is_surely_not_done_at_its_deadline(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints, timeout=20.0, attempt_timeout=6.0) as kv:
        await kv.put("k", "v")
        first = cluster.members[0]
        first.mode = "slow"
        writes = [asyncio.create_task(kv.increment("n")) for _ in range(WINDOW)]
        await eventually(lambda: len(first.held) == WINDOW)
        with pytest.raises(DeadlineExceeded) as raised:
            await kv.put("late", "v", timeout=0.1)
        assert raised.value.may_have_happened is False
        waiting = asyncio.create_task(kv.put("later", "v"))
        first.mode = "serve"
        first.release()
        await asyncio.gather(*writes)
        await waiting
        assert b"late" not in cluster.store.items


async def test_deadlines_of_single_calls(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints, timeout=30.0) as kv:
        await kv.put("k", "v")
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        for member in cluster.members:
            member.mode = "hang"
        with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
            await kv.get("k", timeout=0.1)
        assert 0.09 < loop.time() - started_at < 2.0


async def test_a_member_that_hangs_amid_a_stream_of_answers_is_left(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints, timeout=20.0, attempt_timeout=0.4) as kv:
        await kv.put("k", "v")
        first = cluster.members[0]
        first.script.extend(["serve"] * 50)
        first.mode = "hang"  # the first fifty answers come after all hundred requests were sent
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        cluster.leader = first
        writes = asyncio.gather(*(kv.increment("n") for _ in range(100)))
        await eventually(lambda: len(cluster.store.applied) == 51)
        cluster.leader = cluster.members[1]
        assert sorted(await writes) == list(range(1, 101))
        assert loop.time() - started_at < 5.0, "answers to others are no sign of life for ever"


async def test_a_lifetime_ends_with_the_last_answer(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints, connection_lifetime=0.2) as kv:
        await kv.put("k", "v")
        first = cluster.members[0]
        first.script.append("slow")
        held = asyncio.create_task(kv.get("k"))
        await eventually(lambda: len(first.held) == 1)
        loop = asyncio.get_running_loop()
        over_at = loop.time() + 0.25
        await eventually(lambda: loop.time() > over_at)
        assert await kv.get("k") == b"v"
        assert first.connections_seen == 2, "a new connection for new calls"
        assert len(first.connections) == 2, "the old one waits for its answer"
        first.release()
        assert await held == b"v"
        await eventually(lambda: len(first.connections) == 1)


async def test_a_half_open_connection_is_noticed_before_it_is_used(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints, session=False, idle_check_after=0.05, attempt_timeout=0.4) as kv:
        await kv.put("k", "v")
        first = cluster.members[0]
        first.answers_pings = False  # what it is sent disappears, as behind a middlebox that forgot the connection
        loop = asyncio.get_running_loop()
        idle_until = loop.time() + 0.06
        await eventually(lambda: loop.time() > idle_until)
        assert (await kv.put("k", "w")).revision == 3, "without a session a lost write could not be repeated"
        assert first.pings == 1
        assert first.connections_seen == 2


async def test_an_idle_connection_that_answers_is_used_on(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints, idle_check_after=0.05) as kv:
        await kv.put("k", "v")
        loop = asyncio.get_running_loop()
        idle_until = loop.time() + 0.06
        await eventually(lambda: loop.time() > idle_until)
        assert await kv.get("k") == b"v"
        assert (cluster.members[0].pings, cluster.members[0].connections_seen) == (1, 1)


async def test_closing_ends_what_is_under_way(cluster: FakeCluster) -> None:
    kv = raftkv.connect(cluster.endpoints)
    await kv.put("k", "v")
    cluster.members[0].mode = "hang"
    write = asyncio.create_task(kv.put("k", "w"))
    read = asyncio.create_task(kv.get("k"))
    await eventually(lambda: len(cluster.members[0].requests) == 3)
    await kv.close()
    with pytest.raises(ClientClosed) as raised:
        await write
    assert raised.value.may_have_happened is True
    with pytest.raises(ClientClosed) as raised:
        await read
    assert raised.value.may_have_happened is False
    with pytest.raises(ClientClosed):
        await kv.get("k")
    await kv.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_while_connecting(cluster: FakeCluster) -> None:
    for member in cluster.members:
        member.refuses_greetings = True
    kv = raftkv.connect(cluster.endpoints)
    write = asyncio.create_task(kv.put("k", "v"))
    await eventually(lambda: cluster.members[0].connections_seen == 1)
    await kv.close()
    with pytest.raises(ClientClosed) as raised:
        await write
    assert raised.value.may_have_happened is False
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_client_that_was_never_used_closes(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv:
        assert kv.endpoints == tuple(member.address for member in cluster.members)
    with pytest.raises(ClientClosed):
        await kv.get("k")


async def test_a_member_that_does_not_read_holds_back_its_own_calls(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints, timeout=10.0) as kv:
        await kv.put("k", "v")
        first = cluster.members[0]
        cluster.call(lambda: [c.transport.pause_reading() for c in first.connections])
        value = b"x" * 60_000
        writes = [asyncio.create_task(kv.put(f"k{number}", value)) for number in range(300)]
        connection = kv._dispatcher._fast  # type: ignore[union-attr]
        assert connection is not None
        await eventually(lambda: not connection.usable)
        late = asyncio.create_task(kv.put("late", "v"))
        cluster.call(lambda: [c.transport.resume_reading() for c in first.connections])
        await asyncio.gather(*writes, late)
        assert len(cluster.store.items) == 302
        assert first.connections_seen == 1
