"""The order of save, send, apply and answer, with the real core and store: what is durable before what is said."""

from raftkv.errors import NoQuorum
from raftkv.limits import Limits
from raftkv.raft.messages import AppendEntriesResponse, RequestVoteResponse
from tests.unit.replica.minicluster import MiniCluster
from tests.unit.replica.origins import RecordingOrigin, get_group, put_group


def test_a_write_is_answered_and_applied_alike_on_every_member() -> None:
    cluster, origin = MiniCluster(), RecordingOrigin()
    leader = cluster.elect()
    leader.service.submit_writes(put_group(origin, "a", "b"))
    cluster.settle()
    cluster.pass_time(200)  # the followers learn of the commit with the next heartbeat
    assert [answer[0] for answer in origin.answers[0]] == [0, 0]
    states = {(m.storage.applied_index, m.storage.revision, m.storage.digest) for m in cluster.members.values()}
    assert len(states) == 1


def test_no_vote_and_no_acknowledgement_leaves_before_its_save_is_durable() -> None:
    cluster = MiniCluster()
    leader = cluster.elect()
    (follower, other) = cluster.followers()
    cluster.cut.add(other.node_id)
    follower.journal.automatic = False
    sent: list[object] = []
    follower.send = lambda messages: sent.extend(messages)  # type: ignore[method-assign]
    origin = RecordingOrigin()
    leader.service.submit_writes(put_group(origin, "a"))
    cluster.settle()
    acknowledgements = [m for m in sent if isinstance(m, AppendEntriesResponse)]
    assert acknowledgements == []
    assert origin.ends == 0
    follower.replica.on_journal_saved(len(follower.journal.saves))
    assert [m.match_index for m in sent if isinstance(m, AppendEntriesResponse)] == [leader.raft.last_index]
    assert not any(isinstance(m, RequestVoteResponse) for m in sent)


def test_the_leader_sends_before_its_own_disk_is_done_and_commits_by_others() -> None:
    cluster, origin = MiniCluster(), RecordingOrigin()
    leader = cluster.elect()
    leader.journal.automatic = False
    leader.service.submit_writes(put_group(origin, "a"))
    cluster.settle()
    assert origin.ends == 1, "two followers are a majority without the leader's disk"


def test_an_entry_on_the_leaders_disk_alone_is_not_answered() -> None:
    cluster, origin = MiniCluster(), RecordingOrigin()
    leader = cluster.elect()
    for follower in cluster.followers():
        follower.journal.automatic = False
    leader.service.submit_writes(put_group(origin, "a"))
    cluster.settle()
    assert origin.ends == 0


def test_a_leader_that_is_cut_off_gives_up_and_says_so() -> None:
    cluster, pending, late = MiniCluster(), RecordingOrigin(), RecordingOrigin()
    leader = cluster.elect()
    cluster.cut.add(leader.node_id)
    leader.service.submit_writes(put_group(pending, "a"))
    cluster.pass_time(2_500)
    leader.service.submit_writes(put_group(late, "b"))
    assert [(type(error), error.may_have_happened) for error in pending.errors] == [(NoQuorum, True)]
    assert [(type(error), error.may_have_happened) for error in late.errors] == [(NoQuorum, False)]


def test_followers_answer_linearizable_reads_by_asking_the_leader() -> None:
    cluster, writer, reader = MiniCluster(), RecordingOrigin(), RecordingOrigin()
    leader = cluster.elect()
    leader.service.submit_writes(put_group(writer, "a"))
    cluster.settle()
    follower = cluster.followers()[0]
    follower.service.submit_reads(get_group(reader, "a"))
    cluster.settle()
    cluster.pass_time(200)
    ((answer,),) = reader.answers
    assert answer[2][0] == b"a"


def test_a_member_that_was_away_comes_back_by_snapshot_while_others_write() -> None:
    limits = Limits(log_retained_entries_max=5, snapshot_chunk_bytes=64)
    cluster = MiniCluster(limits)
    leader = cluster.elect()
    away = cluster.followers()[0]
    cluster.cut.add(away.node_id)
    for number in range(30):
        leader.service.submit_writes(put_group(RecordingOrigin(), f"k{number}"))
        cluster.settle()
    for member in cluster.members.values():
        member.storage.commit()
        member.replica.compact_log()
    assert leader.raft.log_start_index > away.raft.last_index
    assert leader.journal.compacted_to == leader.raft.log_start_index
    cluster.cut.clear()
    origin = RecordingOrigin()
    cluster.pass_time(300)
    leader.service.submit_writes(put_group(origin, "meanwhile"))
    cluster.pass_time(3_000)
    assert origin.answers
    assert away.journal.saves[-1][2] is not None or any(save[2] for save in away.journal.saves)
    assert (away.storage.applied_index, away.storage.digest) == (leader.storage.applied_index, leader.storage.digest)
    assert not leader.raft.snapshot_in_use
    leader.replica.release_snapshot()


def test_compaction_never_passes_what_the_store_has_on_disk() -> None:
    cluster = MiniCluster(Limits(log_retained_entries_max=1))
    leader = cluster.elect()
    for number in range(10):
        leader.service.submit_writes(put_group(RecordingOrigin(), f"k{number}"))
        cluster.settle()
    leader.replica.compact_log()
    assert leader.raft.log_start_index == 0
    leader.storage.commit()
    leader.replica.compact_log()
    assert 0 < leader.raft.log_start_index <= leader.storage.durable_applied_index


def test_apply_stops_while_the_store_has_no_room_and_goes_on_after_a_commit() -> None:
    cluster = MiniCluster(Limits(overlay_records_max=4))
    leader = cluster.elect()
    origins = [RecordingOrigin() for _ in range(10)]
    for number, origin in enumerate(origins):
        leader.service.submit_writes(put_group(origin, f"k{number}"))
        cluster.settle()
    assert 0 < sum(origin.ends for origin in origins) < 10
    for _ in range(10):
        for member in cluster.members.values():
            member.storage.commit()
        cluster.settle()
    assert sum(bool(origin.answers) for origin in origins) == 10
