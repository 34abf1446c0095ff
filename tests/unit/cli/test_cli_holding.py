"""A command under something held: what comes in the moment in which it is started."""

import os
import signal
import subprocess
import threading
from typing import Mapping, Sequence

import pytest

from raftkv_cli import holding
from raftkv_cli.settings import Settings
from raftkv_cli.spec import Call


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_the_first_word_that_something_is_held_is_a_good_end(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Who reads that word and ends us must not be told that we were ended while we waited."""
    said: list[str] = []

    def write_line(text: str) -> None:
        said.append(text)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(holding, "write_line", write_line)
    handler = signal.getsignal(number)
    call = Call({}, {}, "value", Settings())
    holding.hold_until_told(call, {"token": 7}, "7", threading.Event())
    assert said == ["7"]
    assert signal.getsignal(number) is handler
