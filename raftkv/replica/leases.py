"""The leader's books of leases: who has how long, who is due, and what the log has to know of it.

The store knows what was granted and what a new leader has to give each lease; the time that runs is kept here, on the leader's
monotonic clock, and only while it is in office. So keep-alives cost the log nothing, nothing expires without a leader, and a new
leader begins with the whole time that the log promises. Two rules keep its promises as long as those of its predecessor:

- A lease that was not kept alive for half of its time is checkpointed: the log then promises what is left, and half of that, and so
  on. One that is renewed in time, at a third of it, never is; one that is not cannot live on by leaders that come and go.
- A keep-alive of a lease with a checkpoint, or with one on its way, is answered only after the log has been told to promise the
  whole time again.

Leases wait in a wheel of slots by the next moment at which something may have to be done; a keep-alive does not move them.
"""

from itertools import islice
from typing import Callable, Final, Iterable, Sequence

from raftkv.errors import RaftKVError
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.ports import StateMachine
from raftkv.units import Milliseconds, Term
from raftkv.wire.commands import CHECKPOINT_LEASES, EXPIRE_LEASES, Answer, Command

SLOT_MS: Final = 100
CHECKPOINT_REMAINING_MS_MIN: Final = 1_000  # less is not worth an entry
ROWS_MAX: Final = 2_000  # leases in one entry, and leases looked at in one tick after an election
RETRY_MS: Final = 200  # after a refusal: the disk is full, say
ROW_BYTES: Final = 24
NEVER_MS: Final = 1 << 62

EXPIRE, CHECKPOINT, RESET = "expire", "checkpoint", "reset"


class LeaseBooks:
    """Deadlines of one office. Also the origin of what it proposes, one command at a time."""

    def __init__(
        self,
        state_machine: StateMachine,
        propose: Callable[[WriteGroup], None],
        on_proposal_ended: Callable[[RaftKVError | None], None],
    ) -> None:
        self._state_machine = state_machine
        self._propose = propose
        self._on_proposal_ended = on_proposal_ended
        self.takes_answers = True
        self.in_office = False
        self._begin(0, 0)

    def _begin(self, term: Term, now_ms: Milliseconds) -> None:
        self._term = term
        self._office_since_ms = now_ms
        self._deadlines: dict[
            int, Milliseconds
        ] = {}  # of those that were granted, renewed or checkpointed in this office
        self._slots: dict[int, dict[int, None]] = {}
        self._slot_of: dict[int, int] = {}
        self._slot_done = now_ms // SLOT_MS
        self._unplaced: list[int] = []
        self._due: dict[int, None] = {}
        self._fading: dict[int, None] = {}
        self._resets: dict[int, None] = {}
        self._kind = ""
        self._proposed: frozenset[int] = frozenset()
        self._now_ms = now_ms
        self._retry_at_ms: Milliseconds = 0

    # The office.

    def take_office(self, term: Term, now_ms: Milliseconds) -> None:
        """Everything that predecessors were told is applied: each lease gets what the log promises, from now on."""
        self._begin(term, now_ms)
        self.in_office = True
        self._unplaced = list(self._state_machine.leases)

    def leave_office(self) -> None:
        """The books are closed; a proposal that is on its way ends by itself, and finds nobody."""
        if self.in_office:
            self._begin(0, 0)
            self.in_office = False

    def on_news(self, news: Iterable[tuple[int, bool]], now_ms: Milliseconds) -> None:
        """Leases were granted or ended."""
        if not self.in_office:
            return
        for lease_id, granted in news:
            self._forget(lease_id)
            lease = self._state_machine.leases.get(lease_id) if granted else None
            if lease is not None:
                self._deadlines[lease_id] = now_ms + lease.ttl_ms
                self._place(lease_id)

    # What is asked.

    def remaining_ms(self, lease_id: int, now_ms: Milliseconds) -> Milliseconds:
        """What is left of an existing lease; not below 0 while it waits for its end."""
        return max(0, self._deadline_ms(lease_id) - now_ms)

    def renew(self, lease_id: int, now_ms: Milliseconds) -> Milliseconds | None:
        """Give a lease its whole time, at a moment when leadership was confirmed. 0: it does not exist. None: the log has to be
        told first, or decides just now whether it still exists; ask again when the proposal has ended.
        """
        assert self.in_office, "only a leader renews"
        lease = self._state_machine.leases.get(lease_id)
        if lease is None:
            return 0
        if lease_id in self._proposed and self._kind != RESET:
            return None
        self._deadlines[lease_id] = now_ms + lease.ttl_ms
        if lease_id in self._due or lease_id in self._fading:
            self._due.pop(lease_id, None)
            self._fading.pop(lease_id, None)
            self._place(lease_id)
        if lease.remaining_ms < lease.ttl_ms:
            if lease_id not in self._proposed:
                self._resets[lease_id] = None
            return None
        return lease.ttl_ms

    # What has to be done.

    @property
    def wants_confirmation(self) -> bool:
        """Leases are due: they end if this member still leads."""
        return bool(self._due) and not self._kind and self._now_ms >= self._retry_at_ms

    def tick(self, now_ms: Milliseconds) -> None:
        """Look at what has come due since the last time."""
        self._now_ms = now_ms
        if not self.in_office:
            return
        for _ in range(min(ROWS_MAX, len(self._unplaced))):
            self._place(self._unplaced.pop())
        self._turn_wheel(now_ms)
        if self._fading and not self._due:
            self.propose_next(now_ms, (), confirmed=False)

    def _turn_wheel(self, now_ms: Milliseconds) -> None:
        """Look at the leases of the slots that have passed, at so many in one tick: after an election they may all be in one."""
        current = now_ms // SLOT_MS
        looks_left = ROWS_MAX
        while self._slot_done < current:
            number = self._slot_done + 1
            slot = self._slots.get(number)
            if slot is None and current - number > len(self._slots):
                # After a long stall there are more slot numbers than slots.
                self._slot_done = min((taken for taken in self._slots if taken <= current), default=current + 1) - 1
                continue
            while slot:
                if not looks_left:
                    return
                looks_left -= 1
                lease_id, _ = slot.popitem()
                del self._slot_of[lease_id]
                self._look_at(lease_id, now_ms)
            self._slots.pop(number, None)
            self._slot_done = number

    def propose_next(self, now_ms: Milliseconds, kept: Iterable[int], *, confirmed: bool) -> None:
        """Propose what is most urgent, if nothing is under way. `kept`: keep-alives of these wait, so they do not end."""
        self._now_ms = now_ms
        if self._kind or not self.in_office or now_ms < self._retry_at_ms:
            return
        leases = self._state_machine.leases
        if self._resets:
            rows = [[lease_id, lease.ttl_ms] for lease_id in _take(self._resets) if (lease := leases.get(lease_id))]
            self._say(RESET, [CHECKPOINT_LEASES, 0, self._term, rows], [row[0] for row in rows])
        elif self._due and confirmed:
            spared = set(kept)
            chosen = list(islice((lease_id for lease_id in self._due if lease_id not in spared), ROWS_MAX))
            if chosen:
                self._say(EXPIRE, [EXPIRE_LEASES, 0, self._term, chosen], chosen)
        elif self._fading:
            rows = [[lease_id, self.remaining_ms(lease_id, now_ms)] for lease_id in _take(self._fading)]
            for lease_id, remaining_ms in rows:
                self._deadlines[lease_id] = now_ms + remaining_ms
            self._say(CHECKPOINT, [CHECKPOINT_LEASES, 0, self._term, rows], [row[0] for row in rows])

    def _say(self, kind: str, command: Command, lease_ids: Sequence[int]) -> None:
        self._kind, self._proposed = kind, frozenset(lease_ids)
        size_bytes = 64 + ROW_BYTES * len(lease_ids)
        # No deadline: while it may still be applied, its leases must not be answered as if it were not.
        self._propose(WriteGroup(self, [self._term], [command], size_bytes=size_bytes, deadline_ms=NEVER_MS))

    # Origin.

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        """It was applied. Those that were left over when leases expired stay due."""
        self._end_proposal(group, None)

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        """It was not, or nobody here will learn of it."""
        self._retry_at_ms = self._now_ms + RETRY_MS
        self._end_proposal(group, error)

    def _end_proposal(self, group: WriteGroup | ReadGroup, error: RaftKVError | None) -> None:
        if not self._kind or group.tags[0] != self._term:
            return  # of an office that is over
        kind, lease_ids = self._kind, self._proposed
        self._kind, self._proposed = "", frozenset()
        if kind == CHECKPOINT:
            for lease_id in sorted(lease_ids):
                if lease_id in self._state_machine.leases and lease_id not in self._due:
                    self._place(lease_id)
        self._on_proposal_ended(error)

    # The wheel.

    def _deadline_ms(self, lease_id: int) -> Milliseconds:
        deadline_ms = self._deadlines.get(lease_id)
        if deadline_ms is not None:
            return deadline_ms
        lease = self._state_machine.leases.get(lease_id)
        assert lease is not None, "asked of those that exist"
        return self._office_since_ms + lease.remaining_ms

    def _checkpoint_at_ms(self, lease_id: int, deadline_ms: Milliseconds) -> Milliseconds:
        """When half of what the log promises has run off."""
        lease = self._state_machine.leases.get(lease_id)
        assert lease is not None, "asked of those that exist"
        left_ms = lease.remaining_ms // 2
        return deadline_ms - left_ms if left_ms >= CHECKPOINT_REMAINING_MS_MIN else deadline_ms

    def _look_at(self, lease_id: int, now_ms: Milliseconds) -> None:
        if lease_id not in self._state_machine.leases:
            self._forget(lease_id)
            return
        deadline_ms = self._deadline_ms(lease_id)
        if deadline_ms <= now_ms:
            self._due[lease_id] = None
        elif self._checkpoint_at_ms(lease_id, deadline_ms) <= now_ms:
            self._fading[lease_id] = None
        else:
            self._place(lease_id)

    def _place(self, lease_id: int) -> None:
        """Into the slot that ends at its next moment or right after it, never before."""
        if lease_id in self._slot_of or lease_id not in self._state_machine.leases:
            return
        look_at_ms = self._checkpoint_at_ms(lease_id, self._deadline_ms(lease_id))
        number = max(-(-look_at_ms // SLOT_MS), self._slot_done + 2)  # not into the one that is being emptied
        self._slots.setdefault(number, {})[lease_id] = None
        self._slot_of[lease_id] = number

    def _forget(self, lease_id: int) -> None:
        self._deadlines.pop(lease_id, None)
        for table in (self._due, self._fading, self._resets):
            table.pop(lease_id, None)
        number = self._slot_of.pop(lease_id, None)
        if number is not None:
            slot = self._slots[number]
            del slot[lease_id]
            if not slot:
                del self._slots[number]


def _take(table: dict[int, None]) -> list[int]:
    """The first of them, in the order in which they came, and out of the table."""
    taken = list(islice(table, ROWS_MAX))
    for lease_id in taken:
        del table[lease_id]
    return taken
