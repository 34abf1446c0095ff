"""Compose nodes without Docker: what is laid over the compose file, whose leavings are cleared away, what is said where there is no engine."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from raftkv_jepsen.machines import cables, compose, containers
from raftkv_jepsen.machines.cables import CLIENTS
from raftkv_jepsen.machines.compose import MEMBERS, ComposeUnavailable, Project, draw_subnet
from raftkv_jepsen.machines.containers import ContainerNetwork, lacks
from raftkv_jepsen.main import main

ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


class FakeDocker:
    """Remembers what it was asked, and answers by the beginning of the question."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, str] = {}

    def __call__(self, *arguments: str, seconds_max: float = 0.0) -> str:
        words = " ".join(arguments)
        self.asked.append(words)
        return next((answer for question, answer in self.answers.items() if words.startswith(question)), "")


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    fake = FakeDocker()
    monkeypatch.setattr(compose, "docker", fake)
    monkeypatch.setattr(containers, "docker", fake)
    monkeypatch.setattr(compose, "find_compose", lambda: ["docker", "compose"])
    return fake


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Any]]:
    """Compose's command lines and environments."""
    found: list[tuple[list[str], Any]] = []

    def run(command: list[str], environment: Any, seconds_max: float) -> str:
        found.append((command, environment))
        return ""

    monkeypatch.setattr(compose, "_run", run)
    return found


def test_two_projects_share_neither_name_nor_ports_nor_addresses(docker: FakeDocker) -> None:
    first, second = Project("jepsen", {}), Project("jepsen", {})
    try:
        assert first.name != second.name
        assert not set(first.ports.values()) & set(second.ports.values())
        assert len({first.address(host) for host in (*MEMBERS, "clients")}) == 4
    finally:
        first.close()
        second.close()


def test_the_overlay_lets_crashes_be_seen_and_keeps_addresses(docker: FakeDocker) -> None:
    project = Project("jepsen", {"RAFTKV_LIMITS_COMMIT_INTERVAL_MS": "50"})
    try:
        overlay: Any = project.overlay()
        for member in MEMBERS:
            service = overlay["services"][member]
            assert service["restart"] == "no", "a restart by the engine would hide a crash"
            assert service["environment"] == {"RAFTKV_LIMITS_COMMIT_INTERVAL_MS": "50"}
            assert service["networks"]["cluster"]["ipv4_address"] == project.address(member)
            assert service["labels"][compose.OWNER_LABEL] == str(os.getpid())
        (subnet,) = overlay["networks"]["cluster"]["ipam"]["config"]
        assert subnet["gateway"] == project.address("clients"), "that is where clients come from"
    finally:
        project.close()


def test_a_member_with_a_new_disk_joins(docker: FakeDocker, composed: list[tuple[list[str], Any]]) -> None:
    docker.answers = {"ps --all --quiet": "some-id"}
    project = Project("jepsen", {})
    try:
        project.create(lambda words: None)
        project.renew("n2", "n1")
        overlay: Any = project.overlay()
        assert overlay["services"]["n2"]["environment"] == {"RAFTKV_JOIN": "n1:2379", "RAFTKV_INITIAL_CLUSTER": ""}
        assert not overlay["services"]["n1"]["environment"]
        assert f"volume rm {project.name}_n2" in docker.asked
        assert composed[-1][0][-3:] == ["up", "--no-start", "n2"]
    finally:
        project.close()


@pytest.mark.parametrize("named", [True, False])
def test_this_checkout_is_built_unless_an_image_is_named(
    docker: FakeDocker, composed: list[tuple[list[str], Any]], monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    docker.answers = {"ps --all --quiet": "some-id"}
    if named:
        monkeypatch.setenv(compose.IMAGE, "mine:1")
    else:
        monkeypatch.delenv(compose.IMAGE, raising=False)
    project = Project("jepsen", {})
    try:
        project.create(lambda words: None)
    finally:
        project.close()
    assert [command[-1] for command, _ in composed] == (["--no-start"] if named else ["build", "--no-start"])
    assert composed[0][1]["RAFTKV_PORT_N3"] == str(project.ports["n3"])
    assert composed[0][1]["RAFTKV_CLUSTER_NAME"] == "jepsen"


def test_only_what_dead_runs_of_this_host_left_is_cleared_away(docker: FakeDocker) -> None:
    dead, alive = "4194999", str(os.getpid())  # above the kernel's largest process id
    docker.answers = {
        f"ps --all --filter label={compose.HOST_LABEL}={compose.this_host()}": f"old\t{dead}\nold\t{dead}\nmine\t{alive}",
        "ps --all --quiet --filter label=com.docker.compose.project=old": "a b",
        "volume ls": "v",
    }
    compose.remove_orphans()
    assert "rm --force --volumes a b" in docker.asked
    assert "volume rm --force v" in docker.asked
    assert not any("project=mine" in asked for asked in docker.asked)


def test_a_subnet_to_which_a_route_leads_is_not_taken() -> None:
    assert draw_subnet(ROUTES).startswith("10.")
    everything = "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n"  # 10.0.0.0/8
    with pytest.raises(ComposeUnavailable, match="route"):
        draw_subnet(ROUTES + everything)
    default = "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    assert draw_subnet(ROUTES + default)


def test_what_cannot_be_entered_is_lacking_with_its_reason(docker: FakeDocker, tmp_path: Path) -> None:
    project = Project("jepsen", {})
    network = ContainerNetwork(project)
    network.unavailable = ""
    docker.answers = {"volume inspect": str(tmp_path / "elsewhere")}
    try:
        network.moved("n1", 4194999)
        found = lacks(project, network)
        assert found.keys() == {"crash", "partition", "links", "damage"}
        assert all(reason.startswith("not available with compose: ") for reason in found.values())
        assert "not on this machine" in found["links"]
    finally:
        network.close()
        project.close()


def test_a_cut_from_the_clients_is_made_where_it_is_sent(docker: FakeDocker, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, str] = {}
    monkeypatch.setattr(cables, "run_tool", lambda *words, standard_input: written.update({words[0]: standard_input}))
    project = Project("jepsen", {})
    network = ContainerNetwork(project)
    monkeypatch.setattr(network, "inside", lambda host: (host,))
    try:
        network.cut("n1", CLIENTS)
        network.isolate("n2", ["n3"])
        assert f"ip daddr {{ {project.address(CLIENTS)} }} drop" in written["n1"], (
            "the machine's own rules are left alone"
        )
        assert f"ip saddr {{ {project.address('n3')} }} drop" in written["n2"]
        assert f"ip saddr {{ {project.address('n2')} }} drop" in written["n3"]
        network.heal()
        assert not any("drop" in rules for rules in written.values())
    finally:
        network.close()
        project.close()


def test_no_docker_is_one_line_and_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--machines", "compose", "--time", "1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(compose.shutil, "which", lambda name: None)  # type: ignore[attr-defined]
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "python jepsen-like: --machines compose needs Docker: there is no docker command here"
    )

    def refuse(*arguments: str) -> str:
        raise subprocess.CalledProcessError(1, "docker", stderr="Cannot connect\nto the daemon")

    monkeypatch.setattr(compose.shutil, "which", lambda name: f"/bin/{name}")  # type: ignore[attr-defined]
    monkeypatch.setattr(compose, "docker", refuse)
    assert main(words) == 2
    assert "none answers: Cannot connect to the daemon" in capsys.readouterr().err
    assert main([*words, "--nodes", "5"]) == 2
    assert "three members" in capsys.readouterr().err
