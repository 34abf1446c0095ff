"""Who waits for which entry: from proposal to answer, each group ends exactly once.

An entry is known by index and term: when another term's entry turns up at the index, ours was lost with the leadership. A
group that was proposed and then given up may still be committed by the next leader, so its error says that it may have happened.
"""

from collections import OrderedDict, deque
from typing import Final, Sequence

from raftkv.errors import DeadlineExceeded, LeadershipLost, RaftKVError
from raftkv.replica.groups import WriteGroup
from raftkv.units import Index, Milliseconds, Term
from raftkv.wire.commands import Answer

ROUNDS_KEPT: Final = 8  # more than are in flight: a disk that stalls once makes all of those slow together


class Proposals:
    """Groups in the log that were not applied yet, by index."""

    __slots__ = ("_rounds", "_waiting", "failed_commands", "pending_bytes", "pending_commands", "round_ms")

    def __init__(self) -> None:
        self._waiting: OrderedDict[Index, tuple[Term, list[WriteGroup], Milliseconds]] = OrderedDict()
        self._rounds: deque[Milliseconds] = deque(maxlen=ROUNDS_KEPT)
        self.round_ms: Milliseconds = 0  # from a proposal to its answers: the quickest of late; 0: not known
        self.pending_bytes = 0
        self.pending_commands = 0
        self.failed_commands = 0  # given up after they were proposed

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, index: Index, term: Term, groups: list[WriteGroup], now_ms: Milliseconds) -> None:
        """The groups were proposed as the entry at `index`."""
        assert index not in self._waiting, "an index is proposed once per leadership"
        self._waiting[index] = (term, groups, now_ms)
        for group in groups:
            self.pending_bytes += group.size_bytes
            self.pending_commands += len(group.commands)

    def applied(self, index: Index, term: Term, answers: Sequence[Sequence[Answer]], now_ms: Milliseconds) -> None:
        """The entry at `index` was applied; its groups get their answers, if it is the one that was proposed."""
        waiting = self._waiting.pop(index, None)
        if waiting is None:
            return
        proposed_term, groups, proposed_ms = waiting
        self._release(groups)
        if proposed_term != term:
            self._refuse(groups, LeadershipLost())
            return
        assert len(answers) == len(groups), "apply answers every group of an entry"
        self._rounds.append(now_ms - proposed_ms)
        self.round_ms = min(self._rounds) if len(self._rounds) == ROUNDS_KEPT else 0
        for group, group_answers in zip(groups, answers, strict=True):
            group.origin.on_answers(group, group_answers)

    def fail_all(self, error: RaftKVError) -> None:
        """Leadership is gone: nobody here will learn what becomes of them."""
        assert error.may_have_happened, "a proposed write may always have happened"
        waiting, self._waiting = self._waiting, OrderedDict()
        self._rounds.clear()
        self.round_ms = 0
        for _, groups, _ in waiting.values():
            self._release(groups)
            self._refuse(groups, error)

    def expire(self, now_ms: Milliseconds) -> None:
        """Groups whose deadline has passed end now; the entry stays in the log and may still be applied."""
        for index, (term, groups, proposed_ms) in list(self._waiting.items()):
            late = [group for group in groups if group.deadline_ms <= now_ms]
            if not late:
                continue
            # The slot keeps its place so that answers stay aligned; a deaf origin takes the late one's answer.
            left = [_deafened(group) if group in late else group for group in groups]
            self._waiting[index] = (term, left, proposed_ms)
            self._refuse(late, DeadlineExceeded("the write was not committed in time", may_have_happened=True))

    def _refuse(self, groups: Sequence[WriteGroup], error: RaftKVError) -> None:
        for group in groups:
            self.failed_commands += len(group.commands)
            group.origin.on_refused(group, error)

    def _release(self, groups: list[WriteGroup]) -> None:
        for group in groups:
            self.pending_bytes -= group.size_bytes
            self.pending_commands -= len(group.commands)
        assert self.pending_bytes >= 0 and self.pending_commands >= 0, "released once"


class _Deaf:
    """An origin that has been answered already."""

    takes_answers = True

    def on_answers(self, group: object, answers: Sequence[Answer]) -> None:
        pass

    def on_refused(self, group: object, error: RaftKVError) -> None:
        pass


_DEAF = _Deaf()
_NEVER_MS = 1 << 62


def _deafened(group: WriteGroup) -> WriteGroup:
    """The same commands (and size, so that the accounting stays right) for nobody."""
    return WriteGroup(_DEAF, group.tags, group.commands, size_bytes=group.size_bytes, deadline_ms=_NEVER_MS)
