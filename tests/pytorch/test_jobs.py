"""Jobs of four ranks through each of the ways in, and torchrun's elastic ones, while ranks and leaders die."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from raftkv_jepsen.machines.cluster import Cluster
from raftkv_jepsen.machines.ports import PortReservations
from raftkv_jepsen.machines.waiting import wait_until

from .conftest import SCRIPTS, Start, finish, output_of, script, start_proxy

RANKS = 4


def expect_ranks(processes: list[Any]) -> None:
    for rank, process in enumerate(processes):
        assert f"rank {rank} of {RANKS}: 10" in finish(process)


def test_ranks_meet_by_the_init_method(cluster: Cluster, start: Start) -> None:
    url = f"raftkv://{cluster.endpoints}/job-1"
    expect_ranks([start(*script("ranks.py", url, str(rank), str(RANKS))) for rank in range(RANKS)])


@pytest.mark.long
def test_ranks_meet_by_the_init_method_while_the_leader_dies(cluster: Cluster, start: Start) -> None:
    url = f"raftkv://{cluster.endpoints}/job-2"
    processes = [start(*script("ranks.py", url, str(rank), str(RANKS))) for rank in range(RANKS - 1)]
    wait_until(lambda: waiting_keys(cluster, "job-2") > 0, "ranks that wait for the last one", deadline_s=90)
    cluster.leader().kill()
    processes.append(start(*script("ranks.py", url, str(RANKS - 1), str(RANKS))))
    expect_ranks(processes)


def waiting_keys(cluster: Cluster, run_id: str) -> int:
    import raftkv

    with raftkv.Client(cluster.endpoints) as kv:
        return kv.range(prefix=f"rdzv/{run_id}/", count_only=True).count


def test_an_unmodified_script_meets_through_the_proxy(cluster: Cluster, ports: PortReservations, start: Start) -> None:
    # Two proxies: two hosts. One address would do for one host, and each has its own.
    first, second = ports.take(), ports.take()
    for port in (first, second):
        start_proxy(start, cluster.endpoints, "job-3", port)
    common = {"WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    processes = [
        start(
            *script("ranks.py", "env://", "-1", "0"),
            **common,
            RANK=str(rank),
            MASTER_PORT=str(first if rank % 2 else second),
        )
        for rank in range(RANKS)
    ]
    expect_ranks(processes)


def torchrun(start: Start, cluster: Cluster, run_id: str, *words: str, nodes: str = "1", per_node: int = 2) -> Any:
    return start(
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--rdzv-backend=raftkv",
        f"--rdzv-endpoint={cluster.endpoints}",
        f"--rdzv-id={run_id}",
        f"--nnodes={nodes}",
        f"--nproc-per-node={per_node}",
        "--max-restarts=3",
        "--monitor-interval=0.5",
        str(SCRIPTS / "elastic.py"),
        *words,
    )


@pytest.fixture
def entry_point() -> None:
    """torchrun finds the backend by the entry point of the installed package."""
    from importlib.metadata import entry_points

    names = [point.name for point in entry_points(group="torchrun.handlers")]
    assert "raftkv" in names, "the package is installed without its entry points: pip install -e ."


def test_torchrun_forms_a_new_group_when_a_worker_dies(
    cluster: Cluster, start: Start, tmp_path: Path, entry_point: None
) -> None:
    words = ("1", str(tmp_path / "died"), "10")
    agents = [torchrun(start, cluster, "run-1", *words, nodes="2") for _ in range(2)]
    said = [finish(agent, 200) for agent in agents]
    assert (tmp_path / "died").exists()
    finished = {line for text in said for line in text.splitlines() if "has finished" in line}
    assert len(finished) == RANKS, said
    assert all("at 127.0.0.1, restart" in text for text in said), "workers meet on their own host"


@pytest.mark.long
def test_torchrun_goes_on_when_the_leader_of_the_cluster_dies(
    cluster: Cluster, start: Start, tmp_path: Path, entry_point: None
) -> None:
    marker = tmp_path / "died"
    marker.touch()  # nobody dies
    first = torchrun(start, cluster, "run-2", "0", str(marker), "10", nodes="2")
    wait_until(
        lambda: waiting_keys(cluster, "run-2.agents") > 0 or state_exists(cluster, "run-2"),
        "the rendezvous to begin",
        deadline_s=90,
    )
    cluster.leader().kill()
    second = torchrun(start, cluster, "run-2", "0", str(marker), "10", nodes="2")
    for agent in (first, second):
        assert "has finished" in finish(agent, 200)


def state_exists(cluster: Cluster, run_id: str) -> bool:
    import raftkv

    with raftkv.Client(cluster.endpoints) as kv:
        return kv.get(f"rdzv-state/{run_id}") is not None


def test_a_proxy_ends_when_it_is_told_to(cluster: Cluster, ports: PortReservations, start: Start) -> None:
    proxy = start_proxy(start, cluster.endpoints, "job-9", ports.take())
    os.killpg(proxy.pid, signal.SIGTERM)
    assert "ready:" in finish(proxy, 30)
    assert "Traceback" not in output_of(proxy)
