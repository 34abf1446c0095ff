"""Leadership transfer (3.10): stop taking proposals, bring the target up to date, tell it to start an election at once.

While it runs nothing is proposed, so a target that would keep the cluster waiting is refused before anything has changed: one
that cannot lead, does not answer, or is far behind. The transfer is aborted when it takes longer than an election timeout; the
leader then takes proposals again. A lease ends before TimeoutNow leaves and stays ended for the term, because the message may
arrive late.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Collection

from raftkv.errors import TransferRefused
from raftkv.raft.messages import TimeoutNow
from raftkv.raft.progress import SNAPSHOT, Progress
from raftkv.units import NodeId

if TYPE_CHECKING:
    from raftkv.raft.state import State


@dataclass(slots=True)
class Transfer:
    """A transfer that runs."""

    target: NodeId
    started_tick: int
    timeout_now_sent: bool = False


def start(state: "State", target: NodeId | None, avoid: Collection[NodeId] = ()) -> None:
    """Hand leadership to `target`, or to the voter outside of `avoid` that is most caught up. To itself, and again to the
    same, is a no-op.

    Raises TransferRefused; nothing has changed then.
    """
    if not state.is_leader:
        raise TransferRefused("this member is not the leader")
    if target is None:
        target = _most_caught_up_voter(state, avoid)
    if target == state.node_id:
        return
    _check_target(state, target)
    if state.transfer is not None:
        return
    state.transfer = Transfer(target, state.ticks)
    on_acknowledged(state, state.progress[target])


def _check_target(state: "State", target: NodeId) -> None:
    progress = state.progress.get(target)
    if progress is None:
        raise TransferRefused(f"member {target} is not part of the cluster")
    if target not in state.configuration.voters:
        raise TransferRefused(f"member {target} has no vote in the configuration, so it cannot lead")
    if state.transfer is not None:
        if state.transfer.target == target:
            return
        raise TransferRefused(f"a transfer to member {state.transfer.target} is running")
    if not state.is_active(progress):
        silent_ms = (state.ticks - progress.answered_tick) * state.config.tick_ms
        raise TransferRefused(f"member {target} has not answered for {silent_ms} ms")
    _check_lag(state, progress)


def _check_lag(state: "State", progress: Progress) -> None:
    """A target that is far behind would keep all writes waiting for the whole transfer, in vain."""
    if progress.state == SNAPSHOT:
        raise TransferRefused(f"member {progress.node_id} is so far behind that it is being sent a snapshot")
    if progress.is_unknown():
        return
    lag = state.log.last_index - progress.match_index
    if lag > state.limits.transfer_lag_entries_max:
        raise TransferRefused(
            f"member {progress.node_id} is {lag} entries behind, at most {state.limits.transfer_lag_entries_max} may be left:"
            " try again when it has caught up"
        )


def _most_caught_up_voter(state: "State", avoid: Collection[NodeId]) -> NodeId:
    """The running transfer's target, or the voter that answers and has the most; ties go to the smaller id.

    Rather one whose disk is well, if it does not lag.
    """
    if state.transfer is not None:
        return state.transfer.target
    others = [progress for peer, progress in state.progress.items() if peer in state.configuration.voters]
    if not others:
        raise TransferRefused("there is no other voter")
    candidates = [progress for progress in others if state.is_active(progress)]
    if not candidates:
        raise TransferRefused("no other voter answers")
    candidates = [progress for progress in candidates if progress.node_id not in avoid]
    if not candidates:
        raise TransferRefused("of the voters that answer, every one was tried")
    enough = state.log.last_index - state.limits.transfer_lag_entries_max
    well = [progress for progress in candidates if not progress.unfit and progress.match_index >= enough]
    return max(well or candidates, key=lambda progress: (progress.match_index, -progress.node_id)).node_id


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
