"""etcd's Maintenance service on members of one process; backups and defragmentation as small stand-ins."""

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import pytest

from raftkv.daemon.etcd.house import House
from raftkv.errors import Corruption, Overloaded
from raftkv.etcd.statuses import Status
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.store import backup
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.wire.commands import COMPACT, OK, PUT, Answer, failure
from tests.unit.conftest import Run
from tests.unit.daemon.etcd_calls import CLUSTER_ID, HandHouse, opened, unary
from tests.unit.store.stores import LIMITS, Driver, put

SERVICE = "/etcdserverpb.Maintenance/"
GET, ACTIVATE, DEACTIVATE = rpc.AlarmRequest.GET, rpc.AlarmRequest.ACTIVATE, rpc.AlarmRequest.DEACTIVATE
VALIDATE, ENABLE, CANCEL = range(3)


async def ask(house: House, name: str, request: Any) -> Any:
    return await unary(house, SERVICE + name, request)


async def alarm(house: House, action: int, member: int = 0, kind: int = 0) -> Any:
    answer = await ask(house, "Alarm", rpc.AlarmRequest(action=action, memberID=member, alarm=kind))  # type: ignore[arg-type]
    return answer if isinstance(answer, Status) else [(one.memberID, one.alarm) for one in answer.alarms]


def test_the_status_is_told_by_every_member_itself(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse(size=3)
        hand.cluster.pass_time(500)
        follower = hand.cluster.followers()[0]
        told = await ask(hand.of(follower), "Status", rpc.StatusRequest())
        assert told.header.cluster_id == CLUSTER_ID
        assert told.header.member_id == follower.raft.node_id
        assert told.leader == hand.leader.raft.node_id
        assert told.raftTerm == told.header.raft_term == hand.leader.raft.term
        assert told.raftIndex >= told.raftAppliedIndex > 0
        assert (told.version[:4], told.storageVersion[:4]) == ("3.5.", "3.5.")
        assert (told.dbSize, told.dbSizeInUse, told.dbSizeQuota) == (4096, 2048, 1 << 30)
        assert not told.errors

    run(scenario())


@pytest.mark.parametrize("through_leader", [True, False])
def test_alarms_by_hand(run: Run, through_leader: bool) -> None:
    async def scenario() -> None:
        hand = HandHouse(size=3)
        house = hand.house if through_leader else hand.of(hand.cluster.followers()[0])
        assert await alarm(house, GET) == []
        assert await alarm(house, ACTIVATE, 5, rpc.NOSPACE) == [(5, rpc.NOSPACE)]
        assert await alarm(house, ACTIVATE, 5, rpc.NOSPACE) == [(5, rpc.NOSPACE)]
        assert await alarm(house, ACTIVATE, 2**64 - 1, rpc.CORRUPT) == [(2**64 - 1, rpc.CORRUPT)]
        assert await alarm(house, GET) == [(5, rpc.NOSPACE), (2**64 - 1, rpc.CORRUPT)]
        assert await alarm(house, GET, 0, rpc.CORRUPT) == [(2**64 - 1, rpc.CORRUPT)]
        status = await ask(house, "Status", rpc.StatusRequest())
        assert list(status.errors) == ["memberID:5 alarm:NOSPACE ", f"memberID:{2**64 - 1} alarm:CORRUPT "]
        assert await alarm(house, DEACTIVATE, 5, rpc.CORRUPT) == []
        assert await alarm(house, ACTIVATE, 7, rpc.NONE) == []
        assert await alarm(house, DEACTIVATE, 5, rpc.NOSPACE) == [(5, rpc.NOSPACE)]
        assert await alarm(house, DEACTIVATE, 2**64 - 1, rpc.CORRUPT) == [(2**64 - 1, rpc.CORRUPT)]
        assert await alarm(house, GET) == []
        # Each of these ends the process of an etcd 3.5.1.
        assert (await alarm(house, ACTIVATE, 7, 9)).number == 3
        assert (await alarm(house, 7, 7, rpc.NOSPACE)).number == 3

    run(scenario())


async def downgrade(house: House, action: int, version: str = "") -> Any:
    return await ask(house, "Downgrade", rpc.DowngradeRequest(action=action, version=version))  # type: ignore[arg-type]


def test_a_downgrade_is_announced_and_taken_back(run: Run) -> None:
    async def scenario() -> None:
        house = HandHouse().house
        none = Status(9, "etcdserver: no inflight downgrade job")
        runs = Status(9, "etcdserver: cluster has a downgrade job in progress")
        assert (await downgrade(house, VALIDATE, "3.4")).version == "3.5.0"
        assert await downgrade(house, VALIDATE, "x") == Status(3, "etcdserver: wrong downgrade target version format")
        assert await downgrade(house, ENABLE, "3.9") == Status(3, "etcdserver: invalid downgrade target version")
        assert await downgrade(house, CANCEL) == none
        assert (await downgrade(house, ENABLE, "3.4")).version == "3.5.0"
        assert await downgrade(house, ENABLE, "3.4") == runs
        assert await downgrade(house, VALIDATE, "3.4") == runs
        status = await ask(house, "Status", rpc.StatusRequest())
        assert status.downgradeInfo == rpc.DowngradeInfo(enabled=True, targetVersion="3.4.0")
        assert (await downgrade(house, CANCEL)).version == "3.5.0"
        assert await downgrade(house, CANCEL) == none
        assert (await downgrade(house, 7, "3.4")).number == 3

    run(scenario())


def test_hashes_of_members_are_equal(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse(size=3)
        for number in range(20):
            await hand.house.ask([PUT, 0, b"k%d" % (number % 5), b"v%d" % number, 0, 0])
        await hand.house.ask([COMPACT, 0, 10])
        hand.cluster.pass_time(500)
        houses = [hand.of(member) for member in hand.cluster.members.values()]
        for revision in (0, 10, 15):
            told = [await ask(house, "HashKV", rpc.HashKVRequest(revision=revision)) for house in houses]
            assert len({one.hash for one in told}) == 1
            assert {(one.compact_revision, one.hash_revision) for one in told} == {(10, revision or 21)}
            assert {one.header.revision for one in told} == {21}
        assert len({(await ask(house, "Hash", rpc.HashRequest())).hash for house in houses}) == 1
        refused = await ask(houses[0], "HashKV", rpc.HashKVRequest(revision=9))
        assert refused == Status(11, "etcdserver: mvcc: required revision has been compacted")
        refused = await ask(houses[0], "HashKV", rpc.HashKVRequest(revision=99))
        assert refused == Status(11, "etcdserver: mvcc: required revision is a future revision")

    run(scenario())


def test_the_office_is_moved_by_the_leader_only_and_to_a_voter(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse(size=3)
        hand.cluster.pass_time(2_000)
        moved: list[str] = []

        def move_leader(target: str, done: Any) -> None:
            moved.append(target)
            done([OK, {"leader": None}])

        control: Any = hand.house.member
        control.move_leader = move_leader
        follower = hand.cluster.followers()[0]
        request = rpc.MoveLeaderRequest(targetID=follower.raft.node_id)
        assert await ask(hand.of(follower), "MoveLeader", request) == Status(9, "etcdserver: not leader")
        nobody = rpc.MoveLeaderRequest(targetID=99)
        assert await ask(hand.house, "MoveLeader", nobody) == Status(9, "etcdserver: bad leader transferee")
        assert await ask(hand.house, "MoveLeader", request) == rpc.MoveLeaderResponse()
        assert moved == [str(follower.raft.node_id)]

    run(scenario())


def test_a_defragmentation_is_waited_for(run: Run) -> None:
    async def scenario() -> None:
        hand = HandHouse()

        class Defragmentation:
            answer: ClassVar[Answer] = [OK, {}]

            def start(self, done: Any) -> None:
                asyncio.get_running_loop().call_soon(done, self.answer)

        control: Any = hand.house.member
        control.defragmentation = Defragmentation()
        assert await ask(hand.house, "Defragment", rpc.DefragmentRequest()) == rpc.DefragmentResponse()
        Defragmentation.answer = failure(Overloaded("writes came faster"))
        assert await ask(hand.house, "Defragment", rpc.DefragmentRequest()) == Status(
            8, "etcdserver: too many requests"
        )

    run(scenario())


class FileBackups:
    """Backups of one file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.open_ids: set[int] = set()

    def open(self, done: Any) -> None:
        self.open_ids.add(9)
        done([OK, {"id": 9, "size_bytes": len(self.data)}])

    def read(self, backup_id: int, offset: int, size: int, done: Any) -> None:
        done([OK, self.data[offset : offset + size]])

    def close(self, backup_id: int) -> None:
        self.open_ids.discard(backup_id)


@pytest.fixture
def store_file(tmp_path: Path) -> Path:
    path = tmp_path / "store.mdb"
    driver = Driver(LmdbKeyspace.open(str(path), LIMITS))
    driver.apply(*(put(b"k%d" % number, b"v" * 1000) for number in range(500)))
    driver.commit()
    copy = tmp_path / "copy.mdb"
    driver.store.keyspace.copy(str(copy))
    driver.store.close()
    return copy


def test_a_snapshot_is_a_backup_that_raftkv_takes(run: Run, store_file: Path, tmp_path: Path) -> None:
    backups = FileBackups(store_file.read_bytes())
    saved = tmp_path / "saved.db"

    async def scenario() -> None:
        hand = HandHouse()
        control: Any = hand.house.member
        control.backups = backups
        call, _ = opened(hand.house, f"{SERVICE}Snapshot", rpc.SnapshotRequest())
        while not call.ended:
            await asyncio.sleep(0)
        assert call.ended == [None]
        assert not backups.open_ids
        saved.write_bytes(b"".join(message.blob for message in call.replies if not isinstance(message, bytes)))  # type: ignore[attr-defined]

    run(scenario())
    size_bytes, _ = backup.verify(str(saved))
    assert size_bytes == len(backups.data)
    assert backup.inspect(str(saved)).revision == 501
    backup.extract(str(saved), str(tmp_path / "extracted"))
    assert (tmp_path / "extracted").read_bytes() == backups.data
    damage_is_seen(saved)


def damage_is_seen(saved: Path) -> None:
    good = saved.read_bytes()
    for at in (100, len(good) - 200, len(good) - 70, len(good) - 60, len(good) - 10):
        bad = bytearray(good)
        bad[at] ^= 1
        saved.write_bytes(bad)
        with pytest.raises(Corruption):
            backup.verify(str(saved))
    for cut in (good[:-1], good[:-32], good[:-512], good[:40], b"", good[4096:]):
        saved.write_bytes(cut)
        with pytest.raises(Corruption):
            backup.verify(str(saved))


def test_a_snapshot_waits_for_a_slow_client_and_is_let_go_of_with_it(run: Run, store_file: Path) -> None:
    backups = FileBackups(store_file.read_bytes())

    async def scenario() -> None:
        hand = HandHouse()
        control: Any = hand.house.member
        control.backups = backups
        call, receiver = opened(hand.house, f"{SERVICE}Snapshot", rpc.SnapshotRequest())
        call.takes_messages = False
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(call.replies) == 1
        assert backups.open_ids == {9}
        receiver.on_gone()
        while backups.open_ids:
            await asyncio.sleep(0)
        assert not call.ended

    run(scenario())
