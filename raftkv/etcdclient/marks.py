"""What makes a repeated write harmless on etcd, which has no sessions of its own: a *mark* in the write's own transaction.

A client has a lease, its session, and numbered keys on it. A write takes one of them, puts it in its transaction, and does so only if the key's version
is the one that the client knows. If an attempt has no answer, the next one finds the version one further exactly if the first was done; its
create or mod revision tells when, and what was answered then is read from history. An attempt that comes late finds the version gone on, or, when the
session has ended, no lease to put the mark on: it does nothing.

A mark whose write ended in doubt (a deadline, a cancellation) is put one further before the next write of the client, and never used again: so what
was given up is done before what the client did later, or never, as in a session of raftkv.
"""

import os
from itertools import count
from typing import Callable, Final

MARKS_PREFIX: Final = b"raftkv-sessions/"
TTL_S: Final = 60
RENEW_AFTER: Final = 0.5  # of the time to live
_SIGN: Final = 0x7EA5  # in front of the numbers of sessions
_SIGN_SHIFT: Final = 48


class Mark:
    """A key for one write at a time."""

    __slots__ = ("key", "version")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.version = 0


class Session:
    """A lease, and its marks. Threads share it."""

    __slots__ = ("_doubtful", "_free", "_numbers", "gone", "lease_id", "renew_at", "valid_until")

    def __init__(self, lease_id: int, sent_at: float, ttl_s: float) -> None:
        self.lease_id = lease_id
        self.gone = False
        self._free: list[Mark] = []
        self._doubtful: dict[Mark, None] = {}
        self._numbers = count(1)
        self.renewed(sent_at, ttl_s)

    def renewed(self, sent_at: float, ttl_s: float) -> None:
        self.valid_until = sent_at + ttl_s
        self.renew_at = sent_at + ttl_s * RENEW_AFTER

    def take(self) -> Mark:
        """A mark for one write."""
        try:
            return self._free.pop()
        except IndexError:
            return Mark(MARKS_PREFIX + b"%x/%d" % (self.lease_id, next(self._numbers)))

    def give_back(self, mark: Mark) -> None:
        """Its write has ended for certain."""
        self._free.append(mark)

    def doubt(self, mark: Mark) -> None:
        """Its write was given up, and may still be under way."""
        self._doubtful[mark] = None

    def doubtful(self) -> list[Mark]:
        """Those that have to be put one further before the next write."""
        return list(self._doubtful)

    def settle(self, marks: list[Mark]) -> None:
        """They were."""
        for mark in marks:
            self._doubtful.pop(mark, None)


class Sessions:
    """The session of one client. Which call opens it is the driver's business: one at a time."""

    __slots__ = ("_clock", "_draw_id", "current")

    def __init__(self, clock: Callable[[], float], draw_id: Callable[[], int]) -> None:
        self.current: Session | None = None
        self._clock = clock
        self._draw_id = draw_id

    @property
    def is_due(self) -> bool:
        """It has to be opened or renewed before the next write."""
        session = self.current
        return session is None or session.gone or self._clock() >= session.renew_at

    def now(self) -> float:
        return self._clock()

    def draw_id(self) -> int:
        return self._draw_id()


def draw_lease_id() -> int:
    """A number that nobody else has drawn: a second attempt finds what the first one granted."""
    return 1 + int.from_bytes(os.urandom(8), "little") % (_SIGN << _SIGN_SHIFT)


def draw_session_id() -> int:
    """The same, of those that are recognised as sessions."""
    return _SIGN << _SIGN_SHIFT | int.from_bytes(os.urandom(6), "little")


def is_session(lease_id: int) -> bool:
    """Whether a lease is a client's session, and nobody's who asked for a lease."""
    return lease_id >> _SIGN_SHIFT == _SIGN


def covers_marks(key: bytes, range_end: bytes) -> bool:
    """Whether a range has marks in it: to delete those together with putting one is a contradiction that etcd refuses."""
    if not range_end:
        return key.startswith(MARKS_PREFIX)
    past = MARKS_PREFIX[:-1] + bytes((MARKS_PREFIX[-1] + 1,))
    return key < past and (range_end == b"\0" or range_end > MARKS_PREFIX)
