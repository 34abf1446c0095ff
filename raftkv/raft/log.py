"""The log in memory (3.5): the entries after `start_index`, and how far they are on their way to the disk.

Everything up to `start_index` is compacted; its term is still known, because a leader has to name it in the first
AppendEntries after it. The journal is given the entries after `journaled_index`; `durable_index` is what it has reported as
saved. A save that is still running when its entries are replaced proves less than it did: only what lies before the
replaced suffix. No knowledge of roles, votes or peers lives here.
"""

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Final, Sequence

from raftkv.raft.messages import Entry
from raftkv.units import Index, NodeId, Term

ENTRY_OVERHEAD_BYTES: Final = 24
"""What an entry costs on the wire besides its data: index, term, kind and the lengths."""


def entry_bytes(entry: Entry) -> int:
    """The size that counts against the limits on messages and windows."""
    return len(entry.data) + ENTRY_OVERHEAD_BYTES


def _term_of_entry(entry: Entry) -> Term:
    return entry.term


@dataclass(slots=True)
class PendingSave:
    """A save that the journal was given and has not reported yet: what it will prove."""

    save_id: int
    last_index: Index
    term: Term
    vote: NodeId


class RaftLog:
    """Entries `start_index + 1` to `last_index` without gaps."""

    __slots__ = (
        "_entries",
        "_saves",
        "durable_index",
        "held_bytes",
        "journaled_index",
        "last_index",
        "start_index",
        "start_term",
    )

    def __init__(self, start_index: Index, start_term: Term, entries: Sequence[Entry]) -> None:
        """A log whose `entries` are all durable, as after a restart."""
        self.start_index = start_index
        self.start_term = start_term
        self.last_index = start_index
        self.held_bytes = 0
        self._entries: list[Entry] = []
        self._saves: deque[PendingSave] = deque()
        self.append(entries)
        self.journaled_index = self.last_index
        self.durable_index = self.last_index

    @property
    def last_term(self) -> Term:
        return self._entries[-1].term if self._entries else self.start_term

    def term_of(self, index: Index) -> Term:
        """The term of an entry that is held, or of the last compacted one."""
        assert self.start_index <= index <= self.last_index, f"term of {index} is not known (3.5)"
        return self._entries[index - self.start_index - 1].term if index > self.start_index else self.start_term

    def matches(self, index: Index, term: Term) -> bool:
        """The consistency check of AppendEntries: whether the log holds `index` with `term`."""
        return self.start_index <= index <= self.last_index and self.term_of(index) == term

    def is_up_to_date(self, last_index: Index, last_term: Term) -> bool:
        """Whether a candidate's log, given by its end, is at least as complete as this one (3.6.1)."""
        own_term = self.last_term
        return last_term > own_term or (last_term == own_term and last_index >= self.last_index)

    def entry(self, index: Index) -> Entry:
        assert self.start_index < index <= self.last_index, f"entry {index} is not held"
        return self._entries[index - self.start_index - 1]

    def slice(self, first: Index, last: Index, bytes_max: int, *, at_least_one: bool = True) -> tuple[list[Entry], int]:
        """Entries from `first` up to `last` that fit into `bytes_max`, and their size.

        With `at_least_one` the first entry always fits: an entry larger than the bound must still get through.
        """
        assert first > self.start_index, "compacted entries cannot be read (5.1)"
        if first == last == self.last_index and at_least_one:
            newest = self._entries[-1]  # the usual case: one new entry per batch
            return [newest], len(newest.data) + ENTRY_OVERHEAD_BYTES
        entries: list[Entry] = []
        size_bytes = 0
        for position in range(first - self.start_index - 1, min(last, self.last_index) - self.start_index):
            entry = self._entries[position]
            size = len(entry.data) + ENTRY_OVERHEAD_BYTES
            if size_bytes + size > bytes_max and (entries or not at_least_one):
                break
            entries.append(entry)
            size_bytes += size
        return entries, size_bytes

    def last_index_not_after(self, index: Index, term: Term) -> Index:
        """The last position at or before `index` whose term is at most `term`: where two logs can still agree (3.5).

        Terms never decrease along a log, so this skips whole terms at a time. Stops at `start_index`.
        """
        if index <= self.start_index:
            return index
        position = min(index, self.last_index) - self.start_index
        return self.start_index + bisect_right(self._entries, term, hi=position, key=_term_of_entry)

    def first_retained_index(self, entries_max: int, bytes_max: int) -> Index:
        """The first of the newest entries that stay within both bounds; `last_index + 1` when none does."""
        count, held_bytes = len(self._entries), self.held_bytes
        position = 0
        while position < count and (count - position > entries_max or held_bytes > bytes_max):
            held_bytes -= entry_bytes(self._entries[position])
            position += 1
        return self.start_index + position + 1

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries at the end."""
        term = self.last_term
        for entry in entries:
            assert entry.index == self.last_index + 1, "a log has no gaps (3.5)"
            assert entry.term >= term, "terms never decrease along a log (3.5)"
            self._entries.append(entry)
            self.last_index = entry.index
            self.held_bytes += len(entry.data) + ENTRY_OVERHEAD_BYTES
            term = entry.term

    def truncate_from(self, index: Index) -> None:
        """Drop the entries from `index` on: a new leader replaces them (3.5)."""
        assert self.start_index < index <= self.last_index, "only entries that are held can be replaced (3.5)"
        position = index - self.start_index - 1
        self.held_bytes -= sum(map(entry_bytes, self._entries[position:]))
        del self._entries[position:]
        self.last_index = index - 1
        self._forget_saved_after(index - 1)

    def compact(self, index: Index) -> None:
        """Drop the entries up to `index` (5.1); they are durable in the state machine."""
        assert index <= self.durable_index, "an entry is compacted only after it is durable (5.1)"
        if index <= self.start_index:
            return
        term = self.term_of(index)
        count = index - self.start_index
        self.held_bytes -= sum(map(entry_bytes, self._entries[:count]))
        del self._entries[:count]
        self.start_index, self.start_term = index, term

    def restore(self, index: Index, term: Term) -> None:
        """Replace everything up to `index` by a snapshot; the suffix stays if it follows on the snapshot (5.3).

        The journal starts anew with the snapshot, so a kept suffix is handed to it once more.
        """
        assert index > self.start_index, "a snapshot never takes the log back (5.3)"
        kept = self._entries[index - self.start_index :] if self.matches(index, term) else []
        self._forget_saved_after(min(self.durable_index, index))
        self._entries = []
        self.held_bytes = 0
        self.start_index, self.start_term, self.last_index = index, term, index
        self.append(kept)
        self.journaled_index = index

    def take_unjournaled(self) -> list[Entry]:
        """The entries that the journal has not been given; counts them as given."""
        if self.journaled_index == self.last_index:
            return []
        assert self.start_index <= self.journaled_index < self.last_index, "the journal follows the log"
        entries = self._entries[self.journaled_index - self.start_index :]
        self.journaled_index = self.last_index
        return entries

    def save_started(self, save_id: int, term: Term, vote: NodeId) -> None:
        """The journal is given all that is unsaved under this id, hard state included."""
        assert not self._saves or save_id > self._saves[-1].save_id, "save ids grow"
        self._saves.append(PendingSave(save_id, self.journaled_index, term, vote))

    def save_finished(self, save_id: int) -> PendingSave | None:
        """The journal reports a save; the saves before it are durable too. Returns the last of them, None if none ran."""
        last: PendingSave | None = None
        while self._saves and self._saves[0].save_id <= save_id:
            last = self._saves.popleft()
            self.durable_index = max(self.durable_index, last.last_index)
        assert self.durable_index <= self.last_index, "only what the log holds can be durable (3.8)"
        return last

    def _forget_saved_after(self, index: Index) -> None:
        """Saves that run or are done prove nothing any more about what lay after `index`."""
        self.journaled_index = min(self.journaled_index, index)
        self.durable_index = min(self.durable_index, index)
        for save in self._saves:
            save.last_index = min(save.last_index, index)
