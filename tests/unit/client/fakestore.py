"""What a real cluster's apply does, in the smallest honest form: keys, revisions, and exactly-once sessions.

One FakeStore stands for the replicated state, so all members of a FakeCluster share it. The rules of sessions are those of
wire/commands.py: registration travels with a write, answers in the window are kept, below it a retry is refused.
"""

from typing import Any

from raftkv.errors import NotANumber, RaftKVError, SessionExpired, SessionWindow
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
    INCREMENT,
    KEYS_ONLY,
    LESS,
    NOT_EQUAL,
    OK,
    PREV_KV,
    PUT,
    RANGE,
    SORT_DESCEND,
    TXN,
    Answer,
    Command,
    failure,
)

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

    def read(self, command: Command) -> Answer:
        if command[0] == GET:
            return [OK, self.revision, self.items.get(command[2])]
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
            self._put(command[2], str(number).encode(), revision)
            return [revision, number]
        if operation == APPEND:
            old = self.items.get(command[2])
            value = (old[5] if old else b"") + command[3]
            self._put(command[2], value, revision)
            return [revision, len(value)]
        if operation == RANGE:
            return self._range(command)
        assert operation == TXN, f"operation {operation}"
        succeeded = all(self._holds(compare) for compare in command[2])
        branch = command[3] if succeeded else command[4]
        return [revision, succeeded, [[item[0], *self._operate(item, revision)] for item in branch]]

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
