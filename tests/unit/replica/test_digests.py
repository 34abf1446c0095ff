"""The comparison of running digests: what is reported, what a quorum agrees on, and who is told that it has diverged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.errors import Diverged
from raftkv.limits import Limits
from raftkv.raft.effects import DigestHeard
from raftkv.raft.messages import Configuration
from raftkv.replica.digests import REPORTS_KEPT_MAX, Digests, Mismatch, roundest
from tests.unit.replica.minicluster import Member, MiniCluster
from tests.unit.replica.origins import RecordingOrigin, put_group

THREE = Configuration(frozenset({1, 2, 3}))
FIVE = Configuration(frozenset({1, 2, 3, 4, 5}))


def right(index: int) -> int:
    """The digest that stores have which did not go astray."""
    return index * 7 + 1


def digests(last: int, *, kept_max: int = 64, first: int = 0, wrong: bool = False) -> Digests:
    made = Digests(kept_max, first, right(first) + wrong)
    for index in range(first + 1, last + 1):
        made.note(index, right(index) + wrong)
    return made


def leading(last: int, *, wrong: bool = False) -> Digests:
    """Of a leader, member 1 in term 1."""
    made = digests(last, wrong=wrong)
    assert made.settle(1, 1, THREE) is None
    return made


def report(source: int, index: int, *, wrong: bool = False) -> DigestHeard:
    return DigestHeard(source, index, right(index) + wrong, agreed=False)


def claim(index: int, *, wrong: bool = False) -> DigestHeard:
    return DigestHeard(2, index, right(index) + wrong, agreed=True)


# What is kept, and what is reported.


@given(st.integers(0, 5_000), st.integers(1, 5_000))
def test_the_roundest_index_is_the_one_with_the_most_zeros(after: int, count: int) -> None:
    found = roundest(after, after + count)
    assert after < found <= after + count
    zeros = [(index & -index, index) for index in range(after + 1, after + count + 1)]
    assert found & -found == max(zeros)[0]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=20, max_size=20))
def test_members_that_are_never_at_the_same_place_report_the_same_indexes(paces: list[tuple[int, int]]) -> None:
    reported: list[set[int]] = [set(), set()]
    members = [digests(0, kept_max=1024), digests(0, kept_max=1024)]
    for steps in paces:
        for member, step, indexes in zip(members, steps, reported, strict=True):
            for index in range(member._last_index + 1, member._last_index + step + 1):
                member.note(index, right(index))
            index, digest = member.next_report()
            assert digest == right(index)
            indexes.add(index)
    passed = min(member._last_index for member in members)
    assert set(range(32, passed + 1, 32)) <= reported[0] & reported[1], "32 is more than any step"


def test_a_store_at_rest_reports_where_it_is() -> None:
    made = digests(11)
    assert made.next_report() == (8, right(8))
    assert made.next_report() == (11, right(11))
    assert made.next_report() == (11, right(11))


def test_only_so_many_are_kept_and_nothing_from_before_a_restart() -> None:
    made = digests(100, kept_max=8)
    assert [index for index in range(110) if made.at(index) is not None] == list(range(93, 101))
    assert made.at(95) == right(95)
    assert made.next_report() == (100, right(100)), "the roundest, 64, is not known any more"
    made.restart(200, right(200))
    made.note(201, right(201))
    assert [index for index in range(210) if made.at(index) is not None] == [200, 201]
    assert made.next_report() == (201, right(201))


def test_entries_are_noted_without_gaps() -> None:
    with pytest.raises(AssertionError, match="entry by entry"):
        digests(5).note(7, 0)


# What a quorum agrees on.


def test_a_quorum_agrees_with_the_leader_in_it() -> None:
    leader = leading(10)
    assert leader.settle(1, 1, THREE) is None, "nobody has said anything"
    leader.hear(report(2, 8))
    assert leader.settle(1, 1, THREE) == (8, right(8))
    leader.hear(report(3, 4))
    assert leader.settle(1, 1, THREE) == (8, right(8)), "an agreement never goes back"
    leader.check()
    assert (leader.agreed_index, leader.mismatches) == (8, {})


def test_two_of_five_are_no_quorum_and_three_have_to_speak_of_one_index() -> None:
    leader = leading(20)
    leader.hear(report(2, 16))
    leader.hear(report(3, 12))
    assert leader.settle(1, 1, FIVE) is None
    leader.hear(report(3, 16))
    assert leader.settle(1, 1, FIVE) == (16, right(16))


def test_both_halves_of_a_joint_configuration_are_needed() -> None:
    joint = Configuration(frozenset({1, 2, 3}), frozenset({4, 5, 6}))
    leader = leading(10)
    for member in (2, 3, 4):
        leader.hear(report(member, 8))
    assert leader.settle(1, 1, joint) is None
    leader.hear(report(5, 8))
    assert leader.settle(1, 1, joint) == (8, right(8))


def test_learners_and_former_members_do_not_count() -> None:
    leader = leading(10)
    leader.hear(report(7, 8))
    leader.hear(report(8, 8, wrong=True))
    assert leader.settle(1, 1, Configuration(frozenset({1, 2, 3}), learners=frozenset({7}))) is None
    assert leader.mismatches == {}, "member 8 is gone, what it has is of no interest"


def test_an_office_begins_with_nothing_heard() -> None:
    leader = leading(10)
    leader.hear(report(2, 8, wrong=True))
    leader.hear(report(3, 8))
    assert leader.settle(2, 1, THREE) is None, "heard in another office"
    assert leader.mismatches == {}


def test_only_so_many_reports_of_a_member_are_kept() -> None:
    leader = leading(60)
    for index in range(1, 40):
        leader.hear(report(2, index))
    assert list(leader._reports[2]) == list(range(40 - REPORTS_KEPT_MAX, 40))


# The verdict.


def test_a_follower_with_another_digest_has_diverged() -> None:
    leader = leading(10)
    leader.hear(report(2, 8))
    leader.hear(report(3, 8, wrong=True))
    assert leader.settle(1, 1, THREE) == (8, right(8))
    leader.check()
    assert leader.mismatches == {3: Mismatch(8, right(8) + 1, right(8))}
    follower = digests(9, wrong=True)
    follower.hear(claim(8))
    with pytest.raises(Diverged) as caught:
        follower.check()
    assert caught.value.details == {"index": 8, "digest": right(8) + 1, "agreed_digest": right(8)}
    for words in (
        "index 8 is 0000003a",
        "quorum is 00000039",
        "remove this member",
        "delete its data directory",
        "add",
    ):
        assert words in caught.value.message


def test_a_leader_that_a_quorum_of_others_contradicts_has_diverged_itself() -> None:
    leader = leading(10, wrong=True)
    leader.hear(report(2, 8))
    assert leader.settle(1, 1, THREE) is None
    leader.check()
    leader.hear(report(3, 8))
    assert leader.settle(1, 1, THREE) == (8, right(8))
    with pytest.raises(Diverged, match="index 8"):
        leader.check()


def test_without_a_quorum_nobody_is_wrong() -> None:
    leader = leading(10)
    leader.hear(report(2, 8, wrong=True))
    assert leader.settle(1, 1, THREE) is None
    leader.check()
    assert leader.mismatches[2].index == 8
    leader.hear(report(2, 9))
    assert leader.mismatches == {}, "it took in a snapshot"


def test_three_different_stores_are_no_verdict() -> None:
    leader = leading(10)
    leader.hear(DigestHeard(2, 8, 1, agreed=False))
    leader.hear(DigestHeard(3, 8, 2, agreed=False))
    assert leader.settle(1, 1, THREE) is None
    leader.check()
    assert len(leader.mismatches) == 2


def test_a_leader_that_has_not_applied_what_others_agree_on_is_judged_later() -> None:
    leader = leading(6, wrong=True)
    for member in (2, 3):
        leader.hear(report(member, 8))
    assert leader.settle(1, 1, THREE) == (8, right(8))
    leader.check()
    for index in (7, 8):
        leader.note(index, right(index) + 1)
    with pytest.raises(Diverged):
        leader.check()


def test_newer_claims_do_not_keep_a_member_that_lags_from_its_verdict() -> None:
    follower = digests(6, wrong=True)
    for index in (8, 9, 10, 11):
        follower.hear(claim(index))
        follower.check()
    for index in (7, 8):
        follower.note(index, right(index) + 1)
    with pytest.raises(Diverged, match="index 8"):
        follower.check()


def test_a_claim_about_what_is_not_known_any_more_is_passed_over() -> None:
    follower = digests(100, kept_max=8)
    follower.hear(claim(50, wrong=True))
    follower.check()
    follower.hear(claim(96))
    follower.check()
    assert follower.agreed_index == 96


# With the real core and store.


def write(cluster: MiniCluster, count: int, leader: Member | None = None) -> None:
    leader = leader or cluster.elect()
    for number in range(count):
        leader.service.submit_writes(put_group(RecordingOrigin(), f"k{number}"))
        cluster.settle()


def go_astray(member: Member) -> None:
    """Its store applies something else than the others' from here on."""
    member.storage.store._digest ^= 0x80


def test_members_that_are_one_know_it_and_go_on() -> None:
    cluster = MiniCluster()
    leader = cluster.elect()
    for _ in range(30):
        write(cluster, 3, leader)
        cluster.pass_time(50)
    cluster.pass_time(500)
    assert len(cluster.members) == 3
    agreed = {member.replica.digests.agreed_index for member in cluster.members.values()}
    assert agreed == {leader.storage.applied_index}


@pytest.mark.parametrize("size", [3, 5])
def test_a_follower_that_goes_astray_stops_and_no_one_else(size: int) -> None:
    cluster = MiniCluster(size=size)
    leader = cluster.elect()
    write(cluster, 5, leader)
    astray = cluster.followers()[0]
    go_astray(astray)
    for _ in range(20):
        write(cluster, 2, leader)
        cluster.pass_time(25)
    cluster.pass_time(500)
    assert astray.diverged is not None
    assert astray.node_id not in cluster.members
    assert len(cluster.members) == size - 1
    assert leader.raft.is_leader
    assert leader.replica.digests.mismatches.keys() == {astray.node_id}


def test_a_leader_that_goes_astray_stops_and_another_one_leads() -> None:
    cluster = MiniCluster()
    astray = cluster.elect()
    write(cluster, 5, astray)
    go_astray(astray)
    write(cluster, 3, astray)
    cluster.pass_time(500)
    assert astray.diverged is not None
    successor = cluster.elect()
    write(cluster, 3, successor)
    cluster.pass_time(500)
    assert len(cluster.members) == 2
    assert successor.replica.digests.agreed_index == successor.storage.applied_index


def test_two_of_three_that_differ_go_on_until_the_third_one_is_heard() -> None:
    cluster = MiniCluster()
    astray = cluster.elect()
    other, away = cluster.followers()
    cluster.cut.add(away.node_id)
    write(cluster, 3, astray)
    go_astray(astray)
    write(cluster, 3, astray)
    cluster.pass_time(500)
    assert len(cluster.members) == 3
    assert astray.replica.digests.mismatches.keys() == {other.node_id}
    cluster.cut.clear()
    cluster.pass_time(3_000)
    assert astray.diverged is not None
    assert cluster.members.keys() == {other.node_id, away.node_id}


def test_a_member_that_takes_in_a_snapshot_is_judged_by_the_new_store_alone() -> None:
    cluster = MiniCluster(Limits(log_retained_entries_max=3))
    leader = cluster.elect()
    away = cluster.followers()[0]
    write(cluster, 5, leader)
    cluster.cut.add(away.node_id)
    go_astray(away)
    write(cluster, 30, leader)
    for member in cluster.members.values():
        member.storage.commit()
        member.replica.compact_log()
    cluster.cut.clear()
    cluster.pass_time(4_000)
    write(cluster, 3, cluster.elect())
    cluster.pass_time(500)
    assert away.diverged is None
    assert away.replica.digests.agreed_index == away.storage.applied_index > 30
