"""A member that should not lead, because its disk is ill: it says so to whoever leads, and when it leads nevertheless, hands over.

Its disk is full, does not come back, or has no room for a snapshot. The last is no reason to refuse writes, but followers that need the
snapshot may be what a majority lacks, and then nothing is committed any more.

Once is not enough. The first choice may suffer from the same, and hand back; an attempt may fail; and a member that is ill
already may be elected. So a leader tries for as long as the reason stands, and passes by those that it has tried, until it has
tried everybody. Pure, because the simulator found all of these cases: it runs this file as the daemon does.
"""

from typing import Final

from raftkv.errors import TransferRefused
from raftkv.raft.node import Raft
from raftkv.units import Milliseconds, NodeId

RETRY_MS: Final = 5_000  # after an attempt that left the office here
SNAPSHOT_FAILURE_MS: Final = 10_000  # a leader whose follower still needs the snapshot fails again long before
FORGET_MS: Final = 30_000  # after everybody was tried: by then somebody may be well again


class Fitness:
    """Of one member. `look` starts a transfer when it is time; what comes of it shows at a later look."""

    __slots__ = ("_no_snapshots_until_ms", "_not_before_ms", "_raft", "_tried")

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._not_before_ms: Milliseconds = 0
        self._no_snapshots_until_ms: Milliseconds = 0
        self._tried: set[NodeId] = set()

    def on_snapshot_failed(self, now_ms: Milliseconds) -> None:
        """The snapshot that some follower needs could not be made here."""
        self._no_snapshots_until_ms = now_ms + SNAPSHOT_FAILURE_MS

    def reason(self, now_ms: Milliseconds, *, is_full: bool, is_stalled: bool) -> str:
        """What speaks against this member's lead, for `look` and for whoever reads it; empty when it is well."""
        if is_full:
            return "its disk is full"
        if is_stalled:
            return "its disk is stalled"
        return "it cannot make the snapshot that a follower needs" if now_ms < self._no_snapshots_until_ms else ""

    def look(self, now_ms: Milliseconds, reason: str) -> bool:
        """Hand over if this member leads although there is a `reason` against it (empty: it is well). True: just begun.

        Raises TransferRefused when it was time and nobody could take the office.
        """
        raft = self._raft
        raft.report_unfit(bool(reason))
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


__all__ = ["FORGET_MS", "RETRY_MS", "SNAPSHOT_FAILURE_MS", "Fitness"]
