"""A command under something held: what comes in the moment in which it is started."""

import os
import signal
import subprocess
import threading
from typing import Mapping, Sequence

import pytest

from raftkv_cli import holding


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
