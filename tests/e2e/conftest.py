"""One engine, one base and one image for all container tests: making them takes longer than most of what is done with them."""

from pathlib import Path
from typing import Iterator

import pytest

from .harness.compose import ComposeCluster
from .harness.engine import Engine, EngineUnavailable, acquire_engine
from .harness.images import BASE_TAG, base_image, make_context, remove_images

IMAGE = "raftkv-e2e:local"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    try:
        with acquire_engine() as engine:
            engine.compose_command()
            yield engine
    except EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def built(engine: Engine, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeCluster]:
    """The project's compose file with its image built, and nothing up; at the end nothing of it is left, images neither."""
    context = tmp_path_factory.mktemp("context")
    try:
        make_context(project, context)
        base = base_image(engine, tmp_path_factory.mktemp("base"))
    except EngineUnavailable as error:
        pytest.skip(str(error))
    cluster = ComposeCluster(engine, context, base, image=IMAGE)
    try:
        cluster.compose("build")
        yield cluster
    finally:
        cluster.remove()
        remove_images(engine, IMAGE, BASE_TAG)
