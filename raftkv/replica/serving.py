"""Read groups being answered from the store: point reads at once, ranges step by step, so that none of them holds the loop.

A group whose ranges are not done after a few steps goes to the back of a queue and gets one step per turn; others overtake
it. The answer is that of the revision at which the range began.
"""

from collections import deque
from typing import Any, Sequence

from raftkv.errors import RaftKVError
from raftkv.replica.groups import ReadGroup
from raftkv.replica.ports import ReadCursor, StateMachine
from raftkv.wire.commands import RANGE, Answer, failure

STEPS_AT_ONCE = 2  # a step is some milliseconds at most


class _Unfinished:
    """A group with the answers so far, and the range it is at."""

    __slots__ = ("answers", "cursor", "group")

    def __init__(self, group: ReadGroup) -> None:
        self.group = group
        self.answers: list[Answer] = []
        self.cursor: ReadCursor | None = None


class Serving:
    """Answers read groups; `step` goes on with what takes longer."""

    __slots__ = ("_queue", "_state_machine")

    def __init__(self, state_machine: StateMachine) -> None:
        self._state_machine = state_machine
        self._queue: deque[_Unfinished] = deque()

    @property
    def is_busy(self) -> bool:
        """Something waits for `step`."""
        return bool(self._queue)

    def serve(self, groups: Sequence[ReadGroup]) -> None:
        """Answer the groups now, or begin to."""
        for group in groups:
            unfinished = _Unfinished(group)
            if not self._advance(unfinished, STEPS_AT_ONCE):
                self._queue.append(unfinished)

    def step(self) -> None:
        """One step for whoever waited longest."""
        if self._queue:
            unfinished = self._queue.popleft()
            if not self._advance(unfinished, 1):
                self._queue.append(unfinished)

    def refuse_all(self, error: RaftKVError) -> None:
        """The store is going away."""
        assert not error.may_have_happened, "a read never happens by accident"
        queue, self._queue = self._queue, deque()
        for unfinished in queue:
            unfinished.group.origin.on_refused(unfinished.group, error)

    def _advance(self, unfinished: _Unfinished, steps: int) -> bool:
        """True when the group is answered."""
        commands, answers = unfinished.group.commands, unfinished.answers
        while len(answers) < len(commands):
            command = commands[len(answers)]
            try:
                if command[0] == RANGE:
                    steps, answer = self._advance_range(unfinished, command, steps)
                    if answer is None:
                        return False
                    answers.append(answer)
                else:
                    answers.append(self._state_machine.read(command))
            except RaftKVError as error:
                unfinished.cursor = None
                answers.append(failure(error))
        unfinished.group.origin.on_answers(unfinished.group, answers)
        return True

    def _advance_range(self, unfinished: _Unfinished, command: Sequence[Any], steps: int) -> tuple[int, Answer | None]:
        cursor = unfinished.cursor
        if cursor is None:
            cursor = unfinished.cursor = self._state_machine.range_cursor(command)
        while steps > 0:
            steps -= 1
            if cursor.step():
                unfinished.cursor = None
                return steps, cursor.answer()
        return steps, None
