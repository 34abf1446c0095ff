"""Every recipe under every fault: leaders killed, stopped and cut off from their peers, clients cut off from the leader.

What has to be true of a recipe is with its load (harness/loads), what happens to the cluster with its fault (harness/faults.py); here each meets each. The
default run deals all recipes out to the faults, another way each time: a failure prints the draw, and RAFTKV_DRAW=number repeats it.
"""

import os
import random
from pathlib import Path
from typing import Iterator

import pytest

from .conftest import StartCluster
from .harness.crew import run_hundreds
from .harness.faults import FAULTS, LeaderFault
from .harness.loads import LOADS
from .harness.loads.driver import run_under
from .harness.netns import NamespacesUnavailable, Network

pytestmark = pytest.mark.integration

DRAW = int(os.environ.get("RAFTKV_DRAW") or random.SystemRandom().getrandbits(32))


def marks(fault: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.netns] if FAULTS[fault].needs_network else []


faults = pytest.mark.parametrize("fault", [pytest.param(name, marks=marks(name)) for name in FAULTS], indirect=True)


@pytest.fixture
def fault(request: pytest.FixtureRequest, make_cluster: StartCluster) -> Iterator[LeaderFault]:
    """One of FAULTS, of a new cluster: in namespaces where it needs them."""
    kind = FAULTS[request.param]
    if not kind.needs_network:
        yield kind(make_cluster().start())
        return
    try:
        network = Network(3)
    except NamespacesUnavailable as error:
        pytest.skip(f"no network namespaces: {error}")
    try:
        with network.entered():
            yield kind(make_cluster(places=network.places()).start(), network)
    finally:
        network.close()


def dealt_to(fault: str) -> list[str]:
    """Which recipes meet this fault today; all of them are dealt out."""
    recipes = list(LOADS)
    random.Random(DRAW).shuffle(recipes)
    return recipes[list(FAULTS).index(fault) :: len(FAULTS)]


@faults
async def test_recipes_dealt_out_to_the_faults(fault: LeaderFault, request: pytest.FixtureRequest) -> None:
    names = dealt_to(request.node.callspec.params["fault"])
    print(f"RAFTKV_DRAW={DRAW}: {', '.join(names)}")
    loads = [LOADS[name](f"load-{number}", 12) for number, name in enumerate(names)]
    await run_under(loads, endpoints_of(fault), fault)


@pytest.mark.long
@faults
@pytest.mark.parametrize("recipe", LOADS)
async def test_recipe(fault: LeaderFault, recipe: str) -> None:
    await run_under([LOADS[recipe]("load")], endpoints_of(fault), fault)


HUNDREDS = ("lock", "semaphore", "pool", "queue", "counter", "jobs")


@pytest.mark.long
@faults
@pytest.mark.parametrize("recipe", HUNDREDS)
async def test_hundreds_of_clients(fault: LeaderFault, recipe: str, tmp_path: Path) -> None:
    """Three hundred, each with connections of its own, in three processes."""
    await run_hundreds(recipe, endpoints_of(fault), fault, tmp_path)


def endpoints_of(fault: LeaderFault) -> str:
    return fault.cluster.endpoints
