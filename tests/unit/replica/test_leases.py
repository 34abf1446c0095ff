"""Leases under a leader, over real consensus: kept alive beside the log, ended through it, never shorter than what was answered."""

from typing import Any

import pytest

from raftkv.errors import NoSpace, NotLeader
from raftkv.limits import Limits
from raftkv.replica import leases as books
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.wire.commands import (
    CHECKPOINT_LEASES,
    EXPIRE_LEASES,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASE_TTL,
    PUT,
    WITH_KEYS,
    decode_batch,
)
from raftkv.wire.protocol import KEEP_ALIVE
from tests.unit.replica.minicluster import TICK_MS, Member, MiniCluster
from tests.unit.replica.origins import RecordingOrigin, put_group

TTL_MS = 10_000
LATE_MS = books.SLOT_MS + 3 * TICK_MS  # how long after its time a lease may end here


def write(cluster: MiniCluster, leader: Member, *commands: list[Any]) -> list[Any]:
    origin = RecordingOrigin()
    tags = [0] * len(commands)
    leader.service.submit_writes(WriteGroup(origin, tags, list(commands), size_bytes=100, deadline_ms=1 << 40))
    cluster.settle()
    assert not origin.errors, origin.errors
    return origin.answers[0]


def grant(cluster: MiniCluster, leader: Member, lease: int = 7, ttl_ms: int = TTL_MS) -> None:
    """A lease with a key on it."""
    key = b"on %d" % lease
    answers = write(cluster, leader, [LEASE_GRANT, 0, lease, ttl_ms], [PUT, 0, key, b"", lease, 0])
    assert answers[0][2:] == [lease, ttl_ms]


def ask(member: Member, *commands: list[Any], deadline_ms: int = 1 << 40) -> RecordingOrigin:
    origin = RecordingOrigin()
    member.service.ask_leader(ReadGroup(origin, [1] * len(commands), list(commands), deadline_ms=deadline_ms))
    return origin


def keep_alive(cluster: MiniCluster, leader: Member, *lease_ids: int) -> list[int]:
    origin = ask(leader, [KEEP_ALIVE, list(lease_ids)])
    cluster.settle()
    ((answer,),) = origin.answers
    ttls: list[int] = answer[2]
    return ttls


def time_left_ms(cluster: MiniCluster, leader: Member, lease: int = 7) -> int:
    origin = ask(leader, [LEASE_TTL, 0, lease])
    cluster.settle()
    left_ms: int = origin.answers[0][0][2]
    return left_ms


def lives(member: Member, lease: int = 7) -> bool:
    """The lease and its key, which come and go together."""
    has_key = member.storage.store.read([64, 0, b"on %d" % lease])[2] is not None
    assert has_key == (lease in member.storage.leases)
    return has_key


def fail_over(cluster: MiniCluster, leader: Member) -> Member:
    """Another member leads; the old one comes back as a follower."""
    cluster.cut = {leader.node_id}
    successor = cluster.elect()
    cluster.cut = set()
    cluster.settle()
    assert successor is not leader
    return successor


def entries_of(member: Member, operation: int) -> list[Any]:
    """The commands of a kind that the journal of a member was given."""
    found = []
    for _, entries, _ in member.journal.saves:
        for entry in entries:
            if entry.kind == 2 or not entry.data:
                continue
            try:
                _, groups = decode_batch(entry.data)
            except Exception:
                continue
            found += [command for group in groups for command in group[5] if command[0] == operation]
    return found


@pytest.fixture
def cluster() -> MiniCluster:
    return MiniCluster()


@pytest.fixture
def leader(cluster: MiniCluster) -> Member:
    leader = cluster.elect()
    cluster.pass_time(2000)  # every member has published itself
    return leader


def test_a_lease_ends_with_its_keys_after_its_time_and_not_before(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader)
    cluster.pass_time(TTL_MS - TICK_MS)
    assert lives(leader)
    cluster.pass_time(LATE_MS)
    assert not any(lives(member) for member in cluster.members.values())


def test_a_lease_that_is_kept_alive_in_time_lives_and_never_touches_the_log(
    cluster: MiniCluster, leader: Member
) -> None:
    grant(cluster, leader)
    before = leader.raft.last_index
    for _ in range(20):
        cluster.pass_time(TTL_MS // 3)
        assert keep_alive(cluster, leader, 7) == [TTL_MS]
    assert lives(leader)
    assert leader.raft.last_index == before


def test_many_leases_share_a_question_and_an_unknown_one_has_no_time(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader, 7)
    grant(cluster, leader, -8, 4000)
    assert keep_alive(cluster, leader, 7, 99, -8) == [TTL_MS, 0, 4000]


def test_the_time_to_live_is_told_with_the_keys(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader)
    cluster.pass_time(3000)
    origin = ask(leader, [LEASE_TTL, WITH_KEYS, 7], [LEASE_TTL, 0, 7], [LEASE_TTL, WITH_KEYS, 99])
    cluster.settle()
    revision = leader.storage.revision
    left_ms = TTL_MS - 3000
    assert origin.answers == [
        [[0, revision, left_ms, TTL_MS, [b"on 7"]], [0, revision, left_ms, TTL_MS, []], [0, revision, -1, 0, []]]
    ]


def test_a_revoked_lease_is_gone_from_the_books(cluster: MiniCluster, leader: Member) -> None:
    for _ in range(50):
        grant(cluster, leader)
        write(cluster, leader, [LEASE_REVOKE, 0, 7])
    desk_books = leader.service._leases._books
    assert not (desk_books._slots or desk_books._slot_of or desk_books._deadlines)
    assert keep_alive(cluster, leader, 7) == [0]


def test_an_id_that_is_granted_anew_has_its_own_time(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader, ttl_ms=3000)
    cluster.pass_time(2000)
    write(cluster, leader, [LEASE_REVOKE, 0, 7], [LEASE_GRANT, 0, 7, TTL_MS])
    assert time_left_ms(cluster, leader) == TTL_MS


def test_a_follower_says_where_the_leader_is_and_may_ask_it(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader)
    follower = cluster.followers()[0]
    (error,) = ask(follower, [KEEP_ALIVE, [7]]).errors
    assert type(error) is NotLeader
    assert error.details["leader"]["id"] == leader.node_id
    forwarded = RecordingOrigin()
    commands: list[list[Any]] = [[KEEP_ALIVE, [7]], [LEASE_TTL, WITH_KEYS, 7]]
    follower.service.forward(WriteGroup(forwarded, [1, 2], commands, size_bytes=0, deadline_ms=1 << 40))
    cluster.settle()
    revision = leader.storage.revision
    assert forwarded.answers == [[[0, revision, [TTL_MS]], [0, revision, TTL_MS, TTL_MS, [b"on 7"]]]]


def test_a_leader_that_is_cut_off_keeps_nothing_alive_and_ends_nothing(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader, ttl_ms=2000)
    cluster.pass_time(1900)
    cluster.cut = {leader.node_id}
    origin = ask(leader, [KEEP_ALIVE, [7]])
    cluster.pass_time(300)
    assert leader.raft.role == "leader", "it does not know yet"
    assert origin.ends == 0
    cluster.pass_time(5000)
    assert [type(error).__name__ for error in origin.errors] == ["NoQuorum"]
    assert not entries_of(leader, EXPIRE_LEASES), "not even proposed"


def test_nothing_ends_while_nobody_leads(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader, ttl_ms=2000)
    cluster.pass_time(500)
    cluster.cut = set(cluster.ids)
    cluster.pass_time(30_000)
    assert all(lives(member) for member in cluster.members.values())
    cluster.cut = set()
    again = cluster.elect()
    assert lives(again)
    assert keep_alive(cluster, again, 7) == [2000]


def test_after_a_failover_a_lease_has_no_less_time_than_was_answered(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader)
    cluster.pass_time(TTL_MS // 3)
    assert keep_alive(cluster, leader, 7) == [TTL_MS]
    answered_at_ms = cluster.now_ms
    successor = fail_over(cluster, leader)
    assert cluster.now_ms + time_left_ms(cluster, successor) >= answered_at_ms + TTL_MS
    cluster.pass_time(answered_at_ms + TTL_MS - cluster.now_ms - TICK_MS)
    assert lives(successor)


def test_a_lease_that_nobody_renews_is_not_kept_alive_by_failovers(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader)
    granted_at_ms = cluster.now_ms
    current = leader
    for _ in range(10):
        cluster.pass_time(TTL_MS * 6 // 10)
        current = fail_over(cluster, current)
        if not lives(current):
            break
    assert not lives(current)
    assert cluster.now_ms - granted_at_ms < 4 * TTL_MS


def test_a_checkpoint_leaves_a_new_leader_at_least_what_was_left(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader)
    cluster.pass_time(TTL_MS * 6 // 10)
    assert len(entries_of(leader, CHECKPOINT_LEASES)) == 1
    left_ms = time_left_ms(cluster, leader)
    told_at_ms = cluster.now_ms
    successor = fail_over(cluster, leader)
    now_left_ms = time_left_ms(cluster, successor)
    assert now_left_ms + cluster.now_ms >= left_ms + told_at_ms
    assert now_left_ms <= TTL_MS // 2


def test_a_keep_alive_after_a_checkpoint_is_promised_by_the_log_before_it_is_answered(
    cluster: MiniCluster, leader: Member
) -> None:
    grant(cluster, leader)
    cluster.pass_time(TTL_MS * 6 // 10)
    assert keep_alive(cluster, leader, 7) == [TTL_MS]
    answered_at_ms = cluster.now_ms
    rows = [command[3] for command in entries_of(leader, CHECKPOINT_LEASES)]
    assert rows[1] == [[7, TTL_MS]]
    successor = fail_over(cluster, leader)
    assert cluster.now_ms + time_left_ms(cluster, successor) >= answered_at_ms + TTL_MS
    assert keep_alive(cluster, successor, 7) == [TTL_MS]
    assert len(entries_of(successor, CHECKPOINT_LEASES)) == 2, "and none is needed after it"


def test_a_keep_alive_waits_for_the_checkpoint_that_overtook_it(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader)
    cluster.pass_time(TTL_MS // 2 - 100)
    for member in cluster.members.values():
        member.journal.automatic = False
    cluster.pass_time(300)  # the checkpoint is proposed and goes nowhere
    origin = ask(leader, [KEEP_ALIVE, [7]])
    cluster.settle()
    assert origin.ends == 0
    for member in cluster.members.values():
        member.journal.automatic = True
    cluster.settle()
    assert [answers[0][2] for answers in origin.answers] == [[TTL_MS]]
    lease = leader.storage.leases.get(7)
    assert lease is not None
    assert lease.remaining_ms == TTL_MS


def test_a_keep_alive_that_came_in_time_for_a_lease_that_is_due_saves_it(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader, ttl_ms=2000)
    cluster.pass_time(1950)
    # The loop stood still: the deadline passes while the question is already in the house.
    cluster.now_ms += 500
    origin = ask(leader, [KEEP_ALIVE, [7]])
    for member in cluster.members.values():
        member.service.tick(cluster.now_ms)
    cluster.settle()
    assert [answers[0][2] for answers in origin.answers] == [[2000]]
    cluster.pass_time(1000)
    assert lives(leader)


def test_a_keep_alive_that_comes_while_the_end_is_being_confirmed_saves_it(
    cluster: MiniCluster, leader: Member
) -> None:
    grant(cluster, leader, ttl_ms=2000)
    cluster.pass_time(1950)
    cluster.now_ms += 500
    leader.service.tick(cluster.now_ms)
    leader.turn()  # the round that confirms the end is on its way
    origin = ask(leader, [KEEP_ALIVE, [7]])
    cluster.settle()
    assert [answers[0][2] for answers in origin.answers] == [[2000]]
    assert lives(leader)


def test_keep_alives_do_not_wait_for_writes_or_apply(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader)
    stuck = RecordingOrigin()
    for member in cluster.members.values():
        member.storage.store._limits = Limits(overlay_records_max=1)  # soon no room: nothing applied, nothing proposed
    for number in range(10):
        leader.service.submit_writes(put_group(stuck, f"k{number}"))
        cluster.settle()
    assert keep_alive(cluster, leader, 7) == [TTL_MS]
    assert stuck.ends < 10


def test_what_the_books_propose_goes_in_front_of_the_writes_that_wait(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader)
    cluster.pass_time(TTL_MS * 6 // 10)  # checkpointed: the next keep-alive has to tell the log
    for member in cluster.members.values():
        member.journal.automatic = False
    waiting = RecordingOrigin()
    for number in range(5):
        leader.service.submit_writes(put_group(waiting, f"k{number}"))
        cluster.settle()
    origin = ask(leader, [KEEP_ALIVE, [7]])
    cluster.settle()
    waiting_writes = leader.service._new
    assert len(waiting_writes) == 4
    assert waiting_writes._groups[0].commands[0][0] == CHECKPOINT_LEASES
    for member in cluster.members.values():
        member.journal.automatic = True
    cluster.settle()
    assert len(origin.answers) == 1


def test_leases_that_end_together_share_an_entry_and_leftovers_get_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(books, "ROWS_MAX", 6)
    cluster = MiniCluster(Limits(lease_expiry_keys_max=4))
    leader = cluster.elect()
    for lease in range(1, 13):
        grant(cluster, leader, lease, 2000)
    cluster.pass_time(2000 + 4 * LATE_MS)
    assert not any(lives(leader, lease) for lease in range(1, 13))
    assert 2 <= len(entries_of(leader, EXPIRE_LEASES)) <= 8


def test_a_new_leader_takes_over_more_leases_than_it_looks_at_in_one_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "ROWS_MAX", 3)
    cluster = MiniCluster()
    leader = cluster.elect()
    for lease in range(1, 11):
        grant(cluster, leader, lease, 4000)
    successor = fail_over(cluster, leader)
    cluster.pass_time(4000 - TICK_MS)
    assert all(lives(successor, lease) for lease in range(1, 11))
    cluster.pass_time(10 * LATE_MS)
    assert not any(lives(successor, lease) for lease in range(1, 11))


def test_after_a_long_stall_and_with_all_leases_in_one_slot_nothing_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(books, "ROWS_MAX", 3)
    cluster = MiniCluster(size=1)
    leader = cluster.elect()
    for lease in range(1, 12):
        grant(cluster, leader, lease, 60_000)
    cluster.now_ms += 45_000  # more slots than leases
    leader.service.tick(cluster.now_ms)
    cluster.settle()
    assert keep_alive(cluster, leader, *range(1, 12)) == [60_000] * 11
    cluster.pass_time(50_000)
    assert all(lives(leader, lease) for lease in range(1, 12))
    cluster.pass_time(10_000 + 20 * LATE_MS)
    assert not any(lives(leader, lease) for lease in range(1, 12))
    assert not leader.service._leases._books._slot_of


def test_a_full_disk_delays_the_end_and_refuses_a_keep_alive_that_needs_the_log(
    cluster: MiniCluster, leader: Member
) -> None:
    grant(cluster, leader)
    cluster.pass_time(TTL_MS * 6 // 10)
    leader.service.write_block = NoSpace()
    origin = ask(leader, [KEEP_ALIVE, [7]])
    cluster.settle()
    assert [error.code for error in origin.errors] == ["no_space"]
    cluster.pass_time(2 * TTL_MS)
    assert lives(leader)
    leader.service.write_block = None
    cluster.pass_time(books.RETRY_MS + LATE_MS)
    assert not lives(leader)


def test_a_proposal_of_an_office_that_is_over_is_nobodys(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader)
    cluster.pass_time(TTL_MS // 2 - 100)
    cluster.cut = {leader.node_id}
    cluster.pass_time(300)
    assert leader.service._leases._books._kind == books.CHECKPOINT
    cluster.pass_time(5000)
    cluster.cut = set()
    successor = cluster.elect()
    cluster.pass_time(500)
    assert not leader.service._leases._books.in_office
    lease = successor.storage.leases.get(7)
    assert lease is not None
    assert keep_alive(cluster, successor, 7) == [TTL_MS]


def test_a_member_that_shuts_down_sends_owners_elsewhere_and_ends_nothing(cluster: MiniCluster, leader: Member) -> None:
    grant(cluster, leader, ttl_ms=2000)
    cluster.pass_time(1950)
    for follower in cluster.followers():
        cluster.cut.add(follower.node_id)
    origin = ask(leader, [KEEP_ALIVE, [7]])
    cluster.pass_time(300)
    leader.service.begin_shutdown()
    assert [error.code for error in origin.errors] == ["shutting_down"]
    assert leader.service.is_idle, "what is due does not hold up the end"
    cluster.cut = set()
    cluster.pass_time(600)
    assert lives(leader)


def test_a_question_that_waits_too_long_ends(cluster: MiniCluster, leader: Member) -> None:
    cluster.cut = {leader.node_id}
    origin = ask(leader, [KEEP_ALIVE, [7]], deadline_ms=cluster.now_ms + 100)
    cluster.pass_time(600)
    assert [error.code for error in origin.errors] == ["deadline_exceeded"]
    assert leader.service._leases.pending_commands == 0
