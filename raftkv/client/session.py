"""The client's half of exactly-once: session ids, sequences, the window, and what may be acknowledged. SANS-IO.

A write is opened (it gets the next sequence), stays outstanding over all its retries, and is settled when it has its answer or will
never be retried again. Everything below the lowest outstanding sequence is acknowledged with the next burst. The
session registers itself with its first writes and never anew: when the cluster says that it is gone, nobody knows what became of the
writes under way, so they end, and later writes begin a new session (dissertation 6.3).
"""

from typing import Callable, Final

from raftkv.errors import OutcomeUnknown, RaftKVError, SessionExpired

WINDOW: Final = 1024
DEFAULT_TTL_S: Final = 600.0


class Session:
    """One session id and the writes made under it."""

    __slots__ = (
        "_next",
        "_opened_at",
        "_settled",
        "_used_at",
        "ack_below",
        "gone",
        "id",
        "registered",
        "ttl_s",
        "window",
    )

    def __init__(self, session_id: bytes, *, window: int = WINDOW, ttl_s: float = DEFAULT_TTL_S) -> None:
        assert window > 0, "a session holds at least one write"
        assert ttl_s > 0, "and for some time"
        self.id = session_id
        self.window = window
        self.ttl_s = ttl_s
        self.ack_below = 1
        """Lower sequences are settled: the cluster may forget their answers."""
        self.registered = False
        """A write was answered under this session, so the cluster knows it."""
        self.gone = False
        """The cluster said that it does not know this session."""
        self._used_at = 0.0
        self._opened_at = 0.0
        self._next = 1
        self._settled: set[int] = set()

    @property
    def outstanding(self) -> int:
        """Writes that are opened and not settled."""
        return self._next - self.ack_below - len(self._settled)

    def open(self, now: float) -> int:
        """The sequence of a new write; 0 when it has to wait, or for another session.

        It waits outside of the window, because the cluster keeps the answers of one window only. A session that lay idle for half its
        time to live is left: the cluster may soon drop it, and with nothing outstanding nothing is lost by a new one.
        """
        sequence = self._next
        if sequence - self.ack_below >= self.window or (now > self._used_at + self.ttl_s / 2 and self.is_stale(now)):
            return 0
        self._next = sequence + 1
        self._used_at = now
        if sequence == 1:
            self._opened_at = now
        return sequence

    def settle(self, sequence: int) -> None:
        """This write has its answer, or will never be sent again."""
        assert self.ack_below <= sequence < self._next, "settled once, after it was opened"
        settled = self._settled
        if sequence != self.ack_below:
            settled.add(sequence)
            return
        sequence += 1
        while sequence in settled:
            settled.remove(sequence)
            sequence += 1
        self.ack_below = sequence

    def is_stale(self, now: float) -> bool:
        """Idle for half its time to live, with nothing outstanding."""
        return 1 < self._next == self.ack_below and now > self._used_at + self.ttl_s / 2

    def retry_refusal(self, now: float) -> RaftKVError | None:
        """Why an uncertain write may not be sent once more under this session; None when it may."""
        if self.gone:
            return SessionExpired()
        if not self.registered and now - self._opened_at > self.ttl_s / 2:
            # The first write may have registered the session, and the session may have died since: to register it a second time
            # could do the write twice.
            return OutcomeUnknown("the write may have happened: no answer came before its session may have expired")
        return None


class Sessions:
    """The current session of one client; a new one takes its place when it is idle for long or gone."""

    __slots__ = ("_draw_id", "_ttl_s", "_window", "current")

    def __init__(self, draw_id: Callable[[], bytes], *, window: int = WINDOW, ttl_s: float = DEFAULT_TTL_S) -> None:
        self._draw_id = draw_id
        self._window = window
        self._ttl_s = ttl_s
        self.current = self._begin()

    def learn_ttl(self, ttl_s: float) -> None:
        """Members tell in their greeting how long an idle session lives."""
        if ttl_s > 0:
            self._ttl_s = self.current.ttl_s = ttl_s

    def renew_if_stale(self, now: float) -> bool:
        """Before a write is opened. True when the session changed: connections greet with its id, so they have to be new too."""
        if not self.current.is_stale(now):
            return False
        self.current = self._begin()
        return True

    def renew(self) -> None:
        """A new session whatever the old one's state, as in a forked child: sequences of two processes would collide."""
        self.current = self._begin()

    def expire(self, session: Session) -> None:
        """The cluster does not know this session (any more)."""
        session.gone = True
        if session is self.current:
            self.current = self._begin()

    def _begin(self) -> Session:
        return Session(self._draw_id(), window=self._window, ttl_s=self._ttl_s)
