"""Requests for another membership (chapter 4): which configuration comes next, and what speaks against it.

A change that touches at most one vote goes in one step, because majorities before and after it overlap (4.2); any other goes
through a joint configuration (4.3), which the leader leaves by itself. Refusals come before anything is appended: a vote for a
member that lags, or whose disk is ill, would stop commitment (4.2.1), and so would a quorum of members that do not answer. The
leader may be removed: it steps down once that is committed (4.2.2); whoever wants no election then, hands over first.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterable

from raftkv.errors import (
    LearnerNotReady,
    MemberNotFound,
    MembershipBusy,
    MembershipRefused,
    NotALearner,
    NotLeader,
    QuorumWouldBeLost,
)
from raftkv.raft.messages import Configuration
from raftkv.raft.progress import PROBE, SNAPSHOT
from raftkv.raft.quorum import has_quorum
from raftkv.units import NodeId

if TYPE_CHECKING:
    from raftkv.raft.state import State

_NONE: frozenset[NodeId] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """What shall be different, all in one change. A member appears at most once."""

    learn: frozenset[NodeId] = _NONE  # new members, without a vote
    promote: frozenset[NodeId] = _NONE  # learners that get one
    demote: frozenset[NodeId] = _NONE  # voters that become learners
    remove: frozenset[NodeId] = _NONE

    def named(self) -> list[NodeId]:
        return [*self.learn, *self.promote, *self.demote, *self.remove]


def next_configuration(now: Configuration, change: Change) -> Configuration:
    """What follows on a configuration that is not joint. Raises MembershipRefused for a change that makes no sense on it."""
    assert not now.voters_outgoing, "a joint configuration is left before the next change (4.3)"
    _check_sense(now, change)
    voters = (now.voters | change.promote) - change.demote - change.remove
    learners = (now.learners | change.learn) - change.promote - change.remove
    if not voters:
        raise QuorumWouldBeLost("nobody would have a vote any more")
    if len(voters ^ now.voters) <= 1:
        return Configuration(voters, learners=learners | change.demote)
    # A demoted voter counts in the outgoing half until that is left, and nobody is voter and learner at once.
    return Configuration(voters, now.voters, learners, change.demote, auto_leave=True)


def _check_sense(now: Configuration, change: Change) -> None:
    named = change.named()
    if not named:
        raise MembershipRefused("the change names no member")
    if len(named) != len(set(named)):
        raise MembershipRefused("the change names a member twice")
    members = now.members()
    for node_id in sorted(change.learn & members):
        raise MembershipRefused(f"member {node_id} is part of the cluster already")
    for node_id in sorted((change.promote | change.demote | change.remove) - members):
        raise MemberNotFound(f"member {node_id} is not part of the cluster")
    for node_id in sorted(change.promote & now.voters):
        raise NotALearner(f"member {node_id} has a vote already")
    for node_id in sorted(change.demote - now.voters):
        raise MembershipRefused(f"member {node_id} has no vote that it could lose")


def check(state: "State", change: Change, *, force: bool) -> Configuration:
    """The configuration that this leader may append for the change. `force`: even if it has no quorum of answering members.

    Raises NotLeader, also during a transfer, MembershipBusy, and MembershipRefused.
    """
    if not state.is_leader:
        raise NotLeader
    if state.transfer is not None:
        raise NotLeader(f"leadership is being transferred to member {state.transfer.target}")
    if state.history.latest_index > state.commit_index or state.configuration.voters_outgoing:
        raise MembershipBusy("another membership change is not finished")
    if not state.committed_in_term:
        raise MembershipBusy("this leader has not committed anything yet: try again in a moment")
    following = next_configuration(state.configuration, change)
    for node_id in sorted(change.promote):
        _check_caught_up(state, node_id)
    if not force:
        _check_quorum(state, following)
    return following


def _check_caught_up(state: "State", node_id: NodeId) -> None:
    progress = state.progress[node_id]
    if not state.is_active(progress):
        silent_ms = (state.ticks - progress.answered_tick) * state.config.tick_ms
        raise LearnerNotReady(f"member {node_id} cannot get a vote: it has not answered for {silent_ms} ms")
    if progress.unfit:
        raise LearnerNotReady(f"member {node_id} cannot get a vote: its disk is full or stalled")
    if progress.state == SNAPSHOT:
        raise LearnerNotReady(f"member {node_id} cannot get a vote yet: it is being sent a snapshot")
    lag, lag_max = state.log.last_index - progress.match_index, state.limits.promotion_lag_entries_max
    if lag > lag_max or progress.match_index == 0:
        raise LearnerNotReady(
            f"member {node_id} cannot get a vote yet: it is {lag} entries behind ({progress.match_index} of"
            f" {state.log.last_index}), at most {lag_max} may be left"
        )


def _check_quorum(state: "State", following: Configuration) -> None:
    """Members that answer must be able to commit under the new configuration, and what leads to it.

    One that is being probed does not count: its connection broke, perhaps a moment ago, and the timeout has not noticed yet. Of one
    that had no time yet to answer this office nothing is known, so that nobody is told that it would not.
    """
    active = {peer: follower for peer, follower in state.progress.items() if state.is_active(follower)}
    present = {state.node_id} | {peer for peer, follower in active.items() if follower.state != PROBE}
    if has_quorum(following, present):
        return
    votes = following.voters | following.voters_outgoing
    unknown = {peer for peer, follower in active.items() if follower.is_unknown()}
    if has_quorum(following, present | unknown):
        raise MembershipBusy(f"this leader has not heard of {_listed(votes & unknown)} yet: try again in a moment")
    silent = _listed(votes - present)
    raise QuorumWouldBeLost(f"the cluster would lose its quorum: of {len(votes)} voters {silent} would not answer")


def _listed(node_ids: Iterable[NodeId]) -> str:
    return ", ".join(f"member {node_id}" for node_id in sorted(node_ids))


__all__ = ["Change", "check", "next_configuration"]
