"""`raftkv semaphore NAME --capacity N -- COMMAND`: room, exit codes, what the command is told, and who sees it."""

import json
from typing import Any

import pytest

import raftkv

from .harness.cluster import Cluster
from .harness.process import run_raftkv

pytestmark = pytest.mark.integration


def semaphore(healthy: Cluster, *words: str, code: int = 0) -> Any:
    """Its process, ended: with that exit code, and a word on stderr only when something is wrong."""
    done = run_raftkv("semaphore", *words, environment={"RAFTKV_ENDPOINTS": healthy.endpoints})
    assert done.returncode == code, (done.stdout, done.stderr)
    assert len(done.stderr.splitlines()) == (code in (1, 4)), done.stderr
    return done


def test_room_is_given_by_weight_and_comes_back(healthy: Cluster) -> None:
    words = ("--capacity", "3", "--weight", "2")
    said = semaphore(
        healthy, "gpu", *words, "--", "sh", "-c", "echo $RAFTKV_SEMAPHORE_NAME; echo $RAFTKV_SEMAPHORE_TOKEN"
    )
    name, token = said.stdout.decode().split()
    assert name == "gpu"
    semaphore(healthy, "gpu", *words, "--", "sh", "-c", "exit 7", code=7)
    with raftkv.Client(healthy.endpoints) as kv, kv.semaphore("gpu", 3, weight=2, priority=-1, owner="we") as held:
        assert held.token > int(token)
        refused = semaphore(healthy, "gpu", *words, "--wait", "0.3", "--", "true", code=4)
        assert b"not_acquired" in refused.stderr
        semaphore(healthy, "gpu", "--capacity", "3", "--", "true")  # one is left
        document = json.loads(semaphore(healthy, "gpu", "--queue", "-o", "json").stdout)
        (entry,) = document["queue"]
        assert (document["capacity"], document["used"]) == (3, 2)
        assert (entry["state"], entry["weight"], entry["priority"], entry["owner"]) == ("in", 2, -1, "we")
        assert (
            b"has a capacity of 3, not 4" in semaphore(healthy, "gpu", "--capacity", "4", "--", "true", code=1).stderr
        )
        semaphore(healthy, "gpu", "--resize", "4")
        semaphore(healthy, "gpu", "--capacity", "4", "--weight", "2", "--", "true")
