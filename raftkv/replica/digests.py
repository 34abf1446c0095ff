"""Whether the members' stores are still one: running digests compared at the same indexes, and a quorum decides who is right.

Equal logs make equal stores (3.5), unless a bug or a bad disk makes one of them go astray. The digest is of what apply did, and
it runs: once two differ, they differ at every later index, so one recent index is enough, and it need not be the newest. Each follower reports an
index and its digest there with the answers to heartbeats; the leader, whose word counts as one, looks for an index at which a
quorum has one digest and announces that. Whoever has another one there, the leader included, has diverged and must stop.

To agree, members have to speak of the same indexes although they are never at the same place: each names the *roundest*
index that it has passed since its last report, so under load they meet at the multiples of a power of two, and at rest at the end.
"""

from dataclasses import dataclass
from typing import Final

from raftkv.errors import Diverged
from raftkv.raft.effects import DigestHeard
from raftkv.raft.messages import Configuration
from raftkv.raft.quorum import has_quorum
from raftkv.units import Index, NodeId, Term

REPORTS_KEPT_MAX: Final = 16  # of one member: a second and a half of heartbeats, for those that are behind


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A member whose store differs from the leader's. Which of them is wrong, if that can be said, is for the quorum."""

    index: Index
    digest: int
    own: int


def roundest(after: Index, to: Index) -> Index:
    """The index in (after, to] with the most zero bits at its end."""
    assert after < to, "there is one"
    shift = (after ^ to).bit_length() - 1
    return to >> shift << shift


class Digests:
    """One member's books: its own recent digests, and as leader what the others report."""

    __slots__ = (
        "_announced",
        "_claim",
        "_first_index",
        "_has_news",
        "_kept_max",
        "_last_index",
        "_office_term",
        "_reported_index",
        "_reports",
        "_ring",
        "agreed_index",
        "mismatches",
    )

    def __init__(self, kept_max: int, index: Index, digest: int) -> None:
        """Begin with a store that has applied `index`."""
        self._kept_max = kept_max
        self._ring = [0] * kept_max  # by index modulo its length
        self._claim: tuple[Index, int] | None = None  # what a quorum has, not compared yet: apply may not be there
        self._office_term: Term = 0
        self._announced: tuple[Index, int] | None = None
        self._reports: dict[NodeId, dict[Index, int]] = {}
        self._has_news = False
        self.mismatches: dict[NodeId, Mismatch] = {}
        self.restart(index, digest)

    # The own store.

    def restart(self, index: Index, digest: int) -> None:
        """The store is another one now, at `index`: what was noted of the old one says nothing about it."""
        self._first_index = self._last_index = self._reported_index = index
        self._ring[index % self._kept_max] = digest
        self.agreed_index: Index = 0  # the newest index at which the own store is known to be that of a quorum

    def note(self, index: Index, digest: int) -> None:
        """The digest after an applied entry."""
        assert index == self._last_index + 1, "digests are noted entry by entry (5.3)"
        self._ring[index % self._kept_max] = digest
        self._last_index = index

    def at(self, index: Index) -> int | None:
        """The own digest there; None when that is not applied yet, or not known any more."""
        first_index = max(self._first_index, self._last_index - self._kept_max + 1)
        return self._ring[index % self._kept_max] if first_index <= index <= self._last_index else None

    def next_report(self) -> tuple[Index, int]:
        """What to tell the leader next: the roundest index since the last report, or where the store is when that is still there."""
        last_index = self._last_index
        if last_index > self._reported_index:
            index = roundest(self._reported_index, last_index)
            self._reported_index = last_index
            digest = self.at(index)
            if digest is not None:
                return index, digest
        return last_index, self._ring[last_index % self._kept_max]

    # The others.

    def hear(self, heard: DigestHeard) -> None:
        """A follower's report, or a leader's announcement."""
        if heard.agreed:
            self._hear_agreed(heard.index, heard.digest)
            return
        reports = self._reports.setdefault(heard.source, {})
        reports.pop(heard.index, None)  # the newest stands last
        reports[heard.index] = heard.digest
        if len(reports) > REPORTS_KEPT_MAX:
            del reports[next(iter(reports))]
        self._has_news = True
        own = self.at(heard.index)
        if own == heard.digest:
            self.mismatches.pop(heard.source, None)
        elif own is not None:
            self.mismatches[heard.source] = Mismatch(heard.index, heard.digest, own)

    def _hear_agreed(self, index: Index, digest: int) -> None:
        """One claim at a time: a newer one must not keep a member that lags from ever reaching the last."""
        if index > self.agreed_index and self._claim is None:
            self._claim = (index, digest)

    def settle(self, term: Term, node_id: NodeId, configuration: Configuration) -> tuple[Index, int] | None:
        """As leader of `term`: the newest index at which a quorum is known to have one digest, and that digest."""
        if term != self._office_term:
            self._begin_office(term)
        if not self._has_news:
            return self._announced
        self._has_news = False
        self._forget_others_than(configuration.members())
        agreed = self._find_agreement(node_id, configuration)
        if agreed is not None:
            self._announced = agreed
            self._hear_agreed(*agreed)
        return self._announced

    def _begin_office(self, term: Term) -> None:
        self._office_term = term
        self._announced = None
        self._reports.clear()
        self.mismatches.clear()

    def _forget_others_than(self, members: frozenset[NodeId]) -> None:
        for node_id in [node_id for node_id in self._reports if node_id not in members]:
            del self._reports[node_id]
            self.mismatches.pop(node_id, None)

    def _find_agreement(self, node_id: NodeId, configuration: Configuration) -> tuple[Index, int] | None:
        """Newer than what was announced. Only voters count, in a joint configuration in both halves (4.3)."""
        announced_index = 0 if self._announced is None else self._announced[0]
        indexes = {index for reports in self._reports.values() for index in reports if index > announced_index}
        for index in sorted(indexes, reverse=True):
            holders: dict[int, set[NodeId]] = {}
            own = self.at(index)
            if own is not None:
                holders[own] = {node_id}
            for member, reports in self._reports.items():
                if index in reports:
                    holders.setdefault(reports[index], set()).add(member)
            for digest, members in holders.items():
                if has_quorum(configuration, members):
                    return index, digest
        return None

    # The verdict.

    def check(self) -> None:
        """Compare the own store with what a quorum has. Raises Diverged: then this member must stop at once."""
        if self._claim is None:
            return
        index, agreed_digest = self._claim
        if index > self._last_index:
            return
        self._claim = None
        own = self.at(index)
        if own is None:
            return  # older than what is kept: the next one will be newer
        if own != agreed_digest:
            raise Diverged(
                f"the store of this member has diverged: its digest at index {index} is {own:08x}, that of a quorum is"
                f" {agreed_digest:08x}; what it holds on disk is wrong, so a restart does not mend it: remove this member,"
                " delete its data directory, add it anew",
                details={"index": index, "digest": own, "agreed_digest": agreed_digest},
            )
        self.agreed_index = max(self.agreed_index, index)


__all__ = ["Digests", "Mismatch", "roundest"]
