"""Linearizable reads on their way: collected into rounds, confirmed by ReadIndex, served once apply has caught up.

All reads that arrive while a round is under way share the next one (dissertation 6.4): at any load there is at most one
confirmation in flight, and its cost is divided by everybody who waited for it.
"""

import heapq
from typing import Callable, Sequence

from raftkv.errors import DeadlineExceeded, RaftKVError
from raftkv.replica.groups import ReadGroup
from raftkv.units import Index, Milliseconds


class PendingReads:
    """Reads by stage: new, in the round under way, confirmed but ahead of apply."""

    __slots__ = (
        "_confirmed",
        "_context",
        "_in_round",
        "_new",
        "_next_context",
        "_order",
        "_round_since_ms",
        "pending_commands",
        "rounds_failed",
        "rounds_slow",
    )

    def __init__(self, first_context: int = 1) -> None:
        # Contexts start at a random number: two lives of one member never use the same (etcd#20418).
        self._next_context = first_context
        self._context = 0
        self._new: list[ReadGroup] = []
        self._in_round: list[ReadGroup] = []
        self._confirmed: list[tuple[Index, int, list[ReadGroup]]] = []
        self._order = 0
        self._round_since_ms: Milliseconds = 0
        self.rounds_slow = 0  # asked for anew
        self.rounds_failed = 0
        self.pending_commands = 0

    def add(self, group: ReadGroup) -> None:
        """A new group, for the next round."""
        self._new.append(group)
        self.pending_commands += len(group.commands)

    @property
    def wants_round(self) -> bool:
        """Whether `start_round` would start one."""
        return bool(self._new) and not self._context

    def start_round(self, now_ms: Milliseconds) -> int:
        """The context to confirm next, or 0 when a round is under way or nobody waits."""
        if self._context or not self._new:
            return 0
        self._context = self._next_context
        self._next_context += 1
        self._round_since_ms = now_ms
        self._in_round, self._new = self._new, []
        return self._context

    def confirmed(self, context: int, index: Index) -> None:
        """The round is safe to be served once `index` is applied. An answer to an older context is ignored."""
        if context != self._context:
            return
        self._context = 0
        self._order += 1
        heapq.heappush(self._confirmed, (index, self._order, self._in_round))
        self._in_round = []

    def failed(self, context: int, error: RaftKVError) -> None:
        """The round will never be confirmed. Reads change nothing, so the asker may always try elsewhere."""
        assert not error.may_have_happened, "a read never happens by accident"
        if context != self._context:
            return
        self._context = 0
        self.rounds_failed += 1
        groups, self._in_round = self._in_round, []
        self._refuse(groups, error)

    def fail_unconfirmed(self, error: RaftKVError) -> None:
        """There is nobody to confirm anything: end what waits for a round."""
        self.rounds_failed += bool(self._context)
        self._context = 0
        groups, self._in_round, self._new = [*self._in_round, *self._new], [], []
        self._refuse(groups, error)

    def give_up_round(self, now_ms: Milliseconds, after_ms: Milliseconds) -> None:
        """A question or its answer was lost: its reads join the next round, under a context of their own."""
        if self._context and now_ms - self._round_since_ms >= after_ms:
            self._context = 0
            self.rounds_slow += 1
            self._new = self._in_round + self._new
            self._in_round = []

    def take_ready(self, applied_index: Index) -> list[ReadGroup]:
        """The groups that may be served now."""
        ready: list[ReadGroup] = []
        while self._confirmed and self._confirmed[0][0] <= applied_index:
            ready.extend(heapq.heappop(self._confirmed)[2])
        for group in ready:
            self.pending_commands -= len(group.commands)
        return ready

    def expire(self, now_ms: Milliseconds) -> None:
        """End the groups whose deadline has passed, wherever they are. A round keeps running for the others."""

        def alive(group: ReadGroup) -> bool:
            return group.deadline_ms > now_ms

        late: list[ReadGroup] = []
        self._new = _split(self._new, alive, late)
        self._in_round = _split(self._in_round, alive, late)
        for _, _, groups in self._confirmed:
            groups[:] = _split(groups, alive, late)
        if late:
            self._refuse(late, DeadlineExceeded("the read was not confirmed in time", may_have_happened=False))

    def _refuse(self, groups: Sequence[ReadGroup], error: RaftKVError) -> None:
        for group in groups:
            self.pending_commands -= len(group.commands)
            group.origin.on_refused(group, error)
        assert self.pending_commands >= 0, "refused once"


def _split(groups: list[ReadGroup], keep: Callable[[ReadGroup], bool], rest: list[ReadGroup]) -> list[ReadGroup]:
    """The groups to keep; the others go to `rest`. Almost always nothing is late, and then nothing is copied."""
    if all(map(keep, groups)):
        return groups
    rest.extend(group for group in groups if not keep(group))
    return [group for group in groups if keep(group)]
