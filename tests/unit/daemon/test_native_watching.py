"""Watches and waits through the native door: frames in, events out, and what a slow or vanished client costs."""

from typing import Any

import pytest

from raftkv.limits import Limits
from raftkv.wire.commands import COMPACT, DELETE_RANGE, PUT, TXN
from raftkv.wire.protocol import WAIT, WATCH_CANCEL, WATCH_CREATE, WATCH_EVENTS, WATCH_PROGRESS
from raftkv.wire.watching import UNTIL_EXISTS, WATCH_PREV_KV, WATCH_PROGRESS_NOTIFY
from tests.unit.conftest import Run
from tests.unit.daemon.test_native import Line, in_loop


def watching_line(limits: Limits | None = None) -> Line:
    line = Line(limits)
    line.greet(session=None)
    return line


def put(request_id: int, key: bytes, value: bytes = b"v") -> list[Any]:
    return [request_id, 1_000, [PUT, 0, key, value, 0, 0]]


def create(request_id: int, key: bytes, end: bytes = b"", start: int = 0, flags: int = 0) -> list[Any]:
    return [request_id, 0, [WATCH_CREATE, key, end, start, flags]]


def pushed(answers: list[Any], tag: int) -> list[Any]:
    return [answer for request_id, answer in answers if request_id == tag]


def test_created_then_events_then_canceled(run: Run) -> None:
    def scenario() -> None:
        line = watching_line()
        line.send(create(7, b"k", flags=WATCH_PREV_KV), create(8, b"\0", b"\0"))
        assert line.answers() == [[7, [0, WATCH_CREATE, 1]], [8, [0, WATCH_CREATE, 1]]]
        line.send(put(9, b"k", b"1"), [10, 0, [DELETE_RANGE, 0, b"k", b"", 0]])
        answers = line.answers()
        first, second = [0, [b"k", 2, 2, 1, 0, b"1"], None], [1, [b"k", 0, 3, 0, 0, b""], None]
        assert pushed(answers, 7) == [[0, WATCH_EVENTS, 3, False, [first, [*second[:2], first[1]]]]]
        assert pushed(answers, 8) == [[0, WATCH_EVENTS, 3, False, [first, second]]]
        line.send([11, 0, [WATCH_CANCEL, 7]], [12, 0, [WATCH_CANCEL, 7]], put(13, b"k"))
        answers = line.answers()
        assert (pushed(answers, 11), pushed(answers, 12), pushed(answers, 7)) == ([[0, True]], [[0, False]], [])
        assert len(pushed(answers, 8)) == 1

    in_loop(run, scenario)


def test_history_a_transaction_and_the_end_of_history(run: Run) -> None:
    def scenario() -> None:
        line = watching_line()
        line.send(put(2, b"a"), [3, 0, [TXN, 0, [], [[PUT, 0, b"a", b"1", 0, 0], [PUT, 0, b"b", b"2", 0, 0]], []]])
        line.answers()
        line.send(create(4, b"\0", b"\0", 2), [5, 0, [WATCH_PROGRESS]])
        answers = line.answers()
        assert [kv[:3] for _, kv, _ in pushed(answers, 4)[1][4]] == [[b"a", 2, 2], [b"a", 2, 3], [b"b", 3, 3]]
        line.send([6, 0, [COMPACT, 0, 3]], create(7, b"a", start=2))
        line.answers()
        line.send(create(8, b"a", start=2), [9, 0, [WATCH_PROGRESS]])
        answers = line.answers()
        assert pushed(answers, 8)[0][:2] == [1, "compacted"]
        assert pushed(answers, 8)[0][4] == {"compact_revision": 3}
        assert pushed(answers, 9) == [[0, 3]]

    in_loop(run, scenario)


@pytest.mark.parametrize(
    "command",
    [
        [WATCH_CREATE, b"k", b"", 0],
        [WATCH_CREATE, "k", b"", 0, 0],
        [WATCH_CREATE, b"k", None, 0, 0],
        [WATCH_CREATE, b"k", b"", 1 << 63, 0],
        [WATCH_CREATE, b"k", b"", 0, 64],
        [WATCH_CREATE, b"b", b"a", 0, 0],
        [WATCH_CREATE, b"k" * 20_000, b"", 0, 0],
        [WATCH_CANCEL, b"7"],
        [WAIT, 0, True, [], 0],
        [WAIT, 0, True, [b""], 0],
        [WAIT, 0, True, ["k"], 0],
        [WAIT, 0, 1, [b"k"], 0],
        [WAIT, 9, True, [b"k"], 0],
        [WAIT, 0, True, [b"k"], -1],
        [WAIT, 0, True, [b"k"] * 2000, 0],
        [WAIT, 0, True, [b"k" * 20_000], 0],
        [WAIT],
    ],
)
def test_bad_requests_are_refused_and_harm_nobody(run: Run, command: list[Any]) -> None:
    def scenario() -> None:
        line = watching_line()
        line.send([5, 0, command], create(6, b"k"))
        answers = dict(line.answers())
        assert answers[5][0] == 1 and answers[5][2] is False
        assert answers[6] == [0, WATCH_CREATE, 1]

    in_loop(run, scenario)


def test_an_id_in_use_is_refused_and_the_watch_goes_on(run: Run) -> None:
    def scenario() -> None:
        line = watching_line()
        line.send(create(7, b"k"))
        line.answers()
        line.send(create(7, b"x"), [7, 0, [WAIT, 0, True, [b"k"], 0]])
        assert [answer[1] for answer in pushed(line.answers(), 7)] == ["invalid_request"] * 2
        line.send(put(8, b"k"))
        assert len(pushed(line.answers(), 7)) == 1

    in_loop(run, scenario)


def test_wait_is_answered_once(run: Run) -> None:
    def scenario() -> None:
        line = watching_line()
        line.send(
            [5, 0, [WAIT, UNTIL_EXISTS, True, [b"a", b"b"], 0]], [6, 1_000, [WAIT, UNTIL_EXISTS, False, [b"never"], 0]]
        )
        line.send(put(7, b"a"))
        assert pushed(line.answers(), 5) == []
        line.send(put(8, b"b"), put(9, b"b"))
        (answer,) = pushed(line.answers(), 5)
        assert [items[0] for items in answer[2]] == [b"a", b"b"]
        line.cluster.pass_time(1_100)
        assert [answer[1] for answer in pushed(line.answers(), 6)] == ["deadline_exceeded"]

    in_loop(run, scenario)


def test_signs_of_progress(run: Run) -> None:
    def scenario() -> None:
        line = watching_line(Limits(watch_progress_interval_ms=500))
        line.send(create(7, b"k", flags=WATCH_PROGRESS_NOTIFY), put(8, b"other"))
        line.answers()
        line.cluster.pass_time(1_600)
        assert pushed(line.answers(), 7) == [[0, WATCH_EVENTS, 2, False, []]] * 3

    in_loop(run, scenario)


def test_a_client_that_takes_nothing_gets_history_when_it_does(run: Run) -> None:
    def scenario() -> None:
        line = watching_line()
        line.send(create(7, b"\0", b"\0"))
        line.answers()
        line.transport.unsent_bytes = 2 << 20
        for number in range(5):
            line.send(put(10 + number, b"k"))
            assert pushed(line.answers(), 7) == []
        line.transport.unsent_bytes = 0
        assert [kv[2] for _, kv, _ in pushed(line.answers(), 7)[0][4]] == [2, 3, 4, 5, 6]

    in_loop(run, scenario)


def test_with_the_connection_its_watches_and_waits_go(run: Run) -> None:
    def scenario() -> None:
        line = watching_line()
        line.send(create(7, b"k"), [8, 0, [WAIT, UNTIL_EXISTS, True, [b"k"], 0]])
        line.answers()
        line.send(create(9, b"k"), [10, 0, [WAIT, UNTIL_EXISTS, True, [b"k"], 0]])  # still behind their barrier
        hub = line.member.storage.watches
        assert hub.is_active
        line.door.connection_lost(None)
        line.cluster.settle()
        assert not hub.is_active

    in_loop(run, scenario)


def test_a_member_that_leaves_sends_everybody_away(run: Run) -> None:
    def scenario() -> None:
        line = watching_line()
        line.send(create(7, b"k"), [8, 0, [WAIT, UNTIL_EXISTS, True, [b"k"], 0]])
        line.answers()
        line.member.service.begin_shutdown()
        assert [(tag, answer[1]) for tag, answer in line.answers()] == [(7, "shutting_down"), (8, "shutting_down")]

    in_loop(run, scenario)
