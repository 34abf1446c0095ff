"""One core and nobody else: a test plays the other members by hand, message by message."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from raftkv.raft.config import SavedState
from raftkv.raft.effects import Effects
from raftkv.raft.messages import (
    ENTRY_COMMANDS,
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    Entry,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    Message,
    RequestVote,
    RequestVoteResponse,
)
from raftkv.raft.node import Raft
from tests.unit.raft.cluster import TIMEOUT, Cluster, Disk, config_of

M = TypeVar("M")


def entries_of(terms: Sequence[int], first: int = 1) -> list[Entry]:
    """A log given by the terms of its entries, as the figures of the paper draw it."""
    return [Entry(first + offset, term, ENTRY_COMMANDS, b"%d" % (first + offset)) for offset, term in enumerate(terms)]


def cluster_of(logs: list[list[int]], *, term: int, **settings: bool) -> Cluster:
    """Members 1.. with logs given by their terms, all of which know `term`."""
    cluster = Cluster(len(logs), **settings)
    for node, terms in zip(cluster.nodes.values(), logs, strict=True):
        node.disk = Disk(node.disk.configuration, entries=entries_of(terms))
        node.disk.hard_state.term = term
        node.start()
    return cluster


class Solo:
    """Member 1 of `size`; draws the shortest timeout unless told otherwise."""

    def __init__(
        self,
        size: int = 3,
        *,
        terms: Sequence[int] = (),
        term: int | None = None,
        vote: int = 0,
        commit: int = 0,
        applied: int = 0,
        start: tuple[int, int] = (0, 0),
        configuration: Configuration | None = None,
        draw: Callable[[int, int], int] = lambda low, high: low,
        **settings: object,
    ) -> None:
        current = term if term is not None else (terms[-1] if terms else start[1])
        saved = SavedState(
            hard_state=HardState(current, vote, commit),
            log_start_index=start[0],
            log_start_term=start[1],
            entries=entries_of(terms, start[0] + 1),
            configuration=configuration or Configuration(frozenset(range(1, size + 1))),
            applied_index=max(applied, start[0]),
        )
        self.size = size
        self.raft = Raft(config_of(1, **settings), saved, draw)
        self.effects: list[Effects] = []
        self.unsaved: list[Effects] = []

    # Inputs.

    def step(self, *messages: Message) -> list[Message]:
        for message in messages:
            self.raft.step(message)
        return self.drain()

    def tick(self, count: int = 1) -> list[Message]:
        """The ticks' messages, all saves done at once."""
        sent = []
        for _ in range(count):
            self.raft.tick()
            sent += self.drain()
        return sent

    def take(self) -> Effects:
        """One batch; its save stays open until `save`."""
        effects = self.raft.take_effects()
        self.effects.append(effects)
        if effects.needs_save():
            self.unsaved.append(effects)
        return effects

    def save(self) -> list[Message]:
        """The oldest open save becomes durable; returns what waited for it."""
        effects = self.unsaved.pop(0)
        self.raft.on_saved(effects.save_id)
        return effects.send_after_save

    def drain(self) -> list[Message]:
        """Do everything that is asked for; returns what was sent, in order."""
        sent: list[Message] = []
        while self.raft.has_effects or self.unsaved:
            if self.raft.has_effects:
                sent += self.take().send_now
            while self.unsaved:
                sent += self.save()
        return sent

    # The others.

    def append(self, previous: tuple[int, int], terms: Sequence[int], *, term: int, commit: int = 0) -> AppendEntries:
        """From member 2, the leader of `term`."""
        return AppendEntries(term, 2, 1, previous[0], previous[1], commit, entries_of(terms, previous[0] + 1))

    def heartbeat(self, term: int, commit: int = 0, read_round: int = 1, source: int = 2) -> Heartbeat:
        return Heartbeat(term, source, 1, commit, read_round)

    def heartbeat_response(self, source: int, read_round: int, promise_ms: int = 0) -> HeartbeatResponse:
        return HeartbeatResponse(self.raft.term, source, 1, read_round, promise_ms)

    def accept(self, source: int, match_index: int) -> AppendEntriesResponse:
        return AppendEntriesResponse(self.raft.term, source, 1, match_index)

    def grant(self, source: int, *, pre_vote: bool = False) -> RequestVoteResponse:
        return RequestVoteResponse(self.raft.term + pre_vote, source, 1, True, pre_vote)

    def request(self, term: int, last: tuple[int, int], source: int = 3, **kind: bool) -> RequestVote:
        return RequestVote(term, source, 1, last[0], last[1], **kind)

    def elect(self) -> list[Message]:
        """Become leader with the votes of a majority; returns the appends that open the term."""
        self.tick(TIMEOUT)
        majority = range(2, self.size // 2 + 2)
        if self.raft.role == "pre_candidate":
            for source in majority:
                self.step(self.grant(source, pre_vote=True))
        sent: list[Message] = []
        for source in majority:
            sent = self.step(self.grant(source))
        assert self.raft.is_leader, "a majority of votes makes a leader"
        return sent

    def lead(self) -> None:
        """Become leader, and let everybody accept and commit the first entry."""
        self.elect()
        for source in range(2, self.size + 1):
            self.step(self.accept(source, self.raft.last_index))

    def log_terms(self) -> list[int]:
        raft = self.raft
        return [raft.term_of(index) for index in range(raft.log_start_index + 1, raft.last_index + 1)]


def of_kind(kind: type[M], messages: Sequence[object]) -> list[M]:
    return [message for message in messages if isinstance(message, kind)]


def to(target: int, messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message.target == target]
