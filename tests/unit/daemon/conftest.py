"""What several of the daemon's tests stand on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.daemon.storage_rig import Rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A storage that is filled, and closed without failure at the end."""
    made = Rig(tmp_path / "data")
    await made.fill()
    yield made
    await made.close()
    assert not made.failed
