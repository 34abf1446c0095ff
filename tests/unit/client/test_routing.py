"""Where calls go when members refuse, hang, die or belong elsewhere: both clients, on real sockets."""

import asyncio
import time
from typing import Any, Callable

import pytest

import raftkv
from raftkv.errors import (
    ClusterMismatch,
    DeadlineExceeded,
    KeyTooLarge,
    LeadershipLost,
    LeaseNotFound,
    NoQuorum,
    NotLeader,
    Overloaded,
    RequestTooLarge,
    SessionExpired,
    ShuttingDown,
    Unreachable,
    ValueTooLarge,
)
from raftkv.wire.commands import GET, PUT
from raftkv.wire.protocol import FORWARD

from .conftest import eventually
from .fakeserver import FakeCluster


def operations(cluster: FakeCluster, number: int) -> list[int]:
    return [command[0] for command in cluster.members[number - 1].requests]


async def test_a_write_goes_straight_to_the_leader_that_the_greeting_named(kv: Any, cluster: FakeCluster) -> None:
    cluster.leader = cluster.members[2]
    await kv.put("k", "v")
    assert operations(cluster, 1) == [], "the first endpoint only greeted"
    assert operations(cluster, 3) == [PUT]


async def test_a_read_is_answered_by_the_first_endpoint(kv: Any, cluster: FakeCluster) -> None:
    cluster.leader = cluster.members[2]
    await kv.get("k")
    assert operations(cluster, 1) == [GET]


async def test_a_leader_hint_is_followed_in_the_next_round_trip(kv: Any, cluster: FakeCluster) -> None:
    await kv.put("k", "1")
    cluster.leader = cluster.members[1]
    await kv.put("k", "2")
    assert operations(cluster, 1) == [PUT, PUT]
    assert operations(cluster, 2) == [PUT]
    await kv.put("k", "3")
    assert operations(cluster, 1) == [PUT, PUT], "remembered"


async def test_an_election_is_waited_for(kv: Any, cluster: FakeCluster) -> None:
    await kv.put("k", "1")
    cluster.leader = None
    write = asyncio.create_task(kv.put("k", "2"))
    await eventually(lambda: len(operations(cluster, 2)) + len(operations(cluster, 3)) >= 2)
    cluster.leader = cluster.members[1]
    assert (await write).revision == 3
    assert await kv.get("k") == b"2"


async def test_no_quorum_sends_the_client_elsewhere_at_once(kv: Any, cluster: FakeCluster) -> None:
    await kv.put("k", "1")
    first = cluster.members[0]
    first.mode = first.no_quorum()
    cluster.leader = cluster.members[2]
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    await kv.put("k", "2")
    assert loop.time() - started_at < 1.0, "it did not wait for a deadline"
    assert operations(cluster, 1) == [PUT, PUT]
    await kv.get("k")
    await kv.put("k", "3")
    assert operations(cluster, 1) == [PUT, PUT], "and it stays away"


@pytest.fixture
def long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one begins half a second before a call of 1.2 s ends: who is stopped for less is not in the middle of a question then."""
    for module in ("dispatch", "blocking"):
        monkeypatch.setattr(f"raftkv.client.{module}.draw", lambda: 1.0)


@pytest.mark.usefixtures("long_pauses")
async def test_no_quorum_everywhere_is_said_with_every_member(cluster: FakeCluster, open_client: Any) -> None:
    for member in cluster.members:
        member.mode = member.no_quorum()
    kv = open_client(cluster.endpoints, timeout=1.2)
    for call in (lambda: kv.put("k", "v"), lambda: kv.get("k")):
        with pytest.raises(NoQuorum) as raised:
            await call()
        assert raised.value.may_have_happened is False
        for member in cluster.members:
            assert f"{member.address} (no quorum)" in raised.value.message
    assert cluster.store.applied == []


@pytest.mark.usefixtures("long_pauses")
async def test_one_no_quorum_among_the_dead_is_still_no_quorum(cluster: FakeCluster, open_client: Any) -> None:
    cluster.members[1].stop()
    cluster.members[2].stop()
    cluster.members[0].mode = cluster.members[0].no_quorum()
    kv = open_client(cluster.endpoints, timeout=1.2)
    with pytest.raises(NoQuorum, match="connection refused"):
        await kv.put("k", "v")


async def test_a_write_that_was_pending_when_the_quorum_was_lost_is_uncertain(
    cluster: FakeCluster, open_client: Any
) -> None:
    for member in cluster.members:
        member.mode = member.no_quorum(may_have_happened=True)
    kv = open_client(cluster.endpoints, timeout=0.6)
    with pytest.raises(DeadlineExceeded) as raised:
        await kv.put("k", "v")
    assert raised.value.may_have_happened is True


async def test_a_hanging_member_is_left_after_one_attempt(cluster: FakeCluster, open_client: Any) -> None:
    kv = open_client(cluster.endpoints, timeout=9.0, attempt_timeout=0.4)
    await kv.put("k", "1")
    cluster.members[0].mode = "hang"
    cluster.leader = cluster.members[1]
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    await kv.put("k", "2")
    assert 0.3 < loop.time() - started_at < 5.0, "one attempt's deadline, not the call's"
    asked = len(operations(cluster, 1))
    await kv.put("k", "3")
    assert len(operations(cluster, 1)) == asked, "the next call does not try it again"


async def test_a_slow_answer_of_a_living_member_is_waited_for(cluster: FakeCluster, open_client: Any) -> None:
    kv = open_client(cluster.endpoints, timeout=20.0, attempt_timeout=1.2)
    await kv.put("k", "1")
    first = cluster.members[0]
    first.mode = "slow"
    read = asyncio.create_task(kv.get("k"))
    await eventually(lambda: first.pings > 0)
    loop = asyncio.get_running_loop()
    attempt_over_at = loop.time() + 1.2  # it began half an attempt before the sign of life
    await eventually(lambda: loop.time() > attempt_over_at)
    first.release()
    assert await read == b"1"
    assert operations(cluster, 2) == operations(cluster, 3) == [], "nobody else was asked"


async def test_a_loop_that_stood_still_does_not_take_its_member_for_dead(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints, timeout=20.0, attempt_timeout=0.4) as kv:
        await kv.put("k", "1")
        first = cluster.members[0]
        first.mode = "slow"
        read = asyncio.create_task(kv.get("k"))
        await eventually(lambda: bool(first.held))
        time.sleep(1.0)  # noqa: ASYNC251 - the whole loop stands still for two attempts: it asked for no sign of life meanwhile
        await eventually(lambda: first.pings > 0)
        first.release()
        assert await read == b"1"
        assert operations(cluster, 2) == operations(cluster, 3) == [], "nobody else was asked"


async def test_a_dead_leader_is_left_for_the_next_one(kv: Any, cluster: FakeCluster) -> None:
    await kv.put("k", "1")
    cluster.members[0].stop()
    cluster.leader = cluster.members[1]
    await kv.put("k", "2")
    assert await kv.get("k") == b"2"


async def test_a_restarted_member_is_used_again(cluster: FakeCluster, open_client: Any) -> None:
    only = cluster.members[0]
    kv = open_client(only.address, timeout=5.0)
    await kv.put("k", "1")
    for member in cluster.members:
        member.stop()
    read = asyncio.create_task(kv.get("k"))
    only.start()
    assert await read == b"1"


@pytest.mark.usefixtures("long_pauses")
async def test_nobody_there_is_unreachable_with_the_reasons(cluster: FakeCluster, open_client: Any) -> None:
    for member in cluster.members:
        member.stop()
    kv = open_client(cluster.endpoints, timeout=1.2)
    with pytest.raises(Unreachable) as raised:
        await kv.put("k", "v")
    assert raised.value.may_have_happened is False
    for member in cluster.members:
        assert f"{member.address} (connection refused)" in raised.value.message
        assert raised.value.details["endpoints"][member.address] == "connection refused"


async def test_a_member_that_accepts_but_never_greets(cluster: FakeCluster, open_client: Any) -> None:
    cluster.members[0].refuses_greetings = True
    cluster.leader = cluster.members[1]
    kv = open_client(cluster.endpoints, timeout=3.0)
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    await kv.put("k", "v")
    assert loop.time() - started_at < 1.5


async def test_a_name_that_does_not_resolve(open_client: Any) -> None:
    name = "x" * 64  # longer than a label may be, so no server of names is asked
    kv = open_client(f"{name}.invalid:2379", timeout=0.3)
    with pytest.raises(Unreachable, match=name):
        await kv.get("k")


@pytest.mark.parametrize("error", [ShuttingDown, Overloaded, NotLeader])
async def test_refusals_that_pass_are_repeated_also_without_a_session(
    cluster: FakeCluster, open_client: Any, error: type
) -> None:
    cluster.members[0].script.append(error)
    kv = open_client(cluster.endpoints, timeout=3.0, session=False)
    assert (await kv.put("k", "v")).revision == 2
    assert len(cluster.store.applied) == 1


async def test_a_lost_leadership_is_asked_again_under_the_session(kv: Any, cluster: FakeCluster) -> None:
    cluster.members[0].script.append(LeadershipLost)
    assert await kv.increment("n") == 1
    assert len(cluster.store.applied) == 1


async def test_a_refusal_for_good_is_raised_at_once(kv: Any, cluster: FakeCluster) -> None:
    cluster.members[0].script.append(LeaseNotFound("lease 5 does not exist"))
    with pytest.raises(LeaseNotFound, match="lease 5") as raised:
        await kv.put("k", "v", lease=5)
    assert raised.value.may_have_happened is False
    assert operations(cluster, 1) == [PUT]


async def test_garbage_ends_the_connection_and_not_the_call(kv: Any, cluster: FakeCluster) -> None:
    await kv.put("k", "1")
    cluster.members[0].script.append("garbage")
    assert await kv.get("k") == b"1"


async def test_answers_in_single_bytes(kv: Any, cluster: FakeCluster) -> None:
    cluster.members[0].splits = True
    await kv.put("k", "1")
    assert await kv.get("k") == b"1"


# The wrong cluster.


async def test_a_pinned_name_is_refused_with_both_names(cluster: FakeCluster, open_client: Any) -> None:
    for member in cluster.members:
        member.cluster_name = "dev"
    kv = open_client(cluster.endpoints, cluster_name="prod", timeout=5.0)
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    with pytest.raises(ClusterMismatch) as raised:
        await kv.get("k")
    assert "'prod'" in raised.value.message
    assert "'dev'" in raised.value.message
    assert raised.value.may_have_happened is False
    assert loop.time() - started_at < 2.0, "all mismatch: there is nothing to wait for"
    assert all(member.requests == [] for member in cluster.members)


async def test_one_wrong_endpoint_is_left_out(cluster: FakeCluster, open_client: Any) -> None:
    cluster.members[0].cluster_name = "dev"
    cluster.leader = cluster.members[1]
    kv = open_client(cluster.endpoints, cluster_name="prod")
    await kv.put("k", "v")
    assert operations(cluster, 1) == []


async def test_two_clusters_behind_one_list_are_not_mixed_up(cluster: FakeCluster, open_client: Any) -> None:
    cluster.members[1].cluster_id, cluster.members[1].cluster_name = 78, "dev"
    kv = open_client(f"{cluster.members[0].address},{cluster.members[1].address}", timeout=0.5)
    await kv.put("k", "1")
    cluster.members[0].stop()
    cluster.members[2].stop()
    with pytest.raises((Unreachable, DeadlineExceeded, ClusterMismatch), match="belongs to cluster 'dev'"):
        await kv.get("k")
    assert operations(cluster, 2) == []


# A leader that this client cannot reach.


async def test_a_leader_out_of_reach_is_asked_through_another_member(cluster: FakeCluster, open_client: Any) -> None:
    leader = cluster.members[2]
    leader.stop()
    cluster.leader = leader  # only the client cannot reach it
    kv = open_client(cluster.endpoints, timeout=3.0)
    assert (await kv.put("k", "1")).revision == 2
    assert await kv.increment("n") == 1
    forwarded = [command for member in cluster.members for command in member.requests if command[0] == FORWARD]
    assert forwarded[0][4][0] == PUT
    assert forwarded[0][1] is not None, "with the session: exactly-once holds over the detour too"
    assert await kv.get("k") == b"1", "reads are answered by any member"


async def test_an_advertised_address_that_leads_nowhere_does_not_matter(cluster: FakeCluster, open_client: Any) -> None:
    for member in cluster.members:
        member.advertised = f"127.0.0.1:{1 + member.id}"  # as inside of containers
    cluster.leader = cluster.members[1]
    kv = open_client(cluster.endpoints, timeout=3.0)
    await kv.put("k", "1")
    assert operations(cluster, 2) == [PUT], "found among the client's own endpoints"
    assert operations(cluster, 3) == []


async def test_the_advertised_address_serves_when_the_list_is_short(cluster: FakeCluster, open_client: Any) -> None:
    cluster.leader = cluster.members[1]
    kv = open_client(cluster.members[0].address, timeout=3.0)
    await kv.put("k", "1")
    assert operations(cluster, 2) == [PUT]


# Sizes.


async def test_what_is_too_large_is_not_sent(kv: Any, cluster: FakeCluster) -> None:
    with pytest.raises(ValueTooLarge, match="100000 bytes, the limit is 65536"):
        await kv.put("k", b"x" * 100_000)
    with pytest.raises(KeyTooLarge, match="the limit is 16384"):
        await kv.put(b"k" * 100_000, b"")
    with pytest.raises(RequestTooLarge):
        await kv.append("k", b"x" * 100_000)
    assert await kv.put("k", "v") is not None
    assert len(cluster.store.applied) == 1
    assert operations(cluster, 1) == [PUT]


# Sessions that are gone.


async def test_an_unknown_session_ends_the_write_and_the_next_one_begins_anew(kv: Any, cluster: FakeCluster) -> None:
    await kv.put("k", "1")
    cluster.call(cluster.store.sessions.clear)
    with pytest.raises(SessionExpired) as raised:
        await kv.put("k", "2")
    assert raised.value.may_have_happened is False, "it was sent once and refused"
    assert (await kv.put("k", "3")).revision == 3
    assert [command[3] for command in cluster.store.applied] == [b"1", b"3"]


async def test_an_unknown_session_on_a_retry_means_that_nobody_knows(
    cluster: FakeCluster, open_client: Callable[..., Any]
) -> None:
    kv = open_client(cluster.endpoints, timeout=3.0)
    await kv.put("k", "1")

    cluster.members[0].script.append("lose")
    cluster.members[0].script.append(SessionExpired())
    cluster.members[1].script.append(SessionExpired())
    cluster.members[2].script.append(SessionExpired())
    with pytest.raises(SessionExpired) as raised:
        await kv.put("k", "2")
    assert raised.value.may_have_happened is True
    cluster.call(lambda: [member.script.clear() for member in cluster.members])
    await kv.put("k", "3")
    assert [command[3] for command in cluster.store.applied] == [b"1", b"2", b"3"]
