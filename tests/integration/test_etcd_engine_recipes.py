"""The recipes on an etcd cluster: their own tests, word for word, with a client that was given etcd://.

The same recipe has to behave the same, so nothing is written anew here: the tests of the four files run against one member of etcd 3.5.1, and those in
which leaders die against three. `make test` runs those that are QUICK.
"""

from types import FunctionType, ModuleType
from typing import Any, Iterator

import pytest

import raftkv
from tests.differential.real import binary

from . import test_recipes, test_recipes_jobs, test_recipes_lock, test_recipes_rendezvous
from .harness.overetcd import OverEtcd

pytestmark = [pytest.mark.integration, pytest.mark.skipif(binary() is None, reason="etcd is not installed")]

QUICK = {
    "test_an_election_from_campaign_to_succession",
    "test_a_queue_in_order_and_by_priority",
    "test_readers_share_and_writers_do_not",
    "test_reentrance_and_misuse",
    "test_asyncio_and_cancellation",
    "test_a_semaphore_by_weight_and_priority",
    "test_a_job_from_submit_to_success",
    "test_values",
    "test_queues",
    "test_compare_set",
}
NEEDS_RAFTKV = {
    "test_exclusion_while_the_leader_is_cut_off",  # its cluster is one of namespaces
    "test_no_quorum_is_not_acquired",  # stops members of raftkv by their ways
}
store = test_recipes_rendezvous.store


@pytest.fixture(scope="module")
def one_etcd() -> Iterator[OverEtcd]:
    with OverEtcd(1) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def healthy(one_etcd: OverEtcd) -> OverEtcd:
    """For the tests that break nothing; each uses keys of its own."""
    return one_etcd


@pytest.fixture
def cluster() -> Iterator[OverEtcd]:
    with OverEtcd(3) as cluster:
        cluster.start()
        yield cluster
        print(cluster.report())  # part of a failure's report


@pytest.fixture
def kv(healthy: OverEtcd) -> Iterator[raftkv.Client]:
    with raftkv.Client(healthy.endpoints) as client:
        yield client


def again(test: Any, module: ModuleType) -> Any:
    """The same test under a name and with marks of its own."""
    copy = FunctionType(test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__)
    copy.__dict__.update(test.__dict__)
    copy.__annotations__, copy.__module__, copy.__doc__ = test.__annotations__, __name__, test.__doc__
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name != "long"]
    copy.pytestmark = marks if test.__name__ in QUICK else [*marks, pytest.mark.long]  # type: ignore[attr-defined]
    return copy


for _module in (test_recipes, test_recipes_lock, test_recipes_jobs, test_recipes_rendezvous):
    for _name, _test in list(vars(_module).items()):
        if _name.startswith("test_") and _name not in NEEDS_RAFTKV:
            globals()[f"{_name}__{_module.__name__.rpartition('.')[2]}"] = again(_test, _module)
