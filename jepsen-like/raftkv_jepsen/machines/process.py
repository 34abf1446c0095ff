"""One child process: its log, its signals, its memory, and the certainty that it ends with the test.

Children carry PR_SET_PDEATHSIG (through setpriv), so that even a test process that is killed leaves none behind. That
signal follows the thread that started the child: start processes on the main thread only.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parents[3]
HARNESS_PATH = REPOSITORY / "jepsen-like"
RAFTKV = (sys.executable, "-m", "raftkv_cli")
LOG_TAIL_BYTES = 6_000


def raftkv_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a raftkv process: none of the caller's RAFTKV_* settings, and this checkout's code."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAFTKV_")}
    paths = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "cli")))
    return {**inherited, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **(extra or {})}


class Process:
    """A running child whose output goes to a file."""

    def __init__(
        self,
        arguments: Sequence[str],
        log_path: Path,
        *,
        environment: Mapping[str, str] | None = None,
        stdout_path: Path | None = None,
    ) -> None:
        assert threading.current_thread() is threading.main_thread(), "the child would die with the thread"
        self.arguments = tuple(arguments)
        self.log_path = log_path
        self.log_start_bytes = log_path.stat().st_size if log_path.exists() else 0
        with log_path.open("ab") as log, (stdout_path or log_path).open("ab") as stdout:
            self._popen = subprocess.Popen(
                [*_die_with_parent(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=log,
                env=raftkv_environment() if environment is None else dict(environment),
                cwd=log_path.parent,
                start_new_session=True,  # Ctrl-C is for the test run, which then ends its children itself
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def send(self, signal_number: int) -> None:
        """Sends a signal; to an ended process it is nothing."""
        self._popen.send_signal(signal_number)

    def wait_exit(self, deadline_s: float = 10.0) -> int:
        """The exit code. Raises AssertionError when it still runs at the deadline."""
        try:
            return self._popen.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"process {self.pid} still runs after {deadline_s:g} s: {self.arguments}") from None

    def kill(self) -> None:
        """SIGKILL and reap; works on a paused process and on one that has ended."""
        self.send(signal.SIGKILL)
        self._popen.wait(10)

    def log_text(self) -> str:
        """What this run of it has written to its log."""
        with self.log_path.open("rb") as log:
            log.seek(self.log_start_bytes)
            return log.read().decode(errors="replace")

    def resident_bytes(self) -> int:
        """Resident memory, from /proc."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"process {self.pid} has no VmRSS")

    def open_files_count(self) -> int:
        """Open file descriptors, from /proc."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def run_raftkv(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    standard_input: bytes = b"",
    deadline_s: float = 20.0,
) -> subprocess.CompletedProcess[bytes]:
    """Runs the command line to its end."""
    return subprocess.run(
        [*RAFTKV, *arguments],
        input=standard_input,
        capture_output=True,
        env=raftkv_environment(environment),
        timeout=deadline_s,
        check=False,
    )


def log_tail(path: Path) -> str:
    """The end of a log, for a failure report."""
    if not path.exists():
        return "(no log)"
    with path.open("rb") as log:
        size_bytes = log.seek(0, os.SEEK_END)
        log.seek(max(0, size_bytes - LOG_TAIL_BYTES))
        return log.read().decode(errors="replace")


def _die_with_parent() -> tuple[str, ...]:
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL") if setpriv is not None else ()
