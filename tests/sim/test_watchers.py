"""Fixed seeds of worlds with watchers: no gap, no duplicate, nothing that differs, and in the end everything was heard."""

import pytest

from .watchers import WatchedWorld

SEEDS = range(1, 21)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_watch_hears_every_change_once(seed: int) -> None:
    world = WatchedWorld(seed)
    world.run()
    assert sum(watcher.heard for watcher in world.watchers) > 20, "there was something to hear"


def test_some_of_them_are_overtaken_by_a_compaction() -> None:
    """Or the seeds prove little about it."""
    compacted = 0
    for seed in SEEDS:
        world = WatchedWorld(seed)
        world.run()
        compacted += sum(watcher.compacted for watcher in world.watchers)
        if compacted:
            return
    raise AssertionError("no watch was ever overtaken")
