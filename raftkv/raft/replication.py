"""Log replication: appending, the consistency check, flow control (3.5), and what counts as committed (3.6.2).

A leader collects: proposals and answers only change the log and the progress, and `flush` turns what has come together in
a batch into one AppendEntries per follower. It sends ahead within a window (10.2.1). A lost message shows itself as a
rejection, or as silence while something is open; then the place where the logs agree is probed again.
"""

from raftkv.raft import membership, reads, snapshot, transfer
from raftkv.raft.effects import DigestHeard
from raftkv.raft.messages import (
    ENTRY_CONFIGURATION,
    AppendEntries,
    AppendEntriesResponse,
    Entry,
    Heartbeat,
    HeartbeatResponse,
)
from raftkv.raft.progress import PROBE, REPLICATE, SNAPSHOT, Progress
from raftkv.raft.quorum import joint_value
from raftkv.raft.state import NO_DIGEST, State
from raftkv.units import NOBODY, Index, NodeId

# The leader's side.


def append(state: State, kind: int, data: bytes) -> Entry:
    """Append an entry of the own term; a leader never changes what its log already holds (3.6, Leader Append-Only)."""
    assert state.is_leader, "only a leader appends on its own (3.5)"
    entry = Entry(state.log.last_index + 1, state.term, kind, data)
    state.log.append((entry,))
    if kind == ENTRY_CONFIGURATION:
        membership.on_appended(state, (entry,))
    state.dirty = True
    return entry


def flush(state: State) -> None:
    """Send what has come together: one AppendEntries per follower and batch, more only when it exceeds a message's size."""
    assert state.is_leader, "only a leader sends entries (3.5)"
    last_index = state.log.last_index
    for progress in state.progress.values():
        if progress.next_index <= last_index or progress.nudge:
            _send_appends(state, progress)


def _send_appends(state: State, progress: Progress) -> None:
    nudge, progress.nudge = progress.nudge, False
    if progress.state == SNAPSHOT:
        return
    log = state.log
    if progress.next_index <= log.start_index:
        snapshot.begin(state, progress)
        return
    if progress.state == PROBE:
        if progress.probe_tick is None:
            _send_probe(state, progress)
        return
    while progress.next_index <= log.last_index:
        budget_bytes = progress.inflight.budget_bytes(state.limits)
        if budget_bytes == 0:
            break
        entries, size_bytes = log.slice(
            progress.next_index, log.last_index, budget_bytes, at_least_one=not progress.inflight
        )
        if not entries:
            break
        if not progress.inflight:
            progress.moved_tick = state.ticks
        _send_append(state, progress, entries)
        progress.next_index = entries[-1].index + 1
        progress.inflight.add(entries[-1].index, size_bytes)
        nudge = False
    if nudge:
        _send_append(state, progress, [])


def _send_probe(state: State, progress: Progress) -> None:
    """One message until it is answered. A follower that is silent is not sent its entries over and over."""
    log = state.log
    entries: list[Entry] = []
    if progress.next_index <= log.last_index and state.is_active(progress):
        entries, _ = log.slice(progress.next_index, log.last_index, state.limits.append_message_bytes_max)
    _send_append(state, progress, entries)
    progress.probe_tick = state.ticks


def _send_append(state: State, progress: Progress, entries: list[Entry]) -> None:
    previous_index = progress.next_index - 1
    assert progress.match_index <= previous_index, "what is known to agree is not sent again (3.5)"
    state.send(
        AppendEntries(
            state.term,
            state.node_id,
            progress.node_id,
            previous_index,
            state.log.term_of(previous_index),
            state.commit_index,
            entries,
        )
    )
    progress.commit_sent = state.commit_index


def tick(state: State) -> None:
    """One tick of a leader: probes that went unanswered, and commit indexes that nothing else has carried yet."""
    heartbeat_ticks = state.config.heartbeat_ticks
    commit_index = state.commit_index
    for progress in state.progress.values():
        if progress.probe_tick is not None and state.ticks - progress.probe_tick >= heartbeat_ticks:
            progress.probe_tick = None
            progress.nudge = True
        if progress.state == REPLICATE and progress.commit_sent < commit_index:
            progress.nudge = True
        if progress.nudge:
            state.dirty = True


def on_append_entries_response(state: State, message: AppendEntriesResponse) -> None:
    """A follower accepted or refused entries."""
    progress = state.progress.get(message.source)
    if progress is None:
        return
    progress.answered_tick = state.ticks
    if message.rejected:
        _on_rejected(state, progress, message)
        return
    assert message.match_index <= state.log.last_index, "a follower accepts only what its leader sent (3.5)"
    if progress.acknowledge(message.match_index):
        progress.moved_tick = state.ticks
        if progress.state == PROBE or (progress.state == SNAPSHOT and progress.match_index >= state.log.start_index):
            progress.become_replicate()
        if progress.match_index > state.commit_index:
            maybe_commit(state)
        transfer.on_acknowledged(state, progress)
    elif progress.state == PROBE and message.match_index == progress.match_index:
        progress.become_replicate()
    if progress.next_index <= state.log.last_index:
        state.dirty = True


def _on_rejected(state: State, progress: Progress, message: AppendEntriesResponse) -> None:
    """Go back to where the logs can still agree: at most one round trip per term of either log (3.5)."""
    if progress.is_stale_rejection(message.match_index):
        return
    hint_index = state.log.last_index_not_after(message.hint_index, message.hint_term)
    next_index = min(message.match_index, hint_index + 1)
    progress.become_probe(max(next_index, progress.match_index + 1))
    state.dirty = True


def maybe_commit(state: State) -> None:
    """Move the commit index to what a quorum holds durably."""
    acked = {peer: progress.match_index for peer, progress in state.progress.items()}
    acked[state.node_id] = state.log.durable_index
    index = joint_value(state.configuration, acked)
    # Only entries of the own term commit by counting replicas; older ones commit with them (3.6.2, figure 3.7).
    if index <= state.commit_index or state.log.term_of(index) != state.term:
        return
    state.commit_to(index)
    state.committed_in_term = True
    _on_committed(state)


def _on_committed(state: State) -> None:
    """What a leader does when a configuration is committed: leave a joint one, and its office if it is no voter (4.2.2, 4.3)."""
    configuration = state.configuration
    if state.history.latest_index > state.commit_index:
        return
    if configuration.voters_outgoing:
        leave_joint(state)
    elif not state.is_voter(state.node_id):
        for progress in state.progress.values():
            progress.nudge = True
        flush(state)  # the others learn of the commit before the office is empty
        state.become_follower(state.term, NOBODY)


def leave_joint(state: State) -> None:
    """Append what follows on a joint configuration, once that is committed (4.3); nothing is appended during a transfer (3.10)."""
    configuration = state.configuration
    assert configuration.voters_outgoing, "only a joint configuration is left (4.3)"
    if configuration.auto_leave and state.transfer is None and state.history.latest_index <= state.commit_index:
        left = membership.leave_joint(configuration)
        append(state, ENTRY_CONFIGURATION, membership.encode_configuration(left))


def on_heartbeat_response(state: State, message: HeartbeatResponse) -> None:
    """A follower is alive and follows: it confirms a read round, and shows whether appends got lost."""
    progress = state.progress.get(message.source)
    if progress is None:
        return
    progress.answered_tick = state.ticks
    progress.unfit = message.unfit
    reads.on_round_answered(state, progress, message)
    if message.digest_index:
        state.effects.digests.append(DigestHeard(message.source, message.digest_index, message.digest, agreed=False))
        state.dirty = True
    if progress.state != REPLICATE:
        state.dirty = True  # it may have been thought dead, and so have been sent nothing
        return
    if progress.match_index >= state.log.last_index:
        return
    # It answers, and yet nothing moved for a heartbeat interval: an append without entries finds out what is missing.
    if state.ticks - progress.moved_tick >= state.config.heartbeat_ticks:
        progress.moved_tick = state.ticks
        progress.nudge = state.dirty = True


def on_peer_unreachable(state: State, peer: NodeId) -> None:
    """The link to a follower broke: what was sent ahead is probably lost."""
    progress = state.progress.get(peer)
    if progress is not None and progress.state == REPLICATE:
        progress.become_probe(progress.match_index + 1)
        state.dirty = True


# The follower's side.


def on_append_entries(state: State, message: AppendEntries) -> None:
    """Check, replace what conflicts, append, and acknowledge once it is durable (figure 3.1, 3.5)."""
    state.follow(message.source)
    log = state.log
    previous_index, entries = message.previous_index, message.entries
    if previous_index < state.commit_index:
        # Committed entries agree in all logs (3.6.3): only what comes after them can be new.
        entries = entries[state.commit_index - previous_index :]
        previous_index = state.commit_index
    elif not log.matches(previous_index, message.previous_term):
        _reject(state, message)
        return
    last_new_index = previous_index + len(entries)
    _take_over(state, entries)
    state.commit_to(min(message.commit_index, last_new_index))
    _acknowledge(state, message.source, last_new_index)


def _take_over(state: State, entries: list[Entry]) -> None:
    """Append what is new; entries that are there already stay, so that an old message never shortens the log (3.5)."""
    log = state.log
    position = 0
    while position < len(entries) and log.matches(entries[position].index, entries[position].term):
        position += 1
    fresh = entries[position:]
    if not fresh:
        return
    first_index = fresh[0].index
    assert first_index > state.commit_index, "committed entries are never replaced (3.6.3)"
    assert fresh[-1].term <= state.term, "no leader has entries of a later term (3.5)"
    if first_index <= log.last_index:
        log.truncate_from(first_index)
        membership.on_truncated(state, first_index)
    log.append(fresh)
    membership.on_appended(state, fresh)


def _reject(state: State, message: AppendEntries) -> None:
    """Say where the logs can still agree: nothing of a later term than the leader's can match (3.5)."""
    assert message.previous_index > state.commit_index, "a leader's log holds every committed entry (3.6.3)"
    log = state.log
    hint_index = log.last_index_not_after(min(message.previous_index, log.last_index), message.previous_term)
    hint_index = max(hint_index, state.commit_index)
    assert hint_index >= log.start_index, "what is compacted is committed, and so agrees (5.1)"
    state.answer(
        AppendEntriesResponse(
            state.term,
            state.node_id,
            message.source,
            message.previous_index,
            rejected=True,
            hint_index=hint_index,
            hint_term=log.term_of(hint_index),
        )
    )


def _acknowledge(state: State, leader: NodeId, match_index: Index) -> None:
    """One acknowledgement per batch is enough: the last covers those before it."""
    response = AppendEntriesResponse(state.term, state.node_id, leader, match_index, promise_ms=state.promise_ms)
    waiting = state.effects.send_after_save
    if waiting and type(waiting[-1]) is AppendEntriesResponse:
        last = waiting[-1]
        if not last.rejected and last.term == state.term and last.target == leader:
            waiting.pop()
            response.match_index = max(match_index, last.match_index)
    state.answer(response, response.match_index)


def on_heartbeat(state: State, message: Heartbeat) -> None:
    """Liveness and the commit index; answered without waiting for the disk, unless the term is not durable yet."""
    state.follow(message.source)
    assert message.commit_index <= state.log.last_index, "a leader names no commit index beyond what matches (3.5)"
    state.commit_to(message.commit_index)
    if message.digest_index:
        state.effects.digests.append(DigestHeard(message.source, message.digest_index, message.digest, agreed=True))
    report, state.digest_report = state.digest_report, NO_DIGEST
    state.answer(
        HeartbeatResponse(
            state.term, state.node_id, message.source, message.read_round, state.promise_ms, *report, state.unfit
        )
    )
