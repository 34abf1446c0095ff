"""Where a client may go that this member cannot serve: hints for refusals and greetings."""

from typing import Any, Mapping

from raftkv.errors import NoQuorum, NotLeader, RaftKVError, ShuttingDown
from raftkv.raft.node import Raft
from raftkv.replica.upkeep import Directory
from raftkv.units import NOBODY, NodeId


class Signpost:
    """Knows the leader and the members, as this member does."""

    __slots__ = ("_directory", "_founders", "_raft")

    def __init__(self, raft: Raft, directory: Directory, founders: Mapping[NodeId, str]) -> None:
        """`founders`: names by id, for as long as the log has not told who is there."""
        self._raft = raft
        self._directory = directory
        self._founders = founders

    def leader(self) -> dict[str, Any] | None:
        """The leader as {id, name, address}; None while none is known."""
        leader = self._raft.leader
        if leader == NOBODY:
            return None
        for member in self.members():
            if member["id"] == leader:
                return member
        return {"id": leader, "name": self._founders.get(leader, ""), "address": ""}

    def members(self) -> list[dict[str, Any]]:
        """All members as {id, name, address}: where else a client may go."""
        return [{key: member[key] for key in ("id", "name", "address")} for member in self._directory.members()]

    def no_quorum(self) -> NoQuorum:
        """The refusal of a member that is cut off; surely nothing happened."""
        return NoQuorum(details={"members": self.members()})

    def shutting_down(self) -> ShuttingDown:
        """The refusal of a member that is about to end."""
        return ShuttingDown(details={"leader": self.leader(), "members": self.members()})

    def elsewhere(self) -> RaftKVError:
        """Why this member cannot lead or confirm, and where to go."""
        if self._raft.leader == NOBODY and not self._raft.quorum_contact:
            return self.no_quorum()
        return NotLeader(details={"leader": self.leader(), "members": self.members()})
