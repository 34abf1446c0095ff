"""Automatic compaction: by age of replicated time, by number, and by a leader that has seen the past as a follower."""

from raftkv.limits import Limits
from raftkv.replica.compaction import AutoCompaction
from tests.unit.replica.minicluster import MiniCluster
from tests.unit.replica.origins import RecordingOrigin, put_group


def test_what_is_old_enough_goes() -> None:
    history = AutoCompaction(age_ms_max=60_000, revisions_max=1_000_000)
    history.look(0, 10)
    history.look(30_000, 20)
    assert history.wanted(59_999, 25, -1) == 0
    assert history.wanted(60_000, 25, -1) == 10
    assert history.wanted(60_000, 25, 10) == 0, "that was done"
    assert history.wanted(90_000, 25, 10) == 20


def test_an_empty_store_is_not_compacted() -> None:
    history = AutoCompaction(age_ms_max=1_000, revisions_max=10)
    history.look(0, 1)
    assert history.wanted(1_000_000, 1, -1) == 0


def test_too_many_revisions_go_whatever_their_age_but_not_one_by_one() -> None:
    history = AutoCompaction(age_ms_max=60_000, revisions_max=100)
    assert history.wanted(0, 111, -1) == 0
    assert history.wanted(0, 112, -1) == 12
    assert history.wanted(0, 122, 12) == 0
    assert history.wanted(0, 123, 12) == 23


def test_samples_are_bounded_and_cover_the_age() -> None:
    history = AutoCompaction(age_ms_max=3_200_000, revisions_max=10**9)
    for second in range(10_000):
        history.look(second * 1000, second + 2)
    wanted = history.wanted(9_999_000, 10_001, -1)
    assert 9_999 - 3_200 - 110 <= wanted <= 9_999 - 3_200 + 2


def test_the_leader_compacts_by_itself_and_so_does_the_next_one() -> None:
    cluster = MiniCluster(Limits(history_ms_max=10_000, history_revisions_max=10**6))
    leader = cluster.elect()
    for _ in range(5):
        leader.service.submit_writes(put_group(RecordingOrigin(), "k"))
    cluster.settle()
    reached = leader.storage.revision
    cluster.pass_time(12_000)
    assert all(member.storage.compact_revision == reached for member in cluster.members.values())
    leader.service.submit_writes(put_group(RecordingOrigin(), "k"))
    cluster.settle()
    cluster.pass_time(5_000)
    cluster.cut.add(leader.node_id)
    successor = cluster.elect()
    assert successor is not leader
    cluster.pass_time(12_000)
    assert successor.storage.compact_revision == reached + 1
