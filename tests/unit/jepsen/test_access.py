"""The judges of users and roles: good histories are let go, and each way of letting somebody in too late or too early is found."""

from typing import Any

import pytest

from raftkv_jepsen.checkers.access import (
    ACCESS,
    ALLOWED,
    DENIED,
    DONE,
    FORBID,
    GRANT,
    NO,
    OVERHEARD,
    PASSWORD,
    PERMIT,
    REVOKE,
    ROLE_ADD,
    ROLE_DELETE,
    ROOT_WRITE,
    USER_ADD,
    USER_DELETE,
    check_access,
)
from raftkv_jepsen.checkers.verdict import INVALID, VALID
from raftkv_jepsen.history import Operation
from tests.unit.jepsen.histories import operation, refused

BEGIN = 100
"""From here on nothing of `subject` is under way."""


def change(function: str, argument: Any, begin: int, end: int | None, result: str = DONE) -> Operation:
    return operation(function, argument, result, at=(begin, end), key="auth/0")


def access(result: str, begin: int, end: int | None, *, what: str = "read", password: str = "p1") -> Operation:
    return operation(ACCESS, ["native", what, password], result, at=(begin, end), key="auth/0", process=1)


def subject() -> list[Operation]:
    """A user that may read and write."""
    steps = [(ROLE_ADD, None), (USER_ADD, "p1"), (GRANT, None), (PERMIT, "readwrite")]
    return [change(function, argument, 10 * n, 10 * n + 5) for n, (function, argument) in enumerate(steps)]


def words(*operations: Operation) -> list[str]:
    return [verdict.word for verdict in check_access([*subject(), *operations])]


TAKEN = [(REVOKE, None), (FORBID, None), (PERMIT, "write"), (USER_DELETE, None), (ROLE_DELETE, None), (PASSWORD, "p2")]


@pytest.mark.parametrize(("function", "argument"), TAKEN)
def test_what_was_taken_back_lets_nobody_in_who_comes_later(function: str, argument: Any) -> None:
    taken = change(function, argument, 100, 110)
    assert words(taken, access(ALLOWED, 120, 130)) == [INVALID, INVALID]
    assert words(taken, access(DENIED, 120, 130)) == [VALID, VALID]


@pytest.mark.parametrize(("function", "argument"), TAKEN)
@pytest.mark.parametrize("result", [ALLOWED, DENIED])
def test_at_the_same_time_both_may_happen(function: str, argument: Any, result: str) -> None:
    assert words(change(function, argument, 100, 125), access(result, 120, 130)) == [VALID, VALID]


@pytest.mark.parametrize(("function", "argument"), TAKEN)
@pytest.mark.parametrize("result", [ALLOWED, DENIED])
def test_a_change_of_which_nobody_knows_is_open(function: str, argument: Any, result: str) -> None:
    assert words(change(function, argument, 100, None), access(result, 120, 130)) == [VALID, VALID]


@pytest.mark.parametrize(("function", "argument"), TAKEN)
def test_an_open_change_happens_once(function: str, argument: Any) -> None:
    taken = change(function, argument, 100, None)
    assert words(taken, access(DENIED, 120, 130), access(ALLOWED, 140, 150))[0] == INVALID
    assert words(taken, access(ALLOWED, 120, 130), access(DENIED, 140, 150)) == [VALID, VALID]


def test_a_refused_change_has_taken_nothing() -> None:
    assert words(refused(change(REVOKE, None, 100, 110)), access(ALLOWED, 120, 130)) == [VALID, VALID]
    assert words(refused(change(REVOKE, None, 100, 110)), access(DENIED, 120, 130))[0] == INVALID


def test_before_the_grant_nobody_is_let_in() -> None:
    early = access(ALLOWED, 12, 13)
    assert words(early) == [INVALID, INVALID]
    assert words(access(DENIED, 12, 13)) == [VALID, VALID]


def test_who_may_is_not_turned_away() -> None:
    assert words(access(DENIED, 120, 130))[0] == INVALID
    assert words(access(ALLOWED, 120, 130)) == [VALID, VALID]


def test_a_password_that_nobody_gave_opens_nothing() -> None:
    assert words(access(ALLOWED, 120, 130, password="p9")) == [INVALID, INVALID]


def test_the_old_password_is_refused_and_the_new_one_taken() -> None:
    new = change(PASSWORD, "p2", 100, 110)
    assert words(new, access(ALLOWED, 120, 130, password="p2"), access(DENIED, 131, 140)) == [VALID, VALID]


def test_a_user_that_was_deleted_and_made_anew_has_no_role() -> None:
    again = [change(USER_DELETE, None, 100, 110), change(USER_ADD, "p2", 120, 130)]
    assert words(*again, access(ALLOWED, 140, 150, password="p2")) == [INVALID, INVALID]
    granted = change(GRANT, None, 135, 138)
    assert words(*again, granted, access(ALLOWED, 140, 150, password="p2")) == [VALID, VALID]
    assert words(*again, granted, access(ALLOWED, 140, 150, password="p1")) == [INVALID, INVALID]


def test_reading_is_not_writing() -> None:
    only = change(PERMIT, "read", 100, 110)
    assert words(only, access(ALLOWED, 120, 130), access(DENIED, 120, 130, what="write")) == [VALID, VALID]
    assert words(only, access(ALLOWED, 120, 130, what="write")) == [INVALID, INVALID]


def test_a_change_for_which_things_are_not_so_says_so() -> None:
    assert words(change(USER_ADD, "p2", 100, 110, NO)) == [VALID, VALID]
    assert words(change(USER_ADD, "p2", 100, 110))[0] == INVALID, "there was one"
    assert words(change(REVOKE, None, 100, 110, NO))[0] == INVALID, "there was something to revoke"


def overheard(value: str, at: int) -> Operation:
    return operation(OVERHEARD, ["native", "read", "p1", value], at=(at, at), key="auth/0", process=2)


def written(value: str, begin: int, end: int) -> Operation:
    return operation(ROOT_WRITE, [ROOT_WRITE, "write", "", value], at=(begin, end), key="auth/0", process=3)


def test_a_watcher_hears_nothing_of_what_was_written_after_its_permission_was_gone() -> None:
    gone = change(PASSWORD, "p2", 100, 110)
    assert words(gone, written("v", 105, 130), overheard("v", 140)) == [VALID, VALID], "the write may have been before"
    assert words(gone, written("v", 120, 130), overheard("v", 140)) == [VALID, INVALID]
    assert words(change(PASSWORD, "p2", 100, None), written("v", 120, 130), overheard("v", 140)) == [VALID, VALID]


def test_who_was_not_judged_says_nothing() -> None:
    assert words(change(REVOKE, None, 100, 110), refused(access(ALLOWED, 120, 130))) == [VALID, VALID]
