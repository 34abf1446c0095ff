"""Majorities, plain and joint (4.3): how far a quorum agrees, and who won a vote.

Pure arithmetic over sets of voters; learners never appear here because they never count (4.2.1). In a joint configuration
both majorities are needed, so every answer is the weaker of the two. tests/properties/test_quorum.py compares all of it with
a deliberately dumb twin. The idea of the interface is etcd-io/raft's quorum package.
"""

from typing import Collection, Final, Mapping

from raftkv.raft.messages import Configuration
from raftkv.units import NodeId

VOTE_PENDING: Final = "pending"
VOTE_WON: Final = "won"
VOTE_LOST: Final = "lost"

UNBOUNDED: Final = (1 << 63) - 1
"""What an empty set of voters agrees to: it never holds back the other half of a joint configuration."""


def majority_value(voters: Collection[NodeId], acked: Mapping[NodeId, int]) -> int:
    """The largest value that a majority of `voters` has reached; whoever is missing in `acked` counts as 0."""
    count = len(voters)
    if count == 0:
        return UNBOUNDED
    values = sorted([acked.get(voter, 0) for voter in voters])
    return values[(count - 1) // 2]


def joint_value(configuration: Configuration, acked: Mapping[NodeId, int]) -> int:
    """The largest value that a quorum of the configuration has reached: a log index, a read round or the end of a lease."""
    assert configuration.voters, "a configuration without voters decides nothing (4.3)"
    value = majority_value(configuration.voters, acked)
    if not configuration.voters_outgoing:
        return value
    return min(value, majority_value(configuration.voters_outgoing, acked))


def majority_vote(voters: Collection[NodeId], votes: Mapping[NodeId, bool]) -> str:
    """VOTE_WON, VOTE_LOST (it can no longer be won) or VOTE_PENDING among `voters`."""
    needed = len(voters) // 2 + 1 if voters else 0
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return VOTE_WON
    return VOTE_LOST if len(voters) - refused < needed else VOTE_PENDING


def joint_vote(configuration: Configuration, votes: Mapping[NodeId, bool]) -> str:
    """The result of an election: won only with both majorities, lost as soon as one of them is."""
    assert configuration.voters, "a configuration without voters elects nobody (4.3)"
    incoming = majority_vote(configuration.voters, votes)
    outgoing = majority_vote(configuration.voters_outgoing, votes)
    if VOTE_LOST in (incoming, outgoing):
        return VOTE_LOST
    return VOTE_WON if incoming == outgoing == VOTE_WON else VOTE_PENDING


def has_quorum(configuration: Configuration, present: Collection[NodeId]) -> bool:
    """Whether `present` includes a quorum. A member that knows no voters yet (it is about to join) never has one."""
    if not configuration.voters:
        return False
    return joint_vote(configuration, dict.fromkeys(present, True)) == VOTE_WON
