"""Snapshots (chapter 5): log compaction, and bringing a follower up to date whose next entry is gone.

The core never sees the state itself. The leader asks its driver for a snapshot (`need_snapshot`), is offered one, and then
asks for chunks of it to be sent, a few in flight per follower and no more per tick than the configured budget, which the
followers share; the follower's driver stores them and reports how far it is.
A transfer outlives a broken connection: of a follower that falls silent it is remembered for a while, and goes on where it was.
Compaction stops at a snapshot that is in use, and behind a follower that has one and is still catching up: else it would need
the next snapshot before it has read what follows the last. Not without bound: a log that grows over `log_held_bytes_max` is
compacted all the same, and the transfers begin anew with a newer snapshot.
"""

from typing import TYPE_CHECKING, Final

from raftkv.raft import membership
from raftkv.raft.effects import SendSnapshotChunk
from raftkv.raft.messages import InstallSnapshot, InstallSnapshotResponse, SnapshotMeta
from raftkv.raft.progress import SNAPSHOT, Progress, SnapshotTransfer
from raftkv.units import NOBODY, Index

if TYPE_CHECKING:
    from raftkv.raft.state import State

REFUSALS_MAX: Final = 2
REWINDS_PER_TICK_MAX: Final = 4

# The leader's side.


def compact(state: "State", index: Index) -> None:
    """Drop the log up to `index`, as far as it is durable, given out and not needed behind a snapshot (5.1)."""
    index = min(index, state.handed_index, state.log.durable_index)
    needed_after = _needed_after(state)
    if index > needed_after:
        if state.log.held_bytes <= state.limits.log_held_bytes_max:
            index = needed_after
        else:
            withdraw(state)  # its receivers would not find the entries behind it
            for progress in state.progress.values():
                progress.catch_up_index = 0
    if index > state.log.start_index:
        state.log.compact(index)
        state.history.compact(index)
        state.dirty = True  # a follower may need a snapshot now
    assert state.log.start_index <= state.handed_index, "only what was given out is compacted (5.1)"


def _needed_after(state: "State") -> Index:
    """The entries after this index will be needed by those who get, or just got, a snapshot; the last index if nobody does."""
    after = state.log.last_index
    if state.offered_snapshot is not None and is_in_use(state):
        after = state.offered_snapshot.index
    for progress in state.progress.values():
        if progress.catch_up_index:
            after = min(after, progress.match_index)
    return after


def is_in_use(state: "State") -> bool:
    """Whether some follower is being sent the offered snapshot, or was when it fell silent."""
    return any(
        progress.transfer is not None or progress.paused_transfer is not None for progress in state.progress.values()
    )


def offer(state: "State", meta: SnapshotMeta) -> None:
    """The driver holds this snapshot ready; transfers of an older one start over with it."""
    state.offered_snapshot = meta
    state.snapshot_wanted = False
    state.dirty = True
    for progress in state.progress.values():
        progress.transfer = progress.paused_transfer = None
        if progress.state == SNAPSHOT:
            _start_transfer(state, progress)


def withdraw(state: "State") -> None:
    """The driver has no snapshot (any more, or could not make one); what still needs one asks again at the next tick."""
    state.offered_snapshot = None
    state.snapshot_wanted = False
    for progress in state.progress.values():
        progress.transfer = progress.paused_transfer = None


def begin(state: "State", progress: Progress) -> None:
    """A follower needs an entry that is compacted."""
    assert progress.next_index <= state.log.start_index, "what is in the log is sent from the log (chapter 5)"
    if state.is_active(progress):
        progress.become_snapshot()
        _start_transfer(state, progress)


def _start_transfer(state: "State", progress: Progress) -> None:
    """Send the offered snapshot, from where an interrupted transfer of it was; without a usable one, ask for it."""
    meta = state.offered_snapshot
    if meta is None or meta.index < state.log.start_index:
        _want_snapshot(state)
        return
    transfer, progress.paused_transfer = progress.paused_transfer, None
    if transfer is None:
        transfer = SnapshotTransfer(meta)
    assert transfer.snapshot.snapshot_id == meta.snapshot_id, "a transfer ends with the offer of its snapshot"
    transfer.rewinds = 0
    progress.transfer = transfer
    _rewind(state, progress, transfer)


def _want_snapshot(state: "State") -> None:
    if not state.snapshot_wanted:
        state.snapshot_wanted = True
        state.effects.need_snapshot = True
        state.dirty = True


def _request_chunks(state: "State", progress: Progress, transfer: SnapshotTransfer) -> None:
    """Fill the window, as far as the budget goes. An empty snapshot still takes one chunk, so that its end is seen."""
    chunk_bytes = state.limits.snapshot_chunk_bytes
    is_bounded = state.config.snapshot_bytes_per_tick > 0
    end = min(
        max(transfer.snapshot.size_bytes, 1),
        transfer.acked_offset + chunk_bytes * state.limits.snapshot_chunks_in_flight_max,
    )
    while transfer.requested_offset < end and not (is_bounded and state.snapshot_budget_bytes <= 0):
        state.effects.snapshot_chunks.append(
            SendSnapshotChunk(progress.node_id, transfer.snapshot, transfer.requested_offset, chunk_bytes, state.term)
        )
        transfer.requested_offset += chunk_bytes
        transfer.active_tick = state.ticks
        state.snapshot_budget_bytes -= chunk_bytes if is_bounded else 0
        state.dirty = True


def _rewind(state: "State", progress: Progress, transfer: SnapshotTransfer) -> None:
    """Ask again for what is not acknowledged; for the last chunk if all is, because only `installed` ends the transfer."""
    last_chunk_offset = max(0, transfer.snapshot.size_bytes - 1)
    transfer.requested_offset = min(transfer.acked_offset, last_chunk_offset)
    transfer.active_tick = state.ticks
    _request_chunks(state, progress, transfer)


def on_install_snapshot_response(state: "State", message: InstallSnapshotResponse) -> None:
    """A follower stored a chunk, or has installed the snapshot."""
    progress = state.progress.get(message.source)
    if progress is None:
        return
    progress.answered_tick = state.ticks
    state.dirty = True
    transfer = progress.transfer
    if transfer is None or message.snapshot_id != transfer.snapshot.snapshot_id:
        return
    if message.installed:
        assert transfer.snapshot.index <= state.commit_index, "a snapshot holds committed state only (5.1)"
        progress.acknowledge(transfer.snapshot.index)
        if state.log.last_index > progress.match_index:
            progress.catch_up_index = state.log.last_index
        progress.become_replicate()
        progress.nudge = True
        return
    if message.next_offset < transfer.acked_offset and transfer.rewinds < REWINDS_PER_TICK_MAX:
        # The follower started over; or this is an answer of long ago, which asks for a window too much.
        if message.next_offset == 0 and transfer.acked_offset >= transfer.snapshot.size_bytes:
            _on_refused(state, transfer)
        transfer.requested_offset = message.next_offset
        transfer.rewinds += 1
    elif message.next_offset <= transfer.acked_offset:
        return
    transfer.active_tick = state.ticks
    transfer.acked_offset = message.next_offset
    transfer.requested_offset = max(transfer.requested_offset, transfer.acked_offset)
    _request_chunks(state, progress, transfer)


def _on_refused(state: "State", transfer: SnapshotTransfer) -> None:
    """Damaged once may be the way; twice, and the snapshot itself is suspected: the next one is made anew."""
    transfer.refusals += 1
    if transfer.refusals >= REFUSALS_MAX:
        _want_snapshot(state)


def tick(state: "State") -> None:
    """One tick of a leader: followers that are gone, transfers that stand still, and the budget of this tick."""
    sending: list[tuple[Progress, SnapshotTransfer]] = []
    for progress in state.progress.values():
        if progress.paused_transfer is not None:
            _forget_if_old(state, progress, progress.paused_transfer)
        if progress.catch_up_index and state.ticks - progress.answered_tick >= _resume_ticks(state):
            progress.catch_up_index = 0  # nobody waits for ever for one that is gone
        if progress.state != SNAPSHOT:
            continue
        transfer = progress.transfer
        if not state.is_active(progress):
            progress.become_probe(progress.match_index + 1)
            if transfer is not None and transfer.acked_offset > 0:  # else there is nothing to go on with
                progress.paused_transfer = transfer
            state.dirty = True
        elif transfer is None:
            _start_transfer(state, progress)
        else:
            transfer.rewinds = 0
            sending.append((progress, transfer))
    _refill_budget(state)
    # Who was served least recently is first: a budget that does not reach for all goes round.
    for progress, transfer in sorted(sending, key=lambda pair: pair[1].active_tick):
        if state.ticks - transfer.active_tick >= state.config.election_timeout_ticks:
            _rewind(state, progress, transfer)
        elif state.config.snapshot_bytes_per_tick:
            _request_chunks(state, progress, transfer)


def _refill_budget(state: "State") -> None:
    """A budget is not saved up: a burst after a quiet time is what it is there to prevent."""
    per_tick = state.config.snapshot_bytes_per_tick
    state.snapshot_budget_bytes = min(state.snapshot_budget_bytes + per_tick, per_tick)


def _forget_if_old(state: "State", progress: Progress, transfer: SnapshotTransfer) -> None:
    if state.ticks - transfer.active_tick >= _resume_ticks(state):
        progress.paused_transfer = None


def _resume_ticks(state: "State") -> int:
    """For so long a silent follower may come back to what was kept for it."""
    return state.limits.snapshot_resume_ms_max // state.config.tick_ms


# The follower's side.


def on_install_snapshot(state: "State", message: InstallSnapshot) -> None:
    """A chunk: pass it to the driver, unless its state is already known here."""
    state.follow(message.source)
    meta = message.snapshot
    if meta.index > state.commit_index and not state.log.matches(meta.index, meta.term):
        state.effects.received_chunks.append(message)
        state.dirty = True
        return
    # A log that holds the snapshot's last entry holds everything that it covers (3.5, Log Matching), and that is committed.
    state.commit_to(meta.index)
    state.answer(_installed(state, message.source, meta), meta.index)


def on_chunk_stored(state: "State", message: InstallSnapshot, next_offset: int) -> None:
    """The driver stored a chunk, or dropped one that does not fit: tell the leader what comes next."""
    if state.leader == message.source and not state.is_leader:
        state.answer(
            InstallSnapshotResponse(
                state.term, state.node_id, message.source, message.snapshot.snapshot_id, next_offset
            )
        )


def on_installed(state: "State", meta: SnapshotMeta, ok: bool) -> None:
    """The state machine holds the snapshot durably, or could not take it (then the transfer starts over)."""
    if ok and meta.index > state.commit_index:
        _restore(state, meta)
    if state.leader == NOBODY or state.is_leader:
        return
    if not ok:
        state.answer(InstallSnapshotResponse(state.term, state.node_id, state.leader, meta.snapshot_id, 0))
    else:
        state.answer(_installed(state, state.leader, meta), meta.index)


def _restore(state: "State", meta: SnapshotMeta) -> None:
    """Put the snapshot in the place of the log up to its index (5.3)."""
    suffix_kept = state.log.matches(meta.index, meta.term)
    assert suffix_kept or not state.is_leader, "a leader's log holds every committed entry (3.6.3)"
    state.log.restore(meta.index, meta.term)
    state.history.restore(meta.index, meta.configuration, suffix_kept=suffix_kept)
    state.commit_index = state.handed_index = meta.index
    state.effects.restored = meta
    state.dirty = True
    membership.adopt_latest(state)


def _installed(state: "State", leader: int, meta: SnapshotMeta) -> InstallSnapshotResponse:
    return InstallSnapshotResponse(state.term, state.node_id, leader, meta.snapshot_id, meta.size_bytes, installed=True)
