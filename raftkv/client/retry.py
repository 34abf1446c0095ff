"""One call's way through the cluster: where to send, how long to wait, or when to stop. SANS-IO.

What happens to the attempts comes in as `on_*` events with the time; each returns the next Decision: Send, Keep, Wait or Stop. A Retry knows
the directory of its client and nothing of sockets, loops or threads, so both clients and the tests run the same code. The rules:
a leader hint or `no_quorum` is followed in the next round trip; while an election runs it waits 10 to 50 ms; a silent member
is left after one attempt's deadline; an uncertain write goes on only under a session (dissertation 6.3), otherwise it ends as
OutcomeUnknown. Which error a call ends with, and with which words, is decided in verdict.py.
"""

from typing import Callable, Final

from raftkv.client import verdict
from raftkv.client.decisions import (
    BARE_WRITE,
    CONTROL,
    PATIENT_READ,
    QUESTION,
    REFUSED_LOGINS,
    STALE_READ,
    WRITE,
    Decision,
    Keep,
    Send,
    Stop,
    Wait,
)
from raftkv.client.endpoints import Directory, hint_of
from raftkv.client.session import Session
from raftkv.errors import ClusterMismatch, RaftKVError
from raftkv.units import NOBODY, NodeId

ATTEMPT_TIMEOUT_S_MAX: Final = 1.0
BACKOFF_S_MIN: Final = 0.010
BACKOFF_S_MAX: Final = 0.050
ROUND_BACKOFF_S_MAX: Final = 0.500
LOGINS_MAX: Final = 3


def default_attempt_timeout_s(timeout_s: float) -> float:
    """A third of the call's time, so that three members can be asked; one second is an eternity on a LAN."""
    return min(ATTEMPT_TIMEOUT_S_MAX, timeout_s / 3)


class Retry:
    """The state of one call. `draw` gives the jitter: a number in [0, 1)."""

    __slots__ = (
        "_attempt_timeout_s",
        "_directory",
        "_draw",
        "_hops",
        "_kind",
        "_logins",
        "_mismatches",
        "_rounds",
        "_session",
        "_started_at",
        "_tried",
        "_visited",
        "current",
        "deadline",
        "reached",
        "uncertain",
    )

    def __init__(
        self,
        directory: Directory,
        kind: int,
        now: float,
        deadline: float,
        attempt_timeout_s: float,
        draw: Callable[[], float],
        session: Session | None = None,
    ) -> None:
        assert (kind == WRITE) == (session is not None), "a WRITE is a write under a session"
        self.deadline = deadline
        self.current: Send | None = None
        """The attempt under way."""
        self.uncertain = False
        """Some attempt of a write was sent and never answered for certain."""
        self.reached = False
        """Some member answered, whatever it said."""
        self._directory = directory
        self._kind = kind
        self._started_at = now
        self._attempt_timeout_s = attempt_timeout_s
        self._draw = draw
        self._session = session
        self._tried: dict[str, RaftKVError] = {}
        self._visited: set[str] = set()
        self._mismatches: dict[str, ClusterMismatch] = {}
        self._rounds = self._hops = self._logins = 0

    # Events.

    def start(self, now: float) -> Decision:
        """The first decision of a call."""
        return self._choose(now)

    def adopt(self, address: str, attempt_deadline: float) -> None:
        """The first attempt was made without asking: the address was known to be good."""
        self.reached = True
        self._visited.add(address)
        self.current = Send(address, False, attempt_deadline, attempt_deadline)

    def rebind(self, session: Session) -> None:
        """A write that was surely not done goes on under another session."""
        assert not self.uncertain, "an uncertain write belongs to its session for ever"
        self._session = session

    def on_connected(self, now: float) -> Decision:
        """The connection is open and greeted. A write that learns now who the leader is goes there."""
        current = self._attempt()
        self.reached = True
        if now >= self.deadline:
            return self._expired(now)  # the greeting came in the same turn as the end
        leader_id = self._directory.leader_id
        misplaced = self._kind in (WRITE, QUESTION, BARE_WRITE, CONTROL) and leader_id != NOBODY and not current.forward
        if misplaced and self._directory.member_at(current.address) != leader_id:
            return self._choose(now)
        return self._send(now, current.address, current.forward)

    def on_unreachable(self, now: float, error: RaftKVError) -> Decision:
        """No connection, or no greeting; nothing was sent."""
        address = self._attempt().address
        if isinstance(error, ClusterMismatch):
            return self._on_mismatch(now, address, error)
        self._note(address, error)
        if error.code in REFUSED_LOGINS:
            return Stop(verdict.refusal(error, is_write=self._is_write, uncertain=self.uncertain))
        self._directory.on_unreachable(address, now)
        return self._choose(now)

    def on_lost(self, now: float, error: RaftKVError) -> Decision:
        """The connection broke after the request was sent."""
        address = self._attempt().address
        self.reached = True
        self._note(address, error)
        self._directory.on_unreachable(address, now)
        return self._after_uncertain(now, error)

    def on_silence(self, now: float, *, heard: bool) -> Decision:
        """The attempt's deadline passed. `heard`: the member sent something else lately, so it is alive and this is slow."""
        current = self._attempt()
        self.reached = True
        if heard and (self._kind == PATIENT_READ or now < (self._started_at + self.deadline) / 2):
            # A large range may take longer than an attempt; but half of the time is kept for asking somebody else.
            return Keep(min(self.deadline, now + self._attempt_timeout_s))
        error = verdict.silence(heard)
        self._note(current.address, error)
        if not heard:
            self._directory.on_unreachable(current.address, now)
        return self._after_uncertain(now, error)

    def on_refused(self, now: float, error: RaftKVError) -> Decision:
        """The member answered with an error."""
        self.reached = True
        self._note(self._attempt().address, error)
        reaction = _REACTIONS.get(error.code)
        if reaction is None:
            return Stop(verdict.refusal(error, is_write=self._is_write, uncertain=self.uncertain))
        return reaction(self, now, error)

    def on_stale_login(self, now: float, error: RaftKVError) -> Decision:
        """The connection's login does not count any more, and nothing was done: once more, on a connection with a new one."""
        current = self._attempt()
        self._note(current.address, error)
        self._logins += 1
        if self._logins > LOGINS_MAX:
            return Stop(verdict.refusal(error, is_write=self._is_write, uncertain=self.uncertain))
        return self._expired(now) if now >= self.deadline else self._send(now, current.address, current.forward)

    def on_wait_over(self, now: float) -> Decision:
        """The time of a Wait has come."""
        self._hops = 0
        return self._choose(now)

    def on_expired(self, now: float) -> Stop:
        """The call's deadline passed; an attempt that was sent has been abandoned before."""
        return self._expired(now)

    def on_abandoned(self) -> None:
        """The attempt under way was sent, and no answer to it will be taken any more: the call ends."""
        self.reached = True
        self.uncertain = self.uncertain or self._is_write

    # Reactions to refusals.

    def _on_not_leader(self, now: float, error: RaftKVError) -> Decision:
        leader, members = hint_of(error)
        self._directory.on_hint(leader, members)
        if leader is None:
            return self._after_uncertain(now, error) if error.may_have_happened else self._back_off(now)
        # The newest word about the leader counts, also when that member was asked before.
        self._visited.difference_update(self._directory.addresses_of(leader.id))
        self._visited.add(self._attempt().address)
        return self._after_uncertain(now, error) if error.may_have_happened else self._choose(now)

    def _on_unable(self, now: float, error: RaftKVError) -> Decision:
        """no_quorum, shutting_down: somewhere else, at once."""
        address = self._attempt().address
        leader, members = hint_of(error)
        self._directory.on_members(members)
        self._directory.on_refusal(address, now)
        if leader is not None and leader.id != self._directory.member_at(address):
            self._directory.on_hint(leader, members)
        return self._after_uncertain(now, error) if error.may_have_happened else self._choose(now)

    def _on_busy(self, now: float, error: RaftKVError) -> Decision:
        """overloaded, membership_busy: nothing was done, and it passes."""
        self._visited.discard(self._attempt().address)
        return self._back_off(now)

    def _on_leader_gone(self, now: float, error: RaftKVError) -> Decision:
        """The leader lost its office or its contact in the middle: an election runs."""
        leader, members = hint_of(error)
        self._directory.on_hint(leader, members)
        if error.may_have_happened and self._is_write:
            refused = self._uncertain_refusal(now, error)
            if refused is not None:
                return refused
        return self._choose(now) if leader is not None else self._back_off(now)

    def _on_late(self, now: float, error: RaftKVError) -> Decision:
        """The member gave up first."""
        return self._after_uncertain(now, error) if error.may_have_happened else self._choose(now)

    def _on_mismatch(self, now: float, address: str, error: ClusterMismatch) -> Decision:
        mismatch = verdict.mismatch(address, error)
        self._note(address, mismatch)
        self._mismatches[address] = mismatch
        self._directory.on_mismatch(address, now)
        if all(endpoint in self._mismatches for endpoint in self._directory.endpoints):
            mismatch.may_have_happened = self.uncertain
            return Stop(mismatch)
        return self._choose(now)

    # Decisions.

    def _after_uncertain(self, now: float, error: RaftKVError) -> Decision:
        """Go on after an attempt that may have done the write, if its outcome can still be known."""
        refused = self._uncertain_refusal(now, error)
        return refused if refused is not None else self._choose(now)

    def _uncertain_refusal(self, now: float, error: RaftKVError) -> Stop | None:
        if not self._is_write:
            return None
        self.uncertain = True
        if self._kind != WRITE:
            if now >= self.deadline:
                return self._expired(now)
            return Stop(verdict.outcome_unknown(self._attempt().address, error))
        assert self._session is not None, "a WRITE has one"
        gone = self._session.retry_refusal(now)
        return None if gone is None else Stop(gone)

    def _choose(self, now: float) -> Decision:
        if now >= self.deadline:
            return self._expired(now)
        directory = self._directory
        hops_max = 2 * (len(directory.endpoints) + len(directory.members)) + 2
        self._hops += 1
        if self._hops > hops_max:
            return self._back_off(now)  # two members that point at each other
        target = self._leader_target(now) or self._any_target(now)
        if target is None:
            self._visited.clear()
            self._rounds += 1
            return self._back_off(now)
        return self._send(now, *target)

    def _leader_target(self, now: float) -> tuple[str, bool] | None:
        """The leader, or who may know a way to it; None when nobody is known to lead or this round tried it all."""
        directory = self._directory
        leader_id = directory.leader_id
        if leader_id == NOBODY or self._kind == STALE_READ:
            return None
        for address in directory.addresses_of(leader_id):
            if address not in self._visited and not directory.is_unreachable(address, now):
                return address, False
        if self._kind not in (WRITE, QUESTION, BARE_WRITE):
            return None
        for address in directory.unmet_endpoints(now):
            if address not in self._visited:
                return address, False
        return self._relay(now, leader_id)

    def _relay(self, now: float, leader_id: NodeId) -> tuple[str, bool] | None:
        """A member that answers us, to reach a leader that does not; only while no way of our own is left."""
        directory = self._directory
        if any(not directory.is_unreachable(address, now) for address in directory.addresses_of(leader_id)):
            return None
        for address in directory.candidates(now):
            known = directory.member_at(address)
            relayed = (address + " forward") in self._visited
            if known not in (NOBODY, leader_id) and not relayed and not directory.is_unreachable(address, now):
                return address, True
        return None

    def _any_target(self, now: float) -> tuple[str, bool] | None:
        for address in self._directory.candidates(now):
            if address not in self._visited:
                return address, False
        return None

    def _send(self, now: float, address: str, forward: bool) -> Send:
        assert now < self.deadline, "nothing is sent after the deadline"
        self._visited.add(address + " forward" if forward else address)
        attempt_deadline = min(self.deadline, now + self._attempt_timeout_s)
        if self._kind in (BARE_WRITE, CONTROL):
            # Its silence cannot be answered by asking another member.
            attempt_deadline = self.deadline
        connect_deadline = min(self.deadline, now + self._attempt_timeout_s / 2)
        self.current = Send(address, forward, connect_deadline, attempt_deadline)
        return self.current

    def _back_off(self, now: float) -> Decision:
        """10 to 50 ms, longer with every round in which all members were asked; none begins when no answer could come any more."""
        if now >= self.deadline:
            return self._expired(now)
        ceiling_s = min(ROUND_BACKOFF_S_MAX, BACKOFF_S_MAX * 2 ** min(max(self._rounds - 1, 0), 8))
        pause_s = BACKOFF_S_MIN + (ceiling_s - BACKOFF_S_MIN) * self._draw()
        return Wait(now + pause_s if now + pause_s < self.deadline - BACKOFF_S_MIN else self.deadline)

    def _expired(self, now: float) -> Stop:
        return Stop(
            verdict.expired(
                self._tried,
                timeout_s=self.deadline - self._started_at,
                is_write=self._is_write,
                uncertain=self.uncertain,
                reached=self.reached,
                mismatches=self._mismatches,
            )
        )

    @property
    def _is_write(self) -> bool:
        return self._kind in (WRITE, BARE_WRITE, CONTROL)

    def _attempt(self) -> Send:
        assert self.current is not None, "an event follows a Send"
        return self.current

    def _note(self, address: str, error: RaftKVError) -> None:
        self._tried[address] = error


_REACTIONS: Final[dict[str, Callable[[Retry, float, RaftKVError], Decision]]] = {
    "not_leader": Retry._on_not_leader,
    "no_quorum": Retry._on_unable,
    "shutting_down": Retry._on_unable,
    "unreachable": Retry._on_unable,
    "overloaded": Retry._on_busy,
    "membership_busy": Retry._on_busy,
    "leadership_lost": Retry._on_leader_gone,
    "outcome_unknown": Retry._on_leader_gone,
    "deadline_exceeded": Retry._on_late,
}
