"""What must be true after every event, checked without looking at anything twice.

The books are the checker's own: each machine's log as it handed it to its journal and as its disk holds it, what is committed and
applied where, who led and who voted. Each event can break a promise only through what it changed, so only that is compared:

- election safety: one leader per term, by the votes of a quorum; one vote per voter and term, and no term that nobody stood for (3.2);
- log matching: an entry of one index and term is one entry, with one before it; by induction all before it agree (3.5);
- leader completeness: whoever takes office holds what was committed in earlier terms: the newest of it, so all of it (3.6.3);
- state machine safety: one entry per applied index, and one digest after it; what a replay of it all gives, too (3.6.3);
- durability: what is committed is on the disks of a quorum; nobody claims what its disk does not hold; a disk gives back all that was
  reported; an answer is never older than what anybody was told before it was asked for (6.4);
- membership: a member acts by the latest configuration of its log, and a leader makes one change at a time (4.1).
"""

from typing import TYPE_CHECKING, NoReturn

from raftkv.errors import Corruption
from raftkv.limits import Limits
from raftkv.raft.config import SavedState
from raftkv.raft.membership import decode_configuration
from raftkv.raft.messages import (
    ENTRY_CONFIGURATION,
    AppendEntriesResponse,
    Configuration,
    Entry,
    HardState,
    Message,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
)
from raftkv.raft.quorum import has_quorum
from raftkv.raft.state import State
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.store import Store
from raftkv.units import NOBODY, Index, NodeId, Term
from raftkv.wal.recovery import Recovered

if TYPE_CHECKING:
    from .journal import Save
    from .ledger import Ledger
    from .machine import Machine
    from .process import Process


class Violation(AssertionError):
    """A promise was broken."""


class LogCopy:
    """A log, as far as the checks need one: the terms of its entries."""

    __slots__ = ("start", "start_term", "terms")

    def __init__(self) -> None:
        self.start: Index = 0
        self.start_term: Term = 0
        self.terms: list[Term] = []

    @property
    def last(self) -> Index:
        return self.start + len(self.terms)

    def term_of(self, index: Index) -> Term | None:
        """None when it is not here (any more)."""
        position = index - self.start - 1
        if 0 <= position < len(self.terms):
            return self.terms[position]
        return self.start_term if index == self.start else None

    def covers(self, index: Index, term: Term) -> bool:
        """Whether the entry is here; what was compacted is covered by the state machine."""
        return index <= self.start or self.term_of(index) == term

    def replace(self, entries: "list[Entry] | tuple[Entry, ...]") -> None:
        position = entries[0].index - self.start - 1
        assert 0 <= position <= len(self.terms), f"entry {entries[0].index} leaves a gap behind {self.last}"
        self.terms[position:] = [entry.term for entry in entries]

    def restart(self, index: Index, term: Term) -> None:
        self.start, self.start_term, self.terms = index, term, []

    def compact(self, index: Index) -> None:
        if self.start < index <= self.last:
            self.start_term = self.terms[index - self.start - 1]
            del self.terms[: index - self.start]
            self.start = index


class Books:
    """One machine's."""

    __slots__ = (
        "commit",
        "configuration",
        "configurations",
        "durable",
        "durable_term",
        "durable_vote",
        "is_leader",
        "name",
        "node_id",
        "pending",
        "term",
        "written",
    )

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id
        self.name = f"n{node_id}"
        self.written = LogCopy()  # as handed to the journal
        self.durable = LogCopy()
        self.durable_term: Term = 0
        self.durable_vote: NodeId = NOBODY
        self.pending: list[Save] = []  # handed to the journal and not durable
        self.configurations: list[tuple[Index, Configuration]] = []
        self.configuration: Configuration | None = None  # seen last
        self.term: Term = 0
        self.is_leader = False
        self.commit: Index = 0


class Checks:
    """The promises of a whole world."""

    def __init__(self, initial: Configuration, limits: Limits) -> None:
        self._initial = initial
        self._limits = limits
        self._books: dict[NodeId, Books] = {}
        self._entries: dict[tuple[Index, Term], tuple[bytes, int, Term]] = {}  # data, kind, term before it
        self._leaders: dict[Term, NodeId] = {}
        self._candidates: set[Term] = set()  # terms that somebody stood for
        self._votes: dict[Term, dict[NodeId, NodeId]] = {}
        self.committed: list[Term] = [0]  # by index
        self._committed_in: list[tuple[Term, Index]] = [(-1, 0)]  # in which term, up to which index
        self._committed_configurations: list[tuple[Index, Configuration]] = [(0, initial)]
        self._applied: list[tuple[Term, int]] = [(0, 0)]  # by index: term, digest
        self.acknowledged_index: Index = 0
        self.rotten: set[NodeId] = set()

    def books_of(self, node_id: NodeId) -> Books:
        return self._books.setdefault(node_id, Books(node_id))

    def violate(self, what: str) -> NoReturn:
        raise Violation(what)

    # The journal and the disk.

    def on_save(self, books: Books, save: "Save", state: State) -> None:
        """A member hands a save to its journal."""
        books.pending.append(save)
        log = books.written
        latest = books.configurations[-1][1]
        if save.snapshot is not None:
            self._check_snapshot(books, save.snapshot)
            log.restart(save.snapshot.index, save.snapshot.term)
            books.configurations = [(save.snapshot.index, save.snapshot.configuration)]
        if save.entries:
            self._write(books, log, list(save.entries), state)
        if books.configurations[-1][1] is not latest:
            books.configuration = None  # to be looked at again

    def _write(self, books: Books, log: LogCopy, entries: list[Entry], state: State | None = None) -> None:
        first = entries[0].index
        if first <= books.commit:
            self.violate(f"{books.name} replaces the committed entry {first}")
        while books.configurations and books.configurations[-1][0] >= first:
            books.configurations.pop()
        term_before = log.term_of(first - 1)
        known = self._entries
        for entry in entries:
            assert term_before is not None, "a log has no gaps"
            seen = known.get((entry.index, entry.term))
            if seen is None:
                known[entry.index, entry.term] = (entry.data, entry.kind, term_before)
            elif seen != (entry.data, entry.kind, term_before):
                self.violate(f"{books.name} has another entry {entry.index} of term {entry.term} (log matching)")
            term_before = entry.term
            if entry.kind == ENTRY_CONFIGURATION:
                is_own = state is not None and state.is_leader and entry.term == state.term
                if is_own and books.configurations[-1][0] > state.commit_index:
                    self.violate(f"{books.name} changes the configuration again before the last is committed (4.1)")
                books.configurations.append((entry.index, decode_configuration(entry.data)))
        log.replace(entries)

    def on_durable(self, books: Books, saved: "list[Save]") -> None:
        """A sync returned: these saves are on the disk."""
        for save in saved:
            if books.pending.pop(0) is not save:
                self.violate(f"{books.name} makes saves durable out of order")
            if save.snapshot is not None:
                books.durable.restart(save.snapshot.index, save.snapshot.term)
            if save.hard_state is not None:
                books.durable_term, books.durable_vote = save.hard_state.term, save.hard_state.vote
            if save.entries:
                books.durable.replace(list(save.entries))

    def on_compacted(self, books: Books, index: Index) -> None:
        """The log on the disk begins after `index` now."""
        books.durable.compact(index)
        books.written.compact(index)
        while len(books.configurations) > 1 and books.configurations[1][0] <= index:
            del books.configurations[0]

    def on_commit_begun(self, books: Books, applied_index: Index) -> None:
        """The store commits up to here: the log must have it, or a restart would not know it."""
        if books.durable.last < applied_index:
            self.violate(f"{books.name} commits its store at {applied_index}, its log ends at {books.durable.last}")

    def on_start(self, books: Books, recovered: Recovered, saved: SavedState, store: Store) -> None:
        """A member comes back: with all that its disk had reported, and perhaps with what it had not."""
        state = self._survived(books, recovered)
        if state is None:
            last = recovered.log_start_index + len(recovered.entries)
            self.violate(
                f"{books.name} comes back with {recovered.hard_state} and a log {recovered.log_start_index + 1}..{last}:"
                f" its disk had reported term {books.durable_term}, vote {books.durable_vote}, entries to {books.durable.last}"
            )
        books.pending.clear()
        books.durable_term, books.durable_vote = recovered.hard_state.term, recovered.hard_state.vote
        for log in (books.durable, books.written):
            log.restart(saved.log_start_index, saved.log_start_term)
        books.configurations = [(saved.log_start_index, saved.configuration)]
        books.commit = 0
        if saved.entries:
            self._write(books, books.written, saved.entries)
            books.durable.replace(saved.entries)
        self._check_digest(books, store.applied_index, store.digest)
        books.term, books.is_leader, books.configuration = 0, False, None

    def _survived(self, books: Books, recovered: Recovered) -> HardState | None:
        """The reported state, plus the first few saves that were under way, is what has to be found."""
        log = LogCopy()
        log.start, log.start_term, log.terms = books.durable.start, books.durable.start_term, list(books.durable.terms)
        hard = HardState(books.durable_term, books.durable_vote)
        for save in (None, *books.pending):
            if save is not None:
                if save.snapshot is not None:
                    log.restart(save.snapshot.index, save.snapshot.term)
                if save.hard_state is not None:
                    hard = save.hard_state
                if save.entries:
                    log.replace(list(save.entries))
            if self._is_same(log, hard, recovered):
                return hard
        return None

    @staticmethod
    def _is_same(log: LogCopy, hard: HardState, recovered: Recovered) -> bool:
        found = recovered.hard_state
        last = recovered.log_start_index + len(recovered.entries)
        if (found.term, found.vote, last) != (hard.term, hard.vote, log.last):
            return False
        return all(log.covers(entry.index, entry.term) for entry in recovered.entries)

    def expect_corruption(self, machine: "Machine", error: Corruption) -> None:
        """A start found damage: only where damage was done."""
        if machine.node_id not in self.rotten:
            self.violate(f"{machine.name} finds damage that nobody did: {error.message}")

    def allow_rot(self, node_id: NodeId) -> None:
        self.rotten.add(node_id)

    # Messages.

    def on_sent(self, message: Message) -> None:
        """Nobody claims what its disk does not hold."""
        kind = type(message)
        if kind is AppendEntriesResponse:
            self._check_acknowledgement(message)  # type: ignore[arg-type]
        elif kind is RequestVoteResponse:
            self._check_vote(message)  # type: ignore[arg-type]
        elif kind is RequestVote:
            self._check_candidacy(message)  # type: ignore[arg-type]

    def _check_acknowledgement(self, message: AppendEntriesResponse) -> None:
        books = self._books[message.source]
        if message.term != books.term:
            return  # it was made durable, and replaced by a later leader, in one save: as good as an answer that was long on its way
        if not message.rejected and message.match_index > books.durable.last:
            self.violate(f"{books.name} acknowledges {message.match_index}, its disk holds {books.durable.last}")
        if message.term > books.durable_term:
            self.violate(f"{books.name} answers in term {message.term}, its disk knows {books.durable_term}")

    def _check_vote(self, message: RequestVoteResponse) -> None:
        if message.pre_vote or not message.granted:
            return
        books = self._books[message.source]
        if not self._is_durable_vote(books, message.term, message.target):
            self.violate(f"{books.name} votes for n{message.target} in term {message.term} before that is durable")
        self._count_vote(books, message.term, message.target)

    def _check_candidacy(self, message: RequestVote) -> None:
        if message.pre_vote:
            return
        books = self._books[message.source]
        if not self._is_durable_vote(books, message.term, message.source):
            self.violate(f"{books.name} runs in term {message.term} before its own vote is durable")
        self._count_vote(books, message.term, message.source)

    @staticmethod
    def _is_durable_vote(books: Books, term: Term, candidate: NodeId) -> bool:
        """A sync may make this vote and a later term durable together; then this one was durable in its turn."""
        return books.durable_term > term or (books.durable_term, books.durable_vote) == (term, candidate)

    def _count_vote(self, books: Books, term: Term, candidate: NodeId) -> None:
        vote = self._votes.setdefault(term, {}).setdefault(books.node_id, candidate)
        if vote != candidate:
            self.violate(f"{books.name} votes for n{vote} and for n{candidate} in term {term} (3.4)")

    # After every event.

    def after_event(self, process: "Process") -> None:
        """The member that the event was for; nobody else has changed."""
        state = process.state
        books = process.machine.books
        if state.term != books.term:
            self._on_term(process, books)
        if state.configuration is not books.configuration:
            self._on_configuration(process, books)
        if state.commit_index != books.commit:
            self._on_commit(process, books)
        if state.is_leader != books.is_leader:
            books.is_leader = state.is_leader
            if state.is_leader:
                self._on_leader(process, books)

    def _on_term(self, process: "Process", books: Books) -> None:
        state = process.state
        if state.term < books.term:
            self.violate(f"{books.name} goes back from term {books.term} to {state.term}")
        books.term = state.term
        if state.vote == books.node_id:
            self._candidates.add(state.term)
        elif state.term not in self._candidates:
            self.violate(f"{books.name} is in term {state.term}, for which nobody stood (9.6)")

    def _on_leader(self, process: "Process", books: Books) -> None:
        term = process.state.term
        leader = self._leaders.setdefault(term, books.node_id)
        if leader != books.node_id:
            self.violate(f"n{leader} and {books.name} lead in term {term} (election safety)")
        voters = [voter for voter, candidate in self._votes.get(term, {}).items() if candidate == books.node_id]
        if not has_quorum(process.state.configuration, {books.node_id, *voters}):
            self.violate(f"{books.name} leads in term {term} with the votes of {sorted(voters)} (3.4)")
        # It may take office late, when others lead in a later term: what those have committed says nothing about it.
        newest = next(index for committed_in, index in reversed(self._committed_in) if committed_in < term)
        if not books.written.covers(newest, self.committed[newest]):
            self.violate(
                f"{books.name} leads in term {term} without the committed entry {newest} (leader completeness)"
            )

    def _on_commit(self, process: "Process", books: Books) -> None:
        commit = process.state.commit_index
        if commit < books.commit:
            self.violate(f"{books.name} takes back its commit index from {books.commit} to {commit}")
        log, committed = books.written, self.committed
        first_new = len(committed)
        for index in range(max(books.commit, log.start) + 1, min(commit, first_new - 1) + 1):
            if log.term_of(index) != committed[index]:
                self.violate(f"{books.name} commits another entry {index} than others (state machine safety)")
        books.commit = commit
        for index in range(first_new, commit + 1):
            term = log.term_of(index)
            if term is None:
                self.violate(f"{books.name} commits {index}, its log is {log.start + 1}..{log.last}")
            committed.append(term)
        if commit >= first_new:
            self._committed_in.append((process.state.term, commit))
            self._note_configurations(books, first_new, commit)
            self._check_quorum(process, books, commit)

    def _note_configurations(self, books: Books, first: Index, last: Index) -> None:
        for index, configuration in books.configurations:
            if first <= index <= last:
                self._committed_configurations.append((index, configuration))

    def _check_quorum(self, process: "Process", books: Books, index: Index) -> None:
        term = self.committed[index]
        holders = {other.node_id for other in self._books.values() if other.durable.covers(index, term)}
        before = self.configuration_at(index - 1)
        if not (has_quorum(process.state.configuration, holders) or has_quorum(before, holders)):
            self.violate(f"{books.name} commits {index}, which only {sorted(holders)} hold durably (3.6)")
        for other in self._books.values():
            if other.is_leader and other.term > books.term and not other.written.covers(index, term):
                self.violate(f"{books.name} commits {index}, which {other.name}, leader since, lacks (3.6.3)")

    def latest_configuration(self) -> Configuration:
        """The last one that is committed."""
        return self._committed_configurations[-1][1]

    def possible_configurations(self) -> set[Configuration]:
        """The committed one, and all that may still follow it: those at the ends of all logs."""
        return {self.latest_configuration()} | {
            books.configurations[-1][1] for books in self._books.values() if books.configurations
        }

    def configuration_at(self, index: Index) -> Configuration:
        """The committed configuration as of an index."""
        return next(c for i, c in reversed(self._committed_configurations) if i <= index)

    def _on_configuration(self, process: "Process", books: Books) -> None:
        books.configuration = process.state.configuration
        expected = books.configurations[-1][1]
        if books.configuration != expected:
            self.violate(f"{books.name} acts by {books.configuration}, the latest in its log is {expected} (4.1)")

    # The state machine.

    def on_applied(self, books: Books, entry: Entry, digest: int) -> None:
        """An entry took effect somewhere."""
        applied = self._applied
        if entry.index == len(applied):
            applied.append((entry.term, digest))
        elif entry.index > len(applied):
            self.violate(f"{books.name} applies {entry.index}, nobody applied {len(applied)}")
        elif applied[entry.index] != (entry.term, digest):
            self.violate(
                f"{books.name} applies {entry.index} of term {entry.term} with digest {digest:08x}, others have"
                f" {applied[entry.index][0]} and {applied[entry.index][1]:08x} (state machine safety)"
            )
        seen = self._entries.get((entry.index, entry.term))
        if seen is None or seen[:2] != (entry.data, entry.kind):
            self.violate(f"{books.name} applies an entry {entry.index} of term {entry.term} that is in no log")

    def on_installed(self, books: Books, meta: SnapshotMeta, digest: int) -> None:
        """A received snapshot is in the store's place."""
        self._check_snapshot(books, meta)
        self._check_digest(books, meta.index, digest)

    def _check_snapshot(self, books: Books, meta: SnapshotMeta) -> None:
        if meta.index >= len(self.committed) or self.committed[meta.index] != meta.term:
            self.violate(f"{books.name} takes a snapshot of {meta.index} in term {meta.term}, which is not committed")
        if meta.configuration != self.configuration_at(meta.index):
            self.violate(f"{books.name} takes a snapshot with configuration {meta.configuration} (5.1)")

    def _check_digest(self, books: Books, index: Index, digest: int) -> None:
        if index >= len(self._applied) or self._applied[index][1] != digest:
            self.violate(f"{books.name} has digest {digest:08x} at index {index}, others have another (5.1)")

    def on_answered(self, process: "Process", floor: Index) -> None:
        """A member answers what it was asked when everybody could know of `floor`."""
        applied_index = process.storage.store.applied_index
        if applied_index < floor:
            self.violate(
                f"{process.machine.name} answers from index {applied_index}, but {floor} was acknowledged before it was asked (6.4)"
            )
        if applied_index > self.acknowledged_index:
            self.acknowledged_index = applied_index

    def replay(self, ledger: "Ledger | None" = None) -> tuple[Store, Index]:
        """A fresh store that has applied the whole committed log, with the digest that everybody should have; the ledger hears it."""
        store = Store.open(MemoryKeyspace(), self._limits)
        if ledger is not None:
            store.tell(ledger)
        for index in range(1, len(self._applied)):
            term, digest = self._applied[index]
            data, kind, _ = self._entries[index, term]
            store.apply(Entry(index, term, kind, data))
            if store.digest != digest:
                self.violate(
                    f"a replay of the log has digest {store.digest:08x} at {index}, the members had {digest:08x}"
                )
        if ledger is not None:
            ledger.compact_revision = store.compact_revision
        return store, len(self._applied) - 1
