"""What a peer may do (bounds of RFC 9113 and of ours), how a connection that goes beyond ends, and who is told of its requests."""

from typing import Any, Final, Protocol

from raftkv.http2 import frames
from raftkv.http2.streams import Stream
from raftkv.units import Milliseconds

STREAM_WINDOW_BYTES: Final = 1024 * 1024
CONNECTION_WINDOW_BYTES: Final = 16 * 1024 * 1024
HEADER_BLOCK_BYTES_MAX: Final = 64 * 1024
RESETS_BURST: Final = 4096  # a client whose deadlines all pass at once resets all that it has in flight
RESETS_PER_SECOND: Final = 512
IDLE_FRAMES_BURST: Final = 1024
IDLE_FRAMES_PER_SECOND: Final = 128
PING_INTERVAL_MS_MIN: Final = 5_000  # etcd's; closer ones are counted while nothing is sent
PING_STRIKES_MAX: Final = 2


class Http2Error(Exception):
    """The peer broke the protocol or asks too much: the connection ends with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class PingRule:
    """How often the peer may ping: as it likes beside answers, for clients measure the way with each part of a long one, and seldom in silence."""

    def __init__(self, interval_ms_min: Milliseconds = PING_INTERVAL_MS_MIN) -> None:
        self._interval_ms_min = interval_ms_min
        self._last_ms = -interval_ms_min
        self._strikes = 0
        self._sent_count = 0

    def check(self, now_ms: int, sent_count: int) -> None:
        """One ping; `sent_count` grows with everything sent but control frames. Raises Http2Error."""
        if sent_count != self._sent_count:
            self._sent_count, self._strikes = sent_count, 0
        elif now_ms - self._last_ms < self._interval_ms_min:
            self._strikes += 1
            if self._strikes > PING_STRIKES_MAX:
                raise Http2Error(frames.ENHANCE_YOUR_CALM, "too_many_pings")
        self._last_ms = now_ms


class Listener(Protocol):
    """What is told of the requests of a connection, from within `receive`."""

    def on_request(self, stream: Stream, head: Any) -> None:
        """Its header block; `stream.is_heard` when nothing follows."""
        ...

    def on_data(self, stream: Stream, data: bytes) -> None:
        """Part of its body; `stream.is_heard` when nothing follows. May be empty at the end."""
        ...

    def on_reset(self, stream: Stream) -> None:
        """It is over before its answer was: the client lost interest, or broke it."""
        ...

    def on_room(self, stream: Stream) -> None:
        """All that was queued for it has been sent."""
        ...


def first_frames(streams_max: int) -> bytes:
    """What a server begins with: its settings, and more room for the whole connection."""
    settings = {
        frames.MAX_CONCURRENT_STREAMS: streams_max,
        frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
        frames.MAX_HEADER_LIST_SIZE: HEADER_BLOCK_BYTES_MAX,
    }
    return frames.settings(settings) + frames.window_update(0, CONNECTION_WINDOW_BYTES - frames.WINDOW_BYTES_DEFAULT)


def unpadded(payload: bytes) -> bytes:
    """The payload of a padded frame without its padding. Raises Http2Error."""
    padding = payload[0] if payload else 0
    if not payload or padding >= len(payload):
        raise Http2Error(frames.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - padding]
