"""Watches on a cluster: on every member, behind a barrier, and sent away by a member that is cut off."""

from typing import Any

import pytest

from raftkv.errors import RaftKVError
from raftkv.limits import Limits
from raftkv.replica.watching import Waiter
from raftkv.wire.commands import Answer
from raftkv.wire.protocol import WAIT, WATCH_CREATE
from raftkv.wire.watching import UNTIL_EXISTS
from tests.unit.replica.minicluster import Member, MiniCluster
from tests.unit.replica.origins import RecordingOrigin, put_group
from tests.unit.store.watching import RecordingSink


class Sink(RecordingSink):
    def __init__(self) -> None:
        super().__init__()
        self.created: dict[int, int] = {}

    def on_created(self, tag: int, watcher: Any, revision: int) -> None:
        self.created[tag] = revision


def watch(member: Member, sink: Sink, tag: int = 1, start: int = 0) -> None:
    member.service.watching.open([WATCH_CREATE, b"\0", b"\0", start, 0], sink, tag, 1_000_000)


def write(cluster: MiniCluster, leader: Member, *keys: str) -> None:
    leader.service.submit_writes(put_group(RecordingOrigin(), *keys))
    cluster.settle()


def test_every_member_tells_the_same() -> None:
    cluster = MiniCluster()
    leader = cluster.elect()
    sinks = {node_id: Sink() for node_id in cluster.members}
    for node_id, member in cluster.members.items():
        watch(member, sinks[node_id])
    cluster.settle()
    write(cluster, leader, "a", "b")
    cluster.pass_time(200)
    assert {node_id: sink.keys(1) for node_id, sink in sinks.items()} == {key: [b"a", b"b"] for key in cluster.members}


def test_a_watch_begins_at_a_linearizable_point() -> None:
    """What was acknowledged before is no event of a watch from now on, also on a member that is behind."""
    cluster = MiniCluster()
    leader = cluster.elect()
    follower = cluster.followers()[0]
    cluster.cut.add(follower.node_id)
    write(cluster, leader, "a", "b", "c")
    cluster.cut.clear()
    sink = Sink()
    watch(follower, sink)
    cluster.pass_time(500)
    assert sink.created == {1: leader.storage.revision}
    assert sink.events == {}


def test_a_member_that_is_cut_off_sends_its_watches_and_waits_away() -> None:
    cluster = MiniCluster()
    cluster.elect()
    cluster.pass_time(500)
    follower = cluster.followers()[0]
    sink, answers = Sink(), list[Answer]()
    watch(follower, sink)
    follower.service.watching.wait([WAIT, UNTIL_EXISTS, True, [b"k"], 0], Waiter(answers.append), 1_000_000)
    cluster.settle()
    assert sink.created == {1: 1}
    cluster.cut.add(follower.node_id)
    cluster.pass_time(5_000)
    assert sink.canceled[1].code == "no_quorum"
    assert len(sink.canceled[1].details["members"]) == 3
    assert [answer[1] for answer in answers] == ["no_quorum"]
    refused: list[RaftKVError] = []
    watch(follower, sink, 2)
    refused += [sink.canceled[2]]
    assert refused[0].code == "no_quorum", "a new one is told at once"


def test_after_a_snapshot_a_watch_goes_on_from_history() -> None:
    cluster = MiniCluster(Limits(log_retained_entries_max=1, log_retained_bytes_max=1))
    leader = cluster.elect()
    follower = cluster.followers()[0]
    sink = Sink()
    watch(follower, sink)
    cluster.settle()
    write(cluster, leader, "k0")
    cluster.pass_time(200)
    cluster.cut.add(follower.node_id)
    for number in range(1, 6):
        write(cluster, leader, f"k{number}")
    for member in cluster.members.values():
        if member is not follower:
            member.storage.commit()
            member.replica.compact_log()
    assert leader.raft.log_start_index > follower.raft.last_index
    before = follower.storage.store
    cluster.cut.clear()
    cluster.pass_time(3_000)
    assert follower.storage.store is not before, "a snapshot was taken in"
    assert 1 not in sink.canceled
    assert sink.keys(1) == [b"k0", b"k1", b"k2", b"k3", b"k4", b"k5"]


def test_a_member_that_applies_nothing_sends_its_watches_and_waits_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its store takes no more, for a full disk perhaps: it hears the leader, and would keep its watches waiting for ever."""
    cluster = MiniCluster()
    leader = cluster.elect()
    cluster.pass_time(500)
    follower, other = cluster.followers()
    sink, elsewhere, answers = Sink(), Sink(), list[Answer]()
    watch(follower, sink)
    watch(other, elsewhere)
    follower.service.watching.wait([WAIT, UNTIL_EXISTS, True, [b"k"], 0], Waiter(answers.append), 1_000_000)
    cluster.settle()
    cluster.pass_time(20_000)
    assert not sink.canceled, "nothing happens, and it could confirm that"
    stuck = follower.storage
    monkeypatch.setattr(type(stuck), "has_room", property(lambda self: self is not stuck))
    write(cluster, leader, "a")
    cluster.pass_time(12_000)
    assert stuck.revision < leader.storage.revision
    assert sink.canceled[1].code == "deadline_exceeded"
    assert [answer[1] for answer in answers] == ["deadline_exceeded"]
    assert not elsewhere.canceled
    assert elsewhere.keys(1) == [b"a"]


def test_one_that_waits_for_ever_does_not_keep_others_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its barrier is not confirmed for as long as it is willing to wait."""
    cluster = MiniCluster()
    leader = cluster.elect()
    cluster.pass_time(500)
    stuck = cluster.followers()[0]
    monkeypatch.setattr(type(stuck.storage), "has_room", property(lambda self: self is not stuck.storage))
    write(cluster, leader, "a")
    answers, sink = list[Answer](), Sink()
    stuck.service.watching.wait([WAIT, UNTIL_EXISTS, True, [b"k"], 0], Waiter(answers.append), 1 << 40)
    watch(stuck, sink)
    cluster.pass_time(12_000)
    assert [answer[1] for answer in answers] == ["deadline_exceeded"]
    assert sink.canceled[1].code == "deadline_exceeded"
