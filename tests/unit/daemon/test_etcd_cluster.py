"""etcd's Cluster service on members of one process: asked for on a leader or on a follower."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from raftkv.daemon.etcd.house import House
from raftkv.etcd.statuses import Status
from raftkv.etcdpb import rpc_pb2 as rpc
from tests.unit.conftest import Run
from tests.unit.daemon.etcd_calls import CLUSTER_ID, HandHouse, unary

SERVICE = "/etcdserverpb.Cluster/"
NOT_FOUND = Status(5, "etcdserver: member not found")
INVALID = Status(3, "etcdserver: given member URLs are invalid")
TAKEN = Status(9, "etcdserver: Peer URLs already exists")


class Cluster:
    """Three members, and the house of one of them."""

    def __init__(self, *, through_leader: bool) -> None:
        self.hand = HandHouse(size=3)
        self.hand.cluster.pass_time(2_000)
        member = self.hand.leader if through_leader else self.hand.cluster.followers()[0]
        self.house: House = self.hand.of(member)

    async def add(self, *urls: str, learner: bool = False) -> Any:
        return await unary(self.house, f"{SERVICE}MemberAdd", rpc.MemberAddRequest(peerURLs=urls, isLearner=learner))

    async def remove(self, node_id: int) -> Any:
        return await unary(self.house, f"{SERVICE}MemberRemove", rpc.MemberRemoveRequest(ID=node_id))

    async def update(self, node_id: int, *urls: str) -> Any:
        return await unary(self.house, f"{SERVICE}MemberUpdate", rpc.MemberUpdateRequest(ID=node_id, peerURLs=urls))

    async def promote(self, node_id: int) -> Any:
        return await unary(self.house, f"{SERVICE}MemberPromote", rpc.MemberPromoteRequest(ID=node_id))

    async def members(self, *, linearizable: bool = True) -> Any:
        request = rpc.MemberListRequest(linearizable=linearizable)
        return await unary(self.house, f"{SERVICE}MemberList", request)


@pytest.fixture(params=[True, False], ids=["leader", "follower"])
def on_both(request: pytest.FixtureRequest, run: Run) -> Callable[[Callable[[Cluster], Awaitable[None]]], None]:
    def told(scenario: Callable[[Cluster], Awaitable[None]]) -> None:
        async def main() -> None:
            await scenario(Cluster(through_leader=request.param))

        run(main())

    return told


Told = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def test_the_members_with_their_urls(on_both: Told) -> None:
    async def scenario(cluster: Cluster) -> None:
        told = await cluster.members()
        assert (told.header.cluster_id, told.header.revision) == (CLUSTER_ID, 0)
        assert told.header.member_id == cluster.house.origin().member_id
        assert list(told.members) == [
            rpc.Member(ID=i, name=f"n{i}", peerURLs=[f"http://n{i}:2380"], clientURLs=[f"http://n{i}:2379"])
            for i in (1, 2, 3)
        ]
        assert await cluster.members(linearizable=False) == told

    on_both(scenario)


def test_a_place_is_made_for_a_url(on_both: Told) -> None:
    async def scenario(cluster: Cluster) -> None:
        added = await cluster.add("http://n4:2380")
        assert added.header.revision == 0
        assert added.member == rpc.Member(ID=added.member.ID, peerURLs=["http://n4:2380"])
        assert [member.ID for member in added.members] == sorted([1, 2, 3, added.member.ID])
        assert not added.member.isLearner, "it is on its way to a vote"
        cluster.hand.cluster.pass_time(200)
        assert (await cluster.members()).members == added.members
        assert await cluster.add("http://n4:2380") == TAKEN
        assert await cluster.add("http://n1:2380") == TAKEN
        removed = await cluster.remove(added.member.ID)
        assert [member.ID for member in removed.members] == [1, 2, 3]
        assert await cluster.remove(added.member.ID) == NOT_FOUND

    on_both(scenario)


def test_one_learner_at_a_time_and_it_waits_for_a_promotion(on_both: Told) -> None:
    async def scenario(cluster: Cluster) -> None:
        added = await cluster.add("http://n4:2380", learner=True)
        assert added.member.isLearner
        assert await cluster.add("http://n5:2380", learner=True) == Status(
            9, "etcdserver: too many learner members in cluster"
        )
        assert await cluster.promote(added.member.ID) == Status(
            9, "etcdserver: can only promote a learner member which is in sync with leader"
        )

    on_both(scenario)


def test_who_has_a_vote_is_not_promoted_and_who_is_not_there_is_not_found(on_both: Told) -> None:
    async def scenario(cluster: Cluster) -> None:
        assert await cluster.promote(2) == Status(9, "etcdserver: can only promote a learner member")
        assert await cluster.promote(9) == NOT_FOUND
        assert await cluster.remove(9) == NOT_FOUND
        assert await cluster.update(9, "http://n9:2380") == NOT_FOUND

    on_both(scenario)


def test_urls_change_and_bad_ones_are_refused(on_both: Told) -> None:
    async def scenario(cluster: Cluster) -> None:
        added = await cluster.add("http://n4:2380")
        moved = await cluster.update(added.member.ID, "https://elsewhere:2380")
        assert [list(one.peerURLs) for one in moved.members if one.ID == added.member.ID] == [["http://elsewhere:2380"]]
        assert await cluster.update(added.member.ID, "http://n1:2380") == TAKEN
        for urls in ([], ["nonsense"], ["http://a:1", "http://b:1"]):
            assert await cluster.update(added.member.ID, *urls) == INVALID
            assert await cluster.add(*urls) == INVALID

    on_both(scenario)


def test_a_leader_that_is_to_go_hands_over_and_the_next_one_is_asked(on_both: Told) -> None:
    async def scenario(cluster: Cluster) -> None:
        leader = cluster.hand.leader.raft.node_id
        removed = await cluster.remove(leader)
        assert [member.ID for member in removed.members] == sorted({1, 2, 3} - {leader})

    on_both(scenario)


def test_the_last_member_stays(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse()
        hand.cluster.pass_time(2_000)
        refused = await unary(hand.house, f"{SERVICE}MemberRemove", rpc.MemberRemoveRequest(ID=1))
        assert refused == Status(9, "etcdserver: re-configuration failed due to not enough started members")

    run(scenario())
