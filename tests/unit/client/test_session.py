"""Sequences, the window and acknowledgements, against a deliberately dumb twin."""

from hypothesis import given
from hypothesis import strategies as st

from raftkv.client.session import Session, Sessions
from raftkv.errors import OutcomeUnknown, SessionExpired


def test_sequences_start_at_one_and_are_acknowledged_in_order() -> None:
    session = Session(b"s" * 16)
    assert [session.open(0.0) for _ in range(3)] == [1, 2, 3]
    session.settle(2)
    assert (session.ack_below, session.outstanding) == (1, 2)
    session.settle(1)
    assert (session.ack_below, session.outstanding) == (3, 1)
    session.settle(3)
    assert (session.ack_below, session.outstanding) == (4, 0)


def test_the_window_counts_from_the_oldest_outstanding_write() -> None:
    session = Session(b"s" * 16, window=4)
    assert [session.open(0.0) for _ in range(5)] == [1, 2, 3, 4, 0]
    session.settle(3)
    assert session.open(0.0) == 0, "the answer of 1 has to stay within the window"
    session.settle(1)
    assert session.open(0.0) == 5


@given(st.lists(st.integers(0, 30), max_size=200))
def test_acknowledgement_is_the_lowest_outstanding_sequence(choices: list[int]) -> None:
    session, outstanding, opened = Session(b"s" * 16, window=8), [], 0
    for choice in choices:
        if choice < 16 and outstanding:
            session.settle(outstanding.pop(choice % len(outstanding)))
        else:
            sequence = session.open(0.0)
            floor = min(outstanding, default=opened + 1)
            assert (sequence == 0) == (opened + 1 - floor >= 8)
            if sequence:
                opened += 1
                assert sequence == opened
                outstanding.append(sequence)
        assert session.ack_below == min(outstanding, default=opened + 1)
        assert session.outstanding == len(outstanding)


def test_a_session_idle_for_half_its_life_is_left_only_when_nothing_is_outstanding() -> None:
    ids = iter([b"1" * 16, b"2" * 16, b"3" * 16])
    sessions = Sessions(lambda: next(ids), ttl_s=10.0)
    first = sessions.current
    assert not sessions.renew_if_stale(1000.0), "never used, never registered: nothing to expire"
    sequence = first.open(0.0)
    assert not sessions.renew_if_stale(6.0), "something is outstanding"
    assert first.open(6.0) == 2
    first.settle(sequence)
    first.settle(2)
    assert not sessions.renew_if_stale(10.9)
    assert first.open(11.1) == 0
    assert sessions.renew_if_stale(11.1)
    assert sessions.current.id == b"2" * 16


def test_a_gone_session_is_replaced_and_its_writes_are_not_repeated() -> None:
    ids = iter([b"1" * 16, b"2" * 16, b"3" * 16])
    sessions = Sessions(lambda: next(ids))
    old = sessions.current
    old.open(0.0)
    assert old.retry_refusal(1.0) is None
    sessions.expire(old)
    assert type(old.retry_refusal(1.0)) is SessionExpired
    new = sessions.current
    assert (new.id, new.registered) == (b"2" * 16, False)
    sessions.expire(old)
    assert sessions.current is new, "the late word about the old one does not touch the new one"


def test_an_unregistered_session_is_not_registered_late_by_a_retry() -> None:
    session = Session(b"s" * 16, ttl_s=10.0)
    session.open(100.0)
    assert session.retry_refusal(104.9) is None
    refusal = session.retry_refusal(105.1)
    assert type(refusal) is OutcomeUnknown
    assert refusal.may_have_happened is True
    session.registered = True
    assert session.retry_refusal(105.1) is None, "a registered one says by itself when it is gone"
