"""Data directories that must not be used: each is refused with one line that says what to do, and exit code 1."""

import shutil
from pathlib import Path

import pytest

from .conftest import StartCluster
from .harness.cluster import SMALL_LOG, Cluster
from .harness.node import Node
from .harness.process import Process, raftkv_environment

pytestmark = pytest.mark.integration

EXIT_DEADLINE_S = 15.0


def last_words(process: Process) -> str:
    """The one line that the refused process ends with. Checks that it refused properly."""
    assert process.wait_exit(EXIT_DEADLINE_S) == 1, process.log_text()
    text = process.log_text()
    assert "Traceback" not in text, text
    lines = text.strip().splitlines()
    assert lines, "it ended without a word"
    return lines[-1]


def start_as(node: Node, **overrides: str) -> Process:
    """Starts a daemon like `node` with other flags."""
    return Process(node.arguments(**overrides), node.log_path, environment=raftkv_environment(node.environment))


def find_in_log(data_directory: Path, needle: bytes) -> tuple[Path, int]:
    """The segment and offset where the WAL holds `needle`; the store has its own files and its own copy."""
    for path in sorted((data_directory / "wal").rglob("*")):
        if path.is_file() and (offset := path.read_bytes().find(needle)) >= 0:
            return path, offset
    raise AssertionError(f"{needle!r} is not in the log under {data_directory}")


def flip_bit(path: Path, offset: int) -> None:
    """Damages one byte."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.fixture
def single(make_cluster: StartCluster) -> Cluster:
    """One member, ready, with a little data."""
    cluster = make_cluster(size=1).start()
    with cluster.nodes[0].connect() as connection:
        connection.put(b"key", b"value")
    return cluster


def test_second_daemon_on_the_same_directory(single: Cluster, make_cluster: StartCluster) -> None:
    """The first one goes on."""
    node = single.nodes[0]
    spare = make_cluster(size=1).nodes[0]
    second = start_as(node, listen=spare.client_endpoint, listen_peer=spare.peer_endpoint)
    try:
        line = last_words(second)
    finally:
        second.kill()
    assert str(node.data_directory) in line
    assert "another" in line or "in use" in line, line
    with node.connect() as connection:
        assert connection.get(b"key") == b"value"


def test_directory_of_a_cluster_with_another_name(single: Cluster) -> None:
    """Both names are in the line."""
    node = single.nodes[0]
    assert node.terminate() == 0
    process = start_as(node, cluster_name="production")
    try:
        line = last_words(process)
    finally:
        process.kill()
    assert "production" in line, line
    assert node.cluster_name in line, line


def test_directory_of_another_member(cluster: Cluster) -> None:
    """n2 started on n1's directory names both."""
    first, second = cluster.nodes[:2]
    assert second.terminate() == 0
    assert first.terminate() == 0
    process = start_as(second, data_dir=str(first.data_directory))
    try:
        line = last_words(process)
    finally:
        process.kill()
    assert "n1" in line, line
    assert "n2" in line, line


def test_directory_of_another_cluster_with_the_same_name(cluster: Cluster) -> None:
    """A volume of last week's cluster: names and addresses agree, the random cluster ids do not. It must not vote here."""
    with cluster.leader().connect() as connection:
        connection.put(b"last-week", b"x")
    cluster.wait_applied_equal()
    for node in cluster.nodes:
        assert node.terminate() == 0
        node.data_directory.rename(node.data_directory.with_suffix(".last-week"))
    cluster.start()
    victim = cluster.followers()[0]
    assert victim.terminate() == 0
    shutil.rmtree(victim.data_directory)
    victim.data_directory.with_suffix(".last-week").rename(victim.data_directory)
    line = last_words(victim.start())
    assert "both clusters are called" in line, line
    with cluster.leader().connect() as connection:
        connection.put(b"this-week", b"x")
        assert connection.get(b"last-week") is None


def test_wiped_directory_of_an_existing_member(cluster: Cluster) -> None:
    """A voter that forgot what it acknowledged could elect a leader that lacks it: its peers refuse the new incarnation."""
    leader = cluster.leader()
    victim = cluster.others(leader)[0]
    with leader.connect() as connection:
        connection.put(b"key", b"value")
    cluster.wait_applied_equal()
    victim.kill()
    shutil.rmtree(victim.data_directory)
    process = victim.start()
    line = last_words(process)
    assert "remove" in line, line
    assert "add" in line, line
    with leader.connect() as connection:
        assert connection.get(b"key") == b"value"


def test_corruption_in_the_middle_of_the_log(make_cluster: StartCluster) -> None:
    """One flipped bit with good records behind it: file, offset and advice, and the file is left as it is."""
    cluster = make_cluster(size=1, environment={"RAFTKV_LIMITS_COMMIT_INTERVAL_MS": "60000"}).start()
    node = cluster.nodes[0]
    with node.connect() as connection:
        for number in range(50):
            connection.put(b"key/%d" % number, b"needle-%d-" % number * 20)
    node.kill()
    segment, offset = find_in_log(node.data_directory, b"needle-20-")
    flip_bit(segment, offset)
    damaged = segment.read_bytes()
    process = node.start()
    line = last_words(process)
    assert segment.name in line, line
    assert "byte" in line, line
    assert "remove" in line, line
    assert segment.read_bytes() == damaged, "evidence is not destroyed"


def test_member_that_is_damaged_stays_damaged(make_cluster: StartCluster) -> None:
    """A second start does not forget what the first one found."""
    cluster = make_cluster(size=1, environment={"RAFTKV_LIMITS_COMMIT_INTERVAL_MS": "60000"}).start()
    node = cluster.nodes[0]
    with node.connect() as connection:
        for number in range(10):
            connection.put(b"key/%d" % number, b"needle-%d-" % number * 20)
    node.kill()
    flip_bit(*find_in_log(node.data_directory, b"needle-3-"))
    for _ in range(2):
        last_words(node.start())


def test_torn_tail_of_the_log_is_cut_and_served(make_cluster: StartCluster) -> None:
    """The last record half written is what a power loss leaves: it was never acknowledged, and it is no corruption."""
    cluster = make_cluster(size=1, environment={"RAFTKV_LIMITS_COMMIT_INTERVAL_MS": "60000"}).start()
    node = cluster.nodes[0]
    with node.connect() as connection:
        connection.put(b"kept", b"1")
        connection.put(b"torn", b"needle-torn-" * 20)
    node.kill()
    segment, offset = find_in_log(node.data_directory, b"needle-torn-")
    with segment.open("r+b") as file:
        file.seek(offset + 100)
        rest_bytes = len(file.read())
        file.seek(offset + 100)
        file.write(bytes(rest_bytes))
    cluster.start()
    with node.connect() as connection:
        assert connection.get(b"kept") == b"1"
        assert connection.get(b"torn") is None
        connection.put(b"after", b"2")


def test_corruption_of_one_member_is_no_matter_for_the_others(make_cluster: StartCluster) -> None:
    """The cluster serves while the damaged member stays down."""
    cluster = make_cluster(environment={**SMALL_LOG, "RAFTKV_LIMITS_COMMIT_INTERVAL_MS": "60000"}).start()
    leader = cluster.leader()
    victim, third = cluster.others(leader)
    with leader.connect() as connection:
        third.pause()  # so that what is acknowledged is on the victim's disk, each in a frame of its own
        for number in range(30):
            connection.put(b"key/%d" % number, b"needle-%d-" % number * 20)
        third.resume()
        cluster.wait_applied_equal()
        victim.kill()
        segment, offset = find_in_log(victim.data_directory, b"needle-10-")
        flip_bit(segment, offset)
        last_words(victim.start())
        connection.put(b"after", b"x")
        assert connection.get(b"key/10") == b"needle-10-" * 20


def test_unwritable_data_directory(make_cluster: StartCluster) -> None:
    """A file where the directory should be."""
    node = make_cluster(size=1).nodes[0]
    node.data_directory.write_text("not a directory")
    line = last_words(node.start())
    assert str(node.data_directory) in line


def test_port_in_use(single: Cluster, make_cluster: StartCluster) -> None:
    """The port is in the line."""
    spare = make_cluster(size=1).nodes[0]
    process = start_as(spare, listen=single.nodes[0].client_endpoint)
    try:
        line = last_words(process)
    finally:
        process.kill()
    assert single.nodes[0].client_endpoint.rpartition(":")[2] in line, line


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"initial_cluster": "n1=nonsense"}, "initial-cluster"),
        ({"initial_cluster": "n7=127.0.0.1:1"}, "n1"),
        ({"listen": "127.0.0.1:notaport"}, "listen"),
        ({"listen": "0.0.0.0:12345"}, "advertise"),
        ({"name": ""}, "name"),
    ],
)
def test_bad_setting(make_cluster: StartCluster, overrides: dict[str, str], word: str) -> None:
    """One line that names the setting, exit code 1 or 2, nothing created."""
    node = make_cluster(size=1).nodes[0]
    process = start_as(node, **overrides)
    try:
        assert process.wait_exit(EXIT_DEADLINE_S) in (1, 2)
        text = process.log_text()
    finally:
        process.kill()
    assert "Traceback" not in text, text
    assert word in text, text
    assert not node.data_directory.exists()


def test_bad_setting_in_the_environment(make_cluster: StartCluster) -> None:
    """A limit that is no number names its variable."""
    node = make_cluster(size=1, environment={"RAFTKV_LIMITS_KEY_BYTES_MAX": "many"}).nodes[0]
    process = node.start()
    assert process.wait_exit(EXIT_DEADLINE_S) in (1, 2)
    assert "Traceback" not in process.log_text()
    assert "key_bytes_max" in process.log_text().lower()
