"""The judges of elections: terms in order, nobody who speaks for a term that is over, observers who hear the truth in order."""

import pytest

from raftkv_jepsen.checkers.elections import CAMPAIGN, LEADER, OBSERVED, PROCLAIM
from raftkv_jepsen.checkers.locks import HOLD
from raftkv_jepsen.checkers.verdict import INVALID, VALID
from raftkv_jepsen.history import Operation
from raftkv_jepsen.workloads.elections import Elections
from tests.unit.jepsen.histories import operation, refused

KEY = "elections/0"


def campaign(value: str, token: int | None, begin: int, end: int | None, process: int = 0) -> Operation:
    return operation(CAMPAIGN, value, token, at=(begin, end), key=KEY, process=process)


def hold(token: int, begin: int, end: int, process: int = 0) -> Operation:
    return operation(HOLD, token, at=(begin, end), key=KEY, process=process)


def proclaim(token: int, value: str, begin: int, end: int | None) -> Operation:
    return operation(PROCLAIM, [token, value], at=(begin, end), key=KEY)


def heard(token: int, value: str, revision: int, at: int, *, session: int = 0, process: int = 9) -> Operation:
    return operation(OBSERVED, session, [token, value, revision], at=(at, at), key=KEY, process=process)


def leader(token: int, value: str, revision: int, begin: int, end: int) -> Operation:
    return operation(LEADER, None, [token, value, revision], at=(begin, end), key=KEY, process=8)


def two_terms() -> list[Operation]:
    """The second candidate came while the first one was in office; a proclamation lies between."""
    return [
        campaign("a", 5, 0, 10),
        hold(5, 11, 30),
        proclaim(5, "b", 15, 20),
        campaign("c", 7, 12, 40, process=1),
        hold(7, 41, 60, process=1),
    ]


def words(*operations: Operation) -> list[str]:
    return [verdict.word for verdict in Elections.check([*two_terms(), *operations])]


def test_terms_that_follow_each_other_are_let_go() -> None:
    assert words(heard(5, "a", 5, 12), heard(5, "b", 9, 21), heard(7, "c", 7, 42)) == [VALID, VALID]
    assert words(leader(5, "b", 9, 25, 45), leader(7, "c", 7, 45, 50)) == [VALID, VALID]


def test_two_in_office_at_once() -> None:
    assert words(hold(9, 50, 55, process=2))[0] == INVALID


@pytest.mark.parametrize(
    "late", [proclaim(5, "x", 45, 50), leader(5, "a", 5, 45, 50), campaign("x", 6, 45, 50), hold(5, 61, 70)]
)
def test_a_term_that_is_over_does_not_come_back(late: Operation) -> None:
    assert words(late)[1] == INVALID


def test_what_an_observer_knows_others_may_not_contradict() -> None:
    seen_early = heard(7, "c", 7, 39)
    assert words(seen_early, proclaim(5, "x", 39, 41))[1] == VALID, "at the same time"
    assert words(seen_early, proclaim(5, "x", 40, 41))[1] == INVALID


def test_a_proclamation_of_which_nobody_knows_says_nothing() -> None:
    assert words(proclaim(5, "x", 45, None)) == [VALID, VALID]
    assert words(refused(proclaim(5, "x", 45, 50))) == [VALID, VALID]


def test_a_token_is_given_once() -> None:
    assert words(campaign("x", 7, 41, 50))[1] == INVALID


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        (heard(7, "c", 7, 42), heard(5, "b", 9, 43), INVALID),  # an earlier term after a later one
        (heard(5, "b", 9, 42), heard(5, "a", 5, 43), INVALID),  # an earlier word after a later one
        (heard(5, "a", 5, 42), heard(5, "a", 5, 43), INVALID),  # twice
        (heard(5, "a", 5, 42), heard(5, "a", 5, 43, session=1), VALID),  # whoever begins anew is told what is
        (heard(5, "a", 5, 42), heard(5, "a", 5, 43, process=3), VALID),  # another observer
    ],
)
def test_an_observer_hears_in_order(first: Operation, second: Operation, word: str) -> None:
    assert words(first, second)[1] == word


@pytest.mark.parametrize(
    "word",
    [
        heard(5, "nobody's", 9, 42),
        heard(7, "b", 9, 42),  # said in another term
        leader(5, "a", 9, 25, 30),  # at the revision at which another word was heard
    ],
)
def test_what_is_heard_was_said_in_that_term_and_at_one_revision(word: Operation) -> None:
    told = heard(5, "b", 9, 23, process=3)
    assert words(told)[1] == VALID
    assert words(told, word)[1] == INVALID


def test_a_candidate_that_came_anew_may_have_led_before() -> None:
    again = campaign("d", 12, 41, 90, process=2)
    assert words(again, heard(9, "d", 9, 70)) == [VALID, VALID]
    assert words(again, heard(13, "d", 13, 95))[1] == INVALID


def test_what_was_refused_is_not_heard() -> None:
    assert words(refused(proclaim(7, "x", 45, 50)), heard(7, "x", 60, 61))[1] == INVALID
