"""The fault harness on the containers of docker-compose.yml: a short run with everything that can be had there, and nothing left of it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from integration.harness.waiting import wait_until

from .conftest import IMAGE
from .harness.compose import ComposeCluster

pytestmark = pytest.mark.e2e

LABEL = "raftkv.jepsen.owner"
FAULTS = ("kill-leader", "pause", "restart", "partition-leader", "partition-answers", "clock-jump", "crash-point")
NOT_THERE = {"clock-jump", "crash-point"}
RUN_S = 600.0


def command(built: ComposeCluster, project: Path, out: Path, *words: str) -> list[str]:
    """The harness where the published ports are."""
    program = [sys.executable, str(project / "jepsen-like"), "--machines", "compose", "--out", str(out), *words]
    return built.engine.on_its_network(program)


def environment(built: ComposeCluster) -> dict[str, str]:
    return {**os.environ, **built.engine.environment, "RAFTKV_IMAGE": IMAGE}


def left(built: ComposeCluster) -> list[str]:
    """Of all runs of the harness: containers by their label, networks and volumes by their names."""
    docker = built.engine.docker
    found = docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}").split()
    for kind in ("network", "volume"):
        found += docker(kind, "ls", "--filter", "name=raftkv-jepsen-", "--format", "{{.Name}}").split()
    return found


def test_containers_keep_their_promises_under_faults(built: ComposeCluster, project: Path, tmp_path: Path) -> None:
    words = command(
        built, project, tmp_path, "--time", "40", "--rate", "80", "--seed", "5", "--nemesis", ",".join(FAULTS)
    )
    done = subprocess.run(
        words, env=environment(built), cwd=tmp_path, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    summary = json.loads((tmp_path / "result.json").read_text())
    assert (summary["verdict"], summary["machines"]) == ("valid", "compose"), told
    assert summary["faults"] > 0, "nothing was injected"
    if os.geteuid() == 0 and built.engine.is_private:
        assert summary["skipped"].keys() == NOT_THERE, told
    assert all("not available with compose" in summary["skipped"][name] for name in NOT_THERE)
    assert "not available with compose" in (tmp_path / "report.html").read_text()
    for member in ("n1", "n2", "n3"):
        assert " raftkv" in (tmp_path / f"{member}.log").read_text(), "every member's log is kept"
    assert left(built) == []


def test_a_run_that_is_interrupted_leaves_nothing(built: ComposeCluster, project: Path, tmp_path: Path) -> None:
    words = command(built, project, tmp_path, "--time", "600", "--nemesis", "none")
    log = tmp_path / "printed"
    with log.open("wb") as printed:
        run = subprocess.Popen(words, env=environment(built), cwd=tmp_path, stdout=printed, stderr=printed)
    try:
        wait_until(
            lambda: "nodes are ready" in log.read_text(), "the run to begin", deadline_s=RUN_S, seen=log.read_text
        )
        assert len(left(built)) == 7, "three containers, three volumes, a network"
        run.send_signal(signal.SIGINT)
        assert run.wait(RUN_S) == 3, log.read_text()
    finally:
        run.kill()
        run.wait()
    assert "broken off" in log.read_text()
    assert left(built) == []
    assert (tmp_path / "n1.log").exists()
