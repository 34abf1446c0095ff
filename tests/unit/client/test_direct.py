"""Calls to one member in person: nobody else is asked, and who does what takes long may be silent for a while."""

import pytest

from raftkv.client.decisions import PATIENT_READ, STALE_READ, Decision, Keep, Send, Stop
from raftkv.client.direct import SILENT_ATTEMPTS_MAX, Direct
from raftkv.client.endpoints import Directory
from raftkv.errors import Unreachable

A, B, C = "a:1", "b:1", "c:1"
DEADLINE = 160.0


def direct(kind: int = STALE_READ) -> Direct:
    return Direct(Directory([A, B, C]), B, 100.0, DEADLINE, 1.0, kind)


def address_of(decision: Decision) -> str:
    assert type(decision) is Send, decision
    return decision.address


def test_a_direct_call_asks_one_member_and_no_other() -> None:
    call = direct()
    assert address_of(call.start(100.0)) == B
    assert address_of(call.on_lost(100.1, Unreachable("lost"))) == B, "an old connection may have been dead"
    decision = call.on_unreachable(100.2, Unreachable("connection refused"))
    assert type(decision) is Stop
    assert decision.error.message == "connection refused"


def test_a_direct_call_may_spend_its_attempt_on_connecting() -> None:
    """Other calls keep half of it, to ask somebody else: a member that is slow to greet would be called unreachable."""
    send = direct().start(100.0)
    assert type(send) is Send
    assert send.connect_deadline == send.attempt_deadline == 101.0


def test_a_direct_call_that_takes_long_bears_some_silence_in_a_row() -> None:
    """Longer than a machine stands still now and then, and much shorter than the time that such a call has."""
    call = direct(PATIENT_READ)
    call.start(100.0)
    now = 101.0
    for _ in range(3):
        for _ in range(SILENT_ATTEMPTS_MAX - 1):
            assert call.on_silence(now, heard=False) == Keep(now + 1.0)
            now += 1.0
        assert call.on_silence(now, heard=True) == Keep(now + 1.0)
        now += 1.0
    for _ in range(SILENT_ATTEMPTS_MAX - 1):
        assert type(call.on_silence(now, heard=False)) is Keep
    gone = call.on_silence(now, heard=False)
    assert type(gone) is Stop
    assert gone.error.code == "unreachable"


@pytest.mark.parametrize("heard", [True, False])
def test_other_direct_calls_bear_one_attempt_of_silence(heard: bool) -> None:
    call = direct()
    call.start(100.0)
    assert (type(call.on_silence(101.0, heard=heard)) is Keep) == heard
