"""One watch without its connection: what was heard, what to ask for next, and where to ask. SANS-IO; both clients sit on it.

Members cut large revisions into fragments; here they are joined, and a revision is handed on when it is whole. So a watch always goes on at
the start of a revision, on whatever member, and nothing comes twice or is left out.
"""

from typing import Any, Callable, Final, Literal, NamedTuple

from raftkv.client.decisions import REFUSED_LOGINS, STALE_LOGINS
from raftkv.client.endpoints import Directory, peer_or_none
from raftkv.client.results import KeyValue
from raftkv.client.retry import BACKOFF_S_MAX, BACKOFF_S_MIN, ROUND_BACKOFF_S_MAX
from raftkv.client.wireconn import failure_of
from raftkv.errors import ClusterMismatch, InvalidRequest, ProtocolError, RaftKVError, WatchCompacted
from raftkv.units import NOBODY, Revision
from raftkv.wire.commands import OK, Answer, Command
from raftkv.wire.protocol import WATCH_CREATE, WATCH_EVENTS
from raftkv.wire.watching import NO_DELETE, NO_PUT, WATCH_PREV_KV, WATCH_PROGRESS_NOTIFY

Only = Literal["put", "delete"]

PASSING: Final = frozenset(
    {"no_quorum", "not_leader", "shutting_down", "overloaded", "unreachable", "deadline_exceeded", "leadership_lost"}
)
"""Errors of the member, not of the watch: another one serves it."""


def is_passing(error: RaftKVError, login: tuple[str, str] | None) -> bool:
    """Whether the watch goes on, on another connection; `login`: that of the client, which it makes anew there."""
    stale = login is not None and error.code in STALE_LOGINS
    return stale or error.code in PASSING or isinstance(error, ProtocolError)


class Event(NamedTuple):
    """One change of one key."""

    type: str
    """"put" or "delete"."""
    kv: KeyValue
    """The key as it is now; of a deleted one only `key` and `mod_revision` say something."""
    prev_kv: KeyValue | None
    """What it was before the revision, when `prev_kv=True` was asked for; None if it did not exist, or history is gone."""

    @property
    def key(self) -> bytes:
        return self.kv.key

    @property
    def value(self) -> bytes:
        return self.kv.value

    @property
    def revision(self) -> Revision:
        return self.kv.mod_revision


class WatchBatch(NamedTuple):
    """All events of one revision. Without events (`progress=True`): everything up to `revision` was heard."""

    revision: Revision
    events: list[Event]


def watch_command(
    key: bytes, range_end: bytes, *, start_revision: Revision, prev_kv: bool, only: Only | None
) -> Command:
    """Raises InvalidRequest."""
    if start_revision < 0:
        raise InvalidRequest("the start revision of a watch is not negative")
    if only not in (None, "put", "delete"):
        raise InvalidRequest(f"only is 'put' or 'delete', not {only!r}")
    flags = WATCH_PROGRESS_NOTIFY | (WATCH_PREV_KV if prev_kv else 0)
    flags |= {"put": NO_DELETE, "delete": NO_PUT}.get(only or "", 0)
    return [WATCH_CREATE, key, range_end, start_revision, flags]


class WatchState:
    """Where one watch is."""

    __slots__ = ("_command", "_partial", "_progress", "_told", "began", "next_revision")

    def __init__(self, command: Command, *, progress: bool) -> None:
        self._command = command
        self._progress = progress
        self._partial: list[Event] = []
        self._told: Revision = 0
        self.next_revision: Revision = command[3]
        """Where it goes on; 0: from now, as long as no member has said when that is."""
        self.began = False

    def command(self) -> Command:
        """The request for a member that has not served this watch yet."""
        self._partial = []
        return [*self._command[:3], self.next_revision, self._command[4]]

    def receive(self, answer: Answer) -> list[WatchBatch]:
        """What an answer completes. Raises what a member refused the watch with, WatchCompacted, or ProtocolError."""
        try:
            if answer[0] != OK:
                raise _refusal(failure_of(answer), self.next_revision)
            if answer[1] == WATCH_CREATE:
                self.began = True
                self.next_revision = self.next_revision or answer[2] + 1
                return []
            if answer[1] != WATCH_EVENTS:
                raise ValueError(f"kind {answer[1]!r}")
            _, _, revision, more, events = answer
            return self._take(revision, more, [_event(*items) for items in events])
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise ProtocolError(f"it sent a watch something of unknown shape: {error}") from None

    def _take(self, revision: Revision, more: bool, events: list[Event]) -> list[WatchBatch]:
        batches: list[WatchBatch] = []
        for event in events:
            if self._partial and self._partial[-1].revision != event.revision:
                self._complete(batches)
            if event.revision >= self.next_revision:
                self._partial.append(event)
        if not more:
            self._complete(batches)
            self.next_revision = max(self.next_revision, revision + 1)
            if self._progress and not events and revision > self._told:
                batches.append(WatchBatch(revision, []))
            self._told = max(self._told, revision)
        return batches

    def _complete(self, batches: list[WatchBatch]) -> None:
        if self._partial:
            revision = self._partial[-1].revision
            batches.append(WatchBatch(revision, self._partial))
            self._partial = []
            self.next_revision = revision + 1


def _event(kind: int, kv: list[Any], prev: list[Any] | None) -> Event:
    return Event("delete" if kind else "put", KeyValue(*kv), KeyValue(*prev) if prev else None)


def _refusal(error: RaftKVError, wanted: Revision) -> RaftKVError:
    if error.code != "compacted":
        return error
    oldest = error.details.get("compact_revision", 0)
    return WatchCompacted(
        f"the watch wanted to go on at revision {wanted}, history begins at {oldest}: read anew, then watch from there",
        details={**error.details, "wanted_revision": wanted},
    )


class Places:
    """Where to watch: the leader first, then whoever is there. Gone through in rounds, with a pause between two of them."""

    __slots__ = ("_directory", "_draw", "_mismatches", "_rounds", "_visited")

    def __init__(self, directory: Directory, draw: Callable[[], float]) -> None:
        self._directory = directory
        self._draw = draw
        self._visited: set[str] = set()
        self._mismatches: set[str] = set()
        self._rounds = 0

    def choose(self, now: float) -> tuple[str, float]:
        """The next address, and how many seconds to wait before it is tried."""
        directory = self._directory
        pause_s = 0.0
        candidates = directory.candidates(now)
        if directory.leader_id != NOBODY:
            leading = [a for a in directory.addresses_of(directory.leader_id) if not directory.is_unreachable(a, now)]
            candidates = [*leading, *candidates]
        fresh = [address for address in candidates if address not in self._visited]
        if not fresh:
            self._visited.clear()
            ceiling_s = min(ROUND_BACKOFF_S_MAX, BACKOFF_S_MAX * 2 ** min(self._rounds, 8))
            pause_s = BACKOFF_S_MIN + (ceiling_s - BACKOFF_S_MIN) * self._draw()
            self._rounds += 1
            fresh = candidates
        self._visited.add(fresh[0])
        return fresh[0], pause_s

    def on_served(self) -> None:
        """A watch began there: the next search starts afresh."""
        self._visited.clear()
        self._mismatches.clear()
        self._rounds = 0

    def on_failed(self, address: str, now: float, error: RaftKVError) -> RaftKVError | None:
        """It was no good. Returns an error that ends the search: every endpoint belongs to another cluster."""
        self._visited.add(address)
        directory = self._directory
        if error.code in REFUSED_LOGINS:
            return error
        if isinstance(error, ClusterMismatch):
            directory.on_mismatch(address, now)
            self._mismatches.add(address)
            return error if self._mismatches >= set(directory.endpoints) else None
        members = error.details.get("members")
        peers = [peer_or_none(member) for member in members] if isinstance(members, list) else []
        directory.on_members([peer for peer in peers if peer is not None])
        if error.code in ("no_quorum", "shutting_down"):
            directory.on_refusal(address, now)
        elif error.code in STALE_LOGINS:
            self._visited.discard(address)
        elif error.code not in PASSING or error.code == "unreachable":
            directory.on_unreachable(address, now)
        return None
