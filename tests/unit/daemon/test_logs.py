"""Logs: one line per record in both formats, the level cycle, and the limiter under an injected clock."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from raftkv.daemon.logs import LogLimiter, cycle_level, set_up_logging


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, asyncio_level = root.handlers[:], root.level, logging.getLogger("asyncio").level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(asyncio_level)


def set_up(level: str = "info", format: str = "text") -> io.StringIO:
    stream = io.StringIO()
    set_up_logging(level=level, format=format, member_name="n1", stream=stream)
    return stream


def test_text_is_one_line_with_time_level_and_member() -> None:
    stream = set_up()
    logging.getLogger("raftkv.x").warning("two\nlines\r and %s", "more")
    line = stream.getvalue()
    assert line.count("\n") == 1
    moment, rest = line.split(" ", 1)
    assert rest == "warning n1 raftkv.x: two\\nlines\\r and more\n"
    assert moment[4] == moment[7] == "-"
    assert moment.endswith("Z")
    assert len(moment) == len("2026-01-31T12:00:00.123Z")


def test_the_time_is_that_of_the_record() -> None:
    stream = set_up()
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": "hello", "created": 1_767_225_600.0426})
    logging.getLogger().handlers[0].emit(record)
    assert stream.getvalue() == "2026-01-01T00:00:00.042Z info n1 x: hello\n"


def test_tracebacks_in_text_are_indented() -> None:
    stream = set_up()
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("x").exception("it failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("error n1 x: it failed")
    assert rest[-1] == "    ValueError: bad"
    assert all(line.startswith("    ") for line in rest)


def test_json_is_one_object_per_line() -> None:
    stream = set_up(format="json")
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("x").exception('it "failed"\nüberall')
    assert stream.getvalue().count("\n") == 1
    fields = json.loads(stream.getvalue())
    assert (fields["level"], fields["member"], fields["logger"]) == ("error", "n1", "x")
    assert fields["message"] == 'it "failed"\nüberall'
    assert fields["traceback"].endswith("ValueError: bad")


def test_set_up_again_replaces_the_first() -> None:
    first, second = set_up(), set_up("error")
    logging.getLogger("x").warning("nobody hears this")
    logging.getLogger("x").error("one hears this")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_the_level_cycles_and_every_change_is_seen() -> None:
    stream = set_up()
    assert [cycle_level() for _ in range(5)] == ["debug", "error", "warning", "info", "debug"]
    assert stream.getvalue().count("the log level is now") == 5
    logging.getLogger("x").debug("visible now")
    assert "visible now" in stream.getvalue()


def test_asyncio_stays_quiet_at_debug() -> None:
    stream = set_up("debug")
    logging.getLogger("asyncio").debug("Using selector: EpollSelector")
    assert stream.getvalue() == ""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_once_per_period_and_key() -> None:
    clock = Clock()
    limiter = LogLimiter(clock)
    assert [limiter.log_once_per(10, "a") for _ in range(4)] == [True, False, False, False]
    assert limiter.log_once_per(10, "b")
    assert limiter.take_suppressed("a") == 3
    assert limiter.take_suppressed("a") == 0
    clock.now += 9.99
    assert not limiter.log_once_per(10, "a")
    clock.now += 0.01
    assert limiter.log_once_per(10, "a")


def test_the_limiter_is_bounded() -> None:
    clock = Clock()
    limiter = LogLimiter(clock)
    for number in range(5 * LogLimiter.KEYS_MAX):
        assert limiter.log_once_per(10, number)
        assert not limiter.log_once_per(10, number)
        assert len(limiter._quiet_until) <= LogLimiter.KEYS_MAX
        assert len(limiter._suppressed) <= LogLimiter.KEYS_MAX + 1
    clock.now += 11
    for number in range(10):
        assert limiter.log_once_per(10, f"later {number}")
