"""Membership as use-cases, on three members in one process: records, learners, promotion, hand-over, refusals, lost offices."""

from collections.abc import Sequence
from typing import Any

import pytest

from raftkv.errors import InvalidRequest, RaftKVError
from raftkv.limits import Limits
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.membership import Newcomer, Request, read_request
from raftkv.wire.commands import OK, Answer, error_of, failure
from raftkv.wire.protocol import CHANGE_MEMBERS

from .minicluster import Member, MiniCluster

N4 = Newcomer("n4", "n4:2380", True, None)


def led(cluster: MiniCluster) -> Member:
    """The leader, once everybody is known to the log."""
    leader = cluster.elect()
    cluster.pass_time(2_000)
    return leader


def ask(cluster: MiniCluster, member: Member, timeout_ms: int = 5_000, **request: Any) -> list[Answer]:
    """The answers, filled in as they come."""
    answers: list[Answer] = []
    member.service.change_members(Request(**request), answers.append, timeout_ms)
    cluster.settle()
    return answers


def code_of(answers: list[Answer]) -> str:
    (answer,) = answers
    return error_of(answer).code


def test_a_new_member_is_recorded_everywhere_and_learns() -> None:
    cluster = MiniCluster()
    leader = led(cluster)
    ((status, result),) = ask(cluster, leader, add=(N4,))
    assert status == OK
    node_id = result["ids"]["n4"]
    assert [member["name"] for member in result["members"] if member["id"] == node_id] == ["n4"]
    cluster.pass_time(200)
    for member in cluster.members.values():
        assert node_id in member.raft.configuration.learners
        assert {"n4"} < {record["name"] for record in member.storage.members()}
    again = ask(cluster, leader, add=(N4,))
    assert again[0][1]["ids"]["n4"] == node_id, "asked again, it is the same member"


def test_a_follower_sends_the_asker_to_the_leader() -> None:
    cluster = MiniCluster()
    led(cluster)
    assert code_of(ask(cluster, cluster.followers()[0], add=(N4,))) == "not_leader"


def test_a_learner_that_wants_a_vote_gets_it_when_it_has_caught_up() -> None:
    cluster = MiniCluster(size=4)
    leader = led(cluster)
    learner = next(member for member in cluster.followers())
    name = f"n{learner.node_id}"
    assert ask(cluster, leader, demote=(name,))[0][0] == OK
    assert learner.node_id in leader.raft.configuration.learners
    cluster.pass_time(2_000)
    assert learner.node_id in leader.raft.configuration.learners, "it does not want one by itself"
    add = Newcomer(name, f"{name}:2380", False, learner.node_id)
    assert ask(cluster, leader, add=(add,))[0][0] == OK
    cluster.pass_time(2_000)
    assert learner.node_id in leader.raft.configuration.voters


def test_a_removed_member_is_gone_for_good() -> None:
    cluster = MiniCluster()
    leader = led(cluster)
    gone = cluster.followers()[0]
    name = f"n{gone.node_id}"
    assert ask(cluster, leader, remove=(name,))[0][0] == OK
    assert gone.node_id in leader.storage.store.removed_members()
    assert code_of(ask(cluster, leader, remove=(name,))) == "member_not_found"


def test_what_was_only_announced_is_forgotten_without_a_configuration() -> None:
    cluster = MiniCluster()
    leader = led(cluster)
    before = leader.raft.configuration_index
    ask(cluster, leader, add=(N4,))
    assert leader.raft.configuration_index > before
    assert ask(cluster, leader, remove=("n4",))[0][0] == OK
    assert not leader.raft.configuration.learners


def test_a_leader_that_is_to_go_hands_over_and_sends_the_asker_on() -> None:
    cluster = MiniCluster()
    leader = led(cluster)
    answers = ask(cluster, leader, remove=(f"n{leader.node_id}",))
    assert code_of(answers) == "not_leader"
    following = cluster.elect()
    assert following is not leader
    assert ask(cluster, following, remove=(f"n{leader.node_id}",))[0][0] == OK
    assert following.raft.configuration.voters == {1, 2, 3} - {leader.node_id}


def test_a_leader_that_nobody_takes_over_from_stays_and_says_so() -> None:
    cluster = MiniCluster()
    leader = led(cluster)
    target = leader.raft.configuration.voters - {leader.node_id}
    answers: list[Answer] = []
    request = Request(remove=(f"n{leader.node_id}",))
    leader.service.change_members(request, answers.append, 60_000)
    cluster.cut = {leader.raft.transfer_target or 0}
    assert cluster.cut < target
    cluster.pass_time(1_900)
    cluster.cut.clear()
    assert code_of(answers) in ("membership_busy", "not_leader")
    assert leader.node_id in leader.raft.configuration.voters


def test_a_look_between_the_loss_of_the_office_and_the_word_of_it_refuses_nothing() -> None:
    """The message that ends the office comes first, the word of it goes out at the end of the turn: a sweep in between saw no transfer any more."""
    cluster = MiniCluster()
    leader = led(cluster)
    answers: list[Answer] = []
    leader.service.change_members(Request(remove=(f"n{leader.node_id}",)), answers.append, 5_000)
    cluster.settle(lambda: not leader.raft.is_leader)
    assert not leader.raft.is_leader
    leader.service.tick(cluster.now_ms + 1_000)
    assert answers == []
    cluster.settle()
    assert code_of(answers) == "not_leader"


def test_a_member_alone_cannot_go() -> None:
    cluster = MiniCluster(size=1)
    leader = led(cluster)
    assert code_of(ask(cluster, leader, remove=("n1",))) == "quorum_would_be_lost"


def test_one_request_at_a_time() -> None:
    cluster = MiniCluster()
    leader = led(cluster)
    first: list[Answer] = []
    leader.service.change_members(Request(add=(N4,)), first.append, 5_000)
    assert code_of(ask(cluster, leader, add=(Newcomer("n5", "n5:2380", True, None),))) == "membership_busy"
    assert first[0][0] == OK


def test_a_request_that_its_leader_did_not_survive_has_an_unknown_outcome() -> None:
    cluster = MiniCluster()
    leader = led(cluster)
    cluster.cut = {leader.node_id}
    answers: list[Answer] = []
    leader.service.change_members(Request(add=(N4,)), answers.append, 60_000)
    cluster.pass_time(3_000)
    error = error_of(answers[0])
    assert error.may_have_happened
    assert len(answers) == 1


def test_a_request_that_takes_too_long_ends_with_an_unknown_outcome() -> None:
    cluster = MiniCluster()
    leader = led(cluster)
    for follower in cluster.followers():
        follower.journal.automatic = False
    answers: list[Answer] = []
    leader.service.change_members(Request(remove=(f"n{cluster.followers()[0].node_id}",)), answers.append, 1_000)
    cluster.pass_time(2_000)
    assert code_of(answers) == "outcome_unknown"


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        ({"remove": ("n9",)}, "member_not_found", "there is no member 'n9'"),
        ({"promote": ("n1",)}, "not_a_learner", "member n1 has a vote already"),
        (
            {"add": (Newcomer("n4", "n1:2380", True, None),)},
            "peer_address_taken",
            "n1:2380 is the peer address of member 'n1'",
        ),
        ({"add": (Newcomer("n1", "n1:2380", True, 99),)}, "membership_refused", "there is a member 'n1' already"),
        ({"move": (("n9", "n9:2380"),)}, "member_not_found", "there is no member 'n9'"),
        ({"move": (("n2", "n1:2380"),)}, "peer_address_taken", "n1:2380 is the peer address of member 'n1'"),
    ],
)
def test_refusals_name_people_and_not_numbers(request_: dict[str, Any], code: str, reason: str) -> None:
    cluster = MiniCluster()
    leader = led(cluster)
    index = leader.raft.last_index
    error = error_of(ask(cluster, leader, **request_)[0])
    assert (error.code, error.may_have_happened) == (code, False)
    assert reason in error.message
    assert leader.raft.last_index == index


def test_who_was_announced_by_address_alone_is_recognized_by_it() -> None:
    cluster = MiniCluster()
    leader = led(cluster)
    announced = Newcomer("", "n4:2380", False, None)
    node_id = ask(cluster, leader, add=(announced,))[0][1]["ids"][""]
    assert code_of(ask(cluster, leader, add=(announced,))) == "peer_address_taken"
    second = ask(cluster, leader, add=(Newcomer("", "n5:2380", True, None),))[0][1]["ids"][""]
    assert second != node_id, "two may be without a name"
    (status, result), *_ = ask(cluster, leader, add=(Newcomer("n4", "n4:2380", None, 44),))
    assert (status, result["ids"]) == (OK, {"n4": node_id})
    record = next(record for record in leader.storage.members() if record["id"] == node_id)
    assert (record["name"], record["wants_vote"]) == ("n4", True), "as it was announced"
    assert code_of(ask(cluster, leader, add=(Newcomer("n6", "n4:2380", None, 66),))) == "peer_address_taken"
    assert ask(cluster, leader, remove=(str(second),))[0][0] == OK


def test_a_member_is_looked_for_elsewhere() -> None:
    cluster = MiniCluster()
    leader = led(cluster)
    node_id = ask(cluster, leader, add=(N4,))[0][1]["ids"]["n4"]
    before = leader.raft.configuration_index
    answer = ask(cluster, leader, move=((str(node_id), "elsewhere:2380"),))[0]
    assert [one["peer_address"] for one in answer[1]["members"] if one["id"] == node_id] == ["elsewhere:2380"]
    assert leader.raft.configuration_index == before, "the same members as before"


class Asker:
    """The origin of a forwarded change."""

    takes_answers = True

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        self.answers += answers

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        self.answers.append(failure(error))


def forward(cluster: MiniCluster, member: Member, mapping: Any) -> list[Answer]:
    asker = Asker()
    deadline_ms = member.service.deadline(5_000)
    member.service.forward(WriteGroup(asker, [0], [[CHANGE_MEMBERS, mapping]], size_bytes=0, deadline_ms=deadline_ms))
    cluster.settle()
    return asker.answers


@pytest.mark.parametrize("through_leader", [True, False])
def test_a_change_is_carried_to_the_leader_for_who_cannot_go_there(through_leader: bool) -> None:
    cluster = MiniCluster()
    leader = led(cluster)
    member = leader if through_leader else cluster.followers()[0]
    answers = forward(cluster, member, {"add": [["n4", "n4:2380", True, None]]})
    assert answers[0][0] == OK
    assert answers[0][1]["ids"]["n4"] in leader.raft.configuration.learners
    assert code_of(forward(cluster, member, {"remove": ["n9"]})) == "member_not_found"
    assert code_of(forward(cluster, member, {"remove": 9})) == "invalid_request"


def test_a_cluster_has_a_bound() -> None:
    cluster = MiniCluster(Limits(members_max=3))
    assert code_of(ask(cluster, led(cluster), add=(N4,))) == "membership_refused"


@pytest.mark.parametrize(
    "mapping",
    [
        None,
        [],
        {"addd": []},
        {"remove": "n1"},
        {"remove": [1]},
        {"remove": [""]},
        {"force": 1},
        {"add": [["n4", "n4:2380", True]]},
        {"add": [["n4", "n4:2380", 1, None]]},
        {"add": [["n4", "n4:2380", True, 0]]},
        {"add": [["n4", "", True, None]]},
        {"add": [["n4", "n4", True, None]]},
        {"add": [["n4", "http://n4:2380", True, None]]},
        {"add": {}},
    ],
)
def test_what_is_no_request_is_refused(mapping: Any) -> None:
    with pytest.raises(InvalidRequest):
        read_request(mapping)
