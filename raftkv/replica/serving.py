"""Read groups being answered from the store: in portions, so that no group holds the loop or fills the memory.

A portion is some milliseconds of work and about a megabyte of answers. What is left of a group goes to the back of a queue and gets
a portion per turn; others overtake it. A client that does not take its answers gets no further ones made. The answer to a
range is that of the revision at which it began, however many portions it took.
"""

from collections import deque
from typing import Sequence

from raftkv.errors import RaftKVError
from raftkv.replica.groups import ReadGroup
from raftkv.replica.ports import ReadCursor, StateMachine
from raftkv.wire.commands import GET, LEASES, READ_TXN, TXN, Answer, Command, failure
from raftkv.wire.pools import POOL_READS
from raftkv.wire.users import AUTH_READS

PORTION_STEPS_MAX = 2  # of ranges; a step is some milliseconds at most
PORTION_READS_MAX = 1024
_WHOLE = AUTH_READS | POOL_READS
PORTION_BYTES = 1024 * 1024


class _Unfinished:
    """What is left of a group: its first command may be a range that has begun."""

    __slots__ = ("cursor", "group")

    def __init__(self, group: ReadGroup, cursor: ReadCursor | None) -> None:
        self.group = group
        self.cursor = cursor


class Serving:
    """Answers read groups; `step` goes on with what takes longer."""

    __slots__ = ("_queue", "_state_machine")

    def __init__(self, state_machine: StateMachine) -> None:
        self._state_machine = state_machine
        self._queue: deque[_Unfinished] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_busy(self) -> bool:
        """Somebody who takes answers waits for `step`."""
        return any(unfinished.group.origin.takes_answers for unfinished in self._queue)

    def serve(self, groups: Sequence[ReadGroup]) -> None:
        """Answer the groups now, or begin to."""
        for group in groups:
            self._serve_portion(_Unfinished(group, None), PORTION_STEPS_MAX)

    def step(self) -> None:
        """One portion for whoever waited longest among those who take it."""
        for _ in range(len(self._queue)):
            unfinished = self._queue.popleft()
            if unfinished.group.origin.takes_answers:
                self._serve_portion(unfinished, 1)
                return
            self._queue.append(unfinished)

    def refuse_all(self, error: RaftKVError) -> None:
        """The store is going away."""
        assert not error.may_have_happened, "a read never happens by accident"
        queue, self._queue = self._queue, deque()
        for unfinished in queue:
            unfinished.group.origin.on_refused(unfinished.group, error)

    def _serve_portion(self, unfinished: _Unfinished, steps: int) -> None:
        """Answer a group as far as a portion goes; what is left becomes a group of its own, at the end of the queue."""
        group = unfinished.group
        answers: list[Answer] = []
        size_bytes = 0
        if group.origin.takes_answers:
            read = self._state_machine.read
            access = self._state_machine.access
            is_guarded = access.is_on
            for command in group.commands:
                if size_bytes >= PORTION_BYTES or len(answers) >= PORTION_READS_MAX:
                    break
                try:
                    if is_guarded:  # also between the portions of a range: it ends with the permission
                        access.check(command, group.user, group.auth_revision)
                    if command[0] == GET:
                        answer = read(command)
                        if answer[2] is not None:
                            size_bytes += len(answer[2][5])
                    elif command[0] == LEASES:
                        answer = read(command)
                        size_bytes += 9 * len(answer[2])
                    elif command[0] in _WHOLE:
                        answer = read(command)
                    elif command[0] == READ_TXN:
                        answer = read(command)
                        size_bytes += _bytes_of(answer[3])
                    else:
                        while steps > 0 and not self._step_range(unfinished, command):
                            steps -= 1
                        if steps <= 0:
                            break
                        answer = self._take_answer(unfinished)
                        size_bytes += sum(len(key_value[5]) for key_value in answer[2])
                except RaftKVError as error:
                    unfinished.cursor = None
                    answer = failure(error)
                answers.append(answer)
        self._deliver(unfinished, answers)

    def _step_range(self, unfinished: _Unfinished, command: Command) -> bool:
        """True when the range is done."""
        if unfinished.cursor is None:
            unfinished.cursor = self._state_machine.range_cursor(command)
        return unfinished.cursor.step()

    @staticmethod
    def _take_answer(unfinished: _Unfinished) -> Answer:
        cursor, unfinished.cursor = unfinished.cursor, None
        assert cursor is not None, "a range that is done had begun"
        return cursor.answer()

    def _deliver(self, unfinished: _Unfinished, answers: list[Answer]) -> None:
        group = unfinished.group
        done = len(answers)
        if done == len(group.commands):
            group.origin.on_answers(group, answers)
            return
        if done:
            assert done < len(group.commands), "no more answers than commands"
            part, unfinished.group = group.part(0, done), group.part(done, None)
            part.origin.on_answers(part, answers)
        self._queue.append(unfinished)


def _bytes_of(responses: Sequence[Answer]) -> int:
    """Of the values in the responses of a READ_TXN: ranges, and transactions of such."""
    return sum(
        _bytes_of(response[3]) if response[0] == TXN else sum(len(key_value[5]) for key_value in response[2])
        for response in responses
    )
