"""What an operator is told about members whose stores differ. The comparison itself is in replica/digests.py.

A member that a quorum speaks against stops by itself, so its leader only has to say so. While no quorum can say who is right,
two members of three for example, nobody stops: then this is all that anybody hears of it, and it stays in the status.
"""

import logging
from typing import Any, Callable, Mapping, Sequence

from raftkv.raft.node import Raft
from raftkv.replica.digests import Digests, Mismatch
from raftkv.replica.membership import with_names
from raftkv.units import NodeId

log = logging.getLogger("raftkv.agreement")


class Agreement:
    """Of one member. Only a leader hears what the others have."""

    def __init__(self, raft: Raft, digests: Digests, members: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        self._raft = raft
        self._digests = digests
        self._members = members
        self._told: set[NodeId] = set()

    def mismatches(self) -> dict[NodeId, Mismatch]:
        """The members whose stores differ from this leader's; empty on the others."""
        return self._digests.mismatches if self._raft.is_leader else {}

    def look(self) -> None:
        """Now and then: one line for each member that has begun to differ, or differs no more."""
        mismatches = self.mismatches()
        for node_id in mismatches.keys() - self._told:
            log.error("%s; a quorum decides which of them stops", self._words(node_id, mismatches[node_id]))
        if self._raft.is_leader:
            for node_id in self._told - mismatches.keys():
                log.warning(with_names(f"the store of member {node_id} is that of this member again", self._members()))
        self._told = set(mismatches)

    def errors(self) -> list[str]:
        """For the status."""
        return [f"diverged: {self._words(node_id, mismatch)}" for node_id, mismatch in self.mismatches().items()]

    def _words(self, node_id: NodeId, mismatch: Mismatch) -> str:
        message = (
            f"the store of member {node_id} differs: its digest at index {mismatch.index} is {mismatch.digest:08x},"
            f" that of this member is {mismatch.own:08x}"
        )
        return with_names(message, self._members())


__all__ = ["Agreement"]
