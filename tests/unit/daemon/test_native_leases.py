"""Leases through the native door: questions beside reads and writes, forwarded ones, and malformed ones."""

from typing import Any

from raftkv.limits import Limits
from raftkv.wire.commands import GUARDED, LEASE_GRANT, LEASE_REVOKE, LEASE_TTL, LEASES, PUT, WITH_KEYS
from raftkv.wire.protocol import ACK, FORWARD, KEEP_ALIVE
from tests.unit.conftest import Run
from tests.unit.daemon.test_native import Line, in_loop

TTL_MS = 10_000


def granted(limits: Limits | None = None) -> Line:
    """A connection, and lease 7 with a key on it, at revision 2."""
    line = Line(limits)
    line.greet()
    line.send([0, 0, [ACK, 1, True]], [2, 0, [LEASE_GRANT, 1, 7, TTL_MS]], [3, 0, [PUT, 2, b"k", b"v", 7, 0]])
    assert dict(line.answers()) == {2: [0, 1, 7, TTL_MS], 3: [0, 2, None]}
    return line


def test_questions_of_one_read_are_answered_together(run: Run) -> None:
    def scenario() -> None:
        line = granted()
        questions: list[list[Any]] = [
            [4, 0, [KEEP_ALIVE, [7, 8]]],
            [5, 0, [LEASE_TTL, WITH_KEYS, 7]],
            [6, 0, [LEASES, 0]],
            [7, 0, [LEASES, 1]],
            [8, 0, [LEASE_TTL, 0, 8]],
        ]
        line.send(*questions)
        assert dict(line.answers()) == {
            4: [0, 2, [TTL_MS, 0]],
            5: [0, 2, TTL_MS, TTL_MS, [b"k"]],
            6: [0, 2, [7]],
            7: [0, 2, [7]],
            8: [0, 2, -1, 0, []],
        }
        assert line.member.service.is_idle

    in_loop(run, scenario)


def test_questions_and_guarded_writes_are_forwarded(run: Run) -> None:
    def scenario() -> None:
        line = granted()
        line.send(
            [4, 1_000, [FORWARD, None, False, 0, [KEEP_ALIVE, [7]]]],
            [5, 1_000, [FORWARD, None, False, 0, [LEASE_TTL, 0, 7]]],
            [6, 1_000, [FORWARD, None, False, 0, [GUARDED, 0, [[b"k", 2]], [PUT, 0, b"g", b"v", 0, 0]]]],
            [7, 1_000, [FORWARD, None, False, 0, [KEEP_ALIVE, "7"]]],
        )
        answers = dict(line.answers())
        assert answers[4][:1] + answers[4][2:] == [0, [TTL_MS]]
        assert answers[5][2:] == [TTL_MS, TTL_MS, []]
        assert answers[6][0] == 0
        assert answers[7][1] == "invalid_request"

    in_loop(run, scenario)


def test_what_is_malformed_is_refused_one_by_one(run: Run) -> None:
    def scenario() -> None:
        line = granted(Limits(keep_alive_leases_max=2))
        bad: list[list[Any]] = [
            [KEEP_ALIVE],
            [KEEP_ALIVE, []],
            [KEEP_ALIVE, 7],
            [KEEP_ALIVE, [7, 7, 7]],
            [KEEP_ALIVE, ["7"]],
            [KEEP_ALIVE, [2**63]],
            [KEEP_ALIVE, [7], 0],
            [LEASE_TTL, 0],
            [LEASE_TTL, 0, None],
            [LEASE_TTL, 1, 7],
            [LEASES, 8],
            [LEASE_REVOKE, 0, 2**64 - 1],
            [LEASE_GRANT, 0, 7.5, 1],
        ]
        line.send(*([10 + number, 0, command] for number, command in enumerate(bad)), [99, 0, [KEEP_ALIVE, [7]]])
        answers = dict(line.answers())
        assert answers.pop(99) == [0, 2, [TTL_MS]]
        assert {answer[1] for answer in answers.values()} == {"invalid_request"}
        assert len(answers) == len(bad)
        assert not line.transport.is_closed

    in_loop(run, scenario)
