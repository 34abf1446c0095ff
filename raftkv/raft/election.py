"""Leader election: terms and votes (3.4), the election restriction (3.6.1), pre-vote and check-quorum (9.6, 6.2).

Every message passes `admit` first, which settles the terms. A member that heard a leader within the minimum election timeout
neither grants a vote nor lets a candidate's higher term disturb it (4.2.3), unless the leader itself asked for the election
(3.10). A member that comes back from a partition therefore never raises the term.
"""

from typing import Final

from raftkv.raft import replication
from raftkv.raft.messages import (
    ENTRY_NOOP,
    AppendEntries,
    AppendEntriesResponse,
    Heartbeat,
    InstallSnapshot,
    Message,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
)
from raftkv.raft.quorum import VOTE_LOST, VOTE_WON, joint_vote
from raftkv.raft.state import CANDIDATE, FOLLOWER, NEVER, PRE_CANDIDATE, State
from raftkv.units import NOBODY, NodeId

FROM_LEADERS: Final = frozenset({AppendEntries, Heartbeat, InstallSnapshot})


def admit(state: State, message: Message) -> bool:
    """Settle a message's term against the own one (3.3). False: the message ends here."""
    if message.term == state.term:
        return True
    return _admit_newer(state, message) if message.term > state.term else _refuse_older(state, message)


def _admit_newer(state: State, message: Message) -> bool:
    kind = type(message)
    if isinstance(message, RequestVote):
        if not message.transfer and state.config.check_quorum and state.has_leader_contact():
            if message.pre_vote:
                state.early_pre_vote = (message, state.ticks)
            return False
        if message.pre_vote:
            return True
    elif isinstance(message, RequestVoteResponse) and message.pre_vote and message.granted:
        return True  # it echoes the term that was asked for, which nobody has entered yet
    state.become_follower(message.term, message.source if kind in FROM_LEADERS else NOBODY)
    return True


def _refuse_older(state: State, message: Message) -> bool:
    """Tell whoever lives in an older term, if it waits for an answer."""
    source = message.source
    kind = type(message)
    if kind in FROM_LEADERS:
        # Also the way out for a member whose term is ahead of a leader that works: with check-quorum its vote requests are ignored.
        state.answer(AppendEntriesResponse(state.term, state.node_id, source, 0, rejected=True))
    elif isinstance(message, RequestVote):
        state.answer(RequestVoteResponse(state.term, state.node_id, source, False, message.pre_vote))
    elif isinstance(message, ReadIndex):
        state.answer(ReadIndexResponse(state.term, state.node_id, source, message.context, 0))
    return False


def tick(state: State) -> None:
    """One tick of a member that does not lead."""
    state.election_elapsed += 1
    if state.election_elapsed < state.election_timeout:
        return
    if state.may_run():
        campaign(state)
    elif state.leader != NOBODY:
        state.become_follower(state.term, NOBODY)  # a learner cannot run, but it knows that nobody leads any more


def campaign(state: State, *, transfer: bool = False) -> None:
    """Start an election; with pre-vote, ask first. A transfer needs no asking: the leader wants it (3.10)."""
    assert not state.is_leader, "a leader does not run for its own office (3.4)"
    if state.config.pre_vote and not transfer:
        _ask_before_election(state)
    else:
        _run_for_office(state, transfer=transfer)


def _ask_before_election(state: State) -> None:
    state.become_pre_candidate()
    log = state.log
    for voter in _other_voters(state):
        state.send(RequestVote(state.term + 1, state.node_id, voter, log.last_index, log.last_term, pre_vote=True))
    _count_votes(state)


def _run_for_office(state: State, *, transfer: bool) -> None:
    state.become_candidate()
    log = state.log
    for voter in _other_voters(state):
        # Asked only once the own vote is durable: a restart must not vote for somebody else in this term (3.8).
        state.effects.send_after_save.append(
            RequestVote(state.term, state.node_id, voter, log.last_index, log.last_term, transfer=transfer)
        )


def _other_voters(state: State) -> list[NodeId]:
    return sorted((state.configuration.voters | state.configuration.voters_outgoing) - {state.node_id})


def on_request_vote(state: State, message: RequestVote) -> None:
    """Grant at most one vote per term, and only to a log that is as complete as the own (3.4, 3.6.1).

    Learners vote when asked: they may have been promoted without knowing it yet.
    """
    source = message.source
    is_free = state.vote == source or (state.vote == NOBODY and state.leader == NOBODY)
    is_ahead = message.pre_vote and message.term > state.term
    is_up_to_date = state.log.is_up_to_date(message.last_index, message.last_term)
    if state.hurried and message.pre_vote:
        # Somebody's turn, which takes its time, or is in vain, so that the own one comes a turn sooner.
        state.election_timeout += state.config.heartbeat_ticks if is_up_to_date else -state.config.heartbeat_ticks
    if not (is_free or is_ahead) or not is_up_to_date:
        state.answer(RequestVoteResponse(state.term, state.node_id, source, False, message.pre_vote))
        return
    if not message.pre_vote:
        assert message.term == state.term, "a vote is given in the own term only (3.4)"
        assert state.vote in (NOBODY, source), "one vote per term (3.4)"
        state.vote = source
        state.election_elapsed = 0
    state.answer(RequestVoteResponse(message.term, state.node_id, source, True, message.pre_vote))


def on_request_vote_response(state: State, message: RequestVoteResponse) -> None:
    """Count an answer that belongs to the question that is open now."""
    if state.role != (PRE_CANDIDATE if message.pre_vote else CANDIDATE):
        return
    asked_term = state.term + 1 if message.pre_vote else state.term
    if message.granted and message.term != asked_term:
        return
    state.votes[message.source] = message.granted
    _count_votes(state)


def on_own_vote_saved(state: State) -> None:
    """The own vote is durable, so it counts."""
    assert state.role == CANDIDATE, "only a candidate counts votes (3.4)"
    assert state.vote == state.node_id, "a candidate votes for itself (3.4)"
    state.votes[state.node_id] = True
    _count_votes(state)


def _count_votes(state: State) -> None:
    result = joint_vote(state.configuration, state.votes)
    if result == VOTE_LOST:
        state.become_follower(state.term, NOBODY)
    elif result == VOTE_WON and state.role == PRE_CANDIDATE:
        _run_for_office(state, transfer=False)
    elif result == VOTE_WON and state.votes.get(state.node_id):
        state.become_leader()
        # An entry of the new term, so that everything before it commits and reads may be served (3.6.2, 6.4).
        replication.append(state, ENTRY_NOOP, b"")


def on_peer_reset(state: State, peer: NodeId) -> None:
    """Fast failover: the connection from the leader was reset, so its process is probably gone.

    The contact is forgotten, for granting and for starting, and an election starts, once per reset. With a leader that is alive it
    fails in the pre-vote, because the others still hear it. All see the reset at the same time, and those who ran together would
    split the votes and lose a whole election timeout: so they take turns, a heartbeat apart, which is longer than an election
    takes. Whoever has asked already, a moment before this member saw the reset, is answered now.
    """
    if not state.config.fast_failover or state.role != FOLLOWER or state.leader != peer:
        return
    for source, context in state.reads.drain():
        state.refuse_read(source, context)
    state.contact_tick = NEVER
    if state.may_run():
        turn_ticks = _place_behind(state, peer) * state.config.heartbeat_ticks
        state.election_timeout = min(state.election_timeout, state.election_elapsed + turn_ticks)
        state.hurried = True
    _answer_early_pre_vote(state)
    if state.hurried and state.election_elapsed >= state.election_timeout:
        campaign(state)


def _answer_early_pre_vote(state: State) -> None:
    """As if it came only now, which any message may do."""
    early, state.early_pre_vote = state.early_pre_vote, None
    if early is None:
        return
    message, asked_tick = early
    if state.ticks - asked_tick <= state.config.heartbeat_ticks and admit(state, message):
        on_request_vote(state, message)


def _place_behind(state: State, leader: NodeId) -> int:
    """How many voters come between that leader and this member, in a ring of ids: whoever led before the leader comes late, it may lag."""

    def distance(node_id: NodeId) -> tuple[bool, NodeId]:
        return node_id < leader, node_id

    own = distance(state.node_id)
    return sum(1 for voter in _other_voters(state) if voter != leader and distance(voter) < own)
