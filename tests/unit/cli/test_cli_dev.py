"""`raftkv dev` from start to end in this process, with stand-ins for the members."""

import os
import signal
from pathlib import Path

import pytest

from raftkv_cli.commands import dev
from raftkv_cli.local_cluster import Member

from .conftest import RunCli
from .test_cli_local_cluster import STAND_IN, StandIns


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "LocalCluster", StandIns)


def send_on_ready(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """When dev says `ready`, this process gets the signal."""
    say = dev.say

    def say_and_send(line: str) -> None:
        say(line)
        if line == "ready":
            os.kill(os.getpid(), number)

    monkeypatch.setattr(dev, "say", say_and_send)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_members_are_announced_and_end_with_the_signal(
    cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals
) -> None:
    send_on_ready(monkeypatch, number)
    code, stdout, stderr = cli("dev", "--port", "0", "--data-dir", str(tmp_path / "d"))
    lines = stdout.decode().splitlines()
    assert (code, stderr) == (0, "")
    assert lines[-1] == "ready"
    for count, line in enumerate(lines[:-1], 1):
        name, pid, client, peer = line.split()
        assert name == f"n{count}"
        assert client.startswith("client=127.0.0.1:")
        assert peer.startswith("peer=127.0.0.1:")
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.removeprefix("pid=")), 0)
    assert len(lines) == 4
    again = cli("dev", "--data-dir", str(tmp_path / "d"))
    assert [line.split()[2:] for line in again.stdout.decode().splitlines()] == [line.split()[2:] for line in lines]


def test_a_temporary_directory_goes(cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    send_on_ready(monkeypatch, signal.SIGINT)
    assert cli("dev", "--port", "0", "--nodes", "1").code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_death_is_reported_and_the_others_go_on(cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []
    announce, report_death = dev.announce, dev.report_death

    def note_pids(cluster: StandIns) -> None:
        announce(cluster)
        pids.extend(member.pid for member in cluster.members.values())

    def say_and_kill(line: str) -> None:
        if line == "ready":
            os.kill(pids[1], signal.SIGKILL)

    def report_and_end(member: Member) -> None:
        report_death(member)
        os.kill(pids[0], 0)  # the others are there
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(dev, "announce", note_pids)
    monkeypatch.setattr(dev, "say", say_and_kill)
    monkeypatch.setattr(dev, "report_death", report_and_end)
    code, _, stderr = cli("dev", "--port", "0")
    assert code == 0
    assert stderr.startswith("n2 was killed by SIGKILL; its log is ")
    assert "  stand-in listens\n" in stderr


def test_a_cluster_that_cannot_start_says_why(cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIns, "script", "raise SystemExit('no such luck')")
    code, stdout, stderr = cli("dev", "--port", "0", "--nodes", "1")
    assert code == 1
    assert b"ready" not in stdout
    assert "n1 ended with exit code 1" in stderr
    assert "  no such luck\n" in stderr
    assert stderr.endswith("raftkv dev: the cluster did not start: a member ended\n")


def test_it_ends_when_nobody_is_left(cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIns, "script", STAND_IN.replace("while True:", "for _ in range(1):"))
    code, stdout, stderr = cli("dev", "--port", "0", "--nodes", "1")
    assert code == 1
    assert stdout.decode().splitlines()[-1] == "ready"
    assert stderr.endswith("raftkv dev: no member is left\n")
