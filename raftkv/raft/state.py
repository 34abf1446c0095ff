"""Who this member is: role, term, vote, leader, timers in ticks, and the transitions between roles (figure 3.3).

One `State` is shared by the files that hold the rules (election, replication, snapshot, membership, transfer, reads); they
are functions on it. The transitions `become_*` change role and term and clear what belonged to the old one; they never
send. What is to be sent goes through `send` and `answer`, which know the order of sending and saving.
"""

from typing import Callable, Final

from raftkv.raft.config import RaftConfig, SavedState
from raftkv.raft.effects import Effects
from raftkv.raft.log import RaftLog
from raftkv.raft.membership import History, on_appended
from raftkv.raft.messages import (
    ENTRY_CONFIGURATION,
    HardState,
    Message,
    ReadIndexResponse,
    RequestVote,
    SnapshotMeta,
)
from raftkv.raft.progress import Progress
from raftkv.raft.quorum import has_quorum
from raftkv.raft.reads import ReadRounds
from raftkv.raft.transfer import Transfer
from raftkv.units import NOBODY, Index, NodeId, Term

FOLLOWER: Final = "follower"
PRE_CANDIDATE: Final = "pre_candidate"
CANDIDATE: Final = "candidate"
LEADER: Final = "leader"
LEARNER: Final = "learner"  # how a follower without a vote is called outside; inside it is a follower

NEVER: Final = -(1 << 62)
"""A tick so long ago that every timeout since then is over."""

NO_DIGEST: Final[tuple[Index, int]] = (0, 0)


class State:
    """The mutable state of one member. Its owner is node.Raft."""

    __slots__ = (
        "_draw_ticks",
        "_heard_tick",
        "_leader_seen",
        "commit_index",
        "committed_in_term",
        "config",
        "configuration",
        "contact_tick",
        "digest_agreed",
        "digest_report",
        "dirty",
        "durable_term",
        "durable_vote",
        "early_pre_vote",
        "effects",
        "election_elapsed",
        "election_timeout",
        "handed_hard_state",
        "handed_index",
        "heartbeat_elapsed",
        "history",
        "hurried",
        "is_leader",
        "leader",
        "limits",
        "log",
        "node_id",
        "offered_snapshot",
        "progress",
        "reads",
        "role",
        "save_id",
        "snapshot_budget_bytes",
        "snapshot_wanted",
        "term",
        "ticks",
        "transfer",
        "unfit",
        "vote",
        "votes",
    )

    def __init__(self, config: RaftConfig, saved: SavedState, draw_ticks: Callable[[int, int], int]) -> None:
        self.config = config
        self.limits = config.limits
        self.node_id: NodeId = config.node_id
        self._draw_ticks = draw_ticks
        self.ticks = 0
        self.save_id = 0
        self.effects = Effects()
        self.dirty = False
        self._restart_from(saved)

        self.role: str = FOLLOWER
        self.is_leader = False
        self.leader: NodeId = NOBODY
        self._leader_seen: tuple[Term, NodeId] = (0, NOBODY)
        # A promise not to vote outlives a restart, so that a lease does, too (6.4.1): as if a leader was heard just now.
        self.contact_tick = 0 if self.promise_ms else NEVER
        self._heard_tick: dict[NodeId, int] = {}
        self.hurried = False  # the running election timeout was cut short, once, by a reset connection
        # The last one that was ignored because a leader was heard, and its tick: perhaps the asker only saw sooner that it is gone.
        self.early_pre_vote: tuple[RequestVote, int] | None = None
        self._reset_election_timer()
        self.heartbeat_elapsed = 0

        self.votes: dict[NodeId, bool] = {}
        self.progress: dict[NodeId, Progress] = {}  # of the others, and only while leading
        self.committed_in_term = False
        self.transfer: Transfer | None = None
        self.reads = ReadRounds()
        self.offered_snapshot: SnapshotMeta | None = None
        self.snapshot_wanted = False
        # The driver's, carried and not understood: what a leader announces with its heartbeats, what a follower answers once.
        self.digest_agreed = self.digest_report = NO_DIGEST
        self.unfit = False
        self.snapshot_budget_bytes = (
            0  # what may be sent until the next tick; below 0: a chunk was larger than what was left
        )

    def _restart_from(self, saved: SavedState) -> None:
        """Take over what survived (3.8)."""
        self.log = RaftLog(saved.log_start_index, saved.log_start_term, saved.entries)
        assert saved.log_start_index <= saved.applied_index <= self.log.last_index, (
            "the state machine is neither behind the log's start nor ahead of its end (3.8)"
        )
        self.durable_term, self.durable_vote = saved.hard_state.term, saved.hard_state.vote
        self.handed_hard_state = (self.durable_term, self.durable_vote)
        self.term: Term = self.durable_term
        self.vote: NodeId = self.durable_vote
        if self.term < self.log.last_term:
            # A received snapshot became durable before the hard state did; no vote of that term can have left (3.8).
            self.term, self.vote = self.log.last_term, NOBODY
            self.dirty = True
        # The saved commit index is a hint (3.8): a torn tail may have taken the entries that it counted.
        self.commit_index: Index = max(saved.applied_index, min(saved.hard_state.commit, self.log.last_index))
        self.handed_index: Index = saved.applied_index
        self.history = History(saved.log_start_index, saved.configuration)
        self.configuration = saved.configuration
        self.is_leader = False
        on_appended(self, [entry for entry in saved.entries if entry.kind == ENTRY_CONFIGURATION])

    # Roles.

    @property
    def shown_role(self) -> str:
        """The role as RoleChange and status show it."""
        return LEARNER if self.role == FOLLOWER and not self.is_voter(self.node_id) else self.role

    @property
    def promise_ms(self) -> int:
        """How long this member surely votes for nobody else after hearing a leader (6.4.1); 0 promises nothing.

        One tick less than the timeout: the first tick after the contact may come at once.
        """
        config = self.config
        if not config.lease_reads or not config.check_quorum or config.fast_failover:
            return 0
        return (config.election_timeout_ticks - 1) * config.tick_ms

    def is_voter(self, node_id: NodeId) -> bool:
        return node_id in self.configuration.voters or node_id in self.configuration.voters_outgoing

    def may_run(self) -> bool:
        """Whether this member may be elected: it has a vote, or only an entry that is not committed takes it away.

        Until that entry is committed, this member may be the only one whose log lets it win (4.2.2, figure 4.6).
        """
        possible = self.history.possible(self.commit_index)
        return any(self.node_id in known.voters | known.voters_outgoing for known in possible)

    def become_follower(self, term: Term, leader: NodeId) -> None:
        """Fall back, or follow another leader or a newer term; `leader` is NOBODY while it is not known."""
        assert term >= self.term, "terms never decrease (3.3)"
        if term > self.term:
            self.term, self.vote = term, NOBODY
        self._leave_role(FOLLOWER, leader)

    def become_pre_candidate(self) -> None:
        """Ask whether an election could be won; term and vote stay as they are (9.6)."""
        assert not self.is_leader, "a leader does not run for its own office (3.4)"
        assert self.may_run(), "a learner never starts an election (4.2.1)"
        self._leave_role(PRE_CANDIDATE, NOBODY)
        self.votes[self.node_id] = True

    def become_candidate(self) -> None:
        """Run for the next term. The own vote counts only once it is durable (3.8)."""
        assert not self.is_leader, "a leader does not run for its own office (3.4)"
        assert self.may_run(), "a learner never starts an election (4.2.1)"
        self.term, self.vote = self.term + 1, self.node_id
        self._leave_role(CANDIDATE, NOBODY)

    def become_leader(self) -> None:
        """Take office. The caller appends the entry that opens the term (3.6.2)."""
        assert self.role == CANDIDATE, "only a candidate becomes leader (figure 3.3)"
        assert (self.durable_term, self.durable_vote) == (self.term, self.node_id), "the own vote is durable (3.8)"
        self._leave_role(LEADER, self.node_id)
        self.note_leader(self.node_id)
        self.is_leader = True
        self.heartbeat_elapsed = 0
        next_index = self.log.last_index + 1
        for peer in sorted(self.configuration.members() - {self.node_id}):
            self.progress[peer] = Progress(peer, next_index, self.ticks)

    def _leave_role(self, role: str, leader: NodeId) -> None:
        """What belonged to the role, the term or the leader before ends here."""
        for source, context in self.reads.drain():
            self.refuse_read(source, context)
        self.role, self.leader = role, leader
        self.is_leader = False
        self.votes = {}
        self.progress = {}
        self.committed_in_term = False
        self.transfer = None
        self.snapshot_wanted = False
        self.digest_agreed = NO_DIGEST
        self.early_pre_vote = None
        self._reset_election_timer()
        self.dirty = True

    # Leaders and time.

    def follow(self, source: NodeId) -> None:
        """A leader of this term was heard."""
        assert not self.is_leader, (
            f"two leaders in term {self.term}: {self.node_id} and {source} (3.2, election safety)"
        )
        if self.role != FOLLOWER or self.leader != source:
            self.become_follower(self.term, source)
        self.note_leader(source)
        self.contact_tick = self.ticks
        self.election_elapsed = 0
        if self.hurried:
            self._reset_election_timer()

    def note_leader(self, leader: NodeId) -> None:
        """Remember who led this term; there is at most one (3.2)."""
        term, seen = self._leader_seen
        assert term != self.term or seen == leader, f"two leaders in term {term}: {seen} and {leader} (3.2)"
        self._leader_seen = (self.term, leader)

    def note_heard(self, source: NodeId) -> None:
        self._heard_tick[source] = self.ticks

    def is_active(self, progress: Progress) -> bool:
        """Whether a follower answered within the last election timeout."""
        return self.ticks - progress.answered_tick < self.config.election_timeout_ticks

    def has_leader_contact(self) -> bool:
        """Whether a leader was heard within the minimum election timeout: then votes are refused (4.2.3)."""
        return self.is_leader or self.ticks - self.contact_tick < self.config.election_timeout_ticks

    def has_quorum_contact(self) -> bool:
        """Whether this member belongs to a part of the cluster that can get something done.

        A leader counts who answered it. Others count whom they heard; contact with a leader is enough, because a leader
        that has lost its quorum gives up within an election timeout.
        """
        since = self.ticks - self.config.election_timeout_ticks
        if self.is_leader:
            present = {peer for peer, progress in self.progress.items() if progress.answered_tick > since}
        else:
            present = {peer for peer, tick in self._heard_tick.items() if tick > since}
            if self.leader in present and self.contact_tick > since:
                return True
        return has_quorum(self.configuration, present | {self.node_id})

    def draw_ticks(self, low: int, high: int) -> int:
        ticks = self._draw_ticks(low, high)
        assert low <= ticks <= high, "draw_ticks(low, high) gives an int in [low, high]"
        return ticks

    def _reset_election_timer(self) -> None:
        """Draw a new timeout from [T, 2T), so that candidates rarely collide (3.4, 9.3)."""
        timeout = self.config.election_timeout_ticks
        self.election_elapsed = 0
        self.election_timeout = self.draw_ticks(timeout, 2 * timeout - 1)
        self.hurried = False

    # What is committed, and what is to be sent.

    def commit_to(self, index: Index) -> None:
        """Move the commit index forward; a smaller one is old news."""
        if index <= self.commit_index:
            return
        assert index <= self.log.last_index, "only entries of the log are committed (3.5)"
        self.commit_index = index
        self.dirty = True

    def send(self, message: Message) -> None:
        """Send at once: a request, which claims nothing about this disk."""
        self.effects.send_now.append(message)
        self.dirty = True

    def answer(self, message: Message, durable_to: Index = 0) -> None:
        """Send as soon as everything that the message claims is durable: the term, the vote, the log up to `durable_to`.

        No answer overtakes the save of the hard state that it was given under (3.8).
        """
        is_durable = (
            self.durable_term == self.term
            and self.durable_vote == self.vote
            and durable_to <= self.log.durable_index
            and self.effects.restored is None
        )
        (self.effects.send_now if is_durable else self.effects.send_after_save).append(message)
        self.dirty = True

    def refuse_read(self, source: NodeId, context: int) -> None:
        """A read that will never be confirmed: tell who asked for it; NOBODY stands for the own driver."""
        if source == NOBODY:
            self.effects.reads_failed.append(context)
        else:
            self.answer(ReadIndexResponse(self.term, self.node_id, source, context, 0))
        self.dirty = True

    def hard_state(self) -> HardState:
        return HardState(self.term, self.vote, self.commit_index)
