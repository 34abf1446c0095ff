"""The port below the store: an ordered map of a few named tables, changed by atomic, durable groups.

Two twins implement it: lmdb_keyspace.py on disk and memory_keyspace.py for the simulator and the tests. Reads see the
state as of the last `renew`, so what a thread commits never changes under a reader's feet. A group is committed by one
thread at a time; reads and `renew` belong to one other thread. No Raft, no revisions, no user-visible rules in here.

| table | key | value |
|---|---|---|
| META | name | applied index, term, revision, clock, digest, compact revision; cluster, members, settings; users and roles (auth.py) |
| HEAD | user key | the newest record of the key (records.py); a deleted key has none |
| LOG | revision and sub of the page's first event, 8 + 4 bytes | a page of events in order (pages.py); only ever appended to |
| PAST | encoded user key + oldest revision and sub in it | pointers into LOG, superseded versions and tombstones (past.py) |
| SESSIONS | session id | the session (sessions.py) |
| LEASES | lease id, or lease id + user key | the lease; that the key hangs on it (leases.py) |

Compaction (compaction.py) drops what PAST shows as superseded by then from LOG, then its pointers; it never touches HEAD.
"""

from dataclasses import dataclass, field
from typing import Final, Iterable, Protocol, Sequence, TypeAlias

META: Final = 0
HEAD: Final = 1
LOG: Final = 2
PAST: Final = 3
SESSIONS: Final = 4
LEASES: Final = 5

TABLE_NAMES: Final = (b"meta", b"head", b"log", b"past", b"sessions", b"leases")

SHARED_KEY_BYTES: Final = 480
"""LMDB takes keys of at most 511 bytes: keys of this length or more share one record under their first bytes (buckets.py)."""

Item: TypeAlias = tuple[bytes, bytes]


@dataclass(slots=True)
class TableChange:
    """Part of a group: keys to set and keys to drop in one table. `append`: all of `puts` lie behind the last key."""

    table: int
    puts: Sequence[Item] = ()
    deletes: Sequence[bytes] = ()
    append: bool = False


@dataclass(slots=True)
class Window:
    """Some items of a table in key order. `resume` is the first key not looked at yet, None at the end of the range."""

    items: list[Item] = field(default_factory=list)
    resume: bytes | None = None


class Keyspace(Protocol):
    """Any key from 1 byte up is accepted; None as `end` means to the end of the table."""

    def get(self, table: int, key: bytes) -> bytes | None: ...

    def window(self, table: int, start: bytes, end: bytes | None, items_max: int, bytes_max: int) -> Window:
        """Items with start <= key < end: at least one if there is any, and no more once a bound is reached."""
        ...

    def keys(self, table: int, start: bytes, end: bytes | None, items_max: int) -> tuple[list[bytes], bytes | None]:
        """As `window`, without the values."""
        ...

    def floor(self, table: int, key: bytes) -> Item | None:
        """The item with the greatest key <= `key`. Only for tables whose keys are all below SHARED_KEY_BYTES."""
        ...

    def commit(self, changes: Iterable[TableChange]) -> None:
        """Make all of the changes durable, or none.

        Raises NoSpace when disk or map are full (nothing changed), DiskFailure for any other refusal of the disk.
        """
        ...

    def renew(self) -> None:
        """Reads see everything that has been committed."""
        ...

    def copy(self, path: str) -> None:
        """Write the committed state to a new file, compacted and durable. Safe from any thread; raises NoSpace or DiskFailure."""
        ...

    def allocated_bytes(self) -> int:
        """Bytes on disk, including pages that are free for reuse."""
        ...

    def used_bytes(self) -> int:
        """Bytes in use, without free pages; what a quota counts."""
        ...

    def close(self) -> None: ...
