"""What a peer may do that asks for nothing: pings, settings, windows, resets, empty frames (CVE-2023-44487 and its kin).

Each such frame costs us work, so there is an allowance of them by time. But what belongs to real work is no abuse, however often it comes: Go's
gRPC sends a ping with each round trip that brings data, others widen a window for each message. So requests and answers *earn* frames.
"""

from typing import Final

from raftkv.http2 import frames
from raftkv.http2.rules import (
    IDLE_FRAMES_BURST,
    IDLE_FRAMES_PER_SECOND,
    PING_INTERVAL_MS_MIN,
    RESETS_BURST,
    RESETS_PER_SECOND,
    Http2Error,
    PingRule,
)
from raftkv.units import Milliseconds

EARNED_BY_REQUEST: Final = 4
EARNED_BY_ANSWER: Final = 4  # and one more per KiB
_EARNED_MAX: Final = 65_536


class Allowance:
    """How much of something a peer may do: `burst` at once, `per_second` for long."""

    __slots__ = ("_burst", "_left", "_per_ms", "_since_ms")

    def __init__(self, burst: int, per_second: int) -> None:
        self._burst = float(burst)
        self._left = float(burst)
        self._per_ms = per_second / 1000
        self._since_ms: Milliseconds = 0

    def take(self, now_ms: Milliseconds, count: int = 1) -> bool:
        """So many more; False when that is too many."""
        if self._left < count:
            self._left = min(self._burst, self._left + (now_ms - self._since_ms) * self._per_ms)
            self._since_ms = now_ms
            if self._left < count:
                return False
        elif self._left == self._burst:
            self._since_ms = now_ms
        self._left -= count
        return True


class Patience:
    """With the peer of one connection. Methods raise Http2Error when it has run out."""

    __slots__ = (
        "_idle_frames",
        "_pings",
        "_resets",
        "earned",
        "now_ms",
    )

    def __init__(self, ping_interval_ms_min: Milliseconds = PING_INTERVAL_MS_MIN) -> None:
        self.now_ms: Milliseconds = 0  # of the current read
        self.earned = 0  # whoever receives a request or sends an answer adds to it
        self._pings = PingRule(ping_interval_ms_min)
        self._resets = Allowance(RESETS_BURST, RESETS_PER_SECOND)
        self._idle_frames = Allowance(IDLE_FRAMES_BURST, IDLE_FRAMES_PER_SECOND)

    def spend_frame(self) -> None:
        """For a frame that may belong to a request or an answer."""
        if self.earned > 0:
            self.earned = min(self.earned, _EARNED_MAX) - 1
        else:
            self.spend_idle(1)

    def spend_idle(self, count: int) -> None:
        """For frames that never belong to one, or that cost as much as so many."""
        if not self._idle_frames.take(self.now_ms, count):
            raise Http2Error(frames.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    def spend_reset(self) -> None:
        """For a stream that ends without its answer, by the peer's doing."""
        if not self._resets.take(self.now_ms):
            raise Http2Error(frames.ENHANCE_YOUR_CALM, "too many streams are reset")

    def on_ping(self, sent_count: int) -> None:
        """`sent_count` grows with everything that is sent but control frames."""
        self.spend_frame()
        self._pings.check(self.now_ms, sent_count)
