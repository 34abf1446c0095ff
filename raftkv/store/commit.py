"""The commit of one frozen overlay: everything up to one applied index, in one transaction of the keyspace.

`run` is for the thread that owns write transactions; it reads the frozen overlay, which nobody changes any more. What is
handed to the keyspace comes in pieces of a few thousand items, so that no single call keeps the interpreter lock for long
while the loop wants it. A key that was written a hundred times goes to HEAD once.
"""

from itertools import islice
from typing import Final, Iterator, Sequence

from raftkv.store.auth import AuthChanges
from raftkv.store.keyspace import HEAD, LEASES, LOG, META, PAST, SESSIONS, Item, Keyspace, TableChange
from raftkv.store.leases import LeaseChanges
from raftkv.store.meta import CLUSTER_KEY, STATE_KEY
from raftkv.store.overlay import Overlay
from raftkv.store.pages import pack_pages
from raftkv.store.past import pack_pointers
from raftkv.store.sessions import SessionState, pack_sessions
from raftkv.units import Index

_PIECE_ITEMS: Final = 2048
_PIECE_PAGES: Final = 64
_PIECE_SESSIONS: Final = 64


class CommitJob:
    """One group to be made durable. It may run again after NoSpace: nothing of it was kept then.

    `applied_index`: the log must be durable up to here before `run` is called.
    """

    __slots__ = (
        "_cluster",
        "_compaction",
        "_keyspace",
        "_leases",
        "_overlay",
        "_records",
        "_sessions",
        "_sessions_gone",
        "_state",
        "applied_index",
        "committed",
    )

    def __init__(
        self,
        keyspace: Keyspace,
        overlay: Overlay,
        applied_index: Index,
        *,
        state: bytes,
        cluster: bytes | None,
        sessions: list[tuple[bytes, SessionState]],
        sessions_gone: list[bytes],
        leases: LeaseChanges,
        records: Sequence[AuthChanges],
        compaction: list[TableChange],
    ) -> None:
        assert not overlay.fresh, "a frozen overlay is settled: its runs are all its keys"
        self._keyspace = keyspace
        self._overlay = overlay
        self._state = state
        self._cluster = cluster
        self._sessions = sessions
        self._sessions_gone = sessions_gone
        self._leases = leases
        self._records = records
        self._compaction = compaction
        self.applied_index = applied_index
        self.committed = False

    def run(self) -> None:
        """Commit and sync. Raises NoSpace (run it again later) or DiskFailure (the process has to end)."""
        assert not self.committed, "a job is done once"
        self._keyspace.commit(self._changes())
        self.committed = True

    def release(self) -> Overlay:
        """Hand back the overlay of a job that is done; the job keeps nothing of it."""
        assert self.committed, "what is not committed is still needed"
        overlay, self._overlay = self._overlay, Overlay()
        return overlay

    def _changes(self) -> Iterator[TableChange]:
        overlay = self._overlay
        for run in overlay.runs:
            for start in range(0, len(run), _PIECE_ITEMS):
                keys = run[start : start + _PIECE_ITEMS]
                yield self._head_change(keys)
                pointers = [
                    item for key in keys if key in overlay.past for item in pack_pointers(key, overlay.pointers(key))
                ]
                yield TableChange(PAST, pointers)
        pages = pack_pages(list(overlay.log.values()))
        while piece := list(islice(pages, _PIECE_PAGES)):
            yield TableChange(LOG, piece, append=True)
        yield TableChange(SESSIONS, deletes=self._sessions_gone)
        sessions = pack_sessions(self._sessions)
        while piece := list(islice(sessions, _PIECE_SESSIONS)):
            yield TableChange(SESSIONS, piece)
        yield TableChange(LEASES, deletes=self._leases.deletes())
        leases = iter(self._leases.puts())
        while piece := list(islice(leases, _PIECE_ITEMS)):
            yield TableChange(LEASES, piece)
        yield from self._compaction
        meta: list[Item] = [(STATE_KEY, self._state)]
        if self._cluster is not None:
            meta.append((CLUSTER_KEY, self._cluster))
        for changes in self._records:  # of users and roles, of pools
            yield TableChange(META, changes.puts, changes.deletes)
        yield TableChange(META, meta)

    def _head_change(self, keys: list[bytes]) -> TableChange:
        head = self._overlay.head
        puts: list[Item] = []
        deletes: list[bytes] = []
        for key in keys:
            record = head[key]
            if record is None:
                deletes.append(key)
            else:
                puts.append((key, record))
        return TableChange(HEAD, puts, deletes)
