"""What leaves a connection, within the windows and frame sizes of the peer (RFC 9113, 6.9). What does not fit is queued per stream."""

from collections import OrderedDict, deque
from typing import Callable, Final

from raftkv.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    HEAD,
    HEADERS,
    WINDOW_BYTES_DEFAULT,
    WINDOW_BYTES_MAX,
    frame,
)
from raftkv.http2.streams import Stream

_pack_head = HEAD.pack
_LAST: Final = END_HEADERS | END_STREAM


class Sender:
    """The frames of one connection that are ready, and the queues of streams that have no window."""

    def __init__(self, on_room: Callable[[Stream], None]) -> None:
        self._on_room = on_room
        self._ready: list[bytes] = []
        self._left = WINDOW_BYTES_DEFAULT  # of the connection's window
        self._queued: dict[int, Stream] = {}
        # Those of them that have room of their own and wait for that of the connection: a window that opens by a byte must not cost a look at all.
        self._wanting: OrderedDict[int, Stream] = OrderedDict()
        self._after: dict[int, bytes] = {}
        self.queued_bytes = 0
        self.sent_count = 0  # of header blocks and parts of bodies, at least when anything was sent
        self.frame_bytes_max = FRAME_BYTES_MAX
        self.initial_window_bytes = WINDOW_BYTES_DEFAULT

    def take(self) -> bytes:
        """All that is ready, in one piece."""
        ready, self._ready = self._ready, []
        return ready[0] if len(ready) == 1 else b"".join(ready)

    def control(self, encoded: bytes) -> None:
        """Frames that need no window."""
        self._ready.append(encoded)

    def send_response(self, stream: Stream, headers: bytes, data: bytes, trailers: bytes) -> None:
        """The usual answer, in the usual case in one go."""
        size = len(data)
        if (
            size <= self.frame_bytes_max
            and size <= self._left
            and size <= stream.send_extra + self.initial_window_bytes
        ):
            self._left -= size
            self.sent_count += 1
            stream_id = stream.id
            self._ready += (
                _pack_head(0, len(headers), HEADERS, END_HEADERS, stream_id),
                headers,
                _pack_head(size >> 8, size & 0xFF, DATA, 0, stream_id),
                data,
                _pack_head(0, len(trailers), HEADERS, _LAST, stream_id),
                trailers,
            )
            return
        self.send_headers(stream, headers, END_HEADERS)
        self.send_data(stream, data)
        self.end(stream, trailers)

    def send_headers(self, stream: Stream, block: bytes, flags: int) -> None:
        """One header block, within one frame."""
        assert len(block) <= FRAME_BYTES_MAX, "blocks of ours are small"
        self.sent_count += 1
        self._ready.append(frame(HEADERS, flags, stream.id, block))

    def send_data(self, stream: Stream, data: bytes) -> None:
        """A part of the body, at once or when the peer makes room."""
        is_queued = stream.id in self._queued
        size = len(data)
        if not is_queued and size <= self._left and size <= stream.send_extra + self.initial_window_bytes:
            self._send_frames(stream, memoryview(data))
            return
        if stream.queue is None:
            stream.queue = deque()
        stream.queue.append(memoryview(data))
        stream.queued_bytes += size
        self.queued_bytes += size
        if not is_queued:
            self._queued[stream.id] = stream
            self._drain(stream)

    def end(self, stream: Stream, block: bytes) -> None:
        """The last header block of a stream, behind what is queued."""
        if stream.id in self._queued:
            stream.trailers = block
        else:
            self.send_headers(stream, block, _LAST)

    def after(self, stream: Stream, encoded: bytes) -> None:
        """A frame behind all of the stream."""
        if stream.id in self._queued:
            self._after[stream.id] = encoded
        else:
            self._ready.append(encoded)

    def drop(self, stream: Stream) -> None:
        """The stream was reset: what is queued for it goes nowhere."""
        if self._queued.pop(stream.id, None) is not None:
            self._wanting.pop(stream.id, None)
            self.queued_bytes -= stream.queued_bytes
            stream.queue = None
            stream.queued_bytes = 0
            self._after.pop(stream.id, None)

    @property
    def queued_streams(self) -> int:
        """How many wait for room."""
        return len(self._queued)

    def lingering(self, stream_id: int) -> Stream | None:
        """A stream that is answered, and whose answer waits for room."""
        return self._queued.get(stream_id)

    def change_initial_window(self, size_bytes: int) -> None:
        """The peer's setting counts for open streams too (6.9.2). Costs a look at each that is queued."""
        self.initial_window_bytes = size_bytes
        for stream in self._queued.values():
            if stream.send_extra + size_bytes > 0:
                self._wanting[stream.id] = stream
        self._drain_wanting()

    def widen(self, increment_bytes: int) -> bool:
        """More room for the connection. False when it is too much."""
        self._left += increment_bytes
        if self._left > WINDOW_BYTES_MAX:
            return False
        self._drain_wanting()
        return True

    def widen_stream(self, stream: Stream, increment_bytes: int) -> bool:
        """More room for one stream. False when it is too much."""
        stream.send_extra += increment_bytes
        if stream.send_extra + self.initial_window_bytes > WINDOW_BYTES_MAX:
            return False
        if stream.id in self._queued:
            self._drain(stream)
        return True

    def _drain_wanting(self) -> None:
        wanting = self._wanting
        while wanting and self._left > 0:
            self._drain(next(iter(wanting.values())))  # sends something, or takes it out

    def _drain(self, stream: Stream) -> None:
        """Send of the stream what fits."""
        queue = stream.queue
        assert queue is not None, "what is queued has a queue"
        while queue:
            data = queue[0]
            room = min(self._left, stream.send_extra + self.initial_window_bytes)
            if len(data) <= room:
                queue.popleft()
            elif room > 0:
                queue[0] = data[room:]
                data = data[:room]
            else:
                self._hold(stream)
                return
            stream.queued_bytes -= len(data)
            self.queued_bytes -= len(data)
            self._send_frames(stream, data)
        del self._queued[stream.id]
        self._wanting.pop(stream.id, None)
        if stream.trailers is not None:
            self.send_headers(stream, stream.trailers, _LAST)
            if (last := self._after.pop(stream.id, None)) is not None:
                self._ready.append(last)
        elif not stream.is_done:
            self._on_room(stream)

    def _hold(self, stream: Stream) -> None:
        """It waits: for the connection's room, behind all others, or for its own."""
        if stream.send_extra + self.initial_window_bytes > 0:
            self._wanting[stream.id] = stream
            self._wanting.move_to_end(stream.id)
        else:
            self._wanting.pop(stream.id, None)

    def _send_frames(self, stream: Stream, data: memoryview) -> None:
        size = len(data)
        self.sent_count += 1
        self._left -= size
        stream.send_extra -= size
        step = self.frame_bytes_max
        if size <= step:
            self._ready.append(frame(DATA, 0, stream.id, data))
            return
        for position in range(0, size, step):
            self._ready.append(frame(DATA, 0, stream.id, data[position : position + step]))
