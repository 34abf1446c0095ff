"""Signals as something to wait for, instead of something that interrupts.

A verb that runs other processes has to end them whatever happens, so it must not be torn out of its work by an exception
at a random line. Inside `SignalInbox` the signals only wake `wait`.
"""

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Sequence


class SignalInbox:
    """Catches `numbers` between enter and exit; main thread only (signal.set_wakeup_fd)."""

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        self._numbers = numbers
        self._old_handlers: dict[signal.Signals, object] = {}
        self._read_fd = self._write_fd = self._old_wakeup_fd = -1

    def __enter__(self) -> "SignalInbox":
        assert self._read_fd < 0, "entered once"
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._old_wakeup_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in self._numbers:
            self._old_handlers[number] = signal.signal(number, keep_silent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave
        signal.set_wakeup_fd(self._old_wakeup_fd)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def wait(self, timeout_seconds: float) -> set[int]:
        """The signals that came since the last call; waits for the first one, at most `timeout_seconds`."""
        readable, _, _ = select.select([self._read_fd], [], [], max(0.0, timeout_seconds))
        if not readable:
            return set()
        return set(os.read(self._read_fd, 4096)) & set(self._numbers)


def keep_silent(number: int, frame: FrameType | None) -> None:
    """A handler has to exist for the wake-up to be written; SIG_IGN would drop the signal."""
