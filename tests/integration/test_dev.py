"""`raftkv dev`: a cluster for the first minute, which leaves nothing behind and finds its data again."""

import os
import re
import signal
import socket
from pathlib import Path
from typing import Callable, Iterator

import pytest

from .harness.ports import PortReservations
from .harness.process import RAFTKV, Process, run_raftkv
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

READY_DEADLINE_S = 30.0
END_DEADLINE_S = 15.0
MEMBER_LINE = re.compile(r"^(n\d+) pid=(\d+) client=(\S+) peer=(\S+)$", re.MULTILINE)

StartDev = Callable[..., "Dev"]


class Dev:
    """A running `raftkv dev`."""

    def __init__(self, process: Process, output: Path) -> None:
        self.process = process
        self._output = output

    def output(self) -> str:
        return self._output.read_text()

    def wait_ready(self) -> "Dev":
        def ready() -> bool:
            assert self.process.exit_code is None, self.process.log_text()
            return self.output().splitlines()[-1:] == ["ready"]

        wait_until(ready, "raftkv dev to be ready", deadline_s=READY_DEADLINE_S, seen=self.output)
        return self

    @property
    def members(self) -> list[tuple[str, int, str, str]]:
        """(name, pid, client, peer) as it printed them."""
        return [(name, int(pid), client, peer) for name, pid, client, peer in MEMBER_LINE.findall(self.output())]

    @property
    def endpoints(self) -> str:
        return ",".join(client for _, _, client, _ in self.members)

    def put(self, key: str, value: str) -> None:
        assert run_raftkv("put", key, value, "--endpoints", self.endpoints).returncode == 0

    def get(self, key: str) -> bytes:
        return run_raftkv("get", key, "--endpoints", self.endpoints).stdout

    def end(self, number: int = signal.SIGINT) -> int:
        """Ends it and checks that no member is left."""
        pids = [pid for _, pid, _, _ in self.members]
        self.process.send(number)
        code = self.process.wait_exit(END_DEADLINE_S)
        assert not [pid for pid in pids if is_raftkv(pid)], "a member was left behind"
        return code


def is_raftkv(pid: int) -> bool:
    """Whether the process runs and is a daemon of ours (a pid may have been reused)."""
    try:
        return b"raftkv_cli" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def start_dev(tmp_path: Path) -> Iterator[StartDev]:
    """Starts `raftkv dev` with these options; it is ended with the test."""
    started: list[Dev] = []

    def start(*options: str) -> Dev:
        output = tmp_path / f"dev-{len(started)}.out"
        process = Process([*RAFTKV, "dev", *options], tmp_path / f"dev-{len(started)}.log", stdout_path=output)
        started.append(Dev(process, output))
        return started[-1]

    yield start
    for dev in started:
        if dev.process.exit_code is None:
            dev.process.send(signal.SIGTERM)
            dev.process.wait_exit(END_DEADLINE_S)
        dev.process.kill()


@pytest.fixture
def first_port() -> Iterator[int]:
    """A port with five free ones above it, as the fixed layout needs them."""
    reservations = PortReservations()
    yield reservations.take_consecutive(6)
    reservations.close()


def test_ports_data_and_end(start_dev: StartDev, first_port: int, tmp_path: Path) -> None:
    """Ports as fixed, data kept over two runs, Ctrl-C and SIGTERM leave nothing."""
    options = ("--port", str(first_port), "--data-dir", str(tmp_path / "data"))
    dev = start_dev(*options).wait_ready()
    assert [name for name, _, _, _ in dev.members] == ["n1", "n2", "n3"]
    for number, (_, pid, client, peer) in enumerate(dev.members):
        assert (client, peer) == (f"127.0.0.1:{first_port + 2 * number}", f"127.0.0.1:{first_port + 2 * number + 1}")
        assert is_raftkv(pid)
    dev.put("kept", "over a restart")
    assert dev.end(signal.SIGINT) == 0
    again = start_dev("--data-dir", str(tmp_path / "data")).wait_ready()
    assert again.endpoints == dev.endpoints
    assert again.get("kept") == b"over a restart\n"
    assert again.end(signal.SIGTERM) == 0


def test_one_member(start_dev: StartDev) -> None:
    """The smallest cluster."""
    dev = start_dev("--nodes", "1", "--port", "0").wait_ready()
    dev.put("key", "value")
    assert dev.get("key") == b"value\n"
    assert dev.end() == 0


def test_killed_dev_leaves_no_member(start_dev: StartDev) -> None:
    """Even kill -9 of the parent."""
    dev = start_dev("--port", "0").wait_ready()
    pids = [pid for _, pid, _, _ in dev.members]
    dev.process.kill()
    wait_until(lambda: not any(is_raftkv(pid) for pid in pids), "the members to end")


def test_taken_port_is_named(start_dev: StartDev, first_port: int, tmp_path: Path) -> None:
    """One line, exit code 1, no directory of members."""
    with socket.create_server(("127.0.0.1", first_port + 2)):
        done = run_raftkv("dev", "--port", str(first_port), "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert str(first_port + 2).encode() in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr.decode()


def test_member_that_dies_is_reported_and_the_others_go_on(start_dev: StartDev) -> None:
    """As in production: a majority serves."""
    dev = start_dev("--port", "0").wait_ready()
    dev.put("key", "value")
    os.kill(dev.members[0][1], signal.SIGKILL)
    wait_until(lambda: "n1" in dev.process.log_text(), "the death to be reported", seen=dev.process.log_text)
    dev.put("key", "again")
    assert dev.get("key") == b"again\n"
    assert dev.end() == 0
