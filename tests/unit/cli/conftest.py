"""Running the command line in this process, against the fake client."""

import io
import json
from typing import Any, Callable, NamedTuple

import pytest

import raftkv
from raftkv_cli.main import main

from .fake_client import Cluster, FakeClient


class Result(NamedTuple):
    """What one command line did."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def document(self) -> Any:
        return json.loads(self.stdout)


RunCli = Callable[..., Result]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The store behind every client that the command line opens in this test."""
    made = Cluster()
    monkeypatch.setattr(FakeClient, "cluster", made, raising=False)
    monkeypatch.setattr(raftkv, "Client", FakeClient, raising=False)
    return made


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> RunCli:
    """Runs one command line; standard input holds `stdin`."""

    def run(*words: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(words)
        captured = capfdbinary.readouterr()
        return Result(code, captured.out, captured.err.decode())

    return run
