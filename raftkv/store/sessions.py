"""Client sessions: every write applies exactly once, however often it is sent (Raft dissertation 6.3).

A session remembers the answers to its writes by sequence, within a window that the client moves up with `ack_below`. A
retry inside the window gets the first answer; below it, or for a session that is not known, it is refused, because nobody
can tell any more. Decided in apply, from the log alone. Sessions are few and small next to the data: all live in memory,
and those that changed are written with each commit.
"""

from collections import OrderedDict
from typing import Any, Final, Iterator

import msgpack

from raftkv.store.keyspace import SESSIONS, Item, Keyspace
from raftkv.units import Milliseconds
from raftkv.wire.commands import Answer
from raftkv.wire.settings import Settings

SMALL_ANSWER_BYTES: Final = 64  # taken for any answer without keys and values in it; never dropped
_SCAN_ITEMS: Final = 1024
_SCAN_BYTES: Final = 16 * 1024 * 1024


def _pack(items: Any) -> bytes:
    packed: bytes = msgpack.packb(items, use_bin_type=True)
    return packed


SessionState = tuple[int, int, str | None, list[tuple[int, Answer | None]]]


class Session:
    """One client's window. An answer that was too large to keep is None. Answers are kept in the order of their writes."""

    __slots__ = ("ack_below", "answer_bytes", "answers", "deadline_ms", "large", "user")

    def __init__(self, user: str | None) -> None:
        self.user = user
        self.ack_below = 0
        self.deadline_ms: Milliseconds = 0
        self.answers: dict[int, Answer | None] = {}
        self.large: dict[int, int] = {}  # bytes of the answers that are worth dropping, oldest first
        self.answer_bytes = 0  # of the large ones

    def acknowledge(self, ack_below: int) -> None:
        """Forget the answers that the client has received."""
        answers = self.answers
        if ack_below <= self.ack_below:
            return
        if ack_below - self.ack_below <= len(answers):
            gone = [sequence for sequence in range(self.ack_below, ack_below) if sequence in answers]
        else:
            gone = [sequence for sequence in answers if sequence < ack_below]
        for sequence in gone:
            del answers[sequence]
            if self.large:
                self.answer_bytes -= self.large.pop(sequence, 0)
        self.ack_below = ack_below

    def keep(self, sequence: int, answer: Answer, settings: Settings) -> None:
        """Keep the answer to a write; over the bound the oldest large ones give way to a marker."""
        answers = self.answers
        assert sequence not in answers, "a write is answered once"
        # Hot path: nearly all answers are three small items.
        if len(answer) == 3 and type(answer[2]) is not list:
            answers[sequence] = answer
            return
        assert self.ack_below <= sequence < self.ack_below + settings.session_window, "the window bounds the answers"
        size = answer_bytes(answer)
        if size <= SMALL_ANSWER_BYTES:
            self.answers[sequence] = answer
            return
        if size > settings.session_answer_bytes_max:
            self.answers[sequence] = None
            return
        self.answers[sequence] = answer
        self.large[sequence] = size
        self.answer_bytes += size
        while self.answer_bytes > settings.session_answer_bytes_max:
            oldest = next(iter(self.large))
            self.answer_bytes -= self.large.pop(oldest)
            self.answers[oldest] = None

    def state(self) -> SessionState:
        """A copy for the commit, which packs it beside the loop; answers never change once made."""
        return self.ack_below, self.deadline_ms, self.user, list(self.answers.items())


class Sessions:
    """All sessions, the one that expires first in front: every use makes a session the last, and all have one TTL."""

    __slots__ = ("_dirty", "_sessions")

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._dirty: set[bytes] = set()  # changed since the last `take_changes`, gone ones included

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session_id: bytes) -> Session | None:
        return self._sessions.get(session_id)

    def create(self, session_id: bytes, user: str | None) -> Session:
        assert session_id not in self._sessions, "a session is created once"
        session = self._sessions[session_id] = Session(user)
        return session

    def use(self, session_id: bytes, session: Session, now_ms: Milliseconds, settings: Settings) -> None:
        """It lives on for a whole TTL, in ms of replicated time."""
        assert self._sessions[session_id] is session, "a known session"
        session.deadline_ms = now_ms + settings.session_ttl_ms
        self._sessions.move_to_end(session_id)
        self._dirty.add(session_id)

    def expire(self, now_ms: Milliseconds) -> list[bytes]:
        """Drop the sessions whose deadline has come; returns their ids, sorted."""
        expired: list[bytes] = []
        for session_id, session in self._sessions.items():
            if session.deadline_ms > now_ms:
                break
            expired.append(session_id)
        for session_id in expired:
            del self._sessions[session_id]
        self._dirty.update(expired)
        return sorted(expired)

    def earliest_deadline_ms(self) -> Milliseconds | None:
        """When the next session expires, in replicated time; None without sessions."""
        for session in self._sessions.values():
            return session.deadline_ms
        return None

    def release(self, sessions_max: int) -> bool:
        """Let go of some, of sessions that nobody needs any more; True when none are left."""
        for _ in range(min(sessions_max, len(self._sessions))):
            self._sessions.popitem()
        return not self._sessions

    def take_changes(self) -> tuple[list[tuple[bytes, SessionState]], list[bytes]]:
        """What a commit has to write, and the ids that it has to delete; sorted, because sets have no order."""
        changed: list[tuple[bytes, SessionState]] = []
        gone: list[bytes] = []
        for session_id in sorted(self._dirty):
            session = self._sessions.get(session_id)
            if session is None:
                gone.append(session_id)
            else:
                changed.append((session_id, session.state()))
        self._dirty.clear()
        return changed, gone


def load_sessions(keyspace: Keyspace) -> Sessions:
    """The sessions as committed."""
    loaded: list[tuple[int, bytes, Session]] = []
    start: bytes | None = b"\0"
    while start is not None:
        window = keyspace.window(SESSIONS, start, None, _SCAN_ITEMS, _SCAN_BYTES)
        for session_id, data in window.items:
            session = _unpack_session(data)
            loaded.append((session.deadline_ms, session_id, session))
        start = window.resume
    sessions = Sessions()
    for _, session_id, session in sorted(loaded, key=lambda item: item[:2]):
        sessions._sessions[session_id] = session
    return sessions


def pack_sessions(changed: list[tuple[bytes, SessionState]]) -> Iterator[Item]:
    """The records of the table SESSIONS."""
    for session_id, state in changed:
        yield session_id, _pack(state)


def answer_bytes(answer: Answer) -> int:
    """What an answer takes when it is packed; the same on every member."""
    return len(_pack(answer))


def _unpack_session(data: bytes) -> Session:
    ack_below, deadline_ms, user, answers = msgpack.unpackb(data, strict_map_key=False)
    session = Session(user)
    session.ack_below, session.deadline_ms = ack_below, deadline_ms
    for sequence, answer in answers:
        session.answers[sequence] = answer
        if answer is not None:
            size = answer_bytes(answer)
            if size > SMALL_ANSWER_BYTES:
                session.large[sequence] = size
                session.answer_bytes += size
    return session
