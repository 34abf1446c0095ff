"""Guarded writes: done iff the lock that their writer holds is still the same one."""

from typing import Any

import pytest

from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.wire.commands import GUARDED, LEASE_GRANT, LEASE_REVOKE, Answer
from tests.unit.store.stores import LIMITS, SESSION, Driver, append, delete, get, increment, put, txn


def guarded(guards: Any, inner: Any, *, seq: int = 0) -> list[Any]:
    return [GUARDED, seq, guards, inner]


def code(answer: Answer) -> str:
    return str(answer[1]) if answer[0] else "ok"


@pytest.fixture
def store() -> Driver:
    """With a lock created at revision 2 and written since."""
    driver = Driver(MemoryKeyspace(), LIMITS)
    driver.apply(put(b"lock", b"mine"), put(b"lock", b"mine still"))
    return driver


@pytest.mark.parametrize(
    ("inner", "rest"),
    [
        (put(b"k"), [None]),
        (delete(b"lock"), [1, []]),
        (txn([], [put(b"k")], []), [True, [[1, 4, None]]]),
        (increment(b"n", 3), [3]),
        (append(b"k", b"xy"), [2]),
    ],
)
def test_a_guard_that_holds_lets_the_write_through(store: Driver, inner: list[Any], rest: list[Any]) -> None:
    assert store.apply(guarded([[b"lock", 2]], inner)) == [[0, 4, *rest]]


@pytest.mark.parametrize(("guard", "actual"), [([b"lock", 3], 2), ([b"gone", 2], 0)])
def test_a_stale_guard_refuses_it_and_says_what_is_there(store: Driver, guard: list[Any], actual: int) -> None:
    (answer,) = store.apply(guarded([[b"lock", 2], guard], put(b"k")))
    assert answer[1:3] == ["fencing_token_stale", False]
    assert answer[4] == {"key": guard[0], "create_revision": guard[1], "actual": actual}
    assert store.keys() == [b"lock"]


def test_the_lock_of_somebody_else_is_another_lock(store: Driver) -> None:
    store.apply(delete(b"lock"), put(b"lock", b"theirs"))
    assert code(store.apply(guarded([[b"lock", 2]], put(b"k")))[0]) == "fencing_token_stale"
    assert code(store.apply(guarded([[b"lock", 5]], put(b"k")))[0]) == "ok"


def test_a_lock_that_ends_with_its_lease_takes_the_guard_along(store: Driver) -> None:
    store.apply([LEASE_GRANT, 0, 7, 5000], put(b"lock", lease=7))
    assert code(store.apply(guarded([[b"lock", 2]], put(b"k")))[0]) == "ok"
    store.apply([LEASE_REVOKE, 0, 7])
    assert code(store.apply(guarded([[b"lock", 2]], put(b"k")))[0]) == "fencing_token_stale"


def test_a_retry_gets_the_first_answer_whatever_became_of_the_lock(store: Driver) -> None:
    first = store.apply(guarded([[b"lock", 2]], increment(b"n"), seq=1), session=SESSION)
    refused = store.apply(guarded([[b"lock", 9]], increment(b"n"), seq=2), session=SESSION)
    store.apply(delete(b"lock"))
    assert store.apply(guarded([[b"lock", 2]], increment(b"n"), seq=1), session=SESSION) == first
    assert store.apply(guarded([[b"lock", 9]], increment(b"n"), seq=2), session=SESSION) == refused
    assert store.store.read(get(b"n"))[2][5] == b"1"


def test_an_error_of_the_write_inside_is_its_own(store: Driver) -> None:
    store.apply(put(b"n", b"text"))
    assert code(store.apply(guarded([[b"lock", 2]], increment(b"n")))[0]) == "not_a_number"
    assert code(store.apply(guarded([[b"lock", 2]], put(b"k", lease=99)))[0]) == "lease_not_found"


@pytest.mark.parametrize(
    "command",
    [
        guarded([], put(b"k")),
        guarded([[b"lock", 0]], put(b"k")),
        guarded([[b"lock"]], put(b"k")),
        guarded([["lock", 2]], put(b"k")),
        guarded([[b"lock", 2]], put(b"k", seq=1)),
        guarded([[b"lock", 2]], [LEASE_REVOKE, 0, 7]),
        guarded([[b"lock", 2]], guarded([[b"lock", 2]], put(b"k"))),
        guarded([[b"lock", 2]], None),
        guarded({}, put(b"k")),
        [GUARDED, 0, [[b"lock", 2]]],
    ],
)
def test_what_is_malformed_changes_nothing(store: Driver, command: list[Any]) -> None:
    assert code(store.apply(command)[0]) == "invalid_request"
    assert store.keys() == [b"lock"]


def test_the_limits_of_the_write_inside_hold(store: Driver) -> None:
    assert code(store.apply(guarded([[b"lock", 2]], put(b"")))[0]) == "key_empty"
    many = [[b"lock", 2]] * 129
    assert code(store.apply(guarded(many, put(b"k")))[0]) == "too_many_operations"
