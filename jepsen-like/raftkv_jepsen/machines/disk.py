"""Faults of one node's disk: a small file system that fills up, and fdatasync that fails or takes long.

The small disk is a tmpfs, so a test machine needs root and nothing else. Failing and slow syncs are injected by strace into
the running daemon, whatever it is written in; what is injected into is the system call, so LMDB's syncs are hit as well.
"""

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType

from raftkv_jepsen.machines.process import Process
from raftkv_jepsen.machines.waiting import wait_until

FILLER_STEP_BYTES = 64 * 1024


class DiskFaultUnavailable(Exception):
    """This machine or user cannot inject the fault; the text says why."""


class Filler:
    """A file that takes what a file system has left."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Takes every byte that is left."""
        with self._path.open("ab", buffering=0) as filler:
            step_bytes = FILLER_STEP_BYTES
            while step_bytes:
                try:
                    written_bytes = filler.write(bytes(step_bytes))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    written_bytes = 0
                if not written_bytes:
                    step_bytes //= 2

    def free(self) -> None:
        """Gives them back."""
        self._path.unlink(missing_ok=True)


class SmallDisk:
    """A tmpfs of `size_bytes` mounted at `path`."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        if os.geteuid() != 0:
            raise DiskFaultUnavailable("mounting a tmpfs needs root")
        path.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "raftkv-test", str(path)],
            check=False,
            capture_output=True,
            text=True,
        )
        if mounted.returncode != 0:
            raise DiskFaultUnavailable(mounted.stderr.strip())
        self.path = path
        self._filler = Filler(path / "filler")

    def fill(self) -> None:
        """Takes every byte that is left."""
        self._filler.fill()

    def free(self) -> None:
        """Gives the filler's bytes back."""
        self._filler.free()

    def unmount(self) -> None:
        """Removes the file system with everything in it."""
        subprocess.run(["umount", "-l", str(self.path)], check=True, capture_output=True)


class SyncFault:
    """strace attached to a daemon, changing its fdatasync; ended by `close`."""

    def __init__(self, daemon: Process, injection: str, directory: Path) -> None:
        strace = shutil.which("strace")
        if strace is None:
            raise DiskFaultUnavailable("strace is not installed")
        trace = directory / f"strace-{daemon.pid}.txt"
        self.process = Process(
            [
                strace, "-f", "-qq", "-p", str(daemon.pid), "-o", str(trace),
                "-e", "trace=fdatasync,fsync", "-e", f"inject=fdatasync,fsync:{injection}",
            ],
            directory / f"strace-{daemon.pid}.log",
        )  # fmt: skip
        wait_until(lambda: _is_traced(daemon, self.process), "strace to attach")

    def __enter__(self) -> "SyncFault":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Detaches; the daemon goes on without the fault."""
        if self.process.exit_code is None:
            self.process.send(signal.SIGINT)
            self.process.wait_exit()
        self.process.kill()


def _is_traced(daemon: Process, tracer: Process) -> bool:
    """Whether every thread of `daemon` is traced, or it has died of the fault. Raises DiskFaultUnavailable."""
    if daemon.exit_code is not None:
        return True
    if tracer.exit_code is not None:
        raise DiskFaultUnavailable(f"strace: {tracer.log_text().strip()}")
    try:
        states = [path.read_text() for path in Path(f"/proc/{daemon.pid}/task").glob("*/status")]
    except (FileNotFoundError, ProcessLookupError):
        return False  # a thread ended between the listing and the reading
    return all(f"TracerPid:\t{tracer.pid}\n" in state for state in states)
