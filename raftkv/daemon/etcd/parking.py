"""Requests that found no leader, and wait for one: etcd's clients expect that of a member, where raftkv's own go elsewhere at once.

Only what surely did not happen is handed in again, or what may happen twice without harm; so nothing that waited here is done twice. A request
that waits past its deadline ends with etcd's `request timed out`. Both counts are bounded: over them a request is refused as without this.
"""

import asyncio
from typing import Callable, Final, NamedTuple, Protocol

from raftkv.errors import DeadlineExceeded, RaftKVError
from raftkv.limits import Limits
from raftkv.replica.service import Service
from raftkv.units import Milliseconds

LOOK_INTERVAL_S: Final = 0.025
_NOT_DONE: Final = frozenset({"not_leader", "no_quorum", "unreachable"})
_MAYBE_DONE: Final = frozenset({"outcome_unknown", "leadership_lost", "no_quorum"})


class LeaderView(Protocol):
    @property
    def knows_leader(self) -> bool: ...


class _Parked(NamedTuple):
    deadline_ms: Milliseconds
    size_bytes: int
    again: Callable[[], None]
    give_up: Callable[[RaftKVError], None]


class Parking:
    """What waits for a leader at one member."""

    def __init__(self, service: Service, view: LeaderView, schedule_pump: Callable[[], None], limits: Limits) -> None:
        self._service = service
        self._view = view
        self._schedule_pump = schedule_pump
        self._limits = limits
        self._parked: list[_Parked] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._parked)

    def takes(self, error: RaftKVError, *, harmless_twice: bool = False) -> bool:
        """Whether a request that ended so may be handed in again once there is a leader."""
        if self._service.is_closing:
            return False
        if error.may_have_happened:
            return harmless_twice and error.code in _MAYBE_DONE
        # A leader that shuts down refuses what is forwarded to it; another one will take it.
        return error.code in _NOT_DONE or error.code == "shutting_down"

    def park(
        self,
        deadline_ms: Milliseconds,
        again: Callable[[], None],
        give_up: Callable[[RaftKVError], None],
        size_bytes: int = 0,
    ) -> bool:
        """Call `again` soon, when a leader is known, or `give_up` at the deadline. False, and neither, if there is no room."""
        limits = self._limits
        if len(self._parked) >= limits.pending_writes_max or self._bytes + size_bytes > limits.pending_writes_bytes_max:
            return False
        self._parked.append(_Parked(deadline_ms, size_bytes, again, give_up))
        self._bytes += size_bytes
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_INTERVAL_S, self._look)
        return True

    def _look(self) -> None:
        self._timer = None
        parked, self._parked, self._bytes = self._parked, [], 0
        now_ms, has_leader = self._service.now_ms, self._view.knows_leader
        leaves = self._service.is_closing  # each is refused anew, for good
        for waiting in parked:
            if waiting.deadline_ms <= now_ms:
                waiting.give_up(DeadlineExceeded("no leader was found in time", may_have_happened=False))
            elif has_leader or leaves:
                waiting.again()
            else:
                self.park(*_arguments(waiting))
        self._schedule_pump()


def _arguments(
    waiting: _Parked,
) -> tuple[Milliseconds, Callable[[], None], Callable[[RaftKVError], None], int]:
    return waiting.deadline_ms, waiting.again, waiting.give_up, waiting.size_bytes
