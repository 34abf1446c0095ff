"""What waits for a leader is handed in again in portions: at once while that helps, and at leisure while it does not."""

import asyncio
from types import SimpleNamespace
from typing import Any

from raftkv.daemon.etcd.parking import AGAIN_PER_LOOK, LOOK_INTERVAL_S, Parking
from raftkv.errors import RaftKVError
from raftkv.limits import Limits

MANY = AGAIN_PER_LOOK + 10


class Waiting:
    """Many requests at one member that knows a leader; they `come_back` while there is no way to it."""

    def __init__(self, *, come_back: bool) -> None:
        self.come_back = come_back
        self.handed_in = 0
        service: Any = SimpleNamespace(now_ms=0, is_closing=False)
        self.parking = Parking(service, SimpleNamespace(knows_leader=True), lambda: None, Limits())
        for _ in range(MANY):
            self.park()

    def park(self) -> None:
        assert self.parking.park(60_000, self.again, self.give_up)

    def again(self) -> None:
        self.handed_in += 1
        if self.come_back:
            self.park()

    def give_up(self, error: RaftKVError) -> None:
        raise AssertionError("their time is not over")

    def look(self) -> float:
        """How long after it the next look is."""
        parking, loop = self.parking, asyncio.get_running_loop()
        assert parking._timer is not None
        parking._timer.cancel()
        began_at = loop.time()
        parking._look()
        assert parking._timer is not None
        return parking._timer.when() - began_at


async def test_the_next_portion_follows_at_once() -> None:
    waiting = Waiting(come_back=False)
    waiting.look()
    assert waiting.handed_in == AGAIN_PER_LOOK
    async with asyncio.timeout(10):
        while len(waiting.parking):
            await asyncio.sleep(0)
    assert waiting.handed_in == MANY


async def test_what_comes_back_at_once_does_not_keep_the_member_busy() -> None:
    """A leader that is known and cannot be reached: there is nothing else to do than to look again a little later."""
    waiting = Waiting(come_back=True)
    assert waiting.look() >= LOOK_INTERVAL_S
    assert waiting.handed_in == AGAIN_PER_LOOK
    assert len(waiting.parking) == MANY
