"""One stream of a connection (RFC 9113, 5), and what may be sent on it: flow control of answers."""

from collections import deque
from typing import Any


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
        "send_extra",
        "trailers",
    )

    def __init__(self, stream_id: int, receive_left: int) -> None:
        self.id = stream_id
        self.context: Any = None
        self.is_heard = False  # the client has ended its side
        self.is_done = False  # we have ended ours, or the stream was reset
        # What may be sent beyond the initial window, which the client can change for all streams at once: below zero once something was sent.
        self.send_extra = 0
        self.receive_left = receive_left
        self.queue: deque[memoryview] | None = None  # for lack of window
        self.queued_bytes = 0
        self.trailers: bytes | None = None  # to follow what is queued
