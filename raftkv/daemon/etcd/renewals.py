"""Keep-alives of all streams of a member, gathered: what comes in one turn of the loop is one question to the leader.

A client keeps a lease alive by a message on a stream, three times in its life; a member with ten thousand leases would otherwise ask, or
forward, as often. To keep a lease alive twice does no harm, so a question whose answer got lost is asked again.
"""

import asyncio
from typing import Callable, Protocol, Sequence

from raftkv.daemon.etcd.identity import Caller
from raftkv.daemon.etcd.parking import Parking
from raftkv.errors import RaftKVError
from raftkv.limits import Limits
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.service import Service
from raftkv.units import Milliseconds, Revision
from raftkv.wire.commands import FAILED, Answer, error_of
from raftkv.wire.protocol import KEEP_ALIVE


class Renewal(Protocol):
    """One keep-alive. Ends in one call of either method."""

    lease_id: int

    def on_renewed(self, revision: Revision, ttl_ms: Milliseconds) -> None:
        """It lives for so long from now; 0: there is no such lease."""
        ...

    def on_failed(self, error: RaftKVError) -> None: ...


class Renewals:
    """The keep-alives of a member's streams on their way."""

    def __init__(
        self,
        service: Service,
        parking: Parking,
        schedule_pump: Callable[[], None],
        limits: Limits,
        timeout_ms: Milliseconds,
    ) -> None:
        self.service = service
        self.parking = parking
        self.schedule_pump = schedule_pump
        self._limits = limits
        self._timeout_ms = timeout_ms
        self._gathered: dict[Caller, list[Renewal]] = {}
        self._is_scheduled = False

    def add(self, renewal: Renewal, caller: Caller) -> None:
        """Ask with all others of this turn."""
        self._gathered.setdefault(caller, []).append(renewal)
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        self._is_scheduled = False
        gathered, self._gathered = self._gathered, {}
        size = self._limits.keep_alive_leases_max
        for caller, renewals in gathered.items():
            for start in range(0, len(renewals), size):
                self.ask(renewals[start : start + size], caller, self.service.deadline(self._timeout_ms))
        self.schedule_pump()

    def ask(self, renewals: Sequence[Renewal], caller: Caller, deadline_ms: Milliseconds) -> None:
        """One question."""
        group = WriteGroup(
            _Round(self, renewals, caller),
            [0],
            [[KEEP_ALIVE, [renewal.lease_id for renewal in renewals]]],
            size_bytes=0,
            deadline_ms=deadline_ms,
            user=caller.user,
            auth_revision=caller.auth_revision,
        )
        self.service.forward(group)


class _Round:
    """The origin of one question."""

    takes_answers = True

    def __init__(self, renewals: Renewals, asked: Sequence[Renewal], caller: Caller) -> None:
        self._renewals = renewals
        self._asked = asked
        self._caller = caller

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        (answer,) = answers
        if answer[0] != FAILED:
            _, revision, ttls_ms = answer
            for renewal, ttl_ms in zip(self._asked, ttls_ms, strict=True):
                renewal.on_renewed(revision, ttl_ms)
        elif len(self._asked) > 1:
            for renewal in self._asked:  # each for itself: what one may not do is not the fault of the others
                self._renewals.ask([renewal], self._caller, group.deadline_ms)
            self._renewals.schedule_pump()
        else:
            self._fail(error_of(answer))

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        def again() -> None:
            self._renewals.ask(self._asked, self._caller, group.deadline_ms)

        parking = self._renewals.parking
        if not (parking.takes(error, harmless_twice=True) and parking.park(group.deadline_ms, again, self._fail)):
            self._fail(error)

    def _fail(self, error: RaftKVError) -> None:
        for renewal in self._asked:
            renewal.on_failed(error)
