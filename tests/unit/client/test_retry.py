"""One call's decisions, with the time and the jitter given: every error, for reads and writes, with and without a session."""

from typing import Any

import pytest

from raftkv import errors
from raftkv.client.decisions import BARE_WRITE, CONTROL, READ, STALE_READ, WRITE, Keep, Send, Stop, Wait
from raftkv.client.endpoints import Directory, Handshake, Peer
from raftkv.client.retry import Retry, default_attempt_timeout_s
from raftkv.client.session import Session
from raftkv.errors import RaftKVError, Unreachable

A, B, C = "a:1", "b:1", "c:1"
PEERS = (Peer(1, "n1", A), Peer(2, "n2", B), Peer(3, "n3", C))
HINTS = [{"id": peer.id, "name": peer.name, "address": peer.address} for peer in PEERS]
KINDS = {"read": READ, "write": WRITE, "bare write": BARE_WRITE}
DEADLINE = 105.0


def greet(directory: Directory, address: str, member_id: int, leader: Peer | None) -> None:
    directory.on_handshake(
        address,
        Handshake(member_id, f"n{member_id}", 7, "prod", leader, PEERS, "0.1.0", 1 << 20, 1 << 14, 1 << 20, 600.0),
    )


def known_cluster(leader: Peer | None = PEERS[0]) -> Directory:
    directory = Directory([A, B, C])
    for peer in PEERS:
        greet(directory, peer.address, peer.id, leader)
    return directory


def retry(directory: Directory, kind: int, *, drawn: float = 0.0, deadline: float = DEADLINE) -> Retry:
    session = Session(b"s" * 16) if kind == WRITE else None
    if session is not None:
        session.open(100.0)
    return Retry(directory, kind, 100.0, deadline, default_attempt_timeout_s(5.0), lambda: drawn, session)


def sent_to(decision: Any) -> str:
    assert type(decision) is Send, decision
    return decision.address + (" forward" if decision.forward else "")


# What each refusal leads to. The call runs against the leader A; None as may_have_happened is the class's own.
ELSEWHERE, LATER, RAISED, UNKNOWN, SAME = "elsewhere", "later", "raised", "unknown", "same, later"
TABLE = [
    # code, may_have_happened, read, write, bare write
    ("not_leader", None, LATER, LATER, LATER),
    ("no_quorum", False, ELSEWHERE, ELSEWHERE, ELSEWHERE),
    ("no_quorum", True, ELSEWHERE, ELSEWHERE, UNKNOWN),
    ("shutting_down", None, ELSEWHERE, ELSEWHERE, ELSEWHERE),
    ("overloaded", None, SAME, SAME, SAME),
    ("membership_busy", None, SAME, SAME, SAME),
    ("outcome_unknown", None, LATER, LATER, UNKNOWN),
    ("leadership_lost", None, LATER, LATER, UNKNOWN),
    ("deadline_exceeded", False, ELSEWHERE, ELSEWHERE, ELSEWHERE),
    ("deadline_exceeded", True, ELSEWHERE, ELSEWHERE, UNKNOWN),
    ("unreachable", None, ELSEWHERE, ELSEWHERE, ELSEWHERE),
    *[
        (code, None, RAISED, RAISED, RAISED)
        for code in errors.all_codes()
        if code
        not in (
            "not_leader",
            "no_quorum",
            "shutting_down",
            "overloaded",
            "membership_busy",
            "outcome_unknown",
            "leadership_lost",
            "deadline_exceeded",
            "unreachable",
        )
    ],
]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("row", TABLE, ids=[f"{row[0]}-{row[1]}" for row in TABLE])
def test_every_refusal(row: tuple[Any, ...], kind: str) -> None:
    code, happened = row[0], row[1]
    expected = row[2 + list(KINDS).index(kind)]
    cls = errors.all_codes()[code]
    error = cls("said so", details={"members": HINTS}, may_have_happened=happened)
    call = retry(known_cluster(), KINDS[kind], drawn=0.5)
    assert sent_to(call.start(100.0)) == A
    decision = call.on_refused(100.2, error)
    if expected == RAISED:
        assert type(decision) is Stop
        assert decision.error is error
        may = cls.may_have_happened and kind != "read" and code != "session_expired"
        assert decision.error.may_have_happened == may
    elif expected == UNKNOWN:
        assert type(decision) is Stop
        assert type(decision.error) is errors.OutcomeUnknown
        assert decision.error.may_have_happened is True
        assert A in decision.error.message
    elif expected == ELSEWHERE:
        assert sent_to(decision) in (B, C)
    else:
        assert decision == Wait(pytest.approx(100.23)), "10 to 50 ms: half-way at a draw of 0.5"
        following = sent_to(call.on_wait_over(100.23))
        assert (following == A) == (expected == SAME)
    assert call.uncertain == (kind != "read" and expected != RAISED and bool(error.may_have_happened))


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_way_to_lose_an_attempt(kind: str) -> None:
    for event in ("unreachable", "lost", "silent"):
        call = retry(known_cluster(), KINDS[kind])
        first = call.start(100.0)
        assert sent_to(first) == A
        if event == "unreachable":
            decision: Any = call.on_unreachable(100.1, Unreachable("connection refused"))
        elif event == "lost":
            decision = call.on_lost(100.1, Unreachable("connection lost"))
        else:
            decision = call.on_silence(101.0, heard=False)
        if kind == "bare write" and event != "unreachable":
            assert type(decision) is Stop
            assert type(decision.error) is errors.OutcomeUnknown
        else:
            assert sent_to(decision) == B
        assert call.uncertain == (kind != "read" and event != "unreachable")


# The leader, and the way to it.


def test_a_hint_is_followed_at_once_even_to_a_member_that_was_asked() -> None:
    directory = known_cluster(leader=None)
    call = retry(directory, WRITE)
    assert sent_to(call.start(100.0)) == A
    decision = call.on_refused(100.0, errors.NotLeader(details={"leader": HINTS[1], "members": HINTS}))
    assert sent_to(decision) == B
    decision = call.on_refused(100.0, errors.NotLeader(details={"leader": HINTS[0], "members": HINTS}))
    assert sent_to(decision) == A, "the newest word counts"


def test_two_members_that_point_at_each_other_are_asked_slowly() -> None:
    call = retry(known_cluster(), WRITE)
    decision: Any = call.start(100.0)
    hops = 0
    while type(decision) is Send:
        other = HINTS[1] if decision.address == A else HINTS[0]
        decision = call.on_refused(100.0, errors.NotLeader(details={"leader": other, "members": HINTS}))
        hops += 1
    assert type(decision) is Wait
    assert hops <= 20
    assert type(call.on_wait_over(decision.until)) is Send


def test_a_write_that_connects_to_a_follower_moves_on_before_it_is_sent() -> None:
    for kind, goes_to in ((WRITE, B), (BARE_WRITE, B), (CONTROL, B), (READ, A), (STALE_READ, A)):
        directory = Directory([A, B, C])
        call = retry(directory, kind)
        assert sent_to(call.start(100.0)) == A
        greet(directory, A, 1, PEERS[1])
        assert sent_to(call.on_connected(100.1)) == goes_to


def test_the_leader_is_looked_for_among_the_own_endpoints_first() -> None:
    directory = Directory(["localhost:2379", "localhost:2381"])
    greet(directory, "localhost:2379", 1, PEERS[1])
    greet(directory, "localhost:2381", 2, PEERS[1])
    assert sent_to(retry(directory, WRITE).start(100.0)) == "localhost:2381"
    assert directory.addresses_of(2) == ["localhost:2381", B]


def test_the_advertised_address_comes_second_then_unmet_endpoints_then_a_relay() -> None:
    directory = Directory(["x:1", "y:1"])
    greet(directory, "x:1", 1, PEERS[1])
    call = retry(directory, WRITE)
    assert sent_to(call.start(100.0)) == B
    assert sent_to(call.on_unreachable(100.1, Unreachable("refused"))) == "x:1", "whoever answers may know more"
    decision = call.on_refused(100.1, errors.NotLeader(details={"leader": HINTS[1], "members": HINTS}))
    assert sent_to(decision) == "y:1", "any member may be behind an endpoint that never answered"
    assert sent_to(call.on_unreachable(100.2, Unreachable("refused"))) == "x:1 forward"


def test_control_requests_and_reads_are_not_forwarded() -> None:
    for kind in (READ, CONTROL):
        directory = known_cluster()
        directory.on_unreachable(A, 99.9)
        directory.on_hint(PEERS[0], PEERS)
        assert sent_to(retry(directory, kind).start(100.0)) in (B, C)


def test_a_relay_that_fails_is_followed_by_the_next_one() -> None:
    directory = known_cluster()
    directory.on_unreachable(A, 99.9)
    directory.on_hint(PEERS[0], PEERS)
    call = retry(directory, WRITE)
    assert sent_to(call.start(100.0)) == "b:1 forward"
    directory.on_hint(PEERS[0], PEERS)
    assert sent_to(call.on_lost(100.1, Unreachable("lost"))) in ("c:1 forward",)


def test_stale_reads_stay_where_they_land() -> None:
    directory = known_cluster(leader=PEERS[2])
    assert sent_to(retry(directory, STALE_READ).start(100.0)) == A


def test_a_read_prefers_the_leader_so_that_one_connection_serves_all() -> None:
    assert sent_to(retry(known_cluster(leader=PEERS[2]), READ).start(100.0)) == C


# Time.


def test_deadlines_of_attempts() -> None:
    call = retry(known_cluster(), WRITE)
    assert call.start(100.0) == Send(A, False, 100.5, 101.0)
    for kind in (BARE_WRITE, CONTROL):
        call = retry(known_cluster(), kind)
        assert call.start(100.0) == Send(A, False, 100.5, DEADLINE), "its silence cannot be answered by asking another"
    assert default_attempt_timeout_s(0.3) == pytest.approx(0.1)
    assert default_attempt_timeout_s(60.0) == 1.0


def test_a_living_member_gets_half_of_the_call_s_time() -> None:
    call = retry(known_cluster(), READ)
    call.start(100.0)
    assert call.on_silence(101.0, heard=True) == Keep(102.0)
    assert call.on_silence(102.0, heard=True) == Keep(103.0)
    assert sent_to(call.on_silence(103.0, heard=True)) == B
    call = retry(known_cluster(), READ)
    call.start(100.0)
    assert call.on_silence(101.0, heard=True) == Keep(102.0)
    assert sent_to(call.on_silence(102.0, heard=False)) == B, "it hangs now"


def test_rounds_of_refusals_back_off_longer_each_time() -> None:
    call = retry(known_cluster(), READ, drawn=0.999999, deadline=200.0)
    now, pauses = 100.0, []
    decision: Any = call.start(now)
    for _ in range(60):
        if type(decision) is Wait:
            pauses.append(round(decision.until - now, 3))
            now = decision.until
            decision = call.on_wait_over(now)
        else:
            decision = call.on_refused(now, errors.NoQuorum(details={"members": HINTS}))
    assert pauses[:5] == [0.05, 0.1, 0.2, 0.4, 0.5]
    assert max(pauses) == 0.5


def test_nothing_is_sent_at_or_after_the_deadline() -> None:
    call = retry(known_cluster(), WRITE)
    call.start(100.0)
    decision = call.on_refused(104.99, errors.NotLeader(details={"leader": None}))
    assert decision == Wait(pytest.approx(105.0))
    stopped = call.on_wait_over(105.0)
    assert type(stopped) is Stop
    assert type(stopped.error) is errors.DeadlineExceeded
    assert stopped.error.may_have_happened is False


# How a call ends.


def expiry(kind: int, *events: tuple[str, Any]) -> RaftKVError:
    call = retry(known_cluster(), kind)
    decision: Any = call.start(100.0)
    for name, argument in events:
        assert type(decision) is Send, decision
        decision = getattr(call, name)(100.0, argument)
    return call.on_expired(DEADLINE).error


def test_the_words_at_the_end_name_everyone() -> None:
    refused, no_quorum = Unreachable("connection refused"), errors.NoQuorum(details={"members": HINTS})
    error = expiry(WRITE, ("on_unreachable", refused), ("on_refused", no_quorum), ("on_refused", no_quorum))
    assert type(error) is errors.NoQuorum
    assert error.message == (
        "no member had a quorum within 5 s: a:1 (connection refused), b:1 (no quorum), c:1 (no quorum)"
    )
    assert error.may_have_happened is False
    error = expiry(WRITE, ("on_unreachable", refused), ("on_unreachable", refused))
    assert type(error) is errors.Unreachable
    assert error.message == (
        "no member could be reached within 5 s: a:1 (connection refused), b:1 (connection refused)"
    )
    error = expiry(WRITE, ("on_lost", Unreachable("connection closed by the member")), ("on_refused", no_quorum))
    assert type(error) is errors.DeadlineExceeded
    assert error.may_have_happened is True
    assert error.message.startswith("no answer within 5 s, the write may have happened: a:1 (connection closed")
    error = expiry(READ, ("on_lost", Unreachable("gone")), ("on_refused", errors.NotLeader(details={"leader": None})))
    assert type(error) is errors.DeadlineExceeded
    assert error.may_have_happened is False
    assert error.message == "no answer within 5 s: a:1 (gone), b:1 (not the leader)"


def test_a_membership_that_does_not_settle_ends_with_its_own_error() -> None:
    call = retry(known_cluster(), CONTROL)
    assert sent_to(call.start(100.0)) == A
    assert type(call.on_refused(100.0, errors.MembershipBusy("another change is not finished"))) is Wait
    error = call.on_expired(DEADLINE).error
    assert type(error) is errors.MembershipBusy
    assert error.may_have_happened is False
    assert error.message == (
        "the membership is still being changed, or unsettled, after 5 s: a:1 (another change is not finished)"
    )


@pytest.mark.parametrize(
    ("code", "certain"),
    [("no_space", False), ("too_many_sessions", False), ("not_a_number", True), ("key_too_large", True)],
)
def test_a_refusal_after_an_uncertain_attempt_counts_only_if_apply_gave_it(code: str, certain: bool) -> None:
    call = retry(known_cluster(), WRITE)
    call.start(100.0)
    call.on_lost(100.1, Unreachable("lost"))
    decision = call.on_refused(100.2, errors.all_codes()[code]())
    assert type(decision) is Stop
    assert decision.error.may_have_happened is not certain


def test_all_endpoints_of_another_cluster_end_the_call() -> None:
    call = retry(Directory([A, B]), READ)
    wrong = errors.ClusterMismatch("the client wants cluster 'prod', this is 'dev'")
    assert sent_to(call.start(100.0)) == A
    assert sent_to(call.on_unreachable(100.0, wrong)) == B
    decision = call.on_unreachable(100.0, wrong)
    assert type(decision) is Stop
    assert type(decision.error) is errors.ClusterMismatch
    assert decision.error.message == "b:1: the client wants cluster 'prod', this is 'dev'"


def test_one_mismatch_and_nobody_else_is_still_a_mismatch_at_the_deadline() -> None:
    call = retry(Directory([A, B]), READ)
    call.start(100.0)
    call.on_unreachable(100.0, errors.ClusterMismatch("this is 'dev'"))
    call.on_unreachable(100.0, Unreachable("connection refused"))
    error = call.on_expired(DEADLINE).error
    assert type(error) is errors.ClusterMismatch
    assert "b:1 (connection refused)" in error.message


def test_an_uncertain_write_ends_with_its_session() -> None:
    session = Session(b"s" * 16, ttl_s=1.0)
    session.open(100.0)
    call = Retry(known_cluster(), WRITE, 100.0, DEADLINE, 1.0, lambda: 0.0, session)
    call.start(100.0)
    session.gone = True
    decision = call.on_lost(100.1, Unreachable("lost"))
    assert type(decision) is Stop
    assert type(decision.error) is errors.SessionExpired
    assert decision.error.may_have_happened is True


def test_a_first_write_is_not_repeated_when_its_session_may_have_come_and_gone() -> None:
    session = Session(b"s" * 16, ttl_s=2.0)
    session.open(100.0)
    call = Retry(known_cluster(), WRITE, 100.0, DEADLINE, 1.0, lambda: 0.0, session)
    call.start(100.0)
    assert type(call.on_lost(100.9, Unreachable("lost"))) is Send
    decision = call.on_lost(101.1, Unreachable("lost"))
    assert type(decision) is Stop
    assert type(decision.error) is errors.OutcomeUnknown


def test_hints_off_the_wire_may_hold_anything() -> None:
    for details in ({"leader": 5, "members": "x"}, {"leader": {"id": "1"}, "members": [None, {}]}, {}):
        call = retry(known_cluster(), WRITE)
        call.start(100.0)
        assert type(call.on_refused(100.0, errors.NotLeader(details=details))) is Wait


def test_no_round_begins_when_no_answer_could_come_any_more() -> None:
    """A write would be on its way at the deadline, and end as perhaps done, where all that was heard says that it surely was not."""
    for left_s, waits_s in ((0.030, 0.010), (0.015, 0.015)):
        call = retry(Directory([A]), WRITE, drawn=0.0)
        call.start(100.0)
        now = DEADLINE - left_s
        decision = call.on_refused(now, errors.NoQuorum())
        assert type(decision) is Wait
        assert decision.until == pytest.approx(now + waits_s)
    last = call.on_wait_over(DEADLINE)
    assert type(last) is Stop
    assert not last.error.may_have_happened


@pytest.mark.parametrize("kind", [READ, WRITE])
def test_a_greeting_that_comes_in_the_same_turn_as_the_end_of_the_call_sends_nothing(kind: int) -> None:
    call = retry(Directory([A]), kind)
    assert sent_to(call.start(100.0)) == A
    decision = call.on_connected(DEADLINE)
    assert type(decision) is Stop
    assert decision.error.code == "deadline_exceeded"
    assert not decision.error.may_have_happened
