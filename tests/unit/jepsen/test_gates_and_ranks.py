"""The judges of gates and of a rendezvous's ranks."""

import pytest

from raftkv_jepsen.checkers.meetings import ENTER
from raftkv_jepsen.checkers.models import CLOSE, INCREMENT, OPEN, READ, WAIT
from raftkv_jepsen.checkers.ranks import GATHER, TELL
from raftkv_jepsen.checkers.verdict import INVALID, VALID
from raftkv_jepsen.history import Operation
from raftkv_jepsen.workloads.gates import Gates
from raftkv_jepsen.workloads.ranks import Ranks
from tests.unit.jepsen.histories import operation, refused


def gate(*operations: Operation) -> str:
    (verdict,) = Gates.check(operations)
    return verdict.word


def close(begin: int, end: int | None, *, was_open: bool = True) -> Operation:
    return operation(CLOSE, None, was_open, at=(begin, end))


def opened(begin: int, end: int | None, *, was_closed: bool = True) -> Operation:
    return operation(OPEN, None, was_closed, at=(begin, end))


def wait(begin: int, end: int | None) -> Operation:
    return operation(WAIT, at=(begin, end))


def test_nobody_comes_through_a_closed_gate() -> None:
    assert gate(close(0, 10), wait(20, 30)) == INVALID
    assert gate(close(0, 10), wait(5, 30)) == VALID, "it came through before"
    assert gate(close(0, 10), opened(15, 25), wait(12, 30)) == VALID
    assert gate(close(0, 10), opened(35, 45), wait(12, 30)) == INVALID


def test_open_questions_about_a_gate() -> None:
    assert gate(close(0, None), wait(20, 30)) == VALID
    assert gate(close(0, 10), opened(15, None), wait(20, 30)) == VALID
    assert gate(close(0, 10), refused(opened(15, 18)), wait(20, 30)) == INVALID
    assert gate(close(0, 10), refused(wait(20, 30))) == VALID, "who gave up proves nothing"


def test_whoever_closes_or_opens_is_told_the_truth() -> None:
    assert gate(close(0, 10), close(20, 30)) == INVALID
    assert gate(close(0, 10), close(20, 30, was_open=False)) == VALID
    assert gate(opened(0, 10)) == INVALID
    assert gate(close(0, 10), operation(READ, None, False, at=(20, 30))) == INVALID


def tell(address: str, begin: int, end: int | None) -> Operation:
    return operation(TELL, address, at=(begin, end))


def gather(addresses: list[str], begin: int, end: int) -> Operation:
    return operation(GATHER, 2, addresses, at=(begin, end))


def ranks(*operations: Operation) -> list[str]:
    begin = [operation(INCREMENT, 1, 1, at=(0, 1)), operation(INCREMENT, 1, 2, at=(2, 3), process=1)]
    return [verdict.word for verdict in Ranks.check([*begin, *operations])]


def test_a_round_in_which_all_hear_of_all() -> None:
    told = [tell("1@a", 10, 20), tell("2@b", 10, 20)]
    heard = [gather(["1@a", "2@b"], 15, 30), gather(["1@a", "2@b"], 25, 40)]
    met = [operation(ENTER, 2, at=(40, 50)), operation(ENTER, 2, at=(45, 50), process=1)]
    assert ranks(*told, *heard, *met) == [VALID] * 3


@pytest.mark.parametrize(
    "heard",
    [
        gather(["1@a", "2@x"], 15, 30),  # nobody has said so
        gather(["2@b", "1@a"], 15, 30),  # in each other's place
        gather(["1@a"], 15, 30),  # not all
        gather(["1@a", "2@b"], 0, 5),  # before they had said it
    ],
)
def test_what_is_heard_of_others_is_what_they_said(heard: Operation) -> None:
    assert ranks(tell("1@a", 10, 20), tell("2@b", 10, 20), heard)[1] == INVALID


def test_two_hear_the_same() -> None:
    told = [tell("1@a", 10, 20), tell("1@c", 10, 20), tell("2@b", 10, 20)]
    assert ranks(*told, gather(["1@a", "2@b"], 25, 30), gather(["1@c", "2@b"], 25, 30))[1] == INVALID


def test_two_with_one_rank_and_a_barrier_that_lets_one_through_alone() -> None:
    assert ranks(operation(INCREMENT, 1, 2, at=(5, 6)))[0] == INVALID
    assert ranks(operation(ENTER, 2, at=(40, 50)))[2] == INVALID


def test_nobody_goes_on_in_a_life_that_is_over() -> None:
    first = [
        operation(INCREMENT, 1, 1, at=(0, 1), key="ranks/7.5"),
        operation(INCREMENT, 1, 2, at=(2, 3), key="ranks/7.5"),
    ]
    second = operation(INCREMENT, 1, 1, at=(20, 30), key="ranks/7.90", process=2)
    assert [verdict.word for verdict in Ranks.check([*first, second])] == [VALID] * 3, "a life of its own"
    under_way = operation(TELL, "1@a", at=(25, 40), key="ranks/7.5")
    assert Ranks.check([*first, second, under_way])[1].word == VALID, "it may have been served before"
    late = operation(TELL, "1@a", at=(35, 40), key="ranks/7.5")
    assert Ranks.check([*first, second, late])[1].word == INVALID
    assert Ranks.check([*first, second, refused(late)])[1].word == VALID
    mixed = operation(INCREMENT, 1, 1, at=(20, 30), key="ranks/7.5", process=2)
    assert Ranks.check([*first, mixed])[0].word == INVALID
    alone = operation(ENTER, 2, at=(40, 50), key="ranks/7.90", process=2)
    there = operation(ENTER, 2, at=(10, 50), key="ranks/7.5")
    assert Ranks.check([*first, second, there, alone])[2].word == INVALID, "who came in another life has not come"
