"""What a replica needs from outside, as Protocols: a journal, a network, a state machine.

Production plugs in the WAL thread, the peer links and the LMDB store (daemon/loop.py); the simulator plugs in fakes. None of
these calls blocks: what takes time reports back later through a method of Replica.
"""

from typing import Any, Callable, Iterator, Protocol, Sequence

from raftkv.raft.messages import Configuration, Entry, HardState, Message, SnapshotMeta
from raftkv.replica.watching import Hub
from raftkv.units import Index, Milliseconds, NodeId, Revision, Term
from raftkv.wire.commands import Answer


class Journal(Protocol):
    """The durable log. Saves become durable in the order given; `Replica.on_journal_saved(ticket)` reports it."""

    def save(self, hard_state: HardState | None, entries: Sequence[Entry], snapshot: SnapshotMeta | None) -> int:
        """Queue one save and return its ticket, larger than all before. A set `snapshot` replaces the whole log."""
        ...

    def compact(self, index: Index, term: Term) -> None:
        """Entries up to `index` are not needed any more (queued behind the saves)."""
        ...


class Network(Protocol):
    """Sends and forgets: a message may be lost, delayed, doubled or reordered. Each call is a complete batch: it leaves at once."""

    def send(self, messages: Sequence[Message]) -> None: ...


class SnapshotReader(Protocol):
    """A finished snapshot of this member, held open while it is being sent."""

    meta: SnapshotMeta

    def fetch(self, offset: int, size_max: int, deliver: Callable[[bytes], None]) -> None:
        """Read up to `size_max` bytes and give them to `deliver`, at once or in a later turn of the owner; in order."""
        ...

    def close(self) -> None: ...


class ReadCursor(Protocol):
    """A range on its way: `step` (raises a RaftKVError) until it is True, then `answer`."""

    def step(self) -> bool: ...

    def answer(self) -> Answer: ...


class LeaseState(Protocol):
    """A lease as replicated: what it was granted, what a new leader has to give it, and its keys."""

    ttl_ms: Milliseconds
    remaining_ms: Milliseconds
    keys: set[bytes]


class LeaseTable(Protocol):
    """The replicated leases, by id. `news`: whether `take_news` has something to give."""

    news: list[tuple[int, bool]]

    def __len__(self) -> int: ...

    def __contains__(self, lease_id: int, /) -> bool: ...

    def __iter__(self) -> Iterator[int]: ...

    def get(self, lease_id: int) -> LeaseState | None: ...

    def take_news(self) -> Sequence[tuple[int, bool]]:
        """Which were granted (True) or ended (False) since the last call, in order."""
        ...


class AccessControl(Protocol):
    """Who may do what, by what is applied. Each check raises a RaftKVError for what may not be done."""

    @property
    def is_on(self) -> bool:
        """False while nobody has to log in: then nothing else need be asked."""
        ...

    def check(self, command: Sequence[Any], user: str | None, auth_revision: int) -> None:
        """Judge a valid command and who asks for it."""
        ...

    def check_caller(self, user: str | None, auth_revision: int) -> None:
        """Judge only who asks."""
        ...


class StateMachine(Protocol):
    """The deterministic store. `apply` is called once per committed entry, in order, without gaps."""

    @property
    def applied_index(self) -> Index: ...

    @property
    def durable_applied_index(self) -> Index:
        """Log compaction never passes it."""
        ...

    @property
    def clock_ms(self) -> Milliseconds:
        """Replicated time of the last applied entry."""
        ...

    @property
    def revision(self) -> Revision: ...

    @property
    def digest(self) -> int: ...

    @property
    def leases(self) -> LeaseTable:
        """The leases at the applied state; asked for anew each time, because a snapshot replaces them."""
        ...

    @property
    def access(self) -> AccessControl:
        """Who may do what at the applied state; asked for anew each time, because a snapshot replaces it."""
        ...

    @property
    def watches(self) -> Hub:
        """Who wants to hear of events; outlives a replacement of the store."""
        ...

    @property
    def has_room(self) -> bool:
        """False while the overlay is over its bound: take no more writes."""
        ...

    def apply(self, entry: Entry) -> list[list[Answer]]:
        """Apply one entry; one list of answers per write group of the entry, aligned with its commands."""
        ...

    def read(self, command: Sequence[Any]) -> Answer:
        """Answer a point read at the applied state; raises a RaftKVError."""
        ...

    def range_cursor(self, command: Sequence[Any]) -> ReadCursor:
        """Begin a range at the applied state; raises a RaftKVError."""
        ...

    # Snapshots: every call returns at once; the work is done elsewhere and reported through Replica.

    def begin_snapshot(self, configuration: Configuration) -> None:
        """Make a snapshot of the durable state; reported by `Replica.on_snapshot_made(reader)` (or failed: None)."""
        ...

    def receive_chunk(self, meta: SnapshotMeta, offset: int, data: bytes) -> int:
        """Store a chunk of an incoming snapshot; returns the next offset wanted (chunks that do not fit are ignored)."""
        ...

    def begin_install(self, meta: SnapshotMeta) -> None:
        """All chunks are here: verify and swap in; reported by `Replica.on_snapshot_installed(meta, ok)`."""
        ...


__all__ = ["Journal", "Network", "NodeId", "SnapshotReader", "StateMachine"]
