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
        "_settled",
        "ack_below",
        "gone",
        "id",
        "opened_at",
        "registered",
        "ttl_s",
        "used_at",
        "window",
    )

    def __init__(self, session_id: bytes, now: float, *, window: int = WINDOW, ttl_s: float = DEFAULT_TTL_S) -> None:
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
        self.opened_at = now
        """When the first write was opened; before that it means nothing."""
        self.used_at = now
        self._next = 1
        self._settled: set[int] = set()

    @property
    def outstanding(self) -> int:
        return self._next - self.ack_below - len(self._settled)

    @property
    def has_room(self) -> bool:
        """The cluster keeps the answers of one window: a sequence beyond it has to wait."""
        return self._next - self.ack_below < self.window

    def open(self, now: float) -> int:
        """The sequence of a new write."""
        sequence = self._next
        assert sequence - self.ack_below < self.window, "a write waits outside of the window"
        self._next = sequence + 1
        self.used_at = now
        if sequence == 1:
            self.opened_at = now
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
        """Idle so long that the cluster may soon drop it, and nothing would be lost by a new one."""
        return 1 < self._next == self.ack_below and now - self.used_at > self.ttl_s / 2

    def retry_refusal(self, now: float) -> RaftKVError | None:
        """Why an uncertain write may not be sent once more under this session; None when it may."""
        if self.gone:
            return SessionExpired()
        if not self.registered and now - self.opened_at > self.ttl_s / 2:
            # The first write may have registered the session and the session may have died since: registering it a second time
            # could do the write twice.
            return OutcomeUnknown("the write may have happened: no answer came before its session may have expired")
        return None


class Sessions:
    """The current session of one client; a new one takes its place when it is idle for long or gone."""

    __slots__ = ("_draw_id", "_window", "current", "ttl_s")

    def __init__(self, draw_id: Callable[[], bytes], now: float, *, window: int = WINDOW) -> None:
        self._draw_id = draw_id
        self._window = window
        self.ttl_s = DEFAULT_TTL_S
        self.current = self._begin(now)

    def renew_if_stale(self, now: float) -> bool:
        """Before a write is opened. True when the session changed: connections greet with its id, so they have to be new too."""
        if not self.current.is_stale(now):
            return False
        self.current = self._begin(now)
        return True

    def expire(self, session: Session, now: float) -> bool:
        """The cluster does not know this session (any more). True when it was the current one."""
        session.gone = True
        if session is not self.current:
            return False
        self.current = self._begin(now)
        return True

    def _begin(self, now: float) -> Session:
        return Session(self._draw_id(), now, window=self._window, ttl_s=self.ttl_s)
