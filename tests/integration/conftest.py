"""Fixtures of the integration tests: clusters that always end, and logs in every failure report."""

import faulthandler
import signal
import threading
from types import FrameType
from typing import Callable, Generator, Iterator

import pytest

from raftkv.limits import MIB

from .harness.cluster import Cluster, ClusterOptions
from .harness.netns import NamespacesUnavailable, Network
from .harness.node import Node

TEST_DEADLINE_S = 120
LONG_TEST_DEADLINE_S = 600
GROWTH_MAX_BYTES = 96 * MIB

clusters_key = pytest.StashKey[list[Cluster]]()
StartCluster = Callable[..., Cluster]


@pytest.fixture(autouse=True)
def deadline(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ends a test that hangs, whatever it hangs in, while its logs can still be reported."""
    seconds = TEST_DEADLINE_S if request.node.get_closest_marker("long") is None else LONG_TEST_DEADLINE_S

    def on_alarm(_signal: int, _frame: FrameType | None) -> None:
        faulthandler.dump_traceback()
        raise AssertionError(f"the test did not end within {seconds} s")

    assert threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def make_cluster(request: pytest.FixtureRequest) -> Iterator[StartCluster]:
    """Makes a cluster that is not started; all made end with the test."""
    made: list[Cluster] = []
    request.node.stash[clusters_key] = made

    def make(**options: object) -> Cluster:
        cluster = Cluster(ClusterOptions(**options))  # type: ignore[arg-type]
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def cluster(make_cluster: StartCluster) -> Cluster:
    """Three members on loopback, ready."""
    return make_cluster().start()


@pytest.fixture
def network() -> Iterator[Network]:
    """Three hosts in namespaces; the test runs in the clients' one."""
    try:
        network = Network(3)
    except NamespacesUnavailable as error:
        pytest.skip(f"no network namespaces: {error}")
    try:
        with network.entered():
            yield network
    finally:
        network.close()


@pytest.fixture
def separated(network: Network, make_cluster: StartCluster) -> Cluster:
    """Three members, each on its own host of `network`, ready."""
    return make_cluster(places=network.places()).start()


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[Cluster]:
    """Three members for all tests of a file; what one test does to them must not be seen by the next."""
    with Cluster() as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def healthy(shared_cluster: Cluster, request: pytest.FixtureRequest) -> Cluster:
    """The shared cluster, for tests that break nothing; each uses keys of its own. One that died is started again."""
    request.node.stash[clusters_key] = [shared_cluster]
    return shared_cluster.start()


@pytest.fixture
def victim(healthy: Cluster) -> Iterator[Node]:
    """The leader, and afterwards the proof that nothing happened to it or its cluster."""
    leader = healthy.leader()
    before = healthy.statuses()[leader.name]
    resident_before_bytes = leader.daemon.resident_bytes()
    logged_before = {node.name: len(node.daemon.log_text()) for node in healthy.nodes}
    yield leader
    assert all(node.running for node in healthy.nodes), "a daemon ended"
    with leader.connect() as connection:
        connection.put(b"still", b"serving")
        assert connection.get(b"still") == b"serving"
        after = connection.status()
    assert (after["role"], after["term"]) == ("leader", before["term"]), "an election was caused"
    grown_bytes = leader.daemon.resident_bytes() - resident_before_bytes
    assert grown_bytes < GROWTH_MAX_BYTES, f"grew by {grown_bytes // MIB} MiB"
    for node in healthy.nodes:
        logged = node.daemon.log_text()[logged_before[node.name] :]
        assert "Traceback" not in logged, f"{node.name}:\n{logged}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for cluster in item.stash.get(clusters_key, []):
            report.sections.append(("logs of the nodes", cluster.report()))
    return report
