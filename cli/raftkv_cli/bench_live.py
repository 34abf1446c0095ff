"""Progress of a running bench on stderr: a live display where rich and a terminal are there, else one line per second."""

import sys
from contextlib import ExitStack
from types import TracebackType
from typing import Callable


class Progress:
    """Shows operations per second. `update` takes totals."""

    def __init__(self, title: str, seconds: float) -> None:
        self._title = title
        self._seconds = seconds
        self._stack = ExitStack()
        self._done = self._reports = 0
        self._show: Callable[[int, int, int], None] = self._print_line

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            self._use_rich()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def update(self, done: int, errors: int) -> None:
        """Called about once a second."""
        self._reports += 1
        self._show(done, done - self._done, errors)
        self._done = done

    def _print_line(self, done: int, ops_per_second: int, errors: int) -> None:
        errors_text = f"  {errors} errors" if errors else ""
        sys.stderr.write(f"{self._reports:4d} s  {ops_per_second:9,d} ops/s  {done:12,d} done{errors_text}\n")
        sys.stderr.flush()

    def _use_rich(self) -> None:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress
        except ImportError:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        display = RichProgress(*columns, console=Console(stderr=True), transient=True)
        self._stack.enter_context(display)
        task = display.add_task(self._title, total=self._seconds, speed="starting")

        def show(done: int, ops_per_second: int, errors: int) -> None:
            errors_text = f"  [red]{errors} errors" if errors else ""
            display.update(task, completed=self._reports, speed=f"{ops_per_second:,} ops/s{errors_text}")

        self._show = show
