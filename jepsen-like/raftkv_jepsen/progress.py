"""What one sees while it runs: a line that counts, and a line for every fault. On a terminal the counting line stays in its place."""

import shutil
import sys
import threading
import time
from typing import Final

from raftkv_jepsen.history import FAIL, INFO, OK
from raftkv_jepsen.recorder import Recorder

TERMINAL_S: Final = 0.5
LOG_S: Final = 10.0


class Progress:
    """A thread that looks at the recorder now and then."""

    def __init__(self, recorder: Recorder, time_s: float) -> None:
        self._recorder = recorder
        self._time_s = time_s
        self._is_terminal = sys.stdout.isatty()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._fault = ""
        self._last = (0, time.monotonic())
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._is_terminal:
            print()

    def say(self, words: str) -> None:
        """A line of its own."""
        with self._lock:
            clear = "\r\033[K" if self._is_terminal else ""
            print(f"{clear}{self._recorder.now_ns() / 1e9:7.1f} s  {words}", flush=True)

    def _run(self) -> None:
        while not self._ended.wait(TERMINAL_S if self._is_terminal else LOG_S):
            line = self._line()
            with self._lock:
                if self._is_terminal:
                    # One that breaks into two would not stay in its place.
                    print(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
                else:
                    print(line, flush=True)

    def _line(self) -> str:
        counts, now = self._recorder.counts, time.monotonic()
        total = sum(counts.values())
        rate = (total - self._last[0]) / max(0.001, now - self._last[1])
        self._last = (total, now)
        elapsed_s = self._recorder.now_ns() / 1e9
        share = f"{100 * elapsed_s / self._time_s:3.0f} %" if elapsed_s < self._time_s else "ending"
        return (
            f"{elapsed_s:7.1f} s  {share}  {total} operations ({rate:.0f}/s):"
            f" {counts[OK]} ok, {counts[FAIL]} refused, {counts[INFO]} unknown"
        )
