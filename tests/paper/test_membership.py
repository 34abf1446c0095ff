"""Claims of chapter 4 that the log's entry kind carries: when a configuration counts, rollback, joint majorities, learners."""

import pytest

from raftkv.errors import Corruption, InvalidRequest
from raftkv.raft.membership import decode_configuration, encode_configuration
from raftkv.raft.messages import ENTRY_CONFIGURATION, AppendEntries, Configuration, Entry, RequestVote
from tests.unit.raft.cluster import HEARTBEAT, TIMEOUT, Cluster
from tests.unit.raft.solo import Solo, of_kind


def voters(*ids: int) -> frozenset[int]:
    return frozenset(ids)


def configuration_entry(index: int, term: int, configuration: Configuration) -> Entry:
    return Entry(index, term, ENTRY_CONFIGURATION, encode_configuration(configuration))


GROWN = Configuration(voters(1, 2, 3, 4, 5))


def test_a_configuration_counts_as_soon_as_it_is_appended() -> None:
    """4.1: "the server always uses the latest configuration in its log"."""
    solo = Solo()
    solo.step(AppendEntries(1, 2, 1, 0, 0, 0, [configuration_entry(1, 1, GROWN)]))
    assert solo.raft.commit_index == 0
    assert solo.raft.configuration == GROWN
    assert {r.target for r in of_kind(RequestVote, solo.tick(TIMEOUT))} == {2, 3, 4, 5}


def test_a_truncated_configuration_is_taken_back() -> None:
    """4.1."""
    solo = Solo()
    solo.step(AppendEntries(1, 2, 1, 0, 0, 0, [Entry(1, 1, 0, b""), configuration_entry(2, 1, GROWN)]))
    solo.step(AppendEntries(2, 3, 1, 1, 1, 0, [Entry(2, 2, 0, b"")]))
    assert solo.raft.configuration == Configuration(voters(1, 2, 3))


def test_a_configuration_is_found_again_after_a_restart_and_a_compaction() -> None:
    """4.1 with 5.1."""
    cluster = Cluster(5)
    cluster.elect(1)
    cluster[1].propose(ENTRY_CONFIGURATION, encode_configuration(Configuration(voters(1, 2, 3), learners=voters(4, 5))))
    cluster.settle()
    cluster.write(b"x")
    cluster.tick(HEARTBEAT)
    for node_id in (2, 4):
        cluster.crash(node_id)
        cluster.restart(node_id)
    assert cluster[2].configuration.learners == voters(4, 5)
    assert cluster[4].role == "learner"
    cluster.tick(HEARTBEAT)
    cluster.nodes[2].compact(3)
    assert cluster[2].log_start_index == 3
    cluster.crash(2)
    cluster.restart(2)
    assert cluster[2].configuration.learners == voters(4, 5)


JOINT = Configuration(voters(1, 4, 5), voters_outgoing=voters(1, 2, 3))


def test_a_joint_configuration_needs_both_majorities_to_commit() -> None:
    """4.3."""
    solo = Solo()
    solo.lead()
    solo.raft.propose(ENTRY_CONFIGURATION, encode_configuration(JOINT))
    solo.drain()
    solo.step(solo.accept(2, 2), solo.accept(3, 2))
    assert solo.raft.commit_index == 1, "all of the old, one of the new"
    solo.step(solo.accept(4, 2))
    assert solo.raft.commit_index == 2


def test_a_joint_configuration_needs_both_majorities_to_elect() -> None:
    """4.3."""
    solo = Solo(configuration=JOINT, pre_vote=False)
    requests = of_kind(RequestVote, solo.tick(TIMEOUT))
    assert {r.target for r in requests} == {2, 3, 4, 5}
    solo.step(solo.grant(4), solo.grant(5))
    assert solo.raft.role == "candidate"
    solo.step(solo.grant(3))
    assert solo.raft.is_leader


def test_a_joint_configuration_needs_both_majorities_to_confirm_a_read() -> None:
    """4.3 with 6.4."""
    solo = Solo(configuration=JOINT, pre_vote=False)
    solo.tick(TIMEOUT)
    solo.step(solo.grant(2), solo.grant(4))
    solo.step(solo.accept(2, 1), solo.accept(4, 1))
    solo.raft.read_index(1)
    solo.drain()
    solo.step(solo.heartbeat_response(4, 1), solo.heartbeat_response(5, 1))
    assert all(effects.reads == [] for effects in solo.effects)
    solo.step(solo.heartbeat_response(2, 1))
    assert [ready.context for ready in solo.effects[-1].reads] == [1]


def test_a_joint_configuration_is_left_by_itself_when_asked_to() -> None:
    """4.3; outgoing voters that stay become learners."""
    cluster = Cluster(5)
    cluster.elect(1)
    joint = Configuration(voters(1, 2, 3), voters(1, 2, 3, 4, 5), learners_next=voters(4, 5), auto_leave=True)
    cluster[1].propose(ENTRY_CONFIGURATION, encode_configuration(joint))
    cluster.settle()
    cluster.tick(HEARTBEAT)
    left = Configuration(voters(1, 2, 3), learners=voters(4, 5))
    assert [node.raft.configuration for node in cluster.nodes.values()] == [left] * 5
    assert cluster[5].role == "learner"
    cluster.write(b"x")
    cluster.tick()
    assert cluster.nodes[5].data == [b"x"], "learners receive entries"


def test_a_leader_that_is_removed_steps_down_once_that_is_committed() -> None:
    """4.2.2."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[1].propose(ENTRY_CONFIGURATION, encode_configuration(Configuration(voters(2, 3))))
    cluster.settle()
    assert not cluster[1].is_leader
    assert cluster[2].commit_index == cluster[3].commit_index == 2
    cluster.tick_until(lambda: cluster.leader() is not None)
    cluster.tick(3 * TIMEOUT)
    assert cluster.leader().node_id in (2, 3)  # type: ignore[union-attr]
    assert cluster[1].term == 1, "what was removed disturbs nobody (4.2.3)"


def test_one_change_at_a_time_and_only_by_a_leader_that_has_committed() -> None:
    """4.1, and the bug of single-server changes (an uncommitted change of an earlier leader)."""
    solo = Solo()
    solo.elect()
    with pytest.raises(InvalidRequest):
        solo.raft.propose(ENTRY_CONFIGURATION, encode_configuration(GROWN))
    solo.step(solo.accept(2, 1))
    solo.raft.propose(ENTRY_CONFIGURATION, encode_configuration(GROWN))
    with pytest.raises(InvalidRequest):
        solo.raft.propose(ENTRY_CONFIGURATION, encode_configuration(JOINT))


def test_learners_receive_entries_and_do_not_count() -> None:
    """4.2.1."""
    solo = Solo(configuration=Configuration(voters(1, 2, 3), learners=voters(4, 5)))
    solo.elect()
    solo.step(solo.accept(4, 1), solo.accept(5, 1))
    assert solo.raft.commit_index == 0
    solo.step(solo.accept(3, 1))
    assert solo.raft.commit_index == 1
    solo.raft.propose(1, b"x")
    assert {a.target for a in of_kind(AppendEntries, solo.drain())} >= {3, 4, 5}


def test_a_removed_follower_is_not_sent_anything() -> None:
    """4.1: only the members of the latest configuration are replicated to."""
    solo = Solo()
    solo.lead()
    solo.raft.propose(ENTRY_CONFIGURATION, encode_configuration(Configuration(voters(1, 2))))
    assert {message.target for message in solo.drain()} == {2}
    assert solo.raft.progress(3) is None


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration(voters(1)),
        Configuration(voters(2**63 - 1, 7)),
        Configuration(voters(1, 2), voters(3), voters(4), voters(3), True),
    ],
)
def test_configurations_survive_their_encoding(configuration: Configuration) -> None:
    """4.1: configurations are entries of the log."""
    assert decode_configuration(encode_configuration(configuration)) == configuration


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x91\x01\x90",
        b"\x96\x02\x91\x01\x90\x90\x90\xc2",
        b"\x96\x01\x90\x90\x90\x90\xc2",
        b"\x01",
    ],
)
def test_bytes_that_are_no_configuration_are_refused(data: bytes) -> None:
    """4.1: nobody guesses whom to count."""
    with pytest.raises(Corruption):
        decode_configuration(data)
