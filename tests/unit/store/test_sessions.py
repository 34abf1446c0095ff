"""Exactly once: windows, retries, expiry, what is kept and what gives way."""

import pytest

from raftkv.limits import MIB, Limits
from raftkv.store.commit import CommitJob
from raftkv.store.keyspace import SESSIONS
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.sessions import Session, answer_bytes
from raftkv.store.store import Store
from raftkv.wire.commands import EXPIRE_SESSIONS, PREV_KV, Answer
from raftkv.wire.settings import Settings
from tests.unit.store.stores import SESSION, Driver, append, get, increment, put

OTHER = b"session-number-2"
LIMITS = Limits(map_bytes=64 * MIB, session_window=4, session_ttl_ms=100, sessions_max=2, session_answer_bytes_max=1000)


def driver() -> Driver:
    return Driver(MemoryKeyspace(), LIMITS)


def code(answer: Answer) -> str:
    return str(answer[1]) if answer[0] else "ok"


def test_a_retry_gets_the_first_answer_and_changes_nothing() -> None:
    store = driver()
    first = store.apply(increment(b"n", 5, seq=1), increment(b"n", 5, seq=2), session=SESSION)
    retried = store.apply(increment(b"n", 5, seq=2), increment(b"n", 5, seq=1), session=SESSION)
    assert retried == [first[1], first[0]]
    assert first == [[0, 2, 5], [0, 3, 10]]
    assert store.store.revision == 3


def test_a_refusal_is_an_answer_too() -> None:
    store = driver()
    store.apply(put(b"n", b"text"))
    assert [code(answer) for answer in store.apply(increment(b"n", seq=1), session=SESSION)] == ["not_a_number"]
    store.apply(put(b"n", b"1"))
    assert [code(answer) for answer in store.apply(increment(b"n", seq=1), session=SESSION)] == ["not_a_number"]


def test_sequence_0_and_no_session_are_not_deduplicated() -> None:
    store = driver()
    store.apply(increment(b"n"), increment(b"n"), session=SESSION)
    store.apply(increment(b"n", seq=1), increment(b"n", seq=1))
    assert store.store.read(get(b"n"))[2][5] == b"4"


def test_an_unknown_session_is_made_only_when_asked() -> None:
    store = driver()
    answers = store.apply(put(b"a", seq=1), put(b"b"), session=SESSION, register=False)
    assert [code(answer) for answer in answers] == ["session_expired", "ok"]
    assert answers[0][2] is True, "an earlier attempt may have happened"
    assert store.store.sessions_count == 0
    assert code(store.apply(put(b"a", seq=1), session=SESSION)[0]) == "ok"
    assert code(store.apply(put(b"a", seq=2), session=SESSION, register=False)[0]) == "ok"


def test_the_window_moves_with_the_acknowledgements_and_never_back() -> None:
    store = driver()
    answers = store.apply(put(b"a", seq=3), put(b"a", seq=4), session=SESSION)
    assert [code(answer) for answer in answers] == ["ok", "session_window"]
    assert answers[1][2] is False, "nobody can have applied what is beyond the window"
    assert code(store.apply(put(b"a", seq=5), session=SESSION, ack_below=4)[0]) == "ok"
    below = store.apply(put(b"a", seq=3), put(b"a", seq=5), session=SESSION, ack_below=1)
    assert [code(answer) for answer in below] == ["session_window", "ok"]
    assert below[0][2] is True
    assert code(store.apply(put(b"a", seq=10**15), session=SESSION, ack_below=10**15)[0]) == "ok"


def test_too_many_sessions_are_refused_until_one_expires() -> None:
    store = driver()
    store.apply(put(b"a", seq=1), session=SESSION)
    store.apply(put(b"a", seq=1), session=OTHER)
    third = b"session-number-3"
    assert code(store.apply(put(b"a", seq=1), session=third)[0]) == "too_many_sessions"
    store.apply([EXPIRE_SESSIONS, 0], at_ms=100)
    assert code(store.apply(put(b"a", seq=1), session=third)[0]) == "ok"


def test_a_session_lives_a_ttl_after_its_last_use() -> None:
    store = driver()
    assert store.store.earliest_deadline_ms is None
    store.apply(put(b"a", seq=1), session=SESSION, at_ms=10)
    store.apply(put(b"a", seq=1), session=OTHER, at_ms=50)
    assert store.store.earliest_deadline_ms == 110
    store.apply(session=SESSION, at_ms=60)
    assert store.store.earliest_deadline_ms == 150
    assert store.apply([EXPIRE_SESSIONS, 0], at_ms=149) == [[0, 2 + 1, 0]]
    assert store.apply([EXPIRE_SESSIONS, 0], at_ms=150) == [[0, 2 + 1, 1]]
    assert code(store.apply(put(b"a", seq=1), session=OTHER, register=False)[0]) == "session_expired"
    assert code(store.apply(put(b"a", seq=1), session=SESSION, register=False)[0]) == "ok"


def test_time_never_goes_back() -> None:
    store = driver()
    store.apply(session=SESSION, at_ms=500)
    store.apply(session=SESSION, at_ms=100)
    assert (store.store.clock_ms, store.store.earliest_deadline_ms) == (500, 600)


def test_a_session_belongs_to_its_user() -> None:
    store = driver()
    store.apply(put(b"a", seq=1), session=SESSION, user="alice")
    assert code(store.apply(put(b"a", seq=1), session=SESSION, user="bob")[0]) == "invalid_request"
    assert code(store.apply(put(b"a", seq=1), session=SESSION, user="alice")[0]) == "ok"


def test_large_answers_give_way_to_a_marker_the_oldest_first() -> None:
    store = driver()
    store.apply(put(b"a", b"x" * 400))
    for sequence in (1, 2, 3):
        answer = store.apply(put(b"a", b"x" * 400, seq=sequence, flags=PREV_KV), session=SESSION)[0]
        assert len(answer[2][5]) == 400
    revision = store.store.revision
    retried = store.apply(*(put(b"a", seq=sequence) for sequence in (1, 2, 3)), session=SESSION)
    assert [code(answer) for answer in retried] == ["answer_dropped", "ok", "ok"]
    assert retried[0][2] is True
    assert store.store.revision == revision


def test_an_answer_that_is_too_large_alone_leaves_the_others() -> None:
    store = driver()
    store.apply(put(b"a", b"x" * 400))
    store.apply(put(b"a", b"x" * 1100, seq=1, flags=PREV_KV), session=SESSION)
    store.apply(put(b"a", b"", seq=2, flags=PREV_KV), session=SESSION)
    retried = store.apply(put(b"a", seq=1), put(b"a", seq=2), session=SESSION)
    assert [code(answer) for answer in retried] == ["ok", "answer_dropped"]


def test_acknowledged_answers_make_room() -> None:
    session = Session(None)
    settings = Settings(session_answer_bytes_max=1000)
    large = [0, 2, [b"x" * 600]]
    session.keep(0, large, settings)
    session.acknowledge(1)
    assert (session.answers, session.large, session.answer_bytes) == ({}, {}, 0)
    session.keep(1, large, settings)
    session.keep(2, large, settings)
    assert [session.answers[1], session.answers[2]] == [None, large]
    session.acknowledge(10**18)
    assert (session.answers, session.large, session.answer_bytes) == ({}, {}, 0)


def test_the_bytes_of_an_answer() -> None:
    assert answer_bytes([0, 2, None]) < 64
    assert answer_bytes([0, 2, [b"k" * 10, 1, 1, 1, 0, b"v" * 100]]) > 110
    assert answer_bytes([1, "code", False, "m" * 70, {"key": "v" * 50}]) > 120


def commit(store: Store) -> CommitJob:
    job = store.freeze()
    assert job is not None
    job.run()
    store.thaw(job)
    return job


def test_sessions_survive_a_restart_with_their_order_and_their_markers() -> None:
    before = driver()
    before.apply(put(b"a", b"x" * 400))
    before.apply(append(b"a", b"1", seq=1), session=OTHER, at_ms=5)
    before.apply(*(put(b"a", b"x" * 400, seq=sequence, flags=PREV_KV) for sequence in (1, 2, 3)), session=SESSION)
    commit(before.store)
    after = Driver(before.store.keyspace, LIMITS)
    assert (after.store.sessions_count, after.store.earliest_deadline_ms) == (2, before.store.earliest_deadline_ms)
    retry = [put(b"a", seq=sequence) for sequence in (1, 2, 3)]
    assert after.apply(*retry, session=SESSION) == before.apply(*retry, session=SESSION)
    assert after.apply(append(b"a", b"1", seq=1), session=OTHER) == before.apply(
        append(b"a", b"1", seq=1), session=OTHER
    )
    assert after.store.digest == before.store.digest


def test_an_expired_session_is_gone_after_a_restart_too() -> None:
    store = driver()
    store.apply(put(b"a", seq=1), session=SESSION)
    commit(store.store)
    store.apply([EXPIRE_SESSIONS, 0], at_ms=100)
    commit(store.store)
    assert store.store.keyspace.get(SESSIONS, SESSION) is None
    assert Store.open(store.store.keyspace, LIMITS).sessions_count == 0


@pytest.mark.parametrize(
    ("session", "ack_below", "user"),
    [
        (b"short", 0, None),
        ("text-of-16-chars", 0, None),
        (7, 0, None),
        (SESSION, -1, None),
        (SESSION, "1", None),
        (SESSION, 0, 1),
    ],
)
def test_a_malformed_group_is_refused(session: object, ack_below: object, user: object) -> None:
    store = driver()
    answers = store.apply(put(b"a", seq=1), session=session, ack_below=ack_below, user=user)
    assert [code(answer) for answer in answers] == ["invalid_request"]
    assert store.store.revision == 1
