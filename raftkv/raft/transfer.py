"""Leadership transfer (3.10): stop taking proposals, bring the target up to date, tell it to start an election at once.

The transfer is aborted when it takes longer than an election timeout; the leader then takes proposals again. A lease ends
before TimeoutNow leaves and stays ended for the term, because the message may arrive late.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raftkv.errors import TransferRefused
from raftkv.raft.messages import TimeoutNow
from raftkv.raft.progress import Progress
from raftkv.units import NodeId

if TYPE_CHECKING:
    from raftkv.raft.state import State


@dataclass(slots=True)
class Transfer:
    """A transfer that runs."""

    target: NodeId
    started_tick: int
    timeout_now_sent: bool = False


def start(state: "State", target: NodeId | None) -> None:
    """Hand leadership to `target`, or to the voter that is most caught up. To itself, and again to the same, is a no-op.

    Raises TransferRefused.
    """
    if not state.is_leader:
        raise TransferRefused("this member is not the leader")
    if target is None:
        target = _most_caught_up_voter(state)
    if target == state.node_id:
        return
    _check_target(state, target)
    if state.transfer is not None:
        return
    state.transfer = Transfer(target, state.ticks)
    on_acknowledged(state, state.progress[target])


def _check_target(state: "State", target: NodeId) -> None:
    if target not in state.progress:
        raise TransferRefused(f"member {target} is not part of the cluster")
    if target not in state.configuration.voters:
        raise TransferRefused(f"member {target} has no vote in the configuration, so it cannot lead")
    if state.transfer is not None and state.transfer.target != target:
        raise TransferRefused(f"a transfer to member {state.transfer.target} is running")


def _most_caught_up_voter(state: "State") -> NodeId:
    """The running transfer's target, or the voter that answers and has the most; ties go to the smaller id."""
    if state.transfer is not None:
        return state.transfer.target
    candidates = [progress for peer, progress in state.progress.items() if peer in state.configuration.voters]
    if not candidates:
        raise TransferRefused("there is no other voter")
    best = max(candidates, key=lambda progress: (state.is_active(progress), progress.match_index, -progress.node_id))
    return best.node_id


def on_acknowledged(state: "State", progress: Progress) -> None:
    """A follower moved: if it is the target and has everything, its election may begin."""
    transfer = state.transfer
    if transfer is None or transfer.timeout_now_sent or transfer.target != progress.node_id:
        return
    if progress.match_index < state.log.last_index:
        return
    transfer.timeout_now_sent = True
    state.reads.bar_lease(state.term)
    state.send(TimeoutNow(state.term, state.node_id, progress.node_id))


def tick(state: "State") -> None:
    """One tick of a leader: give up on a transfer that takes too long."""
    transfer = state.transfer
    if transfer is not None and state.ticks - transfer.started_tick >= state.config.election_timeout_ticks:
        state.transfer = None
        state.dirty = True
