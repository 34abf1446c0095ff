"""Questions about leases that only the leader can answer: keep alive, and time to live. A path of its own beside reads and writes.

All that arrive together share one confirmation of leadership (ReadIndex, 6.4), so a leader that was deposed keeps no lease alive
(etcd#15247); leases that are due end under the same rule. Nobody waits here for the queue of writes or for apply: before a leader
takes office it has applied everything that was acknowledged before, and later it acknowledges only what it has applied. A time
to live waits for the index of its round all the same, because a follower may have shown its keys already.
"""

from typing import Callable, Final, Iterable, TypeAlias

from raftkv.errors import DeadlineExceeded, RaftKVError
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.leases import LeaseBooks
from raftkv.replica.ports import StateMachine
from raftkv.units import Index, Milliseconds, Term
from raftkv.wire.commands import LEASE_TTL, OK, WITH_KEYS, Answer, Command, failure
from raftkv.wire.protocol import KEEP_ALIVE

Question: TypeAlias = ReadGroup | WriteGroup
"""A group of KEEP_ALIVE and LEASE_TTL; a WriteGroup when another member forwards it."""

QUESTIONS: Final = frozenset({KEEP_ALIVE, LEASE_TTL})
FIRST_CONTEXT: Final = 1 << 60  # the contexts of reads are far below


class LeaseDesk:
    """Questions by stage: new, in the round under way, held until a proposal of the books has ended, waiting for apply."""

    def __init__(
        self, state_machine: StateMachine, propose: Callable[[WriteGroup], None], first_read_context: int
    ) -> None:
        self._books = LeaseBooks(state_machine, propose, self._on_proposal_ended)
        self._state_machine = state_machine
        self._next_context = FIRST_CONTEXT + first_read_context
        self._context = 0
        self._new: list[Question] = []
        self._in_round: list[Question] = []
        self._held: list[tuple[Index, Question]] = []
        self._waiting: list[tuple[Index, Question]] = []
        self._now_ms: Milliseconds = 0
        self.pending_commands = 0
        self.renewed = 0  # leases, since the start

    @property
    def is_idle(self) -> bool:
        """Nobody waits, and nothing is due."""
        return not self.pending_commands and not self.wants_round

    def submit(self, group: Question) -> None:
        """A question for the next round."""
        self._new.append(group)
        self.pending_commands += len(group.commands)

    # Rounds.

    @property
    def wants_round(self) -> bool:
        """Whether `start_round` would start one."""
        books = self._books
        return not self._context and books.in_office and (bool(self._new) or books.wants_confirmation)

    def start_round(self, now_ms: Milliseconds) -> int:
        """The context to confirm, or 0."""
        self._now_ms = now_ms
        if not self.wants_round:
            return 0
        self._context = self._next_context
        self._next_context += 1
        self._in_round, self._new = self._new, []
        return self._context

    def on_confirmed(self, context: int, index: Index) -> None:
        """This member led when the round began, at a commit index of `index`."""
        if context != self._context:
            return
        self._context = 0
        groups, self._in_round = self._in_round, []
        for group in groups:
            self._answer(group, index)
        self._books.propose_next(self._now_ms, self._kept_ids(), confirmed=True)

    def on_failed(self, context: int, error: RaftKVError) -> None:
        """The round will never be confirmed."""
        if context == self._context:
            self._context = 0
            groups, self._in_round = self._in_round, []
            self._refuse(groups, error)

    # Life.

    def tick(self, now_ms: Milliseconds) -> None:
        """Time moves on for the leases."""
        self._now_ms = now_ms
        self._books.tick(now_ms)

    def on_applied(self) -> None:
        """An entry took effect."""
        leases = self._state_machine.leases
        if leases.news:  # not for every entry
            self._books.on_news(leases.take_news(), self._now_ms)
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for index, group in waiting:
                self._answer(group, index)

    def take_office(self, term: Term) -> None:
        """The first entry of the own term is applied."""
        self._books.take_office(term, self._now_ms)

    def leave_office(self, error: RaftKVError) -> None:
        """Somebody else has to be asked. What was not answered was not promised."""
        self._books.leave_office()
        self._context = 0
        groups = self._all()
        self._new, self._in_round, self._held, self._waiting = [], [], [], []
        self._refuse(groups, error)

    def expire(self, now_ms: Milliseconds) -> None:
        """End the questions whose deadline has passed. A round keeps running for the others."""
        if all(group.deadline_ms > now_ms for group in self._all()):
            return
        late = [group for group in self._all() if group.deadline_ms <= now_ms]
        self._new = [group for group in self._new if group.deadline_ms > now_ms]
        self._in_round = [group for group in self._in_round if group.deadline_ms > now_ms]
        self._held = [pair for pair in self._held if pair[1].deadline_ms > now_ms]
        self._waiting = [pair for pair in self._waiting if pair[1].deadline_ms > now_ms]
        self._refuse(late, DeadlineExceeded("leadership was not confirmed in time", may_have_happened=False))

    # Answers.

    def _answer(self, group: Question, index: Index) -> None:
        """Answer a group whose round is confirmed, or keep it until that is possible."""
        answers: list[Answer] = []
        for command in group.commands:
            refusal = self._refusal(group, command)
            if refusal is not None:
                answers.append(failure(refusal))
            elif command[0] == KEEP_ALIVE:
                ttls = [self._books.renew(lease_id, self._now_ms) for lease_id in command[1]]
                if None in ttls:
                    self._held.append((index, group))
                    return
                self.renewed += sum(map(bool, ttls))
                answers.append([OK, self._state_machine.revision, ttls])
            elif self._state_machine.applied_index < index:
                self._waiting.append((index, group))
                return
            else:
                answers.append(self._time_to_live(command))
        self.pending_commands -= len(group.commands)
        group.origin.on_answers(group, answers)

    def _refusal(self, group: Question, command: Command) -> RaftKVError | None:
        access = self._state_machine.access
        if access.is_on:
            try:
                access.check(command, group.user, group.auth_revision)
            except RaftKVError as error:
                return error
        return None

    def _time_to_live(self, command: Command) -> Answer:
        _, flags, lease_id = command
        revision = self._state_machine.revision
        lease = self._state_machine.leases.get(lease_id)
        if lease is None:
            return [OK, revision, -1, 0, []]
        keys = sorted(lease.keys) if flags & WITH_KEYS else []
        return [OK, revision, self._books.remaining_ms(lease_id, self._now_ms), lease.ttl_ms, keys]

    def _on_proposal_ended(self, error: RaftKVError | None) -> None:
        """What was held can be decided now: its leadership was confirmed before."""
        held, self._held = self._held, []
        if error is not None:
            self._refuse([group for _, group in held], error)
            return
        for index, group in held:
            self._answer(group, index)
        self._books.propose_next(self._now_ms, (), confirmed=False)

    def _kept_ids(self) -> Iterable[int]:
        for group in self._all():
            for command in group.commands:
                if command[0] == KEEP_ALIVE and self._refusal(group, command) is None:
                    yield from command[1]

    def _all(self) -> list[Question]:
        return [
            *self._new,
            *self._in_round,
            *(group for _, group in self._held),
            *(group for _, group in self._waiting),
        ]

    def _refuse(self, groups: Iterable[Question], error: RaftKVError) -> None:
        for group in groups:
            self.pending_commands -= len(group.commands)
            group.origin.on_refused(group, error)
