"""`raftkv lock NAME -- COMMAND` in the middle of things: Ctrl-C while it waits, runs or just holds, and a loss that ends all that it runs."""

import os
import signal
from pathlib import Path
from typing import Callable, Iterator

import pytest

import raftkv

from .harness.cluster import Cluster
from .harness.process import RAFTKV, Process
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

StartLock = Callable[..., Process]


@pytest.fixture
def kv(healthy: Cluster) -> Iterator[raftkv.Client]:
    with raftkv.Client(healthy.endpoints) as client:
        yield client


@pytest.fixture
def start(healthy: Cluster, tmp_path: Path) -> Iterator[StartLock]:
    """Starts `raftkv lock` in a process group of its own, as a shell would."""
    started: list[Process] = []

    def begin(*words: str) -> Process:
        command = (*RAFTKV, "lock", "--endpoints", healthy.endpoints, *words)
        started.append(Process(command, tmp_path / f"log{len(started)}"))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


def interrupt(process: Process, number: int = signal.SIGINT) -> None:
    """Ctrl-C goes to the whole foreground group."""
    os.killpg(process.pid, number)


def runs(pid: int) -> bool:
    """Whether it is there and no corpse that waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def number_in(path: Path) -> int:
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"{path.name} to be written")
    return int(path.read_text())


def test_ctrl_c_goes_to_the_command_and_the_lock_comes_back(
    kv: raftkv.Client, start: StartLock, tmp_path: Path
) -> None:
    process = start("shell", "--", "sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 100")
    pid = number_in(tmp_path / "pid")
    interrupt(process)
    assert process.wait_exit() == 128 + signal.SIGINT
    assert not runs(pid)
    kv.lock("shell").acquire(0)  # given back, and not run out


def test_a_command_may_have_its_own_answer_to_ctrl_c(kv: raftkv.Client, start: StartLock, tmp_path: Path) -> None:
    script = f"trap 'exit 7' INT; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"
    process = start("trap", "--", "sh", "-c", script)
    number_in(tmp_path / "pid")
    interrupt(process)
    assert process.wait_exit() == 7
    kv.lock("trap").acquire(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_waits_leaves_no_place(kv: raftkv.Client, start: StartLock, number: int) -> None:
    with kv.lock("busy") as lock:
        process = start("busy", "--", "true")
        wait_until(lambda: len(lock.queue()) == 2, "it to queue up")
        interrupt(process, number)
        assert process.wait_exit() == 128 + number
        assert len(lock.queue()) == 1
        assert "Traceback" not in process.log_text()


def test_ctrl_c_while_it_just_holds(kv: raftkv.Client, start: StartLock) -> None:
    process = start("held")
    wait_until(lambda: kv.lock("held").queue() and process.log_text(), "it to hold the lock")
    interrupt(process)
    assert process.wait_exit() == 0
    kv.lock("held").acquire(0)


def test_a_loss_ends_children_that_outlive_the_command(kv: raftkv.Client, start: StartLock, tmp_path: Path) -> None:
    """The command ends at the first word, one of its children does not listen."""
    child = f"trap '' TERM; echo $$ > {tmp_path}/child; while :; do sleep 0.05; done"
    script = (
        f'sh -c "$0" & while [ ! -s {tmp_path}/child ]; do sleep 0.02; done; echo $$ > {tmp_path}/pid; exec sleep 100'
    )
    process = start("lost", "--ttl", "3", "--grace", "0.5", "--", "sh", "-c", script, child)
    pid, child_pid = number_in(tmp_path / "pid"), number_in(tmp_path / "child")
    kv.lease_revoke(kv.lock("lost").queue()[0].lease)
    assert process.wait_exit(30) == 1
    assert "lock_lost" in process.log_text()
    assert not runs(pid)
    wait_until(lambda: not runs(child_pid), "the child to be gone")
