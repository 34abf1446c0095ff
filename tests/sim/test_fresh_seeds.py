"""Seeds that nobody has run before, for a while: each run of the tests looks somewhere else."""

import random
import time

from .__main__ import replay_line
from .world import World

SECONDS = 20.0


def test_fresh_seeds() -> None:
    seed = random.SystemRandom().randrange(1_000_000_000)
    ends_at = time.monotonic() + SECONDS
    done = 0
    while time.monotonic() < ends_at:
        leases, data, pools = seed % 4 in (0, 1), seed % 4 in (1, 2), seed % 3 == 0
        try:
            World(seed, leases=leases, data=data, pools=pools).run()
        except Exception as error:
            error.add_note(f"replay: {replay_line(seed, leases=leases, data=data, pools=pools)}")
            raise
        seed += 1
        done += 1
    assert done > 0, "some seed was run"
