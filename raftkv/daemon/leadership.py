"""Handing leadership over: on request, for a shutdown, because this member's disk is full or does not come back, and because
another one is preferred.

What a transfer is, and when it is refused, is decided in raft/transfer.py; here is who starts one, who waits for its end, and
what they are told. A request ends with the office in the target's hands, or with a refusal that says what became of it.
"""

import asyncio
import logging
from typing import Any, Callable, Mapping, Sequence

from raftkv.errors import OutcomeUnknown, RaftKVError, TransferRefused
from raftkv.raft.effects import RoleChange
from raftkv.raft.node import Raft
from raftkv.replica.fitness import Fitness
from raftkv.replica.membership import with_names
from raftkv.replica.preference import Preference
from raftkv.replica.service import LEADER, Service
from raftkv.units import NOBODY, NodeId
from raftkv.wire.commands import OK, Answer, failure

log = logging.getLogger("raftkv.leadership")

TRANSFER_POLL_SECONDS = 0.005
FAREWELL_POLLS = 20
REQUEST_SECONDS_MAX = 5.0  # an office that nobody takes within it may stay empty for long


class Request:
    """Somebody waits for a transfer. `target` None: any member will do. `deadline` in `now` seconds."""

    __slots__ = ("deadline", "done", "target")

    def __init__(self, target: NodeId | None, deadline: float, done: Callable[[Answer], None]) -> None:
        self.target = target
        self.deadline = deadline
        self.done = done


class Leadership:
    """The reasons to hand over, and the requests that wait for it. One owner: the loop."""

    def __init__(
        self,
        raft: Raft,
        service: Service,
        *,
        now: Callable[[], float],
        members: Callable[[], Sequence[Mapping[str, Any]]],
        schedule_pump: Callable[[], None],
        is_dead: Callable[[], bool],
    ) -> None:
        self._raft = raft
        self._service = service
        self._now = now  # in seconds, monotonic
        self._members = members
        self._schedule_pump = schedule_pump
        self._is_dead = is_dead  # nothing moves any more: whoever waits for progress waits in vain
        self._requests: list[Request] = []
        self._fitness = Fitness(raft)
        self._preference = Preference(raft)
        self.handovers = 0  # begun by this member itself
        self.stalled_seconds = 0.0  # how long an fsync has not returned; 0 while the disk is well

    # On request.

    def move(self, target: NodeId | None, done: Callable[[Answer], None]) -> None:
        """Transfer; `done` gets the answer once the office has moved, or the refusal."""
        if self._raft.role != LEADER:
            done(failure(self._service.elsewhere()))
            return
        try:
            self._raft.transfer_leadership(target)
        except TransferRefused as refusal:
            done(failure(TransferRefused(self._with_names(refusal.message))))
            return
        if target == self._raft.node_id:
            done([OK, {"leader": self._service.leader_hint()}])
            return
        self._requests.append(Request(target, self._now() + REQUEST_SECONDS_MAX, done))
        self._schedule_pump()

    def on_leader_change(self, change: RoleChange) -> None:
        """The office is empty, or somebody else's."""
        if change.leader == NOBODY or not self._requests:
            return
        requests, self._requests = self._requests, []
        leader = self._service.leader_hint()
        for request in requests:
            if change.role == LEADER or request.target not in (None, change.leader):
                request.done(failure(TransferRefused(self._with_names(f"member {change.leader} was elected instead"))))
            else:
                request.done([OK, {"leader": leader}])

    def tick(self) -> None:
        """After the core's tick: a transfer that was given up is told to whoever waits for it."""
        if not self._requests:
            return
        if self._raft.role == LEADER and not self._raft.is_transferring:
            requests, self._requests = self._requests, []
            for request in requests:
                who = "" if request.target is None else f" by member {request.target}"
                message = f"the office was not taken over{who} within an election timeout; nothing changed"
                request.done(failure(TransferRefused(self._with_names(message))))
            return
        now = self._now()
        late = [request for request in self._requests if request.deadline <= now]
        self._requests = [request for request in self._requests if request.deadline > now]
        for request in late:
            request.done(failure(OutcomeUnknown("the office was given away, and nobody was heard to take it yet")))

    def _with_names(self, message: str) -> str:
        return with_names(message, self._members())

    # By itself.

    def hand_over(self, reason: str) -> bool:
        """Start a transfer to the best voter, if this member leads. False: there was nobody to hand over to."""
        if self._raft.role != LEADER or self._raft.is_transferring:
            return True
        try:
            self._raft.transfer_leadership()
        except RaftKVError as refusal:
            log.warning("cannot hand leadership over although %s: %s", reason, self._with_names(refusal.message))
            return False
        log.warning("handing leadership over: %s", reason)
        self._begun()
        return True

    def watch_disk(self, oldest_save_seconds: float, seconds_max: float, *, is_full: bool) -> None:
        """A full disk takes no writes, and a leader whose disk does not come back commits through its followers only, and its
        own votes wait: let another lead."""
        stalled_seconds = oldest_save_seconds if oldest_save_seconds > seconds_max and not is_full else 0.0
        if self.stalled_seconds and not stalled_seconds:
            log.warning("the disk came back")
        elif stalled_seconds and not self.stalled_seconds:
            log.error("an fsync of the log has not returned for %.1f s (limit %.1f s)", stalled_seconds, seconds_max)
        self.stalled_seconds = stalled_seconds
        now_ms = int(self._now() * 1000)
        reason = self._fitness.reason(now_ms, is_full=is_full, is_stalled=stalled_seconds > 0)
        try:
            begun = self._fitness.look(now_ms, reason)
        except TransferRefused as refusal:
            log.warning("cannot hand leadership over although %s: %s", reason, self._with_names(refusal.message))
            return
        if begun:
            log.warning("handing leadership over: %s", reason)
            self._begun()

    def watch_priorities(self, *, is_well: bool) -> None:
        """After `watch_disk`, as often: whether somebody else is preferred and able to lead."""
        priorities = {member["id"]: member["priority"] for member in self._members()}
        target = self._preference.look(int(self._now() * 1000), priorities, is_well=is_well)
        if target is not None:
            log.info(
                "handing leadership over to %s, whose priority is %d (here: %d)",
                self._with_names(f"member {target}"),
                priorities[target],
                priorities.get(self._raft.node_id, 0),
            )
            self._begun()

    def _begun(self) -> None:
        self.handovers += 1
        self._schedule_pump()

    def on_snapshot_failed(self) -> None:
        """This member could not make the snapshot that some follower needs: another one may have the room."""
        self._fitness.on_snapshot_failed(int(self._now() * 1000))

    async def hand_over_and_drain(self, deadline: float) -> None:
        """For a shutdown: give the office to the most caught-up voter, answer what is in flight. Deadline in `now` seconds."""
        had_office = self._raft.role == LEADER
        while self._now() < deadline and self._raft.role == LEADER and not self._is_dead():
            if not self._raft.is_transferring and not self.hand_over("this member shuts down"):
                break
            await asyncio.sleep(TRANSFER_POLL_SECONDS)
        self._service.begin_shutdown()
        # Those that have not heard of the next leader yet still forward to this one: it tells them that nothing was done.
        farewells = FAREWELL_POLLS if had_office else 0
        while self._now() < deadline and not self._is_dead() and (farewells > 0 or not self._service.is_idle):
            farewells -= 1
            await asyncio.sleep(TRANSFER_POLL_SECONDS)


__all__ = ["Leadership"]
