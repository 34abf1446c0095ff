"""Server-side waits: one request that is answered once, when what it waits for is true. Nobody polls.

Each wait knows the newest record of each of its keys, and an event touches only the waits of its key, so a thousand waiters for a
thousand keys cost a thousand small updates per event. What was true at some revision is answered with the records of that revision, also
when the next one undid it.
"""

from typing import Any, Callable, Final, Sequence

from raftkv.errors import DeadlineExceeded, RaftKVError
from raftkv.store.access import Access
from raftkv.store.mvcc import Mvcc
from raftkv.store.records import DELETE_EVENT, POSITION_BYTES, key_of, key_value, revision_of
from raftkv.units import Milliseconds, Revision
from raftkv.wire.commands import OK, Answer, failure
from raftkv.wire.watching import UNTIL_CHANGED, UNTIL_DIFFERS, UNTIL_EXISTS

_NEVER_MS: Final = 1 << 62


class Wait:
    """One valid WAIT on its way."""

    __slots__ = (
        "_all",
        "_condition",
        "_keys",
        "_revision",
        "_user",
        "answer",
        "command",
        "deadline_ms",
        "records",
        "unmet",
    )

    def __init__(
        self,
        command: Sequence[Any],
        answer: Callable[[Answer], None],
        deadline_ms: Milliseconds,
        user: str | None,
        auth_revision: int,
    ) -> None:
        self.command = command
        self._user = (user, auth_revision)
        _, self._condition, self._all, self._keys, self._revision = command
        self.answer = answer
        self.deadline_ms = deadline_ms
        self.records: dict[bytes, bytes | None] = dict.fromkeys(self._keys)
        self.unmet: set[bytes] = set(self._keys)

    def update(self, key: bytes, record: bytes | None) -> None:
        """The newest record of one of its keys; None when it does not exist."""
        self.records[key] = record
        if self._is_met(record):
            self.unmet.discard(key)
        else:
            self.unmet.add(key)

    def _is_met(self, record: bytes | None) -> bool:
        if self._condition == UNTIL_EXISTS:
            return record is not None
        if self._condition == UNTIL_CHANGED:
            return record is not None and revision_of(record) > self._revision
        if self._condition == UNTIL_DIFFERS:
            return record is None or revision_of(record) > self._revision
        return record is None

    @property
    def is_over(self) -> bool:
        return not self.unmet if self._all else len(self.unmet) < len(self.records)

    def judge(self, access: Access) -> None:
        """Raises what Access says of a user that may not read these keys."""
        access.check(self.command, *self._user)

    def answer_at(self, access: Access, revision: Revision) -> Answer:
        """What it waited for, in the order in which it was asked; a refusal if its user may not read it any more."""
        try:
            self.judge(access)
        except RaftKVError as error:
            return failure(error)
        kvs = [None if record is None else key_value(record) for record in map(self.records.__getitem__, self._keys)]
        return [OK, revision, kvs]


class Waits:
    """All waits of one member."""

    def __init__(self) -> None:
        self._mvcc: Mvcc | None = None
        self._access: Access  # with the store
        self._by_key: dict[bytes, dict[Wait, None]] = {}
        self._waits: dict[Wait, None] = {}
        self._earliest_ms: Milliseconds = _NEVER_MS

    def __len__(self) -> int:
        return len(self._waits)

    @property
    def is_active(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waits)

    def attach(self, mvcc: Mvcc, access: Access) -> None:
        """Another store: everybody looks again."""
        self._mvcc, self._access = mvcc, access
        for wait in list(self._waits):
            self._look(mvcc, wait)
            self._settle({wait: None}, mvcc.revision)

    def detach(self) -> None:
        """The store is going away."""
        self._mvcc = None

    def move(self, mvcc: Mvcc, access: Access) -> None:
        """The same state at another place: nobody's wait is over by it."""
        self._mvcc, self._access = mvcc, access

    def add(
        self,
        command: Sequence[Any],
        answer: Callable[[Answer], None],
        deadline_ms: Milliseconds,
        user: str | None = None,
        auth_revision: int = 0,
    ) -> Wait | None:
        """Answered at once (None), or later, from within `feed`, `expire` or `fail_all`.

        Raises what Access says of a user that may not read these keys.
        """
        wait = Wait(command, answer, deadline_ms, user, auth_revision)
        if self._mvcc is not None:
            wait.judge(self._access)
            self._look(self._mvcc, wait)
            if wait.is_over:
                answer(wait.answer_at(self._access, self._mvcc.revision))
                return None
        self._waits[wait] = None
        self._earliest_ms = min(self._earliest_ms, deadline_ms)
        for key in wait.records:
            self._by_key.setdefault(key, {})[wait] = None
        return wait

    def remove(self, wait: Wait) -> None:
        """Nobody wants its answer any more."""
        if wait not in self._waits:
            return
        del self._waits[wait]
        for key in wait.records:
            waiting = self._by_key[key]
            del waiting[wait]
            if not waiting:
                del self._by_key[key]

    def feed(self, records: Sequence[bytes]) -> None:
        """The events of an entry, in order: what is true after a revision counts, not what is true within it."""
        touched: dict[Wait, None] = {}
        revision = 0
        for record in records:
            key = key_of(record)
            waiting = self._by_key.get(key)
            if touched and revision_of(record) != revision:
                self._settle(touched, revision)
                touched = {}
                waiting = self._by_key.get(key)
            revision = revision_of(record)
            if waiting:
                newest = None if record[POSITION_BYTES] == DELETE_EVENT else record
                for wait in waiting:
                    wait.update(key, newest)
                touched.update(waiting)
        if touched:
            self._settle(touched, revision)

    def expire(self, now_ms: Milliseconds) -> None:
        """End those whose deadline has passed."""
        if now_ms < self._earliest_ms:
            return
        late = [wait for wait in self._waits if wait.deadline_ms <= now_ms]
        self._earliest_ms = min(
            (wait.deadline_ms for wait in self._waits if wait.deadline_ms > now_ms), default=_NEVER_MS
        )
        for wait in late:
            self.remove(wait)
            wait.answer(
                failure(DeadlineExceeded("what was waited for did not happen in time", may_have_happened=False))
            )

    def fail_all(self, error: RaftKVError) -> None:
        """Everybody has to wait elsewhere."""
        for wait in list(self._waits):
            self.remove(wait)
            wait.answer(failure(error))

    def _look(self, mvcc: Mvcc, wait: Wait) -> None:
        for key in wait.records:
            wait.update(key, mvcc.get(key))

    def _settle(self, touched: dict[Wait, None], revision: Revision) -> None:
        for wait in touched:
            if wait.is_over:
                self.remove(wait)
                wait.answer(wait.answer_at(self._access, revision))
