"""Ctrl-C and SIGTERM at the worst moments of the verbs that hold something: nothing stays in the hands of a process that is gone."""

import importlib
import os
import signal
import sys
from contextlib import nullcontext
from types import FrameType
from typing import Any

import pytest

from raftkv.errors import NotAcquired, NotHeld
from raftkv_cli.connect import open_client
from raftkv_cli.main import main
from raftkv_cli.settings import Settings

from .fake_client import Cluster

LINES = {
    "lock": ["lock", "name"],
    "semaphore": ["semaphore", "name", "--capacity", "1"],
    "elect": ["elect", "name"],
    "pool": ["pool", "acquire", "name", "gpu=1"],
    "barrier": ["barrier", "meet", "name", "1"],
}
VERBS = sorted(LINES)


class Held:
    """All of them at once: what is acquired, and the client that makes it."""

    key, token, id = b"key", 7, "id"

    def __init__(self, refusal: NotAcquired | None = None) -> None:
        self.did: list[str] = []
        self.refusal = refusal

    def acquire(self, *_: Any, **options: Any) -> "Held":
        if self.refusal is not None:
            raise self.refusal
        self.did.append("acquired")
        return self

    def release(self, *_: Any) -> None:
        if not self.did:
            raise NotHeld("it is not held")
        self.did.append("released")

    def lock(self, *_: Any, **options: Any) -> "Held":
        return self

    semaphore = election = pool = double_barrier = lock
    enter = acquire
    leave = resign = release

    def campaign(self, *_: Any) -> None:
        self.acquire()


def run_verb(name: str, held: Held, monkeypatch: pytest.MonkeyPatch) -> int:
    module = importlib.import_module(f"raftkv_cli.commands.{name}")
    monkeypatch.setattr(module, "open_client", lambda settings: nullcontext(held))
    return main(LINES[name])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", VERBS)
def test_a_signal_right_behind_acquiring_gives_back(
    name: str, number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes in the first line that the verb runs when it has what it wanted."""
    held = Held()
    here = importlib.import_module(f"raftkv_cli.commands.{name}").__file__

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and held.did == ["acquired"] and frame.f_code.co_filename == here:
            held.did.append("told")
            os.kill(os.getpid(), number)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        ended_with = run_verb(name, held, monkeypatch)
    finally:
        sys.settrace(before)
    assert held.did == ["acquired", "told", "released"]
    assert ended_with == code


@pytest.mark.parametrize("name", VERBS)
def test_what_was_not_acquired_is_not_given_back(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    held = Held(NotAcquired("it was not free"))
    assert run_verb(name, held, monkeypatch) == 4
    assert "not_acquired" in capfd.readouterr().err
    assert held.did == []


def test_what_nobody_knows_of_yet_is_revoked(cluster: Cluster) -> None:
    """Between the cluster's answer and the recipe's own books."""
    with pytest.raises(KeyboardInterrupt), open_client(Settings()):
        raise KeyboardInterrupt
    assert len(cluster.kept_revoked_within) == 1
    assert 0 < cluster.kept_revoked_within[0] <= 2.0


def test_any_other_end_revokes_nothing(cluster: Cluster) -> None:
    with open_client(Settings()):
        pass
    with pytest.raises(NotAcquired), open_client(Settings()):
        raise NotAcquired("it was not free")
    assert cluster.kept_revoked_within == []
