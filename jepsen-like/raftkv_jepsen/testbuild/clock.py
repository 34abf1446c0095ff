"""A wall clock that can be moved from outside, for machines whose libfaketime is missing or breaks Python's own sleep.

`time.time` and `time.time_ns` add the seconds that stand in a file, read anew four times a second. The monotonic clock is left alone.
"""

import time
from pathlib import Path
from typing import Final

FILE: Final = "RAFTKV_JEPSEN_CLOCK"
"""The path of the file."""
READ_EVERY_S: Final = 0.25


class MovedClock:
    """The two functions in place of the module's own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._time_ns = time.time_ns
        self._offset_s = 0.0
        self._read_at = 0.0

    def install(self) -> None:
        """From now on everybody has this time who asks the module for it."""
        time.time = self.time
        time.time_ns = self.time_ns

    def _offset(self) -> float:
        now = time.monotonic()
        if now - self._read_at >= READ_EVERY_S:
            self._read_at = now
            try:
                self._offset_s = float(self._path.read_text() or 0)
            except (OSError, ValueError):
                pass  # it is being written: the next look will do
        return self._offset_s

    def time(self) -> float:
        """Seconds."""
        return self.time_ns() / 1e9

    def time_ns(self) -> int:
        """Nanoseconds."""
        return self._time_ns() + int(self._offset() * 1e9)
