"""etcd's locks and elections, run by members of one process, on a leader and on a follower."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from raftkv.daemon.etcd.calls import Receiver
from raftkv.daemon.etcd.house import House
from raftkv.errors import NoQuorum
from raftkv.etcd.statuses import Status
from raftkv.etcdpb import election_pb2 as election
from raftkv.etcdpb import kv_pb2 as kv
from raftkv.etcdpb import lock_pb2 as lock
from raftkv.wire.commands import LEASE_GRANT, LEASE_REVOKE, LEASES, PUT, RANGE
from tests.unit.conftest import Run
from tests.unit.daemon.etcd_calls import CLUSTER_ID, HandCall, HandHouse, opened, unary

EXPIRED = Status(2, "mutex: session is expired")


class Scene:
    """Three members, the house of one of them, and some leases."""

    def __init__(self, *, through_leader: bool) -> None:
        self.hand = HandHouse(size=3)
        self.hand.cluster.pass_time(1_000)
        member = self.hand.leader if through_leader else self.hand.cluster.followers()[0]
        self.watches = member.storage.watches
        self.house: House = self.hand.of(member)

    async def until(self, condition: Callable[[], bool]) -> None:
        """A heartbeat now and then tells followers what is committed."""
        while not condition():
            self.hand.cluster.pass_time(25)
            await asyncio.sleep(0)

    async def turns(self, count: int = 40) -> None:
        """Enough for anything that could happen to happen."""
        for _ in range(count):
            self.hand.cluster.pass_time(25)
            await asyncio.sleep(0)

    async def grant(self, *leases: int) -> None:
        for lease in leases:
            await self.house.ask([LEASE_GRANT, 0, lease, 10**12])  # time flies here

    async def revoke(self, lease: int) -> None:
        await self.house.ask([LEASE_REVOKE, 0, lease])

    async def keys(self) -> list[bytes]:
        answer = await self.house.ask([RANGE, 0, b"\0", b"\0", 0, 0, 0, 0, 0, 0, 0, 0])
        return [items[0] for items in answer[2]]

    def begin(self, path: str, request: Any) -> tuple[HandCall, Receiver]:
        return opened(self.house, path, request)

    async def lock(self, name: bytes, lease: int) -> Any:
        return await unary(self.house, "/v3lockpb.Lock/Lock", lock.LockRequest(name=name, lease=lease))

    def begin_lock(self, name: bytes, lease: int) -> tuple[HandCall, Receiver]:
        return self.begin("/v3lockpb.Lock/Lock", lock.LockRequest(name=name, lease=lease))

    async def unlock(self, key: bytes) -> Any:
        return await unary(self.house, "/v3lockpb.Lock/Unlock", lock.UnlockRequest(key=key))

    async def election(self, name: str, request: Any) -> Any:
        return await unary(self.house, f"/v3electionpb.Election/{name}", request)

    async def campaign(self, lease: int, value: bytes) -> Any:
        return await self.election("Campaign", election.CampaignRequest(name=b"e", lease=lease, value=value))

    def begin_campaign(self, lease: int, value: bytes) -> tuple[HandCall, Receiver]:
        request = election.CampaignRequest(name=b"e", lease=lease, value=value)
        return self.begin("/v3electionpb.Election/Campaign", request)


Told = Callable[[Callable[[Scene], Awaitable[None]]], None]


@pytest.fixture(params=[True, False], ids=["leader", "follower"])
def on_both(request: pytest.FixtureRequest, run: Run) -> Told:
    def told(scenario: Callable[[Scene], Awaitable[None]]) -> None:
        async def main() -> None:
            await scenario(Scene(through_leader=request.param))

        run(main())

    return told


def test_the_key_of_a_lock_and_its_header(on_both: Told) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.grant(4242, -1)
        held = await scene.lock(b"lock", 4242)
        assert held.key == b"lock/1092"
        assert (held.header.cluster_id, held.header.revision) == (CLUSTER_ID, 2)
        again = await scene.lock(b"lock", 4242)
        assert (again.key, again.header.revision) == (b"lock/1092", 2), "it is held already"
        assert (await scene.lock(b"", -1)).key == b"/-1"
        assert (await scene.unlock(b"lock/1092")).header.revision == 4
        assert (await scene.unlock(b"nothing")).header.revision == 4
        assert await scene.unlock(b"") == Status(2, "etcdserver: key is not provided")
        assert await scene.lock(b"lock", 9) == Status(2, "etcdserver: requested lease not found")
        assert await scene.keys() == [b"/-1"]

    on_both(scenario)


def test_who_brings_no_lease_gets_one_for_a_minute(on_both: Told) -> None:
    async def scenario(scene: Scene) -> None:
        held = await scene.lock(b"lock", 0)
        (lease,) = (await scene.house.ask([LEASES, 0]))[2]
        assert held.key == b"lock/%x" % lease
        granted = scene.hand.leader.storage.store.leases.get(lease)
        assert granted is not None
        assert granted.ttl_ms == 60_000

    on_both(scenario)


def test_who_came_first_has_it_and_the_next_one_is_served_in_turn(on_both: Told) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.grant(1, 2, 3)
        assert (await scene.lock(b"l", 1)).key == b"l/1"
        second, _ = scene.begin_lock(b"l", 2)
        await scene.turns()
        third, _ = scene.begin_lock(b"l", 3)
        await scene.turns()
        assert not second.ended
        await scene.unlock(b"l/1")
        await scene.until(lambda: bool(second.ended))
        assert second.replies[0].key == b"l/2"  # type: ignore[union-attr]
        await scene.turns()
        assert not third.ended
        await scene.revoke(2)
        await scene.until(lambda: bool(third.ended))
        assert await scene.keys() == [b"l/3"]

    on_both(scenario)


def test_one_that_left_and_came_back_stands_behind(on_both: Told) -> None:
    """It must not be waited for under its old place."""

    async def scenario(scene: Scene) -> None:
        await scene.grant(1, 2)
        await scene.lock(b"l", 1)
        second, _ = scene.begin_lock(b"l", 2)
        await scene.turns()
        await scene.house.ask([RANGE, 0, b"l/1", b"", 0, 0, 0, 0, 0, 0, 0, 0])
        await scene.unlock(b"l/1")
        first, _ = scene.begin_lock(b"l", 1)
        await scene.until(lambda: bool(second.ended))
        await scene.turns()
        assert second.ended == [None]
        assert not first.ended

    on_both(scenario)


def test_a_caller_that_goes_away_gives_up_its_place(on_both: Told) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.grant(1, 2, 3)
        await scene.lock(b"l", 1)
        second, receiver = scene.begin_lock(b"l", 2)
        await scene.turns()
        assert await scene.keys() == [b"l/1", b"l/2"]
        receiver.on_gone()
        await scene.until(lambda: not scene.house.chores)
        await scene.turns()
        assert await scene.keys() == [b"l/1"]
        assert not second.ended
        hasty, receiver = scene.begin_lock(b"l", 3)
        receiver.on_gone()  # before anything of it was answered
        await scene.turns()
        await scene.until(lambda: not scene.house.chores)
        assert await scene.keys() == [b"l/1"]
        assert not hasty.ended

    on_both(scenario)


def test_a_lease_that_ends_while_its_owner_waits_ends_the_wait(on_both: Told) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.grant(1, 2)
        await scene.lock(b"l", 1)
        second, _ = scene.begin_lock(b"l", 2)
        await scene.turns()
        await scene.revoke(2)
        await scene.until(lambda: bool(second.ended))
        assert second.ended == [EXPIRED]

    on_both(scenario)


def test_a_wait_goes_on_after_its_watches_were_ended(on_both: Told) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.grant(1, 2)
        await scene.lock(b"l", 1)
        second, _ = scene.begin_lock(b"l", 2)
        await scene.turns()
        scene.house.service.watching.send_away(NoQuorum())
        await scene.unlock(b"l/1")
        await scene.until(lambda: bool(second.ended))
        assert second.ended == [None]
        assert second.replies[0].key == b"l/2"  # type: ignore[union-attr]

    on_both(scenario)


def test_a_member_that_leaves_ends_the_wait(run: Run) -> None:
    async def scenario() -> None:
        scene = Scene(through_leader=True)
        await scene.grant(1, 2)
        await scene.lock(b"l", 1)
        second, _ = scene.begin_lock(b"l", 2)
        await scene.turns()
        scene.house.service.begin_shutdown()
        await scene.until(lambda: bool(second.ended))
        assert second.ended == [Status(2, "etcdserver: server stopped")]
        await scene.until(lambda: not scene.house.chores)

    run(scenario())


def test_an_election_from_campaign_to_resignation(on_both: Told) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.grant(1, 2)
        name = election.LeaderRequest(name=b"e")
        assert await scene.election("Leader", name) == Status(2, "election: no leader")
        won = await scene.campaign(1, b"one")
        assert won.leader == election.LeaderKey(name=b"e", key=b"e/1", rev=2, lease=1)
        assert won.header.revision == 2
        again = await scene.campaign(1, b"uno")
        assert (again.leader.rev, again.header.revision) == (2, 2), "another value is proclaimed"
        told = await scene.election("Leader", name)
        assert told.kv == kv.KeyValue(key=b"e/1", create_revision=2, mod_revision=3, version=2, value=b"uno", lease=1)
        second, _ = scene.begin_campaign(2, b"two")
        await scene.turns()
        assert not second.ended
        proclaimed = await scene.election("Proclaim", election.ProclaimRequest(leader=won.leader, value=b"eins"))
        assert proclaimed.header.revision == 5
        assert (await scene.election("Leader", name)).kv.value == b"eins"
        assert (await scene.election("Resign", election.ResignRequest(leader=won.leader))).header.revision == 6
        await scene.until(lambda: bool(second.ended))
        assert second.replies[0].leader.key == b"e/2"  # type: ignore[union-attr]
        lost = await scene.election("Proclaim", election.ProclaimRequest(leader=won.leader, value=b"x"))
        assert lost == Status(2, "election: not leader")
        resigned = await scene.election("Resign", election.ResignRequest(leader=won.leader))
        assert resigned.header.revision == 6, "not elected any more: nothing to do"
        missing = Status(2, '"leader" field must be provided')
        assert await scene.election("Proclaim", election.ProclaimRequest(value=b"x")) == missing
        assert await scene.election("Resign", election.ResignRequest()) == missing

    on_both(scenario)


def test_a_campaign_whose_caller_or_lease_is_gone_is_over(on_both: Told) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.grant(1, 2, 3)
        await scene.campaign(1, b"one")
        second, receiver = scene.begin_campaign(2, b"two")
        third, _ = scene.begin_campaign(3, b"three")
        await scene.turns()
        receiver.on_gone()
        await scene.turns()
        await scene.until(lambda: not scene.house.chores)
        assert await scene.keys() == [b"e/1", b"e/3"]
        await scene.revoke(3)
        await scene.until(lambda: bool(third.ended))
        assert third.ended == [Status(2, "election: not leader")]
        assert not second.ended

    on_both(scenario)


def test_who_observes_hears_of_everyone_elected_and_of_all_they_say(on_both: Told) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.grant(1, 2)
        observer, receiver = scene.begin("/v3electionpb.Election/Observe", election.LeaderRequest(name=b"e"))
        late: HandCall | None = None
        await scene.turns()
        assert not observer.replies, "there is nobody yet"
        won = (await scene.campaign(1, b"one")).leader
        following, _ = scene.begin_campaign(2, b"four")  # its key is older than the last words of the first
        await scene.turns()
        for value in (b"two", b"three"):
            await scene.election("Proclaim", election.ProclaimRequest(leader=won, value=value))
        await scene.turns()
        late, _ = scene.begin("/v3electionpb.Election/Observe", election.LeaderRequest(name=b"e"))
        await scene.until(lambda: late is not None and len(late.replies) == 1)
        await scene.house.ask([PUT, 0, b"e2/9", b"not of this election", 0, 0])
        scene.house.service.watching.send_away(NoQuorum())
        await scene.election("Resign", election.ResignRequest(leader=won))
        await scene.until(lambda: bool(following.ended))
        await scene.until(lambda: len(observer.replies) == 4)
        assert said(observer) == [(b"e/1", b"one"), (b"e/1", b"two"), (b"e/1", b"three"), (b"e/2", b"four")]
        assert said(late) == [(b"e/1", b"three"), (b"e/2", b"four")]
        revisions = [reply.header.revision for reply in observer.replies]  # type: ignore[union-attr]
        assert revisions == sorted(revisions)
        await scene.until(lambda: scene.watches.count == 2)  # both have begun anew
        receiver.on_gone()
        await scene.turns()
        assert not observer.ended
        assert scene.watches.count == 1, "that of the other observer"

    on_both(scenario)


def said(call: HandCall) -> list[tuple[bytes, bytes]]:
    return [(reply.kv.key, reply.kv.value) for reply in call.replies]  # type: ignore[union-attr]
