"""Leases and guarded writes of both clients: the verbs, and leases that are kept alive until they are lost."""

import asyncio
import os
import threading
from time import monotonic
from typing import Any, Callable

import pytest

import raftkv
from raftkv.client import renewal
from raftkv.client.blockingconn import BlockingConnection
from raftkv.client.options import draw_lease_id
from raftkv.client.results import GrantedLease, LeaseInfo
from raftkv.errors import (
    ClientClosed,
    FencingTokenStale,
    InvalidRequest,
    LeaseExists,
    LeaseNotFound,
    LeaseTtlTooLarge,
    NotLeader,
    OutcomeUnknown,
)
from raftkv.etcdclient.marks import is_session
from raftkv.wire.commands import LEASE_GRANT, LEASE_REVOKE, OK
from raftkv.wire.protocol import FORWARD, KEEP_ALIVE

from .conftest import Threaded, eventually
from .fakeserver import FakeCluster

# The verbs.


async def test_grant_keep_alive_ttl_list_and_revoke(kv: Any, cluster: FakeCluster) -> None:
    assert await kv.lease_grant(10, lease_id=7) == GrantedLease(7, 10.0)
    drawn = await kv.lease_grant(2.5)
    assert (drawn.id > 0, drawn.ttl) == (True, 2.5)
    await kv.put("k", "v", lease=7)
    assert await kv.lease_ttl(7) == LeaseInfo(7, 9.999, 10.0, [])
    assert (await kv.lease_ttl(7, keys=True)).keys == [b"k"]
    assert await kv.lease_keep_alive_once(7) == 10.0
    assert await kv.leases() == [7, drawn.id]
    assert await kv.lease_revoke(7) == 1
    assert await kv.get("k") is None


async def test_a_lease_that_is_not_there(kv: Any) -> None:
    for ask in (kv.lease_ttl, kv.lease_keep_alive_once, kv.lease_revoke):
        with pytest.raises(LeaseNotFound):
            await ask(7)
    await kv.lease_grant(10, lease_id=7)
    with pytest.raises(LeaseExists):
        await kv.lease_grant(10, lease_id=7)


async def test_what_can_never_be_is_refused_before_it_is_sent(kv: Any, cluster: FakeCluster) -> None:
    for ttl in (0, -1.0, float("nan")):
        with pytest.raises(InvalidRequest):
            await kv.lease_grant(ttl)
    for ttl in (9_000_000_002, float("inf")):
        with pytest.raises(LeaseTtlTooLarge):
            await kv.lease_grant(ttl)
    for lease_id in (2**63, "7", 1.0):
        with pytest.raises(InvalidRequest):
            await kv.lease_keep_alive_once(lease_id)
    assert not cluster.members[0].requests


async def test_a_question_goes_to_the_leader_and_follows_it(kv: Any, cluster: FakeCluster) -> None:
    await kv.lease_grant(10, lease_id=7)
    cluster.call(lambda: setattr(cluster, "leader", cluster.members[1]))
    assert await kv.lease_keep_alive_once(7) == 10.0
    assert [KEEP_ALIVE, [7]] in cluster.members[1].requests


async def test_a_question_reaches_a_leader_that_only_others_can_reach(
    cluster: FakeCluster, open_client: Callable[..., Any]
) -> None:
    cluster.store.leases[7] = 10_000
    cluster.members[0].stop()
    kv = open_client(",".join(member.address for member in cluster.members[1:]), timeout=3.0)
    assert await kv.lease_keep_alive_once(7) == 10.0
    assert any(request[0] == FORWARD for member in cluster.members[1:] for request in member.requests)


# Guarded writes.


async def test_a_guard_that_holds_and_one_that_is_stale(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv:
        lock = await kv.put("lock", "mine")
        mine = kv.guarded("lock", lock.revision)
        await mine.put("k", "1")
        assert await mine.increment("k", 2) == 3
        assert await mine.append("k", "0") == 2
        assert await mine.put_if_absent("k", "x") is False
        assert await mine.compare_and_set("k", "30", "31") is True
        assert (await mine.txn().then(raftkv.Put("t", "v")).commit()).succeeded
        assert await mine.delete_prefix("t") == 1
        await kv.delete("lock")
        await kv.put("lock", "theirs")
        for write in (mine.put("k", "2"), mine.delete("k"), mine.txn().then(raftkv.Put("k", "2")).commit()):
            with pytest.raises(FencingTokenStale):
                await write
        assert await kv.get("k") == b"31"


def test_guards_add_up_and_a_retry_is_done_once(cluster: FakeCluster) -> None:
    with raftkv.Client(cluster.endpoints) as kv:
        first, second = kv.put("a", "").revision, kv.put("b", "").revision
        both = kv.guarded("a", first).guarded("b", second)
        cluster.members[0].script.append("lose")
        assert both.increment("n") == 1
        assert both.delete_range("n", "o").deleted == 1
        kv.delete("b")
        with pytest.raises(FencingTokenStale):
            both.put("k", "v")
        assert kv.guarded("a", first).put("k", "v").revision > 0


# Kept alive.


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of half a minute are renewed after 0.3 s: a test that stands still for a moment does not lose them."""
    monkeypatch.setattr(renewal, "RENEW_BEFORE_END_MIN", 0.99)
    monkeypatch.setattr(renewal, "RENEW_BEFORE_END_MAX", 0.99)


async def test_a_kept_lease_is_renewed_until_its_block_ends(cluster: FakeCluster, often: None) -> None:
    leader = cluster.members[0]
    async with raftkv.connect(cluster.endpoints) as kv:
        async with kv.lease(30.0) as lease:
            await kv.put("k", "v", lease=lease.id)
            assert 0 < lease.valid_for <= 30.0
            await eventually(lambda: leader.requests.count([KEEP_ALIVE, [lease.id]]) >= 3)
            assert not lease.lost.is_set()
            assert lease.ttl == 30.0
        assert lease.lost.is_set()
        assert lease.valid_for == 0.0
        assert await kv.get("k") is None
    assert leader.requests[-2][0] == LEASE_REVOKE


def renewals(cluster: FakeCluster) -> int:
    """By whatever way they came: a client that lost patience with the leader asks another member to forward."""
    commands = [request for member in cluster.members for request in member.requests]
    return sum(KEEP_ALIVE in (command[0], command[-1][0] if command[0] == FORWARD else 0) for command in commands)


def test_a_kept_lease_of_threads(cluster: FakeCluster, often: None) -> None:
    with raftkv.Client(cluster.endpoints) as kv:
        with kv.lease(30.0) as lease, kv.lease(30.0) as other:
            ends_at = [monotonic() + kept.valid_for for kept in (lease, other)]
            while (
                min(monotonic() + kept.valid_for - end for kept, end in zip((lease, other), ends_at, strict=True)) < 0.5
            ):
                assert not lease.lost.wait(0.01), "it outlives its time"
        assert lease.lost.is_set()
        assert cluster.store.leases == {}
    assert renewals(cluster), "it was renewed"
    names = [thread.name for thread in threading.enumerate()]
    assert "raftkv-leases" not in names, "the thread ended with the client"


async def test_leases_share_requests(cluster: FakeCluster, often: None) -> None:
    leader = cluster.members[0]
    async with raftkv.connect(cluster.endpoints) as kv:
        kept = [kv.lease(30.0) for _ in range(20)]
        for lease in kept:
            await lease.__aenter__()
        await eventually(lambda: sum(len(r[1]) for r in leader.requests if r[0] == KEEP_ALIVE) >= 40)
        assert sum(r[0] == KEEP_ALIVE for r in leader.requests) < 30
        assert not any(lease.lost.is_set() for lease in kept)


async def test_a_lease_that_the_cluster_does_not_know_any_more_is_lost_at_once(
    cluster: FakeCluster, often: None
) -> None:
    """With the next renewal, long before its end."""
    async with raftkv.connect(cluster.endpoints) as kv, kv.lease(30.0) as lease:
        cluster.call(lambda: cluster.store.leases.clear())
        await asyncio.wait_for(lease.lost.wait(), timeout=15)
        assert lease.valid_for == 0.0
    with raftkv.Client(cluster.endpoints) as client, client.lease(30.0) as owned:
        cluster.call(lambda: cluster.store.leases.clear())
        assert owned.lost.wait(15)


async def test_silence_brings_doubt_and_then_the_end_on_time(cluster: FakeCluster) -> None:
    """By the loop's own timers, which come in order also when the loop stood still."""
    async with raftkv.connect(cluster.endpoints, timeout=0.4) as kv, kv.lease(4.0) as lease:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + lease.valid_for
        is_lost: list[bool] = []
        loop.call_at(ends_at - 0.1, lambda: is_lost.append(lease.lost.is_set()))
        loop.call_at(ends_at + 0.5, lambda: is_lost.append(lease.lost.is_set()))
        for member in cluster.members:
            member.mode = "hang"
        await asyncio.wait_for(lease.doubt.wait(), timeout=15)
        assert lease.valid_for > 0
        await asyncio.wait_for(lease.lost.wait(), timeout=15)
        await eventually(lambda: len(is_lost) == 2)
        assert is_lost == [False, True]
        for member in cluster.members:
            member.mode = "serve"


def test_silence_towards_threads(cluster: FakeCluster) -> None:
    with raftkv.Client(cluster.endpoints, timeout=0.4) as kv, kv.lease(4.0) as lease:
        for member in cluster.members:
            member.mode = "hang"
        assert lease.doubt.wait(15)
        assert not lease.lost.is_set()
        assert lease.lost.wait(15)
        for member in cluster.members:
            member.mode = "serve"


async def test_doubt_ends_when_the_cluster_answers_again(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv, kv.lease(2.0) as lease:
        for member in cluster.members:
            member.mode = NotLeader
        await asyncio.wait_for(lease.doubt.wait(), timeout=2)
        for member in cluster.members:
            member.mode = "serve"
        await eventually(lambda: not lease.doubt.is_set())
        assert lease.valid_for > 1.0


async def test_closing_the_client_tells_owners_that_nobody_keeps_their_leases(cluster: FakeCluster) -> None:
    kv = raftkv.connect(cluster.endpoints)
    lease = kv.lease(10)
    await lease.__aenter__()
    await kv.close()
    assert lease.lost.is_set()
    client = raftkv.Client(cluster.endpoints)
    owned = client.lease(10).__enter__()
    client.close()
    assert owned.lost.is_set()
    with pytest.raises(ClientClosed):
        client.lease(10).__enter__()


async def test_a_grant_that_had_to_be_repeated_counts_from_the_first_attempt(cluster: FakeCluster) -> None:
    cluster.members[0].script.append("hang")
    async with raftkv.connect(cluster.endpoints, timeout=3, attempt_timeout=0.2) as kv, kv.lease(10) as lease:
        assert lease.valid_for <= 9.8
    assert sum(command[0] == LEASE_GRANT for command in cluster.store.applied) == 1


# Grants that nobody hears of.


async def test_a_grant_whose_answer_is_lost_is_withdrawn(cluster: FakeCluster, open_client: Callable[..., Any]) -> None:
    kv = open_client(cluster.endpoints, session=False)
    cluster.members[0].script.append("lose")
    with pytest.raises(OutcomeUnknown):
        await entered(kv)
    assert [command[0] for command in cluster.store.applied] == [LEASE_GRANT, LEASE_REVOKE]
    assert cluster.store.leases == {}


async def test_a_grant_that_surely_was_not_done_is_not_withdrawn(
    cluster: FakeCluster, open_client: Callable[..., Any]
) -> None:
    kv = open_client(cluster.endpoints)
    cluster.members[0].script.append(LeaseTtlTooLarge)
    with pytest.raises(LeaseTtlTooLarge):
        await entered(kv)
    assert [command[0] for command in cluster.members[0].requests] == [LEASE_GRANT]


async def entered(kv: Any) -> Any:
    """A lease of either client, entered."""
    if isinstance(kv, Threaded):
        return await asyncio.to_thread(kv.client.lease(10).__enter__)
    return await kv.lease(10).__aenter__()


def test_a_grant_in_which_ctrl_c_comes_is_withdrawn(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with raftkv.Client(cluster.endpoints) as kv:
        grant = kv.lease_grant

        def interrupted(*args: Any, **options: Any) -> GrantedLease:
            grant(*args, **options)
            raise KeyboardInterrupt

        monkeypatch.setattr(kv, "lease_grant", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kv.lease(10).__enter__()
    assert cluster.store.leases == {}


async def test_a_grant_that_is_cancelled_is_withdrawn(cluster: FakeCluster) -> None:
    leader = cluster.members[0]
    async with raftkv.connect(cluster.endpoints) as kv:
        leader.script.append("slow")
        task = asyncio.create_task(kv.lease(10).__aenter__())
        await eventually(lambda: bool(leader.held))
        ((connection, _, command),) = leader.held
        cluster.call(lambda: leader.serve(connection, command))
        assert len(cluster.store.leases) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert cluster.store.leases == {}


def test_a_grant_that_is_done_after_it_was_withdrawn_is_refused(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another connection the withdrawal may overtake it: the session has gone on, and takes nothing older any more."""
    leader = cluster.members[0]
    receive = BlockingConnection.receive

    def interrupted(self: BlockingConnection, request_id: int, deadline: float) -> Any:
        monkeypatch.setattr(BlockingConnection, "receive", receive)
        while not leader.held:
            receive(self, request_id, monotonic() + 0.01)
        raise KeyboardInterrupt

    with raftkv.Client(cluster.endpoints) as kv:
        kv.put("k", "v")  # there is a session
        leader.script.append("slow")
        monkeypatch.setattr(BlockingConnection, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kv.lease(10).__enter__()
        ((connection, _, command),) = leader.held
        assert cluster.call(lambda: leader.serve(connection, command))[0] != OK
    assert cluster.store.leases == {}


async def test_a_grant_that_is_found_done_is_ours(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on etcd, where a second attempt is told that the lease exists."""
    with raftkv.Client(cluster.endpoints) as client:
        grant = client.lease_grant

        def found(*args: Any, **options: Any) -> GrantedLease:
            grant(*args, **options)
            raise LeaseExists(may_have_happened=True)

        monkeypatch.setattr(client, "lease_grant", found)
        with client.lease(10) as lease:
            assert list(cluster.store.leases) == [lease.id]
            assert lease.ttl == 10.0
    async with raftkv.connect(cluster.endpoints) as kv:
        grant_async = kv.lease_grant

        async def found_async(*args: Any, **options: Any) -> GrantedLease:
            await grant_async(*args, **options)
            raise LeaseExists(may_have_happened=True)

        monkeypatch.setattr(kv, "lease_grant", found_async)
        async with kv.lease(10) as own:
            assert list(cluster.store.leases) == [own.id]
    assert cluster.store.leases == {}


def test_drawn_ids_are_never_those_of_sessions_on_etcd() -> None:
    drawn = {draw_lease_id() for _ in range(1000)}
    assert len(drawn) == 1000
    assert all(0 < lease_id <= 2**62 for lease_id in drawn)
    assert not is_session(2**62)


def test_who_goes_away_in_the_middle_ends_what_is_his_and_not_what_is_shared(cluster: FakeCluster) -> None:
    with raftkv.Client(cluster.endpoints) as kv:
        kv._revoke_kept(1.0)
        assert not cluster.members[0].requests, "nothing is kept"
        with kv.lease(10, shared_id=7), kv.lease(10) as lease:
            kv._revoke_kept(1.0)
            assert list(cluster.store.leases) == [7]
            assert lease.id != 7


def test_a_forked_child_keeps_leases_of_its_own(cluster: FakeCluster) -> None:
    with raftkv.Client(cluster.endpoints) as kv, kv.lease(5):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with kv.lease(0.8) as own:
                    code = 0 if not own.lost.wait(1.2) else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0


def test_threads_whose_first_leases_come_at_once_share_one_keeper(cluster: FakeCluster) -> None:
    """Another one would go on after the client is closed."""
    for _ in range(20):
        with raftkv.Client(cluster.endpoints) as kv:
            together = threading.Barrier(4)
            leases = [kv.lease(10) for _ in range(4)]

            def enter(lease: Any, together: threading.Barrier = together) -> None:
                together.wait()
                lease.__enter__()

            threads = [threading.Thread(target=enter, args=(lease,)) for lease in leases]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert all(lease.lost.is_set() for lease in leases)
