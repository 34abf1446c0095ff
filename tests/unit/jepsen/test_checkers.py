"""Each checker on a good history and on one that breaks each of its promises: a checker that cannot say no says nothing."""

from typing import Any

import pytest

from raftkv_jepsen.checkers.leases import ATTACH, GRANT, RENEW, REVOKE, check_leases
from raftkv_jepsen.checkers.locks import ACQUIRE, GUARDED, HOLD, check_exclusion, check_fencing
from raftkv_jepsen.checkers.meetings import check_meetings
from raftkv_jepsen.checkers.members import check_agreement, check_crashes, check_logs
from raftkv_jepsen.checkers.queues import ACKNOWLEDGE, CLAIM, PUT, check_queue
from raftkv_jepsen.checkers.revisions import check_revisions
from raftkv_jepsen.checkers.sets import ADD, check_sets
from raftkv_jepsen.checkers.shares import check_capacity
from raftkv_jepsen.checkers.sums import check_sums
from raftkv_jepsen.checkers.verdict import INVALID, UNKNOWN, VALID
from raftkv_jepsen.checkers.watches import HEAR, check_watches
from raftkv_jepsen.history import FAIL, INFO, NEVER_NS, OK, Operation

S = 1_000_000_000


def op(
    function: str, key: str, argument: Any, result: Any, at: tuple[float, float], outcome: str = OK, process: int = 0
) -> Operation:
    """Times in seconds."""
    completed_ns = NEVER_NS if outcome == INFO else int(at[1] * S)
    return Operation(process, function, key, argument, outcome, result, int(at[0] * S), completed_ns)


# Counters.

STEPS = [
    op("increment", "c", 1, 1, (0, 1)),
    op("increment", "c", 1, 2, (2, 3)),
    op("increment", "c", 1, None, (4, 5), INFO),
]


@pytest.mark.parametrize(("value", "word"), [(None, INVALID), (1, INVALID), (2, VALID), (3, VALID), (4, INVALID)])
def test_a_counter_lies_between_what_was_acknowledged_and_what_was_begun(value: int | None, word: str) -> None:
    assert check_sums([*STEPS, op("read", "c", None, value, (6, 7))]).word == word


def test_two_increments_never_return_the_same() -> None:
    assert check_sums([STEPS[0], op("increment", "c", 1, 1, (2, 3))]).word == INVALID


# Sets.

ADDS = [op(ADD, "s", 1, 10, (0, 1)), op(ADD, "s", 2, None, (0, 1), FAIL), op(ADD, "s", 3, None, (0, 1), INFO)]


@pytest.mark.parametrize(
    ("held", "word", "why"),
    [
        ([1], VALID, ""),
        ([1, 3], VALID, "what stayed unknown may be there"),
        ([], INVALID, "missing"),
        ([1, 2], INVALID, "refused"),
        ([1, 9], INVALID, "nobody added"),
        ([1, 1], INVALID, "twice"),
    ],
)
def test_a_set_holds_what_was_added(held: list[int], word: str, why: str) -> None:
    verdict = check_sets([*ADDS, op("read", "s", None, held, (2, 3))])
    assert verdict.word == word
    assert word == VALID or why in verdict.faults[0]


def test_what_one_read_saw_the_next_one_sees() -> None:
    reads = [op("read", "s", None, [1, 3], (2, 3)), op("read", "s", None, [1], (4, 5))]
    assert check_sets([*ADDS, *reads]).word == INVALID
    overlapping = [op("read", "s", None, [1, 3], (2, 5)), op("read", "s", None, [1], (4, 6))]
    assert check_sets([*ADDS, *overlapping]).word == VALID


# Watches.

WRITES = [
    op("write", "watch/a", "1", 2, (0, 1)),
    op("txn", "watch/all", {"watch/a": "2", "watch/b": "3"}, 3, (2, 3)),
    op("write", "watch/b", "4", None, (4, 5), INFO),
    op("write", "watch/b", "5", None, (4, 5), FAIL),
    op("write", "watch/b", "6", 5, (6, 7)),
]
FIRST = [2, [["put", "watch/a", "1", None]]]
BOTH = [3, [["put", "watch/a", "2", "1"], ["put", "watch/b", "3", None]]]
MAYBE = [4, [["put", "watch/b", "4", "3"]]]
LAST = [5, [["put", "watch/b", "6", "4"]]]


def hear(*batches: list[Any], by: str = "watch/by-1") -> list[Operation]:
    return [op(HEAR, by, None, batch, (8 + number, 8 + number)) for number, batch in enumerate(batches)]


@pytest.mark.parametrize(
    ("batches", "word", "why"),
    [
        ([FIRST, BOTH, MAYBE, LAST], VALID, ""),
        ([FIRST, BOTH, [4, []], [5, [["put", "watch/b", "6", "3"]]]], VALID, "the unknown write never happened"),
        ([FIRST, BOTH], VALID, "it is behind"),
        ([FIRST, BOTH, [5, []]], INVALID, "never heard"),
        ([BOTH, FIRST], INVALID, "revision 2 after 3"),
        ([FIRST, FIRST], INVALID, "revision 2 after 2"),
        ([FIRST, MAYBE, LAST], INVALID, "never heard"),
        ([FIRST, [3, [["put", "watch/a", "2", "1"]]]], INVALID, "in part"),
        ([FIRST, [3, []], BOTH], INVALID, "said to be heard"),
        ([FIRST, BOTH, [4, [["put", "watch/b", "5", "3"]]]], INVALID, "refused"),
        ([FIRST, BOTH, [4, [["put", "watch/b", "7", "3"]]]], INVALID, "nobody asked"),
        ([FIRST, BOTH, [4, [["put", "watch/b", "4", "1"]]]], INVALID, "was 3, not 1"),
        ([FIRST, BOTH, [4, [["put", "watch/b", "6", "3"]]]], INVALID, "acknowledged at 5"),
    ],
)
def test_each_promise_of_a_watch(batches: list[list[Any]], word: str, why: str) -> None:
    verdict = check_watches([*WRITES, *hear(*batches)])
    assert verdict.word == word, verdict.faults
    assert word == VALID or any(why in fault for fault in verdict.faults), verdict.faults


def test_a_watcher_that_begins_later_is_judged_from_there_on() -> None:
    def late(first: int, *batches: list[Any]) -> list[Operation]:
        return [op(HEAR, "watch/by-1.2", first, batch, (8, 8)) for batch in batches]

    assert check_watches([*WRITES, *late(3, BOTH, MAYBE, LAST)]).word == VALID
    verdict = check_watches([*WRITES, *late(2, BOTH, LAST)])
    assert any("never heard" in fault for fault in verdict.faults)
    verdict = check_watches([*WRITES, *late(3, LAST)])
    assert any("never heard" in fault for fault in verdict.faults)


def test_two_watchers_hear_the_same_of_a_revision() -> None:
    other = [4, [["put", "watch/b", "6", "3"]]]
    verdict = check_watches([*WRITES, *hear(FIRST, BOTH, MAYBE), *hear(FIRST, BOTH, other, by="watch/by-2")])
    assert any("another watcher" in fault for fault in verdict.faults)


# Leases.

LEASE = [
    op(GRANT, "l", 2, 2, (0, 0.1)),
    op(ATTACH, "l", 2, 7, (0.2, 0.3)),
    op(RENEW, "l", 2, 2, (1.0, 1.1)),
]


@pytest.mark.parametrize(
    ("read_at", "is_there", "word"),
    [
        ((0.5, 0.6), True, VALID),
        ((0.5, 0.6), False, INVALID),
        ((2.5, 2.6), False, INVALID),  # 3.0 is promised: the renewal began at 1.0
        ((2.5, 3.1), False, VALID),
        ((3.5, 3.6), False, VALID),
        ((3.5, 3.6), True, VALID),  # later than promised is allowed, for a while
    ],
)
def test_a_lease_is_never_early(read_at: tuple[float, float], is_there: bool, word: str) -> None:
    assert check_leases([*LEASE, op("read", "l", None, is_there, read_at)]).word == word


def test_a_lease_that_may_have_been_revoked_may_be_gone() -> None:
    revoked = op(REVOKE, "l", None, None, (1.5, 1.6), INFO)
    assert check_leases([*LEASE, revoked, op("read", "l", None, False, (2.0, 2.1))]).word == VALID


def test_a_renewal_that_was_not_answered_promises_nothing() -> None:
    unanswered = op(RENEW, "l", 2, None, (2.0, 2.1), INFO)
    assert check_leases([*LEASE, unanswered, op("read", "l", None, False, (3.2, 3.3))]).word == VALID


def test_a_lease_is_not_immortal() -> None:
    assert check_leases([*LEASE, op("final-read", "leases/all", None, ["l"], (60, 61))]).word == INVALID
    assert check_leases([*LEASE, op("final-read", "leases/all", None, [], (60, 61))]).word == VALID


# Locks.


@pytest.mark.parametrize(("second_at", "word"), [((2, 3), VALID), ((0.9, 3), INVALID), ((0.2, 0.4), INVALID)])
def test_two_never_rely_on_a_lock_at_once(second_at: tuple[float, float], word: str) -> None:
    holds = [op(HOLD, "k", None, None, (0, 1)), op(HOLD, "k", None, None, second_at, process=1)]
    assert check_exclusion(holds).word == word


@pytest.mark.parametrize(("revisions", "word"), [((11, 12, 20), VALID), ((11, 21, 20), INVALID)])
def test_an_earlier_holder_writes_nothing_after_a_later_one(revisions: tuple[int, int, int], word: str) -> None:
    writes = [
        op(GUARDED, "k", 5, revisions[0], (0, 1)),
        op(GUARDED, "k", 5, revisions[1], (2, 3)),
        op(GUARDED, "k", 8, revisions[2], (2, 3), process=1),
        op(GUARDED, "k", 5, None, (4, 5), FAIL),
    ]
    assert check_fencing(writes).word == word


def test_a_token_is_given_once() -> None:
    acquired = [op(ACQUIRE, "k", None, 5, (0, 1)), op(ACQUIRE, "k", None, 5, (2, 3), process=1)]
    assert check_fencing(acquired).word == INVALID


# Shares, queues, meetings.


@pytest.mark.parametrize(("third_at", "word"), [((2, 3), VALID), ((0.5, 2), INVALID), ((1, 2), VALID)])
def test_no_more_is_held_than_there_is(third_at: tuple[float, float], word: str) -> None:
    holds = [op(HOLD, "p", 2, None, (0, 1)), op(HOLD, "p", 1, None, (0.2, 0.6), process=1)]
    assert check_capacity([*holds, op(HOLD, "p", 1, None, third_at, process=2)], 3).word == word


ITEM = [op(PUT, "q", "1", None, (0, 1)), op(CLAIM, "q", None, ["1", 7], (2, 3)), op(ACKNOWLEDGE, "q", "1", 7, (4, 5))]
DRAINED = op("drained", "q", None, None, (60, 60))


@pytest.mark.parametrize(
    ("more", "word", "why"),
    [
        ([DRAINED], VALID, ""),
        ([op(PUT, "q", "2", None, (6, 7)), DRAINED], INVALID, "never acknowledged"),
        ([op(PUT, "q", "2", None, (6, 7))], VALID, "it may still be in the queue"),
        ([op(PUT, "q", "2", None, (6, 7), INFO), DRAINED], VALID, "nobody knows whether it was put"),
        ([op(CLAIM, "q", None, ["3", 8], (6, 7))], INVALID, "never put"),
        ([op(CLAIM, "q", None, ["1", 8], (6, 7))], INVALID, "after it was acknowledged"),
        ([op(CLAIM, "q", None, ["1", 7], (2, 3), process=1)], INVALID, "under one token"),
        ([op(ACKNOWLEDGE, "q", "1", 9, (4, 5), process=1)], INVALID, "2 times"),
        ([op(ACKNOWLEDGE, "q", "1", None, (4, 5), FAIL, process=1)], VALID, "it was told that it was too late"),
    ],
)
def test_each_promise_of_a_queue(more: list[Operation], word: str, why: str) -> None:
    verdict = check_queue([*ITEM, *more])
    assert verdict.word == word, verdict.faults
    assert word == VALID or any(why in fault for fault in verdict.faults), verdict.faults


def test_nobody_is_let_in_before_all_have_come_or_out_before_all_have_left() -> None:
    first, second = op("enter", "r", 2, None, (0, 3)), op("enter", "r", 2, None, (2, 3), process=1)
    assert check_meetings([first, second]).word == VALID
    late = op("enter", "r", 2, None, (4, 5), process=1)
    assert check_meetings([first, late]).word == INVALID
    left, stayed = op("leave", "r", 2, None, (6, 7)), op("leave", "r", 2, None, (6.5, 7), process=1)
    assert check_meetings([first, second, left, stayed]).word == VALID
    assert check_meetings([first, second, left]).word == INVALID


# Revisions, members, logs.


@pytest.mark.parametrize(
    ("second", "at", "word"), [(8, (2, 3), VALID), (6, (2, 3), INVALID), (7, (2, 3), INVALID), (6, (0.5, 3), VALID)]
)
def test_revisions_are_unique_and_follow_real_time(second: int, at: tuple[float, float], word: str) -> None:
    assert check_revisions([op("write", "a", 1, 7, (0, 1)), op("add", "b", 2, second, at)]).word == word


def test_members_that_differ_are_named() -> None:
    equal: dict[str, list[Any]] = {"n1": [[b"k", 1]], "n2": [[b"k", 1]]}
    assert check_agreement(equal, {"n1": (5, 77), "n2": (5, 77)}).word == VALID
    assert check_agreement(equal, {"n1": (5, 77), "n2": (5, 78)}).word == INVALID
    verdict = check_agreement({**equal, "n3": [[b"k", 2]]}, {})
    assert "n3 and n1 differ in 1 keys" in verdict.faults[0]
    assert check_agreement({}, {}).word == UNKNOWN


def test_log_lines_that_no_fault_explains_are_found() -> None:
    line = "2026-01-31T12:00:00.123Z error n1 raftkv.storage: the store cannot commit: no space left"
    assert check_logs({"n1": line}, []).word == INVALID
    assert check_logs({"n1": line}, ["cannot commit"]).word == VALID
    assert check_logs({"n1": "Traceback (most recent call last):"}, ["cannot commit"]).word == INVALID
    assert check_logs({"n1": line.replace(" error ", " info ")}, []).word == VALID
    assert check_crashes(["n1 ended with exit code 1"]).word == INVALID
