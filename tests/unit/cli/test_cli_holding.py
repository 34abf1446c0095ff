"""A command under something held: what comes in the moment in which it is started."""

import os
import signal
import subprocess
import sys
import threading
from typing import Callable, Mapping, Sequence

import pytest

from raftkv_cli import holding
from raftkv_cli.main import told_of_the_end
from raftkv_cli.settings import Settings
from raftkv_cli.spec import Call

HOLD = holding.hold_until_told.__code__


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_the_lock_and_the_command_reaches_the_command(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """It would take us away otherwise, and leave the command running under nothing."""
    real = holding.start
    started: list[subprocess.Popen[bytes]] = []

    def start(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes] | int":
        os.kill(os.getpid(), number)
        child = real(command, environment)
        assert isinstance(child, subprocess.Popen)
        started.append(child)
        return child

    monkeypatch.setattr(holding, "start", start)
    handler = signal.getsignal(number)
    assert holding.run_while_held(["sleep", "100"], {}, threading.Event(), 1.0) == 128 + number
    assert started[0].returncode == -number
    assert signal.getsignal(number) is handler


def told_at_the_word(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    monkeypatch.setattr(holding, "write_line", lambda text: os.kill(os.getpid(), number))


def told_within_the_wait(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """While the event that is waited for is locked by the thread that the signal's handler runs in."""
    real = threading.Condition.wait

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread() and sys._getframe(2).f_code is HOLD:
            os.kill(os.getpid(), number)
        return real(self, timeout)

    monkeypatch.setattr(threading.Condition, "wait", wait)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("told", [told_at_the_word, told_within_the_wait])
def test_a_signal_from_the_first_word_on_is_a_good_end(
    monkeypatch: pytest.MonkeyPatch, told: Callable[[pytest.MonkeyPatch, signal.Signals], None], number: signal.Signals
) -> None:
    """Who reads that something is held, and ends us, must neither be told that we still waited nor wait for ever."""
    told(monkeypatch, number)
    with told_of_the_end():
        holding.hold_until_told(Call({}, {}, "value", Settings()), {"token": 7}, "7", threading.Event())
