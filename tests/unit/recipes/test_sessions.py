"""The session that a place hangs on: how long its grant may take, and answers that were longer on their way than it lives."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from raftkv.errors import LockLost
from raftkv.recipes.places import Session, enter_lease
from raftkv.recipes.pool import AsyncPool
from raftkv.wire.pools import POOL_RELEASE, POOL_REQUEST

CALL_S = 5.0


class FakeLease:
    """Granted at once; `valid_for` is what is left when somebody looks."""

    id = 7

    def __init__(self, valid_for: float = 10.0) -> None:
        self.valid_for = valid_for
        self.lost = asyncio.Event()
        self.revoked = False

    async def __aenter__(self) -> "FakeLease":
        return self

    async def revoke(self) -> None:
        self.revoked = True


class Granting:
    """The verbs of a client whose pool grants at once."""

    _timeout_s = CALL_S

    def __init__(self, lease: FakeLease) -> None:
        self._lease = lease
        self.lease_timeouts: list[float | None] = []
        self.writes: list[int] = []

    def lease(self, ttl: float, *, timeout: float | None = None) -> FakeLease:
        self.lease_timeouts.append(timeout)
        return self._lease

    async def _write(self, command: list[Any], timeout: float | None) -> list[Any]:
        self.writes.append(command[0])
        return [0, 12, 12]

    async def get_kv(self, key: bytes) -> Any:
        return SimpleNamespace(create_revision=12, lease=FakeLease.id)


@pytest.mark.parametrize(("wait", "granted_within"), [(None, None), (0, None), (0.1, CALL_S), (60.0, 60.0)])
async def test_a_short_wait_gives_a_grant_no_less_time_than_any_call_has(
    wait: float | None, granted_within: float | None
) -> None:
    """It had a third of 0.1 s for each member, and half of that to connect: a slow disk was taken for a lock that is not free."""
    verbs: Any = Granting(FakeLease())
    await enter_lease(verbs, 10.0, None, wait)
    assert verbs.lease_timeouts == [granted_within]


async def test_a_grant_of_a_pool_that_came_when_its_session_was_over_is_none() -> None:
    lease = FakeLease(valid_for=0.0)
    verbs: Any = Granting(lease)
    with pytest.raises(LockLost):
        await AsyncPool(verbs, "gpus").acquire({"gpu": 1})
    assert lease.revoked, "the cluster may still believe in it"


async def test_on_a_session_of_the_user_it_is_given_back() -> None:
    lease: Any = FakeLease(valid_for=0.0)
    verbs: Any = Granting(lease)
    with pytest.raises(LockLost):
        await AsyncPool(verbs, "gpus").acquire({"gpu": 1}, lease=lease)
    assert verbs.writes == [POOL_REQUEST, POOL_RELEASE]
    assert not lease.revoked


async def test_who_looked_before_a_session_began_does_not_end_it() -> None:
    """Two threads: the second looks, the first begins the session, and then the second goes on."""
    made: list[FakeLease] = []

    class Overtaken(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            found = super().get(key, default)
            if not made:
                made.append(FakeLease())
                self["it"] = made[0]
            return found

    verbs: Any = SimpleNamespace(lease=lambda ttl, timeout: FakeLease(), _timeout_s=CALL_S)
    session = Session(verbs, 10, None)
    session._current = Overtaken()
    assert await session.enter() is made[0]
    assert not made[0].revoked
