"""A member that should not lead, and yet does, because its disk is full or does not come back: when it hands over, and to whom.

Once is not enough. The first choice may suffer from the same, and hand back; an attempt may fail; and a member that is ill
already may be elected. So a leader tries for as long as the reason stands, and passes by those that it has tried, until it has
tried everybody. Pure, because the simulator found both cases: it runs this file as the daemon does.
"""

from typing import Final

from raftkv.errors import TransferRefused
from raftkv.raft.node import Raft
from raftkv.units import Milliseconds, NodeId

RETRY_MS: Final = 5_000  # after an attempt that left the office here
FORGET_MS: Final = 30_000  # after everybody was tried: by then somebody may be well again


class Fitness:
    """Of one member. `look` starts a transfer when it is time; what comes of it shows at a later look."""

    __slots__ = ("_not_before_ms", "_raft", "_tried")

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._not_before_ms: Milliseconds = 0
        self._tried: set[NodeId] = set()

    def look(self, now_ms: Milliseconds, reason: str) -> bool:
        """Hand over if this member leads although there is a `reason` against it (empty: it is well). True: just begun.

        Raises TransferRefused when it was time and nobody could take the office.
        """
        raft = self._raft
        others = raft.configuration.voters - {raft.node_id}
        if not reason:
            self._not_before_ms = 0
            self._tried.clear()
            return False
        if not raft.is_leader:
            if not self._tried >= others:
                self._not_before_ms = 0  # it comes back from somebody who did not want it: on to the next
            return False
        if not others or raft.is_transferring or now_ms < self._not_before_ms:
            return False
        if self._tried >= others:
            self._tried.clear()
        self._not_before_ms = now_ms + RETRY_MS
        try:
            raft.transfer_leadership(avoid=self._tried)
        except TransferRefused:
            self._tried.clear()  # of those that answer, all were tried
            raise
        target = raft.transfer_target
        assert target is not None, "a transfer to the best of the others is one"
        self._tried.add(target)
        if self._tried >= others:
            self._not_before_ms = now_ms + FORGET_MS
        return True


__all__ = ["FORGET_MS", "RETRY_MS", "Fitness"]
