"""The log in memory: bounds, conflicts, compaction, and what is durable when saves and replacements cross."""

import pytest

from raftkv.raft.log import ENTRY_OVERHEAD_BYTES, RaftLog
from raftkv.raft.messages import Entry
from tests.unit.raft.solo import entries_of


def log_of(*terms: int, start: tuple[int, int] = (0, 0)) -> RaftLog:
    return RaftLog(start[0], start[1], entries_of(terms, start[0] + 1))


def indexes(entries: list[Entry]) -> list[int]:
    return [entry.index for entry in entries]


def test_an_empty_log() -> None:
    log = log_of()
    assert (log.last_index, log.last_term, log.held_bytes, log.take_unjournaled()) == (0, 0, 0, [])
    assert log.term_of(0) == 0
    assert log.matches(0, 0)


def test_terms_are_known_from_the_start_on() -> None:
    log = log_of(2, 3, start=(5, 1))
    assert [log.term_of(index) for index in (5, 6, 7)] == [1, 2, 3]
    assert [log.matches(*at) for at in ((5, 1), (6, 2), (6, 3), (4, 1), (8, 3))] == [True, True, False, False, False]
    for index in (4, 8):
        with pytest.raises(AssertionError):
            log.term_of(index)


def test_gaps_and_decreasing_terms_are_impossible() -> None:
    log = log_of(1, 2)
    with pytest.raises(AssertionError, match="no gaps"):
        log.append(entries_of([2], 4))
    with pytest.raises(AssertionError, match="terms never decrease"):
        log.append(entries_of([1], 3))


@pytest.mark.parametrize(
    ("last_index", "last_term", "expected"), [(3, 2, True), (4, 2, True), (2, 2, False), (1, 3, True), (9, 1, False)]
)
def test_up_to_date(last_index: int, last_term: int, expected: bool) -> None:
    assert log_of(1, 1, 2).is_up_to_date(last_index, last_term) is expected


@pytest.mark.parametrize(
    ("index", "term", "expected"), [(6, 2, 3), (6, 9, 6), (2, 4, 2), (6, 1, 1), (6, 0, 0), (99, 3, 4), (0, 0, 0)]
)
def test_where_logs_can_still_agree(index: int, term: int, expected: int) -> None:
    assert log_of(1, 2, 2, 3, 5, 5).last_index_not_after(index, term) == expected


def test_the_search_for_agreement_stops_at_the_start() -> None:
    log = log_of(7, 7, start=(10, 5))
    assert log.last_index_not_after(12, 3) == 10
    assert log.last_index_not_after(4, 3) == 4, "what is compacted is somebody else's business"


def test_slices_keep_to_their_bytes_but_one_entry_always_fits() -> None:
    log = RaftLog(0, 0, [Entry(index, 1, 1, b"x" * 10) for index in range(1, 6)])
    size = 10 + ENTRY_OVERHEAD_BYTES
    assert log.held_bytes == 5 * size
    for bytes_max, expected in ((3 * size, [2, 3, 4]), (3 * size - 1, [2, 3]), (1, [2])):
        entries, size_bytes = log.slice(2, 5, bytes_max)
        assert indexes(entries) == expected
        assert size_bytes == len(expected) * size
    assert log.slice(2, 5, size - 1, at_least_one=False) == ([], 0)
    assert indexes(log.slice(2, 3, 1_000)[0]) == [2, 3]
    assert log.slice(6, 6, 1_000) == ([], 0)


def test_what_the_journal_was_given_and_has_saved() -> None:
    log = log_of(1)
    log.append(entries_of([1, 1], 2))
    assert indexes(log.take_unjournaled()) == [2, 3]
    log.save_started(1, 1, 0)
    assert log.take_unjournaled() == []
    log.append(entries_of([1], 4))
    log.take_unjournaled()
    log.save_started(2, 1, 0)
    assert log.durable_index == 1
    log.save_finished(1)
    assert log.durable_index == 3
    log.save_finished(2)
    assert log.durable_index == 4
    assert log.save_finished(2) is None


def test_a_later_save_covers_the_earlier_ones() -> None:
    log = log_of()
    for save_id in (1, 2, 3):
        log.append(entries_of([1], save_id))
        log.take_unjournaled()
        log.save_started(save_id, save_id, 7)
    save = log.save_finished(2)
    assert save is not None
    assert (save.save_id, save.term, log.durable_index) == (2, 2, 2)


def test_a_save_proves_nothing_about_what_was_replaced_in_the_meantime() -> None:
    log = log_of()
    log.append(entries_of([1, 1, 1], 1))
    log.take_unjournaled()
    log.save_started(1, 1, 0)
    log.truncate_from(2)
    log.append(entries_of([2, 2], 2))
    assert indexes(log.take_unjournaled()) == [2, 3], "the suffix goes to the journal again"
    log.save_started(2, 2, 0)
    log.save_finished(1)
    assert log.durable_index == 1
    log.save_finished(2)
    assert log.durable_index == 3


def test_replacing_what_was_durable_takes_it_back() -> None:
    log = log_of(1, 1, 1)
    assert log.durable_index == 3
    log.truncate_from(2)
    assert (log.durable_index, log.last_index, log.held_bytes) == (1, 1, ENTRY_OVERHEAD_BYTES + 1)


def test_compaction_keeps_the_term_of_the_last_one_gone() -> None:
    log = log_of(1, 2, 3)
    log.compact(2)
    assert (log.start_index, log.start_term, log.last_index, log.last_term) == (2, 2, 3, 3)
    assert log.entry(3).term == 3
    log.compact(1)
    assert log.start_index == 2
    log.compact(3)
    assert (log.start_index, log.last_index, log.last_term, log.held_bytes) == (3, 3, 3, 0)
    log.append(entries_of([3], 4))
    with pytest.raises(AssertionError, match="after it is durable"):
        log.compact(4)
    with pytest.raises(AssertionError, match="compacted entries cannot be read"):
        log.slice(3, 4, 100)


def test_how_far_to_compact_to_stay_within_bounds() -> None:
    log = RaftLog(0, 0, [Entry(index, 1, 1, b"x" * 76) for index in range(1, 11)])  # 100 bytes each
    assert log.first_retained_index(100, 10_000) == 1
    assert log.first_retained_index(4, 10_000) == 7
    assert log.first_retained_index(100, 250) == 9
    assert log.first_retained_index(100, 10) == 11


def test_restore_replaces_everything_or_keeps_the_suffix() -> None:
    log = log_of(1, 1, 2)
    log.restore(9, 3)
    assert (log.start_index, log.last_index, log.last_term, log.held_bytes) == (9, 9, 3, 0)
    log = log_of(1, 1, 2, 2)
    log.restore(3, 2)
    assert indexes(log.take_unjournaled()) == [4], "the journal starts anew, so the suffix is saved again"
    log.save_started(1, 2, 0)
    assert log.durable_index == 3
    log.save_finished(1)
    assert log.durable_index == 4
    log = log_of(1, 1, 2, 2)
    log.restore(3, 3)
    assert log.last_index == 3, "a suffix of other entries does not follow on the snapshot"


def test_a_save_from_before_a_restore_proves_nothing_about_the_suffix() -> None:
    log = log_of(1, 1)
    log.append(entries_of([2, 2], 3))
    log.take_unjournaled()
    log.save_started(1, 2, 0)
    log.restore(3, 2)
    log.take_unjournaled()
    log.save_started(2, 2, 0)
    log.save_finished(1)
    assert log.durable_index == 2
    log.save_finished(2)
    assert log.durable_index == 4
