"""One stream of a connection (RFC 9113, 5), and what may be sent on it: flow control of answers."""

from collections import deque
from typing import Any

from raftkv.units import Milliseconds


class Stream:
    """A request and its answer. `context` is the listener's own."""

    __slots__ = (
        "context",
        "id",
        "is_done",
        "is_heard",
        "queue",
        "queued_bytes",
        "receive_left",
        "send_left",
        "trailers",
    )

    def __init__(self, stream_id: int, send_left: int, receive_left: int) -> None:
        self.id = stream_id
        self.context: Any = None
        self.is_heard = False  # the client has ended its side
        self.is_done = False  # we have ended ours, or the stream was reset
        self.send_left = send_left
        self.receive_left = receive_left
        self.queue: deque[memoryview] = deque()  # for lack of window
        self.queued_bytes = 0
        self.trailers: bytes | None = None  # to follow what is queued


class Allowance:
    """How much of something a peer may do: `burst` at once, `per_second` for long."""

    __slots__ = ("_burst", "_left", "_per_ms", "_since_ms")

    def __init__(self, burst: int, per_second: int) -> None:
        self._burst = float(burst)
        self._left = float(burst)
        self._per_ms = per_second / 1000
        self._since_ms: Milliseconds = 0

    def take(self, now_ms: Milliseconds) -> bool:
        """Once more; False when it was once too often."""
        if self._left < 1:
            self._left = min(self._burst, self._left + (now_ms - self._since_ms) * self._per_ms)
            self._since_ms = now_ms
            if self._left < 1:
                return False
        elif self._left == self._burst:
            self._since_ms = now_ms
        self._left -= 1
        return True
