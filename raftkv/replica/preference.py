"""Leader priorities: a leader hands over to a voter that is preferred to it, once that one is surely able to lead.

The preference is a transfer by the leader and never a refused vote: whoever can be elected is elected, and only then is looked
for somebody better (so a preferred member that is down, slow or cut off costs nothing). The priorities are what the members
published through the log, so that no two members can each think the other one preferred. Pure; the owner looks twice a second.

Able to lead means: a voter that answers, and that for a while has had on its disk, at every look, all that the leader's log held
at the look before; which a member with a stalled disk has not. An attempt that failed, or whose office came back within a
minute, is followed by a pause that doubles each time.
"""

from typing import Final, Mapping

from raftkv.errors import TransferRefused
from raftkv.raft.node import Raft
from raftkv.raft.progress import REPLICATE
from raftkv.units import Index, Milliseconds, NodeId, Term

LED_MS: Final = 5_000  # a leader of less time has just been elected: the cluster has had unrest enough
CAUGHT_UP_MS: Final = 2_000
STAYED_MS: Final = 60_000  # an office that comes back sooner was not well given
PAUSE_MS_MIN: Final = 10_000
PAUSE_MS_MAX: Final = 600_000


class Preference:
    """Of one member. `look` starts a transfer when there is somebody better; what comes of it shows at a later look."""

    __slots__ = (
        "_attempted_ms",
        "_caught_up_since_ms",
        "_index_before",
        "_led_since_ms",
        "_not_before_ms",
        "_pause_ms",
        "_raft",
        "_term",
    )

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._term: Term = 0  # the office that is looked at; 0: none
        self._led_since_ms: Milliseconds = 0
        self._index_before: Index = 0  # the end of the log at the look before
        self._caught_up_since_ms: dict[NodeId, Milliseconds] = {}
        self._attempted_ms: Milliseconds | None = None
        self._not_before_ms: Milliseconds = 0
        self._pause_ms: Milliseconds = PAUSE_MS_MIN

    def look(self, now_ms: Milliseconds, priorities: Mapping[NodeId, int], *, is_well: bool) -> NodeId | None:
        """Who is just being handed the office; None: nobody. `is_well` False: this member gives it away for another reason."""
        raft = self._raft
        if not raft.is_leader:
            self._term = 0
            return None
        if raft.term != self._term:
            self._begin_office(now_ms)
        self._note_caught_up(now_ms)
        if raft.is_transferring:
            return None
        self._judge_attempt(now_ms)
        if not is_well or now_ms < self._not_before_ms or now_ms - self._led_since_ms < LED_MS:
            return None
        target = self._best(now_ms, priorities)
        if target is None:
            return None
        self._attempted_ms = now_ms
        try:
            raft.transfer_leadership(target)
        except TransferRefused:
            return None  # the next look finds the office still here
        return target

    def _begin_office(self, now_ms: Milliseconds) -> None:
        self._term = self._raft.term
        self._led_since_ms = now_ms
        self._index_before = self._raft.last_index
        self._caught_up_since_ms.clear()

    def _note_caught_up(self, now_ms: Milliseconds) -> None:
        raft, since_ms = self._raft, self._caught_up_since_ms
        for peer in raft.configuration.members() - {raft.node_id}:
            view = raft.progress(peer)
            if (
                view is not None
                and view.recently_active
                and view.state == REPLICATE
                and view.match_index >= self._index_before
            ):
                since_ms.setdefault(peer, now_ms)
            else:
                since_ms.pop(peer, None)
        self._index_before = raft.last_index

    def _judge_attempt(self, now_ms: Milliseconds) -> None:
        """This member leads: an earlier attempt either failed, or the office came back."""
        attempted_ms, self._attempted_ms = self._attempted_ms, None
        if attempted_ms is None:
            return
        if now_ms - attempted_ms >= STAYED_MS:
            self._pause_ms = PAUSE_MS_MIN
            return
        self._not_before_ms = now_ms + self._pause_ms
        self._pause_ms = min(2 * self._pause_ms, PAUSE_MS_MAX)

    def _best(self, now_ms: Milliseconds, priorities: Mapping[NodeId, int]) -> NodeId | None:
        """The voter of the highest priority above the own one that is able to lead; ties go to the smaller id."""
        raft = self._raft
        own = priorities.get(raft.node_id, 0)
        able = [
            peer
            for peer, since_ms in self._caught_up_since_ms.items()
            if now_ms - since_ms >= CAUGHT_UP_MS and peer in raft.configuration.voters and priorities.get(peer, 0) > own
        ]
        return max(able, key=lambda peer: (priorities.get(peer, 0), -peer), default=None)


__all__ = ["CAUGHT_UP_MS", "LED_MS", "PAUSE_MS_MAX", "PAUSE_MS_MIN", "STAYED_MS", "Preference"]
