"""PyTorch against real members: without torch these tests skip and say how to get it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Iterator

import pytest

from raftkv_jepsen.machines.cluster import Cluster, ClusterOptions
from raftkv_jepsen.machines.ports import PortReservations
from raftkv_jepsen.machines.process import RAFTKV, raftkv_environment
from raftkv_jepsen.machines.waiting import wait_until

TEST_DEADLINE_S = 240
SCRIPTS = Path(__file__).parent / "scripts"

Start = Callable[..., "subprocess.Popen[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        import torch.distributed  # noqa: F401
    except ImportError:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="torch is not installed: make test-torch"))


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """Ends a test that hangs."""

    def on_alarm(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"the test did not end within {TEST_DEADLINE_S} s")

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(TEST_DEADLINE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three members, ready."""
    with Cluster(ClusterOptions()) as made:
        made.start()
        yield made


@pytest.fixture
def ports() -> Iterator[PortReservations]:
    """Ports for what a test starts."""
    taken = PortReservations()
    yield taken
    taken.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts programs whose output goes to a file, and ends them with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, **environment: str) -> "subprocess.Popen[str]":
        path = tmp_path / f"{len(started)}.log"
        with path.open("w") as log:
            process = subprocess.Popen(
                words,
                env=raftkv_environment({**torch_environment(), **environment}),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        process.log = str(path)  # type: ignore[attr-defined]
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def torch_environment() -> dict[str, str]:
    """What keeps torch to this machine and to few threads."""
    import torch

    paths = raftkv_environment()["PYTHONPATH"]
    home = str(Path(torch.__file__).parent.parent)
    return {
        "PYTHONPATH": os.pathsep.join((paths, home)),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }


def output_of(process: Any) -> str:
    return Path(process.log).read_text()


def finish(process: Any, deadline_s: float = 120.0) -> str:
    """What it has said, once it has ended well."""
    try:
        code = process.wait(deadline_s)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{process.args} did not end:\n{output_of(process)[-4000:]}") from None
    assert code == 0, f"{process.args} ended with {code}:\n{output_of(process)[-4000:]}"
    return output_of(process)


def start_proxy(start: Start, endpoints: str, run_id: str, port: int, *, round_: int = 0) -> Any:
    """A `raftkv torch-proxy` that is ready."""
    words = (*RAFTKV, "torch-proxy", "--endpoints", endpoints, "--run-id", run_id, "--round", str(round_))
    proxy = start(*words, "--listen", f"127.0.0.1:{port}")
    wait_until(lambda: "ready:" in output_of(proxy), "the proxy", deadline_s=30)
    return proxy


def script(name: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, str(SCRIPTS / name), *words)
