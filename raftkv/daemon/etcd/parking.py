"""Requests that found no leader, and wait for one: etcd's clients expect that of a member, where raftkv's own go elsewhere at once.

Only what surely did not happen is handed in again, or what may happen twice without harm; so nothing that waited here is done twice. A request
that waits past its deadline ends with etcd's `request timed out`. Both counts are bounded: over them a request is refused as without this.
"""

import asyncio
from collections import deque
from typing import Callable, Final, NamedTuple, Protocol

from raftkv.errors import DeadlineExceeded, RaftKVError
from raftkv.limits import Limits
from raftkv.replica.service import Service
from raftkv.units import Milliseconds

LOOK_INTERVAL_S: Final = 0.025
AGAIN_PER_LOOK: Final = 1_024
EXPIRY_INTERVAL_MS: Final = 100
NEVER_MS: Final = 1 << 60
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
        self._parked: deque[_Parked] = deque()
        self._earliest_ms: Milliseconds = NEVER_MS
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
        self._earliest_ms = min(self._earliest_ms, deadline_ms)
        self._look_after(LOOK_INTERVAL_S)
        return True

    def _look_after(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        now_ms = self._service.now_ms
        if self._earliest_ms <= now_ms:
            self._expire(now_ms)
        if self._view.knows_leader or self._service.is_closing:  # who leaves refuses each anew, for good
            before = len(self._parked)
            for _ in range(min(before, AGAIN_PER_LOOK)):
                waiting = self._parked.popleft()
                self._bytes -= waiting.size_bytes
                waiting.again()  # may come back, to the end
            self._schedule_pump()
            # None came back, as all do while there is no way to that leader: look at the next ones at once.
            if before - len(self._parked) == AGAIN_PER_LOOK:
                self._look_after(0)
        if self._parked:
            self._look_after(LOOK_INTERVAL_S)

    def _expire(self, now_ms: Milliseconds) -> None:
        late = [waiting for waiting in self._parked if waiting.deadline_ms <= now_ms]
        self._parked = deque(waiting for waiting in self._parked if waiting.deadline_ms > now_ms)
        self._bytes -= sum(waiting.size_bytes for waiting in late)
        # Not for each of them: they come in thousands, a few milliseconds apart.
        earliest_ms = min((waiting.deadline_ms for waiting in self._parked), default=NEVER_MS)
        self._earliest_ms = max(earliest_ms, now_ms + EXPIRY_INTERVAL_MS)
        for waiting in late:
            waiting.give_up(DeadlineExceeded("no leader was found in time", may_have_happened=False))
