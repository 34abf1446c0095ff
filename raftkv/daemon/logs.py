"""What the daemon says on stderr: one line per record, as text or JSON, with the member's name in every one.

SIGUSR2 cycles the level of the running process. Whatever can happen per request or per connection attempt goes through
LogLimiter, so that a broken client cannot fill a disk.
"""

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, Callable, Final, Hashable, TextIO

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
CYCLE: Final = ("info", "debug", "error", "warning")  # from the default, the first signal shows more

log = logging.getLogger("raftkv.logs")


class TextFormatter(logging.Formatter):
    """2026-01-31T12:00:00.123Z info n1 raftkv.loop: text"""

    def __init__(self, member_name: str) -> None:
        super().__init__()
        self._member_name = member_name

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on lines of its own, indented, so that lines still tell records apart."""
        text = _one_line(record.getMessage())
        line = f"{_timestamp(record)} {record.levelname.lower()} {self._member_name} {record.name}: {text}"
        if record.exc_info:
            line += "\n" + "\n".join("    " + part for part in self.formatException(record.exc_info).splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, member, logger, message, and traceback where there is one."""

    def __init__(self, member_name: str) -> None:
        super().__init__()
        self._member_name = member_name

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "member": self._member_name,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


FORMATTERS: Final[dict[str, Callable[[str], logging.Formatter]]] = {"text": TextFormatter, "json": JsonFormatter}


def set_up_logging(*, level: str, format: str, member_name: str, stream: TextIO | None = None) -> None:
    """Send every logger of the process to `stream` (stderr). Replaces what was set up before."""
    assert level in LEVELS, f"unknown log level {level}"
    assert format in FORMATTERS, f"unknown log format {format}"
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(FORMATTERS[format](member_name))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    logging.getLogger("asyncio").setLevel(max(LEVELS[level], logging.INFO))


def cycle_level() -> str:
    """The next level of CYCLE takes effect at once; returns its name. Made for a signal handler of the event loop."""
    root = logging.getLogger()
    names = {number: name for name, number in LEVELS.items()}
    current = names.get(root.level, CYCLE[-1])
    chosen = CYCLE[(CYCLE.index(current) + 1) % len(CYCLE)]
    root.setLevel(LEVELS[chosen])
    logging.getLogger("asyncio").setLevel(max(LEVELS[chosen], logging.INFO))
    # On the new level itself, so that it is seen whichever that is.
    log.log(LEVELS[chosen], "the log level is now %s", chosen)
    return chosen


class LogLimiter:
    """Says whether a line may be written now: once per so many seconds and key."""

    KEYS_MAX: Final = 1024

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until: dict[Hashable, float] = {}
        self._suppressed: dict[Hashable, int] = {}

    def log_once_per(self, seconds: float, key: Hashable) -> bool:
        """True at most once per `seconds` for this `key`."""
        assert seconds > 0, "a limit without a period limits nothing"
        now = self._clock()
        if now < self._quiet_until.get(key, now):
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return False
        if len(self._quiet_until) >= self.KEYS_MAX and key not in self._quiet_until:
            self._forget(now)
        self._quiet_until[key] = now + seconds
        return True

    def take_suppressed(self, key: Hashable) -> int:
        """How often log_once_per said no since the last time this was asked."""
        return self._suppressed.pop(key, 0)

    def _forget(self, now: float) -> None:
        """Keys whose time is over; all of them if none is: too many lines are better than too much memory."""
        kept = {key: until for key, until in self._quiet_until.items() if until > now}
        self._quiet_until = kept if len(kept) < self.KEYS_MAX else {}
        self._suppressed = {key: count for key, count in self._suppressed.items() if key in self._quiet_until}


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _one_line(text: Any) -> str:
    return str(text).replace("\r", "\\r").replace("\n", "\\n")


__all__ = ["LogLimiter", "cycle_level", "set_up_logging"]
