"""Whether the client at the other end of a gRPC connection is there: it has to speak HTTP/2 in time, and to answer a ping when it was silent for long.

A peer that is gone without a word must not keep its watches here for ever; one that never says anything must not keep a connection.
"""

import asyncio
from typing import Callable, Final, NamedTuple

from raftkv.units import Milliseconds

GREETING_S: Final = 10.0


class Pulse(NamedTuple):
    """The times of it (settings grpc_keepalive_...)."""

    interval_ms: Milliseconds = 7_200_000  # etcd's: a ping after so much silence,
    timeout_ms: Milliseconds = 20_000  # and the end if it is not answered for so long
    interval_ms_min: Milliseconds = 5_000  # between pings of a client that asks for nothing else


class PulseWatch:
    """Of one connection, which tells it when something was heard."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pulse: Pulse,
        *,
        is_greeted: Callable[[], bool],
        ping: Callable[[], None],
        abort: Callable[[], None],
    ) -> None:
        self.heard_at = loop.time()
        self._loop = loop
        self._interval_s = pulse.interval_ms / 1000
        self._timeout_s = pulse.timeout_ms / 1000
        self._is_greeted = is_greeted
        self._ping = ping
        self._abort = abort
        self._timer = loop.call_later(GREETING_S, self._on_greeting_late)

    def stop(self) -> None:
        """The connection is gone."""
        self._timer.cancel()

    def _on_greeting_late(self) -> None:
        if self._is_greeted():
            self._on_silence()
        else:
            self._abort()

    def _on_silence(self) -> None:
        left_s = self._interval_s - (self._loop.time() - self.heard_at)
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._on_silence)
            return
        asked_at = self.heard_at
        self._ping()
        self._timer = self._loop.call_later(self._timeout_s, self._judge, asked_at)

    def _judge(self, asked_at: float) -> None:
        if self.heard_at == asked_at:
            self._abort()
        else:
            self._on_silence()
