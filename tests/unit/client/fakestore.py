"""What a real cluster's apply does, in the smallest honest form: keys, revisions, and exactly-once sessions.

One FakeStore stands for the replicated state, so all members of a FakeCluster share it. The rules of sessions are those of
wire/commands.py: registration travels with a write, answers in the window are kept, below it a retry is refused.
"""

from typing import Any

from raftkv.errors import (
    FencingTokenStale,
    LeaseExists,
    LeaseNotFound,
    NotANumber,
    RaftKVError,
    SessionExpired,
    SessionWindow,
)
from raftkv.wire.commands import (
    APPEND,
    COMPARE_CREATE,
    COMPARE_MOD,
    COMPARE_VALUE,
    COMPARE_VERSION,
    COUNT_ONLY,
    DELETE_RANGE,
    EQUAL,
    GET,
    GREATER,
    GUARDED,
    INCREMENT,
    KEYS_ONLY,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASE_TTL,
    LEASES,
    LESS,
    NOT_EQUAL,
    OK,
    PREV_KV,
    PUT,
    RANGE,
    READ_TXN,
    SORT_DESCEND,
    TXN,
    WITH_KEYS,
    Answer,
    Command,
    failure,
)
from raftkv.wire.protocol import KEEP_ALIVE

WINDOW = 1024


class FakeSession:
    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}
        self.ack_below = 1


class FakeStore:
    def __init__(self) -> None:
        self.revision = 1
        self.history: dict[int, dict[bytes, list[Any]]] = {1: {}}
        self.items: dict[bytes, list[Any]] = {}
        self.sessions: dict[bytes, FakeSession] = {}
        self.applied: list[Command] = []
        """Every write that took effect, in order: what exactly-once is judged by."""
        self.leases: dict[int, int] = {}
        """Granted times in ms; nothing expires here unless a test deletes it."""
        self.page_keys = 0
        """Ranges are cut at so many keys, as a real member cuts them at so many bytes; 0: never."""

    def write(self, command: Command, session_id: bytes | None, register: bool, ack_below: int) -> Answer:
        sequence = command[1]
        if session_id is None or not sequence:
            return self._apply(command)
        session = self.sessions.get(session_id)
        if session is None:
            if not register:
                return failure(SessionExpired())
            session = self.sessions[session_id] = FakeSession()
        if ack_below > session.ack_below:
            session.ack_below = ack_below
            session.answers = {s: a for s, a in session.answers.items() if s >= ack_below}
        if not session.ack_below <= sequence < session.ack_below + WINDOW:
            return failure(SessionWindow(f"sequence {sequence}, window from {session.ack_below}"))
        if sequence not in session.answers:
            session.answers[sequence] = self._apply(command)
        return session.answers[sequence]

    def ask(self, command: Command) -> Answer:
        """What only a leader answers."""
        if command[0] == KEEP_ALIVE:
            return [OK, self.revision, [self.leases.get(lease_id, 0) for lease_id in command[1]]]
        assert command[0] == LEASE_TTL, f"operation {command[0]}"
        _, flags, lease_id = command
        ttl_ms = self.leases.get(lease_id)
        if ttl_ms is None:
            return [OK, self.revision, -1, 0, []]
        keys = sorted(key for key, items in self.items.items() if items[4] == lease_id)
        return [OK, self.revision, ttl_ms - 1, ttl_ms, keys if flags & WITH_KEYS else []]

    def read(self, command: Command) -> Answer:
        if command[0] == LEASES:
            return [OK, self.revision, sorted(self.leases)]
        if command[0] == GET:
            return [OK, self.revision, self.items.get(command[2])]
        if command[0] == READ_TXN:
            return [OK, *self._operate([TXN, *command[1:]], self.revision)]
        return [OK, *self._range(command)]

    def _apply(self, command: Command) -> Answer:
        self.applied.append(command)
        self.items = {key: list(items) for key, items in self.items.items()}
        before = self.revision
        try:
            answer: Answer = [OK, *self._operate(command, before + 1)]
        except RaftKVError as error:
            return failure(error)
        self.revision = before + 1
        self.history[self.revision] = self.items
        return answer

    def _operate(self, command: Command, revision: int) -> list[Any]:
        operation = command[0]
        if operation == GUARDED:
            for key, create_revision in command[2]:
                if (self.items[key][1] if key in self.items else 0) != create_revision:
                    raise FencingTokenStale
            return self._operate(command[3], revision)
        if operation == LEASE_GRANT:
            lease_id = command[2] or 1000 + len(self.leases)
            if lease_id in self.leases:
                raise LeaseExists
            self.leases[lease_id] = command[3]
            return [revision, lease_id, command[3]]
        if operation == LEASE_REVOKE:
            if self.leases.pop(command[2], None) is None:
                raise LeaseNotFound
            doomed = [key for key, items in self.items.items() if items[4] == command[2]]
            for key in doomed:
                del self.items[key]
            return [revision, len(doomed)]
        if operation == PUT:
            previous = self._put(command[2], command[3], revision, command[4])
            return [revision, previous if command[5] & PREV_KV else None]
        if operation == DELETE_RANGE:
            found = self._keys(command[2], command[3], self.items)
            gone = [self.items.pop(key) for key in found]
            return [revision, len(gone), gone if command[4] & PREV_KV else []]
        if operation == INCREMENT:
            old = self.items.get(command[2])
            try:
                number = int(old[5] if old else b"0") + command[3]
            except ValueError:
                raise NotANumber from None
            self._put(command[2], str(number).encode(), revision, self._lease_after(old, command))
            return [revision, number]
        if operation == APPEND:
            old = self.items.get(command[2])
            value = (old[5] if old else b"") + command[3]
            self._put(command[2], value, revision, self._lease_after(old, command))
            return [revision, len(value)]
        if operation == RANGE:
            return self._range(command)
        assert operation == TXN, f"operation {operation}"
        succeeded = all(self._holds(compare) for compare in command[2])
        branch = command[3] if succeeded else command[4]
        return [revision, succeeded, [[item[0], *self._operate(item, revision)] for item in branch]]

    @staticmethod
    def _lease_after(old: list[Any] | None, command: Command) -> int:
        return int(old[4] if old else command[4] if len(command) > 4 else 0)

    def _put(self, key: bytes, value: bytes, revision: int, lease: int = 0) -> list[Any] | None:
        old = self.items.get(key)
        created, version = (old[1], old[3] + 1) if old else (revision, 1)
        self.items[key] = [key, created, revision, version, lease, value]
        return old

    def _holds(self, compare: list[Any]) -> bool:
        result, target, key, operand, _ = compare
        items = self.items.get(key)
        if target == COMPARE_VALUE and items is None:
            return False
        position = {COMPARE_VERSION: 3, COMPARE_CREATE: 1, COMPARE_MOD: 2, COMPARE_VALUE: 5}.get(target, 4)
        actual = items[position] if items else 0
        return bool(
            {
                EQUAL: actual == operand,
                NOT_EQUAL: actual != operand,
                GREATER: actual > operand,
                LESS: actual < operand,
            }[result]
        )

    def _range(self, command: Command) -> list[Any]:
        _, flags, start, end, limit, revision, order, *_ = command
        items = self.history[revision] if revision else self.items
        keys = self._keys(start, end, items)
        if order == SORT_DESCEND:
            keys.reverse()
        count = len(keys)
        if flags & COUNT_ONLY:
            return [self.revision, [], False, count]
        cut = min(limit or count, self.page_keys or count)
        found = [items[key] for key in keys[:cut]]
        if flags & KEYS_ONLY:
            found = [[*kv[:5], b""] for kv in found]
        return [self.revision, found, cut < count, count]

    @staticmethod
    def _keys(start: bytes, end: bytes, items: dict[bytes, list[Any]]) -> list[bytes]:
        if not end:
            return [start] if start in items else []
        return sorted(key for key in items if key >= start and (end == b"\0" or key < end))
