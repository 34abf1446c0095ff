"""Running a command for as long as something is held: a lock, an office.

The command gets a process group of its own, so that it is ended with all its children when what it runs under is lost, and, on Linux, it
ends with us when we are killed. Signals that we get go on to it; its exit code becomes ours.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any, Callable, Mapping, Sequence

from raftkv_cli import exits
from raftkv_cli.output import write_json, write_line
from raftkv_cli.spec import Call, Failed

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
PR_SET_PDEATHSIG = 1
NOT_FOUND, NOT_EXECUTABLE, SIGNALLED = 127, 126, 128
LOOK_AGAIN_SECONDS = 0.02


def run_while_held(
    command: Sequence[str],
    environment: Mapping[str, str],
    lost: threading.Event,
    grace_seconds: float,
    notice: threading.Event | None = None,
) -> int:
    """The command's exit code; FAILED when `lost` was set before it ended: it gets SIGTERM then, and SIGKILL after the grace.

    `notice`: it gets SIGTERM when this is set, and may still end well before it is lost.
    """
    running: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if running:
            signal_group(running[0], number)
        else:
            early.append(number)

    # From before there is a child: a Ctrl-C in between would take us away and leave it running under nothing.
    before = {number: signal.signal(number, forward) for number in FORWARDED}
    ended = threading.Event()
    gave_terminal = False
    try:
        child = start(command, environment)
        if isinstance(child, int):
            return child
        gave_terminal = give_terminal(child.pid)
        threading.Thread(target=end_when_lost, args=(child, lost, ended, grace_seconds), daemon=True).start()
        if notice is not None:
            threading.Thread(target=give_notice, args=(child, notice, ended), daemon=True).start()
        running.append(child)
        for number in early:
            signal_group(child, number)
        code = child.wait()
    finally:
        was_lost = lost.is_set()
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        if gave_terminal:
            give_terminal(os.getpgrp())
    if was_lost:
        end_leftovers(child.pid, grace_seconds)
        return exits.FAILED
    return code if code >= 0 else SIGNALLED - code


def hold_until_told(call: Call, document: Mapping[str, object], text: str, lost: threading.Event) -> None:
    """Say what is held, in JSON or as text, and go on until Ctrl-C or SIGTERM (told_of_the_end), or until it is lost: from the first byte said on, being told is a good end."""
    over = threading.Event()  # of our own: an exception in the middle of a wait may leave its event locked

    def end_when_lost() -> None:
        lost.wait()
        over.set()

    try:
        if call.output == "json":
            write_json(document)
        else:
            write_line(text)
        sys.stdout.flush()
        threading.Thread(target=end_when_lost, daemon=True).start()
        over.wait()
    except KeyboardInterrupt:
        pass


def start(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes] | int":
    """The running child, or the exit code that shells have for what cannot be run."""
    try:
        return subprocess.Popen(
            command, env={**os.environ, **environment}, process_group=0, preexec_fn=death_signal(os.getpid())
        )
    except FileNotFoundError:
        complaint, code = "no such command", NOT_FOUND
    except PermissionError:
        complaint, code = "not executable", NOT_EXECUTABLE
    except ValueError as error:
        raise Failed(f"{command[0]!r}: {error}") from None
    sys.stderr.write(f"raftkv: {command[0]}: {complaint}\n")
    return code


def death_signal(parent: int) -> Callable[[], None] | None:
    """To be called in the child: it ends with its parent, whatever ends that. None where the system cannot do it."""
    try:
        import ctypes

        prctl: Any = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None

    def call() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(SIGNALLED + signal.SIGTERM)

    return call


def end_when_lost(
    child: "subprocess.Popen[bytes]", lost: threading.Event, ended: threading.Event, grace_seconds: float
) -> None:
    lost.wait()
    if ended.is_set():
        return
    signal_group(child, signal.SIGTERM)
    if not ended.wait(grace_seconds):
        signal_group(child, signal.SIGKILL)


def end_leftovers(group: int, grace_seconds: float) -> None:
    """Children of the command that outlived it: nothing of it goes on without what it ran under."""
    ends_at = time.monotonic() + grace_seconds
    try:
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < ends_at:
            time.sleep(LOOK_AGAIN_SECONDS)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all of them have ended


def give_notice(child: "subprocess.Popen[bytes]", notice: threading.Event, ended: threading.Event) -> None:
    notice.wait()
    if not ended.is_set():
        signal_group(child, signal.SIGTERM)


def signal_group(child: "subprocess.Popen[bytes]", number: int) -> None:
    if child.poll() is None:
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            pass


def give_terminal(group: int) -> bool:
    """Make a process group the one that the terminal belongs to, if there is a terminal."""
    try:
        if not os.isatty(0):
            return False
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, group)
        return True
    except OSError:
        return False
