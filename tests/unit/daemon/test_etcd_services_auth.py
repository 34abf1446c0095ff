"""etcd's services while authentication is on: root's, everybody's, and what is judged by the keys that it is about."""

from typing import Any

import pytest

from raftkv.daemon.etcd.identity import ANYBODY, Caller
from raftkv.etcd.statuses import Status
from raftkv.etcdpb import election_pb2 as election
from raftkv.etcdpb import lock_pb2 as lock
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import LEASE_GRANT
from raftkv.wire.passwords import hash_password
from raftkv.wire.users import AUTH_ENABLE, READWRITE, ROLE_ADD, ROLE_GRANT_PERMISSION, USER_ADD, USER_GRANT_ROLE
from tests.unit.conftest import Run
from tests.unit.daemon.etcd_calls import HandHouse, unary

CLUSTER, MAINTENANCE = "/etcdserverpb.Cluster/", "/etcdserverpb.Maintenance/"
DENIED = Status(7, "etcdserver: permission denied")
NOBODY = Status(3, "etcdserver: user name is empty")
ALARM = rpc.AlarmRequest

ROOTS: list[tuple[str, Any]] = [
    (f"{CLUSTER}MemberAdd", rpc.MemberAddRequest(peerURLs=["http://n4:2380"])),
    (f"{CLUSTER}MemberAdd", rpc.MemberAddRequest(peerURLs=["http://n5:2380"], isLearner=True)),
    (f"{CLUSTER}MemberUpdate", rpc.MemberUpdateRequest(ID=2, peerURLs=["http://n9:2380"])),
    (f"{CLUSTER}MemberPromote", rpc.MemberPromoteRequest(ID=9)),
    (f"{CLUSTER}MemberRemove", rpc.MemberRemoveRequest(ID=9)),
    (f"{MAINTENANCE}Alarm", ALARM(action=ALARM.ACTIVATE, memberID=1, alarm=rpc.CORRUPT)),
    (f"{MAINTENANCE}Alarm", ALARM(action=ALARM.DEACTIVATE, memberID=1, alarm=rpc.CORRUPT)),
    (f"{MAINTENANCE}Downgrade", rpc.DowngradeRequest(version="3.4")),
    (f"{MAINTENANCE}Hash", rpc.HashRequest()),
    (f"{MAINTENANCE}HashKV", rpc.HashKVRequest()),
    (f"{MAINTENANCE}MoveLeader", rpc.MoveLeaderRequest(targetID=99)),
    (f"{MAINTENANCE}Defragment", rpc.DefragmentRequest()),
    (f"{MAINTENANCE}Snapshot", rpc.SnapshotRequest()),
]
EVERYBODYS: list[tuple[str, Any]] = [
    (f"{CLUSTER}MemberList", rpc.MemberListRequest(linearizable=True)),
    (f"{MAINTENANCE}Status", rpc.StatusRequest()),
    (f"{MAINTENANCE}Alarm", ALARM()),
]


class Users:
    """Three members that ann, who has what is under a/, and root may ask; through a follower."""

    def __init__(self) -> None:
        self.hand = HandHouse(size=3)
        self.hand.cluster.pass_time(1_000)
        self.house = self.hand.of(self.hand.cluster.followers()[0])
        self.root = self.ann = ANYBODY

    async def begin(self) -> None:
        password = hash_password("secret", b"salt-of-16-bytes")
        for command in (
            [USER_ADD, 0, "root", password, False],
            [USER_GRANT_ROLE, 0, "root", "root"],
            [ROLE_ADD, 0, "a"],
            [ROLE_GRANT_PERMISSION, 0, "a", READWRITE, b"a/", b"a0"],
            [USER_ADD, 0, "ann", password, False],
            [USER_GRANT_ROLE, 0, "ann", "a"],
            [AUTH_ENABLE, 0],
        ):
            await self.house.ask(command)
        self.hand.cluster.pass_time(500)
        revision = self.hand.leader.storage.store.auth.revision
        self.root, self.ann = Caller("root", revision), Caller("ann", revision)

    async def ask(self, path: str, request: Any, caller: Caller) -> Any:
        return await unary(self.house, path, request, caller)


@pytest.mark.parametrize(("path", "request_"), ROOTS, ids=[path.rpartition("/")[2] for path, _ in ROOTS])
def test_who_changes_the_cluster_or_sees_everything_is_root(run: Run, path: str, request_: Any) -> None:
    async def scenario() -> None:
        users = Users()
        await users.begin()
        assert await users.ask(path, request_, users.ann) == DENIED
        assert await users.ask(path, request_, ANYBODY) == NOBODY
        if path.rpartition("/")[2] not in ("Defragment", "Snapshot"):  # these need a store on disk
            assert await users.ask(path, request_, users.root) not in (DENIED, NOBODY)

    run(scenario())


@pytest.mark.parametrize(("path", "request_"), EVERYBODYS, ids=[path.rpartition("/")[2] for path, _ in EVERYBODYS])
def test_what_says_how_things_are_is_for_whoever_is_logged_in(run: Run, path: str, request_: Any) -> None:
    async def scenario() -> None:
        users = Users()
        await users.begin()
        assert not isinstance(await users.ask(path, request_, users.ann), Status)
        assert await users.ask(path, request_, ANYBODY) == NOBODY

    run(scenario())


def test_locks_and_elections_are_judged_by_their_keys(run: Run) -> None:
    async def scenario() -> None:
        users = Users()
        await users.begin()
        await users.house.ask([LEASE_GRANT, 0, 9, 60_000], users.ann)
        denied = Status(2, "etcdserver: permission denied")
        path = "/v3lockpb.Lock/Lock"
        assert (await users.ask(path, lock.LockRequest(name=b"a/l", lease=9), users.ann)).key == b"a/l/9"
        assert await users.ask(path, lock.LockRequest(name=b"b/l", lease=9), users.ann) == denied
        assert await users.ask("/v3lockpb.Lock/Unlock", lock.UnlockRequest(key=b"b/l/9"), users.ann) == denied
        path = "/v3electionpb.Election/"
        campaign = election.CampaignRequest(name=b"a/e", lease=9, value=b"v")
        assert (await users.ask(f"{path}Campaign", campaign, users.ann)).leader.key == b"a/e/9"
        foreign = election.LeaderRequest(name=b"b/e")
        assert await users.ask(f"{path}Leader", foreign, users.ann) == denied
        assert await users.ask(f"{path}Observe", foreign, users.ann) == denied
        assert await users.ask(f"{path}Leader", foreign, ANYBODY) == Status(2, "etcdserver: user name is empty")

    run(scenario())
