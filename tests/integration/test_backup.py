"""`raftkv snapshot`: what save fetches, what status finds, and the cluster that restore makes of it."""

import json
import subprocess
import zlib
from pathlib import Path

import pytest

import raftkv
from raftkv.errors import Compacted

from .harness.cluster import Cluster
from .harness.node import Node
from .harness.process import RAFTKV, raftkv_environment
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration


def snapshot(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RAFTKV, "snapshot", *words],
        env=raftkv_environment({}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_saved_member_becomes_a_new_cluster(cluster: Cluster, tmp_path: Path) -> None:
    file, follower = tmp_path / "backup.rkv", cluster.followers()[0]
    with raftkv.Client(cluster.endpoints) as kv:
        for number in range(500):
            kv.put(f"k{number}", f"v{number}" * 100)
        kv.delete("k7")
        token = kv.put("lock", "mine").revision
        cluster.wait_applied_equal()
        saved = snapshot("save", str(file), "--endpoints", follower.client_endpoint, "-o", "json")
        assert saved.returncode == 0, saved.stderr
        assert json.loads(saved.stdout)["revision"] == token, "everything acknowledged before is in it"
        kv.put("later", "not in it")
    looked = snapshot("status", str(file), "-o", "json")
    assert looked.returncode == 0, looked.stderr
    found = json.loads(looked.stdout)
    assert (found["revision"], found["records"], found["members"]) == (token, 500, ["n1", "n2", "n3"])
    for node in cluster.nodes:
        node.kill()

    node = cluster.add_node("r1", join="")
    del node.flags["join"]
    node.cluster_name = "second"
    made = snapshot(
        "restore",
        str(file),
        "--data-dir",
        str(node.data_directory),
        "--name",
        "r1",
        "--cluster-name",
        "second",
        "-o",
        "json",
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["revision"] == token + 10**9
    cluster.nodes[:] = [node]
    cluster.cluster_name = "second"
    node.start()
    node.wait_ready()
    with raftkv.Client(node.client_endpoint) as kv:
        assert kv.range(prefix="k", count_only=True).count == 499
        assert kv.get("later") is None
        with pytest.raises(Compacted):
            kv.range("lock", revision=token)
        assert kv.put("lock", "again").revision > token + 10**9
    assert node.status()["cluster_id"] != found["cluster_id"]  # type: ignore[index]
    second = cluster.add_node("r2", join=node.client_endpoint)
    second.start()
    second.wait_ready()
    wait_until(lambda: all_vote(node), "r2 to vote", deadline_s=20)
    cluster.wait_applied_equal()


def all_vote(node: Node) -> bool:
    with raftkv.Client(node.client_endpoint) as kv:
        return [member.voter for member in kv.members()] == [True, True]


async def test_the_asyncio_client_fetches_one_too(healthy: Cluster) -> None:
    parts: list[bytes] = []
    async with raftkv.connect(healthy.nodes[1].client_endpoint) as kv:
        await kv.put("big", b"v" * 1_000_000)
        healthy.wait_applied_equal()
        made = await kv.backup(parts.append)
    data = b"".join(parts)
    assert (len(data), zlib.crc32(data)) == (made["size_bytes"], made["checksum"])
    assert len(parts) > 1


def test_what_is_damaged_or_in_the_way_is_refused_in_one_line(healthy: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "backup.rkv"
    endpoint = healthy.nodes[0].client_endpoint
    assert snapshot("save", str(file), "--endpoints", endpoint).returncode == 0
    again = snapshot("save", str(file), "--endpoints", endpoint)
    two = snapshot("save", str(tmp_path / "b"), "--endpoints", healthy.endpoints)
    nobody = snapshot("save", str(tmp_path / "c"), "--endpoints", "127.0.0.1:1", "--timeout", "1")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    flipped, short = tmp_path / "flipped", tmp_path / "short"
    flipped.write_bytes(data)
    short.write_bytes(file.read_bytes()[:-1])
    full = tmp_path / "full"
    full.mkdir()
    (full / "something").touch()
    for done, code, text in (
        (again, 2, "exists already"),
        (two, 2, "takes one endpoint"),
        (nobody, 4, "connection refused"),
        (snapshot("status", str(flipped)), 1, "is damaged"),
        (snapshot("status", str(short)), 1, "cut short"),
        (snapshot("status", str(tmp_path / "none")), 1, "there is no file"),
        (snapshot("restore", str(flipped), "--data-dir", str(tmp_path / "d"), "--name", "x"), 1, "is damaged"),
        (snapshot("restore", str(file), "--data-dir", str(full), "--name", "x"), 2, "is not empty"),
        (snapshot("restore", str(file), "--name", "x"), 2, "needs --data-dir"),
        (snapshot("sav", "x"), 2, "none of save, status, restore"),
    ):
        assert done.returncode == code, (text, done.stderr)
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "d").exists()
    assert not list(tmp_path.glob("*.part"))
