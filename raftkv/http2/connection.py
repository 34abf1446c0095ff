"""The server side of one HTTP/2 connection: bytes in, calls of a listener, bytes out. Time is an argument.

What a peer can do to it is bounded: streams, sizes of frames and header blocks, the rate of everything that costs work and asks for nothing
(resets, pings, settings, empty frames; CVE-2023-44487 and its kin). Whoever goes beyond gets a GOAWAY, and the connection has failed.
"""

from typing import Callable, Final, Generic, TypeVar

from raftkv.http2 import frames
from raftkv.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    GOAWAY,
    HAS_PRIORITY,
    HEAD,
    HEAD_BYTES,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_ID_MAX,
    WINDOW_BYTES_MAX,
    WINDOW_UPDATE,
)
from raftkv.http2.headers import Field, HeaderDecoder, HeaderError, HeaderListTooLarge
from raftkv.http2.patience import EARNED_BY_ANSWER, EARNED_BY_REQUEST, Patience
from raftkv.http2.rules import (
    CONNECTION_WINDOW_BYTES,
    HEADER_BLOCK_BYTES_MAX,
    PING_INTERVAL_MS_MIN,
    STREAM_WINDOW_BYTES,
    Http2Error,
    Listener,
    first_frames,
    unpadded,
)
from raftkv.http2.sending import Sender
from raftkv.http2.streams import Stream
from raftkv.units import Milliseconds

Head = TypeVar("Head")


class Connection(Generic[Head]):
    """One connection of a server."""

    def __init__(
        self,
        listener: Listener,
        interpret: Callable[[list[Field]], Head],
        *,
        streams_max: int,
        ping_interval_ms_min: Milliseconds = PING_INTERVAL_MS_MIN,
    ) -> None:
        self._listener = listener
        self._decoder = HeaderDecoder(interpret, HEADER_BLOCK_BYTES_MAX)
        self.streams_max = streams_max  # may be lowered for a while; what is open stays
        self.streams: dict[int, Stream] = {}
        self.last_stream_id = 0
        self.is_closing = False  # GOAWAY was sent: no new streams
        self.has_failed = False
        self.is_greeted = False  # the client's first frame has come, which is its settings (3.4)
        self.sender = Sender(listener.on_room)
        self._preface_left = PREFACE
        self._rest = b""
        self._receive_left = CONNECTION_WINDOW_BYTES
        self._block: tuple[int, int, bytes] | None = None  # stream id, flags and what came so far of a header block
        self._patience = Patience(ping_interval_ms_min)
        self._handlers: Final = {
            DATA: self._on_data,
            HEADERS: self._on_headers,
            PRIORITY: self._on_priority,
            RST_STREAM: self._on_rst_stream,
            SETTINGS: self._on_settings,
            PUSH_PROMISE: self._on_push_promise,
            PING: self._on_ping,
            GOAWAY: self._on_goaway,
            WINDOW_UPDATE: self._on_window_update,
            CONTINUATION: self._on_continuation,
        }
        self.sender.control(first_frames(streams_max))

    @property
    def now_ms(self) -> Milliseconds:
        """Of the current read."""
        return self._patience.now_ms

    def take(self) -> bytes:
        """What is to be sent now."""
        return self.sender.take()

    def receive(self, data: bytes, now_ms: Milliseconds) -> None:
        """Work through what came. After an error `has_failed`: what `take` gives is the last, then the transport is closed."""
        if self.has_failed:
            return
        self._patience.now_ms = now_ms
        try:
            if self._preface_left:
                data = self._skip_preface(data)
            self._work(self._rest + data if self._rest else data)
        except Http2Error as error:
            self.fail(error.code, str(error))

    def fail(self, code: int, reason: str) -> None:
        """End the connection at once: a GOAWAY, and all streams are over."""
        self.has_failed = True
        self._rest = b""
        self.sender.control(frames.goaway(self.last_stream_id, code, reason.encode()))
        self.abandon()

    def abandon(self) -> None:
        """The transport is gone: so are all streams."""
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.is_done = True
            self.sender.drop(stream)
            self._listener.on_reset(stream)

    def announce_shutdown(self) -> None:
        """Tell the client to begin nothing new here; what it has sent meanwhile is still served."""
        self.sender.control(frames.goaway(STREAM_ID_MAX, frames.NO_ERROR, b"shutting down"))

    def refuse_new(self) -> None:
        """From now on new streams are not served: the client knows which it may begin elsewhere."""
        if not (self.is_closing or self.has_failed):
            self.is_closing = True
            self.sender.control(frames.goaway(self.last_stream_id, frames.NO_ERROR, b"shutting down"))

    # Answers. After the end of a stream, whoever ended it, they go nowhere.

    def respond(self, stream: Stream, headers: bytes, data: bytes, trailers: bytes) -> None:
        """A whole answer: two header blocks and one message between them."""
        if stream.is_done:
            return
        self._patience.earned += EARNED_BY_ANSWER + (len(data) >> 10)
        self.sender.send_response(stream, headers, data, trailers)
        self._close(stream)

    def send_headers(self, stream: Stream, block: bytes) -> None:
        if stream.is_done:
            return
        self.sender.send_headers(stream, block, END_HEADERS)

    def send_data(self, stream: Stream, data: bytes) -> None:
        if stream.is_done:
            return
        self._patience.earned += EARNED_BY_ANSWER + (len(data) >> 10)
        self.sender.send_data(stream, data)

    def end(self, stream: Stream, block: bytes) -> None:
        """Trailers behind all data; or headers and nothing else."""
        if stream.is_done:
            return
        self.sender.end(stream, block)
        self._close(stream)

    def reset(self, stream: Stream, code: int) -> None:
        """End a stream without an answer."""
        if not stream.is_done:
            stream.is_done = True
            self.sender.drop(stream)
            self.streams.pop(stream.id, None)
            self.sender.control(frames.rst_stream(stream.id, code))

    def _close(self, stream: Stream) -> None:
        stream.is_done = True
        if self.streams.pop(stream.id, None) is not None and not stream.is_heard:
            self.sender.after(stream, frames.rst_stream(stream.id, frames.NO_ERROR))

    # Frames in.

    def _skip_preface(self, data: bytes) -> bytes:
        expected = self._preface_left[: len(data)]
        if not data.startswith(expected):
            raise Http2Error(frames.PROTOCOL_ERROR, "this is not the preface of HTTP/2")
        self._preface_left = self._preface_left[len(expected) :]
        return data[len(expected) :]

    def _work(self, data: bytes) -> None:
        position, end = 0, len(data)
        unpack_head, handlers = HEAD.unpack_from, self._handlers
        if not self.is_greeted and end > 3:
            if data[3] != SETTINGS:
                raise Http2Error(frames.PROTOCOL_ERROR, "the first frame of a connection is its settings")
            self.is_greeted = end >= HEAD_BYTES
        while end - position >= HEAD_BYTES:
            high, low, kind, flags, stream_id = unpack_head(data, position)
            size = high << 8 | low
            if size > FRAME_BYTES_MAX:
                raise Http2Error(frames.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            payload_at = position + HEAD_BYTES
            if end - payload_at < size:
                break
            position = payload_at + size
            if self._block is not None and kind != CONTINUATION:
                raise Http2Error(frames.PROTOCOL_ERROR, "a header block is interrupted")
            handler = handlers.get(kind)
            if handler is None:
                self._patience.spend_idle(1)
            else:
                handler(flags, stream_id & 0x7FFFFFFF, data[payload_at:position])
            if self.has_failed:
                return
        self._rest = data[position:]

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_left -= size
        if self._receive_left < 0:
            raise Http2Error(frames.FLOW_CONTROL_ERROR, "more data than the connection's window")
        if self._receive_left < CONNECTION_WINDOW_BYTES // 2:
            self.sender.control(frames.window_update(0, CONNECTION_WINDOW_BYTES - self._receive_left))
            self._receive_left = CONNECTION_WINDOW_BYTES
        stream = self.streams.get(stream_id)
        if stream is None:
            self._on_closed_stream(stream_id)
            return
        if stream.is_heard:
            self._break_stream(stream, frames.STREAM_CLOSED)
            return
        stream.receive_left -= size
        if stream.receive_left < 0:
            self._break_stream(stream, frames.FLOW_CONTROL_ERROR)
            return
        if flags & PADDED:
            payload = unpadded(payload)
        if flags & END_STREAM:
            stream.is_heard = True
        elif stream.receive_left < STREAM_WINDOW_BYTES // 2:
            self.sender.control(frames.window_update(stream_id, STREAM_WINDOW_BYTES - stream.receive_left))
            stream.receive_left = STREAM_WINDOW_BYTES
        elif not payload:
            self._patience.spend_idle(1)
            return
        self._listener.on_data(stream, payload)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = unpadded(payload)
        if flags & HAS_PRIORITY:
            if len(payload) < 5:
                raise Http2Error(frames.FRAME_SIZE_ERROR, "a header frame without room for its priority")
            payload = payload[5:]
        if not stream_id & 1:
            raise Http2Error(frames.PROTOCOL_ERROR, "a stream of a client has an odd number")
        if flags & END_HEADERS:
            self._on_block(stream_id, flags, payload)
        else:
            self._block = (stream_id, flags, payload)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise Http2Error(frames.PROTOCOL_ERROR, "a continuation of nothing")
        if len(payload) < 1024:
            self._patience.spend_idle(1)  # a block in many small pieces
        block = self._block[2] + payload
        if len(block) > HEADER_BLOCK_BYTES_MAX:
            raise Http2Error(frames.ENHANCE_YOUR_CALM, "a header block that is too large")
        first_flags = self._block[1]
        self._block = None if flags & END_HEADERS else (stream_id, first_flags, block)
        if self._block is None:
            self._on_block(stream_id, first_flags, block)

    def _on_block(self, stream_id: int, flags: int, block: bytes) -> None:
        try:
            head = self._decoder.decode(block)
        except HeaderListTooLarge as error:
            raise Http2Error(frames.ENHANCE_YOUR_CALM, str(error)) from error
        except HeaderError as error:
            raise Http2Error(frames.COMPRESSION_ERROR, str(error)) from error
        if stream_id <= self.last_stream_id:
            self._on_trailers(stream_id, flags)
            return
        self.last_stream_id = stream_id
        if self.is_closing or len(self.streams) >= self.streams_max:
            self._patience.spend_reset()
            self.sender.control(frames.rst_stream(stream_id, frames.REFUSED_STREAM))
            return
        self._patience.earned += EARNED_BY_REQUEST
        stream = Stream(stream_id, STREAM_WINDOW_BYTES)
        self.streams[stream_id] = stream
        stream.is_heard = bool(flags & END_STREAM)
        self._listener.on_request(stream, head)

    def _on_trailers(self, stream_id: int, flags: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._patience.spend_frame()  # it was answered or reset before they came
            return
        if stream.is_heard or not flags & END_STREAM:
            self._break_stream(stream, frames.PROTOCOL_ERROR)
            return
        stream.is_heard = True
        self._listener.on_data(stream, b"")

    def _on_closed_stream(self, stream_id: int) -> None:
        """What was on its way when it ended is ignored; it cost its sender more than us."""
        if not stream_id or stream_id > self.last_stream_id:
            raise Http2Error(frames.PROTOCOL_ERROR, f"stream {stream_id} was never opened")

    def _break_stream(self, stream: Stream, code: int) -> None:
        self._patience.spend_reset()
        if stream.is_done:  # answered, but the answer waits for room
            self.sender.drop(stream)
            self.sender.control(frames.rst_stream(stream.id, code))
            return
        self.reset(stream, code)
        self._listener.on_reset(stream)

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(frames.FRAME_SIZE_ERROR, "a reset has four bytes")
        stream = self.streams.pop(stream_id, None)
        if stream is None:
            self._on_closed_stream(stream_id)
            if (lingering := self.sender.lingering(stream_id)) is not None:
                self.sender.drop(lingering)
            return
        self._patience.spend_reset()
        stream.is_done = stream.is_heard = True
        self.sender.drop(stream)
        self._listener.on_reset(stream)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Error(frames.PROTOCOL_ERROR, "settings belong to the connection")
        if len(payload) % 6 or (flags & ACK and payload):
            raise Http2Error(frames.FRAME_SIZE_ERROR, "settings have six bytes each")
        if flags & ACK:
            self._patience.spend_idle(1)
            return
        self._patience.spend_idle(
            1 + self.sender.queued_streams // 32
        )  # a window for all streams is a look at each that waits
        self.sender.control(frames.frame(SETTINGS, ACK, 0))  # in front of what a wider window lets out
        window_bytes = None
        for number, value in frames.read_settings(payload):
            if number == frames.INITIAL_WINDOW_SIZE:
                if value > WINDOW_BYTES_MAX:
                    raise Http2Error(frames.FLOW_CONTROL_ERROR, "a window that is too large")
                window_bytes = value  # the last one counts: each in between would be work for nothing
            elif number == frames.MAX_FRAME_SIZE:
                if not FRAME_BYTES_MAX <= value < 2**24:
                    raise Http2Error(frames.PROTOCOL_ERROR, "a size of frames that is not allowed")
                self.sender.frame_bytes_max = min(value, 1 << 20)
            elif number == frames.ENABLE_PUSH and value > 1:
                raise Http2Error(frames.PROTOCOL_ERROR, "push is on or off")
        if window_bytes is not None:
            self.sender.change_initial_window(window_bytes)

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Error(frames.PROTOCOL_ERROR, "a ping belongs to the connection")
        if len(payload) != 8:
            raise Http2Error(frames.FRAME_SIZE_ERROR, "a ping has eight bytes")
        if flags & ACK:
            return
        self._patience.on_ping(self.sender.sent_count)
        self.sender.control(frames.frame(PING, ACK, 0, payload))

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(frames.FRAME_SIZE_ERROR, "a window update has four bytes")
        self._patience.spend_frame()
        increment_bytes = int.from_bytes(payload, "big") & 0x7FFFFFFF
        if not stream_id:
            if not increment_bytes or not self.sender.widen(increment_bytes):
                raise Http2Error(frames.FLOW_CONTROL_ERROR, "a window of nothing, or too large")
            return
        stream = self.streams.get(stream_id) or self.sender.lingering(stream_id)
        if stream is None:
            self._on_closed_stream(stream_id)
        elif not increment_bytes or not self.sender.widen_stream(stream, increment_bytes):
            self._break_stream(stream, frames.FLOW_CONTROL_ERROR)

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._patience.spend_frame()

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise Http2Error(frames.PROTOCOL_ERROR, "a client promises nothing")

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._patience.spend_idle(1)  # it opens no further streams; those that are open go on


__all__ = ["Connection", "Http2Error", "Listener"]
