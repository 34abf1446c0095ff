"""The table from errors to what clients of etcd compare with."""

import pytest

from raftkv.errors import DuplicateKey, InvalidRequest, NoQuorum, WatchCompacted, all_codes, from_code
from raftkv.etcd.statuses import _NUMBERS, _STATUSES, UNAVAILABLE, UNKNOWN, Status, status_of

# Seen by the client library, at a start, or by those who have sessions: nobody who came through a door of etcd meets them.
NEVER_AT_THIS_DOOR = {
    *("session_expired", "session_window", "answer_dropped", "too_many_sessions"),
    *("client_closed", "missing_extra", "config", "data_directory_in_use", "wrong_data_directory"),
    *("incarnation_mismatch", "disk_failure"),
}
UNKNOWN_ON_PURPOSE = {"internal"}


def test_every_error_has_a_status_or_a_reason_to_have_none() -> None:
    named = [*_STATUSES, *_NUMBERS, *NEVER_AT_THIS_DOOR, *UNKNOWN_ON_PURPOSE]
    inherited = {code for code, cls in all_codes().items() if cls.__mro__[1].__dict__.get("code") in _STATUSES}
    assert len(set(named)) == len(named), "one row per code"
    assert set(named) - set(all_codes()) == set(), "codes that do not exist"
    assert set(all_codes()) - set(named) - inherited == set(), "give them a row in raftkv/etcd/statuses.py"


def test_what_is_refused_for_good_may_not_be_tried_again() -> None:
    """Clients repeat on Unavailable: fine for what was not done and may work soon, and for what nobody knows (they do not repeat those texts)."""
    for code, status in _STATUSES.items():
        error = from_code(code, "", may_have_happened=all_codes()[code].may_have_happened)
        soon = {"not_leader", "no_quorum", "unreachable", "shutting_down", "membership_busy", "deadline_exceeded"}
        assert (status.number == UNAVAILABLE) == (code in soon or error.may_have_happened)


def test_an_outcome_that_nobody_knows_has_a_text_that_nobody_repeats() -> None:
    for code, cls in all_codes().items():
        if cls.may_have_happened and code in _STATUSES:
            assert "request timed out" in _STATUSES[code].text
    assert status_of(NoQuorum()) == Status(14, "etcdserver: no leader")
    assert "request timed out" in status_of(NoQuorum(may_have_happened=True)).text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DuplicateKey(), Status(3, "etcdserver: duplicate key given in txn request")),
        (WatchCompacted(), Status(11, "etcdserver: mvcc: required revision has been compacted")),
        (InvalidRequest("what it is"), Status(3, "etcdserver: what it is")),
        (from_code("of_tomorrow", "text", may_have_happened=False), Status(UNKNOWN, "text")),
    ],
)
def test_statuses(error: Exception, status: Status) -> None:
    assert status_of(error) == status  # type: ignore[arg-type]
