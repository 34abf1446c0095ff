"""The judge is judged first: histories whose truth is known, a dumb twin on all small ones, and thousands of operations in seconds."""

import itertools
import random
import time
from typing import Any, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv_jepsen.checkers.linearizability import analyse, check_linearizable
from raftkv_jepsen.checkers.models import APPENDS, CAS, COUNTER, INCREMENT, READ, REGISTER, TRANSACTIONS, TXN, Model
from raftkv_jepsen.checkers.verdict import INVALID, UNKNOWN, VALID
from raftkv_jepsen.history import INFO, NEVER_NS, OK, Operation

from .histories import cas, operation, read, recorded, refused, write

GOOD = {
    "empty": [],
    "one after the other": [write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)],
    "never written": [read(None, 0, 1)],
    "concurrent write seen early": [write(1, 0, 10), read(1, 1, 2)],
    "concurrent write seen late": [write(1, 0, 10), read(None, 1, 2), read(1, 3, 4)],
    "two concurrent writes, either last": [write(1, 0, 10), write(2, 0, 10), read(1, 11, 12)],
    "open write seen much later": [write(1, 0, 1), write(2, 2, None), read(1, 3, 4), read(2, 100, 101), read(2, 102, 103)],
    "open write never seen": [write(1, 0, 1), write(2, 2, None), read(1, 3, 4), read(1, 100, 101)],
    "open compare-and-set": [write(1, 0, 1), cas(1, 2, None, 2, None), read(1, 3, 4), read(2, 5, 6)],
    "same open write twice, seen twice": [
        write(1, 0, None), write(1, 0, None), read(1, 1, 2), write(2, 3, 4), read(2, 5, 6), read(1, 7, 8),
    ],
    "refused write unseen": [write(1, 0, 1), refused(write(2, 2, 3)), read(1, 4, 5)],
    "failed compare-and-set": [write(1, 0, 1), cas(2, 3, False, 2, 3), read(1, 4, 5)],
    "an open write explains a failed compare-and-set": [
        write(1, 0, 1), write(2, 0, None), cas(1, 3, False, 2, 3), read(2, 4, 5),
    ],
    "read that never returned": [write(1, 0, 1), read(9, 2, None), read(1, 3, 4)],
}  # fmt: skip

BAD = {
    "stale read": [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
    "lost write": [write(1, 0, 1), read(None, 2, 3)],
    "value from nowhere": [write(1, 0, 1), read(7, 2, 3)],
    "read goes back": [write(1, 0, 1), write(2, 2, 20), read(2, 3, 4), read(1, 5, 6)],
    "two readers disagree on the order": [
        write(1, 0, 50), write(2, 0, 50), read(1, 51, 52), read(2, 53, 54), read(1, 55, 56),
    ],
    "refused write seen": [write(1, 0, 1), refused(write(2, 2, 3)), read(2, 4, 5)],
    "open write seen before it began": [read(2, 0, 1), write(2, 2, None)],
    "open write applied twice": [write(2, 0, None), read(2, 1, 2), write(1, 3, 4), read(1, 5, 6), read(2, 7, 8)],
    "two winners of one compare-and-set": [write(0, 0, 1), cas(0, 1, True, 2, 10), cas(0, 2, True, 2, 10)],
    "compare-and-set failed without a reason": [write(1, 0, 1), cas(1, 2, False, 2, 3)],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_are_valid(name: str) -> None:
    assert check_linearizable(GOOD[name], REGISTER).word == VALID


@pytest.mark.parametrize("name", BAD)
def test_bad_histories_are_invalid_and_say_what_fits_nowhere(name: str) -> None:
    verdict = check_linearizable(BAD[name], REGISTER)
    assert verdict.word == INVALID
    assert "no order explains" in verdict.faults[0]
    assert verdict.evidence


def test_the_evidence_ends_with_the_operation_that_fits_nowhere() -> None:
    history = [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5), read(1, 6, 7)]
    assert check_linearizable(history, REGISTER).evidence[-1] is history[2]


def test_keys_are_judged_apart() -> None:
    history = [operation("write", 1, at=(0, 1), key="a"), operation("write", 2, at=(2, 3), key="b"),
               operation("read", None, 1, at=(4, 5), key="a"), operation("read", None, None, at=(4, 5), key="b")]  # fmt: skip
    verdict = check_linearizable(history, REGISTER)
    assert verdict.word == INVALID
    assert verdict.faults[0].startswith("b: ")


def counted(value: int, at: tuple[int, int | None], delta: int = 1) -> Operation:
    return operation(INCREMENT, delta, value, at=at)


def test_a_counter_that_applies_a_retry_twice_is_invalid() -> None:
    assert check_linearizable([counted(1, (0, 1)), counted(3, (2, 3))], COUNTER).word == INVALID
    assert check_linearizable([counted(1, (0, 1)), counted(0, (0, None)), counted(3, (2, 3))], COUNTER).word == VALID


def test_two_answers_with_one_number_are_invalid() -> None:
    assert check_linearizable([counted(1, (0, 9)), counted(1, (0, 9))], COUNTER).word == INVALID


def test_an_append_that_vanishes_or_comes_twice_is_invalid() -> None:
    appended = [operation("append", 1, 1, at=(0, 1)), operation("append", 2, 2, at=(2, 3))]
    for seen, word in (([1, 2], VALID), ([2], INVALID), ([1, 2, 2], INVALID), ([2, 1], INVALID)):
        assert check_linearizable([*appended, operation("read", None, seen, at=(4, 5))], APPENDS).word == word


def txn(at: tuple[int, int | None], read: dict[str, Any], write: dict[str, Any], succeeded: bool = True) -> Operation:
    return operation(TXN, {"write": write}, [succeeded, read], at=at)


def test_write_skew_is_invalid_and_serial_transactions_are_not() -> None:
    empty = {"a": None, "b": None}
    first = txn((0, 10), empty, {"a": 1})
    skewed = txn((0, 10), empty, {"b": 1})
    serial = txn((0, 10), {"a": 1, "b": None}, {"b": 1})
    assert check_linearizable([first, skewed], TRANSACTIONS).word == INVALID
    assert check_linearizable([first, serial], TRANSACTIONS).word == VALID


def test_a_torn_read_of_two_keys_is_invalid() -> None:
    both = txn((0, 1), {"a": None, "b": None}, {"a": 1, "b": 1})
    torn = operation(READ, None, [True, {"a": 1, "b": None}], at=(2, 3))
    assert check_linearizable([both, torn], TRANSACTIONS).word == INVALID


def explained_by_some_order(history: Sequence[Operation], model: Model) -> bool:
    """The dumb twin: every subset of the open operations, every permutation."""
    completed = [done for done in history if done.outcome == OK]
    opened = [done for done in history if done.outcome == INFO]
    for count in range(len(opened) + 1):
        for chosen in itertools.combinations(opened, count):
            if any(_explains(order, model) for order in itertools.permutations([*completed, *chosen])):
                return True
    return False


def _explains(order: Sequence[Operation], model: Model) -> bool:
    state = model.initial
    for position, done in enumerate(order):
        if any(later.completed_ns < done.invoked_ns for later in order[position + 1 :]):
            return False
        fits, state = model.step(state, done)
        if not fits:
            return False
    return True


@st.composite
def register_histories(draw: st.DrawFn) -> list[Operation]:
    history = []
    for _ in range(draw(st.integers(1, 5))):
        begin = draw(st.integers(0, 12))
        end = None if draw(st.booleans()) and draw(st.booleans()) else begin + draw(st.integers(1, 8))
        value = draw(st.integers(0, 2))
        kind = draw(st.sampled_from(("read", "write", "cas")))
        if kind == CAS:
            history.append(cas(draw(st.integers(0, 2)), value, draw(st.booleans()), begin, end))
        else:
            history.append(operation(kind, value, draw(st.sampled_from((None, 0, 1, 2))), at=(begin, end)))
    return history


@settings(max_examples=600)
@given(register_histories())
def test_the_search_agrees_with_the_dumb_twin(history: list[Operation]) -> None:
    assert analyse(history, REGISTER).linearizable == explained_by_some_order(history, REGISTER)


@pytest.mark.parametrize("model", [REGISTER, COUNTER, APPENDS], ids=lambda model: model.name)
@pytest.mark.parametrize("seed", range(15))
def test_what_a_correct_store_answers_is_valid(model: Model, seed: int) -> None:
    assert check_linearizable(recorded(model, random.Random(seed), count=300), model).word == VALID


@pytest.mark.parametrize("model", [REGISTER, COUNTER, APPENDS], ids=lambda model: model.name)
@pytest.mark.parametrize("seed", range(5))
def test_stale_reads_are_caught(model: Model, seed: int) -> None:
    history = recorded(model, random.Random(seed), count=300, stale_share=0.3)
    assert check_linearizable(history, model).word == INVALID


def test_thousands_of_operations_take_seconds() -> None:
    history = recorded(REGISTER, random.Random(1), count=20_000, processes=12, keys=40, open_share=0.03)
    began_s = time.process_time()
    assert check_linearizable(history, REGISTER).word == VALID
    assert time.process_time() - began_s < 30, "a search that explodes, whatever the machine"


def test_a_search_that_exceeds_its_bound_says_unknown() -> None:
    history = recorded(REGISTER, random.Random(3), count=300)
    verdict = check_linearizable(history, REGISTER, configurations_max=20)
    assert verdict.word == UNKNOWN
    assert "not decided" in verdict.faults[0]


def test_open_operations_have_no_end() -> None:
    assert all(
        done.completed_ns == NEVER_NS for done in recorded(COUNTER, random.Random(0), count=200) if done.outcome == INFO
    )


@st.composite
def append_histories(draw: st.DrawFn) -> list[Operation]:
    history = []
    for item in range(draw(st.integers(1, 5))):
        begin = draw(st.integers(0, 12))
        end = None if draw(st.booleans()) and draw(st.booleans()) else begin + draw(st.integers(1, 8))
        if draw(st.booleans()):
            history.append(operation("append", item, draw(st.sampled_from((None, 1, 2, 3))), at=(begin, end)))
        else:
            seen = draw(st.lists(st.integers(0, 4), max_size=3, unique=True))
            history.append(operation("read", None, seen, at=(begin, end)))
    return history


@settings(max_examples=600)
@given(append_histories())
def test_the_shortcut_for_lists_agrees_with_the_dumb_twin(history: list[Operation]) -> None:
    assert analyse(history, APPENDS).linearizable == explained_by_some_order(history, APPENDS)
