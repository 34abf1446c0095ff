"""A write whose answer is lost is done once, wherever the connection breaks; without a session the caller is told."""

import asyncio
from time import monotonic
from typing import Any

import pytest

import raftkv
from raftkv.client.blockingconn import BlockingConnection
from raftkv.errors import DeadlineExceeded, OutcomeUnknown
from raftkv.wire.commands import GET

from .conftest import eventually
from .fakeserver import FakeCluster


@pytest.mark.parametrize("loss", ["drop", "lose", "half"])
async def test_a_lost_answer_is_asked_for_again(kv: Any, cluster: FakeCluster, loss: str) -> None:
    await kv.increment("n")
    cluster.members[0].script.append(loss)
    assert await kv.increment("n") == 2
    assert await kv.get("n") == b"2"
    assert len(cluster.store.applied) == 2


async def test_the_first_write_of_all_may_lose_its_answer_too(kv: Any, cluster: FakeCluster) -> None:
    cluster.members[0].script.append("lose")
    assert await kv.increment("n") == 1
    assert await kv.get("n") == b"1"


@pytest.mark.parametrize("loss", ["drop", "lose", "half"])
async def test_without_a_session_the_outcome_is_unknown(cluster: FakeCluster, open_client: Any, loss: str) -> None:
    kv = open_client(cluster.endpoints, session=False)
    cluster.members[0].script.append(loss)
    with pytest.raises(OutcomeUnknown) as raised:
        await kv.increment("n")
    assert raised.value.may_have_happened is True
    assert cluster.members[0].address in raised.value.message
    assert len(cluster.store.applied) == (0 if loss == "drop" else 1)
    assert cluster.members[0].notices == [], "no session, nothing to acknowledge"
    assert await kv.increment("m") == 1, "the client goes on"


async def test_a_read_is_asked_again_in_both_modes(cluster: FakeCluster, open_client: Any) -> None:
    for session in (True, False):
        kv = open_client(cluster.endpoints, session=session)
        cluster.members[0].script.append("drop")
        assert await kv.get("nothing") is None


async def test_a_deadline_in_the_middle_of_a_write_is_uncertain(cluster: FakeCluster, open_client: Any) -> None:
    for member in cluster.members:
        member.script.extend(["hang"] * 20)
    for session in (True, False):
        kv = open_client(cluster.endpoints, timeout=0.4, session=session)
        with pytest.raises(DeadlineExceeded, match="may have happened") as raised:
            await kv.put("k", "v")
        assert raised.value.may_have_happened is True
        with pytest.raises(DeadlineExceeded) as raised:
            await kv.get("k")
        assert raised.value.may_have_happened is False


async def test_many_writes_over_a_connection_that_keeps_breaking(cluster: FakeCluster) -> None:
    behaviours = ["serve", "serve", "lose", "serve", "serve", "serve", "half", "serve", "drop"] * 30
    async with raftkv.connect(cluster.endpoints, timeout=20.0) as kv:
        cluster.members[0].script.extend(behaviours)
        results = await asyncio.gather(*(kv.increment("n") for _ in range(200)))
    assert sorted(results) == list(range(1, 201)), "each one was done once and has its own answer"
    assert cluster.store.items[b"n"][5] == b"200"


async def test_threads_share_a_session_over_connections_that_break(cluster: FakeCluster) -> None:
    behaviours = ["serve", "serve", "lose", "serve", "serve", "half", "serve", "drop"] * 20
    with raftkv.Client(cluster.endpoints, timeout=20.0) as kv:
        cluster.members[0].script.extend(behaviours)
        each = [asyncio.to_thread(lambda: [kv.increment("n") for _ in range(10)]) for _ in range(12)]
        results = [number for numbers in await asyncio.gather(*each) for number in numbers]
    assert sorted(results) == list(range(1, 121))
    assert len(cluster.store.sessions) == 1


async def test_a_leader_that_dies_with_writes_in_flight(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints, timeout=10.0) as kv:
        await kv.increment("n")
        cluster.members[0].script.extend(["serve"] * 20 + ["lose"])
        writes = [asyncio.create_task(kv.increment("n")) for _ in range(100)]
        await eventually(lambda: len(cluster.store.applied) >= 20)
        cluster.members[0].stop()
        cluster.leader = cluster.members[1]
        assert sorted(await asyncio.gather(*writes)) == list(range(2, 102))


async def test_answers_are_acknowledged_and_forgotten(kv: Any, cluster: FakeCluster) -> None:
    for number in range(20):
        await kv.put("k", str(number))
    (session,) = cluster.store.sessions.values()
    assert session.ack_below == 20
    assert list(session.answers) == [20]


async def test_the_session_registers_until_its_first_answer_and_never_again(kv: Any, cluster: FakeCluster) -> None:
    await kv.put("k", "1")
    await kv.put("k", "2")
    await kv.put("k", "3")
    assert [register for _, _, register in cluster.members[0].notices] == [True, False, False]


async def test_reads_do_not_register_a_session(kv: Any, cluster: FakeCluster) -> None:
    await kv.get("k")
    assert [command[0] for command in cluster.members[0].requests] == [GET]
    assert cluster.store.sessions == {}


async def test_an_idle_session_is_left_for_a_new_one(cluster: FakeCluster, open_client: Any) -> None:
    for member in cluster.members:
        member.greeting_changes["limits"] = {"request_bytes_max": 96 * 1024, "session_ttl_ms": 100}
    kv = open_client(cluster.endpoints)
    loop = asyncio.get_running_loop()
    await kv.put("k", "1")
    idle_until = loop.time() + 0.06
    await eventually(lambda: loop.time() > idle_until)
    cluster.call(cluster.store.sessions.clear)
    assert (await kv.put("k", "2")).revision == 3
    assert [command[3] for command in cluster.store.applied] == [b"1", b"2"]


def test_who_stood_still_past_the_deadline_blames_no_member(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The member may be as well as ever: it was we who did not listen."""
    leader, real = cluster.members[0], BlockingConnection.receive
    with raftkv.Client(cluster.endpoints) as kv:
        kv.put("k", "v")
        ends_at = monotonic() + 0.2

        def receive(self: BlockingConnection, request_id: int, deadline: float) -> Any:
            while monotonic() < ends_at:
                real(self, request_id, ends_at)

        monkeypatch.setattr(BlockingConnection, "receive", receive)
        leader.script.append("hang")
        with pytest.raises(DeadlineExceeded):
            kv.get("k", timeout=0.1)
        assert not kv._directory.is_unreachable(leader.address, monotonic())
