"""Claims of 6.3 about clients: a command is carried out once however often it is sent, and what expires, expires everywhere."""

from raftkv.limits import MIB, Limits
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.wire.commands import EXPIRE_SESSIONS
from tests.unit.store.stores import SESSION, Driver, get, increment

LIMITS = Limits(map_bytes=64 * MIB, session_window=4, session_ttl_ms=100)


def member() -> Driver:
    return Driver(MemoryKeyspace(), LIMITS)


def test_a_command_that_comes_again_is_answered_and_not_carried_out() -> None:
    """6.3: the leader died after the commit and before the answer, so the client sends its command again, to the next leader."""
    store = member()
    (first,) = store.apply(increment(b"n", 1, seq=1), session=SESSION)
    store.apply(increment(b"n", 1, seq=2), session=SESSION)
    (again,) = store.apply(increment(b"n", 1, seq=1), session=SESSION)
    assert again == first, "the answer of then, not one of now"
    assert store.store.read(get(b"n"))[2][5] == b"2"


def test_without_a_session_the_same_command_counts_twice() -> None:
    """6.3: the counterexample: at-least-once is no linearizability."""
    store = member()
    store.apply(increment(b"n"), increment(b"n"))
    assert store.store.read(get(b"n"))[2][5] == b"2"


def test_all_members_agree_on_which_sessions_are_gone() -> None:
    """6.3: expiry is a command of the log, and goes by the leader's time in its entry, never by a member's own clock."""
    members = [member(), member()]
    for store in members:
        store.apply(increment(b"n", 1, seq=1), session=SESSION, at_ms=10)
        store.apply([EXPIRE_SESSIONS, 0], at_ms=109)
        assert store.store.sessions_count == 1
        store.apply([EXPIRE_SESSIONS, 0], at_ms=110)
        assert store.store.sessions_count == 0
        (answer,) = store.apply(increment(b"n", 1, seq=1), session=SESSION, register=False)
        assert answer[1] == "session_expired", "nobody knows any more whether it was carried out"
        assert answer[2] is True
        assert store.store.read(get(b"n"))[2][5] == b"1"
    assert members[0].store.digest == members[1].store.digest
